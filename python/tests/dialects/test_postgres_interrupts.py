"""Exceptions at any moment on PostgreSQL leave only the sessions of the pool on the server."""

from __future__ import annotations

import gc
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import make_url

from databases import Database
from run_length import SEED, of_this_run
from the_edge_agent.memory import PostgresBackend, SQLAlchemyBackend

psycopg = pytest.importorskip("psycopg")

POOL_SIZE = 2
MORE = 4  # sessions that the server is only about to end, or that nobody waits for any more
INTERRUPTS = of_this_run(15, 600)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.targets(family="postgresql", native=True),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def no_garbage() -> Iterator[None]:
    """Collect what exceptions have struck while it was made, so that no later test is warned of it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class AlarmError(BaseException):
    """What a handler raises that limits the time of a task; psycopg does not know it."""


def native_url(database: Database) -> str:
    return make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)


def opened(kind: str, database: Database) -> Any:
    if kind == "native":
        return PostgresBackend(native_url(database), pool_size=POOL_SIZE)
    url = make_url(database.url).set(drivername=f"postgresql+{kind}")
    return SQLAlchemyBackend(url, pool_size=POOL_SIZE, max_overflow=0)


@contextmanager
def alarms(error: type[BaseException]) -> Iterator[Callable[[float], None]]:
    """Yield a function that has ``error`` raised in the main thread after some seconds, 0 for never.

    It is raised again each second: Python drops one that comes in a destructor.
    """

    def interrupt(number: int, frame: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds, 1) and None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Sessions:
    """The sessions on a database, without the one that looks."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._is_over = threading.Event()
        self.most = 0

    def count(self, state: str = "%") -> int:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND coalesce(state, '') LIKE %s"
        )
        return int(self._connection.execute(query, [state]).fetchone()[0])

    def wait_for(self, state: str, count: int) -> None:
        end = time.monotonic() + 10
        while self.count(state) != count:
            assert time.monotonic() < end, f"{self.count(state)} sessions are {state}"

    @contextmanager
    def watched(self) -> Iterator[None]:
        def watch() -> None:
            while not self._is_over.wait(0.002):
                self.most = max(self.most, self.count())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()


@pytest.mark.parametrize("kind", ["native", "psycopg", "psycopg2"])
def test_calls_that_are_interrupted_leave_no_sessions(kind: str, database: Database) -> None:
    moments, sessions = random.Random(SEED), Sessions(native_url(database))
    with opened(kind, database) as memory, alarms(KeyboardInterrupt) as alarm:
        calls: list[Callable[[], object]] = [
            lambda: memory.store("k", 1),
            lambda: memory.retrieve("k"),
            lambda: memory.search("fox"),
            lambda: memory.store_many([{"key": "a", "value": 1}]),
        ]
        memory.store("k", 1)

        def call_without_end() -> None:
            alarm(moments.uniform(0.001, 0.02))
            while True:
                moments.choice(calls)()

        gc.disable()  # no session waits for it
        try:
            with sessions.watched():
                for _ in range(INTERRUPTS):
                    with pytest.raises(KeyboardInterrupt):
                        call_without_end()
                    alarm(0)
        finally:
            gc.enable()
        assert sessions.most <= POOL_SIZE + MORE
        found = memory.store("after", 1)
        assert found.get("created") is True, found


@pytest.mark.parametrize("kind", ["native", "psycopg"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, AlarmError])
def test_a_statement_that_is_interrupted_ends_on_the_server(
    kind: str, error: type[BaseException], database: Database
) -> None:
    sessions = Sessions(native_url(database))
    with opened(kind, database) as memory, psycopg.connect(native_url(database)) as other, alarms(error) as alarm:
        calls: list[Callable[[], object]] = [
            lambda: memory.store("k", 1),
            lambda: memory.store_many([{"key": "a", "value": 1}]),
        ]
        for call in calls:
            other.execute("LOCK TABLE ltm_entries IN ACCESS EXCLUSIVE MODE")
            begun = time.monotonic()
            alarm(0.1)
            with pytest.raises(error):
                call()
            alarm(0)
            assert time.monotonic() - begun < 5
            sessions.wait_for("active", 0)  # though the lock is still there, for which it waited
            other.rollback()
        assert memory.store("after", 1)["created"] is True
