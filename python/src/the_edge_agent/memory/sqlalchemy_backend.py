"""Another name of ``the_edge_agent.memory.sql.backend``, for programs that import it from here."""

from the_edge_agent.memory.sql.backend import SQLAlchemyBackend as SQLAlchemyBackend
