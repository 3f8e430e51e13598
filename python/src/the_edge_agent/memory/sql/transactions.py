"""Runs a call as one transaction with a deadline, and repeats the whole transaction after a conflict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from traceback import clear_frames
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError, SAWarning, SQLAlchemyError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from the_edge_agent.memory.core.calls import note_retry
from the_edge_agent.memory.core.results import LostDatabaseError, LTMError
from the_edge_agent.memory.database.sockets import has_ended
from the_edge_agent.memory.sql.dialects import BEGINS_ITSELF, SECONDS, Dialect, for_dialect
from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.deadlines import Deadline, DeadlineError
from the_edge_agent.memory.sql.driver.errors import Failure, LostRaceError, classify, out_of_time
from the_edge_agent.memory.sql.driver.opening import opened
from the_edge_agent.memory.sql.driver.pool import CallPool, Loan
from the_edge_agent.memory.sql.driver.prepared import BoundQuery, Outcome, forget

Answer = TypeVar("Answer")

CHECKED = "the_edge_agent.checked"  # in the info of connections whose settings were checked
_FIRST_PAUSE = 0.005  # seconds; doubled with each attempt
_LONGEST_PAUSE = 0.5
_ONE_CONNECTION = (StaticPool, SingletonThreadPool)  # pools whose connection the caller may use at the same time


def run_transaction(
    engine: Engine,
    dialect: Dialect,
    work: Callable[[Connection], Answer],
    deadline: Deadline,
    *,
    write: bool = False,
    snapshot: bool = False,
) -> Answer:
    """Run ``work`` in one transaction and return its answer.

    Args:
        engine: the engine.
        dialect: the dialect of the engine.
        work: a function that runs statements on the connection. It is called again after a conflict, and if the
            connection was lost before COMMIT was sent, because then nothing was stored.
        deadline: the deadline of the call.
        write: whether ``work`` writes.
        snapshot: whether all of its reads must see one state.

    Raises:
        LTMError: the transaction failed and changed nothing. If the result has ``unknown: True``, the connection was
            lost during COMMIT.
    """
    is_committing = False

    def attempt() -> Answer:
        nonlocal is_committing
        is_committing = False
        with deadline.released():
            connection = connect(engine, deadline)
            try:
                try:
                    with dialect.transactions.begin(connection, deadline, write=write, snapshot=snapshot):
                        answer = _run_work(work, connection, dialect)
                        is_committing = write
                    return answer
                except LostDatabaseError as error:  # the other connections of a caller's engine are useless, too
                    forget(engine, connection.connection, error)
                    connection.invalidate(error)
                    raise
                except BaseException as error:
                    if deadline.expired or _interrupts_statement(error, dialect):
                        connection.invalidate()
                    elif _takes_no_writes(error, engine) and not connection.invalidated:
                        forget(engine, connection.connection, error)
                        connection.invalidate(error)
                    raise
                finally:
                    connection.close()
            # SQLAlchemy raises these for a transaction that KeyboardInterrupt has half closed. SAWarning is raised only
            # if warnings are errors.
            except (AssertionError, SAWarning) as error:
                _close_again(connection)
                interrupt = _interrupt_behind(error)
                if interrupt is None:
                    raise
                raise interrupt from None
            except BaseException as error:
                _close_again(connection)
                # While a frame of the traceback has a cursor, SQLite keeps the lock after the connection is closed.
                if not isinstance(error, Exception):
                    clear_frames(error.__traceback__)
                raise

    retry_rule = _RetryRule()

    def again(failure: Failure) -> bool:
        return retry_rule(failure, is_written=is_committing)

    def unknown(failure: Failure) -> bool:
        return is_committing and _is_result_unknown(failure, deadline)

    return retrying(attempt, deadline, again=again, unknown=unknown)


def run_autocommit(
    engine: Engine, dialect: Dialect, query: BoundQuery, deadline: Deadline, *, write: bool = False
) -> Outcome:
    """Run one statement as a transaction of its own, on an engine that we made. Return its outcome.

    No BEGIN or COMMIT is sent if the driver can do without.

    Raises:
        LTMError: the statement failed. If the result has ``unknown: True``, the connection was lost after the statement
            was sent, so it may have written.
    """
    is_sent = False

    def attempt() -> Outcome:
        nonlocal is_sent
        is_sent = False
        pooled = _pooled(engine, dialect)
        driver_connection: Any = pooled.driver_connection
        try:
            deadline.guard(partial(dialect.sessions.stop, driver_connection))
            with dialect.transactions.autocommit(driver_connection, write=write):
                is_sent = write
                return query.prepared.on(engine.dialect).run(driver_connection, query.parameters)
        except BaseException as error:
            if getattr(error, "connection_invalidated", False) or _takes_no_writes(error, engine):
                forget(engine, pooled, error)
            elif deadline.expired or _interrupts_statement(error, dialect):
                dialect.sessions.cancel(driver_connection)
                pooled.invalidate(error)
            raise
        finally:
            deadline.release()
            pooled.close()

    return retrying(attempt, deadline, unknown=lambda failure: is_sent and _is_result_unknown(failure, deadline))


def _run_work(work: Callable[[Connection], Answer], connection: Connection, dialect: Dialect) -> Answer:
    """Run ``work``. If an error interrupts a statement, drop the connection before anything rolls back on it."""
    try:
        return work(connection)
    except BaseException as error:
        if _interrupts_statement(error, dialect) and not connection.invalidated:
            dialect.sessions.cancel(connection.connection.driver_connection)
            connection.invalidate()
        raise


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """Return the interrupt (such as KeyboardInterrupt) whose handling raised an error, or None."""
    behind: BaseException | None = error
    while isinstance(behind, Exception):
        behind = behind.__context__
    return behind


def _close_again(connection: Connection) -> None:
    """Close a connection again, because an exception such as KeyboardInterrupt may have interrupted its closing."""
    if not connection.closed:
        with suppress(Exception):  # SQLAlchemy raises AssertionError for a half closed transaction
            connection.close()
    if not connection.closed:
        with suppress(Exception):
            connection.connection.close()


def _interrupts_statement(error: BaseException, dialect: Dialect) -> bool:
    """Return whether an error may have interrupted a connection to a server during a statement.

    Then it must be closed.
    """
    return bool(dialect.features.socket_drivers) and not isinstance(error, (SQLAlchemyError, LostRaceError, LTMError))


def _takes_no_writes(error: BaseException, engine: Engine) -> bool:
    """Return whether the server still answers but takes no writes. A new connection may lead to another server.

    This is always False for a caller's engine, because its pool may be for reading only.
    """
    return isinstance(error, DBAPIError) and SECONDS in engine.get_execution_options() and classify(error).lost


def _is_result_unknown(failure: Failure, deadline: Deadline) -> bool:
    """Return whether the result of a statement is unknown."""
    is_cut = failure.error_type in ("connection_error", "connection_timeout")
    return (deadline.expired or is_cut) and not failure.untouched


def _pooled(engine: Engine, dialect: Dialect) -> PoolProxiedConnection | Loan:
    pool = engine.pool
    while True:
        loan = opened(engine, pool.loan) if isinstance(pool, CallPool) else None
        pooled = loan or opened(engine, engine.raw_connection)
        if dialect.features.is_embedded or not has_ended(dialect.sessions.socket_of(pooled.driver_connection)):
            return pooled
        pooled.invalidate()
        pooled.close()
        note_retry()


class _RetryRule:
    """Decides whether a call runs again after a failure: until its deadline, but only once for a lasting failure."""

    __slots__ = ("_was_lasting",)

    def __init__(self) -> None:
        self._was_lasting = False

    def __call__(self, failure: Failure, *, is_written: bool = False) -> bool:
        if failure.retry:
            return True
        if not failure.lost or (is_written and not failure.untouched):
            return False
        was_lasting, self._was_lasting = self._was_lasting, self._was_lasting or failure.is_lasting
        return not (failure.is_lasting and was_lasting)


def retrying(
    attempt: Callable[[], Answer],
    deadline: Deadline,
    *,
    again: Callable[[Failure], bool] | None = None,
    unknown: Callable[[Failure], bool] = lambda failure: False,
) -> Answer:
    """Call ``attempt`` until it succeeds, has a final failure, or its time is over.

    Args:
        attempt: a function that does the work.
        deadline: the deadline of the call.
        again: takes a failure and returns whether to try again. None means: as long as that may help.
        unknown: takes a failure and returns whether it is unknown what was written.

    Raises:
        LTMError: the failure. The driver's error is not its cause, because it may contain secrets or stored values.
    """
    pause, lost = _FIRST_PAUSE, None
    while True:
        try:
            return attempt()
        except (SQLAlchemyError, LostRaceError, DeadlineError, OSError, UnicodeError, NotImplementedError) as error:
            failure = classify(error)
        except LTMError:
            raise
        except Exception as error:
            if not is_driver_error(error):
                raise
            failure = classify(error)
        again = again or _RetryRule()
        fields = {"unknown": True} if unknown(failure) else {}
        # A last attempt to connect again ends at the deadline, and may tell of it before the deadline's thread does.
        is_cut = lost is not None and failure.error_type == "connection_timeout" and not deadline.remaining()
        if (deadline.expired or is_cut) and not failure.waited:
            timed_out = out_of_time(deadline.seconds) if lost is None or fields else lost  # the loss explains more
            raise timed_out.exception(**fields)
        is_too_late = deadline.remaining() <= (deadline.seconds / 2 if failure.waited else pause)
        if fields or is_too_late or not again(failure):
            raise failure.exception(**fields)
        lost = failure if failure.lost else None
        note_retry()
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries, keeps no secret
        pause = min(pause * 2, _LONGEST_PAUSE)


def is_driver_error(error: BaseException) -> bool:
    """Return whether an error is a driver's ``Error`` (PEP 249). Listeners raise it without SQLAlchemy's wrapper."""
    return any(kind.__name__ == "Error" for kind in type(error).__mro__) and not isinstance(error, DBAPIError)


def connect(engine: Engine, deadline: Deadline) -> Connection:
    """Return a connection of the pool whose socket shows that it is alive. The deadline guards it."""
    dialect_class = for_dialect(engine.dialect)
    while True:
        connection = opened(engine, engine.connect)
        if overrides := _overrides(engine, dialect_class):
            connection.execution_options(**overrides)
        driver_connection: Any = connection.connection.driver_connection
        if problem := _why_unusable(engine, dialect_class, driver_connection):
            connection.close()
            raise LTMError("configuration_error", problem)
        if not has_ended(dialect_class.sessions.socket_of(driver_connection)):
            try:
                deadline.guard(partial(_stop, connection, dialect_class, driver_connection))
            except DeadlineError:
                connection.close()
                raise
            if CHECKED not in connection.info:
                check_session(connection, is_ours=False)
            return connection
        connection.invalidate()
        connection.close()
        note_retry()


def check_session(connection: Connection, *, is_ours: bool) -> None:
    """Check the settings of a connection, and close it if they are wrong.

    Raises:
        LTMError: ``configuration_error``.
    """
    try:
        for_dialect(connection.dialect).sessions.check(connection, is_ours=is_ours)
    except BaseException:
        connection.close()
        raise
    connection.info[CHECKED] = True


def _why_unusable(engine: Engine, dialect_class: type[Dialect], driver_connection: Any) -> str | None:
    if engine.get_execution_options().get(BEGINS_ITSELF):
        return None
    return dialect_class.sessions.why_unusable(driver_connection, is_shared=isinstance(engine.pool, _ONE_CONNECTION))


def _overrides(engine: Engine, dialect_class: type[Dialect]) -> dict[str, Any]:
    """Return connection options that replace those options of a caller's engine that our transactions cannot use."""
    options = engine.get_execution_options()
    overrides: dict[str, Any] = {}
    levels = (options.get("isolation_level"), internals.isolation_level_of(engine))
    if "AUTOCOMMIT" in levels:
        overrides["isolation_level"] = dialect_class.features.isolation_level
    if options.get("stream_results") or options.get("yield_per"):
        overrides |= {"stream_results": False, "yield_per": None}
    return overrides


def _stop(connection: Connection, dialect_class: type[Dialect], driver_connection: Any) -> None:
    if not connection.closed:  # otherwise another call may be using it
        dialect_class.sessions.stop(driver_connection)
