"""MySQL: the dialect. Its words are in a table of ours, its filters use JSON functions."""

from __future__ import annotations

from the_edge_agent.memory.sql.dialects.base import Dialect
from the_edge_agent.memory.sql.dialects.mysql.connection import MySQLEngines, MySQLSessions
from the_edge_agent.memory.sql.dialects.mysql.features import MySQLFeatures
from the_edge_agent.memory.sql.dialects.mysql.queries import MySQLQueries
from the_edge_agent.memory.sql.dialects.mysql.schema import MySQLSchema
from the_edge_agent.memory.sql.dialects.mysql.transactions import MySQLTimes, MySQLTransactions


class MySQLDialect(Dialect):
    """MySQL 8.0.20 or later.

    No FULLTEXT index: InnoDB's does not follow transactions. While an entry is being overwritten, a search
    through it finds neither the old nor the new text (measured: 2 to 3 % of searches), and it shows a row
    as committed before or after its index entry. A table of ours and LIKE read what the transaction sees.
    """

    features: MySQLFeatures = MySQLFeatures()
    engines = MySQLEngines()
    sessions = MySQLSessions()
    schema_class = MySQLSchema
    transactions_class = MySQLTransactions
    times_class = MySQLTimes
    queries_class = MySQLQueries
