"""The dialect of SQLite: words in an FTS5 table, and filters by json_each."""

from __future__ import annotations

from the_edge_agent.memory.sql.dialects.base import Dialect
from the_edge_agent.memory.sql.dialects.sqlite.connection import SQLiteEngines, SQLiteSessions
from the_edge_agent.memory.sql.dialects.sqlite.features import SQLiteFeatures
from the_edge_agent.memory.sql.dialects.sqlite.queries import SQLiteQueries
from the_edge_agent.memory.sql.dialects.sqlite.schema import SQLiteSchema
from the_edge_agent.memory.sql.dialects.sqlite.transactions import SQLiteTransactions


class SQLiteDialect(Dialect):
    """SQLite 3.35 or later. Without FTS5 it uses LIKE, without JSON functions Python decides filters."""

    features: SQLiteFeatures = SQLiteFeatures()
    engines = SQLiteEngines()
    sessions = SQLiteSessions()
    schema_class = SQLiteSchema
    transactions_class = SQLiteTransactions
    queries_class = SQLiteQueries
