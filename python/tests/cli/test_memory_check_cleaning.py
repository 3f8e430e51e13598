"""`check_database` and `tea memory check` leave nothing in the database, even if a step fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from databases import Database
from memory_checks import STEPS, LeavesNothing, objects, on_files_and_servers, run_sql, steps_of, tea
from run_length import of_this_day
from the_edge_agent.cli.signals import ended_by_signals
from the_edge_agent.memory import LTMError, check_database
from the_edge_agent.memory.diagnostics import check as check_module
from the_edge_agent.memory.diagnostics import self_test
from the_edge_agent.memory.sql.schema.create import Schema

pytestmark = pytest.mark.slow


def replaced(name: str, work: Callable[[Any], None]) -> tuple[tuple[str, Callable[[Any], None]], ...]:
    """Return the steps of the self-test, one of them replaced."""
    return tuple((step, work if step == name else usual) for step, usual in self_test.STEPS)


class TestCleaning(LeavesNothing):
    @on_files_and_servers
    @pytest.mark.parametrize("failing", of_this_day([name for name, _ in self_test.STEPS], 4))
    def test_a_step_that_fails_leaves_nothing(
        self, database: Database, before: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        if failing not in ("store", "search", "delete") and database.target.server:
            failing = "search"  # the same on servers, whatever the step

        def fail(memory: Any) -> None:
            raise LTMError("query_error", "broken")

        monkeypatch.setattr(check_module, "STEPS", replaced(failing, fail))
        report = check_database(database.url)
        place = STEPS.index(failing)
        assert steps_of(report) == [*((name, True) for name in STEPS[:place]), (failing, False), ("clean_up", True)]
        assert report["error"] == f"the self-test failed at {failing}: broken"
        assert report["error_type"] == "query_error"

    @on_files_and_servers
    def test_tables_that_are_half_made_are_dropped(
        self, database: Database, before: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[set[tuple[str, str]]] = []

        def fail(self: Schema, connection: Connection) -> None:
            made.append(objects(database.url))
            raise LTMError("query_error", "broken")

        monkeypatch.setattr(Schema, "_write_version", fail)
        report = check_database(database.url)
        assert "its tables cannot be created: broken" in report["error"]
        assert report["left_behind"] == []
        assert database.target.family == "sqlite" or made[0] > before

    @on_files_and_servers
    def test_an_interrupt_leaves_nothing(
        self, database: Database, before: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there: list[int] = []

        def interrupt(memory: Any) -> None:
            there.append(len(objects(database.url) - before))
            raise KeyboardInterrupt

        monkeypatch.setattr(check_module, "STEPS", replaced("filter", interrupt))
        with pytest.raises(KeyboardInterrupt):
            check_database(database.url)
        assert there[0] > 5

    def test_a_temporary_file_is_removed_after_an_interrupt(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files: list[str] = []

        def interrupt(memory: Any) -> None:
            files.extend(os.listdir(tmp_path))
            raise KeyboardInterrupt

        monkeypatch.setattr(check_module, "STEPS", replaced("filter", interrupt))
        with pytest.raises(KeyboardInterrupt):
            check_database(f"sqlite:///{tmp_path / 'new.db'}")
        assert any(name.startswith("tea_") for name in files)
        assert os.listdir(tmp_path) == []

    def test_what_cannot_be_dropped_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        url = f"sqlite:///{tmp_path / 'kept.db'}"
        run_sql(url, "CREATE TABLE application (id INTEGER)")

        def fail(self: Schema, connection: Connection) -> None:
            raise LTMError("query_error", "broken")

        monkeypatch.setattr(Schema, "drop", fail)
        report = check_database(url)
        assert not report["success"]
        assert set(report["left_behind"]) <= {name for _, name in objects(url)}
        assert len(report["left_behind"]) == 6
        code, printed = tea("--url", url)
        assert (code, "left behind     perhaps tea_" in printed) == (1, True)

    def test_a_signal_that_is_ignored_stays_so(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        try:
            with ended_by_signals():
                os.kill(os.getpid(), signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)

    @on_files_and_servers
    @pytest.mark.parametrize("sent", of_this_day([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], 1))
    def test_a_signal_leaves_nothing(
        self, database: Database, before: set[tuple[str, str]], sent: signal.Signals
    ) -> None:
        code = (
            "import sys, time\n"
            "from the_edge_agent.cli import main\n"
            "from the_edge_agent.memory.diagnostics import check\n"
            "def wait(memory):\n    print('waiting', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
            "check.STEPS = (('wait', wait),)\n"
            "sys.argv = ['tea', 'memory', 'check', '--json']\n"
            "main()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TEA_URL": database.url},
        )
        with process:
            assert process.stderr is not None
            assert process.stderr.readline() == b"waiting\n"
            process.send_signal(sent)
            out, error = process.communicate(timeout=30)
        assert out == b""
        assert b"Traceback" not in error
        assert process.returncode == 128 + sent
