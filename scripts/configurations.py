"""Runs the differential test on many configurations: `python scripts/configurations.py --help`."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from urllib.parse import parse_qs, urlsplit

import venvs
from dbservers.session import Session, variable
from tried import CONFIGURATIONS, Configuration

OPERATIONS = 20_000
STATE = venvs.REPO / "build" / "configurations.json"  # git ignores it
PASSED = re.compile(r"(\d+) passed")
DONE = re.compile(r"^([\d,]+) operations, (0 differences, seed \d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """The result of one configuration.

    Attributes:
        name: the name of the configuration.
        operations: how many operations were made.
        message: what the test printed about the result.
        is_right: whether the result is as expected.
        seconds: how long the test took.
    """

    name: str
    operations: int
    message: str
    is_right: bool
    seconds: float


def main(argv: Sequence[str]) -> int:
    """Run the configurations that have not passed with these sources, print the table, and return 0 if all passed."""
    arguments = _arguments(argv)
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        python = venvs.dev()
        os.execv(python, [str(python), __file__, *argv])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    chosen = [each for each in CONFIGURATIONS if not arguments.only or re.search(arguments.only, each.name)]
    state = State(arguments.operations, restart=arguments.restart)
    waiting = [each for each in chosen if each.name not in state.rows]
    print(f"{len(chosen)} configurations, {len(chosen) - len(waiting)} of them done before", flush=True)
    waiting.sort(key=_needs)
    for _, group in groupby(waiting, key=_needs):
        _run_group([*group], arguments.operations, state)
    return _report([state.rows.get(each.name) for each in chosen], chosen)


class State:
    """The rows so far, in a file. Rows of other sources, or of another number of operations, are dropped."""

    def __init__(self, operations: int, *, restart: bool) -> None:
        """Read the file."""
        digest = hashlib.sha256(str(operations).encode())
        for path in sorted((venvs.PROJECT / "src").rglob("*.py")):
            digest.update(path.read_bytes())
        self._digest = digest.hexdigest()
        saved = json.loads(STATE.read_text()) if STATE.exists() and not restart else {}
        rows = saved.get("rows", []) if saved.get("digest") == self._digest else []
        self.rows = {row["name"]: Row(**row) for row in rows}

    def add(self, row: Row) -> None:
        """Save a row. One that is not right is not written to the file, so that it is run again next time."""
        print(_line(row), flush=True)
        self.rows[row.name] = row
        STATE.parent.mkdir(exist_ok=True)
        right = [asdict(each) for each in self.rows.values() if each.is_right]
        STATE.with_suffix(".new").write_text(json.dumps({"digest": self._digest, "rows": right}, indent=1))
        STATE.with_suffix(".new").replace(STATE)


def _needs(configuration: Configuration) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Return the server, pooler and settings that a configuration needs; configurations with the same share them."""
    return configuration.server, configuration.pooler, tuple(sorted(configuration.settings.items()))


def _run_group(group: list[Configuration], operations: int, state: State) -> None:
    """Run configurations that share their servers."""
    first = group[0]
    settings = {first.server: first.settings} if first.settings else {}
    with Session(first.servers, settings=settings) as session:
        session.wait()
        for each in group:
            began = time.monotonic()
            try:
                count, message, is_right = _run(each, session, operations)
            except Exception as error:
                count, message, is_right = 0, f"{type(error).__name__}: {error}", False
            state.add(Row(each.name, count, message, is_right, round(time.monotonic() - began, 1)))


def _run(each: Configuration, session: Session, operations: int) -> tuple[int, str, bool]:
    """Return how many operations were made, a message about the result, and whether the result is right."""
    if missing := [f"{name}: {session.missing[name]}" for name in each.servers if name in session.missing]:
        return 0, f"not available: {'; '.join(missing)}", False
    if each.contract:
        return _contract(each, session)
    with _database(each, session.urls) as url:
        command = [sys.executable, "-m", "the_edge_agent.testing.differential"]
        command += [f"--operations={operations}", *each.arguments]
        process = _call(command, {"TEA_URL": url, **_libraries(url)})
    if process.returncode == 0 and not each.expected and (match := DONE.search(process.stdout)):
        return int(match[1].replace(",", "")), match[2], True
    error = process.stderr.strip().splitlines()[-1:] or ["no error"]
    if process.returncode == 2 and each.expected and error[0].startswith(f"{each.expected}: "):
        return 0, f"refused: {error[0].partition(': ')[2]}", True
    if process.returncode == 1:
        return 0, process.stdout.strip()[-4_000:], False
    expected = f" (expected {each.expected})" if each.expected else ""
    return 0, f"exit code {process.returncode}, {error[0]}{expected}", False


