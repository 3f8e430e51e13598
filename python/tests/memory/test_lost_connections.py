"""A server cuts connections or falls silent: callers notice nothing, or get a typed error in time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import NullPool

from databases import Database
from faults.connections import OTHERS, Proxy, kill_connections, session_of
from the_edge_agent.memory import LTMBackend, LTMError, SQLAlchemyBackend
from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.sql import transactions
from the_edge_agent.memory.sql.schema.rows import entry_parameters

pytestmark = pytest.mark.slow

on_servers = pytest.mark.targets(server=True, portable=False)

CALLS: dict[str, Callable[[LTMBackend], Result]] = {
    "store": lambda backend: backend.store("new", 1),
    "store over a version": lambda backend: backend.store("k", 2, if_version=1),
    "store_many": lambda backend: backend.store_many([{"key": f"many/{n}", "value": n} for n in range(3)]),
    "retrieve": lambda backend: backend.retrieve("k"),
    "retrieve_many": lambda backend: backend.retrieve_many(["k", "other"]),
    "search": lambda backend: backend.search("fox", {"n": 1}),
    "list_keys": lambda backend: backend.list_keys(),
    "count": lambda backend: backend.count(),
    "iterate_all": lambda backend: {"success": True, "found": [*backend.iterate_all()]},
    "delete_many": lambda backend: backend.delete_many(["gone", "other"]),
    "cleanup_expired": lambda backend: backend.cleanup_expired(),
    "delete": lambda backend: backend.delete("k"),
}


def fill_pool(backend: Any, connections: int = 4) -> None:
    """Have so many connections in the pool."""
    held = [backend._engine.connect() for _ in range(connections)]
    for connection in held:
        connection.close()


def run_slowly(backend: Any) -> Result:
    """Run a statement that takes half a minute."""
    statement = {
        "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
        "postgresql": "SELECT pg_sleep(30)",
        "mysql": "SELECT sleep(30)",
    }[backend.dialect]
    try:
        backend._database.run(lambda connection, entries: connection.execute(text(statement)).all())
    except LTMError as failure:
        return failure.result
    return {"success": True}


@pytest.fixture
def backend(database: Database) -> Iterator[Any]:
    with database.open() as backend:
        backend.store("k", "fox", {"n": 1})
        backend.store("other", "hound")
        yield backend


# --- connections that the server has ended -----------------------------------------------------------


@on_servers
def test_every_call_succeeds_after_every_connection_was_killed(backend: Any, database: Database) -> None:
    for name, call in CALLS.items():
        fill_pool(backend)
        assert kill_connections(database) >= 4
        result = call(backend)
        assert result["success"] is True, (name, result)
    assert backend.retrieve("new") == {"success": True, "value": 1, "found": True, "metadata": None, "version": 1}
    assert backend.count() == {"success": True, "count": 4}


@on_servers
def test_a_dead_connection_that_looks_alive_is_replaced_by_one_more_attempt(
    backend: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "has_ended", lambda descriptor: False)
    for name, call in CALLS.items():
        fill_pool(backend)
        assert kill_connections(database) >= 4
        result = call(backend)
        assert result["success"] is True, (name, result)
    assert backend.retrieve("new")["version"] == 1


@on_servers
def test_a_living_connection_costs_no_round_trip_more(backend: Any) -> None:
    statements: list[str] = []
    event.listen(backend._engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert not backend._engine.pool._pre_ping
    backend.retrieve("k")
    backend.store("k", 2)
    begins = ["START"] if backend.dialect == "mysql" else []  # of a traced store: others are one statement
    assert [statement.split()[0] for statement in statements] == ["SELECT", *begins, "INSERT"]


@on_servers
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_connection_lost_before_commit_runs_the_whole_transaction_again(
    backend: Any, database: Database, place: int
) -> None:
    writes: list[str] = []

    def cut(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(("INSERT", "DELETE")):
            writes.append(statement)
            if len(writes) == place:
                kill_connections(database, connection.connection.info["session"])

    def remember(connection: Any) -> None:
        connection.connection.info["session"] = session_of(connection)

    event.listen(backend._engine, "begin", remember)
    event.listen(backend._engine, "before_cursor_execute", cut)
    transaction = backend.transaction()
    transaction.store("k", "two")
    transaction.delete("other")
    transaction.store("third", 3)
    results = transaction.commit()["results"]
    assert [results[0]["version"], results[1]["deleted"], results[2]["created"]] == [2, True, True]
    assert len(writes) == place + 3


@on_servers
def test_a_connection_killed_at_commit_is_replaced_when_nothing_was_written(backend: Any, database: Database) -> None:
    begun: list[int] = []

    def remember(connection: Any) -> None:
        begun.append(session_of(connection))

    event.listen(backend._engine, "begin", remember)
    event.listen(backend._engine, "commit", lambda connection: len(begun) == 1 and kill_connections(database, *begun))
    assert backend.store("k", "two", if_version=1)["version"] == 2
    assert len(begun) == 3  # the look too


@on_servers
def test_a_borrowed_connection_that_is_lost_leaves_nothing_behind(backend: Any, database: Database) -> None:
    with backend._engine.connect():
        kill_connections(database)
    assert backend.store("k", 2)["version"] == 2
    assert backend.retrieve("k")["value"] == 2


@on_servers
def test_one_write_id_is_one_store(backend: Any) -> None:
    schema = backend._database.start().schema
    row = entry_parameters(schema.dialect, Store.of("new", "fox", None), None) | {"b_write_id": "one"}

    def store() -> int:
        return int(backend._database.run(lambda connection, sql: sql.entries._upsert.one(connection, row), write=True))

    assert [store(), store()] == [1, 1]
    together = backend.store_many([{"key": "new", "value": 2}, {"key": "another", "value": 2}])
    assert together["results"][0]["version"] == 2
    assert store() == 3


# --- deadlines ---------------------------------------------------------------------------------------


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.monotonic()
    result = call()
    return result, time.monotonic() - start


def answered(call: Callable[[], Result]) -> Result:
    """Return the first success of a few tries: on a busy machine a second is short for connecting."""
    result = call()
    for _ in range(5):
        result = result if result["success"] else call()
    return result


def iterated(backend: LTMBackend) -> Result:
    """Return the failure of iterate_all as a result."""
    try:
        return {"success": True, "found": [*backend.iterate_all()]}
    except LTMError as failure:
        return failure.result


@on_servers
def test_with_a_server_that_falls_silent_every_call_ends_at_its_deadline(database: Database) -> None:
    calls = {**CALLS, "iterate_all": iterated}
    with database.open() as backend:
        backend.store("k", "fox", {"n": 1})
    with Proxy(database.url) as proxy, SQLAlchemyBackend(proxy.url, lazy=True, timeout=1, pool_size=16) as backend:
        assert answered(lambda: backend.retrieve("k"))["found"] is True
        fill_pool(backend, len(calls))
        proxy.silent.set()
        with ThreadPoolExecutor(len(calls)) as threads:
            timings = threads.map(lambda call: timed(lambda: call(backend)), calls.values())
            answers = dict(zip(calls, timings, strict=True))
        proxy.silent.clear()
        for name, (result, seconds) in answers.items():
            assert result["error_type"] == "connection_timeout", (name, result)
            assert 0.9 < seconds < 2, (name, seconds)
        assert "unknown" not in answers["retrieve"][0]
        result = answered(lambda: backend.retrieve("other"))
        assert result["success"] is True, result


@on_servers
@pytest.mark.parametrize("connect_timeout", [0.5, 10])
def test_a_server_that_accepts_and_never_answers_ends_at_the_sooner_limit(
    database: Database, connect_timeout: float
) -> None:
    with Proxy(database.url) as proxy:
        proxy.silent.set()
        with SQLAlchemyBackend(proxy.url, lazy=True, timeout=1, connect_timeout=connect_timeout) as backend:
            for call in (lambda: backend.store("k", 1), lambda: iterated(backend)):
                result, seconds = timed(call)
                assert result["error_type"] == "connection_timeout"
                assert min(connect_timeout, 1) - 0.1 < seconds < min(connect_timeout, 1) + 1


@pytest.mark.targets("portable")
def test_a_statement_that_takes_too_long_is_stopped(database: Database) -> None:
    if database.target.portable:  # it has no way to stop an unknown driver
        return
    with database.open(), database.open(lazy=True, timeout=1, pool_size=1, max_overflow=0) as backend:
        answered(backend.count)
        result, seconds = timed(lambda: run_slowly(backend))
        assert result["error_type"] == "connection_timeout"
        assert "within 1 seconds" in result["error"]
        assert 0.9 < seconds < 2
        assert answered(lambda: backend.store("k", 1))["created"] is True


def test_a_call_does_not_wait_longer_than_its_deadline_for_the_pool(database: Database) -> None:
    opened: Any = database.open(lazy=True, timeout=1, pool_size=1, max_overflow=0)
    with database.open(), opened as backend:
        answered(backend.count)
        with backend._engine.connect():
            result, seconds = timed(lambda: backend.retrieve("k"))
        assert result["error_type"] == "connection_timeout"
        assert 0.9 < seconds < 2


@pytest.mark.targets(in_memory=False)
def test_a_call_does_not_wait_longer_than_its_deadline_for_a_lock(database: Database) -> None:
    holder: Any = database.open()
    with holder as other, database.open(lazy=True, timeout=1) as backend:
        other.store("k", 1)
        answered(backend.count)
        with other._engine.connect() as connection, connection.begin():
            key = connection.dialect.identifier_preparer.quote("key")
            connection.execute(text(f"UPDATE ltm_entries SET version = 7 WHERE {key} = 'k'"))
            result, seconds = timed(lambda: backend.store("k", 2))
            connection.rollback()
        assert result["error_type"] in ("lock_timeout", "connection_timeout")
        assert 0.9 < seconds < 2
        may_have_stored = result.get("unknown", False)  # on a slow machine the server gives up after the caller
        assert answered(lambda: backend.store("k", 2))["version"] in ((2, 3) if may_have_stored else (2,))


@on_servers
def test_a_wait_for_a_lock_is_a_lock_timeout_and_leaves_no_session_behind(database: Database) -> None:
    holder: Any = database.open(pool_size=1, max_overflow=0)
    with holder as other, database.open(timeout=4, pool_size=1, max_overflow=0) as backend:
        backend.store("k", 1)
        with other._engine.connect() as connection, connection.begin():
            key = connection.dialect.identifier_preparer.quote("key")
            connection.execute(text(f"UPDATE ltm_entries SET version = 7 WHERE {key} = 'k'"))
            before = sessions(database)
            result, seconds = timed(lambda: backend.store("k", 2))
            assert result["error_type"] == "lock_timeout", result
            assert seconds < 5
            assert sessions(database) <= before  # fewer where the server was slow to end one of an earlier test
            connection.rollback()


def sessions(database: Database) -> int:
    """Return how many connections to a database there are beside one that asks."""
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.connect() as connection:
        return len(connection.scalars(text(OTHERS[engine.dialect.name])).all())


@on_servers
def test_closing_while_calls_are_under_way_leaves_no_connection(database: Database) -> None:
    before = sessions(database)
    backend: Any = database.open(pool_size=4)

    def store(number: int) -> None:
        while backend.store(f"k{number}", 1)["success"]:
            pass

    threads = [threading.Thread(target=store, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while backend.count()["count"] < 4:
        pass
    backend.close()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 5
    while sessions(database) > before and time.monotonic() < deadline:
        pass
    assert sessions(database) <= before


# --- forks -------------------------------------------------------------------------------------------

FORKING = """
import json, os, sys
from the_edge_agent.memory import SQLAlchemyBackend
from sqlalchemy import create_engine, text

