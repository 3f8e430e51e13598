"""Memory in SQLite with the standard library alone. This is the reference implementation: read it first."""

from typing import TYPE_CHECKING

from the_edge_agent.memory.core.names import lazy_names

if TYPE_CHECKING:
    from the_edge_agent.memory.sqlite.backend import SQLiteBackend as SQLiteBackend

__getattr__ = lazy_names("the_edge_agent.memory.sqlite.backend", __name__, "SQLiteBackend")