def _libraries(url: str) -> dict[str, str]:
    """Return the variable with which a client library finds the other libraries in its folder."""
    library = parse_qs(urlsplit(url).query).get("fb_client_library")
    return {"LD_LIBRARY_PATH": os.path.dirname(library[0])} if library else {}


def _contract(each: Configuration, session: Session) -> tuple[int, str, bool]:
    """Run the whole contract on a target of the tests."""
    files = ["tests/contract/test_ltm_contract.py", "tests/contract/test_catalog_contract.py"]
    environment = {**session.environment(), "TEA_TEST_DATABASES": each.contract}
    process = _call([sys.executable, "-m", "pytest", "-q", "-n", "2", *files], environment)
    match = PASSED.search(process.stdout)
    last = process.stdout.strip().splitlines()[-1:] or [process.stderr.strip()[-500:]]
    return int(match[1]) if match else 0, last[0], process.returncode == 0


@contextmanager
def _database(each: Configuration, urls: Mapping[str, str]) -> Iterator[str]:
    """Create a new database, or a new folder, and yield the URL; remove it at the end."""
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.pool import NullPool

    if not each.server:
        with tempfile.TemporaryDirectory() as folder:
            file = each.url.format(folder=folder)
            if each.sql:
                engine = create_engine(file, isolation_level="AUTOCOMMIT", poolclass=NullPool)
                with engine.connect() as connection:
                    for statement in each.sql:
                        connection.execute(text(statement))
                engine.dispose()
            yield file
        return
    if each.server == "firebird":  # it has no CREATE DATABASE, so the database of the server's set-up is used
        yield urls[each.server]
        return
    name = f"tea_tried_{secrets.token_hex(4)}"
    admin = create_engine(urls[each.server], isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {each.create}"))
        for statement in each.sql:
            connection.execute(text(statement.format(database=name)))
    try:
        url = make_url(urls[each.pooler or each.server]).set(database=name).update_query_dict(each.query)
        if each.url:
            url = url.set(drivername=f"{url.get_backend_name()}+{each.url}")
        yield url.render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if each.server == "postgres" else ""
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}{force}"))
        admin.dispose()


def _call(command: list[str], extra: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    servers = {variable(name) for each in CONFIGURATIONS for name in each.servers}
    env = {name: value for name, value in os.environ.items() if name not in servers} | dict(extra)
    env.setdefault("PYTHONPATH", str(venvs.PROJECT / "src"))
    return subprocess.run(command, cwd=venvs.PROJECT, env=env, capture_output=True, text=True, check=False)


def _line(row: Row) -> str:
    mark = "ok" if row.is_right else "WRONG"
    first_line = row.message.splitlines()[0] if row.message else ""
    return f"{mark:5} {row.name:50} {row.operations:>7,} {row.seconds:>6,.0f} s  {first_line:.120}"


def _report(rows: Sequence[Row | None], chosen: Sequence[Configuration]) -> int:
    done = [row for row in rows if row is not None]
    wrong = [row for row in done if not row.is_right]
    print()
    for row in done:
        print(_line(row))
    for row in wrong:
        print(f"\n{row.name}:\n{row.message}")
    refused = sum(row.is_right and row.operations == 0 for row in done)
    exact, operations = len(done) - len(wrong) - refused, sum(row.operations for row in done)
    counts = f"{exact} exact, {refused} refused as they must be, {len(wrong)} wrong"
    print(f"\n{len(done)} of {len(chosen)} configurations: {counts}")
    print(f"{operations:,} operations")
    return 0 if len(done) == len(chosen) and not wrong else 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a regular expression; run the configurations whose names match it")
    count = "how many operations each configuration runs"
    parser.add_argument("--operations", type=int, default=OPERATIONS, help=f"{count} (default: {OPERATIONS:,})")
    parser.add_argument("--restart", action="store_true", help="also run the configurations that have passed before")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
