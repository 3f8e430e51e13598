"""One call, one transaction: run it, and run the whole of it again when it lost to another."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from the_edge_agent.memory.results import LTMError
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.errors import Failure, LostRaceError, classify

Answer = TypeVar("Answer")

_FIRST_PAUSE = 0.005  # seconds; doubled with each attempt
_LONGEST_PAUSE = 0.5


def run_transaction(
    engine: Engine,
    dialect: Dialect,
    work: Callable[[Connection], Answer],
    *,
    timeout: float,
    write: bool = False,
    snapshot: bool = False,
) -> Answer:
    """Run ``work`` in one transaction and return its answer.

    Args:
        engine: where.
        dialect: how its transactions begin.
        work: runs statements on the connection; called again from the start after a conflict.
        timeout: seconds after which a conflict is reported instead of tried again.
        write: whether ``work`` writes.
        snapshot: whether all of its reads must see one state.

    Raises:
        LTMError: the transaction failed and has changed nothing.
    """

    def attempt() -> Answer:
        with engine.connect() as connection:
            if snapshot and dialect.snapshot_isolation:
                connection.execution_options(isolation_level=dialect.snapshot_isolation)
            with connection.begin():
                dialect.begin(connection, write=write)
                return work(connection)

    return retrying(attempt, timeout=timeout)


def retrying(
    attempt: Callable[[], Answer],
    *,
    timeout: float,
    again: Callable[[Failure], bool] = lambda failure: failure.retry,
) -> Answer:
    """Call ``attempt`` until it succeeds, fails for good, or ``timeout`` seconds are over.

    Raises:
        LTMError: without the driver's error as its cause, which may hold secrets or stored values.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        try:
            return attempt()
        except (SQLAlchemyError, LostRaceError, OSError) as error:
            failure = classify(error)
        except LTMError:
            raise
        except Exception as error:
            if not is_driver_error(error):
                raise
            failure = classify(error)
        if not again(failure) or time.monotonic() + pause > deadline:
            raise failure.exception()
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries, keeps no secret
        pause = min(pause * 2, _LONGEST_PAUSE)


def is_driver_error(error: BaseException) -> bool:
    """Return whether an error is a driver's own, which listeners raise unwrapped (PEP 249: class ``Error``)."""
    return any(kind.__name__ == "Error" for kind in type(error).__mro__) and not isinstance(error, DBAPIError)
