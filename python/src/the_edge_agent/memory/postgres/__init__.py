"""Memory in PostgreSQL with psycopg, without SQLAlchemy."""

from typing import TYPE_CHECKING

from the_edge_agent.memory.core.names import lazy_names

if TYPE_CHECKING:
    from the_edge_agent.memory.postgres.backend import PostgresBackend as PostgresBackend

__getattr__ = lazy_names("the_edge_agent.memory.postgres.backend", __name__, "PostgresBackend")
