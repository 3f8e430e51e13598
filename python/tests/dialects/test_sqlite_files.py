"""The files of SQLite databases: a path always means the same file, and a file that was removed is noticed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool, StaticPool

from the_edge_agent.memory import (
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    SQLiteBackend,
    SQLiteCatalog,
    parse_ltm_config,
)

pytestmark = pytest.mark.slow

Opener = Callable[[str], Any]

OPENERS: Final[dict[str, Opener]] = {
    "native": SQLiteBackend,
    "native lazy": lambda path: SQLiteBackend(path, lazy=True),
    "native catalog": SQLiteCatalog,
    "SQLAlchemy": lambda path: SQLAlchemyBackend(f"sqlite:///{path}"),
    "SQLAlchemy lazy": lambda path: SQLAlchemyBackend(f"sqlite:///{path}", lazy=True),
    "SQLAlchemy catalog": lambda path: SQLAlchemyCatalog(f"sqlite:///{path}", lazy=True),
    "URI": lambda path: SQLAlchemyBackend(f"sqlite:///file:{path}?uri=true", lazy=True),
    "without a pool": lambda path: SQLAlchemyBackend(f"sqlite:///{path}", engine_args={"poolclass": NullPool}),
    "configuration": lambda path: parse_ltm_config({"ltm": {"url": f"sqlite:///{path}", "lazy": True}}),
}


def on_an_engine(path: str, *, journal: str) -> SQLAlchemyBackend:
    """Return a memory on a caller's engine, whose file has this kind of journal."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA journal_mode={journal}")
    return SQLAlchemyBackend(engine=engine)


