"""Statements on the driver's cursor answer as through SQLAlchemy, leave nothing open, and listeners can watch them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from sqlalchemy import Engine, bindparam, create_engine, event, literal, select, text
from sqlalchemy.exc import DBAPIError

from databases import Database
from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.memory.sql.driver.prepared import Prepared, has_listeners

CALLS: Final[dict[str, Callable[[Any], Any]]] = {
    "retrieve": lambda memory: memory.retrieve("a"),
    "retrieve_missing": lambda memory: memory.retrieve("z"),
    "list_keys": lambda memory: memory.list_keys(),
    "list_keys_of_a_prefix": lambda memory: memory.list_keys("a"),
    "list_keys_of_the_last_prefix": lambda memory: memory.list_keys("\U0010ffff"),
    "list_keys_after": lambda memory: memory.list_keys(after="a"),
    "count": lambda memory: memory.count(),
    "count_of_a_prefix": lambda memory: memory.count("b"),
    "iterate_all": lambda memory: list(memory.iterate_all()),
    "search": lambda memory: memory.search("fox"),
    "search_with_offset": lambda memory: memory.search("fox", limit=1, offset=1),
    "search_for_a_phrase": lambda memory: memory.search('"red fox" -dog'),
    "search_of_a_prefix": lambda memory: memory.search("re*", prefix="a"),
    "search_by_a_filter": lambda memory: memory.search(metadata_filter={"n": {"$in": [1, "x", None]}}),
    "search_by_both": lambda memory: memory.search("fox", {"n": {"$gte": 2}}),
    "search_for_none": lambda memory: memory.search("-fox"),
    "the_newest": lambda memory: memory.search(limit=2, offset=1),
    "store": lambda memory: memory.store("d", [1, 1.0, True]),
    "delete": lambda memory: memory.delete("d"),
}


def watch(memory: SQLAlchemyBackend) -> list[str]:
    seen: list[str] = []
    event.listen(memory._engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    return seen


def fill(memory: Any) -> None:
    for key, value, number in (("a", "the red fox", 1), ("b", "a red fox and a dog", 2), ("c", "fox " * 5_000, 3)):
        assert memory.store(key, value, {"n": number})["success"]


@pytest.mark.targets("portable", in_memory=False)
def test_a_watched_engine_gives_the_same_answers(database: Database) -> None:
    with database.open() as plain, database.open() as watched:
        fill(plain)
        seen = watch(watched)
        assert (has_listeners(plain._engine), has_listeners(watched._engine)) == (False, True)
        for name, call in CALLS.items():
            if name != "store":  # which changes what the next one finds
                assert call(plain) == call(watched), name
        assert len(seen) >= len(CALLS) - 2


def test_a_read_leaves_no_transaction_and_no_connection_behind(database: Database) -> None:
    with database.open() as memory:
        fill(memory)
        for name in ("retrieve", "list_keys", "count", "search", "search_by_a_filter"):
            CALLS[name](memory)
            assert memory._engine.pool.checkedout() == 0
            with memory._engine.connect() as connection:
                assert not has_transaction(connection.connection.driver_connection), name


def has_transaction(driver_connection: Any) -> bool:
    if hasattr(driver_connection, "in_transaction"):  # sqlite3
        return bool(driver_connection.in_transaction)
    if hasattr(driver_connection, "pgconn"):
        return bool(driver_connection.info.transaction_status) or driver_connection.autocommit
    return bool(driver_connection.server_status & 1)  # PyMySQL: SERVER_STATUS_IN_TRANS


def test_values_too_long_to_be_ranked_at_once_are_found_too(database: Database) -> None:
    with database.open() as memory:
        memory.store("long", "word " * 30_000)
        memory.store("short", "word")
        found = memory.search("word")
        assert {entry["key"]: entry["value"] for entry in found["results"]} == {
            "long": "word " * 30_000,
            "short": "word",
        }


def test_numbers_of_filters_that_are_equal_in_python_are_not_taken_for_each_other(database: Database) -> None:
    with database.open() as memory:
        memory.store("one", 1, {"n": 1})
        memory.store("true", 1, {"n": True})
        found = [memory.search(metadata_filter={"n": value})["results"] for value in (1, True, 1.0)]
        assert [[entry["key"] for entry in entries] for entries in found] == [["one"], ["true"], ["one"]]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


@pytest.mark.parametrize("name", ["before_execute", "after_cursor_execute", "handle_error", "do_execute"])
def test_whoever_listens_watches(engine: Engine, name: str) -> None:
    assert not has_listeners(engine)
    event.listen(engine, name, lambda *_, **__: None)
    assert has_listeners(engine)


def test_echo_watches() -> None:
    assert has_listeners(create_engine("sqlite://", echo=True))


def test_translated_schemas_go_through_sqlalchemy(engine: Engine) -> None:
    assert has_listeners(engine.execution_options(schema_translate_map={None: "other"}))


def test_a_driver_error_comes_as_sqlalchemys_without_the_parameters(engine: Engine) -> None:
    broken = Prepared(select(literal(1)).where(text("nothing = :secret")).params(secret="hidden"))
    with engine.connect() as connection, pytest.raises(DBAPIError) as refused:
        broken.run(connection, {})
    assert "hidden" not in str(refused.value)


def test_lists_of_an_in_are_written_out(engine: Engine) -> None:
    wanted = Prepared(select(literal(1)).where(literal(2).in_([1, 2]), literal(3) == bindparam("b_three")))
    with engine.connect() as connection:
        assert [*map(tuple, wanted.run(connection, {"b_three": 3}).rows)] == [(1,)]
        assert wanted.run(connection, {"b_three": 4}).rows == []
