"""The portable dialect: plain SQL that any database runs, and the hooks that others fill better."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Index,
    Integer,
    Table,
    TextClause,
    bindparam,
    column,
    func,
    inspect,
    or_,
    table,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.sql.dialects.base.connection import BEGINS_ITSELF, Engines, Sessions
from the_edge_agent.memory.sql.dialects.base.features import Features
from the_edge_agent.memory.sql.dialects.conditions import FilterConditions
from the_edge_agent.memory.sql.dialects.text import TextConditions
from the_edge_agent.memory.sql.dialects.upsert import Upsert

Run: TypeAlias = Callable[[Callable[[Connection], Any]], Any]  # runs work in one transaction that writes


class Upkeep(ABC):
    """Work that follows stores, in transactions of its own: each time that so many entries were stored."""

    every: ClassVar[int]

    def __init__(self) -> None:
        """Begin at random, so that processes that store a few entries each do it as often as one that stores many."""
        self._left = random.randint(1, self.every)  # noqa: S311 - keeps no secret

    def is_due(self, stores: int) -> bool:
        """Count stores, and return whether it is time."""
        self._left -= stores
        if self._left > 0:
            return False
        self._left = self.every
        return True

    @abstractmethod
    def some(self, run: Run) -> None:
        """Do what has come up, but no more than a store may take.

        Raises:
            LTMError: some of it is left for another time.
        """

    @abstractmethod
    def all(self, run: Run) -> tuple[int, int]:
        """Do all of it; return how many blocks were made, and for how many entries.

        Raises:
            LTMError: some of it is left.
        """


class Dialect:
    """How one server is connected to, and how tables are created, written and searched there.

    One instance belongs to one engine. The base class uses nothing but portable SQL: an update and then an
    insert, LIKE over the search tokens, metadata filters in Python.
    """

    #: What the database can do: of the class, what is known of it; of an instance, also what its probe has found.
    features: Features = Features()
    engines: Engines = Engines()
    sessions: Sessions = Sessions()

    def __init__(self, timestamp: TypeEngine[datetime]) -> None:
        """Make the dialect of one engine, which binds times as ``timestamp``."""
        self.timestamp = timestamp
        self.features = replace(self.features)

    # --- before connecting -------------------------------------------------------------------------

    # --- creation ----------------------------------------------------------------------------------

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Look at what the server can do and at what the tables have, if they are there; before they are created."""

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add this database's columns and indexes to the engine's copies of the tables; after the probe."""

    def check_tables(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Refuse those of the tables, if they are there, that were made in a way that loses something.

        Raises:
            LTMError: ``configuration_error`` that names the table and what to do.
        """

    def index_expiry(self, entries: Table) -> None:
        """Index when entries expire; only those that do, where an index can be partial."""
        expires_at, option = entries.c.expires_at, self.features.partial_index
        is_wanted: dict[str, Any] = {option: expires_at.is_not(None)} if option else {}
        Index(f"ix_{entries.name}_expires_at", expires_at, **is_wanted)

    def set_up(self, connection: Connection) -> None:
        """Make lasting settings of a database that we opened ourselves; called once, at each start."""

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Return the statements that create the tables and their indexes, in order."""
        found: list[ExecutableDDLElement | TextClause] = []
        for made in (entries, *others):
            found.append(CreateTable(made, if_not_exists=True))
            found += [CreateIndex(index) for index in sorted(made.indexes, key=lambda index: str(index.name))]
        return found

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create what is missing. Safe to repeat after a race, or after a crash half way."""
        for definition in self.definitions(*tables):
            if not _is_there(connection, definition):
                connection.execute(definition)

    def search_tables(self, entries: Table) -> list[Table]:
        """Return the tables that ``definitions`` adds for searches, to be dropped after the entries' table."""
        return []

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Keep other processes from renaming the table until the transaction ends: lock every row of it."""
        renamed = table(name, column("key"))
        connection.execute(update(renamed).values(key=renamed.c.key))
        return nullcontext()

    def server_version(self, connection: Connection) -> str | None:
        """Return the server's version as people write it, None where it is not known."""
        found = connection.dialect.server_version_info
        return ".".join(str(part) for part in found if isinstance(part, int)) if found else None

    def max_entry_bytes(self, connection: Connection) -> int | None:
        """Return how large one statement may be, None if there is no limit worth checking."""
        return None

    # --- transactions and time ---------------------------------------------------------------------

    def begin(self, connection: Connection, *, write: bool, snapshot: bool = False) -> AbstractContextManager[Any]:
        """Begin a transaction and return what ends it.

        Args:
            connection: on which there is none.
            write: whether it will write.
            snapshot: whether all of its reads must see one state, where the database can do that.
        """
        transaction = connection.begin()
        if snapshot and self.features.before_snapshot is not None:
            connection.exec_driver_sql(self.features.before_snapshot)
        if (write or snapshot) and connection.get_execution_options().get(BEGINS_ITSELF):
            connection.exec_driver_sql("START TRANSACTION")
        return transaction

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Let one statement be a transaction of its own, on a connection that is in none."""
        return _Ended(driver_connection, write)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the one row of a table until the transaction ends: alone, or together with others that do not."""
        first = next(iter(table.c))
        connection.execute(update(table).values({first.name: first}))

    def analyze(self, connection: Connection, *tables: Table) -> None:
        """Tell the planner of rows that have just come, where it would else compare each with each."""

    @property
    def now(self) -> ColumnElement[Any]:
        """The time of the transaction, in a statement; the portable one is the process's clock."""
        return bindparam("b_now", type_=self.timestamp)

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Return the value to bind as the time of a transaction of that many statements; one needs no connection."""
        return datetime.now(timezone.utc)

    @property
    def expiry(self) -> ColumnElement[Any]:
        """When a row expires that is stored now; NULL for never.

        Of ``b_expires_at``; or of ``b_until`` and else, by the server's clock, of ``b_ttl``.
        """
        return bindparam("b_expires_at", type_=self.timestamp)

    def size(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return how long a text is, in characters or in bytes, whichever is quicker."""
        return func.length(column, type_=Integer())

    def visible(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row has not expired."""
        return or_(table.c.expires_at.is_(None), table.c.expires_at > self.now)

    def expired(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row has expired."""
        return table.c.expires_at <= self.now

    # --- writes and searches -----------------------------------------------------------------------

    def metadata_columns(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the bound columns of a table that keep metadata."""
        return {"metadata": bindparam("b_metadata", type_=self.features.text_type)}

    def metadata_parameters(self, metadata: str | None) -> dict[str, Any]:
        """Return the parameters of ``metadata_columns`` for a JSON text."""
        return {"b_metadata": metadata}

    def sortable(self, timestamp: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column of times in the form in which Python reads it quickest and can sort by it."""
        return timestamp

    def unindexed(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return columns of the entries' table, with the values that they get when the words of an entry change."""
        return {}

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return the upsert that stores rows of these bound columns, which begin with the primary key."""
        return Upsert(table, row)

    def filters(self, table: Table) -> FilterConditions:
        """Return the compiler that turns metadata filters into SQL conditions on a table."""
        return FilterConditions(table)

    def upkeep(self, entries: Table) -> Upkeep | None:
        """Return the work that follows stores, None where there is none."""
        return None

    def texts(self, entries: Table) -> TextConditions:
        """Return the object that turns queries into SQL conditions on the entries' table.

        A database with a text index returns a subclass of ``IndexedTextConditions``.
        """
        return TextConditions(entries)


def _is_there(connection: Connection, definition: ExecutableDDLElement | TextClause) -> bool:
    match definition:
        case CreateTable(element=made):
            return inspect(connection).has_table(made.name)
        case CreateIndex(element=index) if index.table is not None:
            return index.name in {found["name"] for found in inspect(connection).get_indexes(index.table.name)}
    return False


class _Ended:
    """Ends what a statement has begun."""

    def __init__(self, driver_connection: Any, write: bool) -> None:
        self._connection, self._write = driver_connection, write

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(Exception):  # of a lost connection
                self._connection.rollback()
        elif self._write:
            self._connection.commit()
        else:
            self._connection.rollback()
