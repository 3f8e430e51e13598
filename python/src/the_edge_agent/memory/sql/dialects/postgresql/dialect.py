"""PostgreSQL: the dialect; words by a tsvector of the tokens, filters by a JSONB copy of the metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Computed,
    Connection,
    DateTime,
    Index,
    Integer,
    Interval,
    Numeric,
    String,
    Table,
    Text,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    not_,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR, insert
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import replacement_traverse
from sqlalchemy.types import TypeDecorator, TypeEngine

from the_edge_agent.memory.core.codec import comparable_json, decode
from the_edge_agent.memory.core.filters import Node, Path, Placeholder, nested
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.database.poolers import PREPARES
from the_edge_agent.memory.database.search_plan import Step, StepLimits, ladder
from the_edge_agent.memory.postgres.index import WHOLE_INDEX, looked_up
from the_edge_agent.memory.postgres.refusals import learn_code
from the_edge_agent.memory.postgres.sessions import BEGIN_ANEW_TO_SET_UP, lock_timeout, session_settings
from the_edge_agent.memory.sql.dialects.base import (
    COMMITS_ALONE,
    IN_USE,
    LIKE_INSTEAD,
    PYTHON_INSTEAD,
    SECONDS,
    Dialect,
)
from the_edge_agent.memory.sql.dialects.conditions import FilterConditions, Kind, Test, is_ordered, placeholder_name
from the_edge_agent.memory.sql.dialects.match_query import ROWS, SKIPPED, MatchQuery, SQLStep, are_many, in_order
from the_edge_agent.memory.sql.dialects.probing import accepts
from the_edge_agent.memory.sql.dialects.text import IndexedTextConditions, TextConditions
from the_edge_agent.memory.sql.dialects.upsert import OnConflict, Upsert

_ACTIVE: Final = 1  # what libpq calls the transaction status while a statement runs
_TO_CANCEL: Final = 1.0  # seconds
_TYPES: Final[Mapping[Kind, str]] = {"integer": "number", "double": "number"}
_VECTOR: Final = "to_tsvector('simple'::regconfig, search_text)"
_VECTOR_TRIAL: Final = (
    f"CREATE TEMPORARY TABLE tea_trial (search_text TEXT, found TSVECTOR GENERATED ALWAYS AS ({_VECTOR}) STORED)",
    "CREATE INDEX tea_trial_found ON tea_trial USING gin (found)",
    "SELECT 1 FROM tea_trial WHERE found @@ to_tsquery('simple'::regconfig, 'a & b:*')",
)
_JSONB_TRIAL: Final = (
    "CREATE TEMPORARY TABLE tea_trial (found JSONB)",
    """SELECT 1 FROM tea_trial WHERE found @> '{"a": 1}' AND jsonb_typeof(found -> 'a') = 'number'""",
)
_GIN_TRIAL: Final = ("CREATE INDEX tea_trial_found ON tea_trial USING gin (found jsonb_path_ops)",)
_COLUMNS: Final = text(
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped"
)
_SIMPLE: Final[ColumnElement[Any]] = literal_column("'simple'::regconfig")
_WHOLE_INDEX: Final[ColumnElement[bool]] = literal_column(WHOLE_INDEX, type_=Boolean())
_AS_TEXT: Final[ColumnElement[str]] = literal_column("""'YYYY-MM-DD HH24:MI:SS.US"+00:00"AD'""", type_=Text())
_ASCII: Final = "SQL_ASCII"  # as which drivers return bytes


class Timestamp(TypeDecorator[datetime]):
    """TIMESTAMPTZ, selected as text in UTC: drivers read it by the session's TimeZone and DateStyle."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the text of a column."""
        written = func.to_char(func.timezone(literal_column("'UTC'"), column), _AS_TEXT, type_=Text())
        return func.coalesce(written, cast(column, Text()), type_=self)  # to_char makes NULL of infinity

    def process_result_value(self, value: Any, dialect: EngineDialect) -> datetime | None:
        """Return the time that the text says; a caller's own SQL may have selected the column itself.

        What is no time of Python's (infinity, before the year 1 or after 9999) comes out as it is.
        """
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        try:
            return datetime.fromisoformat(value.removesuffix("AD"))
        except ValueError:  # its message shows the text
            return value  # type: ignore[return-value]


