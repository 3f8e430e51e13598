"""The dialect of Firebird: keys as bytes, times as integers, and every transaction sees one state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, Index, Table, TextClause, func, text
from sqlalchemy.engine import URL
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.schema import CreateTable, ExecutableDDLElement
from sqlalchemy.types import UserDefinedType

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.sql.dialects.base import (
    Dialect,
    DialectSchema,
    Engines,
    Features,
    Queries,
    Sessions,
    Transactions,
)
from the_edge_agent.memory.sql.driver.deadlines import Deadline

_WIDEST: Final = 4  # bytes of a character
_PAGE_BYTES: Final = 16_384  # a key of an index may be a quarter of a page
_PAGE_SIZE: Final = text("SELECT mon$page_size FROM mon$database")
_ENGINE_VERSION: Final = text("SELECT rdb$get_context('SYSTEM', 'ENGINE_VERSION') FROM rdb$database")
_PORT: Final = 3050
_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)

Processor = Callable[[Any], Any]


class _Octets(UserDefinedType[str]):
    """Text that compares by its bytes in UTF-8, and so by code point. Other collations ignore trailing spaces."""

    cache_ok = True
    render_bind_cast = True  # otherwise a parameter in a list of columns has no type

    def __init__(self, length: int) -> None:
        self.length = length  # bytes

    def get_col_spec(self, **_: Any) -> str:
        return f"VARCHAR({self.length}) CHARACTER SET OCTETS"

    def bind_processor(self, dialect: EngineDialect) -> Processor:
        return lambda value: None if value is None else value.encode()

    def result_processor(self, dialect: EngineDialect, coltype: object) -> Processor:
        return lambda value: None if value is None else value.decode()


class _Blob(UserDefinedType[str]):
    """Text of any length in this character set, independent of the database's character set."""

    cache_ok = True
    render_bind_cast = True  # otherwise a parameter in a list of columns has no type

    def __init__(self, charset: str) -> None:
        self.charset = charset

    def get_col_spec(self, **_: Any) -> str:
        return f"BLOB SUB_TYPE TEXT CHARACTER SET {self.charset}"


class _Microseconds(UserDefinedType[datetime]):
    """A time in UTC as microseconds since 1970, because a TIMESTAMP has only four decimals of a second."""

    cache_ok = True
    render_bind_cast = True  # otherwise a parameter in a list of columns has no type
    timezone = False

    def get_col_spec(self, **_: Any) -> str:
        return "BIGINT"

    def bind_processor(self, dialect: EngineDialect) -> Processor:
        return lambda value: None if value is None else (value - _EPOCH) // _MICROSECOND

    def result_processor(self, dialect: EngineDialect, coltype: object) -> Processor:
        return lambda value: None if value is None else _EPOCH + value * _MICROSECOND


class FirebirdEngines(Engines):
    """Engines for Firebird."""

    def connect_args(self, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Set the encoding of the driver to UTF-8."""
        return {"charset": "UTF8"}

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Put the server into the name of the file: SQLAlchemy's dialect has one server for each path in a process."""
        url, options = super().arguments(url)
        if url.host is None:
            return url, options
        host = f"[{url.host}]" if ":" in url.host else url.host
        return url, {**options, "connect_args": {"database": f"inet://{host}:{url.port or _PORT}/{url.database}"}}

    def prepare(self, engine: Engine) -> Any:
        """Close lost connections by ``close``, because the dialect's own way calls a method that the driver lacks."""
        engine.dialect.do_terminate = engine.dialect.do_close  # type: ignore[method-assign]


class FirebirdSessions(Sessions):
    """Connections to Firebird."""

    def stop(self, driver_connection: Any) -> None:
        """Close the socket, which also ends a wait for a server that is silent."""
        from firebird.driver.types import CancelType

        driver_connection._att.cancel_operation(CancelType.ABORT)


class FirebirdSchema(DialectSchema):
    """Defines and creates our tables on Firebird."""

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Refuse a database whose pages are too small for an index of long keys."""
        page_bytes = connection.scalar(_PAGE_SIZE)
        if page_bytes < _PAGE_BYTES:
            message = f"the database has pages of {page_bytes:,} bytes; create it with PAGE_SIZE {_PAGE_BYTES}"
            raise LTMError("configuration_error", message)

    def extend(self, entries: Table, catalog: Table) -> None:
        """Index only the time, descending, because an index of Firebird has one direction for all its columns."""
        mixed = next(index for index in entries.indexes if entries.c.key in index.columns.values())
        entries.indexes.discard(mixed)
        Index(mixed.name, entries.c.updated_at, firebird_descending=True)

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Return the statements without IF NOT EXISTS, which Firebird lacks."""
        statements = super().definitions(entries, *others)
        return [
            self.new_table(statement.element) if isinstance(statement, CreateTable) else statement
            for statement in statements
        ]

    def new_table(self, table: Table) -> CreateTable:
        """Return the statement that creates one table."""
        return CreateTable(table)

    def server_version(self, connection: Connection) -> str | None:
        """Return the version of the server's engine."""
        version: str | None = connection.scalar(_ENGINE_VERSION)
        return version


class FirebirdTransactions(Transactions):
    """Transactions of Firebird."""

    @contextmanager
    def begin(
        self, connection: Connection, deadline: Deadline | None, *, write: bool, snapshot: bool = False
    ) -> Iterator[Any]:
        """Begin a transaction that sees one state.

        It waits for no lock and is run again instead, because two transactions that insert the same key would deadlock.
        """
        from firebird.driver import Isolation, tpb

        with connection.begin() as transaction:
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.begin(tpb(Isolation.SNAPSHOT, lock_timeout=0))
            yield transaction


class FirebirdQueries(Queries):
    """SQL parts of statements for Firebird."""

    def beginning(self, text: ColumnElement[str], count: ColumnElement[int]) -> ColumnElement[str]:
        """Return so many characters of a text, from its beginning. Firebird has no SUBSTR."""
        return func.left(text, count, type_=text.type)


class FirebirdDialect(Dialect):
    """Firebird 3 or later, through firebird-driver; the database needs pages of 16,384 bytes."""

    features = Features(
        product="Firebird",
        key_type=_Octets(MAX_KEY_LENGTH * _WIDEST),
        text_type=_Blob("UTF8"),
        token_type=_Blob("ASCII"),
        time_type=_Microseconds(),
        ascii_type=_Octets,
        # This limits the time for connecting. The driver shows no socket, so the pool sends pings.
        socket_drivers=frozenset({"firebird-driver"}),
        has_snapshot_reads=True,
    )
    engines = FirebirdEngines()
    sessions = FirebirdSessions()
    queries_class = FirebirdQueries
    schema_class = FirebirdSchema
    transactions_class = FirebirdTransactions
