"""Runs the benchmarks on every database: `python scripts/bench.py [--short] [--only sqlite,mysql] ...`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import venvs
from dbservers.engines import CACHE
from dbservers.session import Session
from servers import report

_SERVER_NAMES = {"postgresql": "postgres"}  # the benchmarks' name of a database, and its name in dbservers
_MEASURED = ("postgres", "mariadb", "mysql")


def main(argv: Sequence[str]) -> int:
    """Start the servers that the command line needs, run the benchmarks and return their exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    # Enough for a million entries, so that the comparison is fair: SQLite has them in the operating system's cache.
    os.environ.setdefault(CACHE, "2048")
    with Session(servers_for(argv)) as session:
        with ThreadPoolExecutor() as pool:
            environment = pool.submit(venvs.bench)
        session.wait()
        try:
            python = environment.result()
        except venvs.SetupError as error:
            print(error, file=sys.stderr)
            return 1
        command = [str(python), "-m", "benchmarks", *argv]
        code = subprocess.run(command, cwd=venvs.PROJECT, env={**os.environ, **session.environment()}).returncode
    return report(session) or code


def servers_for(argv: Sequence[str]) -> list[str]:
    """Return the servers that a command line needs: those that `--only` names, or all."""
    words = [part for word in argv for part in word.split("=", 1)]
    if "--only" not in words:
        return [*_MEASURED]
    databases = words[words.index("--only") + 1].split(",") if words[-1] != "--only" else []
    return [name for name in _MEASURED if name in {_SERVER_NAMES.get(each, each) for each in databases}]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
