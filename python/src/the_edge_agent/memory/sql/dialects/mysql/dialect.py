"""MySQL: JSON functions for filters, LAST_INSERT_ID for the version, words by a table of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Double,
    Engine,
    String,
    Table,
    Text,
    TextClause,
    bindparam,
    case,
    cast,
    event,
    false,
    func,
    inspect,
    literal_column,
    null,
    select,
    text,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGTEXT, VARCHAR, Insert, insert
from sqlalchemy.engine import URL, Compiled
from sqlalchemy.schema import CreateTable, ExecutableDDLElement
from sqlalchemy.sql.visitors import replacement_traverse
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.core.codec import decode
from the_edge_agent.memory.core.filters import Path
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.sql.dialects.base import (
    BEGINS_ITSELF,
    COMMITS_ALONE,
    IN_USE,
    PYTHON_INSTEAD,
    Dialect,
    Upkeep,
)
from the_edge_agent.memory.sql.dialects.conditions import FilterConditions, Kind, Test
from the_edge_agent.memory.sql.dialects.mysql.search import (
    TERMS,
    TermConditions,
    add_number,
    add_terms,
    make_indexes_inline,
    term_columns,
    term_parameters,
)
from the_edge_agent.memory.sql.dialects.mysql.sessions import check, check_charset, settings, without_galera
from the_edge_agent.memory.sql.dialects.mysql.words import NUMBER, WordBlocks, WordTable, words_table
from the_edge_agent.memory.sql.dialects.probing import accepts
from the_edge_agent.memory.sql.dialects.text import TextConditions
from the_edge_agent.memory.sql.dialects.upsert import Upsert
from the_edge_agent.memory.sql.driver.deadlines import current
from the_edge_agent.memory.sql.driver.prepared import Outcome, Prepared

_TYPES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "null": ("NULL",),
    "boolean": ("BOOLEAN",),
    "integer": ("INTEGER", "UNSIGNED INTEGER"),
    "double": ("DOUBLE", "DECIMAL"),
    "string": ("STRING",),
    "array": ("ARRAY",),
    "object": ("OBJECT",),
}


_JSON_TRIAL: Final = """SELECT JSON_TYPE(JSON_EXTRACT('["a"]', '$[0]')), JSON_UNQUOTE(JSON_EXTRACT('["a"]', '$[0]'))"""
_COLUMNS: Final = text(
    "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = :name"
)
_ENGINES: Final = text(
    "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN :names"
).bindparams(bindparam("names", expanding=True))
_LIKE_INSTEAD: Final = "no table of words: words are searched with LIKE"
_IN_TRANSACTION: Final = 1  # SERVER_STATUS_IN_TRANS
_UNKNOWN_VARIABLE: Final = 1193
_LENT: Final = "the_edge_agent.lent"
_ROWS: Final = (250, 100, 50, 20, 10, 5, 2, 1)  # of one insert: few sizes, so that few statements are compiled
_NO_SSL: Final = (
    "ssl is no option of the url; ssl_ca=FILE names the certificate of the authority that has signed the server's, and "
    "encrypts the connection; all else goes into connect_args"
)
_TIME_LENGTH: Final = 26  # characters of a time with its microseconds


class MySQLDialect(Dialect):
    """MySQL 8.0.20 or later.

    No FULLTEXT index: InnoDB's does not follow transactions. While an entry is being overwritten, a search
    through it finds neither the old nor the new text (measured: 2 to 3 % of searches), and it shows a row
    as committed before or after its index entry. A table of ours and LIKE read what the transaction sees.
    """

    product = "MySQL"
    exact_collation: ClassVar[str] = "utf8mb4_0900_bin"  # utf8mb4_bin pads: "a" would equal "a "
    key_type: ClassVar[TypeEngine[Any]] = VARCHAR(MAX_KEY_LENGTH, charset="utf8mb4", collation=exact_collation)
    text_type: ClassVar[TypeEngine[Any]] = LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")
    token_type: ClassVar[TypeEngine[Any]] = LONGTEXT(charset="ascii", collation="ascii_bin")
    time_type = DATETIME(fsp=6)
    socket_drivers = frozenset({"pymysql", "mysqldb", "mysqlconnector"})
    cipher = "SHOW STATUS LIKE 'Ssl_cipher'"
    commits_single_statements = True
    table_options: ClassVar[Mapping[str, str]] = {
        f"{name}_{option}": value
        for name in ("mysql", "mariadb")  # SQLAlchemy has two names for the dialect
        for option, value in (("engine", "InnoDB"), ("row_format", "DYNAMIC"))
    }
    before_snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    has_snapshot_reads = True
    has_exact_keys = True

    def __init__(self, timestamp: TypeEngine[datetime]) -> None:
        """Make the dialect of one engine."""
        super().__init__(timestamp)
        self._has_json = self._has_words = True

    @property
    def search_path(self) -> str:
        """How texts are searched, known after the probe."""
        return f"index of words, then {super().search_path}" if self._has_words else super().search_path

    @property
    def filter_path(self) -> str:
        """How metadata filters are decided, known after the probe."""
        return "JSON functions, behind indexed terms" if self._has_json else super().filter_path

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Look for the JSON functions, and for what the tables have.

        Raises:
            LTMError: ``configuration_error`` where no database is in use, so that there is none for the tables.
        """
        if connection.dialect.default_schema_name is None:
            raise LTMError("configuration_error", "the url names no database; its name goes behind the host: host/NAME")
        self._has_json = accepts(connection, _JSON_TRIAL)
        found = set(connection.scalars(_COLUMNS, {"name": entries.name}))
        is_new = not found >= set(entries.c.keys())
        keeps_words = "search_text" in entries.c
        words = words_table(entries.name)  # a copy of the entries alone has none
        self._has_words = keeps_words and (is_new or inspect(connection).has_table(words.name))
        missing = {PYTHON_INSTEAD: not self._has_json, _LIKE_INSTEAD: keeps_words and not self._has_words}
        self.fallbacks = [words for words, is_missing in missing.items() if is_missing]

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add the terms of the metadata and the number; make the indexes parts of their tables."""
        add_terms(entries)
        if "search_text" in entries.c:
            add_number(entries)
        for table in (entries, catalog):
            make_indexes_inline(table)

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Add the table of words, before the entries: where these are there, it must be, too."""
        found = super().definitions(entries, *others)
        words = [CreateTable(table, if_not_exists=True) for table in self.search_tables(entries)]
        return [*words, *found]

    def search_tables(self, entries: Table) -> list[Table]:
        """Return the table of words."""
        if not self._has_words:
            return []
        words = words_table(entries.name)
        words.kwargs.update(self.table_options)
        return [words]

    def check_tables(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Refuse a storage engine that has no transactions, or others than ours."""
        names = [table.name for table in (*tables, *self.search_tables(tables[0]))]
        found = connection.execute(_ENGINES, {"names": names}).all()
        quote = connection.dialect.identifier_preparer.quote
        for name, engine in found:
            if engine not in (None, "InnoDB"):  # None: a view
                raise LTMError(
                    "configuration_error",
                    f"the table {name} has the storage engine {engine}, which loses what a transaction promises; "
                    f"run: ALTER TABLE {quote(name)} ENGINE=InnoDB, ROW_FORMAT=DYNAMIC",
                )

    @classmethod
    def ascii_type(cls, length: int) -> TypeEngine[Any]:
        """Return the type of ASCII identifiers."""
        return VARCHAR(length, charset="ascii", collation="ascii_bin")

    @classmethod
    def connect_args(cls, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return the limits for connecting and, where the driver has them, for reading and writing."""
        if driver == "pymysql":
            later = timeout + 1  # than our own deadline, which says what happened
            limits = {"connect_timeout": connect_timeout, "read_timeout": later, "write_timeout": later}
            return {"charset": "utf8mb4", **limits}
        name = "connection_timeout" if driver == "mysqlconnector" else "connect_timeout"
        return {"charset": "utf8mb4", name: max(1, round(connect_timeout))}

    @classmethod
    def check_options(cls, url: URL, connect_args: Mapping[str, Any]) -> None:
        """Refuse a character set that loses characters, and ``ssl``, which drivers refuse in a URL or pass over.

        The name of the character set in the URL may be in any case: ours replaces it.
        """
        if "ssl" in url.query:
            raise LTMError("configuration_error", _NO_SSL)
        named = url.query.get("charset")
        check_charset(named.lower() if isinstance(named, str) else named, connect_args.get("charset"))

    @classmethod
    def engine_options(cls, url: URL) -> tuple[URL, dict[str, Any]]:
        """Have transactions begun by a statement: connections rest in autocommit."""
        url, options = super().engine_options(url)
        options |= {"execution_options": {BEGINS_ITSELF: True}}
        if url.password and url.get_driver_name() == "pymysql" and not url.password.isascii():
            options["connect_args"] = {"password": url.password.encode()}  # of text it sends Latin-1
        return url, options

    @classmethod
    def session_settings(cls, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Set all that answers depend on, whatever the server, the user or ``connect_args`` have set."""
        return [settings(timeout, idle)]

    @classmethod
    def set_up_session(cls, cursor: Any, setting: str) -> None:
        """Leave out what a server without Galera does not know."""
        try:
            cursor.execute(setting)
        except Exception as error:
            if error.args[:1] != (_UNKNOWN_VARIABLE,):
                raise
            cursor.execute(without_galera(setting))

    @classmethod
    def check_session(cls, connection: Connection, *, is_ours: bool) -> None:
        """Look at all that answers depend on, in one statement."""
        check(connection, is_ours=is_ours)

    @classmethod
    def prepare_engine(cls, engine: Engine) -> None:
        """Turn autocommit off as long as others than our calls have a connection: they begin no transaction."""

        @event.listens_for(engine, "engine_connect")
        def lend(connection: Connection) -> None:
            if current() is None:
                connection.info[_LENT] = True
                _set_autocommit(connection.connection, "0")

        @event.listens_for(engine, "checkin")
        def take_back(driver_connection: Any, record: Any) -> None:
            if record.info.pop(_LENT, False) and driver_connection is not None:
                try:
                    _set_autocommit(driver_connection, "1")
                except Exception:  # a lost connection, which the next one must not get
                    record.invalidate()

    @classmethod
    def why_unusable(cls, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse autocommit of the driver; look at the status that came with the server's last answer."""
        get_autocommit = getattr(driver_connection, "get_autocommit", None)
        autocommit = get_autocommit() if get_autocommit else getattr(driver_connection, "autocommit", False)
        if autocommit is True or autocommit == 1:
            return COMMITS_ALONE
        status = getattr(driver_connection, "server_status", 0)
        return IN_USE if is_shared and status & _IN_TRANSACTION else None

    @classmethod
    def socket_of(cls, driver_connection: Any) -> int:
        """Return the socket, which each driver keeps under a name of its own."""
        if hasattr(driver_connection, "fileno"):  # mysqlclient
            return int(driver_connection.fileno())
        wrapper = getattr(driver_connection, "_socket", None)  # mysql-connector
        socket = getattr(wrapper, "sock", None) or getattr(driver_connection, "_sock", None)  # PyMySQL
        return -1 if socket is None else int(socket.fileno())

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Do nothing where statements commit by themselves, as they do on an engine of our own."""
        get_autocommit = getattr(driver_connection, "get_autocommit", None)  # mysql-connector would ask the server
        if get_autocommit is not None and get_autocommit():
            return nullcontext()
        return super().autocommit(driver_connection, write=write)

    @contextmanager
    def exclusively(self, connection: Connection, name: str) -> Iterator[None]:
        """Hold a lock of the server: DDL ends transactions here."""
        lock = {"name": f"the-edge-agent {name}"[:64]}
        connection.execute(text("SELECT GET_LOCK(:name, 30)"), lock)
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)

    def max_entry_bytes(self, connection: Connection) -> int | None:
        """Return the size of the largest packet that the server reads."""
        return int(connection.scalar(text("SELECT @@max_allowed_packet")) or 0) or None

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the row without writing it."""
        connection.execute(select(table).with_for_update(read=not exclusive))

    @property
    def now(self) -> ColumnElement[Any]:
        """The server's time of the statement, unless the transaction has fixed one."""
        return func.coalesce(cast(super().now, self.time_type), func.utc_timestamp(literal_column("6")))

    @property
    def expiry(self) -> ColumnElement[Any]:
        """When an entry expires, by the server's clock."""
        lived = func.timestampadd(literal_column("MICROSECOND"), bindparam("b_ttl", type_=BigInteger()), self.now)
        return func.coalesce(bindparam("b_until", type_=self.timestamp), lived, type_=self.timestamp)

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Ask the server once for a transaction of several statements; UTC_TIMESTAMP moves between them."""
        if connection is None or statements == 1:
            return None
        return connection.scalar(select(cast(func.utc_timestamp(literal_column("6")), self.time_type)))

    def metadata_columns(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the bound columns, with the terms of an entry, and without a number."""
        terms = term_columns() if TERMS[0] in table.c else {}
        return {**super().metadata_columns(table), **terms, **self.unindexed(table)}

    def sortable(self, timestamp: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return it as text: PyMySQL takes longer to make a time than for the rest of the row."""
        return cast(timestamp, String(_TIME_LENGTH))

    def unindexed(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the number, which the table of words knows by the earlier words."""
        return {NUMBER: null()} if NUMBER in table.c else {}

    def metadata_parameters(self, metadata: str | None) -> dict[str, Any]:
        """Return the parameters."""
        terms = term_parameters(decode(metadata) if metadata else {})
        return {**super().metadata_parameters(metadata), **terms}

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return an upsert that stores rows in one statement."""
        return OnDuplicateKey(table, row)

    def filters(self, table: Table) -> FilterConditions:
        """Return the conditions by JSON functions."""
        return JSONConditions(table, self.exact_collation) if self._has_json else super().filters(table)

    def texts(self, entries: Table) -> TextConditions:
        """Return the conditions by LIKE, within what the terms of a filter and the table of words find."""
        words = WordTable(entries) if self._has_words else None
        return TermConditions(entries, words)

    def upkeep(self, entries: Table) -> Upkeep | None:
        """Return the object that makes blocks of words."""
        return WordBlocks(WordTable(entries)) if self._has_words else None


class OnDuplicateKey(Upsert):
    """INSERT ... ON DUPLICATE KEY UPDATE, which returns nothing."""

    def __init__(self, table: Table, row: Mapping[str, Any]) -> None:
        """Build the statements."""
        super().__init__(table, row)
        statement = insert(table).values(row)
        (_, version), *others = self.changes(statement.inserted)
        counted = [("version", func.last_insert_id(version)), *others]
        self.single = Prepared(statement.on_duplicate_key_update(counted))
        self._compiled: dict[int, Compiled] = {}
        self._versions = select(self.identity, table.c.version).where(
            self.identity.in_(bindparam("b_keys", expanding=True))
        )

    def next_version(self, count: Any) -> ColumnElement[Any]:
        """Return the sum: the server refuses one that is too large, and none after what is no version."""
        version = self.table.c.version
        return case((version >= literal_column("1"), version + count))

    def version_of(self, outcome: Outcome, row: Mapping[str, Any]) -> int:
        """Return the version that LAST_INSERT_ID carries, 0 after an insert."""
        return outcome.lastrowid or int(row["b_count"])

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store rows in few statements, then ask for the versions, which the rows' locks keep."""
        start = 0
        for size in _ROWS:
            while len(rows) - start >= size:
                self._store_together(connection, rows[start : start + size])
                start += size
        found = connection.execute(self._versions, {"b_keys": [row[self.parameter] for row in rows]})
        return {row[0]: row[1] for row in found}

    def _store_together(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        statement = self._compiled.get(len(rows))
        if statement is None:  # kept here: SQLAlchemy compiles an insert of many rows anew each time
            statement = self._compiled[len(rows)] = self._statement(len(rows)).compile(dialect=connection.dialect)
        values = {f"{name}_{number}": value for number, row in enumerate(rows) for name, value in row.items()}
        values["b_now"] = rows[0]["b_now"]
        names = statement.positiontup  # type: ignore[attr-defined]
        parameters = values if names is None else tuple(values[name] for name in names)
        connection.exec_driver_sql(statement.string, parameters)

    def _statement(self, size: int) -> Insert:
        """Return the insert of so many rows; the parameters of each row end with its number."""
        rows = [{name: _numbered(value, number) for name, value in self.row.items()} for number in range(size)]
        statement = insert(self.table).values(rows)
        return statement.on_duplicate_key_update(self.changes(statement.inserted))


class JSONConditions(FilterConditions):
    """Filters by JSON_EXTRACT, with the type looked at first."""

    takes_placeholders = True

    def __init__(self, table: Table, exact_collation: str) -> None:
        """Make the conditions of one table; strings compare by this collation."""
        super().__init__(table)
        self._exact_collation = exact_collation

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Look at the type first: a cast of another type would warn or fail."""
        value = func.json_extract(self.readable(path), json_path(path), type_=Text())
        is_kind = func.coalesce(self.has_kind(value, kinds), false())
        return is_kind if test is None else case((is_kind, test(self.native(value, kinds[0]))), else_=false())

    def readable(self, path: Path) -> ColumnElement[Any]:
        """Return the metadata to look into at ``path``; NULL for what is no JSON, which would stop the statement."""
        metadata = self.table.c.metadata
        return case((func.json_valid(metadata), metadata))

    def has_kind(self, value: ColumnElement[Any], kinds: Sequence[Kind]) -> ColumnElement[bool]:
        """Return whether a JSON value is of one of these kinds; NULL if there is none."""
        return func.json_type(value).in_([name for kind in kinds for name in _TYPES[kind]])

    def native(self, value: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        """Return a JSON value of one kind as an SQL value that compares exactly."""
        if kind == "string":
            return func.json_unquote(value, type_=Text()).collate(self._exact_collation)
        return cast(value, Double() if kind == "double" else BigInteger())


def _set_autocommit(connection: Any, state: str) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET autocommit = {state}")
    cursor.close()


def _numbered(value: ColumnElement[Any], number: int) -> ColumnElement[Any]:
    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, BindParameter) and element.key != "b_now":
            return bindparam(f"{element.key}_{number}", type_=element.type)
        return None

    numbered: ColumnElement[Any] = replacement_traverse(value, {}, replace)
    return numbered


def json_path(path: Path) -> str:
    """Return a JSON path of literal keys; quoted, they mean nothing but themselves."""
    return "$" + "".join("." + json.dumps(key, ensure_ascii=False) for key in path)
