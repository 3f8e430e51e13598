"""Runs fault tests and prints their figures: ``python -m faults --help``; ``make faults`` starts the servers too."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import networks, nodes, places, processes, races
from faults.clusters import VARIABLES
from faults.figures import Figures
from faults.targets import NAMES, OF_ONE_SERVER, Target, target

PROJECT = Path(__file__).parents[1]
STATE = PROJECT.parent / "build" / "faults.json"  # git ignores it
OWN_SERVERS = "TEA_FAULTS_OWN_SERVERS"  # an environment variable; it is set if the tests may kill the servers
_SERVERS = tuple(name for name in OF_ONE_SERVER if not name.startswith("sqlite"))


@dataclass(frozen=True)
class Fault:
    """One fault test.

    Attributes:
        name: the number of the fault in our list of promises.
        what: a description of the fault.
        run: a function that runs a number of rounds with a seed, and counts.
        rounds: how many rounds the long form has.
        short: how many rounds the short form has.
        targets: the targets on which the test runs.
        repeats: how often the long form runs, each time on a new database.
        may_be_unknown: whether an answer may be ``unknown``.
        may_fail: whether calls may fail in another way.
        needs: an environment variable that must be set when the test runs on a server.
    """

    name: str
    what: str
    run: Callable[[Target, Figures, int, int], None]
    rounds: int
    short: int
    targets: tuple[str, ...] = OF_ONE_SERVER
    repeats: int = 1
    may_be_unknown: bool = False
    may_fail: bool = False
    needs: str = ""


FAULTS = (
    Fault("F1", "SIGKILL of the writing process", processes.kill_writers, 200, 1),
    Fault(
        "F2",
        "SIGKILL of the server under 12 writers",
        networks.kill_servers,
        20,
        1,
        _SERVERS,
        may_be_unknown=True,
        may_fail=True,
        needs=OWN_SERVERS,
    ),
    Fault("F3", "sessions ended under 8 writers", networks.kill_sessions, 1_000, 40, _SERVERS, may_be_unknown=True),
    Fault("F4", "requests and replies cut", networks.lose_replies, 500, 25, _SERVERS, may_be_unknown=True),
    Fault("F4s", "network silent in a call", networks.stall, 20, 1, _SERVERS, may_be_unknown=True),
    Fault("F5", "64 threads on a pool of 2, 100 calls a round", races.crowd_pool, 100, 3, may_fail=True),
    Fault("F6", "no space left", places.fill_disk, 5, 1, needs=places.DISK),
    Fault("F7", "batches of 20 keys in any order, by 8 writers", races.batches_in_any_order, 1_250, 10),
    Fault("F8", "32 writers, threads and processes, on 100 keys", processes.race_processes, 10, 1),
    Fault("F9", "counters through if_version, by 8 writers", races.count_up, 500, 8),
    Fault("F16", "forks beside threads", processes.fork_beside_threads, 50, 3),
    Fault("F17", "32 processes on an empty database", processes.start_cold, 8, 1, repeats=50),
    Fault(
        "F19",
        "SIGKILL of nodes of Galera under 12 writers",
        nodes.kill_nodes,
        20,
        1,
        ("galera",),
        may_be_unknown=True,
        may_fail=True,
        needs=VARIABLES["galera"],
    ),
    Fault(
        "F20",
        "SIGKILL of the primary of Group Replication under 12 writers",
        nodes.kill_primaries,
        20,
        1,
        ("group_replication",),
        may_be_unknown=True,
        may_fail=True,
        needs=VARIABLES["group_replication"],
    ),
    Fault("F21", "other time zones, and a clock that is an hour off", places.differ_in_time, 3, 1, _SERVERS),
    Fault("F22", "snapshots beside writers", races.snapshots_beside_writers, 200, 5),
)


@dataclass
class Row:
    """The result of one fault test on one target."""

    fault: str
    target: str
    seconds: float
    figures: dict[str, float]
    problems: list[str]


def run(fault: Fault, name: str, rounds: int, seed: int) -> Row:
    """Run a fault test on a target, and return its row."""
    begun, figures = time.monotonic(), Figures()
    problems: list[str] = []
    for repeat in range(fault.repeats if rounds == fault.rounds else 1):
        figures_of_repeat = Figures()
        try:
            with target(name) as database:
                fault.run(database, figures_of_repeat, rounds, seed + repeat)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
        figures.add(**figures_of_repeat.as_dict())
    problems += figures.problems(may_be_unknown=fault.may_be_unknown, may_fail=fault.may_fail)
    return Row(fault.name, name, round(time.monotonic() - begun, 1), figures.as_dict(), problems)


class State:
    """The rows so far, in a file. Rows of other sources are dropped."""

    def __init__(self, *, restart: bool) -> None:
        """Read the file."""
        digest = hashlib.sha256()
        for folder in ("src", "faults"):
            for path in sorted((PROJECT / folder).rglob("*.py")):
                digest.update(path.read_bytes())
        self._digest = digest.hexdigest()
        saved: Any = json.loads(STATE.read_text()) if STATE.exists() and not restart else {}
        rows = [Row(**row) for row in saved.get("rows", [])] if saved.get("digest") == self._digest else []
        self.rows = {(row.fault, row.target): row for row in rows}

    def add(self, row: Row) -> None:
        """Save a row. One with problems is not written to the file, so that it is run again next time."""
        self.rows[row.fault, row.target] = row
        STATE.parent.mkdir(exist_ok=True)
        right = [vars(each) for each in self.rows.values() if not each.problems]
        STATE.with_suffix(".new").write_text(json.dumps({"digest": self._digest, "rows": right}, indent=1))
        STATE.with_suffix(".new").replace(STATE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests that have not passed with these sources; print the table, and return 0 if all have passed."""
    arguments = _arguments(argv)
    chosen = [
        (fault, name)
        for fault in FAULTS
        for name in fault.targets
        if re.fullmatch(arguments.only, fault.name) and name in arguments.targets and _can_run(fault, name)
    ]
    state = State(restart=arguments.restart or arguments.short)
    print(f"seed {arguments.seed}", flush=True)
    for fault, name in chosen:
        if (fault.name, name) in state.rows:
            continue
        row = run(fault, name, fault.short if arguments.short else fault.rounds, arguments.seed)
        print(line(row), flush=True)
        if arguments.short:
            state.rows[fault.name, name] = row
        else:
            state.add(row)
    rows = [state.rows[fault.name, name] for fault, name in chosen]
    print("\n".join(["", *table(rows)]), flush=True)
    return 1 if any(row.problems for row in rows) else 0


