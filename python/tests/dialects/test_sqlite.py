"""Features of the native SQLite classes only; their contracts are tested together with those of the others."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from databases import run_sql
from native_memories import everything, fill
from the_edge_agent.memory import (
    LTMBackend,
    LTMError,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    SQLiteBackend,
    SQLiteCatalog,
    create_catalog_backend,
    create_ltm_backend,
    parse_ltm_config,
)
from the_edge_agent.memory.database.native_catalog import first_tracked
from the_edge_agent.memory.sqlite import schema as native

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ltm.db"


# --- the same tables -----------------------------------------------------------------------------------


def layout(path: Path) -> dict[str, Any]:
    """Return the columns and indexes of every table of a file, and its triggers."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        found: dict[str, Any] = {
            name: [
                connection.execute(f"PRAGMA table_info({name})").fetchall(),
                sorted(row[1:] for row in connection.execute(f"PRAGMA index_list({name})")),
            ]
            for name in names
        }
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY 1")
        found["triggers"] = [(name, sql.replace('"', "").replace(" (", "(")) for name, sql in triggers]
        found["version"] = connection.execute("SELECT * FROM ltm_schema_version").fetchall()
    connection.close()
    return found


def test_both_make_the_same_tables(tmp_path: Path) -> None:
    SQLiteBackend(tmp_path / "native.db").close()
    SQLAlchemyBackend(f"sqlite:///{tmp_path / 'other.db'}").close()
    assert layout(tmp_path / "native.db") == layout(tmp_path / "other.db")


@pytest.mark.parametrize("first", ["native", "SQLAlchemy"])
def test_each_reads_searches_and_updates_what_the_other_has_written(path: Path, first: str) -> None:
    openers = {"native": lambda: SQLiteBackend(path), "SQLAlchemy": lambda: SQLAlchemyBackend(f"sqlite:///{path}")}
    second = next(name for name in openers if name != first)
    writer: LTMBackend = openers[first]()  # type: ignore[no-untyped-call]
    reader: LTMBackend = openers[second]()  # type: ignore[no-untyped-call]
    with writer, reader:
        fill(writer)
        assert everything(reader) == everything(writer)
        assert reader.store("k1/😀", "a hound", {"n": 7}, if_version=1)["version"] == 2
        assert writer.search("hound", {"n": 7})["results"] == reader.search("hound", {"n": 7})["results"] != []
        assert writer.store("k1/😀", "none of them")["version"] == 3
        assert [entry["key"] for entry in reader.search("hound")["results"]] == ["k3/😀"]
        assert reader.cleanup_expired()["deleted_count"] == 1
        assert writer.cleanup_expired() == {"success": True, "deleted_count": 0, "remaining_count": 0}
        assert everything(reader) == everything(writer)


def test_each_catalog_reads_what_the_other_has_written(path: Path) -> None:
    with SQLiteCatalog(path) as one, SQLAlchemyCatalog(f"sqlite:///{path}") as other:
        catalogs: tuple[Any, ...] = (one, other)
        for number, catalog in enumerate(catalogs):
            catalog.track_entry(f"k{number}", "h1", None, 2**40, {"n": 1.0}, inlined_value=[0])
        since = one.create_snapshot("by one")
        other.track_entry("k0", "h2", None, 1, None)
        other.delete_entry("k1")
        assert [entry["key"] for entry in other.get_changed_entries(since)] == ["k0"]
        for call in ("get_changed_entries", "get_deleted_entries", "get_snapshot"):
            assert getattr(one, call)(since) == getattr(other, call)(since) != []
        assert one.list_entries() == other.list_entries()


def test_a_value_in_a_blob_storage_is_an_error_and_never_a_wrong_value(path: Path, tmp_path: Path) -> None:
    storage = {"uri": str(tmp_path / "blobs"), "inline_threshold": 10}
    with SQLAlchemyBackend(f"sqlite:///{path}", storage=storage) as other, SQLiteBackend(path) as memory:
        other.store("large", "x" * 100)
        found = memory.retrieve("large")
        assert (found["error_type"], found["damaged"]) == ("query_error", ["large"])
        assert "blob storage" in found["error"]
        assert memory.search()["damaged"] == memory.search("large")["damaged"] == ["large"]
        assert list(memory.iterate_all()) == []
        assert memory.store("large", 1)["version"] == 2
        assert memory.retrieve("large")["value"] == other.retrieve("large")["value"] == 1


