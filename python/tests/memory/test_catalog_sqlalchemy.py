"""Features of SQLAlchemyCatalog only: start, a caller's engine, secrets, the ORM, scale."""

from __future__ import annotations

import logging
import multiprocessing
import socket
import subprocess
import sys
import traceback
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from databases import CatalogOpener, Database
from run_length import of_this_run
from the_edge_agent.memory import CatalogEntry, CatalogSnapshot, LTMError, SQLAlchemyCatalog
from the_edge_agent.memory.contract.catalog import (
    CatalogBackend,
    generate_entry_id,
)
from the_edge_agent.testing.catalog_base import FUTURE, PAST, entry_at, entry_of, keys, result_of, track, track_all
from the_edge_agent.testing.contract import assert_failure

pytestmark = pytest.mark.slow

CANARY = "c4nary-s3cret"
PROCESSES, SAME_KEYS = 8, 500

own_dialect = pytest.mark.targets(portable=False, in_memory=False)
on_servers = pytest.mark.targets(server=True, portable=False)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    engine = create_engine(database.url)
    yield engine
    engine.dispose()


def refused(**options: Any) -> str:
    with pytest.raises(LTMError) as raised:
        SQLAlchemyCatalog(**options)
    assert raised.value.error_type == "configuration_error"
    return str(raised.value)


# --- start -------------------------------------------------------------------------------------------


def test_it_is_a_catalog_backend_by_its_nine_methods() -> None:
    with SQLAlchemyCatalog("sqlite://") as catalog:
        assert isinstance(catalog, CatalogBackend)
    assert not isinstance(object(), CatalogBackend)
    nine = {name for name in vars(CatalogBackend) if not name.startswith("_")}
    assert nine == {
        *("track_entry", "get_entry", "list_entries", "delete_entry", "get_changed_entries", "create_snapshot"),
        *("store_batch", "retrieve_batch", "cleanup_expired"),
    }


def test_the_dialect_is_sqlalchemys_name(database: Database) -> None:
    with database.open_catalog() as catalog:
        assert catalog.dialect == {"mariadb": "mysql"}.get(database.target.family, database.target.family)


def test_a_lazy_catalog_connects_on_first_use(tmp_path: Path) -> None:
    file = tmp_path / "ltm.db"
    catalog = SQLAlchemyCatalog(f"sqlite:///{file}", lazy=True)
    assert (catalog._engine, catalog._session_factory, file.exists()) == (None, None, False)
    assert (catalog._initialized, catalog._closed) == (False, False)
    assert catalog.get_entry("k") is None
    assert (catalog._initialized, catalog._session_factory is None, file.exists()) == (True, False, True)
    catalog.close()
    assert (catalog._engine, catalog._initialized, catalog._closed) == (None, False, True)


