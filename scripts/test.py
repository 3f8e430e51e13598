"""Runs all tests on every database with the highest versions, then those on SQLite with the lowest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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
Answer = TypeVar("Answer")
_running: set[subprocess.Popen[str]] = set()
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
    # Tests of clusters and of the scripts wait most of the time, so they run beside those on SQLite.
    with Session(list(CLUSTERS)) as clusters, _no_process_left():
        beside = _started(lambda: _parts_beside(full, clusters))
        results.append(_part("SQLite, lowest versions", lowest, ONLY_SQLITE, "-m", LOWEST_MARKERS))
        for result, lines in beside.result():
            print(*lines, sep="", flush=True)
            results.append(result)

    print()
    for result in results:
        print(f"{'ok' if result.passed else 'FAILED'}: {result.name}: {result.versions}: {result.closing}")
    print(f"databases that ran: {', '.join(['sqlite', *session.urls, *clusters.urls])}", flush=True)
    missing = report(session) | report(clusters)
    return missing if all(result.passed for result in results) else 1


def _parts_beside(full: Future[Path], clusters: Session) -> list[tuple[Result, list[str]]]:
    """Run the parts that run beside another; return for each its result and the lines that it has printed."""
    clusters.wait()
    # Tests of clusters run one after the other, because they change the mode of a cluster and kill its nodes.
    environment = {**clusters.environment(), **ONLY_SQLITE}
    parts = [("clusters", environment, ["tests/dialects/test_clusters.py"])]
    parts += [("scripts", {}, ["--rootdir", str(SCRIPTS), str(SCRIPTS / "tests")])]
    results = []
    for name, extra, arguments in parts:
        lines: list[str] = []
        results.append((_part(name, full, extra, "-n0", *arguments, show=lines.append), lines))
    return results


def _started(work: Callable[[], Answer]) -> Future[Answer]:
    """Start work in a thread that does not keep this process from ending."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def _no_process_left() -> Iterator[None]:
    """Terminate what still runs at the end of the block."""
    try:
        yield
    finally:
        for process in [*_running]:
            process.terminate()


def _part(
    name: str,
    environment: Future[Path],
    extra: Mapping[str, str],
    *arguments: str,
    show: Callable[[str], object] | None = None,
) -> Result:
    """Run pytest with `arguments` and with the variables in `extra`, which name databases.

    What it prints is printed, or passed to `show`, line by line.
    """
    show = show or (lambda line: print(line, end="", flush=True))
    try:
        python = environment.result()
    except venvs.SetupError as error:
        print(error, file=sys.stderr, flush=True)
        return Result(name, "could not be set up", str(error).splitlines()[0], passed=False)
    versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.strip()
    show(f"\n{name}: {versions}\n")
    servers = {variable(name) for name in SERVERS}
    # Python may write compiled files, because the tests start many processes.
    left_out = {*servers, "PYTHONDONTWRITEBYTECODE"}
    env = {key: value for key, value in os.environ.items() if key not in left_out} | dict(extra)
    closing = "pytest did not finish"
    process = subprocess.Popen(
        [python, "-m", "pytest", "-n", str(WORKERS), "--dist", "worksteal", *arguments],
        cwd=venvs.PROJECT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    _running.add(process)
    try:
        assert process.stdout
        for line in process.stdout:
            show(line)
            match = CLOSING.match(line)
            closing = match[1] if match else closing
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        _running.discard(process)
    return Result(name, versions, closing, passed=code == 0)


if __name__ == "__main__":
    sys.exit(main())
