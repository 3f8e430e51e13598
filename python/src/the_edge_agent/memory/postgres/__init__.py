"""Memory in PostgreSQL with psycopg, without SQLAlchemy."""

from typing import TYPE_CHECKING

from the_edge_agent.memory.core.names import found_in

if TYPE_CHECKING:
    from the_edge_agent.memory.postgres.backend import PostgresBackend as PostgresBackend

__getattr__ = found_in("the_edge_agent.memory.postgres.backend", __name__, "PostgresBackend")
