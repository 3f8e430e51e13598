"""Reads of a range of keys: a namespace in a large memory answers as a memory of its own, whatever step answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, Final

import pytest

from databases import Database
from run_length import of_this_day
from the_edge_agent.memory import LTMBackend, SQLiteBackend
from the_edge_agent.memory.core.namespaces import Namespace, split_key
from the_edge_agent.memory.database import questions
from the_edge_agent.memory.database import search_plan as plan
from the_edge_agent.memory.database.search_plan import StepLimits
from the_edge_agent.testing.contract import assert_success

pytestmark = [pytest.mark.slow, pytest.mark.targets("native", "portable")]

# How many entries each namespace has. With the limits below, other steps answer in each of them.
SIZES: Final = {"none": 0, "few": 3, "some": 12, "many": 60}
LIMITS: Final = (StepLimits(4, 8), StepLimits(20, 30))
QUERIES: Final = (None, "common", "rare", "common rare", '"common word"', "-rare", "comm* -rare", "absent", "+word old")
FILTERS: Final[tuple[dict[str, Any] | None, ...]] = (
    None,
    {"kind": "often"},
    {"n": {"$gte": 7}},
    {"kind": "seldom", "n": {"$lt": 5}},
    {"kind": "absent"},
)
PAGES: Final = ((1, 0), (5, 0), (4, 3), (100, 0))  # limit and offset


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few entries be too many for a step."""
    for family in plan.STEP_LIMITS:
        monkeypatch.setitem(plan.STEP_LIMITS, family, LIMITS)
    monkeypatch.setattr(plan, "SORTED_WHOLE", LIMITS[0].matches)
    monkeypatch.setattr(plan, "RANK_WINDOW", 6)
    monkeypatch.setattr(questions, "SAMPLE", 10)


@pytest.fixture
def memory(database: Database, small_steps: None) -> Iterator[LTMBackend]:
    """A memory with namespaces of several sizes, whose entries were stored in turns."""
    chance = random.Random(5)
    with database.open(language="none") as opened:
        names = [name for name, size in SIZES.items() for _ in range(size)]
        chance.shuffle(names)
        entries = [entry_of(number, name) for number, name in enumerate(names)]
        entries += [{"key": f"@users/{number}x", "value": "common rare word"} for number in range(5)]
        while entries:
            batch = [entries.pop() for _ in range(min(len(entries), chance.choice((1, 3, 20))))]
            assert_success(opened.store_many(batch))
        yield opened


def entry_of(number: int, name: str) -> dict[str, Any]:
    words = ["common" if number % 2 else "other", "word", *(["rare"] if number % 17 == 0 else []), f"n{number}"]
    words += ["old"] if number < 20 else []
    metadata = {"kind": "seldom" if number % 11 == 0 else "often", "n": number % 15}
    return {
        "key": Namespace.of(("users", name)).full_key(f"{'ab'[number % 2]}{number}"),
        "value": " ".join(words),
        "metadata": metadata,
        "index": number % 13 > 0,
    }


@contextmanager
def copy_of(part: LTMBackend, *, nested: bool = False) -> Iterator[LTMBackend]:
    """Open a memory that has only the entries of this namespace."""
    with SQLiteBackend(language="none") as copy:
        assert_success(copy.import_entries(part.iterate_entries(nested=nested)))
        yield copy


@pytest.mark.parametrize("name", SIZES)
def test_searches_in_a_namespace_answer_as_a_memory_of_its_own(memory: LTMBackend, name: str) -> None:
    part = memory.namespace("users", name)
    with copy_of(part) as copy:
        searches = product(QUERIES, FILTERS, PAGES, ("any", "all"), (None, "a", "b1"))
        for query, condition, (limit, offset), match, prefix in of_this_day(searches, 100):
            options: Any = {"match": match, "prefix": prefix, "offset": offset}
            actual, expected = (each.search(query, condition, limit, **options) for each in (part, copy))
            assert actual == expected


def test_nested_searches_answer_as_a_memory_of_their_own(memory: LTMBackend) -> None:
    part = memory.namespace("users")
    with copy_of(part, nested=True) as copy:
        searches = product(QUERIES, FILTERS, PAGES, ("any", "all"))
        for query, condition, (limit, offset), match in of_this_day(searches, 60):
            options: Any = {"match": match, "offset": offset, "nested": True}
            actual, expected = (each.search(query, condition, limit, **options) for each in (part, copy))
            assert actual == expected


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("order", ["key", "-key", "newest"])
def test_pages_of_a_namespace_are_those_of_a_memory_of_its_own(memory: LTMBackend, name: str, order: Any) -> None:
    part = memory.namespace("users", name)
    with copy_of(part) as copy:
        for limit, prefix in product((1, 7, 100), (None, "a")):
            after: Any = None
            while True:
                page, expected = (each.entries(prefix, limit, after, order) for each in (part, copy))
                assert page == expected
                after = page["next"]
                if after is None:
                    break


def test_the_database_tells_keys_of_namespaces_as_python_does(database: Database) -> None:
    chance = random.Random(11)
    keys = {"@" + "".join(chance.choices("a/.%25EF\n", k=chance.randrange(1, 12))) for _ in range(600)}
    keys |= {"@a/" + "".join(chance.choices("a/.%2", k=chance.randrange(1, 9))) for _ in range(300)}
    with database.open() as memory:
        assert_success(memory.store_many([{"key": key, "value": 1} for key in sorted(keys)]))
        for names in (("a",), ("a", "a"), ("2",)):
            part = memory.namespace(*names)
            below = Namespace.of(names).key_range(nested=True)
            expected = sorted((split_key(key) for key in keys if key in below), key=str)
            found = [((*names, *each["namespace"]), each["key"]) for each in part.iterate_entries(nested=True)]
            assert sorted(found, key=str) == expected
            assert part.count(nested=True)["count"] == part.search(limit=1_000, nested=True)["count"] == len(expected)
        listed = memory.list_namespaces(limit=1_000)["namespaces"]
        assert sorted(listed) == sorted({names for names, _ in map(split_key, keys) if names})
