"""Writes ``docs/contract_table.md`` from a run of the contract on all databases, and checks that it is not stale.

A table with a line for each rule goes into ``build``.

python tests/support/contract_table.py write      # needs all servers; `make table` starts them
python tests/support/contract_table.py check      # compares rules and targets of a page; needs no server
"""

from __future__ import annotations

import inspect
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy

from contract_markdown import COMMAND, Area, Table, counts_of, page_of, whole
from databases import ALL_TARGETS, CHOICE, COMPILED, VARIABLES, Databases, Target, chosen_targets
from the_edge_agent.memory import check_database
from the_edge_agent.testing import CatalogContract, LTMContract

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = TESTS.parents[1] / "docs" / "contract_table.md"
WHOLE: Final = TESTS.parents[1] / "build" / "contract_table.md"  # git ignores it
FILES: Final = ("tests/contract/test_ltm_contract.py", "tests/contract/test_catalog_contract.py")
SUITES: Final = (LTMContract, CatalogContract)
NAMES: Final = tuple(target.name for target in ALL_TARGETS if not target.pooler)  # poolers are not databases


class TableError(Exception):
    """The table cannot be written, or is stale."""


@dataclass(frozen=True)
class Place:
    """A cell of the table."""

    area: str
    rule: str
    target: str


@dataclass
class Collected:
    """A plugin of pytest that records which test belongs to which cell, and why some cells have no test."""

    tests: dict[str, Place] = field(default_factory=dict)
    reasons: dict[Place, str] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if place := _place_of(item):
                self.tests[item.nodeid] = place
                self._record_reason_for_similar_targets(item, place)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            if place := _place_of(item):
                left_out: Mapping[str, str] = getattr(getattr(item, "cls", None), "leaves_out", {})
                reasons = [left_out[name] for name in getattr(item, "fixturenames", ()) if name in left_out]
                self.reasons[place] = "; ".join(reasons)

    def _record_reason_for_similar_targets(self, item: pytest.Item, place: Place) -> None:
        if reason := getattr(getattr(item, "cls", None), "not_on_the_others", None):
            kind = _kind(next(target for target in ALL_TARGETS if target.name == place.target))
            for target in ALL_TARGETS:
                if _kind(target) == kind:
                    self.reasons.setdefault(Place(place.area, place.rule, target.name), reason)


@dataclass
class Outcomes:
    """A plugin of pytest that records the result of each test."""

    failed: dict[str, str] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    limits: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and hasattr(report, "wasxfail"):
            self.limits[report.nodeid] = report.wasxfail.removeprefix("reason: ") or "an expected failure"
        elif not report.passed:
            self.failed[report.nodeid] = report.outcome
        elif report.when == "call":
            self.passed.add(report.nodeid)


def collect() -> tuple[Table, Collected]:
    """Return the table as if all tests had passed, with the reasons of the cells that have no test."""
    collected = Collected()
    before = dict(os.environ)
    os.environ.update({name: before.get(name) or "no-server" for name in VARIABLES})
    os.environ[CHOICE] = ",".join(installed := _installed())
    try:
        code = pytest.main(["--collect-only", "-qq", "--no-summary", *FILES], plugins=[collected])
    finally:
        os.environ.clear()
        os.environ.update(before)
    if code != pytest.ExitCode.OK:
        raise TableError("the contract could not be collected")
    with_a_test = set(collected.tests.values())
    table = Table(NAMES)
    for area, about, rule in _rules():
        cells = table.areas.setdefault(area, Area(about)).rules.setdefault(rule, {})
        for name in NAMES:
            place = Place(area, rule, name)
            cells[name] = None
            if place in with_a_test or name not in installed:
                continue
            cells[name] = collected.reasons.get(place)
            if not cells[name]:
                raise TableError(f"{area}, {rule!r}: no test on {name}, and no class of the tests says why")
    return table, collected


