"""The main promise: the same 10,000 entries give byte-equal answers on every database, in a new process too."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
from collections.abc import Iterator
from typing import Any, Final

import pytest

from databases import SERVERS, Database, Opener
from run_length import of_this_day, of_this_run
from the_edge_agent.memory import LTMBackend
from the_edge_agent.memory.core.damage import TIMES
from the_edge_agent.memory.core.query import MATCHES

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

ENTRIES: Final = of_this_run(4_000, 10_000)
IN_A_FRESH_PROCESS: Final = of_this_day(("sqlite", *SERVERS), 1)
PER_TRANSACTION: Final = 250  # entries of one transaction share their time: ties
SEED: Final = 20240229

WORDS: Final = (
    *("fox", "hound", "naïve", "Straße", "émigré", "日本語", "東京", "東京都", "記憶", "ความจำ", "한국어", "память"),
    *("😀", "👩\u200d🚀", "foo-bar", "user@example.com", "a_b", "the", "and", "3.14", "42"),
)
NUMBERS: Final = (
    0,
    1,
    -1,
    1.0,
    -0.0,
    0.1,
    2**53,
    2**53 + 1,
    float(2**53),
    2**63 - 1,
    -(2**63),
    1e22,
    1e-7,
    True,
    False,
)
QUERIES: Final = (
    *(
        "fox",
        "fox hound",
        '"fox hound"',
        "fo*",
        "-fox",
        "fox -hound",
        "naive",
        "strasse",
        "日本",
        "京",
        "東京 記憶",
        "😀",
    ),
    *("user@example.com", "foo-bar", "AND", "память", "한국어", "ความ", "3.14", "!!!", "the and -日本", '"東京都" fox'),
)
FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {"n": 1},
    {"n": True},
    {"n": 2**53 + 1},
    {"n": {"$gt": 0.5, "$lte": 2**53}},
    {"n": {"$in": [0, "0", None]}},
    {"n": None},
    {"s": {"$gte": "日", "$lt": "😀"}},
    {"o": {"k": 3}},
    {"o": {}},
    {"l": [1, 2.0]},
    {"o": {"$eq": {"k": 3}}},
    {"$or": [{"n": {"$lt": 0}}, {"$not": {"s": {"$exists": True}}}]},
    {"s": {"$nin": ["fox", None]}, "n": {"$ne": 0}},
)


def entries() -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
    chance = random.Random(SEED)
    for number in range(ENTRIES):
        text = " ".join(chance.choices(WORDS, k=chance.randint(1, 12)))
        key = f"{chance.choice(['a', 'A', 'é', '日', '😀', 'b%', 'b_'])}/{number * 7919 % ENTRIES}"
        value: Any = chance.choice([text, {"text": text, "n": chance.choice(NUMBERS)}, [text, None, {"深": text}]])
        yield key, value, metadata(chance)


def metadata(chance: random.Random) -> dict[str, Any] | None:
    kind = chance.random()
    if kind < 0.1:
        return None if kind < 0.05 else {}
    fields: dict[str, Any] = {"n": chance.choice((*NUMBERS, None, "0"))}
    if kind < 0.7:
        fields["s"] = chance.choice(WORDS)
    if kind < 0.4:
        fields["o"] = {"k": chance.randint(1, 5)} if kind < 0.3 else [1, 2]
        fields["l"] = [1, chance.choice([2, 3, "2"])]
    return fields


def load(backend: LTMBackend) -> None:
    waiting = list(entries())
    for start in range(0, ENTRIES, PER_TRANSACTION):
        with backend.transaction() as transaction:
            for key, value, meta in waiting[start : start + PER_TRANSACTION]:
                assert transaction.store(key, value, meta)["success"]


def answers(backend: LTMBackend) -> dict[str, str]:
    """Return a digest of each read method's answers."""
    keys = [key for key, _, _ in entries()]
    searches = [backend.search(query, limit=50) for query in QUERIES]
    searches += [backend.search(query, limit=20, offset=990) for query in QUERIES]
    searches += [backend.search(None, condition, limit=50) for condition in FILTERS]
    searches += [backend.search("fox", condition, 30, prefix="日/") for condition in FILTERS]
    searches += [backend.search(prefix=prefix, limit=40, offset=7) for prefix in ("b%", "b_", "a/", "A/", "é", "😀")]
    assert all(result["success"] for result in searches)
    without_times = [[{**entry, **dict.fromkeys(TIMES)} for entry in result["results"]] for result in searches]
    return {
        "searches that found something": str(sum(result["count"] > 0 for result in searches)),
        "search": digest(without_times),
        "retrieve": digest([backend.retrieve(key) for key in keys[::5]] + [backend.retrieve("missing", 1.0)]),
        "iterate_all": digest(list(backend.iterate_all())),
        "iterate_all with a prefix": digest(list(backend.iterate_all("日/"))),
    }


def digest(answer: Any) -> str:
    return hashlib.sha256(json.dumps(answer).encode()).hexdigest()


def answers_in_this_process(open_backend: Opener, results: Any) -> None:
    with open_backend() as backend:
        results.put(answers(backend))


def answers_in_a_fresh_process(open_backend: Opener) -> dict[str, str]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=answers_in_this_process, args=(open_backend, results))
    process.start()
    digests: dict[str, str] = results.get(timeout=300)
    process.join()
    return digests


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """The answers of the embedded default."""
    from the_edge_agent.memory import SQLAlchemyBackend

    with SQLAlchemyBackend("sqlite://") as backend:
        load(backend)
        return answers(backend)


@pytest.mark.targets(in_memory=False, portable=False)
def test_every_database_answers_the_same(database: Database, expected: dict[str, str]) -> None:
    with database.open() as backend:
        load(backend)
        assert answers(backend) == expected
    if database.target.family in IN_A_FRESH_PROCESS:
        assert answers_in_a_fresh_process(database.open) == expected
    assert int(expected["searches that found something"]) > 50


def negated(condition: dict[str, Any], times: int) -> dict[str, Any]:
    for _ in range(times):
        condition = {"$not": condition}
    return condition


@pytest.mark.targets("native")
@pytest.mark.parametrize("query", ["fox", None])
def test_the_largest_filters_and_pages_that_are_allowed(database: Database, query: str | None) -> None:
    with database.open() as backend:
        keys = {f"k{number}": str(number) for number in range(1_100)}
        assert backend.store("k", "fox", {"a": 1, "s": "x", **keys})["success"]
        for times in (20, 32, 33, 37, 38, 58, 59):
            assert backend.search(query, negated({"a": 1}, times))["count"] == (times + 1) % 2
        for condition in ({"a": 1}, {"s": "x"}, {"$or": [{"s": "x"}, {"a": {"$gt": 5}}]}):
            assert backend.search(query, {"$and": [condition] * 2_000})["count"] == 1
        assert backend.search(query, keys)["count"] == 1
        for offset in (2**31 - 11, 2**31 - 1):
            for match in MATCHES:
                result = backend.search(query, match=match, offset=offset, limit=11)
                assert result == {"success": True, "results": [], "count": 0}


@pytest.mark.targets("native", portable=False)
def test_of_two_wrong_arguments_all_name_the_same_one(database: Database) -> None:
    with database.open(lazy=True) as backend:
        assert "limit" in backend.search("x", limit=0, offset=-1)["error"]
        assert "query" in backend.search(5, {"$no": 1}, limit=0, prefix=5, offset=-1)["error"]