url, statement, shared = sys.argv[1:]
engine = create_engine(url) if shared else None
backend = SQLAlchemyBackend(engine=engine) if shared else SQLAlchemyBackend(url)

def sessions():
    return [backend._database.run(lambda connection, _: connection.scalar(text(statement))) for _ in range(3)]

def work(who):
    for number in range(20):
        assert backend.store(f"{who}/{number}", [who, number])["created"] is True
        assert backend.retrieve(f"{who}/{number}")["value"] == [who, number]
    return True

mine, children = set(sessions()), []
for child in range(4):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = {"sessions": sessions(), "worked": work(f"child {child}")}
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    children.append((pid, read))
work("parent")
found = [json.loads(os.read(read, 65536)) for _, read in children]
assert all(os.waitpid(pid, 0)[1] == 0 for pid, _ in children)
mine |= set(sessions())
print(json.dumps({"parent": sorted(mine), "children": [each["sessions"] for each in found], "count": backend.count()}))
backend.close()
"""


@pytest.mark.targets(in_memory=False, portable=False)
@pytest.mark.parametrize("shared", ["", "shared"], ids=["url", "engine"])
def test_a_forked_child_uses_connections_of_its_own(database: Database, shared: str) -> None:
    statement = {"postgresql": "SELECT pg_backend_pid()", "sqlite": "SELECT 0"}.get(
        database.target.family, "SELECT connection_id()"
    )
    arguments = [sys.executable, "-c", FORKING, database.url, statement, shared]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["count"] == {"success": True, "count": 100}
    if database.target.server:
        assert len(found["parent"]) == 1
        for sessions in found["children"]:
            assert set(sessions).isdisjoint(found["parent"])
        assert len({session for sessions in found["children"] for session in sessions}) == 4
