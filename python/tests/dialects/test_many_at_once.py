"""Many entries in one call, also when the process is killed during the call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest
from sqlalchemy import event

from databases import Database
from run_length import of_this_run

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

ENTRIES: Final = of_this_run(6_000, 100_000)
INTERRUPTED: Final = of_this_run(30_000, 100_000)  # of a call that is killed in the middle
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
        assert len(statements) < ENTRIES / 190 + 2
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
    arguments = [sys.executable, "-c", STORING, database.url, str(INTERRUPTED)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        process.kill()
        assert said.strip() == "half", (said, process.stderr and process.stderr.read())
    with database.open() as backend:
        assert backend.count()["count"] == 0
        assert backend.search(prefix="k")["count"] == 0
        assert backend.store("k000000", 1)["created"] is True


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
