"""The pages about the command agree with the program, and shells can complete commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from the_edge_agent.cli.reference import page

TEA = Path(sys.executable).with_name("tea")
DOCS = Path(__file__).parents[3] / "docs"


def test_the_reference_is_the_one_of_the_program() -> None:
    assert (DOCS / "reference" / "tea.md").read_text(encoding="utf-8") == page(), "run `make reference`"


def test_every_command_is_shown_by_example() -> None:
    commands = re.findall(r"^## `(tea \w+ [\w-]+)`$", page(), re.MULTILINE)
    pages = ("command.md", "configuration.md", "search.md", "catalog.md")
    text = "".join((DOCS / name).read_text(encoding="utf-8") for name in pages)
    moving = {f"tea memory {name}" for name in ("export", "import", "copy", "backup", "restore")}  # other pages
    assert len(commands) > 20
    assert [name for name in commands if name not in text and name not in moving] == []


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tea memory sea", "search"),
        ("tea catalog delete", "delete-snapshot"),
        ("tea memory list --ord", "--order"),
    ],
)
def test_shells_complete_commands_and_options(typed: str, offered: str) -> None:
    variables = {"_TEA_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = subprocess.run([TEA], capture_output=True, check=False, timeout=60, env={**os.environ, **variables})
    assert offered in done.stdout.decode().split()
