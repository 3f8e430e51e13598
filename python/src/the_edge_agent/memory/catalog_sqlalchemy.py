"""Another name of ``the_edge_agent.memory.sql.catalog``, for programs that import it from here."""

from the_edge_agent.memory.sql.catalog import SQLAlchemyCatalog as SQLAlchemyCatalog
