"""Another name of ``the_edge_agent.memory.sqlite.catalog``, for programs that import it from here."""

from the_edge_agent.memory.sqlite.catalog import SQLiteCatalog as SQLiteCatalog
