"""Memory in SQLite with the standard library alone: the reference, to be read first."""

from typing import TYPE_CHECKING

from the_edge_agent.memory.core.names import found_in

if TYPE_CHECKING:
    from the_edge_agent.memory.sqlite.backend import SQLiteBackend as SQLiteBackend

__getattr__ = found_in("the_edge_agent.memory.sqlite.backend", __name__, "SQLiteBackend")
