"""The benchmarks: contenders agree, a wrong answer stops the run, numbers become tables. No test checks times."""

from __future__ import annotations

import gc
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import goals, timing
from benchmarks.__main__ import main, run
from benchmarks.agreement import DisagreementError, check
from benchmarks.arena import fill, opened
from benchmarks.bare_sqlite import BareSQLite
from benchmarks.contenders import BARE, CONTENDERS, Contender, of_database
from benchmarks.forms import Form
from benchmarks.markdown import number, page
from benchmarks.operations import NAMES
from benchmarks.ours import OursOnSQLAlchemy, OursOnSQLite
from benchmarks.peak import METHODS
from benchmarks.player import Content, Player, Row, Scored
from benchmarks.results import Results, read
from benchmarks.workload import Entry, Workload
from run_length import of_this_day, of_this_run

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

TINY = Form("tiny", 1_000, 0.001, 1, 1, 100, (1_000, 2_000), 0.001)
OURS = {"SQLAlchemyBackend", "SQLiteBackend"}
LEFT_OUT = of_this_run(("peer", "variant"), ("peer",))
VARIANTS = set() if "variant" in LEFT_OUT else {f"{name}, search=False" for name in OURS}
RESULTS = Results(
    "tiny",
    {"Python": "3.13"},
    rates={
        "sqlite": {
            "get": {BARE: 100_000.0, "SQLAlchemyBackend": 64_000.0, "SQLiteBackend": 66_000.0, "diskcache": 9.0},
            "update": {BARE: 50.0, "SQLAlchemyBackend": 25.0},
        }
    },
    growth={"sqlite": {"get": {BARE: [90.0, 10.0], "SQLiteBackend": [15.0, 10.0], "SQLAlchemyBackend": [16.0, 10.0]}}},
    sizes=[10_000, 1_000_000],
    starts={"sqlite": {"SQLiteBackend, lazy": {"import": 80.0, "open": 0.1, "first call": 31.0}}},
    peaks={"sqlite": {"scan": {BARE: 0.5, "SQLiteBackend": 2.25}}},
)


def few_contenders() -> list[Contender]:
    return [each for each in of_database("sqlite") if each.kind not in LEFT_OUT]


def able(operation: str) -> set[str]:
    """Return who can do an operation: without a text index nobody looks for words, and questions are asked of ours."""
    if operation == "question":
        return OURS
    return {BARE, *OURS} | (set() if operation.startswith("search") else VARIANTS)


@pytest.fixture
def some_contenders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("benchmarks.__main__.of_database", lambda database: few_contenders())
    yield
    gc.unfreeze()


def test_each_operation_is_measured_on_every_contender(some_contenders: None) -> None:
    names = [name for name in NAMES if name != "mixed_processes"]
    results = run(TINY, ["sqlite"], names, ["operations"])
    assert list(results.rates["sqlite"]) == names
    for name, rates in results.rates["sqlite"].items():
        assert set(rates) == able(name)
    assert all(rate > 0 for rates in results.rates["sqlite"].values() for rate in rates.values())


def test_the_growth_curve_has_a_rate_for_each_size(some_contenders: None) -> None:
    results = run(TINY, ["sqlite"], ["get", "scan", "put", "track", "mixed_threads"], ["growth"])
    assert set(results.growth["sqlite"]) == {"get", "scan", "put"}
    for rates in results.growth["sqlite"].values():
        assert {name: len(found) for name, found in rates.items()} == dict.fromkeys((BARE, *OURS), len(TINY.growth))


