"""PgBouncer, a connection pooler in front of PostgreSQL: its clients share sessions between transactions."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url

from databases import POOLERS, Database
from engines import refused
from the_edge_agent.memory import LTMError, PostgresBackend, SQLAlchemyBackend
from the_edge_agent.memory.postgres.errors import failure_of
from the_edge_agent.memory.sql.driver.errors import classify

pytestmark = pytest.mark.targets("other", "native", pooler="pgbouncer")

DELETING = """
import sys
from the_edge_agent import memory

options = {"prepare_threshold": 0} if sys.argv[3] == "prepared" else {}
with getattr(memory, sys.argv[1])(sys.argv[2], **options) as memory:
    print("ready", flush=True)
    for number in range(300):
        memory.delete(f"nothing{number}")
"""


def bare(url: str) -> str:
    """Return the URL as psycopg reads it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def deleted_by_another(database: Database, how: str) -> tuple[int, list[Any]]:
    """Have one process read 40 entries while another deletes others; return how many are left, and wrong answers."""
    name = "PostgresBackend" if database.target.native else "SQLAlchemyBackend"
    options = {"prepare_threshold": 0} if how == "prepared" else {}
    with database.open() as other:
        other.store_many([{"key": f"k{number}", "value": number} for number in range(40)])
    command = [sys.executable, "-c", DELETING, name, database.url, how]
    wrong = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        with database.open(**options) as memory:
            while process.poll() is None:
                for number in range(40):
                    answer = memory.retrieve(f"k{number}")
                    if answer.get("value") != number:
                        wrong.append(answer)
    with psycopg.connect(bare(database.url), prepare_threshold=None) as connection:
        row = connection.execute("SELECT count(*) FROM ltm_entries").fetchone()
        connection.execute("DEALLOCATE ALL")
    return (row or [0])[0], wrong


def test_one_process_reads_while_another_deletes(database: Database) -> None:
    assert deleted_by_another(database, "default") == (40, [])


@pytest.fixture
def stranger(database: Database) -> Iterator[Callable[[str], list[Any]]]:
    """What runs a statement as another client of the pooler, in the session that it gives to us next too."""
    with psycopg.connect(bare(database.url), autocommit=True, prepare_threshold=None) as connection:

        def run(statement: str) -> list[Any]:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

        yield run
        run("RESET ALL")


def test_nothing_of_ours_stays_in_a_session(database: Database, stranger: Callable[[str], list[Any]]) -> None:
    with database.open(catalog="postgres" if database.target.native else "sqlalchemy") as memory:
        for number in range(12):
            memory.store(f"k{number}", "fox", {"n": number})
            memory.search("fox", {"n": number})
        memory.store("k1", "fox", if_version=1)
        memory.catalog.create_snapshot("s")
        memory.cleanup_expired()
        assert len(list(memory.iterate_all())) == 12
        assert stranger("SELECT count(*) FROM pg_prepared_statements") == [(0,)]
        assert stranger("SELECT count(*) FROM pg_cursors") == [(0,)]
        assert stranger("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = 0") == [(0,)]
        assert stranger("SELECT name FROM pg_settings WHERE source = 'session'") == stranger(
            "SELECT name FROM pg_settings WHERE source = 'session' AND name IN "
            "('client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', 'application_name')"
        ), "which a pooler itself sets"


SETTINGS = {
    "gin_fuzzy_search_limit": "1",
    "IntervalStyle": "sql_standard",
    "enable_seqscan": "off",
    "default_transaction_isolation": "serializable",
    "transform_null_equals": "on",
    "array_nulls": "off",
}