# --- the ledger ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["name", "mapping", "same path", "object"])
def test_a_catalog_in_the_same_file_is_written_in_the_same_transaction(path: Path, form: str) -> None:
    forms: dict[str, Any] = {
        "name": "sqlite",
        "mapping": {"type": "sqlite"},
        "same path": {"type": "sqlite", "path": str(path)},
    }
    given = forms.get(form) or SQLiteCatalog(path)
    with SQLiteBackend(path, catalog=given) as memory:
        fill(memory)
        catalog: Any = memory.catalog
        assert [entry["key"] for entry in catalog.list_entries()] == memory.list_keys()["keys"]
        assert catalog.get_entry("late")["expires_at"] is not None
        assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}
        memory.delete_many(["k0/😀", "k1/😀"])
        memory.cleanup_expired()
        assert catalog.cleanup_expired()["remaining_count"] == 0
        assert [entry["key"] for entry in catalog.list_entries()] == memory.list_keys()["keys"]
        before = catalog.list_entries()
        run_sql(memory, "CREATE TRIGGER cut BEFORE INSERT ON ltm_catalog BEGIN SELECT raise(ABORT, 'cut'); END")
        assert memory.store("new", 1)["error_type"] == "query_error"
        assert memory.retrieve("new")["found"] is False
        assert catalog.list_entries() == before
    if form == "object":
        given.close()


def test_a_catalog_in_another_file_reports_its_failures(path: Path, tmp_path: Path) -> None:
    with SQLiteBackend(path, catalog={"type": "sqlite", "path": tmp_path / "catalog.db"}) as memory:
        memory.store("k", 1)
        catalog: Any = memory.catalog
        assert catalog.get_entry("k")["byte_size"] == 1
        run_sql(catalog, "DROP TABLE ltm_catalog")
        result = memory.store("k", 2)
        assert (result["error_type"], result["version"]) == ("catalog_error", 2)
        assert memory.retrieve("k")["value"] == 2


def test_a_catalog_block_in_the_configuration(path: Path) -> None:
    with parse_ltm_config({"ltm": {"backend": "sqlite", "path": str(path), "catalog": "sqlite"}}) as memory:
        memory.store("k", 1)
        assert memory.catalog.get_entry("k") is not None  # type: ignore[attr-defined]


# --- configuration -------------------------------------------------------------------------------------


def test_they_are_found_by_name(path: Path) -> None:
    with create_ltm_backend("SQLite", db_path=path) as memory, create_catalog_backend("sqlite", path=path) as catalog:  # type: ignore[attr-defined]
        assert isinstance(memory, SQLiteBackend)
        assert isinstance(catalog, SQLiteCatalog)
        assert repr(memory) == f"SQLiteBackend({str(path)!r})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path"),
        ({"path": 5}, "path"),
        ({"path": b"ltm.db"}, "path"),
        ({"path": "a\0b"}, "path"),
        ({"path": "a.db", "db_path": "a.db"}, "path and db_path"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"lazy": "no"}, "lazy"),
        ({"catalog": 5}, "catalog"),
        ({"catalog": {"type": "sqlite", "lazy": 5}}, "lazy"),
        ({"catalog": {"type": "sqlite", "url": "sqlite://"}}, "has no key 'url'"),
        ({"catalog": "sqlalchemy"}, "url"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LTMError, match=message) as raised:
        SQLiteBackend(**options)
    assert raised.value.error_type == "configuration_error"


def test_a_catalog_needs_a_path() -> None:
    with pytest.raises(LTMError, match="path is missing"):
        SQLiteCatalog()


@pytest.mark.parametrize(
    ("content", "error_type", "message"),
    [
        (b"this is no database, " * 60, "connection_error", "not an SQLite database"),
        (None, "connection_error", "there is no folder 'missing'"),
    ],
)
def test_a_file_that_cannot_be_opened(tmp_path: Path, content: bytes | None, error_type: str, message: str) -> None:
    path = tmp_path / "missing" / "ltm.db" if content is None else tmp_path / "ltm.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LTMError, match=message) as raised:
        SQLiteBackend(path)
    assert raised.value.error_type == error_type
    with SQLiteBackend(path, lazy=True) as memory:
        assert memory.retrieve("k")["error_type"] == error_type


def test_a_table_of_another_layout_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE ltm_entries (key TEXT, value JSON)")
    connection.close()
    with pytest.raises(LTMError, match="another layout"):
        SQLiteBackend(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("ltm_entries",)]
    connection.close()


def test_without_a_full_text_index_the_answers_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_has_fts5", lambda connection: False)
    with SQLiteBackend(path) as without, SQLiteBackend() as memory:
        assert not without._database.has_full_text
        without.store_many({"key": f"k{n}", "value": f"red fox{n} hound"} for n in range(20))
        memory.import_entries(without.iterate_entries())  # with the same times
        for query in ("fox1", "fox*", '"red fox2"', "hound -fox3", "-red", "日本"):
            assert without.search(query, limit=30) == memory.search(query, limit=30)