def write(arguments: Sequence[str]) -> None:
    """Run the contract on all databases and write the page.

    Raises:
        TableError: something failed, was skipped or did not run.
    """
    os.environ.pop(CHOICE, None)
    missing = {target for target in ALL_TARGETS if target.name in NAMES} - set(chosen_targets())
    if absent := sorted(target.name for target in missing if target.module not in COMPILED):
        raise TableError(f"not all databases are available: {', '.join(absent)}")
    table, collected = collect()
    outcomes = Outcomes()
    os.environ[CHOICE] = ",".join(_installed())  # if a target is named, all of its tests run
    pytest.main([*arguments, *FILES], plugins=[outcomes])
    not_run = collected.tests.keys() - outcomes.passed - outcomes.limits.keys()
    if not_passed := sorted(not_run | (outcomes.failed.keys() & collected.tests.keys())):
        raise TableError("not written, because these did not pass:\n" + "\n".join(not_passed))
    for test, reason in outcomes.limits.items():
        if place := collected.tests.get(test):
            table.areas[place.area].rules[place.rule][place.target] = " ".join(reason.split())
    for target in missing:
        for area in table.areas.values():
            for cells in area.rules.values():
                cells[target.name] = f"{target.module}, which has to be compiled, was not installed"
    table.versions = _versions()
    WHOLE.parent.mkdir(exist_ok=True)
    for path, text in ((PAGE, page_of(table)), (WHOLE, whole(table))):
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")


def check(path: Path, expected: Table) -> None:
    """Compare a page with the table that ``collect`` returns.

    Fewer rules may have passed than there are tests, because a run may have shown a limit of a database.

    Raises:
        TableError: areas, rules or targets differ, or the page says that more rules passed than there are.
    """
    actual, required = (counts_of(page) for page in (path.read_text(encoding="utf-8"), page_of(expected)))
    problems = [f"area {name}" for name in actual.keys() ^ required.keys()]
    for name in actual.keys() & required.keys():
        problems += [f"{name}: column {column}" for column in actual[name].keys() ^ required[name].keys()]
        if actual[name]["rules"] != required[name]["rules"]:
            problems.append(f"{name}: {required[name]['rules']} rules")
        for column in actual[name].keys() & required[name].keys():
            if actual[name][column] > required[name][column]:
                problems.append(f"{name}: on {column} {required[name][column]} at the most")
    if problems:
        shown = "\n".join(sorted(problems)[:20])
        raise TableError(f"{path.name} is stale: run `{COMMAND}`. {len(problems)} differences, such as\n{shown}")


def _rules() -> list[tuple[str, str, str]]:
    """Return the area, its description, and the rule of each rule, in the order of the suites."""
    rules = []
    for suite in SUITES:
        for part in suite.__mro__:
            for name in vars(part):
                if name.startswith("test_"):
                    rules.append(
                        (_area_of(part), inspect.cleandoc(part.__doc__ or "").splitlines()[0], _in_words(name))
                    )
    return rules


def _place_of(item: pytest.Item) -> Place | None:
    """Return the cell of a test; None if the test is not a rule of the contract, or runs on none of our targets."""
    target = item.callspec.params.get("target") if hasattr(item, "callspec") else None
    if not isinstance(item, pytest.Function) or not isinstance(target, Target):
        return None
    part = next(base for base in item.cls.__mro__ if item.originalname in vars(base))
    if not any(part in suite.__mro__ for suite in SUITES):
        return None
    return Place(_area_of(part), _in_words(item.originalname), target.name)


def _area_of(part: type[Any]) -> str:
    module = part.__module__.rpartition(".")[2]
    name = module.removeprefix("catalog_")
    return f"{'Memory' if name == module else 'Catalog'}: {name.replace('_', ' ')}"


def _kind(target: Target) -> tuple[bool, bool]:
    return target.portable, target.native


def _in_words(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _installed() -> list[str]:
    """Return the names of the targets whose modules are installed, whether or not their servers are available."""
    targets = chosen_targets(dict.fromkeys(VARIABLES, "no-server"))
    return [target.name for target in targets if target.name in NAMES]


def _versions() -> list[str]:
    """Return the versions of Python, SQLAlchemy, and of each database and driver, as the databases report them."""
    lines = [f"Python {platform.python_version()}, SQLAlchemy {sqlalchemy.__version__}"]
    databases = Databases()
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen_targets():
            if target.native or target.portable or target.in_memory:
                continue  # another target has the same database
            target_folder = Path(folder, target.name)
            target_folder.mkdir()
            url = databases.empty(target, target_folder).url
            facts = check_database(url)
            lines.append(f"{target.name}: {facts['server']} {facts['server_version']}, driver {facts['driver']}")
    databases.drop()
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    os.chdir(TESTS.parent)
    try:
        match arguments:
            case ["write", *others]:
                write(others)
            case ["check", *pages]:
                expected = collect()[0]
                for page in pages or [str(PAGE)]:
                    check(Path(page), expected)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except TableError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