def test_what_a_stranger_has_set_changes_no_answer(database: Database, stranger: Callable[[str], list[Any]]) -> None:
    with database.open() as memory:
        memory.store_many([{"key": f"k{n:03}", "value": "fox", "metadata": {"n": n % 2}} for n in range(300)])
        stranger("ANALYZE ltm_entries")

        def answers() -> list[Any]:
            return [
                memory.search("fox", limit=300)["count"],
                memory.search(metadata_filter={"n": 1}, limit=300)["count"],
                memory.search("fox -hound", {"n": 1}, limit=300)["count"],
                memory.store("late", 1, ttl=3600)["success"],
                memory.retrieve_many(["k001", "late", "none"])["found_count"],
            ]

        before = answers()
        assert before == [300, 150, 150, True, 2]
        for name, value in SETTINGS.items():
            stranger(f"SET {name} = '{value}'")
        assert stranger("SHOW gin_fuzzy_search_limit") == [("1",)]
        assert answers() == [301, 150, 150, True, 2] or answers() == before


def test_a_wait_for_a_lock_ends_in_time(database: Database) -> None:
    with database.open() as memory, database.open(timeout=1) as impatient:
        memory.store("k", 1)
        held, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with psycopg.connect(bare(database.url), prepare_threshold=None) as connection:
                connection.execute("SELECT * FROM ltm_entries FOR UPDATE")
                held.set()
                leave.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        result = impatient.store("k", 2, if_version=1)
        leave.set()
        thread.join()
        assert result["error_type"] == "lock_timeout"
        assert memory.retrieve("k")["value"] == 1


@pytest.mark.targets(native=False)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_engine_that_prepares_statements_is_refused_and_one_that_does_not_serves(
    database: Database, driver: str
) -> None:
    url = make_url(database.url).set(drivername=f"postgresql+{driver}")
    if driver == "psycopg":
        engine = create_engine(url)
        assert "prepare_threshold" in refused(engine=engine)
        engine.dispose()
    engine = create_engine(url, connect_args={"prepare_threshold": None} if driver == "psycopg" else {})
    with SQLAlchemyBackend(engine=engine) as backend:
        assert backend.store("k", "fox", {"n": 1})["created"] is True
        assert backend.store("k", "fox", if_version=1)["version"] == 2
        assert backend.search("fox")["count"] == 1
    engine.dispose()


@pytest.mark.parametrize("variable", [*POOLERS.values()])
def test_each_pooler_serves(database: Database, variable: str) -> None:
    pooler = make_url(os.environ[variable])
    url = make_url(database.url).set(host=pooler.host, port=pooler.port).render_as_string(hide_password=False)
    backend = PostgresBackend if database.target.native else SQLAlchemyBackend
    with backend(url) as memory:
        assert [memory.store("k", "fox", {"n": 1})["version"] for _ in range(3)] == [1, 2, 3]
        assert memory.store("k", "fox", {"n": 1}, if_version=1)["error_type"] == "conflict"
        assert memory.search("fox", {"n": 1})["count"] == 1
        assert memory.delete("k")["deleted"] is True


@pytest.mark.parametrize("lazy", [False, True])
def test_a_pooler_without_transactions_is_refused_at_the_first_connection(database: Database, lazy: bool) -> None:
    pooler = make_url(os.environ["TEST_PGBOUNCER_STATEMENT_URL"])
    database.open().close()  # the tables are there
    url = make_url(database.url).set(host=pooler.host, port=pooler.port).render_as_string(hide_password=False)
    native = database.target.native

    def first() -> Any:
        with (PostgresBackend if native else SQLAlchemyBackend)(url, lazy=lazy) as memory:
            return memory.retrieve("k")

    if lazy:
        result = first()
    else:
        with pytest.raises(LTMError) as raised:
            first()
        result = raised.value.result
    assert result["error_type"] == "configuration_error"
    assert "pool_mode" in result["error"]


@pytest.mark.targets(native=True)
@pytest.mark.parametrize(
    ("code", "error_type"),
    [("26000", "configuration_error"), ("42P05", "configuration_error"), ("08P01", "connection_error")],
)
def test_errors_of_mixed_up_statements_name_the_pooler_and_the_remedy(
    database: Database, code: str, error_type: str
) -> None:
    error = psycopg.errors.lookup(code)("secret")
    for found in (failure_of(error), classify(error).exception()):
        assert found.error_type == error_type
        assert all(word in str(found) for word in ("pooler", "prepare_threshold", code))
        assert "secret" not in str(found)
