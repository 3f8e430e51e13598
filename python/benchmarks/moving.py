"""Moves a large memory through four databases and back, kills each step in the middle, and compares what arrives.

    python -m benchmarks.moving --entries 1000000

It needs a server of MySQL, PostgreSQL and MariaDB: ``--mysql``, ``--postgresql`` and ``--mariadb``, or the variables
``TEST_MYSQL_URL``, ``TEST_POSTGRES_URL`` and ``TEST_MARIADB_URL``. It makes databases of its own there, and drops them
at the end. Each step runs ``tea`` in a process of its own. It is killed by SIGKILL when about half of the entries have
arrived, and run again. The end is an error if a line differs, or a step needs more than 200 MB.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from the_edge_agent.memory import LTMError, SQLAlchemyBackend

MOST_MEGABYTES: Final = 200
_VARIABLES: Final = {"mysql": "TEST_MYSQL_URL", "postgresql": "TEST_POSTGRES_URL", "mariadb": "TEST_MARIADB_URL"}
_LEAST_LINE: Final = 200  # bytes; no line of our entries is shorter
_WORDS: Final = (
    *("river", "mountain", "fox", "hound", "garden", "winter", "letter", "kitchen", "violet", "engine", "harbour"),
    *("paper", "silver", "morning"),
)
_SEARCHES: Final = ("fox hound", "+river -paper", "kitch*", '"mountain hound"', None)
_LATER: Final = datetime(2150, 1, 1, tzinfo=timezone.utc)


class Step:
    """A command of ``tea memory``, and what it needed.

    Attributes:
        name: what the step does.
        seconds: how long both runs took together.
        megabytes: the highest peak of the RAM of both runs.
        again: what the second run printed.
    """

    def __init__(self, name: str, arguments: Sequence[str], is_half_done: Callable[[], bool]) -> None:
        """Run the command, kill it when it is half done, and run it again."""
        self.name, self.seconds, self.megabytes = name, 0.0, 0.0
        self._run(arguments, is_half_done)
        self.again = self._run(arguments)

    def _run(self, arguments: Sequence[str], is_half_done: Callable[[], bool] | None = None) -> str:
        begin = time.perf_counter()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, "-c", "from the_edge_agent.cli import main; main()", "memory", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            is_killed = False
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                time.sleep(0.5)  # a process of its own: there is nothing else to wait for
                if is_half_done is not None and not is_killed and is_half_done():
                    os.kill(process.pid, signal.SIGKILL)
                    is_killed = True
            process.returncode = os.waitstatus_to_exitcode(ended[1])
            output.seek(0)
            printed = output.read().decode()
        self.seconds += time.perf_counter() - begin
        self.megabytes = max(self.megabytes, ended[2].ru_maxrss / 1024)
        expected = 0 if is_half_done is None else -signal.SIGKILL
        if process.returncode != expected:
            raise SystemExit(f"{self.name} ended with {process.returncode}, not {expected}: {printed}")
        return printed.strip()


def entries(count: int) -> Iterator[dict[str, Any]]:
    """Yield entries with values of all kinds, lifetimes, versions and namespaces; the same ones in each run."""
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    for number in range(count):
        words = " ".join(_WORDS[number * step % len(_WORDS)] for step in (1, 3, 5, 7, 11))
        values: tuple[Any, ...] = (
            words,
            {"text": words, "n": number, "share": number / 7, "parts": [None, True, {"é": "日😀"}]},
            [number, float(number), 10**25 + number],
            {"note": words, "tags": [_WORDS[number % 7]]},
        )
        created = start + timedelta(seconds=number % 86_400, microseconds=number)
        has_end = number % 5 == 0
        yield {
            "key": f"entry/{number * 7_919 % count:07}",
            "value": values[number % 4],
            "metadata": {"kind": _WORDS[number % 13], "n": number % 1_000} if number % 3 else None,
            "version": number % 40 + 1,
            "created_at": created,
            "updated_at": created + timedelta(minutes=number % 50),
            "expires_at": _LATER + timedelta(microseconds=number) if has_end else None,
            "ttl": 86_400.5 if has_end else None,
            "index": number % 50 != 1,
            "namespace": ("users", f"u{number % 1_000}") if number % 10 == 3 else (),
        }


@contextmanager
def database(admin_url: str) -> Iterator[str]:
    """Make a database on a server, and yield its URL."""
    name = f"tea_moving_{secrets.token_hex(4)}"
    url = make_url(admin_url)
    engine = create_engine(_with_driver(admin_url), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name}"))
    finally:
        engine.dispose()


def _with_driver(url: str) -> str:
    name = make_url(url).drivername
    drivers = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
    return make_url(url).set(drivername=drivers.get(name, name)).render_as_string(hide_password=False)


def half_of(url: str, count: int) -> Callable[[], bool]:
    """Return a function that tells whether half of the entries have arrived."""

    def is_half_done() -> bool:
        try:
            with SQLAlchemyBackend(url, create_tables=False, errors="raise") as memory:
                return 2 * memory.count()["count"] >= count
        except LTMError:  # the tables are not there yet
            return False

    return is_half_done


def run(count: int, urls: dict[str, str], folder: Path) -> list[str]:
    """Run all steps and print a table of them; return what is wrong."""
    source = f"sqlite:///{folder / 'source.db'}"
    begin = time.perf_counter()
    with SQLAlchemyBackend(source, errors="raise", timeout=600) as memory:
        memory.import_entries(entries(count))
    print(f"{count:,} entries in SQLite, stored in {time.perf_counter() - begin:,.0f} s", flush=True)
    first, last = folder / "first.jsonl", folder / "last.jsonl"

    def part_of(file: Path) -> Callable[[], bool]:
        return lambda: sum(each.stat().st_size for each in folder.glob(f".{file.name}.*")) > _LEAST_LINE * count // 2

    plan: list[tuple[str, list[str], Callable[[], bool]]] = [
        ("export from SQLite", ["export", "--url", source, "-o", str(first)], part_of(first)),
        ("import into MySQL", ["import", str(first), "--url", urls["mysql"]], half_of(urls["mysql"], count)),
        (
            "copy to PostgreSQL",
            ["copy", "--url", urls["mysql"], "--to", urls["postgresql"]],
            half_of(urls["postgresql"], count),
        ),
        (
            "copy to MariaDB",
            ["copy", "--url", urls["postgresql"], "--to", urls["mariadb"]],
            half_of(urls["mariadb"], count),
        ),
        ("export from MariaDB", ["export", "--url", urls["mariadb"], "-o", str(last)], part_of(last)),
    ]
    faults = []
    for name, arguments, is_half_done in plan:
        for leftover in folder.glob(".*.part"):
            leftover.unlink()
        step = Step(name, arguments, is_half_done)
        print(f"{name:<22}{step.seconds:>8,.0f} s {step.megabytes:>6,.0f} MB  {step.again}", flush=True)
        if step.megabytes >= MOST_MEGABYTES:
            faults.append(f"{name} needed {step.megabytes:,.0f} MB")
    if not same_lines(first, last):
        faults.append("the two exports differ")
    print(f"checksum {_last(first)['sha256']}", flush=True)
    return faults + differences(source, urls["mariadb"])


def same_lines(one: Path, other: Path) -> bool:
    """Return whether two exports have the same lines but for the header. This shortens both files."""
    for file in (one, other):
        with file.open("rb") as lines, file.with_suffix(".lines").open("wb") as rest:
            next(lines)
            while batch := [*islice(lines, 10_000)]:
                rest.writelines(batch)
    return filecmp.cmp(one.with_suffix(".lines"), other.with_suffix(".lines"), shallow=False)


def differences(one: str, other: str) -> list[str]:
    """Return in what two memories differ: the order of searches, and stores that require a version."""
    faults = []
    with SQLAlchemyBackend(one, timeout=600) as first, SQLAlchemyBackend(other, timeout=600) as second:
        second.optimize()
        for query in _SEARCHES:
            found = [
                [(entry["key"], entry["score"]) for entry in memory.search(query, limit=50)["results"]]
                for memory in (first, second)
            ]
            if found[0] != found[1] or not found[0]:
                faults.append(f"the search {query!r} has other results")
        key = next(key for key in first.list_keys("entry/", limit=1)["keys"])
        version = int(first.retrieve(key)["version"] or 0)
        if second.store(key, 1, if_version=version)["version"] != version + 1:
            faults.append("compare-and-swap does not go on with the version")
    return faults


def _last(file: Path) -> dict[str, Any]:
    with file.open("rb") as lines:
        lines.seek(-1_000, os.SEEK_END)
        last: dict[str, Any] = json.loads(lines.read().splitlines()[-1])
        return last


def main() -> None:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000, help="how many entries are moved")
    for name, variable in _VARIABLES.items():
        parser.add_argument(f"--{name}", default=os.environ.get(variable), help=f"a server; default: {variable}")
    options = parser.parse_args()
    missing = [name for name in _VARIABLES if not getattr(options, name)]
    if missing:
        parser.error(f"no URL of {', '.join(missing)}")
    with ExitStack() as stack:
        urls = {name: stack.enter_context(database(getattr(options, name))) for name in _VARIABLES}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        faults = run(options.entries, urls, folder)
    if faults:
        raise SystemExit("\n".join(faults))
    print("the same lines, the same order, and each step was killed once")


if __name__ == "__main__":
    main()
