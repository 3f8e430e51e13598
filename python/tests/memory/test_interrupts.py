"""Exceptions at any moment on SQLite: no lock stays, no connection is lost, and no write is half done."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine.base import RootTransaction

from databases import Database
from interrupts import at_once, torn_out
from run_length import SEED, of_this_run
from the_edge_agent.memory import SQLAlchemyBackend, SQLiteBackend

INTERRUPTS = of_this_run(20, 1000)  # of each class
SECONDS = 5.0  # that a call may take

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_garbage"),
    pytest.mark.targets("native", family="sqlite", portable=False),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def check_served(call: Callable[[], dict[str, Any]]) -> None:
    """Check that threads that call at once are all served, well before their deadline."""
    gc.collect()
    begun = time.monotonic()
    answers = at_once(call, 4)
    assert len(answers) == 20
    assert all(answer["success"] for answer in answers), answers
    assert time.monotonic() - begun < SECONDS


def calls_of(memory: Any, acknowledged: dict[str, int]) -> list[Callable[[], object]]:
    """Return calls of every kind; what is acknowledged is written down."""

    def store(key: str) -> None:
        result = memory.store(key, "fox", {"n": 1})
        assert result["success"], result
        acknowledged[key] = max(acknowledged.get(key, 0), result["version"])

    def transact() -> None:
        transaction = memory.transaction()
        transaction.store("b1", 1)
        transaction.store("b2", 1)
        assert transaction.commit()["success"]

    return [
        *(lambda key=key: store(key) for key in ("k0", "k1", "k2")),
        lambda: memory.retrieve("k1"),
        lambda: memory.search("fox", {"n": 1}),
        lambda: list(memory.iterate_all()),
        lambda: memory.store("k0", 1, if_version=0),
        lambda: memory.delete("none"),
        lambda: memory.store_many([{"key": "b1", "value": 1}, {"key": "b2", "value": 1}]),
        transact,
    ]


@pytest.mark.parametrize("catalog", [False, True], ids=["plain", "ledger"])
def test_a_memory_outlives_exceptions_at_any_moment(database: Database, catalog: bool) -> None:
    kind = "sqlite" if database.target.native else "sqlalchemy"
    acknowledged: dict[str, int] = {}
    with database.open(timeout=SECONDS, **({"catalog": kind} if catalog else {})) as memory:
        torn_out(calls_of(memory, acknowledged), INTERRUPTS, random.Random(SEED))
        check_served(lambda: memory.store("after", 1))
        check_served(lambda: memory.retrieve("after"))
        for key, version in acknowledged.items():
            assert (memory.retrieve(key)["version"] or 0) >= version, key
        batch = memory.retrieve_many(["b1", "b2"])["entries"].values()
        assert len({entry and entry["version"] for entry in batch}) == 1, "both are written, or none"
        if catalog:
            assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}


def test_a_catalog_outlives_exceptions_at_any_moment(database: Database) -> None:
    with database.open_catalog(timeout=SECONDS) as catalog:
        entry = {"content_hash": "h", "storage_uri": None, "byte_size": 1, "metadata": {"a": 1}}
        calls: list[Callable[[], object]] = [
            lambda: catalog.track_entry("k", **entry),
            lambda: catalog.get_entry("k"),
            lambda: catalog.list_entries(metadata_filter={"a": 1}),
            lambda: catalog.delete_entry("k"),
            lambda: catalog.store_batch([{"key": key, **entry} for key in ("b1", "b2")]),
            lambda: catalog.delete_snapshot(catalog.create_snapshot("s")),
        ]
        torn_out(calls, INTERRUPTS, random.Random(SEED))
        check_served(lambda: catalog.track_entry("after", **entry))
        batch = catalog.retrieve_batch(["b1", "b2"])["entries"].values()
        assert len({entry is None for entry in batch}) == 1


@pytest.mark.targets("native", native=True, in_memory=False, family="sqlite")
def test_the_handler_of_a_signal_may_raise_at_any_moment(database: Database) -> None:
    """Signals come to the main thread; so does KeyboardInterrupt, while others wait for their turn."""
    interrupted, is_armed = 0, False

    def interrupt(number: int, frame: object) -> None:
        if is_armed:
            raise KeyboardInterrupt

    moments, before = random.Random(SEED), signal.signal(signal.SIGALRM, interrupt)
    stores = {
        "native": SQLiteBackend(timeout=SECONDS),
        "native file": database.open(timeout=SECONDS),
        "SQLAlchemy": SQLAlchemyBackend("sqlite://", timeout=SECONDS),
    }
    try:
        for memory in stores.values():
            calls = calls_of(memory, {})
            for _ in range(INTERRUPTS):
                try:
                    is_armed = True
                    signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0001, 0.003), 1)  # Python may drop one
                    while True:
                        moments.choice(calls)()
                except KeyboardInterrupt:
                    is_armed = False
                    interrupted += 1
            check_served(lambda memory=memory: memory.store("after", 1))  # type: ignore[misc]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for memory in stores.values():
            memory.close()
    assert interrupted == len(stores) * INTERRUPTS


@pytest.mark.targets("native", native=True, in_memory=False, family="sqlite")
def test_no_lock_outlives_an_interrupt(database: Database) -> None:
    """Others write at once, though the traceback of the interrupt is still there."""
    is_armed = False

    def interrupt(number: int, frame: object) -> None:
        if is_armed:
            raise KeyboardInterrupt

    moments, before = random.Random(SEED), signal.signal(signal.SIGALRM, interrupt)
    engine = create_engine(database.url)
    memories = {
        "native": database.open(timeout=SECONDS),
        "SQLAlchemy": SQLAlchemyBackend(database.url, timeout=SECONDS),
        "engine": SQLAlchemyBackend(engine=engine, timeout=SECONDS),
    }
    path = make_url(database.url).database or ""
    try:
        with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as other:
            for memory in memories.values():
                calls = calls_of(memory, {})
                for _ in range(INTERRUPTS):
                    try:
                        is_armed = True
                        signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.00002, 0.003), 1)
                        while True:
                            moments.choice(calls)()
                    except KeyboardInterrupt:
                        is_armed = False
                        other.execute("BEGIN IMMEDIATE")  # within the handler: the traceback is alive
                        other.execute("ROLLBACK")
                memory.close()
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for memory in memories.values():
            memory.close()
        engine.dispose()
        gc.collect()  # connections that an interrupt tore out: their warnings are for this test to ignore


@pytest.mark.targets("native", native=True, in_memory=False, family="sqlite")
@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
def test_no_lock_outlives_an_interrupt_beside_a_with_block(
    database: Database, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator of a context manager has begun and nobody ends it, as long as the traceback is there."""
    manager: Any = contextlib._GeneratorContextManager
    original = getattr(manager, method)

    def interrupted(self: Any, *args: Any) -> Any:
        is_aim = "transaction" in self.gen.__qualname__
        if is_aim and method == "__exit__":
            raise KeyboardInterrupt
        answer = original(self, *args)
        if is_aim:
            raise KeyboardInterrupt
        return answer

    path = make_url(database.url).database or ""
    with database.open() as memory, closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as other:
        memory.store("k", 1)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(manager, method, interrupted)
                memory.delete_many(["k"])
        except KeyboardInterrupt:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        else:
            pytest.fail("nothing was interrupted")
        assert memory.retrieve("k")["value"] == 1


