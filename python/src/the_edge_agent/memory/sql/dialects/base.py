"""The portable dialect: plain SQL that any database runs, and the hooks that others fill better."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    Integer,
    String,
    Table,
    Text,
    and_,
    bindparam,
    column,
    delete,
    exc,
    func,
    insert,
    inspect,
    not_,
    select,
    table,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.base import Store
from the_edge_agent.memory.results import LTMError
from the_edge_agent.memory.sql.dialects.conditions import FilterConditions
from the_edge_agent.memory.sql.errors import LostRaceError
from the_edge_agent.memory.text import TOKEN_START, Term
from the_edge_agent.memory.validation import MAX_KEY_LENGTH

Incoming: TypeAlias = Mapping[str, Any] | ReadOnlyColumnCollection[str, Any]


class Dialect(FilterConditions):
    """How one engine creates, writes and searches the entries' table.

    One instance belongs to one engine; its statements are built once. The base class uses nothing but
    portable SQL: an update and then an insert, LIKE over the search tokens, metadata filters in Python.
    """

    key_type: ClassVar[TypeEngine[Any]] = String(MAX_KEY_LENGTH)
    text_type: ClassVar[TypeEngine[Any]] = Text()
    token_type: ClassVar[TypeEngine[Any]] = Text()
    time_type: ClassVar[DateTime] = DateTime()

    #: Whether ``key_type`` is known to compare exactly; otherwise the first start checks it.
    has_exact_keys: ClassVar[bool] = False

    #: Whether the reads of a transaction see one state, and the isolation level that this takes (None: the default).
    keeps_one_state: ClassVar[bool] = False
    snapshot_isolation: ClassVar[str | None] = None

    def __init__(self, entries: Table) -> None:
        """Build the statements for the entries' table, which ``extend`` has seen before."""
        self.entries = entries
        columns = entries.c
        self.update_statement = (
            update(entries).where(columns.key == bindparam("b_key")).values(self.changes(self.parameters()))
        )
        self.insert_statement = insert(entries).values(self.new_row())
        self.version_statement = select(columns.version).where(columns.key == bindparam("b_key"))
        self.delete_statement = delete(entries).where(columns.key == bindparam("b_key"))

    # --- before connecting -------------------------------------------------------------------------

    @classmethod
    def ascii_type(cls, length: int) -> TypeEngine[Any]:
        """Return the type of ASCII identifiers."""
        return String(length)

    @classmethod
    def connect_args(cls, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return the driver's arguments for its time limits, in seconds."""
        return {}

    @classmethod
    def engine_options(cls, url: URL) -> tuple[URL, dict[str, Any]]:
        """Return the URL to use and the arguments of ``create_engine`` that this database needs."""
        return url, {"pool_pre_ping": True, "pool_recycle": 1800}

    @classmethod
    def prepare_engine(cls, engine: Engine) -> Any:
        """Attach what an engine of our own needs; return what must be closed after it, or None."""
        return None

    # --- creation ----------------------------------------------------------------------------------

    @classmethod
    def extend(cls, entries: Table) -> None:
        """Add this database's columns and indexes to the engine's copy of the entries' table."""

    def probe(self, connection: Connection) -> None:
        """Look at what the server can do; called once, before the tables are created."""

    def create(self, connection: Connection, tables: Iterable[Table]) -> None:
        """Create what is missing. Safe to repeat after a race, or after a crash half way."""
        for made in tables:
            connection.execute(CreateTable(made, if_not_exists=True))
            existing = {index["name"] for index in inspect(connection).get_indexes(made.name)}
            for index in sorted(made.indexes, key=lambda index: str(index.name)):
                if index.name not in existing:
                    connection.execute(CreateIndex(index))

    def check_keys(self, connection: Connection) -> None:
        """Refuse a database that merges keys or orders them otherwise; the caller rolls back.

        Raises:
            LTMError: ``configuration_error``.
        """
        prefix = f"{uuid.uuid4()}/"
        keys = sorted(prefix + key for key in ("a", "A", "a ", "á", "a\u0301", "B", "_", "日", "\uffff", "😀"))
        now = self.clock(connection, statements=len(keys))
        try:
            connection.execute(self.insert_statement, [self.row(Store.of(key, None, None), now) for key in keys])
            column = self.entries.c.key
            found = connection.scalars(
                select(column).where(column >= prefix, column < prefix[:-1] + "0").order_by(column)
            )
            is_exact = found.all() == keys
        except exc.IntegrityError:
            is_exact = False
        if not is_exact:
            raise LTMError(
                "configuration_error",
                "this database does not keep keys exactly (case, accents, trailing spaces, order by code point); "
                "create the table with a binary collation for the column key",
            )

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Keep other processes from renaming the table until the transaction ends: lock every row of it."""
        renamed = table(name, column("key"))
        connection.execute(update(renamed).values(key=renamed.c.key))
        return nullcontext()

    def max_entry_bytes(self, connection: Connection) -> int | None:
        """Return how large one statement may be, None if there is no limit worth checking."""
        return None

    # --- transactions and time ---------------------------------------------------------------------

    def begin(self, connection: Connection, *, write: bool) -> None:
        """Begin the transaction; most drivers do it with the first statement."""

    @property
    def now(self) -> ColumnElement[Any]:
        """The time of the transaction, in a statement; the portable one is the process's clock."""
        return bindparam("b_now", type_=self.entries.c.updated_at.type)

    def clock(self, connection: Connection, *, statements: int) -> datetime | None:
        """Return the value to bind as the time of a transaction of that many statements."""
        return datetime.now(timezone.utc)

    # --- writes ------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, ColumnElement[Any]]:
        """Return the bound columns of an entry: those that every store writes."""
        columns = self.entries.c
        return {
            "key": bindparam("b_key", type_=columns.key.type),
            "value": bindparam("b_value", type_=self.text_type),
            "metadata": bindparam("b_metadata", type_=self.text_type),
            "search_text": bindparam("b_search_text", type_=columns.search_text.type),
        }

    def row(self, entry: Store, now: datetime | None) -> dict[str, Any]:
        """Return the parameters of a store."""
        return {
            "b_key": entry.key,
            "b_value": entry.value,
            "b_metadata": entry.metadata,
            "b_search_text": entry.search_text,
            "b_now": now,
        }

    def new_row(self) -> dict[str, Any]:
        """Return the columns of a created entry."""
        return {**self.parameters(), "version": 1, "created_at": self.now, "updated_at": self.now}

    def changes(self, incoming: Incoming) -> dict[str, Any]:
        """Return the columns that a store over an existing entry sets."""
        written = {name: incoming[name] for name in self.parameters() if name != "key"}
        return {**written, "version": self.entries.c.version + 1, "updated_at": self.now}

    def upsert(self, connection: Connection, row: Mapping[str, Any]) -> int:
        """Store an entry and return its version: 1 means that it was created."""
        if connection.execute(self.update_statement, row).rowcount:
            version: int = connection.execute(self.version_statement, {"b_key": row["b_key"]}).scalar_one()
            return version
        try:
            connection.execute(self.insert_statement, row)
        except exc.IntegrityError:
            raise LostRaceError from None
        return 1

    def delete(self, connection: Connection, key: str) -> bool:
        """Delete an entry and return whether it was there."""
        return bool(connection.execute(self.delete_statement, {"b_key": key}).rowcount)

    # --- search ------------------------------------------------------------------------------------

    def text_condition(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        """Return the condition that an entry has (or, negated, lacks) every term."""
        return and_(*(self.contains(term) for term in terms))

    def contains(self, term: Term) -> ColumnElement[bool]:
        """Return the condition of one term, by looking at the whole search text."""
        found = self.entries.c.search_text.contains(term.needle)
        return not_(found) if term.negated else found

    def occurrences(self, needle: str) -> ColumnElement[int]:
        """Return how often a string occurs in the search text."""
        column = self.entries.c.search_text
        shorter = func.replace(column, needle, "", type_=Text())
        return (func.length(column, type_=Integer()) - func.length(shorter, type_=Integer())) // len(needle)

    def token_count(self) -> ColumnElement[int]:
        """Return how many tokens the search text has."""
        return self.occurrences(TOKEN_START)