def test_a_lazy_catalog_loads_no_driver() -> None:
    code = (
        "import sys; from the_edge_agent.memory.contract.catalog import create_catalog_backend as create\n"
        "create('sqlalchemy', url='postgresql://u:p@127.0.0.1:1/x', lazy=True)\n"
        "create('sqlalchemy', url='mysql://u:p@127.0.0.1:1/x', lazy=True)\n"
        "print(sorted({'psycopg', 'psycopg2', 'pymysql', 'MySQLdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_lazy_catalog_that_could_not_start_tries_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with SQLAlchemyCatalog(f"sqlite:///{folder}/ltm.db", lazy=True) as catalog:
        assert_failure(catalog.track_entry(**entry_of("k")), "connection_error")
        folder.mkdir()
        assert track(catalog, "k")["created"] is True


@pytest.mark.parametrize(
    ("option", "value"),
    [("pool_size", 0), ("timeout", float("inf")), ("echo", "yes"), ("lazy", 1), ("auto_migrate", "no")],
)
def test_a_bad_option_is_refused_by_name(option: str, value: Any) -> None:
    assert option in refused(url="sqlite://", **{option: value})


def test_each_memory_catalog_is_its_own() -> None:
    with SQLAlchemyCatalog("sqlite://") as one, SQLAlchemyCatalog("sqlite://") as other:
        track(one, "k")
        assert other.get_entry("k") is None


# --- an engine of the caller's, and tables of the caller's -------------------------------------------


@own_dialect
def test_a_callers_engine_is_used_shared_and_left_open(engine: Engine, database: Database) -> None:
    pool = engine.pool
    with SQLAlchemyCatalog(engine=engine) as catalog, SQLAlchemyCatalog(engine=engine) as other:
        assert catalog._engine is engine
        assert track(catalog, "k", metadata={"n": 1})["created"] is True
        assert other.list_entries(None, {"n": 1}) == [entry_at(catalog, "k")]
        assert other.get_changed_entries(catalog.create_snapshot("s")) == []
    assert isinstance(pool, QueuePool)
    assert (engine.pool, pool.checkedout()) == (pool, 0)
    assert_failure(result_of(lambda: catalog.get_entry("k")), "connection_error")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM ltm_catalog")) == 1
    with database.open_catalog() as again:
        assert keys(again.list_entries()) == ["k"]


@own_dialect
def test_on_an_engine_that_commits_each_statement_a_snapshot_is_still_one_transaction(database: Database) -> None:
    committing = create_engine(database.url, isolation_level="AUTOCOMMIT")
    with SQLAlchemyCatalog(engine=committing) as catalog:
        track_all(catalog, [entry_of("a", byte_size=2**63 - 1), entry_of("b", byte_size=2**63 - 1)])
        assert_failure(result_of(lambda: catalog.create_snapshot("too large")), "validation_error")
        assert catalog.list_snapshots() == []
        with committing.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM ltm_snapshot_entries")) == 0
    committing.dispose()


def test_url_and_engine_exclude_each_other_and_one_is_needed() -> None:
    engine = create_engine("sqlite://")
    for options in ({}, {"url": "sqlite://", "engine": engine}):
        assert "one of url and engine" in refused(**options)
    assert "pool_size" in refused(engine=engine, pool_size=7)


def test_without_auto_migrate_no_table_is_created(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ltm.db'}"
    assert "tables" in refused(url=url, auto_migrate=False)
    engine = create_engine(url, poolclass=NullPool)
    assert inspect(engine).get_table_names() == []
    with SQLAlchemyCatalog(url, auto_migrate=False, lazy=True) as catalog, engine.begin() as connection:
        for statement in catalog.ddl():
            connection.exec_driver_sql(statement)
    with SQLAlchemyCatalog(url, auto_migrate=False) as catalog:
        assert catalog.ddl() == []
        track(catalog, "k")
    with SQLAlchemyCatalog(url, auto_migrate=False) as catalog:
        assert keys(catalog.list_entries()) == ["k"]


# --- failures and secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error_type"),
    [
        ("nonsense", "configuration_error"),
        (None, "configuration_error"),
        (f"postgresql://u:{CANARY}@host:port/x", "configuration_error"),
        (f"nosuchdialect://u:{CANARY}@host/x", "configuration_error"),
        (f"oracle+oracledb://u:{CANARY}@host/x", "dependency_missing"),
        ("sqlite:////no/such/folder/x.db", "connection_error"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_typed_error(url: Any, error_type: str) -> None:
    with pytest.raises(LTMError) as raised:
        SQLAlchemyCatalog(url)
    assert raised.value.error_type == error_type
    assert CANARY not in "".join(traceback.format_exception(raised.value))


@on_servers
def test_no_output_shows_the_password(
    database: Database, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    url = make_url(database.url).set(password=CANARY).render_as_string(hide_password=False)
    with SQLAlchemyCatalog(url, lazy=True, echo=True) as catalog:
        refusal = catalog.track_entry(**entry_of("k"))
        assert_failure(refusal, "auth_failed")
        assert_failure(result_of(lambda: catalog.get_entry("k")), "auth_failed")
        shown = [repr(catalog), str(refusal), str(vars(catalog)), repr(catalog._database)]
    with pytest.raises(LTMError) as raised:
        SQLAlchemyCatalog(url, echo=True)
    shown += traceback.format_exception(raised.value)
    printed = capfd.readouterr()
    assert CANARY not in "".join([*shown, caplog.text, printed.out, printed.err])


@own_dialect
def test_echo_shows_every_statement_and_no_value(
    database: Database,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # of a handler that writes to an earlier test's output
    executed: list[str] = []
    fields = {"storage_uri": CANARY, "metadata": {"m": CANARY}, "inlined_value": CANARY, "content_hash": CANARY}
    with database.open_catalog(echo=True) as catalog:
        event.listen(catalog._engine, "before_cursor_execute", lambda *arguments: executed.append(arguments[2]))
        caplog.clear()
        track(catalog, CANARY, **fields)
        track_all(catalog, (entry_of(f"{CANARY}{number}", **fields) for number in range(70)))
        catalog.retrieve_batch([f"{CANARY}{number}" for number in range(70)])
        catalog.list_entries(CANARY, {"m": CANARY, "l": {"$ne": [CANARY]}})
        since = catalog.create_snapshot(CANARY)
        catalog.get_changed_entries(since)
        catalog.delete_entry(CANARY)
        catalog.get_deleted_entries(since)
        catalog.cleanup_expired()
        catalog.delete_snapshot(since)
        shown = repr(catalog)
    password = make_url(database.url).password
    shown += "\n".join(record.getMessage() for record in caplog.records)
    printed = capfd.readouterr()
    assert len(executed) >= 11
    for statement in executed:  # a long one is shown by its beginning
        assert statement[:200] in shown
    assert CANARY not in shown + printed.out + printed.err
    assert password is None or str(password) not in shown + printed.out + printed.err


@on_servers
def test_a_server_that_never_answers_is_a_timeout(database: Database) -> None:
    scheme = make_url(database.url).drivername
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"{scheme}://u:{CANARY}@127.0.0.1:{silent.getsockname()[1]}/x"
        with SQLAlchemyCatalog(url, lazy=True, connect_timeout=0.5, timeout=0.5) as catalog:
            assert_failure(catalog.track_entry(**entry_of("k")), "connection_timeout")
            assert_failure(result_of(catalog.list_entries), "connection_timeout")


@pytest.mark.targets(server=True, portable=False, family="mariadb")
def test_an_entry_larger_than_the_servers_packet_is_refused_alone(database: Database) -> None:
    with database.open_catalog() as catalog:
        packet = catalog._database.start().schema.packet
        assert packet is not None
        large = entry_of("large", inlined_value='"' * (packet // 2))
        assert_failure(catalog.track_entry(**large), "validation_error")
        assert catalog.store_batch([entry_of("a"), large])["error_type"] == "validation_error"
        assert catalog.list_entries() == []
        result = catalog.store_batch([entry_of("a"), large, entry_of("b")], atomic=False)
        assert (result["stored_count"], result["failed_count"]) == (2, 1)
        assert [(error["key"], error["error_type"]) for error in result["errors"]] == [("large", "validation_error")]
        assert keys(catalog.list_entries()) == ["a", "b"]


@pytest.mark.targets(family="postgresql", portable=False)
def test_times_do_not_depend_on_the_zone_of_the_session(database: Database) -> None:
    arguments = {"options": "-c timezone=Pacific/Auckland"}
    with database.open_catalog(connect_args=arguments) as east, database.open_catalog() as usual:
        track(east, "k", expires_at=FUTURE)
        track(usual, "last", expires_at=datetime.max)
        assert entry_at(east, "k") == entry_at(usual, "k")
        assert entry_at(east, "k")["created_at"].tzinfo is timezone.utc


# --- the caller's own queries ------------------------------------------------------------------------


@own_dialect
def test_sessions_query_the_mapped_classes(database: Database, engine: Engine) -> None:
    with database.open_catalog() as catalog:
        track(catalog, "a", content_hash="h", storage_uri="uri", byte_size=2**40, metadata={"b": 1, "a": 1.0})
        track(catalog, "b", inlined_value={"x": [None, 0]}, metadata=None, expires_at=FUTURE)
        track(catalog, "b", inlined_value={"x": [None, 0]}, metadata=None, expires_at=FUTURE)
        since = catalog.create_snapshot("kept")
        expected = catalog.list_entries()
    with Session(engine) as session:
        entries = session.scalars(select(CatalogEntry).order_by(CatalogEntry.key)).all()
        for entry, listed in zip(entries, expected, strict=True):
            assert (entry.metadata_, entry.inlined_value) == (listed["metadata"], listed["inlined_value"])
            for name in ("id", "key", "content_hash", "storage_uri", "byte_size", "expires_at", "created_at"):
                assert getattr(entry, name) == listed[name], name
        assert [*(entries[0].metadata_ or {})] == ["b", "a"]
        assert [entry.version for entry in entries] == [1, 2]
        snapshot = session.get(CatalogSnapshot, since)
        assert snapshot is not None
        assert (snapshot.name, snapshot.entry_count, snapshot.total_bytes) == ("kept", 2, 2**40 + 1)


# --- many entries, many processes --------------------------------------------------------------------


@own_dialect
def test_many_keys_are_retrieved_in_one_call(database: Database) -> None:
    keys = of_this_run(6_000, 100_000)
    tracked = range(0, keys, 20)
    with database.open_catalog(timeout=120) as catalog:
        track_all(catalog, (entry_of(f"k{number}", byte_size=number) for number in tracked))
        result = catalog.retrieve_batch(f"k{number}" for number in range(keys))
        assert (result["found_count"], result["missing_count"]) == (len(tracked), keys - len(tracked))
        assert len(result["entries"]) == keys
        sizes = [entry["byte_size"] for entry in result["entries"].values() if entry]
        assert sizes == [*tracked]


@own_dialect
def test_a_snapshot_of_50_000_entries_is_complete(database: Database, engine: Engine) -> None:
    with database.open_catalog(timeout=120) as catalog:
        track(catalog, "k0", metadata={"n": 1})
        expired = {"metadata_hash": None, "inlined_value": None, "version": 1, "expires_at": PAST}
        template = {"content_hash": "h", "storage_uri": None, "byte_size": 3, "metadata_": None}
        times = {"created_at": PAST, "updated_at": PAST}
        rows = [
            {**template, **times, **expired, "expires_at": None, "id": generate_entry_id(key), "key": key}
            for key in (f"k{number}" for number in range(1, 50_000))
        ]
        gone = {**template, **times, **expired, "id": generate_entry_id("gone"), "key": "gone"}
        _insert(engine, catalog, [*rows, gone])
        tracemalloc.start()
        since = catalog.create_snapshot("all")
        assert catalog.get_changed_entries(since) == []
        assert catalog.get_deleted_entries(since) == []
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 1_000_000, "the entries came here"
        snapshot = catalog.get_snapshot(since)
        assert snapshot is not None
        assert (snapshot["entry_count"], snapshot["total_bytes"]) == (50_000, 49_999 * 3 + 1)
        track_all(catalog, [entry_of("k7", content_hash="new"), entry_of("new")])
        assert catalog.delete_entry("k49999") is True
        assert keys(catalog.get_changed_entries(since)) == ["k7", "new"]
        assert keys(catalog.get_deleted_entries(since)) == ["k49999"]


def _insert(engine: Engine, catalog: SQLAlchemyCatalog, rows: list[dict[str, Any]]) -> None:
    """Insert rows as they are, much faster than to track them."""
    table = catalog._database.start().schema.tables.catalog
    extra: dict[str, Any] = {"metadata_json": {}} if "metadata_json" in table.c else {}
    values = [{**{name.rstrip("_"): value for name, value in row.items()}, **extra} for row in rows]
    with engine.begin() as connection:
        connection.execute(table.insert(), values)
        assert connection.scalar(select(func.count()).select_from(table)) == len(rows) + 1


def track_the_same(open_catalog: CatalogOpener) -> int:
    """Track the keys that all others track too, and return how many were created."""
    with open_catalog() as catalog:
        return sum(track(catalog, f"k{number}")["created"] for number in range(SAME_KEYS))


@pytest.fixture(scope="session")
def eight_processes() -> Iterator[ProcessPoolExecutor]:
    """Processes of the whole session: to start them takes longer than to use them."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        yield pool


@own_dialect
def test_8_processes_create_the_same_500_keys_exactly_once(
    database: Database, eight_processes: ProcessPoolExecutor
) -> None:
    with database.open_catalog() as catalog:
        tracking = [eight_processes.submit(track_the_same, database.open_catalog) for _ in range(PROCESSES)]
        while not catalog.list_entries(limit=1):  # until they have begun
            assert not all(future.done() for future in tracking)
        snapshots = [catalog.create_snapshot("meanwhile") for _ in range(5)]
        assert sum(future.result() for future in tracking) == SAME_KEYS
        assert len(catalog.list_entries(limit=1000)) == SAME_KEYS
        counts = [_held(catalog, snapshot) for snapshot in snapshots]
        assert counts == sorted(counts)
        assert [SAME_KEYS - len(catalog.get_changed_entries(snapshot)) for snapshot in snapshots] == counts


def _held(catalog: SQLAlchemyCatalog, snapshot_id: str) -> int:
    """Return how many entries a snapshot says that it holds."""
    snapshot = catalog.get_snapshot(snapshot_id)
    assert snapshot is not None
    assert (snapshot["total_bytes"], catalog.get_deleted_entries(snapshot_id)) == (snapshot["entry_count"], [])
    return int(snapshot["entry_count"])
