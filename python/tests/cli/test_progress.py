"""A progress bar is shown on a terminal, and nothing of it in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from the_edge_agent.cli.progress import progress_bar
from the_edge_agent.memory import SQLiteBackend

pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    with SQLiteBackend(tmp_path / "memory.db") as memory:
        memory.store_many([{"key": f"k{n}", "value": n} for n in range(50)])
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    return [str(Path(sys.executable).with_name("tea")), "memory", "export", "--url", url, "-o", str(tmp_path / "file")]


def test_it_is_shown_on_a_terminal(command: list[str]) -> None:
    here, there = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=there, check=False, timeout=60, env=environment)
        shown = os.read(here, 100_000).decode()
    finally:
        os.close(here)
        os.close(there)
    assert done.returncode == 0
    assert "50 entries" in shown
    assert done.stdout.startswith(b"50 entries, SHA-256")


def test_nothing_is_shown_in_a_pipe(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    with progress_bar("export", lambda: pytest.fail("nobody sees the total")) as progress:
        assert progress is None
