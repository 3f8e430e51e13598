"""SQLite settings that change answers or lose data: set on our connections, and refused by name on those of others."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, create_engine, event

from the_edge_agent.memory import (
    LTMError,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    SQLiteBackend,
    SQLiteCatalog,
)
from the_edge_agent.memory.diagnostics.check import check_database

SetUp = Callable[[Any], object]


def pragma(text: str) -> SetUp:
    return lambda connection: connection.execute(f"PRAGMA {text}").fetchall()


def attribute(name: str, value: Any) -> SetUp:
    return lambda connection: setattr(connection, name, value)


def by_name(cursor: Any, row: Any) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def without_case(one: str, other: str) -> int:
    return (one.lower() > other.lower()) - (one.lower() < other.lower())


SET_BACK: Final[dict[str, SetUp]] = {
    "trusted_schema": pragma("trusted_schema=OFF"),
    "count_changes": pragma("count_changes=ON"),
    "read_uncommitted": pragma("read_uncommitted=ON"),
    "synchronous": pragma("synchronous=OFF"),
    "text_factory": attribute("text_factory", bytes),
}
REFUSED: Final[dict[str, SetUp]] = {
    **SET_BACK,
    "row_factory": attribute("row_factory", by_name),
    "encoding": pragma("encoding='UTF-16'"),
    "journal_mode": pragma("journal_mode=MEMORY"),
    "locking_mode": pragma("locking_mode=EXCLUSIVE"),
    "typeof": lambda connection: connection.create_function("typeof", 1, lambda value: "text"),
    "like": lambda connection: connection.create_function("like", 2, lambda pattern, text: 1),
    "BINARY": lambda connection: connection.create_collation("BINARY", without_case),
}
HARMLESS: Final = (
    "case_sensitive_like=ON",
    "reverse_unordered_selects=ON",
    "recursive_triggers=ON",
    "foreign_keys=ON",
    "full_column_names=ON",
    "short_column_names=OFF",
    "legacy_alter_table=ON",
    "auto_vacuum=FULL",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def set_up(engine: Engine | type[Engine], work: SetUp) -> Any:
    def on_connect(connection: Any, record: Any) -> None:
        work(connection)

    event.listen(engine, "connect", on_connect)
    return on_connect


@pytest.mark.parametrize("name", REFUSED)
def test_they_are_refused_by_name_on_a_callers_engine(engine: Engine, path: Path, name: str) -> None:
    set_up(engine, REFUSED[name])
    with pytest.raises(LTMError, match=name) as raised:
        SQLAlchemyBackend(engine=engine)
    assert raised.value.error_type == "configuration_error"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,), "nothing was made"
    connection.close()


@pytest.mark.parametrize("name", SET_BACK)
def test_they_are_set_where_the_connection_is_ours(path: Path, name: str) -> None:
    listener = set_up(Engine, SET_BACK[name])
    try:
        with SQLAlchemyBackend(f"sqlite:///{path}", catalog="sqlalchemy") as memory:
            assert memory.store("k", "fox")["created"] is True
            assert memory.store("k", "fox", if_version=1)["version"] == 2
            assert memory.search("fox")["count"] == 1
    finally:
        event.remove(Engine, "connect", listener)


def test_types_that_a_caller_converts_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sqlite3.converters, "TEXT", lambda value: value.decode().upper())
    options = {"detect_types": sqlite3.PARSE_DECLTYPES}
    with pytest.raises(LTMError, match="detect_types") as raised:
        SQLAlchemyBackend(f"sqlite:///{path}", connect_args=options)
    assert raised.value.error_type == "configuration_error"


def test_others_change_no_answer(tmp_path: Path) -> None:
    """Their sum is tried: each changes a reading or an order that nobody relies on."""
    answers = []
    for number, settings in enumerate([(), HARMLESS]):
        engine = create_engine(f"sqlite:///{tmp_path / f'{number}.db'}")
        set_up(engine, lambda connection, settings=settings: [pragma(text)(connection) for text in settings])  # type: ignore[misc]
        with SQLAlchemyBackend(engine=engine) as memory:
            memory.store_many([{"key": key, "value": f"red Fox {key}", "metadata": {"n": 1}} for key in "aAbBéz"])
            found = [memory.search(query, filter_)["results"] for query, filter_ in (("FOX", None), ("re*", {"n": 1}))]
            keys = [[(entry["key"], entry["score"]) for entry in results] for results in found]
            answers.append([keys, memory.list_keys(), memory.store("a", 1), [*memory.iterate_all()]])
        engine.dispose()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("has_tables", [False, True])
def test_a_database_in_utf16_is_refused_by_every_class(path: Path, has_tables: bool) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA encoding='UTF-16'")
    connection.execute("CREATE TABLE other (id)")
    connection.commit()
    if has_tables:
        with sqlite3.connect(path.with_name("source.db")) as source:
            SQLiteBackend(path.with_name("source.db")).close()
            for (sql,) in source.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name LIKE 'ltm%'"):
                if "fts" not in sql:
                    connection.execute(sql)
        source.close()
        connection.execute("INSERT INTO ltm_schema_version VALUES (1, 1)")
        connection.commit()
    connection.close()
    before = path.read_bytes()
    url = f"sqlite:///{path}"
    openers: list[Callable[[], Any]] = [
        lambda: SQLiteBackend(path),
        lambda: SQLiteCatalog(path),
        lambda: SQLAlchemyBackend(url),
        lambda: SQLAlchemyCatalog(url),
    ]
    for opener in openers:
        with pytest.raises(LTMError, match="encoding of SQLite is UTF-16") as raised:
            opener()
        assert raised.value.error_type == "configuration_error"
    report = check_database(url)
    assert (report["success"], report["error_type"]) == (False, "configuration_error")
    assert "UTF-16" in report["error"]
    assert path.read_bytes() == before
