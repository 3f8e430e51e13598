"""The contract suite finds faults: each broken backend fails the rule that is named for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, TypeAlias

import pytest

import broken_backends
import broken_copies
import broken_lifetimes
import broken_measures
import broken_namespaces
import broken_races
import broken_stats
import broken_writes
from broken_backends import FAULTS
from memory_backend import MemoryBackend
from the_edge_agent.memory import LTMBackend
from the_edge_agent.testing import LTMContract
from the_edge_agent.testing.contract import OpenBackend

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

# Importing one registers its faults.
MODULES = (
    broken_backends,
    broken_writes,
    broken_lifetimes,
    broken_namespaces,
    broken_copies,
    broken_races,
    broken_stats,
    broken_measures,
)

Outcome: TypeAlias = tuple[str, ...]
"""The test, its phase, passed or failed, the type of the error, and how it ended."""

TESTS = Path(__file__).parents[1]
SUITE = """
from test_contract_kit import suites

globals().update(suites())
"""
RECORDER = """
import json, pathlib, pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" or not report.passed:
        error = call.excinfo and call.excinfo.typename
        ending = str(report.longrepr)[-2000:]
        record = [item.cls.__name__, item.originalname, report.when, report.outcome, error, ending]
        with pathlib.Path("outcomes").open("a") as file:
            file.write(json.dumps(record) + chr(10))
    return report
"""


class OfOneClass(LTMContract):
    """The suite on the backend in memory that a subclass names."""

    shared_by_processes: ClassVar[bool] = False
    backend_class: ClassVar[type[LTMBackend]]

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        return self.backend_class


def suites() -> dict[str, type[LTMContract]]:
    """Return a contract class for each broken backend with its one rule, and one for the sound backend with all."""
    broken = [_suite(backend, {test}) for backend, test in FAULTS.items()]
    return {suite.__name__: suite for suite in (*broken, _suite(MemoryBackend, {*FAULTS.values()}))}


def _suite(backend: type[LTMBackend], tests: set[str]) -> type[LTMContract]:
    unwanted = {name: None for name in dir(LTMContract) if name.startswith("test_") and name not in tests}
    return type(f"Test{backend.__name__}", (OfOneClass,), {**unwanted, "backend_class": backend})


def outcomes(folder: Path) -> dict[str, list[Outcome]]:
    """Run all suites in one process of their own; return what came out of the tests of each."""
    (folder / "test_suites.py").write_text(SUITE)
    (folder / "conftest.py").write_text(RECORDER)
    run_pytest(folder, expected=1)
    found: dict[str, list[Outcome]] = {}
    for line in (folder / "outcomes").read_text().splitlines():
        suite, *outcome = json.loads(line)
        found.setdefault(suite, []).append(tuple(outcome))
    return found


def run_pytest(folder: Path, *options: str, expected: int) -> str:
    """Run the tests of a folder in a process of their own, which must end with this code; return what it prints."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\nmarkers =\n slow\n highest_versions\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-rs", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    before = filter(None, [environment.get("PYTHONPATH")])
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(TESTS / "support"), str(TESTS / "contract"), *before])
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=900)
    printed = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == expected, printed[-5000:]
    return printed


def fails_by_assertion(results: list[Outcome], test: str) -> bool:
    """Return whether the rule, in at least one of its cases, was run and found wrong; and nothing else happened."""
    failures = [outcome for outcome in results if outcome[2] != "passed"]
    wrong = [(test, "call", "failed", error) for error in ("AssertionError", "Failed")]  # this one of pytest.raises
    return bool(failures) and all(outcome[:4] in wrong for outcome in failures)


def test_each_broken_backend_fails_the_rule_that_is_named_for_it_and_a_sound_one_passes_them(tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    wrong = {
        backend.__name__: found.get(f"Test{backend.__name__}")
        for backend, test in FAULTS.items()
        if not fails_by_assertion(found.get(f"Test{backend.__name__}", []), test)
    }
    assert wrong == {}
    sound = found["TestMemoryBackend"]
    assert [outcome for outcome in sound if outcome[1:3] != ("call", "passed")] == []
    assert {test for test, *_ in sound} == {*FAULTS.values()}


def test_there_are_faults_of_every_kind() -> None:
    assert len(FAULTS) >= 24
    rules = {cls.__name__ for test in FAULTS.values() for cls in LTMContract.__mro__ if test in vars(cls)}
    assert {"BatchRules", "ManyKeysRules", "ListingRules", "ExpiryRules", "CleanupRules", "VersionRules"} <= rules
    assert {
        "NamespaceRules",
        "NamespaceListRules",
        "PageRules",
        "TouchRules",
        "IndexRules",
        "ImportRules",
        "MeasureRules",
    } <= rules
    assert {backend.__module__ for backend in FAULTS} == {module.__name__ for module in MODULES}


def test_the_backend_in_the_documentation_keeps_the_contract(tmp_path: Path) -> None:
    page = (TESTS.parents[1] / "docs" / "your-own-backend.md").read_text(encoding="utf-8")
    backend, contract, safe = (
        next(block for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if sign in block)
        for sign in ("class Notebook(", "class TestNotebook(", "class SafeNotebook(")
    )
    (tmp_path / "notebook.py").write_text(backend + safe)
    (tmp_path / "test_notebook.py").write_text(contract)
    for_safe = contract.replace("Notebook", "SafeNotebook") + "    examples = 30\n"
    (tmp_path / "test_safe_notebook.py").write_text(for_safe)
    printed = run_pytest(tmp_path, "-k", "SafeNotebook or without or conflict or rollback", expected=0)
    skipped = {line.rpartition(": ")[2] for line in printed.splitlines() if line.startswith("SKIPPED")}
    undeclared = MemoryBackend.capabilities
    assert skipped == {f"the backend declares no {capability}" for capability in undeclared}
