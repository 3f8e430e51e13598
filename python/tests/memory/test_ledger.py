"""The ledger: a catalog that agrees with the memory exactly, in the same database and in another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from databases import Database
from the_edge_agent.cli.app import app
from the_edge_agent.memory import (
    LTMError,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    compute_content_hash,
    generate_entry_id,
    parse_catalog_config,
    parse_ltm_config,
)
from the_edge_agent.testing.workers import run_in_threads

pytestmark = pytest.mark.slow

FORMS: dict[str, Callable[[str], Any]] = {
    "a name": lambda url: "sqlalchemy",
    "a type": lambda url: {"type": "SQLAlchemy"},
    "the same url": lambda url: {"type": "sqlalchemy", "url": url, "pool_size": 3, "lazy": True},
}

on_files_and_servers = pytest.mark.targets(in_memory=False)


def assert_agrees(backend: Any, catalog: Any = None) -> None:
    """Check that the catalog has exactly what is in memory."""
    catalog = catalog or backend.catalog
    entries = {entry["key"]: entry for entry in catalog.get_changed_entries()}
    there = {key: (value, metadata) for key, value, metadata in backend.iterate_all()}
    assert list(entries) == list(there)
    facts = backend._facts(list(there))
    for key, (value, metadata) in there.items():
        entry = entries[key]
        assert entry["id"] == generate_entry_id(key)
        assert entry["content_hash"] == compute_content_hash(value)
        assert compute_content_hash(entry["metadata"]) == compute_content_hash(metadata)
        assert (entry["expires_at"], entry["storage_uri"]) == facts[key]
        assert entry["inlined_value"] is None
        assert entry["byte_size"] > 0


def write_everything(backend: SQLAlchemyBackend) -> None:
    """Use every method that writes."""
    backend.store("a", {"b": [1, 2.0, "é😀"]}, {"n": 1})
    backend.store("a", {"b": 2}, {"n": 1.0})
    backend.store("gone", 1)
    backend.delete("gone")
    backend.delete("never there")
    backend.store("mortal", 1, ttl=3600)
    backend.store("immortal", 1, ttl=3600)
    backend.store("immortal", 1)
    backend.store("only once", 1, if_version=0)
    assert backend.store("only once", 2, if_version=0)["error_type"] == "conflict"
    backend.store_many([{"key": f"many/{n % 40}", "value": n, "ttl": 7200 if n % 2 else None} for n in range(50)])
    backend.delete_many([f"many/{n}" for n in range(10)])
    with backend.transaction() as transaction:
        transaction.store("first", 1, {"x": None})
        transaction.delete("a")
        transaction.store("a", "again")
        transaction.store("last", 1)
        transaction.delete("last")
    refused = backend.transaction()
    refused.store("refused", 1)
    refused.store("first", 2, if_version=7)
    assert refused.commit()["error_type"] == "conflict"
    assert backend.touch("mortal", ttl=9000)["found"] is True
    backend.touch("immortal")
    backend.retrieve("mortal", refresh_ttl=True)
    assert backend.search(prefix="many/1", refresh_ttl=True)["count"] == 10
    ends = datetime(2099, 1, 1, tzinfo=timezone.utc)
    copies: list[dict[str, Any]] = [
        {"key": "copied", "value": 1, "expires_at": ends, "ttl": 60, "version": 7},
        {"key": "a", "value": "copied"},
    ]
    assert backend.import_entries(copies, "replace")["replaced_count"] == 1
    part = backend.namespace("part")
    part.store_many([{"key": key, "value": key, "ttl": 60} for key in ("x", "y", "z")])
    part.touch("x", ttl=120)
    assert part.delete("y", if_version=1)["deleted"] is True
    assert part.delete_all("z")["deleted_count"] == 1


# --- on the same database ----------------------------------------------------------------------------


@pytest.mark.targets("portable")
@pytest.mark.parametrize("form", FORMS)
def test_the_catalog_on_the_same_database_agrees_after_every_write(database: Database, form: str) -> None:
    if database.target.in_memory and form == "the same url":
        return  # each time another database
    with database.open(catalog=FORMS[form](database.url)) as backend:
        write_everything(backend)
        assert_agrees(backend)
        assert backend.count()["count"] == 37
        assert backend.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}


@on_files_and_servers
def test_a_caller_s_catalog_on_the_same_database_is_written_in_the_same_transaction(database: Database) -> None:
    with SQLAlchemyCatalog(database.url) as catalog:
        with database.open(catalog=catalog) as backend:
            assert backend.catalog is catalog
            assert backend._ledger.is_here
            write_everything(backend)
            assert_agrees(backend)
        assert catalog.get_entry("a") is not None, "it stays the caller's"


@pytest.mark.targets(in_memory=False, portable=False)
def test_a_caller_s_engine_serves_both(database: Database) -> None:
    engine = create_engine(database.url)
    with SQLAlchemyBackend(engine=engine, catalog="sqlalchemy") as backend:
        write_everything(backend)
        assert_agrees(backend)
    with SQLAlchemyCatalog(engine=engine) as catalog:
        assert catalog.get_entry("first") is not None
    engine.dispose()


@pytest.mark.targets("portable")
@pytest.mark.parametrize("call", ["store", "delete", "store_many", "delete_many", "transaction"])
def test_when_the_catalog_cannot_be_written_nothing_is(database: Database, call: str) -> None:
    with database.open(catalog="sqlalchemy") as backend:
        backend.store("k", 1)
        calls: dict[str, Any] = {
            "store": lambda: backend.store("k", 2),
            "delete": lambda: backend.delete("k"),
            "store_many": lambda: backend.store_many([{"key": "k", "value": 2}, {"key": "l", "value": 2}]),
            "delete_many": lambda: backend.delete_many(["k"]),
            "transaction": backend.transaction().commit,
        }
        if call == "transaction":
            transaction = backend.transaction()
            transaction.store("l", 1)
            transaction.delete("k")
            calls[call] = transaction.commit

        def fail(*arguments: Any) -> None:
            if "ltm_catalog" in arguments[2]:
                raise OperationalError("", {}, Exception("the test cuts in"))

        event.listen(backend._engine, "before_cursor_execute", fail)
        assert calls[call]()["error_type"] == "query_error"
        event.remove(backend._engine, "before_cursor_execute", fail)
        assert [item[:2] for item in backend.iterate_all()] == [("k", 1)]
        assert backend.retrieve("k")["version"] == 1
        assert_agrees(backend)


def test_snapshots_and_changes_follow_the_memory(database: Database) -> None:
    with database.open(catalog="sqlalchemy") as backend:
        catalog: Any = backend.catalog
        backend.store_many([{"key": f"k{n}", "value": n} for n in range(5)])
        snapshot = catalog.create_snapshot("before")
        backend.store("k1", 1)
        backend.store("k2", "other")
        backend.store("k3", 3, {"meta": 1})
        backend.store("k4", 4, ttl=3600)
        backend.store("new", 1)
        backend.delete("k0")
        assert [entry["key"] for entry in catalog.get_changed_entries(snapshot)] == ["k2", "k3", "k4", "new"]
        assert [entry["key"] for entry in catalog.get_deleted_entries(snapshot)] == ["k0"]


@pytest.mark.targets("native", "portable")
@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
def test_the_catalog_follows_touches_and_imports(database: Database, is_here: bool) -> None:
    here = (
        {"sqlite": "sqlite", "postgresql": "postgres"}[database.target.family]
        if database.target.native
        else "sqlalchemy"
    )
    catalog = here if is_here else {"type": "sqlite", "path": ":memory:"}
    with database.open(catalog=catalog) as backend:
        assert backend._ledger.is_here is is_here
        backend.store_many([{"key": key, "value": "red fox", "metadata": {"n": 1}, "ttl": 60} for key in "abc"])
        backend.store("immortal", 1)
        before = backend.catalog.create_snapshot("before")
        for key, ttl in (("a", None), ("b", 3600), ("immortal", None), ("absent", 5)):
            assert backend.touch(key, ttl)["success"]
        assert backend.search("fox", refresh_ttl=True, prefix="c")["count"] == 1
        assert_agrees(backend)
        assert [entry["key"] for entry in backend.catalog.get_changed_entries(before)] == ["a", "b", "c"]
        copies = [*backend.iterate_entries()]
        backend.delete_many(["a", "b"])
        backend.store("c", "another")
        for way in ("skip", "replace"):
            assert backend.import_entries(copies, way)["success"]
            assert_agrees(backend)
        assert backend.import_entries(copies)["error_type"] == "conflict"
        assert_agrees(backend)
        part = backend.namespace("users")
        part.store("x", 1, ttl=60)
        assert part.touch("x", 120)["found"] is True
        assert part.delete_all("")["deleted_count"] == 1
        assert_agrees(backend)
        assert backend.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}


def test_cleanup_removes_the_expired_from_both(database: Database) -> None:
    with database.open(catalog="sqlalchemy") as backend:
        backend.store_many([{"key": f"k{n}", "value": n, "ttl": 3600} for n in range(7)])
        backend.store("stays", 1)
        with backend._engine.begin() as connection:
            for table in ("ltm_entries", "ltm_catalog"):
                past = "'2000-01-01 00:00:00.000000'"
                connection.execute(text(f"UPDATE {table} SET expires_at = {past} WHERE expires_at IS NOT NULL"))
        assert_agrees(backend)
        assert backend.cleanup_expired(5) == {"success": True, "deleted_count": 5, "remaining_count": 2}
        assert backend.cleanup_expired(5) == {"success": True, "deleted_count": 2, "remaining_count": 0}
        with backend._engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM ltm_catalog")) == 1


def test_a_catalog_of_another_table_name_on_the_same_database_is_refused(database: Database) -> None:
    with pytest.raises(LTMError, match="table_name") as raised:
        database.open(catalog="sqlalchemy", table_name="other_entries")
    assert raised.value.error_type == "configuration_error"
    engine = create_engine(database.url)
    assert not inspect(engine).has_table("other_entries"), "nothing is created"
    engine.dispose()


@pytest.mark.targets(in_memory=False, portable=False)
def test_a_memory_that_gets_a_catalog_later_brings_it_up_to_date(database: Database) -> None:
    with database.open() as backend:
        write_everything(backend)
        assert backend.catalog is None
        assert backend.sync_catalog()["error_type"] == "validation_error"
    with SQLAlchemyCatalog(database.url) as catalog:
        catalog.track_entry("too many", "h", None, 1, None)
    with database.open(catalog="sqlalchemy") as backend:
        assert backend.sync_catalog() == {"success": True, "tracked_count": 37, "deleted_count": 1}
        assert_agrees(backend)


NAMES = {"sqlite": "sqlite", "postgresql": "postgres"}  # of the catalogs without SQLAlchemy


def switched_on(database: Database, tmp_path: Path, where: str) -> Any:
    """Return the configuration of a catalog for a memory that has none so far."""
    if where == "elsewhere":
        return {"type": "sqlalchemy", "url": f"sqlite:///{tmp_path / 'catalog.db'}"}
    return {"type": NAMES[database.target.family] if database.target.native else "sqlalchemy"}


@pytest.mark.targets("portable", "native", in_memory=False)
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_catalog_that_is_switched_on_later_learns_at_once_what_is_there(
    database: Database, tmp_path: Path, where: str, lazy: bool
) -> None:
    with database.open() as backend:
        backend.store_many([{"key": f"k{n}", "value": n, "ttl": 3600 if n % 2 else None} for n in range(5)])
    with database.open(catalog=switched_on(database, tmp_path, where), lazy=lazy) as backend:
        backend.store("new", 1)
        assert_agrees(backend)
        assert backend.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}


@pytest.mark.targets("portable", "native", in_memory=False)
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_where_that_would_take_long_the_memory_is_refused_until_it_is_synced(
    database: Database, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.open() as backend:
        backend.store_many([{"key": f"k{n}", "value": n} for n in range(5)])
    monkeypatch.setattr("the_edge_agent.memory.database.backend.MOST_SYNCED", 4)
    catalog = switched_on(database, tmp_path, where)
    with pytest.raises(LTMError, match=r"5 entries that are not in it.*sync_catalog\(\)") as raised:
        database.open(catalog=catalog)
    assert raised.value.error_type == "configuration_error"
    with database.open(catalog=catalog, lazy=True) as backend:
        for _ in range(2):
            assert backend.store("k0", 1)["error_type"] == "configuration_error"
            assert backend.retrieve("k0")["error_type"] == "configuration_error"
        assert backend.sync_catalog() == {"success": True, "tracked_count": 5, "deleted_count": 0}
        assert backend.store("k0", 1)["version"] == 2
        assert_agrees(backend)
    with database.open(catalog=catalog) as backend:
        assert_agrees(backend)


def test_the_command_syncs_the_catalog_of_an_agent_s_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'agent.db'}"
    agent = tmp_path / "agent.yaml"
    agent.write_text(f"settings:\n  ltm: {{url: {url}, catalog: sqlalchemy}}\n", encoding="utf-8")
    with SQLAlchemyBackend(url) as backend:
        backend.store_many([{"key": f"k{n}", "value": n} for n in range(5)])
    monkeypatch.setattr("the_edge_agent.memory.database.backend.MOST_SYNCED", 4)
    done = CliRunner().invoke(app, ["memory", "sync", "--json", str(agent)])
    assert (done.exit_code, json.loads(done.stdout)["tracked_count"]) == (0, 5)
    with SQLAlchemyBackend(url, catalog="sqlalchemy") as backend:
        assert_agrees(backend)
    agent.write_text(f"settings:\n  ltm: {{url: {url}}}\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["memory", "sync", str(agent)])
    assert done.exit_code == 1
    assert "settings.ltm has no catalog" in done.stderr


# --- elsewhere ---------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[SQLAlchemyCatalog]:
    with SQLAlchemyCatalog(f"sqlite:///{tmp_path / 'catalog.db'}") as catalog:
        yield catalog


@pytest.mark.targets("native")
def test_the_catalog_of_a_native_memory_agrees_after_every_write(database: Database) -> None:
    name = {"sqlite": "sqlite", "postgresql": "postgres"}.get(database.target.family, "sqlalchemy")
    with database.open(catalog=name if database.target.native else "sqlalchemy") as backend:
        write_everything(backend)
        assert_agrees(backend)
        assert backend.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}


def test_the_catalog_of_a_namespace_has_its_keys(database: Database) -> None:
    with database.open(catalog="sqlalchemy") as backend:
        ada = backend.namespace("users", "ada")
        before = ada.catalog.create_snapshot("before")
        ada.store_many([{"key": "b", "value": 1, "metadata": {"n": 1}}, {"key": "a", "value": 2}])
        backend.store("@users/ada.", "of no namespace")
        backend.namespace("users", "ada", "notes").store("n", 1)
        catalog = ada.catalog
        assert catalog.get_entry("a")["key"] == "a"
        assert catalog.get_entry("n") is None
        assert [entry["key"] for entry in catalog.list_entries()] == ["a", "b"]
        assert [entry["key"] for entry in catalog.list_entries(limit=1)] == ["a"]
        assert [entry["key"] for entry in catalog.list_entries("b", {"n": 1})] == ["b"]
        assert [entry["key"] for entry in catalog.get_changed_entries(before)] == ["a", "b"]
        assert [*catalog.retrieve_batch(["a", "x"])["entries"]] == ["a", "x"]
        tracked = catalog.track_entry("t", "sha256:1", None, 1, None)
        assert (tracked["created"], backend.catalog.get_entry("@users/ada.t")["byte_size"]) == (True, 1)
        stored = catalog.store_batch([{"key": "u", "content_hash": "h", "byte_size": 1}, {"key": ""}], atomic=False)
        assert (stored["stored_count"], stored["failed_count"]) == (1, 1)
        after = catalog.create_snapshot("after")
        assert catalog.delete_entry("u") is True
        assert [entry["key"] for entry in catalog.get_deleted_entries(after)] == ["u"]
        catalog.close()
        assert backend.catalog.get_snapshot(before)["name"] == "before"


def test_a_catalog_elsewhere_agrees_after_every_write(database: Database, elsewhere: SQLAlchemyCatalog) -> None:
    with database.open(catalog=elsewhere) as backend:
        assert not backend._ledger.is_here
        write_everything(backend)
        assert_agrees(backend)
    assert elsewhere.get_entry("a") is not None, "a caller's catalog is not closed"


def test_when_a_catalog_elsewhere_fails_the_memory_stands_and_says_so(
    database: Database, elsewhere: SQLAlchemyCatalog
) -> None:
    with database.open(catalog=elsewhere) as backend:
        backend.store("k", 1)

        def fail(*arguments: Any) -> None:
            raise OperationalError("", {}, Exception("the test cuts in"))

        event.listen(elsewhere._engine, "before_cursor_execute", fail)
        stored = backend.store("k", 2)
        many = backend.store_many([{"key": "k", "value": 3}, {"key": "new", "value": 3}])
        deleted = backend.delete("new")
        event.remove(elsewhere._engine, "before_cursor_execute", fail)
        for result in (stored, many, deleted):
            assert (result["success"], result["error_type"]) == (False, "catalog_error")
            assert "sync_catalog()" in result["error"]
        assert (stored["stored"], stored["created"], stored["version"]) == (True, False, 2)
        assert [result["version"] for result in many["results"]] == [3, 1]
        assert deleted["deleted"] is True
        assert backend.retrieve("k")["value"] == 3
        assert backend.sync_catalog() == {"success": True, "tracked_count": 1, "deleted_count": 0}
        assert_agrees(backend)


@pytest.mark.targets(portable=False)
def test_a_catalog_elsewhere_agrees_after_concurrent_writes_too(
    database: Database, elsewhere: SQLAlchemyCatalog
) -> None:
    with database.open(catalog=elsewhere, pool_size=4) as backend:

        def write(thread: int) -> None:
            for number in range(60):
                backend.store(f"k{number % 3}", [thread, number], ttl=3600 if number % 2 else None)
                backend.delete(f"k{(number + thread) % 3}")

        run_in_threads(write, [(thread,) for thread in range(4)])
        assert backend.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}
        assert_agrees(backend)


def test_an_owned_catalog_elsewhere_is_closed_with_the_memory(database: Database, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    backend = database.open(catalog={"type": "sqlalchemy", "url": url})
    catalog: Any = backend.catalog
    assert backend.store("k", 1)["success"] is True
    assert catalog.get_entry("k")["content_hash"] == compute_content_hash(1)
    backend.close()
    with pytest.raises(LTMError):
        catalog.get_entry("k")


# --- configuration -----------------------------------------------------------------------------------


def test_catalog_blocks_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'ltm.db'}"
    monkeypatch.setenv("CATALOG_URL", f"sqlite:///{tmp_path / 'catalog.db'}")
    for block, is_here in (("sqlalchemy", True), ({"type": "sqlalchemy"}, True), ({"url": "${CATALOG_URL}"}, False)):
        with parse_ltm_config({"ltm": {"url": url, "catalog": block}}) as backend:
            assert isinstance(backend, SQLAlchemyBackend)
            assert backend._ledger.is_here is is_here
            backend.store("k", 1)
            assert_agrees(backend)
    with parse_ltm_config({"ltm": {"url": url, "catalog": None}}) as backend:
        assert backend.catalog is None  # type: ignore[attr-defined]
    catalog: Any = parse_catalog_config({"type": "sqlalchemy", "url": "${CATALOG_URL}"})
    with catalog:
        assert catalog.get_entry("k") is not None


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("sqlalchemi", "unknown LTM catalog 'sqlalchemi'; known: postgres, sqlalchemy"),
        ({"type": "sqlalchemy", "pool_sise": 1}, "catalog has no key 'pool_sise'; did you mean 'pool_size'?"),
        ({"url": 5}, "url"),
        ({"pool_size": "x"}, "pool_size"),
        ({"lazy": 5}, "lazy"),
        ({"timeout": -1}, "timeout"),
        ({"auto_migrate": "no"}, "auto_migrate"),
        ({"engine": 1}, "engine"),
        (SQLAlchemyCatalog, "catalog must be"),
        (5, "catalog must be"),
        ([], "catalog must be"),
    ],
)
def test_a_bad_catalog_block_is_refused_by_name(block: Any, message: str) -> None:
    with pytest.raises(LTMError, match=r"settings\.ltm") as raised:
        parse_ltm_config({"ltm": {"url": "sqlite://", "catalog": block}})
    assert raised.value.error_type == "configuration_error"
    assert message in str(raised.value)


# --- a crash -----------------------------------------------------------------------------------------

STORING = """
settings:
  ltm: {backend: sqlalchemy, url: "${STORING_URL}", catalog: sqlalchemy}
nodes:
  - name: store
    run: |
      for number in range(10_000):
          actions.ltm_store(key=f"k{number % 700}", value={"n": number}, metadata={"n": number % 7})
          if number == 1500:
              print("in the middle", flush=True)
"""


@pytest.mark.targets(in_memory=False, portable=False)
def test_the_ledger_agrees_after_a_kill_in_the_middle_of_10_000_stores(database: Database, tmp_path: Path) -> None:
    agent = tmp_path / "storing.yaml"
    agent.write_text(STORING, encoding="utf-8")
    command = [str(Path(sys.executable).with_name("tea")), "run", str(agent)]
    environment = {**os.environ, "STORING_URL": database.url}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        assert any("in the middle" in line for line in iter(process.stdout.readline, ""))
        process.kill()
    with database.open(catalog="sqlalchemy", language=None) as backend:
        assert backend.count()["count"] == 700
        assert_agrees(backend)
