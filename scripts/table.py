"""Writes the table of the contract, docs/contract_table.md, from a run of the contract on every database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import venvs
from dbservers.session import Session
from servers import report

WORKERS = max(2, os.cpu_count() or 2)


def main() -> int:
    """Run the contract and write the table; return 0 when it is written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    with Session() as session:
        with ThreadPoolExecutor() as pool:
            environment = pool.submit(venvs.dev)
        session.wait()
        try:
            python = environment.result()
        except venvs.SetupError as error:
            print(error, file=sys.stderr)
            return 1
        command = [str(python), "tests/support/contract_table.py", "write", "-n", str(WORKERS)]
        code = subprocess.run(command, cwd=venvs.PROJECT, env={**os.environ, **session.environment()}).returncode
    return report(session) or code


if __name__ == "__main__":
    sys.exit(main())
