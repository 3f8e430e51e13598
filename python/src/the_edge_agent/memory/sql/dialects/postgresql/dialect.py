"""The dialect of PostgreSQL: words in a tsvector, and filters by a JSONB copy of the metadata."""

from __future__ import annotations

from the_edge_agent.memory.sql.dialects.base import Dialect
from the_edge_agent.memory.sql.dialects.postgresql.connection import PostgreSQLEngines, PostgreSQLSessions
from the_edge_agent.memory.sql.dialects.postgresql.features import PostgreSQLFeatures
from the_edge_agent.memory.sql.dialects.postgresql.queries import PostgreSQLQueries
from the_edge_agent.memory.sql.dialects.postgresql.schema import PostgreSQLSchema
from the_edge_agent.memory.sql.dialects.postgresql.transactions import PostgreSQLTimes, PostgreSQLTransactions


class PostgreSQLDialect(Dialect):
    """PostgreSQL 12 or later, and databases that understand its SQL."""

    features: PostgreSQLFeatures = PostgreSQLFeatures()
    engines = PostgreSQLEngines()
    sessions = PostgreSQLSessions()
    schema_class = PostgreSQLSchema
    transactions_class = PostgreSQLTransactions
    times_class = PostgreSQLTimes
    queries_class = PostgreSQLQueries
