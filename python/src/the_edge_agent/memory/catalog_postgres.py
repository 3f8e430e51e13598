"""Another name of ``the_edge_agent.memory.postgres.catalog``, for programs that import it from here."""

from the_edge_agent.memory.postgres.catalog import PostgresCatalog as PostgresCatalog
