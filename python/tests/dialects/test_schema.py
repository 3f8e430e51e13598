"""The schema: any number of processes create it once, it upgrades the earlier layout, and the ORM can query it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from databases import Database, Opener, drop_tables
from memory_checks import objects
from run_length import of_this_day
from the_edge_agent.memory import LTMError
from the_edge_agent.memory.database.layouts import SCHEMA_VERSION
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.tables import LTMEntry, copy_tables
from the_edge_agent.testing.workers import PROCESSES, run_together

pytestmark = [pytest.mark.slow, pytest.mark.targets("portable", in_memory=False)]

NAMES: Final = [table.name for table in copy_tables().all()]


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An engine on a database without our tables."""
    engine = create_engine(database.url, poolclass=NullPool)
    drop_tables(engine)
    yield engine
    drop_tables(engine)


def open_and_store(open_backend: Opener, number: int) -> dict[str, Any]:
    with open_backend() as backend:
        return dict(backend.store(f"k{number}", number))


def start_at_once(workers: Executor, open_backend: Opener) -> list[dict[str, Any]]:
    return run_together(workers, open_and_store, [(open_backend, number) for number in range(PROCESSES)])


def test_many_processes_may_start_on_an_empty_database(engine: Engine, database: Database, workers: Executor) -> None:
    assert all(result.get("created") for result in start_at_once(workers, database.open))
    assert set(NAMES) <= set(inspect(engine).get_table_names())
    with database.open() as backend:
        assert [key for key, _, _ in backend.iterate_all()] == [f"k{number}" for number in range(4)]


def test_a_start_that_was_interrupted_is_completed(engine: Engine, database: Database) -> None:
    with database.open() as backend:
        backend.store("k", "the red fox")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM ltm_schema_version"))
        connection.execute(text("DROP TABLE ltm_snapshot_entries"))
    with database.open() as backend:
        assert backend.search("fox")["count"] == 1
    assert "ltm_snapshot_entries" in inspect(engine).get_table_names()


@pytest.mark.targets("native", "portable", in_memory=False)
@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0])
def test_another_version_of_the_schema_is_refused(engine: Engine, database: Database, version: int) -> None:
    database.open().close()
    with engine.begin() as connection:
        connection.execute(text("UPDATE ltm_schema_version SET version = :version"), {"version": version})
    for opens in (database.open, database.open_catalog):
        message = f"schema version {version}; this release knows 1 to {SCHEMA_VERSION}"
        with pytest.raises(LTMError, match=message) as raised:
            opens()
        assert raised.value.error_type == "configuration_error"


def test_entries_can_be_queried_through_the_orm(engine: Engine, database: Database) -> None:
    with database.open() as backend:
        backend.store("k", {"a": 1.0, "b": None}, {"n": 1})
    with Session(engine) as session:
        entry = session.scalars(select(LTMEntry).where(LTMEntry.key == "k")).one()
    assert (entry.value, entry.metadata_, entry.version) == ({"a": 1.0, "b": None}, {"n": 1}, 1)
    assert entry.updated_at.tzinfo is timezone.utc
    assert abs(entry.updated_at - datetime.now(timezone.utc)).total_seconds() < 60


EARLIER: Final[dict[str, list[str]]] = {
    "sqlite": [
        "CREATE TABLE ltm_entries (key VARCHAR(512) NOT NULL, value JSON NOT NULL, metadata JSON, search_text TEXT, "
        "created_at DATETIME, updated_at DATETIME, PRIMARY KEY (key))"
    ],
    "postgresql": [
        "CREATE TABLE ltm_entries (key VARCHAR(512) NOT NULL, value JSON NOT NULL, metadata JSON, search_text TEXT, "
        "created_at TIMESTAMP WITHOUT TIME ZONE, updated_at TIMESTAMP WITHOUT TIME ZONE, PRIMARY KEY (key))",
        "ALTER TABLE ltm_entries ADD COLUMN search_vector TSVECTOR",
        "CREATE INDEX idx_ltm_entries_search_vector ON ltm_entries USING GIN(search_vector)",
    ],
    "mysql": [
        "CREATE TABLE ltm_entries (`key` VARCHAR(512) NOT NULL, value JSON NOT NULL, metadata JSON, search_text TEXT, "
        "created_at DATETIME, updated_at DATETIME, PRIMARY KEY (`key`))",
        "ALTER TABLE ltm_entries ADD FULLTEXT INDEX idx_ltm_entries_fulltext (search_text)",
    ],
}
INSERT: Final = "INSERT INTO ltm_entries ({key}, value, metadata, search_text, created_at, updated_at) VALUES {row}"
ROW: Final = "(:key, :value, :metadata, 'x', '2024-01-02 03:04:05', '2025-01-02 03:04:05')"


def make_earlier_layout(engine: Engine, rows: list[tuple[str, str, str | None]]) -> None:
    with engine.begin() as connection:
        for statement in EARLIER[engine.dialect.name]:
            connection.execute(text(statement))
        insert = text(INSERT.format(key=engine.dialect.identifier_preparer.quote("key"), row=ROW))
        connection.execute(insert, [{"key": key, "value": value, "metadata": meta} for key, value, meta in rows])


