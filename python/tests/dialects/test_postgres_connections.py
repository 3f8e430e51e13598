"""The connections of the native PostgreSQL classes: lost ones, deadlines, forks, and a process that is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from databases import Database
from faults.connections import Proxy, kill_connections
from the_edge_agent.memory import LTMBackend, LTMError, PostgresBackend
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.database.errors import NOWHERE
from the_edge_agent.memory.postgres.database import WRITE
from the_edge_agent.memory.postgres.errors import OutOfTimeError, refusal_of

pytestmark = pytest.mark.targets(family="postgresql", native=True)

CALLS: dict[str, Callable[[LTMBackend], Result]] = {
    "store": lambda memory: memory.store("new", 1),
    "store over a version": lambda memory: memory.store("k", 2, if_version=1),
    "store_many": lambda memory: memory.store_many([{"key": f"many/{n}", "value": n} for n in range(3)]),
    "retrieve": lambda memory: memory.retrieve("k"),
    "retrieve_many": lambda memory: memory.retrieve_many(["k", "other"]),
    "search": lambda memory: memory.search("fox", {"n": 1}),
    "list_keys": lambda memory: memory.list_keys(),
    "count": lambda memory: memory.count(),
    "delete_many": lambda memory: memory.delete_many(["gone", "other"]),
    "cleanup_expired": lambda memory: memory.cleanup_expired(),
    "delete": lambda memory: memory.delete("k"),
}


def fill_pool(memory: PostgresBackend, connections: int = 4) -> None:
    """Have so many connections in the pool."""
    together = threading.Barrier(connections)

    def hold() -> None:
        memory._database.run(lambda connection: together.wait(10))

    threads = [threading.Thread(target=hold) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_timed(call: Callable[[], Any]) -> tuple[Result, float]:
    begun = time.monotonic()
    try:
        result = call()
    except LTMError as failure:
        result = failure.result
    return result, time.monotonic() - begun


def test_why_it_cannot_be_reached_is_told_soon(database: Database) -> None:
    url = make_url(database.url)
    cases = {
        "auth_failed": url.set(password="wrong-secret"),
        "no such database": url.set(database="tea_missing"),
        "cannot reach": url.set(port=1),
    }
    for words, wrong in cases.items():
        result, seconds = run_timed(partial(PostgresBackend, wrong.render_as_string(hide_password=False)))
        assert words in f"{result['error_type']}: {result['error']}", result
        assert "wrong-secret" not in str(result)
        assert seconds < 5


@pytest.mark.parametrize("seems_alive", [False, True])
def test_every_call_succeeds_after_every_connection_was_killed(
    database: Database, monkeypatch: pytest.MonkeyPatch, seems_alive: bool
) -> None:
    if seems_alive:
        monkeypatch.setattr("the_edge_agent.memory.postgres.pool.has_ended", lambda descriptor: False)
    with PostgresBackend(database.url) as memory:
        memory.store_many([{"key": "k", "value": "fox", "metadata": {"n": 1}}, {"key": "other", "value": "hound"}])
        for name, call in CALLS.items():
            fill_pool(memory, 1 if seems_alive else 4)
            assert kill_connections(database) >= 1
            result = call(memory)
            assert result["success"] is True, (name, result)
        assert memory.count() == {"success": True, "count": 4}


def test_with_a_server_that_falls_silent_every_call_ends_at_its_deadline(database: Database) -> None:
    with PostgresBackend(database.url) as memory:
        memory.store("k", "fox", {"n": 1})
    with Proxy(database.url) as proxy, PostgresBackend(proxy.url, lazy=True, timeout=1, pool_size=4) as memory:
        for _ in range(5):
            found = memory.retrieve("k")
        assert found["success"] is True
        for name in ("store", "search"):
            fill_pool(memory, 1)
            proxy.silent.set()
            result, seconds = run_timed(partial(CALLS[name], memory))
            assert result["error_type"] == "connection_timeout", (name, result)
            assert 0.9 < seconds < 2, (name, seconds)
            proxy.silent.clear()
            for _ in range(5):
                found = memory.retrieve("k")
            assert found["success"] is True, "it is used again as soon as it answers"


def test_a_server_that_falls_silent_while_a_session_is_set_up_is_a_timeout() -> None:
    assert (
        refusal_of(OutOfTimeError("the wait for the server timed out"), NOWHERE, ()).error_type == "connection_timeout"
    )


def test_a_server_that_accepts_and_never_answers_ends_the_call_at_its_deadline(database: Database) -> None:
    with Proxy(database.url) as proxy:
        proxy.silent.set()
        with PostgresBackend(proxy.url, lazy=True, timeout=1) as memory:
            result, seconds = run_timed(memory.count)
    assert result["error_type"] == "connection_timeout"
    assert 0.9 < seconds < 2


@pytest.mark.slow
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("options", [{"timeout": 1}, {"timeout": 2, "connect_timeout": 1}])
def test_so_it_is_when_it_never_answered_and_close_waits_for_nothing(options: dict[str, float], lazy: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"postgresql://u:p@127.0.0.1:{listener.getsockname()[1]}/x"

        def call() -> Any:
            with PostgresBackend(url, lazy=lazy, **options) as memory:  # type: ignore[arg-type]
                return memory.count()

        result, seconds = run_timed(call)
    assert result["error_type"] == "connection_timeout"
    assert result["error"] == f"the database did not answer in time (127.0.0.1:{make_url(url).port})"
    assert min(options.values()) - 0.1 < seconds < min(options.values()) + 1


def test_a_host_that_no_name_can_have_is_told_at_once() -> None:
    result, seconds = run_timed(partial(PostgresBackend, f"postgresql://u:p@{'a' * 70}.invalid/x"))
    assert (result["error_type"], "url" in result["error"]) == ("configuration_error", True)
    assert seconds < 5


def test_a_call_ends_at_its_deadline(database: Database) -> None:
    with PostgresBackend(database.url), PostgresBackend(database.url, lazy=True, timeout=1, pool_size=1) as memory:
        for _ in range(5):
            memory.count()
        result, seconds = run_timed(lambda: memory._database.run(lambda c: c.execute("SELECT pg_sleep(30)")))
        assert result["error_type"] == "connection_timeout"
        assert "within 1 seconds" in result["error"]
        assert 0.9 < seconds < 2
        held, leave = threading.Event(), threading.Event()

        def hold(connection: Any) -> None:
            held.set()
            leave.wait(20)

        thread = threading.Thread(target=lambda: run_timed(lambda: memory._database.run(hold)))
        thread.start()
        held.wait(10)
        result, seconds = run_timed(memory.count)
        leave.set()
        thread.join()
        assert (result["error_type"], "raise pool_size" in result["error"]) == ("connection_timeout", True)
        assert 0.9 < seconds < 2


def test_a_wait_for_a_lock_is_a_lock_timeout(database: Database) -> None:
    with PostgresBackend(database.url) as other, PostgresBackend(database.url, timeout=2) as memory:
        other.store("k", 1)

        def work(connection: Any) -> tuple[Result, float]:
            connection.execute("UPDATE ltm_entries SET version = 7 WHERE key = 'k'")
            return run_timed(lambda: memory.store("k", 2))

        result, seconds = other._database.run(work, WRITE)
        assert result["error_type"] == "lock_timeout"
        assert seconds < 3
        assert memory.store("k", 2)["version"] == 8


def test_a_closed_memory_keeps_no_connection(database: Database) -> None:
    memory = PostgresBackend(database.url)
    connections: list[Any] = []

    def work(connection: Any) -> None:
        connections.append(connection)
        memory.close()

    memory._database.run(work, WRITE)
    memory.close()
    assert connections[0].closed
    assert memory.store("k", 1)["error_type"] == "connection_error"


FORKING = """
import os, sys
from the_edge_agent.memory import PostgresBackend