def test_processes_start_ups_and_peaks_are_measured(some_contenders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {name: METHODS[name] for name in of_this_day(METHODS, 1)}
    monkeypatch.setattr("benchmarks.peak.METHODS", methods)
    results = run(TINY, ["sqlite"], ["mixed_processes", *methods], ["operations", "starts", "peaks"])
    assert set(results.rates["sqlite"]["mixed_processes"]) == able("mixed_processes")
    assert {f"{name}, {kind}" for name in OURS for kind in ("lazy", "eager")} < set(results.starts["sqlite"])
    assert {name: set(found) for name, found in results.peaks["sqlite"].items()} == {
        name: able(name) for name in methods
    }


def test_a_measurement_leaves_as_many_entries_as_before(tmp_path: Path) -> None:
    with opened(TINY, few_contenders(), tmp_path) as arena:
        arena.fill()
        arena.rates(["put", "update", "put_many", "mixed_threads"])
        for contender, place in arena.places.items():
            player = contender.load()(place)
            assert sum(1 for _ in player.scan()) == TINY.size
            player.close()


class SearchLosesOne(BareSQLite):
    def search(self, word: str) -> list[Scored]:
        return super().search(word)[:9]


class FilterOldestFirst(BareSQLite):
    def filter(self, name: str, value: str) -> list[Row]:
        return super().filter(name, value)[::-1]


class GetForgetsMetadata(BareSQLite):
    def get(self, key: str) -> Content | None:
        found = super().get(key)
        return found and (found[0], {})


class PageRepeatsTheLastKey(BareSQLite):
    def list_keys(self, after: str, limit: int) -> list[str]:
        return [after, *super().list_keys(after, limit - 1)]


class ScanSkips(BareSQLite):
    def scan(self) -> Iterator[Row]:
        return (row for row in super().scan() if not row[0].endswith("7"))


class BatchIsCut(BareSQLite):
    def put_many(self, entries: Sequence[Entry]) -> int:
        return super().put_many(entries[:499]) + len(entries[499:])


class NoVersions(BareSQLite):
    def put(self, entry: Entry) -> int:
        return super().put(entry) * 0 + 1


class SeesNoChange(BareSQLite):
    def changes(self, snapshot: str) -> list[str]:
        return []


BROKEN = (
    SearchLosesOne,
    FilterOldestFirst,
    GetForgetsMetadata,
    PageRepeatsTheLastKey,
    ScanSkips,
    BatchIsCut,
    NoVersions,
    SeesNoChange,
)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_contender_that_answers_differently_fails_the_run(tmp_path: Path, broken: type[Player]) -> None:
    workload = Workload(1_000)
    players: dict[str, Player] = {"ours": OursOnSQLAlchemy(str(tmp_path / "a")), "broken": broken(str(tmp_path / "b"))}
    for player in players.values():
        fill(player, workload)
    with pytest.raises(DisagreementError, match="broken"):
        check(players, workload)
    for player in players.values():
        player.close()


def test_the_bare_driver_keeps_our_columns_and_indexes(tmp_path: Path) -> None:
    schemas = []
    for player in (BareSQLite(str(tmp_path / "bare")), OursOnSQLite(str(tmp_path / "ours"))):
        player.close()
    for name in ("bare", "ours"):
        connection = sqlite3.connect(tmp_path / name)
        found: dict[str, Any] = {"triggers": connection.execute("SELECT name FROM sqlite_master ORDER BY 1").fetchall()}
        for table in ("ltm_entries", "ltm_catalog", "ltm_snapshots", "ltm_snapshot_entries"):
            found[table] = connection.execute(f"SELECT * FROM pragma_table_xinfo('{table}')").fetchall()
        index = "SELECT sql FROM sqlite_master WHERE name = 'ltm_entries_fts'"
        found["index"] = "".join(connection.execute(index).fetchone()[0].split())
        connection.close()
        schemas.append(found)
    bare, ours = schemas
    ours["triggers"] = [row for row in ours["triggers"] if not re.search("schema_version|settings", row[0])]
    assert bare == ours


def test_the_workload_has_what_its_questions_ask_for() -> None:
    workload = Workload(2_000)
    entries = [workload.entry(number) for number in range(workload.size)]
    assert {workload.number(place) for place in range(workload.size)} == {*range(workload.size)}
    assert sum(entry.metadata["kind"] == workload.kind(77) for entry in entries) == 20
    assert sum(entry.metadata["group"] == workload.group(1_077) for entry in entries) == 10
    assert sum(workload.rare_word(77) in entry.value["text"].split() for entry in entries) == 1
    question = workload.question(77).split()
    having = [sum(word in entry.value["text"].split() for entry in entries) for word in question]
    assert [round(count, -1) for count in having[:3]] == [670, 670, 670]
    assert having[3:] == [20, 20, 10, 10, 10]
    assert sum("harbour" in entry.value["text"].split() for entry in entries) == 1_000
    assert Workload(2_000).entry(5, edition=3) == workload.entry(5, edition=3) != workload.entry(5)


def test_contenders_are_measured_in_turn_and_the_first_is_another_each_time() -> None:
    order: list[tuple[str, int]] = []

    def measure(who: str, repetition: int) -> tuple[float, float]:
        order.append((who, repetition))
        return float(len(order)), 0.0

    rates = timing.interleaved(["a", "b", "c"], measure, 3, 1.0)
    assert "".join(who for who, _ in order) == "abcbcacab"
    assert timing.medians(rates) == {"a": 6.0, "b": 4.0, "c": 5.0}


def test_who_needs_far_longer_than_a_slice_is_measured_once() -> None:
    rates = timing.interleaved(["slow", "fast"], lambda who, _: (1.0, 9.0 if who == "slow" else 1.0), 3, 1.0)
    assert {who: len(found) for who, found in rates.items()} == {"slow": 1, "fast": 3}


def test_ratios_are_to_the_bare_driver() -> None:
    assert timing.ratios({BARE: 200.0, "ours": 150.0}, BARE) == {BARE: 1.0, "ours": 0.75}
    assert timing.ratios({"ours": 150.0}, BARE) == {}


@pytest.mark.parametrize(
    ("database", "operation", "goal"),
    [
        ("sqlite", "get", 0.65),
        ("postgresql", "search_common", 0.9),
        ("mysql", "scan", 0.5),
        ("mysql", "update", None),
    ],
)
def test_goals(database: str, operation: str, goal: float | None) -> None:
    assert goals.ratio(database, operation) == goal


@pytest.mark.parametrize(
    "row",
    [
        "| get, entries | 0.65 | 100,000 | 64,000 (0.64) ▼ | 66,000 (0.66) | 9.00 (0.00) |",
        "| update, entries | – | 50.0 | 25.0 (0.50) | – | – |",
        "| get: bare driver | 90.0 | 10.0 | 9.00 | 1.5 |",
        "| get: SQLiteBackend | 15.0 | 10.0 | 1.50 | 1.5 |",
        "| get: SQLAlchemyBackend | 16.0 | 10.0 | 1.60 ▼ | 1.5 |",
        "| SQLite: SQLiteBackend, lazy | 80.0 | 0.1 | 31.0 (goal 30) ▼ |",
        "| scan | 0.5 | 2.2 |",
    ],
)
def test_the_page_shows_ratios_beside_goals(row: str) -> None:
    assert row in page(RESULTS, chart="benchmarks.svg").splitlines()


def test_the_page_names_its_chart_and_how_to_make_it_anew() -> None:
    text = page(RESULTS, chart="benchmarks.svg")
    assert "](benchmarks.svg)" in text
    assert "`make bench` writes it anew" in text
    assert "](" not in page(RESULTS, chart=None)


@pytest.mark.parametrize(("value", "text"), [(123_456.0, "123,000"), (99.94, "99.9"), (1.239, "1.24"), (0.0, "0.00")])
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    RESULTS.write(tmp_path / "results.json")
    assert read(tmp_path / "results.json") == RESULTS


@pytest.mark.parametrize("arguments", [["--only", "oracle"], ["--operations", "get,sing"], ["--parts", "all"]])
def test_what_is_unknown_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "unknown: " in capsys.readouterr().err


def test_every_database_has_a_bare_driver_that_comes_first() -> None:
    for database in {each.database for each in CONTENDERS}:
        first, *others = (each.kind for each in CONTENDERS if each.database == database)
        assert first == "bare"
        assert "ours" in others
        assert "bare" not in others