def test_the_earlier_layout_is_rebuilt_once(engine: Engine, database: Database, workers: Executor) -> None:
    values = ['{"a": [1, 2.5, "the red fox"]}', "5", "null", '"日本語 😀"', "true"]
    rows = [(f"k{n:04}", values[n % 5], f'{{"n": {n}}}' if n % 2 else None) for n in range(450)]
    make_earlier_layout(engine, rows)
    assert all(result.get("created") for result in start_at_once(workers, database.open))
    with database.open() as backend:
        entries = {key: (value, metadata) for key, value, metadata in backend.iterate_all()}
        assert len(entries) == 450 + PROCESSES
        assert entries["k0000"] == ({"a": [1, 2.5, "the red fox"]}, None)
        assert [entries[key][0] for key in ("k0001", "k0002", "k0003", "k0004")] == [5, None, "日本語 😀", True]
        assert backend.search("fox", limit=200)["count"] == 90
        assert backend.search(metadata_filter={"n": 449})["results"][0]["key"] == "k0449"
        assert backend.search(limit=450 + PROCESSES)["results"][-1]["key"] == "k0449"
    with Session(engine) as session:
        moved = session.get(LTMEntry, "k0001")
    assert moved is not None
    assert (moved.version, moved.created_at.year, moved.updated_at.year) == (1, 2024, 2025)
    assert {
        name for name in inspect(engine).get_table_names() if "fts" not in name and not name.endswith("_words")
    } == {*NAMES}


def test_the_earlier_layout_is_rebuilt_without_words_where_none_are_wanted(engine: Engine, database: Database) -> None:
    make_earlier_layout(engine, [(f"k{n:04}", '"the red fox"', f'{{"n": {n}}}') for n in range(150)])
    with database.open(search=False) as backend:
        assert backend.search(metadata_filter={"n": 149})["results"][0]["value"] == "the red fox"
        assert backend.count()["count"] == 150
    assert "search_text" not in {column["name"] for column in inspect(engine).get_columns("ltm_entries")}
    assert "ltm_entries_earlier" not in inspect(engine).get_table_names()


def test_an_entry_of_the_earlier_layout_that_cannot_be_kept_stops_the_start(engine: Engine, database: Database) -> None:
    make_earlier_layout(engine, [("good", "1", None), ("bad", "2", '["not an object"]')])
    for _ in range(2):
        with pytest.raises(LTMError, match="'bad' of the earlier layout cannot be kept") as raised:
            database.open()
        assert raised.value.error_type == "configuration_error"
    with engine.begin() as connection:
        connection.execute(text("UPDATE ltm_entries_earlier SET metadata = NULL"))
    with database.open() as backend:
        assert [key for key, _, _ in backend.iterate_all()] == ["bad", "good"]


@pytest.mark.targets(portable=True, family="sqlite")
def test_a_database_that_merges_keys_is_refused(engine: Engine, database: Database) -> None:
    types = "value TEXT, metadata TEXT, version INT, write_id TEXT, storage_uri TEXT, "
    times = "expires_at DATETIME, created_at DATETIME, updated_at DATETIME"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE ltm_entries (key TEXT COLLATE NOCASE PRIMARY KEY, {types}{times})"))
    with pytest.raises(LTMError, match="does not keep keys exactly") as raised:
        database.open(search=False)
    assert raised.value.error_type == "configuration_error"
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM ltm_entries")) == 0


def make_unrelated(engine: Engine, name: str, kind: str) -> None:
    with engine.begin() as connection:
        if kind == "view":
            connection.execute(text("CREATE TABLE ltm_application (x INT, name VARCHAR(20))"))
            connection.execute(text(f"CREATE VIEW {name} AS SELECT * FROM ltm_application"))
        else:
            connection.execute(text(f"CREATE TABLE {name} (x INT, name VARCHAR(20))"))
            connection.execute(text(f"INSERT INTO {name} VALUES (1, 'mine')"))


@pytest.fixture
def views(engine: Engine) -> Iterator[None]:
    """Views are gone before the tables."""
    yield
    with engine.begin() as connection:
        for name in inspect(connection).get_view_names():
            connection.execute(text(f"DROP VIEW {name}"))


@pytest.mark.usefixtures("views")
@pytest.mark.targets("native", "portable", in_memory=False)
@pytest.mark.parametrize("kind", ["table", "view"])
@pytest.mark.parametrize("name", of_this_day(NAMES, 2))
def test_an_unrelated_table_of_our_name_is_left_alone(engine: Engine, database: Database, name: str, kind: str) -> None:
    make_unrelated(engine, name, kind)
    there = objects(database.url)
    for opens in (database.open, database.open_catalog):
        with pytest.raises(LTMError, match=f"a table {name} of another layout; use another database") as raised:
            opens()
        assert raised.value.error_type == "configuration_error"
    assert objects(database.url) == there
    if engine.dialect.name == "sqlite":
        assert Path(engine.url.database or "").read_bytes()[18:20] == b"\x01\x01"  # 2 is WAL


@pytest.mark.targets("native", "portable", in_memory=False)
def test_an_unrelated_table_of_entries_is_refused_beside_tables_of_ours(engine: Engine, database: Database) -> None:
    database.open().close()
    drop_tables(engine)
    database.open_catalog().close()
    make_unrelated(engine, "ltm_entries", "table")
    with pytest.raises(LTMError, match="a table ltm_entries of another layout; use another database"):
        database.open()


def test_a_version_that_is_no_number_is_another_s(engine: Engine, database: Database) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ltm_schema_version (id INT PRIMARY KEY, version VARCHAR(20))"))
        connection.execute(text("INSERT INTO ltm_schema_version VALUES (1, 'v12')"))
    with pytest.raises(LTMError, match="a table ltm_schema_version of another layout"):
        database.open()


def test_a_start_on_a_complete_database_looks_at_no_columns(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.open().close()
    monkeypatch.setattr(Schema, "foreign_tables", lambda *_: pytest.fail("it looked"))
    database.open().close()
