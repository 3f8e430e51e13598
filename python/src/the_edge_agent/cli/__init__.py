"""The ``tea`` command."""

from the_edge_agent.cli.app import main

__all__ = ["main"]
