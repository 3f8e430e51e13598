"""A lock of somebody else on an SQLite file: the call ends with a ``lock_timeout`` in time, and changes nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLAlchemyCatalog, SQLiteBackend
from the_edge_agent.memory.sql.driver import deadlines
from the_edge_agent.testing.catalog_base import entry_of

pytestmark = pytest.mark.slow

MEMORIES: dict[str, Callable[..., Any]] = {
    "url": lambda file, timeout: SQLAlchemyBackend(f"sqlite:///{file}", timeout=timeout),
    "url and a longer wait of its own": lambda file, timeout: SQLAlchemyBackend(
        f"sqlite:///{file}", timeout=timeout, connect_args={"timeout": timeout + 0.3}
    ),
    "engine": lambda file, timeout: SQLAlchemyBackend(
        engine=create_engine(f"sqlite:///{file}", poolclass=NullPool), timeout=timeout
    ),
    "native": lambda file, timeout: SQLiteBackend(file, timeout=timeout),
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "store": lambda memory: memory.store("new", 1),
    "store_many": lambda memory: memory.store_many([{"key": "new", "value": 1}]),
    "store over a version": lambda memory: memory.store("there", 2, if_version=1),
    "delete": lambda memory: memory.delete("there"),
    "cleanup": lambda memory: memory.cleanup_expired(),
}


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of those who write."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("kind", MEMORIES)
@pytest.mark.parametrize("call", CALLS)
def test_a_wait_for_a_lock_ends_in_time_and_has_changed_nothing(
    kind: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "_TICK", 0.01)  # so that the deadline is noticed before SQLite gives up
    file = tmp_path / "ltm.db"
    with MEMORIES[kind](file, 0.2) as memory:
        memory.store("there", 1)
        with locked(file):
            begun = time.monotonic()
            result = CALLS[call](memory)
            seconds = time.monotonic() - begun
            assert (result["success"], result.get("error_type"), result.get("unknown")) == (False, "lock_timeout", None)
            assert 0.1 < seconds < 0.7, seconds
        assert (memory.count()["count"], memory.retrieve("there")["version"]) == (1, 1)
        assert CALLS[call](memory)["success"] is True


def test_a_catalog_and_the_start_of_a_memory_wait_no_longer_either(tmp_path: Path) -> None:
    file = tmp_path / "ltm.db"
    with SQLAlchemyCatalog(f"sqlite:///{file}", timeout=0.2) as catalog, locked(file):
        result = catalog.track_entry(**entry_of("k"))
        assert (result["error_type"], "unknown" in result) == ("lock_timeout", False)
    empty = tmp_path / "empty.db"
    with closing(sqlite3.connect(empty, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
    for kind in MEMORIES:
        with locked(empty), pytest.raises(LTMError) as raised:
            MEMORIES[kind](empty, 0.2)
        assert raised.value.error_type == "lock_timeout", kind


def test_a_statement_that_is_interrupted_has_changed_nothing(tmp_path: Path) -> None:
    with SQLAlchemyBackend(f"sqlite:///{tmp_path / 'ltm.db'}", timeout=0.3) as memory:
        memory.store("there", 1)
        trigger = (
            "CREATE TRIGGER slow AFTER INSERT ON ltm_entries BEGIN INSERT INTO ltm_settings SELECT 'a', 'b', count(*) "
            "FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n); END"
        )
        with memory._engine.begin() as connection:  # type: ignore[union-attr]
            connection.exec_driver_sql(trigger)
        for call in ("store", "store_many"):
            result = CALLS[call](memory)
            assert (result["error_type"], result.get("unknown")) == ("connection_timeout", None), call
        assert memory.count()["count"] == 1


def test_after_a_wait_a_connection_of_the_callers_has_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "ltm.db"
    engine = create_engine(f"sqlite:///{file}", pool_size=1, max_overflow=0, connect_args={"timeout": 7})
    with SQLAlchemyBackend(engine=engine, timeout=0.2) as memory:
        with locked(file):
            assert memory.store_many([{"key": "k", "value": 1}])["error_type"] == "lock_timeout"
        assert memory.store("k", 1)["success"] is True
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 7000
        assert connection.connection.driver_connection.text_factory is str  # type: ignore[union-attr]
    engine.dispose()
