"""``Dialect``: all parts of one database in one object."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.sql.dialects.base.connection import Engines, Sessions
from the_edge_agent.memory.sql.dialects.base.features import Features
from the_edge_agent.memory.sql.dialects.base.queries import Queries
from the_edge_agent.memory.sql.dialects.base.schema import DialectSchema
from the_edge_agent.memory.sql.dialects.base.transactions import Times, Transactions


class Dialect:
    """The parts of one database.

    A subclass names its own classes for the parts in which its database differs. The base class uses only portable
    SQL: an update and then an insert, LIKE over the search texts, and metadata filters in Python.

    The parts ``engines`` and ``sessions`` are used on the class, because they need no probe of the server. An instance
    belongs to one engine, and has the other parts.

    Attributes:
        features: what the database can do. The class has the values that hold without a connection. An instance has a
            copy, and its probe changes that copy.
        engines: prepares a URL before connecting.
        sessions: sets up and checks connections of the driver.
        schema: defines and creates the tables.
        transactions: begins, locks and ends transactions.
        times: has the SQL for the current time and for expiry.
        queries: has the SQL parts from which statements are built.
    """

    features: Features = Features()
    engines: Engines = Engines()
    sessions: Sessions = Sessions()
    schema_class: ClassVar[type[DialectSchema]] = DialectSchema
    transactions_class: ClassVar[type[Transactions]] = Transactions
    times_class: ClassVar[type[Times]] = Times
    queries_class: ClassVar[type[Queries]] = Queries

    def __init__(self, timestamp: TypeEngine[datetime]) -> None:
        """Create the dialect of one engine. ``timestamp`` is the SQL type for times that are bound."""
        self.features = features = replace(self.features)
        self.schema = self.schema_class(features)
        self.transactions = self.transactions_class(features)
        self.times = self.times_class(features, timestamp)
        self.queries = self.queries_class(features)
