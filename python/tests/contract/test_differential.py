"""The differential test: the databases answer as the documentation says; a wrong answer is found and reported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

import broken_backends
import broken_copies
import broken_namespaces
from databases import Database, drop_tables
from memory_backend import MemoryBackend
from run_length import SEED, of_this_run
from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.testing import differential
from the_edge_agent.testing.differential import Place, run
from the_edge_agent.testing.differential.__main__ import main

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

LANGUAGES = ("english", "none", "french", "russian")  # that take turns, in the short form


class InProcess:
    """A place for the calls in a memory that ends with its object."""

    handles, lasts, language = 1, False, "none"

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def open(self, number: int) -> Any:
        return self._make()

    @contextmanager
    def opened(self) -> Iterator[list[Any]]:
        with closing(self.open(0)) as memory:
            yield [memory]


class LosesAStore(MemoryBackend):
    """Answers the third store of a key, and keeps the second."""

    def store(self, key: str, value: Any, *rest: Any, **options: Any) -> Any:
        before = self.retrieve(key)
        stored = super().store(key, value, *rest, **options)
        if stored["success"] and stored["version"] == 3:
            super().store(key, before["value"], before["metadata"])
        return stored


class ForgetsTheFilter(MemoryBackend):
    """Finds what the words say, whatever the filter."""

    def search(self, query: Any = None, metadata_filter: Any = None, *rest: Any, **options: Any) -> Any:
        checked = super().search(query, metadata_filter, *rest, **options)
        return super().search(query, None, *rest, **options) if checked["success"] else checked


class WantsEveryWord(MemoryBackend):
    """Finds by a question what has all of its words."""

    def search(self, *arguments: Any, **options: Any) -> Any:
        checked = super().search(*arguments, **options)
        return super().search(*arguments, **{**options, "match": "all"}) if checked["success"] else checked


FOUND = (
    LosesAStore,
    WantsEveryWord,
    ForgetsTheFilter,
    broken_backends.OrdersByKey,
    broken_backends.KeepsTheVersionOfWhatWasDeleted,
    broken_backends.FoldsTheCaseOfKeys,
    broken_backends.TakesTrueFor1,
    broken_backends.RoundsScores,
    broken_namespaces.SeesTheNamespacesBelow,
    broken_namespaces.TakesEveryKeyOfTheRangeForOneBelow,
    broken_namespaces.SearchesTheNames,
    broken_namespaces.OrdersNamespacesByTheirNames,
    broken_copies.OrdersTiesOfTheNewestBackwards,
    broken_copies.DeletesAnyVersion,
    broken_copies.MakesAVersionWithATouch,
    broken_copies.UpdatesWithATouch,
    broken_copies.IndexesEveryEntry,
    broken_copies.ForgetsWhenACopyWasCreated,
    broken_copies.ReplacesWhatItSkips,
)


@pytest.mark.targets("native", portable=False, in_memory=False)
def test_every_database_answers_as_the_documentation_says(database: Database) -> None:
    if database.target.server:
        drop_tables(engine := create_engine(database.url))  # a test before has left empty ones
        engine.dispose()
    turn = SEED + sum(database.target.name.encode())
    for language in of_this_run(LANGUAGES[turn % len(LANGUAGES) :][:1], LANGUAGES):
        options = {"language": language}
        place = Place(database.url, native=database.target.native, with_catalog=True, options=options)
        outcome = run(place, seed=SEED, operations=of_this_run(200, 10_000), with_catalog=True)
        assert outcome.difference is None, (language, outcome)


@pytest.mark.parametrize(
    ("name", "other"), [("A", "a"), ("é", "e"), ("x", "ẋ"), ("ß", "ss"), ("a ", "a"), ("a\u0301", "á")]
)
@pytest.mark.targets(portable=False, in_memory=False)
def test_names_that_a_collation_finds_equal_are_told_apart(name: str, other: str, database: Database) -> None:
    """MariaDB took the conditions for a contradiction; the differential test found that after 19,960 calls."""
    with database.open() as memory:
        memory.store("k", 1, {name: "Fox", other: False})
        for condition in ({"$ne": False}, {"$nin": [False, 0.0]}, {"$ne": "FOX"}, "Fox"):
            for further in (False, {"$ne": True}, {"$in": [1, False]}):
                found = memory.search(metadata_filter={"$and": [{name: condition}, {other: further}]})
                assert found["count"] == 1, (condition, further)
        both = {"$and": [{name: {"$ne": "FOX"}}, {name: "Fox"}, {name: {"$nin": ["fox", "fóx"]}}]}
        assert memory.search(metadata_filter=both)["count"] == 1


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///{}/without-catalog.db"])
def test_memories_without_a_catalog_and_in_memory_do_too(url: str, tmp_path: Path) -> None:
    outcome = run(Place(url.format(tmp_path)), seed=SEED, operations=of_this_run(200, 20_000))
    assert outcome.difference is None, outcome


def test_a_memory_without_a_fault_has_no_difference() -> None:
    assert run(InProcess(MemoryBackend), seed=1, operations=1_000).difference is None


@pytest.mark.parametrize("fault", FOUND, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_reported_with_few_calls(fault: Callable[[], Any]) -> None:
    seconds = (
        6 if fault.__name__ == "TakesTrueFor1" else 1
    )  # it is found late, so that each attempt to shorten takes long
    outcome = run(InProcess(fault), seed=1, operations=3_000, shortening=seconds)
    assert outcome.difference is not None, "no difference was found"
    assert len(outcome.difference.calls) < max(outcome.operations, 30)
    assert f"a difference at operation {outcome.operations}, seed 1: " in str(outcome)


def test_the_same_seed_makes_the_same_calls() -> None:
    first, second = (run(InProcess(ForgetsTheFilter), seed=3, operations=500, shortening=0) for _ in range(2))
    assert first.operations == second.operations
    assert first.difference is not None
    assert second.difference is not None
    assert [*map(str, first.difference.calls)] == [*map(str, second.difference.calls)]


def test_tables_of_its_own_are_dropped_and_others_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with SQLAlchemyBackend(url) as memory:
        memory.store("mine", 1)
        assert main(["--url", url, "--operations", "100", "--seed", "1"]) == 0
        assert memory.list_keys()["keys"] == ["mine"]
    assert not [name for name in tables(url) if name.startswith("tea_")]


def tables(url: str) -> list[str]:
    engine = create_engine(url)
    names = inspect(engine).get_table_names()
    engine.dispose()
    return names


@pytest.mark.parametrize("option", ["--native", "--catalog"])
def test_a_database_with_tables_of_a_memory_is_refused_where_names_are_fixed(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    SQLAlchemyBackend(url).close()
    assert main(["--url", url, option]) == 2
    assert "configuration_error: the database has tables of a memory already (ltm_" in capsys.readouterr().err


def test_a_file_that_was_not_there_is_removed(tmp_path: Path) -> None:
    assert main(["--url", f"sqlite:///{tmp_path / 'new.db'}", "--native", "--catalog", "--operations", "50"]) == 0
    assert [*tmp_path.iterdir()] == []


def test_the_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "postgresql://user:s3cret@127.0.0.1:1/agents", "--operations", "10"]) == 2
    said = capsys.readouterr()
    assert "connection_error" in said.err
    assert "s3cret" not in said.out + said.err


def test_engines_and_options_are_taken_from_the_command_line(tmp_path: Path) -> None:
    url, engine = f"sqlite:///{tmp_path / 'engine.db'}", '{"poolclass": "NullPool", "connect_args": {"timeout": 5}}'
    assert main(["--url", url, "--engine", engine, "--options", '{"search": true}', "--operations", "50"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["--url", url, "--options", "[]"])


def test_it_needs_no_pytest() -> None:
    program = "import sys, the_edge_agent.testing.differential; assert not {'pytest', 'hypothesis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_model_shares_no_rules_with_the_memories() -> None:
    """What it takes from the package opens the memories and tells their failures."""
    folder = Path(differential.__file__).parent
    taken = {
        line.split()[1]
        for path in folder.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("from the_edge_agent.memory")
    }
    assert taken == {
        "the_edge_agent.memory",
        "the_edge_agent.memory.sql.schema.create",
        "the_edge_agent.memory.sql.driver.url",
    }