class PostgreSQLDialect(Dialect):
    """PostgreSQL 12 or later, and what speaks its dialect."""

    product = "PostgreSQL"
    partial_index = "postgresql_where"
    exact_collation: ClassVar[str | None] = "C"
    key_type: ClassVar[TypeEngine[Any]] = String(MAX_KEY_LENGTH, collation=exact_collation)
    time_type: ClassVar[TypeEngine[Any]] = Timestamp()
    preparing_drivers = frozenset({"psycopg"})
    socket_drivers = frozenset({"psycopg", "psycopg2"})
    commits_single_statements = True
    has_snapshot_reads = True
    has_exact_keys = True
    #: Whether a question looks up words in a SELECT of its own: the planner must not guess how many entries have all.
    hides_words: ClassVar[bool] = True

    def __init__(self, timestamp: TypeEngine[datetime]) -> None:
        """Make the dialect of one engine."""
        super().__init__(timestamp)
        self._has_gin = self._has_full_text = True
        self._has_json = dict[str, bool]()  # by table
        self._is_ours = True  # the session, so that it keeps its settings

    @property
    def search_path(self) -> str:
        """How texts are searched, known after the probe."""
        return "full-text index (tsvector)" if self._has_full_text else super().search_path

    @property
    def filter_path(self) -> str:
        """How metadata filters are decided, known after the probe."""
        return "JSONB" if all(self._has_json.values()) else super().filter_path

    @classmethod
    def session_settings(cls, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Return the one statement, see ``postgres.sessions.session_settings``."""
        info = driver_connection.info
        version, process = info.server_version, info.backend_pid
        settings = session_settings(timeout=timeout, idle=idle, server_version=version, process=process)
        return [f"{BEGIN_ANEW_TO_SET_UP}; {settings}"]

    @classmethod
    def set_up_session(cls, cursor: Any, setting: str) -> None:
        """Let psycopg not prepare it: several statements in one text cannot be."""
        unprepared = {"prepare": False} if hasattr(cursor.connection, "prepare_threshold") else {}
        cursor.execute(setting, **unprepared)

    @classmethod
    def reason(cls, error: Exception) -> str | None:
        """Tell of a session whose texts are bytes: SQLAlchemy does not come as far as our probe there."""
        return _wrong_encoding(_ASCII, _ASCII) if "bytes-like" in str(error) else None

    @classmethod
    def learn_code(cls, error: Exception, parameters: Mapping[str, Any], seconds: float) -> None:
        """Learn it from a trace: libpq gives a text in the server's language alone."""
        learn_code(error, parameters, seconds)

    @classmethod
    def why_unusable(cls, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse autocommit of the driver; look at libpq's transaction status."""
        if driver_connection.autocommit:
            return COMMITS_ALONE
        return IN_USE if is_shared and driver_connection.info.transaction_status != 0 else None

    @classmethod
    def socket_of(cls, driver_connection: Any) -> int:
        """Return libpq's socket."""
        return -1 if driver_connection.closed else int(driver_connection.fileno())

    @classmethod
    def cancel(cls, driver_connection: Any) -> None:
        """Cancel a statement that still runs: psycopg does so for KeyboardInterrupt alone.

        With psycopg2 none runs then, because Python raises nothing while its C code waits for the server.
        """
        if hasattr(driver_connection, "cancel_safe") and driver_connection.info.transaction_status == _ACTIVE:
            with suppress(Exception):  # the connection is closed next, whatever became of this
                driver_connection.cancel_safe(timeout=_TO_CANCEL)

    @classmethod
    def connect_args(cls, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return libpq's limit for connecting, in whole seconds."""
        return {"connect_timeout": max(1, round(connect_timeout)), "client_encoding": "utf8"}

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add the text index, and the copy of the metadata that filters look at."""
        if self._has_full_text:
            entries.append_column(Column("search_vector", TSVECTOR, Computed(_VECTOR, persisted=True)))
            Index(f"ix_{entries.name}_search_vector", entries.c.search_vector, postgresql_using="gin")
        for table in (entries, catalog):
            if not self._has_json.get(table.name, True):
                continue
            table.append_column(Column("metadata_json", JSONB, nullable=False))
            if not self._has_gin:
                continue
            Index(
                f"ix_{table.name}_metadata_json",
                table.c.metadata_json,
                postgresql_using="gin",
                postgresql_ops={"metadata_json": "jsonb_path_ops"},
            )

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Look for the columns of tables that are there, else whether the server can make them.

        Refuses encodings in which text would be lost, and prepared statements behind a pooler.

        Raises:
            LTMError: ``configuration_error``.
        """
        settings = ("server_encoding", "client_encoding", "gin_fuzzy_search_limit")
        asked = select(*map(func.current_setting, settings), func.pg_backend_pid())
        row: Any = connection.execute(asked).one()
        server, client, limit, process = row
        if (server, client) != ("UTF8", "UTF8"):
            raise LTMError("configuration_error", _wrong_encoding(server, client))
        driver_connection: Any = connection.connection.driver_connection
        is_direct = process == driver_connection.info.backend_pid
        self._is_ours = is_direct and limit == "0"
        is_own_engine = SECONDS in connection.get_execution_options()
        if not is_direct and not is_own_engine and getattr(driver_connection, "prepare_threshold", None) is not None:
            raise LTMError("configuration_error", PREPARES)
        has_entries, has_catalog = _columns(connection, entries), _columns(connection, catalog)
        has_words = "search_text" in entries.c
        if "search_text" in has_entries:
            self._has_full_text = has_words and "search_vector" in has_entries
        else:
            self._has_full_text = has_words and accepts(connection, *_VECTOR_TRIAL)
        for table, has in ((entries, has_entries), (catalog, has_catalog)):
            is_there = "metadata" in has and "version" in has
            self._has_json[table.name] = "metadata_json" in has if is_there else accepts(connection, *_JSONB_TRIAL)
            if not is_there:
                self._has_gin = accepts(connection, *_JSONB_TRIAL, *_GIN_TRIAL)
        has_json = all(self._has_json.values())
        missing = {LIKE_INSTEAD: has_words and not self._has_full_text, PYTHON_INSTEAD: not has_json}
        self.fallbacks = [words for words, is_missing in missing.items() if is_missing]

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Lock the table until the transaction ends."""
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(f"LOCK TABLE {quoted} IN ACCESS EXCLUSIVE MODE")
        return nullcontext()

    def begin(self, connection: Connection, *, write: bool, snapshot: bool = False) -> AbstractContextManager[Any]:
        """Begin a transaction; only REPEATABLE READ keeps one state.

        In a session that is not ours what it needs is set until it ends.
        """
        if snapshot:
            connection.execution_options(isolation_level="REPEATABLE READ")
        if self._is_ours:
            return super().begin(connection, write=write)
        return self._begin_with_settings(connection, "REPEATABLE READ" if snapshot else "READ COMMITTED")

    @contextmanager
    def _begin_with_settings(self, connection: Connection, level: str) -> Iterator[Any]:
        seconds = connection.get_execution_options().get(SECONDS)
        settings = ["SET LOCAL gin_fuzzy_search_limit = 0"]
        if seconds is not None:
            settings.append(f"SET LOCAL lock_timeout = {lock_timeout(seconds)}")
        driver_connection: Any = connection.connection.driver_connection
        if connection.dialect.driver not in self.preparing_drivers:
            with super().begin(connection, write=True) as transaction:
                connection.exec_driver_sql("; ".join(settings))
                yield transaction
            return
        # psycopg commits what it has not begun: so the settings come in the round trip of BEGIN.
        with _Autocommit(driver_connection), super().begin(connection, write=True) as transaction:
            begin = "; ".join([f"BEGIN ISOLATION LEVEL {level}", *settings])
            driver_connection.execute(begin, prepare=False)  # several statements cannot be prepared as one
            yield transaction

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Turn autocommit on for a while: psycopg and psycopg2 send nothing for that."""
        return _Autocommit(driver_connection)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the row without writing it."""
        connection.execute(select(table).with_for_update(read=not exclusive))

    def analyze(self, connection: Connection, *tables: Table) -> None:
        """Refresh the statistics: with those of an empty table a join of two large ones never ends."""
        for table in tables:
            connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")

    @property
    def now(self) -> ColumnElement[Any]:
        """The server's time at which the transaction began."""
        return func.now()

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Return None: ``now`` needs no parameter."""
        return None

    def size(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return the bytes, which PostgreSQL knows: to count characters it decompresses the text."""
        return func.octet_length(column, type_=Integer())

    @property
    def expiry(self) -> ColumnElement[Any]:
        """When an entry expires, by the server's clock."""
        microsecond: ColumnElement[Any] = literal_column("interval '1 microsecond'", type_=Interval())
        lived = self.now + cast(bindparam("b_ttl", type_=BigInteger()), BigInteger) * microsecond
        return func.coalesce(
            cast(bindparam("b_until", type_=self.timestamp), self.time_type), lived, type_=self.timestamp
        )

    def metadata_columns(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the bound columns, the JSONB copy as text that the server converts."""
        if "metadata_json" not in table.c:
            return super().metadata_columns(table)
        copy = cast(bindparam("b_metadata_json", type_=Text()), JSONB)
        return {**super().metadata_columns(table), "metadata_json": copy}

    def metadata_parameters(self, metadata: str | None) -> dict[str, Any]:
        """Return the parameters, with the metadata in the form that JSONB compares exactly."""
        return {**super().metadata_parameters(metadata), "b_metadata_json": comparable_json(decode(metadata or "{}"))}

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return an upsert that stores rows in one statement."""
        return OnConflict(table, row, insert)

    def filters(self, table: Table) -> FilterConditions:
        """Return the conditions on the JSONB copy."""
        if "metadata_json" not in table.c:
            return super().filters(table)
        return JSONBConditions(table, self.exact_collation, is_ours=self._is_ours)

    def texts(self, entries: Table) -> TextConditions:
        """Return the conditions on the tsvector."""
        return (
            VectorConditions(entries, is_ours=self._is_ours, hides_words=self.hides_words)
            if self._has_full_text
            else super().texts(entries)
        )


def _columns(connection: Connection, table: Table) -> set[str]:
    name = connection.dialect.identifier_preparer.format_table(table)
    return set(connection.scalars(_COLUMNS, {"name": name}))


def _wrong_encoding(server: str, client: str) -> str:
    return (
        f"the encoding of the database and of the connection must be UTF8, not {server} and {client}; create the "
        "database with ENCODING 'UTF8' TEMPLATE template0, or connect with client_encoding=utf8"
    )


class VectorConditions(IndexedTextConditions):
    """Words looked up in the tsvector."""

    def __init__(self, entries: Table, *, is_ours: bool, hides_words: bool) -> None:
        """Make the conditions.

        Args:
            entries: their table.
            is_ours: whether the session has no limit on what an index finds.
            hides_words: see ``PostgreSQLDialect.hides_words``.
        """
        super().__init__(entries)
        self._is_ours, self._hides_words = is_ours, hides_words

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps for the newest matches.

        For a filter that the JSONB index can help with, and no words, there is a ladder: fetch and sort what the filter
        finds if that is not much, else look for enough among the newest entries. All else is one statement.
        """
        (every,) = super().steps(newest)
        if not newest.group_sizes or has_words(newest.terms) or "metadata_json" not in self.table.c:
            return [every]
        return [*ladder("postgresql", [partial(self._few, newest)], partial(self._among_newest, newest), lambda: every)]

    def _few(self, newest: MatchQuery, bound: StepLimits) -> SQLStep:
        """Return the step that looks up the matches, at most as many as ``bound.matches``.

        For more it returns a row of nulls. With a large bound it sorts keys and times alone, and fetches rows later.
        """
        limit, entries = bound.matches, self.table
        timestamp = type_coerce(entries.c.updated_at, Text()).label("written_at")  # sorted by, and not looked at
        columns = newest.columns if bound.is_small else [entries.c.key]
        found = (
            select(*columns, timestamp).where(*self._where(newest)).limit(literal_column(str(limit + 1))).cte("found")
        )
        many, key = are_many(found, limit), next(iter(found.c))
        chosen = select(*found.c).where(not_(many)).order_by(found.c.written_at.desc(), key)
        rows = select(*(places := chosen.limit(ROWS).offset(SKIPPED).subquery("chosen")).c)
        if not bound.is_small:
            rows = select(*newest.columns, places.c.written_at).join_from(
                entries, places, entries.c.key == places.c.key
            )
        return Step(in_order(rows, many))

    def _among_newest(self, newest: MatchQuery, bound: StepLimits) -> SQLStep:
        """Return the step that looks at the newest entries alone. A limit in a subquery keeps the planner to these."""
        latest: ColumnElement[int] = literal_column(str(bound.newest), Integer())
        entries = select(self.table).order_by(*newest.order).limit(latest).subquery("newest")

        def moved(element: Any, **_: Any) -> Any:
            is_ours = isinstance(element, Column) and element.table is self.table
            return entries.c[element.name] if is_ours else None

        columns, where = (
            [replacement_traverse(each, {}, moved) for each in parts] for parts in (newest.columns, self._where(newest))
        )
        order = entries.c.updated_at.desc(), entries.c.key
        rows = select(*columns).where(*where).order_by(*order).limit(ROWS).offset(SKIPPED)
        return Step(rows, is_partial=True, limit=bound.newest)

    def _where(self, newest: MatchQuery) -> list[ColumnElement[bool]]:
        return [*newest.conditions, *newest.prefix(), *self.exact(newest.terms)]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the step that finds rows that match. With ``hides_words`` a subquery hides words from the planner."""

        def hidden(element: Any, **_: Any) -> Any:
            is_asked = isinstance(element, FunctionElement) and getattr(element, "name", None) == "to_tsquery"
            return select(element).scalar_subquery() if is_asked else None

        steps = super().having(newest)
        if not self._hides_words:
            return steps
        statements: list[Any] = [replacement_traverse(step.statement, {}, hidden) for step in steps]
        return [replace(step, statement=statement) for step, statement in zip(steps, statements, strict=True)]

    def indexed(self, words: BindParameter[str]) -> ColumnElement[bool]:
        """Return the condition that the tsvector has all words of a query."""
        found = self.table.c.search_vector.bool_op("@@")(func.to_tsquery(_SIMPLE, words))
        return found if self._is_ours else found & _WHOLE_INDEX

    def words(self, terms: Sequence[Term]) -> str:
        """Return the query for the index, which asks for every token of these terms."""
        return " & ".join(map(looked_up, terms))


class JSONBConditions(FilterConditions):
    """Filters over the JSONB copy of the metadata."""

    takes_placeholders = True

    def __init__(self, table: Table, exact_collation: str | None, *, is_ours: bool) -> None:
        """Make the conditions of one table.

        Args:
            table: that keeps metadata.
            exact_collation: by which strings compare by code point; None where they do so anyway.
            is_ours: whether the session has no limit on what an index finds.
        """
        super().__init__(table)
        self._exact_collation, self._is_ours = exact_collation, is_ours

    def condition(self, node: Node) -> ColumnElement[bool] | None:
        """Return a metadata filter as SQL, None where Python has to decide."""
        found = super().condition(node)
        return found if found is None or self._is_ours else found & _WHOLE_INDEX

    def bound(self, place: int, path: Path, value: int | str) -> dict[str, Any]:
        """Return the JSON that the metadata must contain, for the JSONB index."""
        return {placeholder_name(place): comparable_json(nested(path, value))}

    def equals(self, path: Path, values: Sequence[Any]) -> ColumnElement[bool]:
        """Let the index find what contains the value; only null, lists and objects need more."""
        scalars = [value for value in values if isinstance(value, (bool, int, float, str, Placeholder))]
        others = [value for value in values if not isinstance(value, (bool, int, float, str, Placeholder))]
        found = false() | super().equals(path, others)
        for value in scalars:
            if isinstance(value, Placeholder):
                contained = _as_jsonb(bindparam(placeholder_name(value.place), type_=Text()))
            else:
                contained = _jsonb(nested(path, value))
            found = found | self.table.c.metadata_json.contains(contained)
        return found

    def equals_whole(self, path: Path, value: list[Any] | dict[str, Any]) -> ColumnElement[bool]:
        """Compare as JSONB does: numbers by value, objects in any order."""
        return func.coalesce(self._value(path) == _jsonb(value), false())

    def compare(self, path: Path, op: str, value: int | float | str) -> ColumnElement[bool]:
        """Compare every number as NUMERIC, which is exact for integers and doubles alike."""
        if isinstance(value, str):
            return super().compare(path, op, value)
        bound = cast(literal(comparable_json(value), Text), Numeric)
        return self.at(path, ("double",), is_ordered(op, bound))

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Look at the type first: a cast of another type would be an error."""
        value = self._value(path)
        types = {_TYPES.get(kind, kind) for kind in kinds}
        has_type = func.coalesce(func.jsonb_typeof(value).in_(sorted(types)), false())
        if test is None:
            return has_type
        as_text: ColumnElement[Any] = value.op("#>>", return_type=Text())(literal_column("'{}'"))
        if kinds[0] != "string":
            return case((has_type, test(cast(as_text, Numeric))), else_=false())
        exact = as_text.collate(self._exact_collation) if self._exact_collation else as_text
        return case((has_type, test(exact)), else_=false())

    def _value(self, path: Path) -> ColumnElement[Any]:
        value: ColumnElement[Any] = self.table.c.metadata_json
        for key in path:
            # `->` with text never indexes an array, unlike `#>`.
            value = value.op("->", return_type=JSONB())(cast(literal(key, Text), Text))
        return value


def _jsonb(value: Any) -> ColumnElement[Any]:
    return _as_jsonb(literal(comparable_json(value), Text))


def _as_jsonb(written: ColumnElement[str]) -> ColumnElement[Any]:
    return cast(cast(written, Text), JSONB)


class _Autocommit:
    """Each statement is a transaction of its own."""

    def __init__(self, driver_connection: Any) -> None:
        self._connection = driver_connection

    def __enter__(self) -> None:
        self._before = self._connection.autocommit
        self._level = getattr(self._connection, "isolation_level", None)
        # Else psycopg2 resets the session's own level, each time, to that of the database.
        self._takes_level = self._level is not None and hasattr(self._connection, "set_session")
        if self._takes_level:
            self._connection.isolation_level = None
        self._connection.autocommit = True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._connection.closed:
            return
        # In the middle of a statement psycopg refuses: that must not replace an exception such as SystemExit.
        with nullcontext() if error is None else suppress(Exception):
            self._connection.autocommit = self._before
            if self._takes_level:
                self._connection.isolation_level = self._level