@pytest.mark.targets(native=False, in_memory=False, family="sqlite")
def test_an_interrupt_is_raised_though_sqlalchemy_warns_of_its_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(transaction: Any) -> None:
        transaction.connection._transaction = None  # as between two lines of it
        raise KeyboardInterrupt

    path = make_url(database.url).database or ""
    with database.open() as memory, closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as other:
        memory.store("k", 1)
        with monkeypatch.context() as patched:
            patched.setattr(RootTransaction, "_do_commit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                memory.delete_many(["k"])
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        assert memory.retrieve("k")["value"] == 1


@pytest.mark.targets("native", native=True, in_memory=False, family="sqlite")
def test_an_interrupt_during_a_long_statement_is_raised_at_once(database: Database) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with database.open(timeout=30) as memory:
        timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
        begun = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt), memory._database.statement() as connection:
            connection.execute(endless)
        assert time.monotonic() - begun < 10
        assert memory.store("k", 1)["created"] is True


@pytest.mark.targets("native", native=True, in_memory=False, family="sqlite")
def test_no_transaction_stays_open_in_a_pool(database: Database) -> None:
    """SQLAlchemy's pool takes back the connection of a frame that is gone."""
    with SQLAlchemyBackend(f"{database.url}2", timeout=SECONDS) as memory:
        engine = memory._engine
        assert engine is not None
        connection = engine.connect()
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        driver_connection: Any = connection.connection.driver_connection
        assert driver_connection.in_transaction
        del connection
        gc.collect()
        assert not driver_connection.in_transaction
        assert memory.store("k", 1)["created"] is True
