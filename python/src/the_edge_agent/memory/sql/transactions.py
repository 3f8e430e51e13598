"""One call, one transaction, one deadline: run it, and run the whole of it again when it lost to another."""

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

CHECKED = "the_edge_agent.checked"  # in the info of connections whose settings are right
_FIRST_PAUSE = 0.005  # seconds; doubled with each attempt
_LONGEST_PAUSE = 0.5
_ONE_CONNECTION = (StaticPool, SingletonThreadPool)  # pools whose connection the caller may be using


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
        engine: where.
        dialect: how its transactions begin.
        work: runs statements on the connection; called again from the start after a conflict, and when the connection
            was lost before COMMIT was sent, so that surely nothing was done.
        deadline: of the call.
        write: whether ``work`` writes.
        snapshot: whether all of its reads must see one state.

    Raises:
        LTMError: the transaction failed and has changed nothing; or, with ``unknown: True`` in its result, the
            connection was lost while COMMIT was under way.
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
                        answer = _done(work, connection, dialect)
                        is_committing = write
                    return answer
                except LostDatabaseError as error:  # what a caller's engine has open is of no use any more, either
                    forget(engine, connection.connection, error)
                    connection.invalidate(error)
                    raise
                except BaseException as error:
                    if deadline.expired or _tears_out(error, dialect):
                        connection.invalidate()
                    elif _serves_no_more(error, engine) and not connection.invalidated:
                        forget(engine, connection.connection, error)
                        connection.invalidate(error)
                    raise
                finally:
                    connection.close()
            # Of SQLAlchemy, whose transaction KeyboardInterrupt has half closed; the second where warnings are errors.
            except (AssertionError, SAWarning) as error:
                _close_again(connection)
                interrupt = _interrupt_behind(error)
                if interrupt is None:
                    raise
                raise interrupt from None
            except BaseException as error:
                _close_again(connection)
                if not isinstance(error, Exception):  # SQLAlchemy has closed the connection, and SQLite keeps the lock
                    clear_frames(error.__traceback__)  # as long as there is a cursor
                raise

    may_go_on = _GoingOn()

    def again(failure: Failure) -> bool:
        return may_go_on(failure, is_written=is_committing)

    def unknown(failure: Failure) -> bool:
        return is_committing and _is_cut(failure, deadline)

    return retrying(attempt, deadline, again=again, unknown=unknown)


def run_autocommit(
    engine: Engine, dialect: Dialect, query: BoundQuery, deadline: Deadline, *, write: bool = False
) -> Outcome:
    """Run one statement on an engine of our own, and return its outcome.

    It is a transaction of its own: nothing begins or ends one around it where the driver can do without.

    Raises:
        LTMError: the statement failed; with ``unknown: True`` in its result, the connection was lost after it was sent,
            so that it may have written.
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
            if getattr(error, "connection_invalidated", False) or _serves_no_more(error, engine):
                forget(engine, pooled, error)
            elif deadline.expired or _tears_out(error, dialect):
                dialect.sessions.cancel(driver_connection)
                pooled.invalidate(error)
            raise
        finally:
            deadline.release()
            pooled.close()

    return retrying(attempt, deadline, unknown=lambda failure: is_sent and _is_cut(failure, deadline))


def _done(work: Callable[[Connection], Answer], connection: Connection, dialect: Dialect) -> Answer:
    """Do the work; drop the connection before anything rolls back on it if it is left in the middle of a statement."""
    try:
        return work(connection)
    except BaseException as error:
        if _tears_out(error, dialect) and not connection.invalidated:
            dialect.sessions.cancel(connection.connection.driver_connection)
            connection.invalidate()
        raise


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """Return the interrupt during whose handling an error was raised, None if there was none."""
    behind: BaseException | None = error
    while isinstance(behind, Exception):
        behind = behind.__context__
    return behind


def _close_again(connection: Connection) -> None:
    """Give a connection back whose closing an exception such as KeyboardInterrupt may have stopped half way."""
    if not connection.closed:
        with suppress(Exception):  # SQLAlchemy asserts that a transaction was not half closed
            connection.close()
    if not connection.closed:
        with suppress(Exception):
            connection.connection.close()


def _tears_out(error: BaseException, dialect: Dialect) -> bool:
    """Return whether an error may have left a connection to a server in the middle of something: it is closed then."""
    return bool(dialect.features.socket_drivers) and not isinstance(error, (SQLAlchemyError, LostRaceError, LTMError))


def _serves_no_more(error: BaseException, engine: Engine) -> bool:
    """Return whether a server still answers, but takes no writes any more: another connection may lead elsewhere.

    A caller's pool is left alone: it may be one for reading.
    """
    return isinstance(error, DBAPIError) and SECONDS in engine.get_execution_options() and classify(error).lost


def _is_cut(failure: Failure, deadline: Deadline) -> bool:
    """Return whether nobody has told how a statement ended."""
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


class _GoingOn:
    """Whether a call is tried again after a failure: until its deadline, but once where others fail the same way."""

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
    """Call ``attempt`` until it succeeds, fails for good, or its time is over.

    Args:
        attempt: does the work.
        deadline: of the call.
        again: whether it is tried again after a failure; as long as that may help, if this is None.
        unknown: whether nobody knows after a failure what was written.

    Raises:
        LTMError: without the driver's error as its cause, which may hold secrets or stored values.
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
        again = again or _GoingOn()
        fields = {"unknown": True} if unknown(failure) else {}
        if deadline.expired and not failure.waited:
            timed_out = out_of_time(deadline.seconds) if lost is None or fields else lost  # which says more
            raise timed_out.exception(**fields)
        is_too_late = deadline.remaining() <= (deadline.seconds / 2 if failure.waited else pause)
        if fields or is_too_late or not again(failure):
            raise failure.exception(**fields)
        lost = failure if failure.lost else None
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries, keeps no secret
        pause = min(pause * 2, _LONGEST_PAUSE)


def is_driver_error(error: BaseException) -> bool:
    """Return whether an error is a driver's own, which listeners raise unwrapped (PEP 249: class ``Error``)."""
    return any(kind.__name__ == "Error" for kind in type(error).__mro__) and not isinstance(error, DBAPIError)


def connect(engine: Engine, deadline: Deadline) -> Connection:
    """Return a connection of the pool that is alive, as far as a look at its socket tells; guarded by the deadline."""
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
            deadline.guard(partial(_stop, connection, dialect_class, driver_connection))
            if CHECKED not in connection.info:
                check_session(connection, is_ours=False)
            return connection
        connection.invalidate()
        connection.close()


def check_session(connection: Connection, *, is_ours: bool) -> None:
    """Look at the settings of a connection, and close it if they are wrong.

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
    """Return the options of a connection in place of those of a caller's engine that no transaction of ours takes."""
    options = engine.get_execution_options()
    overrides: dict[str, Any] = {}
    levels = (options.get("isolation_level"), internals.isolation_level_of(engine))
    if "AUTOCOMMIT" in levels:
        overrides["isolation_level"] = dialect_class.features.isolation_level
    if options.get("stream_results") or options.get("yield_per"):
        overrides |= {"stream_results": False, "yield_per": None}
    return overrides


def _stop(connection: Connection, dialect_class: type[Dialect], driver_connection: Any) -> None:
    if not connection.closed:  # else it is another call's by now
        dialect_class.sessions.stop(driver_connection)
