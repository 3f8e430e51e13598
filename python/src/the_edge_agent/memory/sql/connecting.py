"""Creates engines from a URL, with pool, driver options and session settings, and opens the first connection."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import ordinary
from the_edge_agent.memory.core.validation import check_idle_timeout
from the_edge_agent.memory.database.certificates import check_files
from the_edge_agent.memory.database.errors import NOT_ENCRYPTED, message_of, options_in
from the_edge_agent.memory.database.tickets import Ticket
from the_edge_agent.memory.sql.dialects import SECONDS, Dialect, for_dialect, for_name
from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.deadlines import Deadline, DeadlineError, current
from the_edge_agent.memory.sql.driver.errors import DAMAGED
from the_edge_agent.memory.sql.driver.options import EngineOptions
from the_edge_agent.memory.sql.driver.pool import CallPool, ticket_of_this_thread
from the_edge_agent.memory.sql.driver.url import (
    OPTION_NAMES,
    load_dialect,
    missing_driver,
    where_of,
    with_installed_driver,
)
from the_edge_agent.memory.sql.transactions import CHECKED, check_session, connect

_LIFETIME: Final = 1800  # seconds after which the pool replaces a connection to a server


class Closable(Protocol):
    """An object that must be closed after the engine."""

    def close(self) -> Any:
        """Close it."""


def new_engine(url: URL, options: EngineOptions, hidden_args: Mapping[str, Any]) -> tuple[Engine, Closable | None]:
    """Create an engine. Return it and the object that must be closed after it.

    Raises:
        LTMError: ``configuration_error``, ``dependency_missing``.
    """
    url = with_installed_driver(url)
    load_dialect(url)
    dialect_class = for_name(url.get_backend_name())
    check_files({**url.query, **hidden_args, **options.connect_args})
    dialect_class.engines.check_options(url, {**hidden_args, **options.connect_args})
    url, engine_options = dialect_class.engines.arguments(url)
    if not dialect_class.features.is_embedded:
        can_look = url.get_driver_name() in dialect_class.features.socket_drivers
        engine_options = {"pool_pre_ping": not can_look, "pool_recycle": _LIFETIME, **engine_options}
    driver_args = {
        **dialect_class.engines.connect_args(url.get_driver_name(), options.connect_timeout, options.timeout),
        **_preparing(dialect_class, url.get_driver_name(), options.prepare_threshold),
        **engine_options.pop("connect_args", {}),
        **options.connect_args,
        **hidden_args,
    }
    execution_options = {
        SECONDS: options.timeout,
        OPTION_NAMES: (*options.connect_args, *hidden_args),
        **engine_options.get("execution_options", {}),
        **(options.engine_args.get("execution_options") or {}),
    }
    if "poolclass" not in {**engine_options, **options.engine_args}:
        engine_options |= {
            "poolclass": CallPool,
            "pool_size": options.pool_size,
            "max_overflow": options.max_overflow,
            "pool_timeout": options.pool_timeout,
        }
    problem: LTMError
    try:
        engine = create_engine(
            url,
            echo=options.echo,
            hide_parameters=True,
            connect_args=driver_args,
            pool_reset_on_return=None,  # every call ends its own transaction; a rollback here would cost a round trip
            **{**engine_options, **options.engine_args, "execution_options": execution_options},
        )
        _limit_connecting(engine, dialect_class, options.connect_timeout)
        _set_up_sessions(engine, dialect_class, options)
        if dialect_class.features.cipher and _asks_for_encryption({**url.query, **driver_args}):
            _require_encryption(engine, dialect_class.features.cipher)
        return engine, dialect_class.engines.prepare(engine)
    except ImportError:
        problem = missing_driver(url)
    except (ArgumentError, AttributeError, TypeError, ValueError) as error:
        named = re.match(r"Invalid argument\(s\) ([\w', ]+) sent", str(error))  # this text has no values
        options_given = ordinary([*url.query, *options.connect_args])
        refused = f"it takes no {named[1]}" if named else ", ".join((*options_given, type(error).__name__))
        problem = LTMError("configuration_error", f"the engine cannot be created: {refused}")
    raise problem


def _limit_connecting(engine: Engine, dialect_class: type[Dialect], connect_timeout: float) -> None:
    """Limit the time for connecting. The deadline also covers the time in which SQLAlchemy sets up the connection."""
    if engine.dialect.driver not in dialect_class.features.socket_drivers:
        return

    @event.listens_for(engine, "do_connect")
    def connect_in_time(dialect: Any, record: Any, args: Any, kwargs: Any) -> Any:
        deadline = current()
        if deadline is None:
            return None
        end = time.monotonic() + connect_timeout
        connection = deadline.call(
            partial(_connected, dialect_class, dialect, args, kwargs, end, [ticket_of_this_thread()]),
            seconds=connect_timeout,
            undo=lambda connection: connection.close(),
        )
        try:
            deadline.guard(lambda: dialect_class.sessions.stop(connection))
        except DeadlineError:
            connection.close()
            raise
        return connection


def _connected(
    dialect_class: type[Dialect], dialect: Any, args: Any, kwargs: Any, end: float, tickets: list[Ticket | None]
) -> Any:
    """Connect. The ticket stays taken until this ends, even if an exception has ended the wait for it."""
    try:
        return dialect_class.engines.connect(dialect, args, kwargs)
    except dialect.loaded_dbapi.Error as error:
        dialect_class.sessions.learn_code(error, kwargs, end - time.monotonic())
        raise
    finally:
        tickets.clear()  # the error of the wait may be in a reference cycle, which the garbage collector finds later


def _preparing(dialect_class: type[Dialect], driver: str, threshold: int | None) -> dict[str, Any]:
    """Return the driver's argument for the number of runs after which the server keeps a statement prepared.

    Raises:
        LTMError: ``configuration_error`` for a driver that takes none.
    """
    if driver in dialect_class.features.preparing_drivers:
        return {"prepare_threshold": threshold}
    if threshold is None:
        return {}
    raise LTMError("configuration_error", "prepare_threshold is for PostgreSQL with the driver psycopg; leave it out")


def _set_up_sessions(engine: Engine, dialect_class: type[Dialect], options: EngineOptions) -> None:
    idle = check_idle_timeout(options.idle_transaction_timeout, options.timeout)

    @event.listens_for(engine, "connect", insert=True)  # before SQLAlchemy reads modes that we change
    def set_up(driver_connection: Any, record: Any) -> None:
        record.info[CHECKED] = True
        settings = dialect_class.sessions.settings(options.timeout, idle, driver_connection)
        if not settings:
            return
        cursor = driver_connection.cursor()
        for setting in settings:
            dialect_class.sessions.set_up(cursor, setting)
        cursor.close()
        driver_connection.commit()


def _asks_for_encryption(options: Mapping[str, Any]) -> bool:
    return any(name.startswith("ssl") and name != "ssl_disabled" for name in options)


def _require_encryption(engine: Engine, statement: str) -> None:
    """Refuse connections that are not encrypted. Without TLS on the server, some drivers connect in plain text."""

    @event.listens_for(engine, "connect")
    def look(driver_connection: Any, record: Any) -> None:
        cursor = driver_connection.cursor()
        cursor.execute(statement)
        row = cursor.fetchone()
        cursor.close()
        if row is None or not row[-1]:
            driver_connection.close()
            raise LTMError(NOT_ENCRYPTED[0], message_of(NOT_ENCRYPTED, where_of(engine)))


def first_connection(engine: Engine, deadline: Deadline, *, is_ours: bool) -> Connection:
    """Open the first connection. If the driver raises an error of Python, explain it.

    Args:
        engine: the engine.
        deadline: the deadline of the call.
        is_ours: whether we created the engine.

    Raises:
        LTMError: ``configuration_error``, or an error that says why the database cannot be reached.
    """
    try:
        connection = connect(engine, deadline)
        _check_schema(connection)
        if is_ours:  # otherwise ``connect`` has checked it
            check_session(connection, is_ours=True)
        return connection
    except (AttributeError, TypeError, ValueError) as error:
        dialect_class = for_dialect(engine.dialect)
        if dialect_class.sessions.is_damage(error, None):
            raise DAMAGED.exception() from None
        shown = ", ".join([*options_in(str(error), where_of(engine)), type(error).__name__])
        message = dialect_class.sessions.reason(error) or (
            f"the driver does not accept the url, one of its options, or the encoding of the database ({shown})"
        )
    raise LTMError("configuration_error", message)


def _check_schema(connection: Connection) -> None:
    """Refuse and close a connection that would look for our tables in one schema and create them in another.

    Raises:
        LTMError: ``configuration_error``.
    """
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    if schemas.get(None) not in (None, connection.dialect.default_schema_name):
        connection.close()
        raise LTMError(
            "configuration_error",
            "schema_translate_map puts tables without a schema into another one; leave None out of it, and give the "
            "memory an engine whose connections have that schema as their own",
        )


def with_a_pool_of_its_own(engine: Engine) -> Engine:
    """Return a copy of an engine that shares nothing but its settings and listeners."""
    engine = copy.copy(engine)
    if (parent := internals.parent_of(engine)) is not None:
        internals.set_parent(engine, with_a_pool_of_its_own(parent))
    else:
        engine.pool = engine.pool.recreate()
    return engine
