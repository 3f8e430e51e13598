"""SQLite files that can be read but not written: reads work, and writes fail with a clear error."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLiteBackend

NOBODY = 65534
HOW = "immutable=1&uri=true"
MEMORIES: dict[str, Callable[[Path], Any]] = {
    "native": SQLiteBackend,
    "native with a catalog": lambda file: SQLiteBackend(file, catalog="sqlite"),
    "sqlalchemy": lambda file: SQLAlchemyBackend(f"sqlite:///{file}"),
    "sqlalchemy with a catalog": lambda file: SQLAlchemyBackend(f"sqlite:///{file}", catalog="sqlalchemy"),
    "mode=ro": lambda file: SQLAlchemyBackend(f"sqlite:///file:{file}?mode=ro&uri=true"),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a thread of root can be without rights on Linux only"),
]


def rollback_journal(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def without_rights() -> Iterator[None]:
    """Let this thread be nobody for the file system, if it is root."""
    files = ctypes.CDLL(None)
    if os.geteuid() == 0:
        files.setfsuid(NOBODY)
    try:
        yield
    finally:
        files.setfsuid(os.geteuid())


@pytest.fixture
def file() -> Iterator[Path]:
    """A memory of two entries, in a folder that everybody can look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        file = Path(folder) / "ltm.db"
        with SQLiteBackend(file, catalog="sqlite") as memory:
            memory.store("a", {"n": 1}, {"n": 1})
            memory.store("b", "fox and hound")
        file.chmod(0o444)
        yield file
        os.chmod(folder, 0o755)


def check_it_can_be_read_only(memory: Any) -> None:
    assert memory.retrieve("a")["value"] == {"n": 1}
    assert [found["key"] for found in memory.search("hound", {})["results"]] == ["b"]
    assert [found["key"] for found in memory.search(None, {"n": 1})["results"]] == ["a"]
    assert [key for key, _, _ in memory.iterate_all()] == ["a", "b"]
    assert memory.retrieve_many(["a", "c"])["found_count"] == 1
    for result in (memory.store("c", 1), memory.store_many([{"key": "c", "value": 1}]), memory.delete("a")):
        assert (result["success"], result["error_type"]) == (False, "connection_error"), result
        assert "the database is read-only" in result["error"]
        assert "unknown" not in result
    assert memory.count()["count"] == 2
    assert memory.catalog is None or len(memory.catalog.list_entries()) == 2


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("kind", MEMORIES)
def test_a_file_in_a_read_only_folder_is_read(kind: str, journal: str, file: Path) -> None:
    if journal == "delete":
        rollback_journal(file)
    file.parent.chmod(0o555)
    with without_rights(), MEMORIES[kind](file) as memory:
        check_it_can_be_read_only(memory)
    assert [path.name for path in file.parent.iterdir()] == ["ltm.db"]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_file_that_is_opened_read_only_is_read_and_stays_as_it_is(journal: str, file: Path) -> None:
    if journal == "delete":
        rollback_journal(file)
    before = file.read_bytes()
    with MEMORIES["mode=ro"](file) as memory:
        check_it_can_be_read_only(memory)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["native", "sqlalchemy"])
def test_what_somebody_writes_into_a_file_that_is_read_without_locks_is_noticed(kind: str, file: Path) -> None:
    file.parent.chmod(0o555)
    with without_rights():
        memory = MEMORIES[kind](file)
        assert memory.retrieve("a")["value"] == {"n": 1}
    file.chmod(0o644)
    file.parent.chmod(0o755)
    with SQLiteBackend(file) as other:
        other.store("a", 2)
    file.parent.chmod(0o555)
    with without_rights(), memory:
        failure = memory.retrieve("a")
        assert (failure["error_type"], "somebody has written" in failure["error"]) == ("connection_error", True)
        assert memory.retrieve("a")["value"] == 2


@pytest.mark.parametrize("kind", ["native", "sqlalchemy"])
def test_a_journal_that_is_left_beside_a_file_is_never_passed_over(kind: str, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("UPDATE ltm_entries SET value = '2' WHERE key = 'a'")
        left = Path(f"{file}-wal").read_bytes()
    Path(f"{file}-wal").write_bytes(left)
    Path(f"{file}-wal").chmod(0o444)
    file.parent.chmod(0o555)
    with without_rights(), pytest.raises(LTMError) as raised:
        MEMORIES[kind](file)
    assert raised.value.error_type == "connection_error"


def test_an_engine_of_the_callers_that_cannot_read_the_file_is_told_what_to_do(file: Path) -> None:
    file.parent.chmod(0o555)
    engine, immutable = (create_engine(f"sqlite:///{url}", poolclass=NullPool) for url in (file, f"file:{file}?{HOW}"))
    # Before Python 3.11 sqlite3 gives no code, and the text says less.
    said = r"read-only, so SQLite .* \?immutable=1&uri=true" if sys.version_info >= (3, 11) else "read-only"
    with without_rights(), pytest.raises(LTMError, match=said):
        SQLAlchemyBackend(engine=engine)
    with without_rights(), SQLAlchemyBackend(engine=immutable) as memory:
        check_it_can_be_read_only(memory)
