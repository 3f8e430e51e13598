"""Statements that are compiled once. Unless the engine has listeners, they run on the driver's cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, PoolProxiedConnection, exc
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.sql.expression import Executable

from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.pool import Loan

Processor = Callable[[Any], Any]


class Outcome(NamedTuple):
    """The result of a statement."""

    rows: Sequence[Sequence[Any]]
    rowcount: int
    lastrowid: Any


class BoundQuery(NamedTuple):
    """A prepared statement with the values of its parameters."""

    prepared: Prepared
    parameters: Mapping[str, Any]

    def run(self, connection: Connection) -> Outcome:
        """Run the statement in the current transaction of a connection."""
        return self.prepared.run(connection, self.parameters)


class Prepared:
    """A statement of one engine. Its parameters must not be lists of values that are expanded."""

    def __init__(self, statement: Executable) -> None:
        """Keep the statement. The first run compiles it."""
        self.statement = statement
        self._compiled: _Compiled | None = None

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Outcome:
        """Run the statement in the current transaction of a connection."""
        if has_listeners(connection.engine):
            result = connection.execute(self.statement, parameters)
            rows = result.all() if result.returns_rows else ()
            return Outcome(rows, result.rowcount, getattr(result, "lastrowid", None))
        driver_connection: Any = connection.connection.driver_connection
        try:
            return self.on(connection.dialect).run(driver_connection, parameters)
        except exc.DBAPIError as error:
            if error.connection_invalidated:
                forget(connection.engine, connection.connection, error)
                connection.invalidate(error)
            raise

    def on(self, dialect: EngineDialect) -> _Compiled:
        """Return the statement compiled for the engine's driver."""
        if self._compiled is None:
            self._compiled = _Compiled(self.statement, dialect)
        return self._compiled


class _Compiled:
    """The SQL text of a statement, with the functions that convert its parameters and columns."""

    def __init__(self, statement: Any, dialect: EngineDialect) -> None:
        compiled = statement.compile(dialect=dialect)
        # Lists of an IN whose values are constants are expanded here, once.
        required = [name for name, parameter in compiled.binds.items() if parameter.required]
        expanded = compiled.construct_expanded_state(dict.fromkeys(required), escape_names=False)
        self._dialect = dialect
        self._text: str = expanded.statement
        self._positions: Sequence[str] | None = expanded.positiontup if compiled.positional else None
        self._defaults: dict[str, Any] = expanded.parameters
        types = {name: parameter.type for name, parameter in compiled.binds.items() if name in self._defaults}
        processors = _processors(types, lambda kind: kind.dialect_impl(dialect).bind_processor(dialect))
        self._bind_processors: dict[str, Processor] = {**processors, **expanded.processors}
        columns = getattr(statement, "exported_columns", ())
        self._result_processors = _processors(
            dict(enumerate(column.type for column in columns)),
            lambda kind: kind.dialect_impl(dialect).result_processor(dialect, None),
        )

    def run(self, driver_connection: Any, parameters: Mapping[str, Any]) -> Outcome:
        """Run the statement on the driver's connection.

        Raises:
            DBAPIError: the driver's error in SQLAlchemy's wrapper. If the connection is lost, the caller must drop it.
        """
        values = {**self._defaults, **parameters}
        for name, process in self._bind_processors.items():
            values[name] = process(values.get(name))
        sent = values if self._positions is None else tuple([values.get(name) for name in self._positions])
        cursor = None
        try:
            cursor = driver_connection.cursor()
            self._dialect.do_execute(cursor, self._text, sent)
            if cursor.description is None:
                return Outcome((), cursor.rowcount, getattr(cursor, "lastrowid", None))
            return Outcome(self._processed(cursor.fetchall()), cursor.rowcount, None)
        except self._dialect.loaded_dbapi.Error as error:
            raise self._wrapped(error, driver_connection, cursor) from error
        finally:
            if cursor is not None:
                cursor.close()

    def _processed(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        if not self._result_processors:
            return rows
        processed = [list(row) for row in rows]
        for place, process in self._result_processors.items():
            for row in processed:
                row[place] = process(row[place])
        return processed

    def _wrapped(self, error: Any, driver_connection: Any, cursor: Any) -> BaseException:
        wrapped: BaseException = exc.DBAPIError.instance(
            self._text,
            None,
            error,
            self._dialect.loaded_dbapi.Error,
            hide_parameters=True,
            connection_invalidated=self._dialect.is_disconnect(error, driver_connection, cursor),
            dialect=self._dialect,
        )
        return wrapped


def forget(engine: Engine, pooled: PoolProxiedConnection | Loan, error: BaseException) -> None:
    """Close a lost connection, and those that the pool has had for as long, as SQLAlchemy does."""
    internals.invalidate_older(engine.pool, pooled, error)


def has_listeners(engine: Engine) -> bool:
    """Return whether something logs, traces or changes an engine's statements.

    Then they must run through SQLAlchemy.
    """
    if internals.logs_statements(engine) or "schema_translate_map" in engine.get_execution_options():
        return True
    of_engine, of_dialect = engine.dispatch, engine.dialect.dispatch
    return bool(
        of_dialect.do_execute
        or of_dialect.handle_error
        or (
            internals.has_events(engine)
            and (
                of_engine.before_cursor_execute
                or of_engine.after_cursor_execute
                or of_engine.before_execute
                or of_engine.after_execute
            )
        )
    )


def _processors(types: Mapping[Any, Any], processor: Callable[[Any], Processor | None]) -> dict[Any, Processor]:
    functions = {name: processor(kind) for name, kind in types.items()}
    return {name: process for name, process in functions.items() if process is not None}