# --- limits, forks, crashes ----------------------------------------------------------------------------


def test_a_call_does_not_wait_longer_than_its_time_for_another_writer(path: Path) -> None:
    with SQLiteBackend(path, timeout=0.3) as memory, SQLiteBackend(path) as other:
        with other._database.transaction(write=True):
            begun = time.monotonic()
            assert memory.store("k", 1)["error_type"] == "lock_timeout"
            assert 0.2 < time.monotonic() - begun < 1.3
            assert memory.retrieve("k")["found"] is False, "readers do not wait"
        assert memory.store("k", 1)["created"] is True


def test_a_call_does_not_take_longer_than_its_time(path: Path) -> None:
    with SQLiteBackend(path, timeout=0.3) as memory:
        begun = time.monotonic()
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        with pytest.raises(LTMError) as raised:
            run_sql(memory, endless)
        assert raised.value.error_type == "connection_timeout"
        assert 0.2 < time.monotonic() - begun < 1.3
        assert memory.store("k", 1)["created"] is True


def test_calls_on_one_memory_wait_for_their_turn_no_longer_than_their_time() -> None:
    with SQLiteBackend(timeout=0.3) as memory:
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with memory._database.transaction():
                entered.set()
                leave.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait(10)
        assert memory.retrieve("k")["error_type"] == "connection_timeout"
        leave.set()
        thread.join()
        assert memory.store("k", 1)["created"] is True


def test_a_closed_memory_keeps_no_connection(path: Path) -> None:
    memory = SQLiteBackend(path)
    transaction = memory._database.transaction()
    connection = transaction.__enter__()
    memory.close()
    memory.close()
    transaction.__exit__(None, None, None)
    assert memory.store("k", 1)["error_type"] == "connection_error"
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


FORKING = """
import os, sys
from the_edge_agent.memory import SQLiteBackend

memory = SQLiteBackend(sys.argv[1])
memory.store("parent", 1)
idle = list(memory._database._idle)
pid = os.fork()
if pid == 0:
    assert memory.store("child", 1)["created"]
    assert memory.retrieve("parent")["found"]
    assert not any(connection in memory._database._idle for connection in idle)
    memory.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert memory.list_keys()["keys"] == ["child", "parent"]
assert memory._database._idle == idle
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_opens_connections_of_its_own(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STORING = """
import sys
from the_edge_agent.memory import SQLiteBackend

memory = SQLiteBackend(sys.argv[1], catalog="sqlite")
for number in range(10_000):
    memory.store(f"k{number}", number)
    print(number, flush=True)
"""


def test_what_was_acknowledged_is_there_after_a_kill_and_the_ledger_agrees(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STORING, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        acknowledged = [int(process.stdout.readline()) for _ in range(500)]
        process.kill()
    with SQLiteBackend(path, catalog="sqlite") as memory:
        catalog: Any = memory.catalog
        assert memory.count()["count"] > acknowledged[-1]
        assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}
        assert len(catalog.list_entries(limit=10_000)) == memory.count()["count"]


def test_a_list_that_ends_at_its_limit_lets_the_next_write_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []  # nothing may depend on when Python frees what has rows left

    def keeping(rows: Any, *rest: Any) -> Any:
        kept.append(rows)
        return first_tracked(rows, *rest)

    monkeypatch.setattr("the_edge_agent.memory.sqlite.catalog.first_tracked", keeping)
    with SQLiteCatalog(tmp_path / "m.db") as reader, SQLiteCatalog(tmp_path / "m.db") as writer:
        for number in range(3):
            reader.track_entry(f"k{number}", "sha256:1", None, 1, None)
        assert len(reader.list_entries(limit=1)) == 1
        assert writer.track_entry("other", "sha256:1", None, 1, None)["success"]
        assert reader.track_entry("own", "sha256:1", None, 1, None)["success"]


@pytest.mark.parametrize("kind", ["native", "sqlalchemy"])
@pytest.mark.parametrize("is_new", [True, False])
def test_the_start_waits_for_a_lock_no_longer_than_a_call_may(tmp_path: Path, kind: str, is_new: bool) -> None:
    path, url = tmp_path / "memory.db", f"sqlite:///{tmp_path}/memory.db"
    if not is_new:
        SQLiteBackend(str(path)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        with pytest.raises(LTMError) as raised:
            SQLiteBackend(str(path), timeout=1) if kind == "native" else SQLAlchemyBackend(url, timeout=1)
    assert raised.value.error_type == "lock_timeout"
    assert time.monotonic() - begun < 1.8