ENGINES: Final[dict[str, Opener]] = {
    "engine": lambda path: on_an_engine(path, journal="WAL"),
    "engine without WAL": lambda path: on_an_engine(path, journal="DELETE"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "first folder"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def write(store: Any, key: str) -> dict[str, Any]:
    """Write an entry to a memory or a catalog, and return the result."""
    if hasattr(store, "track_entry"):
        return dict(store.track_entry(key, "sha256:1", None, 1, None))
    return dict(store.store(key, 1))


def keys_of(store: Any) -> list[str]:
    """Return the keys of a memory or a catalog."""
    return [entry["key"] for entry in store.list_entries()] if hasattr(store, "track_entry") else list_keys(store)


def list_keys(memory: Any) -> list[str]:
    return list(memory.list_keys()["keys"])


def close(store: Any) -> None:
    store.close()
    if engine := getattr(getattr(store, "_database", None), "_shared", None):
        engine.dispose()


# --- where they are ------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
def test_a_relative_path_means_the_same_file_after_the_folder_has_changed(
    folder: Path, tmp_path: Path, opener: Opener
) -> None:
    store = opener("m.db")
    os.chdir(tmp_path)
    assert write(store, "k")["created"] is True
    store.close()
    assert [path.name for path in folder.iterdir()] == ["m.db"]
    assert not [*tmp_path.glob("*.db*")]


def test_a_relative_folder_of_blobs_means_the_same_after_the_folder_has_changed(folder: Path, tmp_path: Path) -> None:
    storage = {"uri": "blobs", "inline_threshold": 0}
    with SQLAlchemyBackend("sqlite:///m.db", storage=storage, lazy=True) as memory:
        os.chdir(tmp_path)
        memory.store("k", "large")
        assert memory.retrieve("k")["value"] == "large"
    assert (folder / "blobs").is_dir()


@pytest.mark.parametrize("name", ["m.db", "./m.db", "file:m.db?uri=true", "file:./m.db?uri=true"])
def test_a_catalog_in_the_same_file_is_known_by_any_of_its_names(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(folder)
    for other in (f"sqlite:///{name}", f"sqlite:///{tmp_path}/link/m.db", f"sqlite:///{folder}/m.db"):
        with SQLAlchemyBackend("sqlite:///m.db", catalog={"type": "sqlalchemy", "url": other}) as memory:
            assert memory._ledger.is_here, other
    with SQLiteBackend("m.db", catalog={"type": "sqlite", "path": str(tmp_path / "link" / "m.db")}) as native:
        assert native._ledger.is_here


def test_a_tilde_is_a_name_like_others(folder: Path) -> None:
    (folder / "~").mkdir()
    SQLiteBackend("~/m.db").close()
    assert (folder / "~" / "m.db").exists()


def test_a_relative_path_needs_a_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for opener in (OPENERS["native"], OPENERS["SQLAlchemy lazy"]):
        with pytest.raises(Exception, match="current folder is gone") as raised:
            opener("m.db")
        assert raised.value.error_type == "configuration_error"  # type: ignore[attr-defined]


# --- whether they are still there ----------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def replace_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def remove_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def move_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.mkdir()


def remove_journal(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def replace_index(path: Path) -> None:
    replace_by_a_copy(path.with_name(f"{path.name}-shm"))


WAYS: Final = (remove, remove_all, replace_by_a_copy, move_the_folder, remove_journal, replace_index)
BESIDE: Final = (remove_journal, replace_index)
HOLDING: Final = {name: OPENERS[name] for name in ("native", "native catalog", "SQLAlchemy", "SQLAlchemy catalog")}


@pytest.mark.parametrize(
    ("opener", "take_away"),
    [
        pytest.param(opener, way, id=f"{name}-{way.__name__}")
        for name, opener in {**HOLDING, **ENGINES}.items()
        for way in WAYS
        if name != "engine without WAL" or way not in BESIDE
    ],
)
def test_no_write_is_acknowledged_into_files_that_were_taken_away(
    folder: Path, opener: Opener, take_away: Callable[[Path], None]
) -> None:
    path = folder / "m.db"
    store = opener(str(path))
    write(store, "before")
    take_away(path)
    failed = write(store, "lost")
    assert (failed["success"], failed["error_type"]) == (False, "connection_error")
    assert "removed or replaced" in failed["error"]
    assert write(store, "after")["success"] is True, "the next call opens what is there"
    assert "after" in keys_of(store)
    close(store)
    other = opener(str(path))
    assert "after" in keys_of(other)
    close(other)


@pytest.mark.parametrize("write_many", ["store_many", "transaction", "delete_many", "cleanup_expired", "set"])
@pytest.mark.parametrize("opener", [OPENERS["native"], OPENERS["SQLAlchemy"]], ids=["native", "SQLAlchemy"])
def test_every_way_to_write_notices_it(folder: Path, opener: Opener, write_many: str) -> None:
    path = folder / "m.db"
    with opener(str(path)) as memory:
        memory.store("before", 1)
        transaction = memory.transaction()
        transaction.store("k", 1)
        path.unlink()
        result = {
            "store_many": lambda: memory.store_many([{"key": f"k{n}", "value": n} for n in range(3)]),
            "transaction": transaction.commit,
            "delete_many": lambda: memory.delete_many(["before", "other"]),
            "cleanup_expired": memory.cleanup_expired,
            "set": lambda: memory.store("before", 2, if_version=1),
        }[write_many]()
        assert result["error_type"] == "connection_error"
        assert memory.count() == {"success": True, "count": 0}


@pytest.mark.parametrize("opener", [OPENERS["native"], OPENERS["SQLAlchemy"]], ids=["native", "SQLAlchemy"])
def test_reads_notice_it_soon(folder: Path, opener: Opener) -> None:
    path = folder / "m.db"
    with opener(str(path)) as memory:
        memory.store("k", 1)
        path.unlink()
        end = time.monotonic() + 10
        while (result := memory.retrieve("k"))["success"] and time.monotonic() < end:
            pass
        assert result["error_type"] == "connection_error"
        assert "unknown" not in result
        assert memory.retrieve("k")["found"] is False, "the memory has begun anew"


@pytest.mark.parametrize("opener", HOLDING.values(), ids=HOLDING)
def test_what_is_put_back_is_there_again(folder: Path, opener: Opener) -> None:
    store = opener(str(folder / "m.db"))
    write(store, "before")
    folder.rename(folder.with_name("moved"))
    assert write(store, "k")["error_type"] == "connection_error"
    folder.with_name("moved").rename(folder)
    assert write(store, "after")["success"] is True
    assert {"before", "after"} <= {*keys_of(store)}
    store.close()


def test_a_link_that_leads_elsewhere_is_another_file(folder: Path) -> None:
    link = folder / "link.db"
    SQLiteBackend(folder / "one.db").close()
    SQLiteBackend(folder / "two.db").close()
    link.symlink_to("one.db")
    with SQLiteBackend(link) as memory:
        memory.store("k", 1)
        link.unlink()
        link.symlink_to("two.db")
        assert memory.store("k", 2)["error_type"] == "connection_error"
        assert memory.store("k", 3)["created"] is True


def test_other_files_that_come_and_go_change_nothing(folder: Path) -> None:
    with SQLiteBackend(folder / "m.db") as memory, SQLAlchemyBackend("sqlite:///m.db") as other:
        for number in range(5):
            (folder / "other").touch()
            with SQLiteBackend(folder / "m.db") as third:
                assert third.store("k", number)["success"] is True
            assert memory.store("k", number)["success"] is True
            (folder / "other").unlink()
            assert other.store("k", number)["success"] is True


# --- the -wal of another file --------------------------------------------------------------------------


POOLS: Final[dict[str, Opener]] = {
    "native": OPENERS["native"],
    "SQLAlchemy": OPENERS["SQLAlchemy"],
    "without a pool": OPENERS["without a pool"],
    "one connection": lambda path: SQLAlchemyBackend(f"sqlite:///{path}", engine_args={"poolclass": StaticPool}),
    "engine": ENGINES["engine"],
}


def notice_by_writing(store: Any, path: Path, backup: Path) -> None:
    backup.replace(path)
    assert write(store, "lost")["error_type"] == "connection_error"


def notice_by_reading(store: Any, path: Path, backup: Path) -> None:
    backup.replace(path)
    end = time.monotonic() + 10
    while store.retrieve("old")["success"] and time.monotonic() < end:
        pass


def notice_before_it_is_there(store: Any, path: Path, backup: Path) -> None:
    path.rename(path.with_name("moved.db"))
    assert write(store, "lost")["error_type"] == "connection_error"
    backup.replace(path)


def close_unnoticed(store: Any, path: Path, backup: Path) -> None:
    backup.replace(path)
    close(store)


@pytest.mark.parametrize(
    ("opener", "replace"),
    [
        pytest.param(opener, way, id=f"{name}-{way.__name__}")
        for name, opener in POOLS.items()
        for way in (notice_by_writing, notice_by_reading, notice_before_it_is_there, close_unnoticed)
        if name != "engine" or way is not close_unnoticed  # the caller closes its connections
    ],
)
def test_a_file_that_is_put_in_place_is_never_opened_with_the_journal_of_another(
    folder: Path, opener: Opener, replace: Callable[[Any, Path, Path], None]
) -> None:
    path, backup = folder / "m.db", folder / "backup.db"
    kept = {f"kept{number}": "k" * 300 for number in range(100)}
    with SQLiteBackend(backup) as memory:
        memory.store_many([{"key": key, "value": value} for key, value in kept.items()])
    store = opener(str(path))
    with closing(sqlite3.connect(path)) as other:  # so that the -wal stays, also without a pool
        other.execute("SELECT * FROM ltm_entries").fetchall()
        for number in range(50):
            write(store, f"old{number}")
        replace(store, path, backup)
    store = OPENERS["native"](str(path)) if replace is close_unnoticed else store
    assert write(store, "after")["success"] is True
    close(store)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {*connection.execute("SELECT key FROM ltm_entries")} == {(key,) for key in (*kept, "after")}
    (journal,) = folder.glob("m.db.*-wal")
    assert journal.stat().st_size > 0, "what was in it is kept"


@pytest.mark.parametrize("opener", [OPENERS["native"], OPENERS["SQLAlchemy"]], ids=["native", "SQLAlchemy"])
def test_a_file_that_is_put_back_alone_has_its_journal(folder: Path, opener: Opener) -> None:
    path = folder / "m.db"
    with opener(str(path)) as memory:
        write(memory, "before")
        path.rename(folder / "moved.db")
        assert write(memory, "k")["error_type"] == "connection_error"
        (folder / "moved.db").rename(path)
        assert list_keys(memory) == ["before", "k"]
    assert [found.name for found in folder.iterdir()] == ["m.db"]


# --- who may read them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
def test_new_files_are_for_their_owner_alone(folder: Path, opener: Opener) -> None:
    store = opener("m.db")
    seen = set[str]()
    write(store, "k")
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
        seen.add(path.name)
    store.close()
    assert {"m.db"} <= seen <= {"m.db", "m.db-wal", "m.db-shm"}


def test_a_file_that_is_there_keeps_its_mode(folder: Path) -> None:
    path = folder / "m.db"
    path.touch(mode=0o640)
    path.chmod(0o640)
    with SQLiteBackend(path) as memory:
        memory.store("k", 1)
        assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o640}


def test_new_blobs_are_for_their_owner_alone(folder: Path) -> None:
    with SQLAlchemyBackend("sqlite:///m.db", storage={"uri": "blobs", "inline_threshold": 0}) as memory:
        memory.store("k", 1)
    (blob,) = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
    assert stat.S_IMODE(blob.stat().st_mode) == 0o600


@pytest.mark.parametrize("options", [{"poolclass": NullPool}, {"pool_recycle": 0}], ids=["without a pool", "recycled"])
def test_a_write_on_an_engine_that_connects_for_each_call_is_acknowledged(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    SQLAlchemyBackend(
        url
    ).close()  # which has switched the file to WAL: the last connection that closes removes the -wal
    engine = create_engine(url, **options)
    with SQLAlchemyBackend(engine=engine) as memory:
        assert [memory.store(f"k{number}", number)["success"] for number in range(50)] == [True] * 50
        assert memory.delete_many([f"k{number}" for number in range(50)])["deleted_count"] == 50
    engine.dispose()
