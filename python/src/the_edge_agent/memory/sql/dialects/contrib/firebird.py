"""Firebird: keys as bytes, times as integers, one state of the data per transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Index, Table, TextClause, text
from sqlalchemy.engine import URL
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.schema import CreateTable, ExecutableDDLElement
from sqlalchemy.types import UserDefinedType

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.sql.dialects.base import Dialect, DialectSchema, Engines, Features, Sessions, Transactions
from the_edge_agent.memory.sql.driver.deadlines import Deadline

_WIDEST: Final = 4  # bytes of a character
_PAGE_BYTES: Final = 16_384  # a quarter of a page is the longest key of an index
_PAGE_SIZE: Final = text("SELECT mon$page_size FROM mon$database")
_ENGINE_VERSION: Final = text("SELECT rdb$get_context('SYSTEM', 'ENGINE_VERSION') FROM rdb$database")
_PORT: Final = 3050
_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)

Processor = Callable[[Any], Any]


class _Octets(UserDefinedType[str]):
    """Text that compares by its bytes in UTF-8, which is by code point; every other collation pads with spaces."""

    cache_ok = True
    render_bind_cast = True  # a parameter in a list of columns has no type otherwise

    def __init__(self, length: int) -> None:
        self.length = length  # bytes

    def get_col_spec(self, **_: Any) -> str:
        return f"VARCHAR({self.length}) CHARACTER SET OCTETS"

    def bind_processor(self, dialect: EngineDialect) -> Processor:
        return lambda value: None if value is None else value.encode()

    def result_processor(self, dialect: EngineDialect, coltype: object) -> Processor:
        return lambda value: None if value is None else value.decode()


class _Blob(UserDefinedType[str]):
    """Text of any length, whatever the database's own character set is."""

    cache_ok = True
    render_bind_cast = True  # a parameter in a list of columns has no type otherwise

    def __init__(self, charset: str) -> None:
        self.charset = charset

    def get_col_spec(self, **_: Any) -> str:
        return f"BLOB SUB_TYPE TEXT CHARACTER SET {self.charset}"


class _Microseconds(UserDefinedType[datetime]):
    """A moment in UTC as microseconds since 1970: a TIMESTAMP keeps four decimals of a second."""

    cache_ok = True
    render_bind_cast = True  # a parameter in a list of columns has no type otherwise
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
        """Have the driver send and take UTF-8."""
        return {"charset": "UTF8"}

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Name the server with the file: SQLAlchemy's dialect keeps one server per path for the whole process."""
        url, options = super().arguments(url)
        if url.host is None:
            return url, options
        host = f"[{url.host}]" if ":" in url.host else url.host
        return url, {**options, "connect_args": {"database": f"inet://{host}:{url.port or _PORT}/{url.database}"}}

    def prepare(self, engine: Engine) -> Any:
        """Have a lost connection closed: to end one otherwise, the dialect calls what the driver has not."""
        engine.dialect.do_terminate = engine.dialect.do_close  # type: ignore[method-assign]


class FirebirdSessions(Sessions):
    """Connections to Firebird."""

    def stop(self, driver_connection: Any) -> None:
        """Close the socket, which also ends a wait for a server that is silent."""
        from firebird.driver.types import CancelType

        driver_connection._att.cancel_operation(CancelType.ABORT)


class FirebirdSchema(DialectSchema):
    """Our tables on Firebird."""

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Refuse a database whose pages are too small for an index of long keys."""
        page_bytes = connection.scalar(_PAGE_SIZE)
        if page_bytes < _PAGE_BYTES:
            message = f"the database has pages of {page_bytes:,} bytes; make it with PAGE_SIZE {_PAGE_BYTES}"
            raise LTMError("configuration_error", message)

    def extend(self, entries: Table, catalog: Table) -> None:
        """Index the time alone, descending: an index has one direction here."""
        mixed = next(index for index in entries.indexes if entries.c.key in index.columns.values())
        entries.indexes.discard(mixed)
        Index(mixed.name, entries.c.updated_at, firebird_descending=True)

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Return them without IF NOT EXISTS, which Firebird has not."""
        statements = super().definitions(entries, *others)
        return [
            CreateTable(statement.element) if isinstance(statement, CreateTable) else statement
            for statement in statements
        ]

    def server_version(self, connection: Connection) -> str | None:
        """Return the whole version."""
        version: str | None = connection.scalar(_ENGINE_VERSION)
        return version


class FirebirdTransactions(Transactions):
    """Transactions of Firebird."""

    @contextmanager
    def begin(
        self, connection: Connection, deadline: Deadline | None, *, write: bool, snapshot: bool = False
    ) -> Iterator[Any]:
        """Begin a transaction that sees one state.

        It waits for no lock, but is run again: two that insert the same key would wait for each other.
        """
        from firebird.driver import Isolation, tpb

        with connection.begin() as transaction:
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.begin(tpb(Isolation.SNAPSHOT, lock_timeout=0))
            yield transaction


class FirebirdDialect(Dialect):
    """Firebird 3 or later, through firebird-driver; the database needs pages of 16,384 bytes."""

    features = Features(
        product="Firebird",
        key_type=_Octets(MAX_KEY_LENGTH * _WIDEST),
        text_type=_Blob("UTF8"),
        token_type=_Blob("ASCII"),
        time_type=_Microseconds(),
        ascii_type=_Octets,
        socket_drivers=frozenset({"firebird-driver"}),  # connecting is limited; there is no socket to look at: pre-ping
        has_snapshot_reads=True,
    )
    engines = FirebirdEngines()
    sessions = FirebirdSessions()
    schema_class = FirebirdSchema
    transactions_class = FirebirdTransactions
