"""The portable dialect: plain SQL that any database runs, and the hooks that others fill better."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    Integer,
    RootTransaction,
    String,
    Table,
    Text,
    TextClause,
    and_,
    bindparam,
    case,
    column,
    delete,
    exc,
    func,
    insert,
    inspect,
    not_,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.operations import Store
from the_edge_agent.memory.results import LTMError, conflict
from the_edge_agent.memory.sql.dialects.conditions import FilterConditions
from the_edge_agent.memory.sql.errors import LostRaceError
from the_edge_agent.memory.sql.sockets import shut_down
from the_edge_agent.memory.text import TOKEN_START, Term
from the_edge_agent.memory.validation import MAX_KEY_LENGTH

MICROSECOND: Final = timedelta(microseconds=1)

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

    #: The drivers whose socket ``socket_of`` finds: a look at it tells whether the connection is alive.
    socket_drivers: ClassVar[frozenset[str]] = frozenset()

    #: The level of transactions where a caller's engine would commit each statement.
    isolation_level: ClassVar[str] = "READ COMMITTED"

    #: Whether ``key_type`` is known to compare exactly; otherwise the first start checks it.
    has_exact_keys: ClassVar[bool] = False

    #: Whether the reads of a transaction that begins as a snapshot see one state.
    keeps_one_state: ClassVar[bool] = False

    def __init__(self, entries: Table) -> None:
        """Build the statements for the entries' table, which ``extend`` has seen before."""
        self.entries = entries
        columns = entries.c
        has_key, is_current = columns.key == bindparam("b_key"), columns.version == bindparam("b_version")
        self.expired = columns.expires_at <= self.now
        self.visible = or_(columns.expires_at.is_(None), columns.expires_at > self.now)
        changed = update(entries).where(has_key).ordered_values(*self.changes(self.new_row()))
        self.update_statement = changed
        self.replace_statement = changed.where(is_current, self.visible)
        self.revive_statement = changed.where(self.expired)
        self.insert_statement = insert(entries).values(self.new_row())
        self.version_statement = select(columns.version).where(has_key)
        self.current_statement = select(case((self.visible, columns.version), else_=0)).where(has_key)
        self.delete_statement = delete(entries).where(has_key, self.visible)

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
        return url, {"pool_pre_ping": not cls.socket_drivers & {url.get_driver_name()}, "pool_recycle": 1800}

    @classmethod
    def prepare_engine(cls, engine: Engine) -> Any:
        """Attach what an engine of our own needs; return what must be closed after it, or None."""
        return None

    @classmethod
    def socket_of(cls, driver_connection: Any) -> int:
        """Return the file descriptor of a connection's socket, -1 where the driver has none to show."""
        return -1

    @classmethod
    def stop(cls, driver_connection: Any) -> None:
        """Make a connection give up what it is waiting for; called from another thread."""
        shut_down(cls.socket_of(driver_connection))

    # --- creation ----------------------------------------------------------------------------------

    @classmethod
    def extend(cls, entries: Table) -> None:
        """Add this database's columns and indexes to the engine's copy of the entries' table."""

    def probe(self, connection: Connection) -> None:
        """Look at what the server can do; called once, before the tables are created."""

    def set_up(self, connection: Connection) -> None:
        """Make lasting settings of a database that we opened ourselves; called once, at each start."""

    def definitions(self, tables: Iterable[Table]) -> list[ExecutableDDLElement | TextClause]:
        """Return the statements that create the tables and their indexes, in order."""
        found: list[ExecutableDDLElement | TextClause] = []
        for made in tables:
            found.append(CreateTable(made, if_not_exists=True))
            found += [CreateIndex(index) for index in sorted(made.indexes, key=lambda index: str(index.name))]
        return found

    def create(self, connection: Connection, tables: Iterable[Table]) -> None:
        """Create what is missing. Safe to repeat after a race, or after a crash half way."""
        for definition in self.definitions(tables):
            if isinstance(definition, CreateIndex):
                index = definition.element
                existing = inspect(connection).get_indexes(index.table.name) if index.table is not None else []
                if index.name in {found["name"] for found in existing}:
                    continue
            connection.execute(definition)

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

    def begin(self, connection: Connection, *, write: bool, snapshot: bool = False) -> RootTransaction:
        """Begin a transaction.

        Args:
            connection: on which there is none.
            write: whether it will write.
            snapshot: whether all of its reads must see one state, where the database can do that.
        """
        return connection.begin()

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

    @property
    def expiry(self) -> ColumnElement[Any]:
        """When an entry expires that is stored now; NULL for never."""
        return bindparam("b_expires_at", type_=self.entries.c.expires_at.type)

    def row(self, entry: Store, now: datetime | None, count: int = 1) -> dict[str, Any]:
        """Return the parameters of a store that stands for ``count`` stores of the same key."""
        return {
            "b_key": entry.key,
            "b_value": entry.value,
            "b_metadata": entry.metadata,
            "b_search_text": entry.search_text,
            "b_now": now,
            "b_expires_at": now + entry.ttl if now and entry.ttl else None,
            "b_ttl": entry.ttl and entry.ttl // MICROSECOND,
            "b_count": count,
        }

    def new_row(self) -> dict[str, Any]:
        """Return the columns of a created entry."""
        return {
            **self.parameters(),
            "version": bindparam("b_count", type_=BigInteger()),
            "expires_at": self.expiry,
            "created_at": self.now,
            "updated_at": self.now,
        }

    def changes(self, incoming: Incoming) -> list[tuple[ColumnElement[Any], Any]]:
        """Return what a store over an entry sets: over an expired one all that a create would.

        MySQL assigns from left to right and sees what it has assigned: so what looks at ``expires_at`` is first.
        """
        columns = self.entries.c
        is_over = columns.expires_at <= incoming["updated_at"]
        version, created_at = incoming["version"], incoming["updated_at"]
        written = [(columns[name], incoming[name]) for name in self.parameters() if name != "key"]
        return [
            (columns.version, case((is_over, version), else_=columns.version + version)),
            (columns.created_at, case((is_over, created_at), else_=columns.created_at)),
            *written,
            (columns.expires_at, incoming["expires_at"]),
            (columns.updated_at, incoming["updated_at"]),
        ]

    def upsert(self, connection: Connection, row: Mapping[str, Any]) -> int:
        """Store an entry and return its version, which is the row's count if it was created."""
        if connection.execute(self.update_statement, row).rowcount:
            version: int = connection.execute(self.version_statement, {"b_key": row["b_key"]}).scalar_one()
            return version
        self._insert(connection, row)
        count: int = row["b_count"]
        return count

    def upsert_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store entries of different keys, which are in order, and return the version of each key."""
        return {row["b_key"]: self.upsert(connection, row) for row in rows}

    def store_if(self, connection: Connection, row: Mapping[str, Any], version: int) -> int:
        """Store over this version of an entry only, 0 for none, and return the new version.

        Raises:
            LTMError: ``conflict``.
        """
        if version and connection.execute(self.replace_statement, {**row, "b_version": version}).rowcount:
            return version + 1
        key: str = row["b_key"]
        current = connection.execute(self.current_statement, {"b_key": key, "b_now": row["b_now"]}).scalar()
        if version or current:
            raise conflict(key, current or 0)
        if current is None:
            self._insert(connection, row)
        elif not connection.execute(self.revive_statement, row).rowcount:
            raise LostRaceError
        return 1

    def _insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        try:
            connection.execute(self.insert_statement, row)
        except exc.IntegrityError:
            raise LostRaceError from None

    def delete(self, connection: Connection, key: str, now: datetime | None) -> bool:
        """Delete an entry and return whether it was there."""
        return bool(connection.execute(self.delete_statement, {"b_key": key, "b_now": now}).rowcount)

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
