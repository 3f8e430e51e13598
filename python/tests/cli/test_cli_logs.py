"""What `tea -v`, `-vv` and `--log-json` write to stderr."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from test_cli import tea

AGENT = """
nodes:
  - name: keep
    uses: ltm.store
    with: {key: customer, value: wolpertinger}
  - name: count
    run: |
      count = 1
"""
FAILS = """
nodes:
  - name: define
    run: |
      def helper(number):
          return 1 / number
      state["helper"] = 0
      return {}
  - name: fail
    run: |
      def half(number):
          return 1 / number

      half(0)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.yaml").write_text(AGENT)
    (tmp_path / "fails.yaml").write_text(FAILS)
    return tmp_path


def lines(*arguments: str) -> list[str]:
    return tea(*arguments).stderr.decode().splitlines()


def test_without_v_nothing_is_logged() -> None:
    assert lines("run", "agent.yaml") == []


def test_v_logs_actions_and_nodes() -> None:
    shown = [line.partition(" INFO the_edge_agent.workflow: ")[2] for line in lines("-v", "run", "agent.yaml")]
    starts = [" ".join(line.split()[:3]) for line in shown]
    assert starts == ["action ltm.store succeeded", "node keep succeeded", "node count succeeded"]
    assert all(line.endswith(" ms") for line in shown)


def test_vv_logs_the_calls_of_the_memory_too() -> None:
    shown = lines("-vv", "run", "agent.yaml")
    assert " DEBUG the_edge_agent.memory.calls: store succeeded in " in shown[0]
    assert "wolpertinger" not in "".join(shown)
    assert "customer" not in "".join(shown)


def test_log_json_is_an_object_a_line() -> None:
    records: list[dict[str, Any]] = [json.loads(line) for line in lines("-vv", "--log-json", "run", "agent.yaml")]
    assert [record["logger"].rpartition(".")[2] for record in records] == ["calls", "workflow", "workflow", "workflow"]
    first, action, *_ = records
    assert first.keys() == {
        "time", "level", "logger", "message", "operation", "milliseconds", "rows", "retries", "error_type",
    }  # fmt: skip
    assert (first["level"], first["operation"], first["rows"], first["error_type"]) == ("DEBUG", "store", 1, None)
    assert (action["level"], action["action"]) == ("INFO", "ltm.store")


def test_log_json_alone_shows_warnings_only() -> None:
    assert lines("--log-json", "run", "agent.yaml") == []


def test_with_v_a_failure_of_code_names_its_lines_in_the_file() -> None:
    shown = lines("-v", "run", "fails.yaml")
    place = shown.index('  File "fails.yaml", line 14, in <module>')
    assert shown[place - 1].endswith("where the code of node fail failed, innermost last:")
    assert shown[place + 1 : place + 4] == [
        "    half(0)",
        '  File "fails.yaml", line 12, in half',
        "    return 1 / number",
    ]
    assert shown[-1].startswith("Error: fails.yaml:")
    assert not any("site-packages" in line or "the_edge_agent/" in line for line in shown)


def test_without_v_a_failure_of_code_is_one_line() -> None:
    (line,) = lines("run", "fails.yaml")
    assert line.startswith("Error: fails.yaml:12:1: node `fail`: ZeroDivisionError")


def test_control_characters_of_names_are_visible(folder: Path) -> None:
    (folder / "agent.yaml").write_text('nodes: [{name: "a\\n\\e[31mb", run: "x = 1"}]')
    for options in (["-v"], ["-v", "--log-json"]):
        done = tea(*options, "run", "agent.yaml")
        assert b"\x1b" not in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_a_command_leaves_logging_as_it_was() -> None:
    logger = logging.getLogger("the_edge_agent")
    before = (logger.level, logger.propagate, [*logger.handlers])
    tea("-vv", "run", "agent.yaml")
    assert (logger.level, logger.propagate, [*logger.handlers]) == before
