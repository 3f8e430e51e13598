"""docs/contract_table.md shows every rule on every target, and only results of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract_markdown import Area, Table, counts_of, page_of, whole
from contract_table import PAGE, TESTS, Outcomes

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]


def checked(*pages: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "support" / "contract_table.py"), "check", *map(str, pages)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_table_is_not_stale(tmp_path: Path) -> None:
    stale, page = tmp_path / "stale.md", PAGE.read_text(encoding="utf-8")
    lines = [line for line in page.splitlines(keepends=True) if not line.startswith("| Memory: times |")]
    stale.write_text("".join(lines), encoding="utf-8")
    done = checked(PAGE, stale)  # in one call: to collect the contract takes long
    assert done.returncode == 1
    assert "stale.md is stale: run `make table`" in done.stderr, done.stderr
    assert "area Memory: times" in done.stderr


def test_a_table_has_counts_on_the_page_and_rules_beside_it() -> None:
    rules: dict[str, dict[str, str | None]] = {
        "a rule": {"x": None, "x-native": "why"},
        "b": {"x": None, "x-native": None},
    }
    table = Table(["x", "x-native"], {"Memory: one part": Area("About it.", rules)}, ["X 1.0"])
    page = page_of(table)
    assert counts_of(page) == {"Memory: one part": {"rules": 2, "x": 2, "x-native": 1}}
    assert "| Memory: one part | About it. | 2 | 2 | 1 [^1] |\n\n[^1]: why\n" in page
    assert "\n| a rule | ✓ | [^1] |\n| b | ✓ | ✓ |\n\n[^1]: why\n" in whole(table)


OUTCOMES: dict[str, tuple[dict[str, Any], str]] = {
    "passed": ({"outcome": "passed"}, "passed"),
    "failed": ({"outcome": "failed"}, "failed"),
    "skipped": ({"outcome": "skipped"}, "failed"),
    "failed as expected": ({"outcome": "skipped", "wasxfail": "reason: no such index"}, "limits"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_only_what_passed_or_has_a_reason_counts(name: str) -> None:
    fields, where = OUTCOMES[name]
    report = pytest.TestReport("a::test", ("a", 1, ""), {}, longrepr=None, when="call", **fields)
    outcomes = Outcomes()
    outcomes.pytest_runtest_logreport(report)
    assert {name for name in ("passed", "failed", "limits") if getattr(outcomes, name)} == {where}
    assert [*outcomes.limits.values()] == ["no such index"] * (where == "limits")


def test_a_test_that_passed_and_then_failed_to_tidy_up_failed() -> None:
    outcomes = Outcomes()
    for when, outcome in (("setup", "passed"), ("call", "passed"), ("teardown", "failed")):
        made: Any = {"outcome": outcome, "when": when}
        outcomes.pytest_runtest_logreport(pytest.TestReport("a::test", ("a", 1, ""), {}, longrepr=None, **made))
    assert outcomes.failed == {"a::test": "failed"}
