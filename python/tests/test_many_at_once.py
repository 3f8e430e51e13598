"""What must hold at scale: many entries in one call, killed in the middle, and counters that lose nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from sqlalchemy import event

from databases import Database, Opener
from run_length import of_this_run
from the_edge_agent.memory import LTMBackend

ENTRIES: Final = of_this_run(20_000, 100_000)
WRITERS: Final = 32
TIMES: Final = of_this_run(20, 100)
EIGHTH: Final = f"k{7 * 7919 % ENTRIES:06}"  # the key of the eighth entry

on_each_database = pytest.mark.targets(in_memory=False, portable=False)

# Stores many entries in one call, and says so in the middle of its statements.
STORING = """
import sys
from sqlalchemy import event
from the_edge_agent.memory import SQLAlchemyBackend

url, entries = sys.argv[1], int(sys.argv[2])
backend = SQLAlchemyBackend(url, timeout=300)
inserts = 0

def count(connection, cursor, statement, parameters, context, executemany):
    global inserts
    inserts += statement.startswith("INSERT")
    if inserts == 10:
        print("half", flush=True)

event.listen(backend._engine, "after_cursor_execute", count)
print(backend.store_many({"key": f"k{n:06}", "value": n} for n in range(entries)), flush=True)
"""

# Forks writers that increment a counter through if_version.
COUNTING = """
import os, random, sys, time
from the_edge_agent.memory import SQLAlchemyBackend

url, writers, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def increment(backend):
    pause = 0.1
    while True:
        found = backend.retrieve("counter")
        result = backend.store("counter", (found["value"] or 0) + 1, if_version=found["version"] or 0)
        if result["success"]:
            return
        assert result["error_type"] == "conflict", result
        time.sleep(random.random() * pause)
        pause = min(pause * 1.5, 0.5)

children = []
for _ in range(writers):
    pid = os.fork()
    if pid == 0:
        with SQLAlchemyBackend(url, pool_size=1) as backend:
            for _ in range(times):
                increment(backend)
        os._exit(0)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * writers
"""


def entries() -> list[dict[str, Any]]:
    return [{"key": f"k{number * 7919 % ENTRIES:06}", "value": number} for number in range(ENTRIES)]


@on_each_database
def test_many_entries_are_stored_in_one_transaction_and_in_few_statements(database: Database) -> None:
    statements: list[str] = []
    most_parameters = begun = 0

    def count(*arguments: Any) -> None:
        nonlocal most_parameters
        statements.append(arguments[2])
        most_parameters = max(most_parameters, len(arguments[3]))

    def begin(connection: Any) -> None:
        nonlocal begun
        begun += 1

    opened: Any = database.open(timeout=300)
    with opened as backend:
        event.listen(backend._engine, "before_cursor_execute", count)
        event.listen(backend._engine, "begin", begin)
        backend._database.start().upkeep = None  # which follows in transactions of its own
        result = backend.store_many(entries())
        assert (result["stored_count"], begun) == (ENTRIES, 1)
        assert result["results"][7] == {"key": EIGHTH, "created": True, "version": 1}
        assert len(statements) < ENTRIES / 190
        assert most_parameters <= 65_535
        assert backend.count()["count"] == ENTRIES
        statements.clear()
        keys = [entry["key"] for entry in entries()]
        found = backend.retrieve_many([*keys, "missing", *keys])
        assert (found["found_count"], found["missing_count"]) == (ENTRIES, 1)
        assert found["entries"][EIGHTH] == {"value": 7, "metadata": None, "version": 1}
        assert len(statements) <= ENTRIES / 1_000 + 4
        assert backend.delete_many(keys) == {"success": True, "deleted_count": ENTRIES}
        assert backend.count()["count"] == 0


@on_each_database
def test_of_a_store_many_that_is_killed_in_the_middle_nothing_is_there(database: Database) -> None:
    database.open().close()
    arguments = [sys.executable, "-c", STORING, database.url, str(ENTRIES)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        process.kill()
        assert said.strip() == "half", (said, process.stderr and process.stderr.read())
    with database.open() as backend:
        assert backend.count()["count"] == 0
        assert backend.search(prefix="k")["count"] == 0
        assert backend.store("k000000", 1)["created"] is True


def increment(backend: LTMBackend, waiting: threading.Event) -> None:
    """Add 1 to the counter: try again as long as others are quicker, ever more seldom."""
    pause = 0.1
    while True:
        found = backend.retrieve("counter")
        result = backend.store("counter", (found["value"] or 0) + 1, if_version=found["version"] or 0)
        if result["success"]:
            return
        assert result["error_type"] == "conflict", result
        waiting.wait(random.random() * pause)
        pause = min(pause * 1.5, 0.5)


def count_in_threads(open_backend: Opener) -> None:
    never = threading.Event()
    with open_backend(pool_size=WRITERS) as backend, ThreadPoolExecutor(WRITERS) as threads:

        def count(_: int) -> None:
            for _ in range(TIMES):
                increment(backend, never)

        list(threads.map(count, range(WRITERS)))


def count_in_processes(open_backend: Opener) -> None:
    arguments = [sys.executable, "-c", COUNTING, open_backend.url, str(WRITERS), str(TIMES)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@on_each_database
def test_32_threads_and_32_processes_that_increment_one_counter_lose_nothing(database: Database) -> None:
    count_in_threads(database.open)
    count_in_processes(database.open)
    with database.open() as backend:
        found = backend.retrieve("counter")
        assert (found["value"], found["version"]) == (2 * WRITERS * TIMES, 2 * WRITERS * TIMES)


SHIFTED = """
import datetime, json, sys, time
from unittest import mock

