"""Databases that an earlier release made: the first start brings them up to date, one step after the other."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from databases import Database, Opener, drop_tables
from the_edge_agent.memory import LTMError, SQLAlchemyBackend
from the_edge_agent.memory.core.languages import language
from the_edge_agent.memory.core.tokens import search_text
from the_edge_agent.memory.database.layouts import SCHEMA_VERSION
from the_edge_agent.testing.workers import PROCESSES, run_together

with_native = pytest.mark.targets("native", in_memory=False)
only_sqlalchemy = pytest.mark.targets(in_memory=False)

# What the last release with version 1 returned from ``ddl()``.
VERSION_1: Final = json.loads((Path(__file__).parent.parent / "support" / "schema_1.json").read_text("utf-8"))
ROWS: Final[dict[str, str]] = {
    "postgresql": ", metadata_json) VALUES (:key, :value, :metadata, :search_text, 3, "
    "'2024-01-02 03:04:05+00', '2025-01-02 03:04:05+00', CAST(CAST(:metadata AS VARCHAR) AS JSONB))",
    "other": ") VALUES (:key, :value, :metadata, :search_text, 3, "
    "'2024-01-02 03:04:05.000000', '2025-01-02 03:04:05.000000')",
}
ENGLISH: Final = language("english")
ADDED: Final = {"lifetime", "is_indexed"}


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An engine on a database without our tables."""
    engine = create_engine(database.url, poolclass=NullPool)
    drop_tables(engine)
    yield engine
    drop_tables(engine)


def make_version_1(
    engine: Engine, family: str, entries: dict[str, str], *, statements: list[str] | None = None
) -> None:
    """Create the tables as version 1 did, with these keys and values."""
    name = engine.dialect.name
    quoted = engine.dialect.identifier_preparer.quote("key")
    row = f"INSERT INTO ltm_entries ({quoted}, value, metadata, search_text, version, created_at, updated_at"
    with engine.begin() as connection:
        for statement in VERSION_1[family] if statements is None else statements:
            connection.exec_driver_sql(statement.replace("%", "%%") if name == "mysql" else statement)
        for key, value in entries.items():
            values = {"key": key, "value": json.dumps(value), "metadata": '{"n": 1}'}
            words = search_text(f" {key}", value, {"n": 1}, ENGLISH)  # version 1 stored the words of the whole key
            connection.execute(text(row + ROWS.get(name, ROWS["other"])), {**values, "search_text": words})


def columns(engine: Engine) -> set[str]:
    return {column["name"] for column in inspect(engine).get_columns("ltm_entries")}


def version(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(text("SELECT version FROM ltm_schema_version")).scalar()


@with_native
def test_a_database_of_version_1_is_brought_up_to_date(engine: Engine, database: Database) -> None:
    make_version_1(engine, database.target.family, {"a": "the red fox", "b": "a grey wolf"})
    assert not columns(engine) & ADDED
    with database.open() as backend:
        assert [*backend.iterate_entries()] == [
            {
                "key": key,
                "value": value,
                "metadata": {"n": 1},
                "version": 3,
                "created_at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
                "updated_at": datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
                "expires_at": None,
                "ttl": None,
                "index": True,
            }
            for key, value in (("a", "the red fox"), ("b", "a grey wolf"))
        ]
        assert [entry["key"] for entry in backend.search("fox", {"n": 1})["results"]] == ["a"]
        assert backend.store("a", "new", ttl=60)["version"] == 4
        assert backend.touch("a", ttl=120)["found"] is True
    assert columns(engine) >= ADDED
    assert version(engine) == SCHEMA_VERSION
    database.open().close()


@with_native
def test_many_processes_may_bring_a_database_up_to_date(engine: Engine, database: Database, workers: Executor) -> None:
    make_version_1(engine, database.target.family, {f"old{number}": "x" for number in range(50)})
    results = run_together(workers, _open_and_store, [(database.open, number) for number in range(PROCESSES)])
    assert all(result.get("created") for result in results), results
    with database.open() as backend:
        assert backend.count()["count"] == 50 + PROCESSES


def _open_and_store(open_backend: Opener, number: int) -> dict[str, Any]:
    with open_backend() as backend:
        return dict(backend.store(f"new{number}", number, ttl=60))


@with_native
def test_words_of_namespaced_keys_are_stored_again(
    engine: Engine, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    make_version_1(engine, database.target.family, {"@users/ada.likes": "red foxes", "@b": "x"})
    with caplog.at_level(logging.WARNING), database.open() as backend:
        ada = backend.namespace("users", "ada")
        assert ada.search("users")["count"] == 1  # as version 1 stored it
        optimize = getattr(backend, "optimize", None)
        if optimize is not None:
            assert optimize()["stemmed"] == 2
            assert ada.search("users")["count"] == 0
        assert ada.search("likes foxes")["count"] == 1
    assert "by other rules" in caplog.text
    assert "tea memory optimize" in caplog.text


@with_native
def test_without_namespaced_keys_no_words_are_stored_again(
    engine: Engine, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    make_version_1(engine, database.target.family, {"@b": "x", "a@b.c": "y"})
    with caplog.at_level(logging.WARNING):
        database.open().close()
    assert "other rules" not in caplog.text


@only_sqlalchemy
def test_ddl_has_the_steps_for_those_who_run_them_themselves(engine: Engine, database: Database) -> None:
    make_version_1(engine, database.target.family, {"a": "the red fox"})
    with pytest.raises(LTMError) as raised:
        SQLAlchemyBackend(database.url, create_tables=False)
    assert raised.value.error_type == "configuration_error"
    with SQLAlchemyBackend(database.url, lazy=True) as lazy:
        statements = lazy.ddl()
    assert [statement.split()[0] for statement in statements] == ["ALTER", "ALTER", "UPDATE"]
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    with SQLAlchemyBackend(database.url, create_tables=False) as backend:
        assert backend.touch("a", ttl=5)["found"] is True


@only_sqlalchemy
def test_another_table_of_the_database_is_brought_up_to_date_when_it_is_opened(
    engine: Engine, database: Database
) -> None:
    make_version_1(engine, database.target.family, {"a": "the red fox"})
    with database.open(table_name="notes") as notes:
        notes.store("n", 1)
    assert version(engine) == SCHEMA_VERSION
    assert not columns(engine) & ADDED
    with database.open() as backend:
        assert backend.retrieve("a", times=True)["found"] is True
    assert columns(engine) >= ADDED


@with_native
def test_a_catalog_needs_no_step(engine: Engine, database: Database) -> None:
    make_version_1(engine, database.target.family, {"a": "the red fox"})
    with database.open_catalog() as catalog:
        assert catalog.track_entry("k", "sha256:1", None, 1, None)["created"] is True
    with database.open() as backend:
        assert backend.search("fox")["count"] == 1
