"""Call `tea` in this process, for the tests of its commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from the_edge_agent.cli.app import app


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[Any]:
        """Stdout as JSON Lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def json(self) -> Any:
        """Stdout as one JSON value."""
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """What stderr says, without the frame and the line breaks of a usage error."""
        return " ".join(self.stderr.replace("│", " ").split())


def tea(*arguments: str, given: str | bytes | None = None, **environment: str | None) -> Done:
    """Run a command, without a terminal, with ``given`` as its standard input; return what it did."""
    runner = CliRunner(env={"NO_COLOR": "1", "TEA_LTM_URL": None, "TEA_URL": None, "COLUMNS": "200", **environment})
    result = runner.invoke(app, arguments, input=given, catch_exceptions=False)
    return Done(result.exit_code, result.stdout_bytes.decode(), result.stderr_bytes.decode())


def ok(*arguments: str, **options: Any) -> Done:
    """Run a command that must succeed."""
    done = tea(*arguments, **options)
    assert done.code == 0, done
    return done


def failed(*arguments: str, code: int = 1, **options: Any) -> str:
    """Run a command that must fail, and print nothing to stdout; return what it says."""
    done = tea(*arguments, **options)
    assert (done.code, done.stdout) == (code, ""), done
    return done.error