def _can_run(fault: Fault, name: str) -> bool:
    """Return whether a fault can be tested in this process.

    ``make faults`` starts several processes, one after the other. A process that has a small disk or clusters runs only
    the tests that need them.
    """
    if fault.needs and not name.startswith("sqlite"):
        return fault.needs in os.environ
    return not any(variable in os.environ for variable in (places.DISK, *VARIABLES.values()))


def line(row: Row) -> str:
    """Return one row as a line of text."""
    figures = " ".join(f"{name} {count}" for name, count in _shown(row).items())
    mark = "WRONG" if row.problems else "ok"
    return f"{mark:5} {row.fault:4} {row.target:18} {row.seconds:>7,.1f} s  {figures}  {'; '.join(row.problems)}"


def _shown(row: Row) -> dict[str, str]:
    return {name: f"{count:,.1f}" if name == "late" else f"{count:,.0f}" for name, count in row.figures.items()}


def table(rows: Sequence[Row]) -> list[str]:
    """Return the rows as a Markdown table."""
    names = [*Figures().as_dict()]
    lines = [
        f"| | what | database | {' | '.join(names)} | seconds |",
        f"|---|---|---|{'---:|' * (len(names) + 1)}",
    ]
    what = {fault.name: fault.what for fault in FAULTS}
    for row in rows:
        counts = " | ".join(_shown(row).values())
        lines.append(f"| {row.fault} | {what[row.fault]} | {row.target} | {counts} | {row.seconds:,.0f} |")
    return lines


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--only", default=".*", help="a regular expression for the names of faults, such as 'F[123]'")
    parser.add_argument("--targets", type=_targets, default=NAMES, help=f"a list of {', '.join(NAMES)}")
    parser.add_argument("--short", action="store_true", help="run each test for a few seconds only")
    parser.add_argument("--restart", action="store_true", help="also run the tests that have passed before")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    return parser.parse_args(argv)


def _targets(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := {*names} - {*NAMES}:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
