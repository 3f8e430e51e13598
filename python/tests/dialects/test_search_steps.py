"""Searches that ask an index first: every step returns the results that the functions in Python define."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from enum import Enum, IntEnum
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from databases import Database
from run_length import of_this_day
from the_edge_agent.memory import LTMBackend, SQLAlchemyBackend, SQLiteBackend
from the_edge_agent.memory.core import tokens as text
from the_edge_agent.memory.core.filters import index_lookups, matches, parameterize, parse_filter
from the_edge_agent.memory.core.namespaces import EVERYTHING
from the_edge_agent.memory.core.query import parse_query
from the_edge_agent.memory.database import native_rows
from the_edge_agent.memory.database import search_plan as plan
from the_edge_agent.memory.database.search_plan import Step, StepLimits, first_answer
from the_edge_agent.memory.sql.dialects.mysql import metadata_hashes
from the_edge_agent.memory.sql.queries import search as sql_search
from the_edge_agent.memory.sql.queries.search import Search
from the_edge_agent.memory.sqlite.index import definitions

pytestmark = pytest.mark.slow

Make = Callable[[Path], LTMBackend]
MAKES: Final[dict[str, Make]] = {
    "native": lambda path: SQLiteBackend(path, language="none"),
    "sqlalchemy": lambda path: SQLAlchemyBackend(f"sqlite:///{path}", language="none"),
}
# Small enough that 80 entries take every way.
WINDOW: Final = 6
LIMITS: Final = ((3, 8), (12, 30))
QUERIES: Final = (
    *(None, "common", "rare", "old", "new", "comm*", "common old", '"common word"', "common -old", "-common"),
    *("late rare", "absent"),
)
PAGES: Final = ((1, 0, ""), (5, 0, ""), (2, 2, "a"), (5, 2, ""), (30, 0, "a"), (5, 25, ""))  # limit, offset, prefix
FILTERS: Final[tuple[dict[str, Any] | None, ...]] = (
    None,
    {"kind": "often"},
    {"kind": "seldom"},
    {"age": "old"},
    {"age": {"$in": ["old", "none", 7]}},
    {"n": 3},
    {"n": 3.0},
    {"n": True},
    {"n": {"$gte": 70}, "kind": "often"},
    {"$or": [{"kind": "seldom"}, {"n": 0}]},
    {"deep": {"er": "often"}},
    {"kind": "often", "list": [1, "often"]},
    {"kind": "absent"},
    {"age": "new", "kind": "seldom"},
    {"mid": True},
)
METADATA: Final[tuple[Any, ...]] = (
    *(None, {}, {"": ""}, {"k": ""}, {"k": "x" * 39}, {"k": "x" * 40}, {"k": "x" * 41}, {"k": "x" * 40 + "y"}),
    *({"k": n} for n in (0, -0.0, 1, 1.0, -1, -1.0, 1.5, 0.5, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 1e22)),
    *(
        {"k": n}
        for n in (5e-324, 1.7976931348623157e308, True, False, None, "1", "true", "null", "-1", "é", "日本", "😀")
    ),
    *(
        {key: 1}
        for key in ("k", "K", "k ", "é", "e\u0301", "a.b", "k$", '"', "'", "\\", "\n", "\x01", "k" * 64, "k" * 65)
    ),
    *({"k": text} for text in ('"', "'", "\\", "\n", "\x7f", "x AND y", "x*", "a" * 100_000)),
    *({"k": {"k": 1}}, {"a": {"k": 1}}, {"k": [1]}, {"k": [{"k": 1}]}, {"k": {"0": 1}}, {"0": 1}, {"k": {}, "l": []}),
    {str(n): n for n in range(3_000)},
)


of_mysql = pytest.mark.targets(of_mysql=True, portable=False)


def nested(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = {"k": value}
    return value


def with_small_steps(monkeypatch: pytest.MonkeyPatch, family: str, limits: Sequence[tuple[int, int]] = LIMITS) -> None:
    monkeypatch.setitem(plan.STEP_LIMITS, family, tuple(StepLimits(*pair) for pair in limits))
    monkeypatch.setattr(plan, "SORTED_WHOLE", limits[0][0])


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A kind of memory whose steps are small."""
    with_small_steps(monkeypatch, "sqlite")
    monkeypatch.setattr(plan, "RANK_WINDOW", WINDOW)
    return MAKES[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ltm.db"


def fill(memory: LTMBackend, chance: random.Random, sizes: Sequence[int] = (1, 1, 3, 20)) -> None:
    """Store entries, many of them at one time; what is old, or has a seldom word, is clustered."""
    entries = []
    for number in range(80):
        words = ["common" if number % 2 else "other", "word", "old" if number < 15 else "new", f"n{number}"]
        words += ["late"] if number > 74 else []
        words += ["rare"] if number % 31 == 0 else []
        kind = "seldom" if number in (2, 40) else "often" if number % 3 else "none"
        age = "old" if number < 15 else "new"
        metadata = {
            "kind": kind,
            "age": age,
            "n": number % 20,
            "deep": {"er": kind},
            "list": [number % 2, kind],
            "mid": 20 < number < 60,
        }
        entries.append({"key": f"{'ab'[number % 2]}/{number:03}", "value": " ".join(words), "metadata": metadata})
    while entries:
        some = [entries.pop(0) for _ in range(min(len(entries), chance.choice(sizes)))]
        assert memory.store_many(some)["success"]


def run(path: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def expected(
    path: Path, query: str | None, condition: dict[str, Any] | None, limit: int, offset: int, prefix: str
) -> list[Any]:
    """Return what the functions in Python define, out of a look at every entry."""
    terms, node = parse_query(query).terms, parse_filter(condition)
    rows = run(
        path, "SELECT key, metadata, search_text, updated_at FROM ltm_entries WHERE expires_at IS NULL ORDER BY key"
    )
    rows.sort(key=lambda row: row[3], reverse=True)
    fitting = [
        row
        for row in rows
        if row[0].startswith(prefix)
        and (not terms or text.matches(row[2], terms))
        and matches(node, json.loads(row[1]) if row[1] else None)
    ]
    needles = text.positive_needles(terms)
    if needles:
        fitting = fitting[: max(WINDOW, limit + offset)]
    ranked = sorted(((text.rank(needles, row[2]), row[0]) for row in fitting), key=lambda pair: -pair[0])
    return [(key, rank) for rank, key in ranked[offset : offset + limit]]


def answers(memory: LTMBackend, *search: Any) -> list[Any]:
    query, condition, limit, offset, prefix = search
    result = memory.search(query, condition, limit, match="all", offset=offset, prefix=prefix or None)
    assert result["success"], result
    return [(entry["key"], entry["score"]) for entry in result["results"]]


def test_a_step_that_cannot_return_so_many_rows_is_not_tried() -> None:
    partial, whole = Step("few", is_partial=True, limit=2), Step("all")
    tried: list[str] = []

    def read(step: Step[str]) -> Sequence[Sequence[Any]]:
        tried.append(step.statement)
        return [("a",), ("b",)]

    for needed in (3, 2):
        assert first_answer([partial, whole], read, needed) == [("a",), ("b",)]
    assert tried == ["all", "few"]


def agree(memory: LTMBackend, path: Path) -> None:
    for query, condition, page in of_this_day(product(QUERIES, FILTERS, PAGES), 30):
        assert answers(memory, query, condition, *page) == expected(path, query, condition, *page)


@pytest.mark.parametrize("seed", range(2))
def test_every_way_finds_what_python_defines(make: Make, path: Path, seed: int) -> None:
    with make(path) as memory:
        fill(memory, random.Random(seed))
        run(path, "UPDATE ltm_entries SET expires_at = '2000-01-01 00:00:00.000000' WHERE id % 7 = 3")
        agree(memory, path)


def test_a_number_is_found_in_a_range_of_keys_in_each_of_its_forms(make: Make, path: Path) -> None:
    numbers = (0, -0.0, 1, 1.0, True, False, 3, 3.0, -3, 10**15, 1e15, 10**16, 1e16, 10**17, 1e17, 2**53 + 1, 0.5, 5e-1)
    keys = {f"n/{place:02}": {"n": number} for place, number in enumerate(numbers)}
    with make(path) as memory:
        assert memory.store_many({"key": key, "value": None, "metadata": each} for key, each in keys.items())["success"]
        for number in numbers:
            condition = parse_filter({"n": number})
            expected_keys = [key for key, metadata in keys.items() if matches(condition, metadata)]
            results = memory.search(None, {"n": number}, 100, prefix="n/")["results"]
            assert sorted(entry["key"] for entry in results) == expected_keys, number


def test_each_step_is_the_one_that_answers_some_search(path: Path, make: Make) -> None:
    with SQLAlchemyBackend(f"sqlite:///{path}") as memory:
        fill(memory, random.Random(1), sizes=(1,))
        answered = {answering(memory, query, condition) for query, condition in product(QUERIES, FILTERS)}
    assert answered >= {(1, 0), (5, 0), (5, 1), (5, 2), (5, 3), (5, 4), (0, None)}


def answering(memory: SQLAlchemyBackend, query: str | None, condition: dict[str, Any] | None) -> tuple[int, int | None]:
    """Return how many steps of a search are a statement by themselves, and which of them answers."""
    search = Search(parse_query(query).terms, parse_filter(condition), EVERYTHING, 4, 0)
    answers = [
        step.is_answered_by(memory._database.read(lambda _, each=step: each.statement), search.rows)  # type: ignore[misc]
        for step in memory._database.start().statements.entries.searcher.steps(search)
    ]
    return len(answers), answers.index(True) if answers else None


@pytest.mark.targets("native", family="postgresql", portable=False)
def test_every_way_finds_the_same_on_postgresql(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = of_this_day(product(QUERIES, FILTERS, PAGES), 30)
    searches = [(query, condition, *page) for query, condition, page in chosen]
    with database.open() as memory:
        fill(memory, random.Random(5))
        expected = [answers(memory, *search) for search in searches]
    with_small_steps(monkeypatch, "postgresql")
    with database.open() as memory:  # statements are kept
        for search, answer in zip(searches, expected, strict=True):
            assert answers(memory, *search) == answer, search


@pytest.mark.targets(family="postgresql", portable=False)
def test_each_step_answers_some_search_on_postgresql(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with_small_steps(monkeypatch, "postgresql")
    with database.open() as memory:
        assert isinstance(memory, SQLAlchemyBackend)
        fill(memory, random.Random(1), sizes=(1,))
        answered = {answering(memory, query, condition) for query, condition in product(QUERIES, FILTERS)}
    assert answered >= {(1, 0), (5, 0), (5, 1), (5, 2), (5, 3), (5, 4)}


@pytest.fixture
def mysql_family(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database of MySQL or MariaDB on which the steps are small."""
    with_small_steps(monkeypatch, "mysql")
    monkeypatch.setattr(plan, "RANK_WINDOW", WINDOW)
    return database


def agree_with_sqlite(
    mysql_family: Database, path: Path, seed: int, queries: Sequence[str | None] = (None,), **options: Any
) -> None:
    with mysql_family.open(**options) as memory, SQLAlchemyBackend(f"sqlite:///{path}", **options) as reference:
        for each in (memory, reference):
            fill(each, random.Random(seed))
        for search in of_this_day(product(queries, FILTERS, PAGES), 30):
            flat = (*search[:2], *search[2])
            assert answers(memory, *flat) == answers(reference, *flat), flat


@of_mysql
def test_every_way_finds_the_same_with_metadata_hashes(mysql_family: Database, path: Path) -> None:
    agree_with_sqlite(mysql_family, path, 1, QUERIES)


@of_mysql
def test_metadata_hashes_are_stored_without_words_too(mysql_family: Database, path: Path) -> None:
    agree_with_sqlite(mysql_family, path, 3, table_name="without_words", search=False)


@of_mysql
def test_one_term_for_all_values_changes_no_answer(
    mysql_family: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_hashes, "_metadata_hash", lambda written: len(written) % 3 + 1)
    agree_with_sqlite(mysql_family, path, 4)


@of_mysql
def test_each_step_answers_some_search_with_metadata_hashes(mysql_family: Database) -> None:
    with mysql_family.open() as memory:
        assert isinstance(memory, SQLAlchemyBackend)
        fill(memory, random.Random(1), sizes=(1,))
        answered = {answering(memory, query, condition) for query, condition in product((None, "-common"), FILTERS)}
    assert answered >= {(1, 0), (5, 0), (5, 1), (5, 2), (5, 3), (5, 4), (7, 1)}


@of_mysql
def test_a_look_at_the_newest_entries_reads_no_others(mysql_family: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with_small_steps(monkeypatch, "mysql", ((3, 150), (12, 250)))  # MariaDB finds it cheap to read up to 100
    with mysql_family.open(pool_size=1, max_overflow=0) as memory:
        for number in range(700):
            memory.store(f"k{number}", number, {"kind": "often", "n": number})
        search = Search((), parse_filter({"kind": "often", "n": {"$gt": 999}}), EVERYTHING, 4, 0)
        steps = memory._database.start().statements.entries.searcher.steps(search)
        looks = [step.statement for step in steps if step.is_partial]
        assert len(looks) == len(LIMITS)
        for query in looks:
            run_in(memory, "FLUSH STATUS")
            assert not memory._database.read(lambda _, each=query: each)
            ((_, count),) = run_in(memory, "SHOW SESSION STATUS LIKE 'Handler_read_next'")
            assert int(count) <= 2 * query.parameters["b_newest"] + 4


def run_in(memory: Any, statement: str) -> list[Any]:
    """Run a statement in the session of a memory that has but one."""
    with memory._database.engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return [*result] if result.returns_rows else []


@of_mysql
@pytest.mark.parametrize("levels", [0, 27])
def test_every_value_of_a_filter_has_a_metadata_hash(mysql_family: Database, levels: int) -> None:
    stored = [nested(metadata, levels) for metadata in METADATA[:-1]]
    with mysql_family.open() as memory:
        store_all(memory, stored)
        for condition in filter(None, stored):
            node = parse_filter(condition)
            expected = {f"k{place:03}" for place, each in enumerate(stored) if matches(node, each)}
            assert {key for key, _ in answers(memory, None, condition, 200, 0, "")} == expected, condition


@pytest.mark.targets("native", "portable", in_memory=False)
def test_a_filter_that_python_decides_ends_in_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*_: Any) -> bool:
        time.sleep(0.01)
        return False

    with database.open() as memory:
        store_all(memory, [{"n": number} for number in range(500)])
    for module in (sql_search, native_rows):
        monkeypatch.setattr(module, "may_fit", slowly)
    with database.open(timeout=1) as memory:
        begin = time.monotonic()
        result = memory.search(metadata_filter={"$or": [{"n": {"$gt": number}} for number in range(300)]})
        assert (result["success"], result.get("error_type")) == (False, "connection_timeout")
        assert time.monotonic() - begin < 3


@pytest.mark.targets("native", "portable", in_memory=False)
def test_a_rank_that_python_computes_ends_in_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*_: Any) -> float:
        time.sleep(0.01)
        return 1.0

    with database.open() as memory:
        memory.store_many([{"key": f"k{number}", "value": "fox"} for number in range(500)])
    monkeypatch.setattr(plan, "rank", slowly)
    with database.open(timeout=1) as memory:
        begin = time.monotonic()
        result = memory.search("fox", match="all")
        assert (result["success"], result.get("error_type")) == (False, "connection_timeout")
        assert time.monotonic() - begin < 3


class Colour(str, Enum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


@pytest.mark.targets("native", "portable")
def test_a_filter_may_ask_for_members_of_enums(database: Database) -> None:
    with database.open() as memory:
        assert memory.store("k", 0, {"colour": Colour.RED, "size": Size.SMALL, Colour.RED: 2})["success"]
        for condition in ({"colour": Colour.RED}, {"size": Size.SMALL}, {Colour.RED: 2}, {"colour": "red", "red": 2}):
            assert [key for key, _ in answers(memory, None, condition, 1, 0, "")] == ["k"], condition


@of_mysql
def test_entries_with_more_metadata_hashes_than_columns_are_found(mysql_family: Database) -> None:
    most = len(metadata_hashes.METADATA_HASHES)
    with mysql_family.open() as memory:
        for number in range(40):
            more = {f"m{place}": place for place in range(most - 2 + number % 3)}
            memory.store(f"k{number:02}", number, {**more, "n": number % 20})
        for number in range(20):
            answer = answers(memory, None, {"n": number}, 10, 0, "")
            assert [key for key, _ in answer] == [f"k{number + 20:02}", f"k{number:02}"]
        assert len(answers(memory, None, {"n": {"$in": [*range(20)]}}, 50, 0, "")) == 40
        assert len(answers(memory, None, {"m5": 5}, 50, 0, "")) == 40


@of_mysql
def test_metadata_hashes_follow_a_change_of_the_metadata(mysql_family: Database) -> None:
    with mysql_family.open() as memory:
        for metadata in ({"a": 1, "b": "x"}, {"b": "x"}, None, {"a": 2}, {str(n): n for n in range(20)}, {"a": 1.0}):
            memory.store("k", "v", metadata)
            for condition in ({"a": 1}, {"a": 2}, {"b": "x"}, {"7": 7}):
                assert bool(answers(memory, None, condition, 1, 0, "")) == matches(parse_filter(condition), metadata)


@of_mysql
def test_a_row_without_metadata_hashes_is_found(mysql_family: Database) -> None:
    """By somebody who inserts through the mapped class, which has no columns for them."""
    with mysql_family.open() as memory:
        fill(memory, random.Random(1))
        insert_row(mysql_family, "k", {"n": 99})
        assert answers(memory, None, {"n": 99}, 5, 0, "") == [("k", 0.0)]


def insert_row(database: Database, key: str, metadata: Any) -> None:
    columns = "`key`, value, metadata, search_text, version, created_at, updated_at"
    values = f"'{key}', '1', '{json.dumps(metadata)}', 'qzk . ', 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)"
    with create_engine(database.url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO ltm_entries ({columns}) VALUES ({values})")


def test_long_texts_and_values_come_in_every_way_too(make: Make, path: Path) -> None:
    with make(path) as memory:
        for number in range(20):
            value = ["common", "x " * 6_000 if number % 3 else "", "y" * 12_000 if number % 5 else ""]
            memory.store(f"k{number:02}", value, {"kind": "often", "n": number})
        for search in product(("common", "x", "common -x"), FILTERS[:6], (1, 5), (0, 2, 25), ("", "k1")):
            assert answers(memory, *search) == expected(path, *search), search


def test_the_index_of_a_sqlite_without_json_functions_has_no_words_for_metadata(make: Make, path: Path) -> None:
    make(path).close()
    run(path, "DROP TABLE ltm_entries_fts", *(f"DROP TRIGGER ltm_entries_{name}" for name in ("inserted", "deleted")))
    run(path, "DROP TRIGGER ltm_entries_updated", *definitions("ltm_entries", has_json=False))
    with make(path) as memory:
        fill(memory, random.Random(3))
        agree(memory, path)
    assert "metadata" not in run(path, "SELECT sql FROM sqlite_master WHERE name = 'ltm_entries_fts'")[0][0]


def store_all(memory: LTMBackend, stored: Sequence[Any]) -> None:
    entries = ({"key": f"k{place:03}", "value": 0, "metadata": each} for place, each in enumerate(stored))
    assert memory.store_many(entries)["success"]


@pytest.mark.parametrize("levels", [0, 27])
def test_what_a_filter_asks_for_is_found_and_nothing_else(make: Make, path: Path, levels: int) -> None:
    stored = [nested(metadata, levels) for metadata in METADATA]
    with make(path) as memory:
        store_all(memory, stored)
        for condition in stored:
            if condition:
                search = (None, condition, 200, 0, "")
                assert answers(memory, *search) == expected(path, *search), condition


def instances(path: Path) -> set[Any]:
    """Return the words of the index, each with the row that has it."""
    found = run(
        path,
        "CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'ltm_entries_fts', 'instance')",
        "SELECT term, doc FROM temp.words",
    )
    return {*found}


def made_anew(path: Path, copy: Path) -> Path:
    """Return a file with the same rows in which nothing was ever changed or deleted."""
    SQLiteBackend(copy).close()
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("ATTACH ? AS other", (str(path),))
        columns = ", ".join(row[1] for row in connection.execute("PRAGMA table_info(ltm_entries)"))
        connection.execute(f"INSERT INTO ltm_entries ({columns}) SELECT {columns} FROM other.ltm_entries")
    return copy


def changes(chance: random.Random) -> Iterator[Sequence[Any]]:
    for _ in range(150):
        metadata = chance.choice((*METADATA[:-1], {"k": chance.choice("xyz"), "n": chance.randint(0, 3)}))
        yield f"k{chance.randint(0, 20)}", chance.choice(("red fox", "red hen")), metadata, chance.random() < 0.3


def test_changes_and_deletions_leave_nothing_in_the_index(make: Make, path: Path, tmp_path: Path) -> None:
    with make(path) as memory:
        for key, value, metadata, is_deleted in changes(random.Random(7)):
            assert (memory.delete(key) if is_deleted else memory.store(key, value, metadata))["success"]
    assert instances(path) == instances(made_anew(path, tmp_path / "anew.db"))


def test_a_change_of_the_metadata_alone_is_found(make: Make, path: Path) -> None:
    with make(path) as memory:
        memory.store("k", "fox", {"kind": True})
        memory.store("k", "fox", {"kind": False})
        assert memory.search(metadata_filter={"kind": False})["count"] == 1
        assert memory.search(metadata_filter={"kind": True})["count"] == 0


def test_metadata_that_is_no_json_stops_no_write(make: Make, path: Path) -> None:
    make(path).close()
    run(
        path,
        "INSERT INTO ltm_entries (key, value, metadata, search_text, version, created_at, updated_at) "
        "VALUES ('k', '1', '{', 'qzk . ', 1, '2020-01-01', '2020-01-01')",
        "UPDATE ltm_entries SET metadata = '{\"k\": 1}'",
        "UPDATE ltm_entries SET metadata = '[1'",
        "DELETE FROM ltm_entries",
    )
    assert instances(path) == set()


def test_the_index_cannot_be_rebuilt_and_so_not_lose_its_words(make: Make, path: Path) -> None:
    make(path).close()
    with pytest.raises(sqlite3.OperationalError, match="rebuild"):
        run(path, "INSERT INTO ltm_entries_fts (ltm_entries_fts) VALUES ('rebuild')")


def test_metadata_in_many_scripts_is_found(make: Make, path: Path) -> None:
    with make(path) as memory:
        store_all(memory, METADATA)
        for condition in ({"k": "é"}, {"k": "😀"}, {"é": 1}, {"k": "x" * 41}, {"k": -1}):
            assert answers(memory, None, condition, 200, 0, "") == expected(path, None, condition, 200, 0, "")
        assert memory.search(metadata_filter={"k": "日本"})["count"] == 1


@pytest.mark.parametrize(
    ("condition", "groups"),
    [
        ({"a": 1, "b": {"c": "x"}}, [[{"a": 1}], [{"b": {"c": "x"}}]]),
        ({"a": {"$in": [1, "x", True]}}, [[{"a": 1}, {"a": "x"}, {"a": True}]]),
        ({"a": {"$in": [1, None]}}, []),
        ({"a": {"$in": []}}, []),
        ({"a": {"$in": [*range(51)]}}, []),
        ({"a": 1.5}, []),
        ({"a": 2.0}, [[{"a": 2.0}]]),
        ({"a": None}, []),
        ({"a": [1]}, []),
        ({"a": {"$ne": 1}}, []),
        ({"$not": {"a": 1}}, []),
        ({"a": {"$gt": 1}, "b": 2}, [[{"b": 2}]]),
        ({"$or": [{"a": 1, "b": 2}, {"c": 3}]}, [[{"a": 1}, {"c": 3}]]),
        ({"$or": [{"a": 1}, {"c": {"$gt": 3}}]}, []),
        ({"$or": []}, []),
    ],
)
def test_what_an_index_can_look_up_of_a_filter(condition: dict[str, Any], groups: list[Any]) -> None:
    assert index_lookups(parse_filter(condition)) == groups


def test_filters_that_differ_in_texts_and_integers_have_one_statement() -> None:
    def shape(condition: dict[str, Any]) -> str:
        return repr(parameterize(parse_filter(condition))[0])

    assert shape({"a": "x", "b": 1}) == shape({"a": "y", "b": 2})
    assert len({shape({"a": value}) for value in ("x", 1, 1.0, True, None, 2**60, [1])}) == 7
    assert parameterize(parse_filter({"a": {"b": "x"}, "c": 1.5}))[1] == [(("a", "b"), "x")]
