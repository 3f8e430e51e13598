"""Runs other programs. None of them outlives the process that started it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

LEASH = Path(__file__).with_name("leash.py")
# The standard input of a keeper, which closes when the parent dies; empty in other processes, where it means nothing.
_parent_pipes: list[TextIO] = []


class UnavailableError(Exception):
    """Something that is needed is not available; the message is the reason, in one line."""


class ParentGoneError(Exception):
    """The process that started this keeper has ended, or has told it to stop."""


@dataclass(frozen=True)
class Account:
    """The user a server runs as."""

    uid: int
    gid: int


def heed_parent() -> None:
    """From now on, when standard input closes, the parent has ended: the end of a process closes its pipes."""
    _parent_pipes.append(sys.stdin)


def check_parent(seconds: float = 0) -> None:
    """Raise `ParentGoneError` if the parent has ended or ends within `seconds`; without `heed_parent`, only wait."""
    if select.select(_parent_pipes, [], [], seconds)[0]:
        raise ParentGoneError


@contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    log: Path,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stop: signal.Signals = signal.SIGKILL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that writes to `log`. At the end of the block, send it `stop`, and SIGKILL after 10 seconds."""
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    leash = [sys.executable, "-I", "-S", LEASH, os.getpid(), stop.value, uid, gid]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in [*leash, *argv]],
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run(
    argv: Sequence[str | Path],
    *,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    label: str = "",
    stop: signal.Signals = signal.SIGTERM,
    limit: float = 600,
) -> str:
    """Run a program to its end and return its output; an `UnavailableError` says why it failed."""
    name = label or Path(argv[0]).name
    deadline = time.monotonic() + limit
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        log = Path(folder, "log")
        with started(argv, log=log, account=account, env=env, cwd=cwd, stdin=source.fileno(), stop=stop) as process:
            while process.poll() is None:
                check_parent()
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{name} did not end within {limit:.0f} seconds")
                time.sleep(0.02)
        text = log.read_text(errors="replace")
    if process.returncode:
        raise UnavailableError(f"{name} failed ({process.returncode}): {last_line(text)}")
    return text


def last_line(text: str) -> str:
    """Return the line that most likely says what went wrong: the first error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # When a build fails, pip first prints that a subprocess failed, and then the error of the build itself.
    errors = [line for line in lines if re.search(r"\b(E:|ERROR|FATAL|error:(?! subprocess-exited))", line)]
    return errors[0] if errors else (lines or ["it said nothing"])[-1]
