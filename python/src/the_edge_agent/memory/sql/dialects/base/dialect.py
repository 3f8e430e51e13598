"""A dialect: the parts of a database, put together."""

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
    """What one database does in its own way, in parts.

    A subclass names the parts in which its database differs. The base class uses nothing but portable SQL: an update
    and then an insert, LIKE over the search tokens, metadata filters in Python.

    The class serves what is done before a server is known, and with any connection. An instance belongs to one engine.

    Attributes:
        features: what the database can do. The class has what is known of it; an instance has a copy, which its probe
            fills.
        engines: what is done with a URL before connecting.
        sessions: what is done with connections of the driver.
        schema: how tables are made.
        transactions: how transactions begin and end.
        times: what time it is in them, and what has expired.
        queries: what statements are made of.
    """

    features: Features = Features()
    engines: Engines = Engines()
    sessions: Sessions = Sessions()
    schema_class: ClassVar[type[DialectSchema]] = DialectSchema
    transactions_class: ClassVar[type[Transactions]] = Transactions
    times_class: ClassVar[type[Times]] = Times
    queries_class: ClassVar[type[Queries]] = Queries

    def __init__(self, timestamp: TypeEngine[datetime]) -> None:
        """Make the dialect of one engine, which binds times as ``timestamp``."""
        self.features = features = replace(self.features)
        self.schema = self.schema_class(features)
        self.transactions = self.transactions_class(features)
        self.times = self.times_class(features, timestamp)
        self.queries = self.queries_class(features)