url, hours = sys.argv[1], int(sys.argv[2])
shift = 3600 * hours
real_time, real = time.time, datetime.datetime

class Shifted(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=shift)

time.time = lambda: real_time() + shift
datetime.datetime = Shifted
from the_edge_agent.memory import SQLAlchemyBackend

with SQLAlchemyBackend(url) as backend:
    before = backend.retrieve("before")
    results = [backend.store("mine", 1, ttl=60), backend.store("before", 2, if_version=1, ttl=60)]
    print(json.dumps([before["found"], [result["success"] for result in results], backend.count()["count"]]))
"""


@pytest.mark.targets(server=True, portable=False)
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clients_clock_that_is_wrong_makes_no_difference(database: Database, hours: int) -> None:
    with database.open() as backend:
        backend.store("before", 1, ttl=60)
        arguments = [sys.executable, "-c", SHIFTED, database.url, str(hours)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [True, [True, True], 2]
        assert backend.retrieve_many(["before", "mine"])["found_count"] == 2
        assert backend.search()["results"][0]["key"] == "before", "the order of stores is the server's too"
        assert backend.cleanup_expired() == {"success": True, "deleted_count": 0, "remaining_count": 0}


@pytest.mark.targets(of_mysql=True, portable=False)
@pytest.mark.parametrize("begin", ["", "😀" * 200])
def test_many_keys_are_looked_up_and_the_table_is_not_read(database: Database, begin: str) -> None:
    keys = [f"{begin}{number:06}" for number in range(6_000)]
    with database.open(pool_size=1, max_overflow=0) as memory:
        assert memory.store_many({"key": key, "value": 1} for key in keys)["success"]
        some = keys[::12]  # more of them would make it right to read the whole table
        for work in (
            lambda: memory.retrieve_many(some),
            lambda: memory.store_many({"key": key, "value": 2} for key in some),
            lambda: memory.delete_many(some),
        ):
            assert rows_read_by_scans(memory, work) < len(keys)


def rows_read_by_scans(memory: Any, work: Callable[[], Any]) -> int:
    with memory._database.engine.connect() as connection:
        connection.exec_driver_sql("FLUSH STATUS")
    assert work()["success"]
    with memory._database.engine.connect() as connection:
        status = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read_rnd_next'")
        return int(status.one()[1])
