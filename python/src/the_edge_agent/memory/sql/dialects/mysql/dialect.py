"""The dialect of MySQL: an index of words in a table of our own, and filters by JSON functions."""

from __future__ import annotations

from the_edge_agent.memory.sql.dialects.base import Dialect
from the_edge_agent.memory.sql.dialects.mysql.connection import MySQLEngines, MySQLSessions
from the_edge_agent.memory.sql.dialects.mysql.features import MySQLFeatures
from the_edge_agent.memory.sql.dialects.mysql.queries import MySQLQueries
from the_edge_agent.memory.sql.dialects.mysql.schema import MySQLSchema
from the_edge_agent.memory.sql.dialects.mysql.transactions import MySQLTimes, MySQLTransactions


class MySQLDialect(Dialect):
    """MySQL 8.0.20 or later.

    It uses no FULLTEXT index, because InnoDB's index does not follow transactions. While a transaction overwrites an
    entry, a search by that index finds neither the old nor the new text (in 2 to 3 % of searches, measured). A row and
    its index entry are not committed at the same moment. Our own table and LIKE read what the transaction sees.
    """

    features: MySQLFeatures = MySQLFeatures()
    engines = MySQLEngines()
    sessions = MySQLSessions()
    schema_class = MySQLSchema
    transactions_class = MySQLTransactions
    times_class = MySQLTimes
    queries_class = MySQLQueries