memory = PostgresBackend(sys.argv[1])
memory.store("parent", 1)
pool = memory._database._pool
pid = os.fork()
if pid == 0:
    assert memory.store("child", 1)["created"]
    assert memory.retrieve("parent")["found"]
    assert memory._database._pool is not pool
    memory.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert memory.list_keys()["keys"] == ["child", "parent"]
assert memory._database._pool is pool
memory.close()
"""

STORING = """
import sys
from the_edge_agent.memory import PostgresBackend

memory = PostgresBackend(sys.argv[1], catalog="postgres")
for number in range(10_000):
    memory.store(f"k{number}", number)
    print(number, flush=True)
"""


def test_a_child_opens_connections_of_its_own(database: Database) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, database.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_was_acknowledged_is_there_after_a_kill_and_the_ledger_agrees(database: Database) -> None:
    command = [sys.executable, "-c", STORING, database.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout
        acknowledged = [int(process.stdout.readline()) for _ in range(300)]
        process.kill()
    with PostgresBackend(database.url, catalog="postgres") as memory:
        catalog: Any = memory.catalog
        assert memory.count()["count"] > acknowledged[-1]
        assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}
        assert len(catalog.list_entries(limit=10_000)) == memory.count()["count"]


def test_a_conversation_that_a_pooler_ended_twice_is_unknown_if_it_was_at_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = iter([False, True])

    def broken(self: Any, work: Any, begin: Any, deadline: Any, progress: Any) -> Any:
        progress.is_committing = next(commits)
        raise psycopg.errors.ProtocolViolation

    with PostgresBackend(database.url) as memory:
        monkeypatch.setattr("the_edge_agent.memory.postgres.database.PostgresDatabase._transact", broken)
        with pytest.raises(LTMError) as raised:
            memory._database.run(lambda connection: None, WRITE)
    assert raised.value.result["unknown"] is True
