"""Runs all tests on every database with the highest versions, then those on SQLite with the lowest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import venvs
from dbservers.clusters import CLUSTERS
from dbservers.session import Session, variable
from servers import SERVERS, report

WORKERS = max(2, os.cpu_count() or 2)
VERSIONS = "import platform as p, sqlalchemy as s; print(f'Python {p.python_version()}, SQLAlchemy {s.__version__}')"
ONLY_SQLITE = {"TEA_TEST_DATABASES": "sqlite"}
IS_LONG = os.environ.get("TEA_TEST_LONG", "").lower() not in ("", "0", "false")
# The environment with the lowest versions has no drivers. Slow tests run there in the long form only.
LOWEST_MARKERS = f"not (driver or highest_versions{'' if IS_LONG else ' or slow'})"
SCRIPTS = Path(__file__).resolve().parent
CLOSING = re.compile(r"=+ (.* in [\d.]+s\b.*) =+$")


@dataclass(frozen=True)
class Result:
    """The result of one run of pytest; `closing` is the last line that it printed, with the counts."""

    name: str
    versions: str
    closing: str
    passed: bool


def main() -> int:
    """Run every part, even after one has failed, and return 0 if all have passed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    with Session() as session:
        with ThreadPoolExecutor() as pool:
            full, lowest = pool.submit(venvs.dev), pool.submit(venvs.lowest)
        session.wait()
        results = [_part("all databases, highest versions", full, session.environment())]
    with Session(list(CLUSTERS)) as clusters:  # the clusters start while the tests on SQLite run
        results.append(_part("SQLite, lowest versions", lowest, ONLY_SQLITE, "-m", LOWEST_MARKERS))
        clusters.wait()
        # These tests run one after the other, because they change the mode of a cluster and kill its nodes.
        environment = {**clusters.environment(), **ONLY_SQLITE}
        results.append(_part("clusters", full, environment, "-n0", "tests/dialects/test_clusters.py"))
    results.append(_part("scripts", full, {}, "--rootdir", SCRIPTS, SCRIPTS / "tests"))

    print()
    for result in results:
        print(f"{'ok' if result.passed else 'FAILED'}: {result.name}: {result.versions}: {result.closing}")
    print(f"databases that ran: {', '.join(['sqlite', *session.urls, *clusters.urls])}", flush=True)
    missing = report(session) | report(clusters)
    return missing if all(result.passed for result in results) else 1


def _part(name: str, environment: Future[Path], extra: Mapping[str, str], *arguments: str | Path) -> Result:
    """Run pytest with `arguments` and with the variables in `extra`, which name databases; print its output."""
    try:
        python = environment.result()
    except venvs.SetupError as error:
        print(error, file=sys.stderr, flush=True)
        return Result(name, "could not be set up", str(error).splitlines()[0], passed=False)
    versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.strip()
    print(f"\n{name}: {versions}", flush=True)
    servers = {variable(name) for name in SERVERS}
    # Python may write compiled files, because the tests start many processes.
    left_out = {*servers, "PYTHONDONTWRITEBYTECODE"}
    env = {key: value for key, value in os.environ.items() if key not in left_out} | dict(extra)
    closing = "pytest did not finish"
    process = subprocess.Popen(
        [python, "-m", "pytest", "-n", str(WORKERS), *arguments],
        cwd=venvs.PROJECT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            match = CLOSING.match(line)
            closing = match[1] if match else closing
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return Result(name, versions, closing, passed=code == 0)


if __name__ == "__main__":
    sys.exit(main())
