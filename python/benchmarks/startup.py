"""Start-up in new interpreters: the import, the opening, and the first call, each in milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Final

STEPS: Final = ("import", "open", "first call")
_PROGRAM: Final = """
import json, sys, time
place = sys.stdin.read()
clock = time.perf_counter
def do(source):
    start = clock()
    exec(source, globals())
    return (clock() - start) * 1000
print(json.dumps([do(source) for source in {sources!r}]))
if "memory" in globals():
    memory.close()
"""


@dataclass(frozen=True)
class Start:
    """One start-up: programs for the import, the opening and the first call. Their variable ``place`` is the place."""

    title: str
    module: str
    imports: str
    opens: str = ""
    calls: str = ""


_MEMORY: Final = "from the_edge_agent.memory import {}"
_CALL: Final = "memory.retrieve('note/00000000')"


def _ours(name: str, place: str) -> list[Start]:
    module, loads = "sqlalchemy" if name == "SQLAlchemyBackend" else "the_edge_agent", _MEMORY.format(name)
    return [
        Start(f"{name}, {kind}", module, loads, f"memory = {name}({place}, lazy={kind == 'lazy'})", _CALL)
        for kind in ("lazy", "eager")
    ]


_ON_MYSQL: Final = (
    Start(
        "bare driver",
        "pymysql",
        "import pymysql, urllib.parse",
        "p = urllib.parse.urlsplit(place); c = pymysql.connect(host=p.hostname, port=p.port, user=p.username, "
        "password=p.password, database=p.path[1:], autocommit=True).cursor()",
        "c.execute('SELECT value FROM ltm_entries WHERE `key` = %s', ('note/00000000',)); c.fetchall()",
    ),
    *_ours("SQLAlchemyBackend", "place"),
)
STARTS: Final[Mapping[str, tuple[Start, ...]]] = {
    "sqlite": (
        Start("the_edge_agent.memory", "the_edge_agent", "import the_edge_agent.memory"),
        Start(
            "bare driver",
            "sqlite3",
            "import sqlite3",
            "c = sqlite3.connect(place, isolation_level=None)",
            "c.execute('SELECT value FROM ltm_entries WHERE key = ?', ('note/00000000',)).fetchall()",
        ),
        *_ours("SQLAlchemyBackend", "'sqlite:///' + place"),
        *_ours("SQLiteBackend", "place"),
    ),
    "postgresql": (
        Start(
            "bare driver",
            "psycopg",
            "import psycopg",
            "c = psycopg.connect(place.replace('+psycopg://', '://'), autocommit=True)",
            "c.execute('SELECT value FROM ltm_entries WHERE key = %s', ('note/00000000',)).fetchall()",
        ),
        *_ours("SQLAlchemyBackend", "place"),
        *_ours("PostgresBackend", "place.replace('+psycopg://', '://')"),
    ),
    "mysql": _ON_MYSQL,
    "mariadb": _ON_MYSQL,
}


def starts(database: str, place: str, repetitions: int) -> dict[str, dict[str, float]]:
    """Return the medians by start-up and step.

    Args:
        database: the database whose start-ups are measured.
        place: the place of a memory that has entries.
        repetitions: how often each start-up is measured; the repetitions are interleaved.
    """
    installed = [start for start in STARTS[database] if find_spec(start.module)]
    times: dict[str, list[list[float]]] = {start.title: [] for start in installed}
    for _ in range(repetitions):
        for start in installed:
            times[start.title].append(_times(start, place))
    return {
        title: dict(zip(STEPS, map(median, zip(*rows, strict=True)), strict=False)) for title, rows in times.items()
    }


def _times(start: Start, place: str) -> list[float]:
    program = _PROGRAM.format(sources=[source for source in (start.imports, start.opens, start.calls) if source])
    done = subprocess.run([sys.executable, "-c", program], input=place, stdout=subprocess.PIPE, text=True, check=True)
    milliseconds: list[float] = json.loads(done.stdout)
    return milliseconds
