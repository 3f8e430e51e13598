"""Clients that disappear without closing their connections: the server frees their locks, and others continue."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from databases import Database
from faults.connections import OTHERS
from the_edge_agent.memory import LTMError, PostgresBackend, SQLAlchemyBackend
from the_edge_agent.memory.postgres.database import WRITE

on_servers = pytest.mark.targets("native", server=True, portable=False)


def opened(database: Database, **options: Any) -> Any:
    if not database.target.native:
        return SQLAlchemyBackend(database.url, **options)
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresBackend(url, **options)


def write_and_wait(memory: Any, key: str, written: threading.Event, end: threading.Event) -> None:
    """Overwrite an entry in a transaction, and send nothing more until the end; once."""

    def write(execute: Callable[[str], object], quote: str) -> None:
        if not end.is_set():
            execute(f"UPDATE ltm_entries SET version = 7 WHERE {quote}key{quote} = '{key}'")
            written.set()
            end.wait(60)

    try:
        if isinstance(memory, PostgresBackend):
            memory._database.run(lambda connection: write(connection.execute, '"'), WRITE)
        else:
            quote = "`" if memory.dialect == "mysql" else '"'
            memory._database.run(lambda found, _: write(lambda sql: found.execute(text(sql)), quote), write=True)
    except LTMError:
        pass


@on_servers
def test_the_locks_of_a_client_that_sends_nothing_more_are_freed(database: Database) -> None:
    written, end = threading.Event(), threading.Event()
    with (
        opened(database, idle_transaction_timeout=1) as silent,
        opened(database) as memory,
    ):
        memory.store("k", 1)
        thread = threading.Thread(target=write_and_wait, args=(silent, "k", written, end))
        thread.start()
        assert written.wait(10)
        begun = time.monotonic()
        result = memory.store("k", 2)
        end.set()
        thread.join()
        assert result.get("version") == 2, result
        assert time.monotonic() - begun < 12


STORING = """
import sys
from the_edge_agent.memory import PostgresBackend, SQLAlchemyBackend

kind, url = sys.argv[1:]
memory = (PostgresBackend if kind == "native" else SQLAlchemyBackend)(url)
print("ready", flush=True)
memory.store("k", 1)
"""


@pytest.mark.targets(family="postgresql", native=True)
@pytest.mark.parametrize("kind", ["native", "psycopg", "psycopg2"])
def test_a_statement_ends_when_its_client_was_killed(database: Database, kind: str) -> None:
    driver = "postgresql" if kind == "native" else f"postgresql+{kind}"
    url = make_url(database.url).set(drivername=driver).render_as_string(hide_password=False)
    engine = create_engine(database.url, poolclass=NullPool)
    with SQLAlchemyBackend(database.url), engine.connect() as other, engine.connect() as watcher:
        other.execute(text("LOCK TABLE ltm_entries IN ACCESS EXCLUSIVE MODE"))
        waiting = text(f"{OTHERS['postgresql']} AND wait_event_type = 'Lock'")

        def wait_for(count: int) -> None:
            end = time.monotonic() + 20
            while len(watcher.execute(waiting).all()) != count:
                watcher.rollback()  # so that the next look is a new one
                assert time.monotonic() < end
                time.sleep(0.05)

        with subprocess.Popen([sys.executable, "-c", STORING, kind, url], stdout=subprocess.PIPE) as client:
            wait_for(1)
            client.kill()
        wait_for(0)
        other.rollback()
    engine.dispose()
