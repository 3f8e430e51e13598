"""Faults of the machine: full disks, and clocks and time zones that differ."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from faults.figures import Figures, Writer, patient
from faults.targets import Target
from the_edge_agent.memory.core.results import succeeded

DISK = "TEA_FAULTS_DISK"  # an environment variable: the folder of the small file system on which a server runs
_ROOM = 3_000_000  # how many bytes are left free
_MOST_WRITES = 20_000
_FILLING = """
import sys
from pathlib import Path
from faults.places import files_without_room, fill
from faults.targets import Target
target = Target(*sys.argv[1:3])
print(fill(target, files_without_room(Path(target.path)), sys.argv[3]))
"""
# A client whose clock is some hours off, in another time zone than the server. Lifetimes must follow the server's time.
_ELSEWHERE = """
import datetime, os, sys, time
real, ahead = datetime.datetime, datetime.timedelta(hours=int(sys.argv[4]))


class AnyMoment(type):
    def __instancecheck__(cls, value):
        return isinstance(value, real)


class Ahead(real, metaclass=AnyMoment):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + ahead

    @classmethod
    def utcnow(cls):
        return real.now(datetime.timezone.utc).replace(tzinfo=None) + ahead


datetime.datetime = Ahead
from faults.places import look_at_clocks
from faults.targets import Target
print(look_at_clocks(Target(*sys.argv[1:3]), sys.argv[3]))
"""
# The zone of the client and of the server, and by how many hours the clock of the client is off.
_ZONES = (("Pacific/Kiritimati", "+05:30", 1), ("America/St_Johns", "-09:30", -1), ("UTC", "+13:00", 1))


def fill_disk(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F6: let writes fail because there is no space, make room, and write again.

    A server must run on a small file system, which a large file fills. For SQLite, another process writes, and the
    operating system limits the size of its files.
    """
    for number in range(rounds):
        prefix = f"{number}/"
        if target.is_server:
            wrong = fill(target, _disk_without_room(Path(os.environ[DISK])), prefix)
        else:
            command = [sys.executable, "-c", _FILLING, target.name, target.url, prefix]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            wrong = int(done.stdout) if not done.returncode else 1
        figures.add(faults=1, wrong=wrong)


def fill(target: Target, without_room: AbstractContextManager[None], prefix: str) -> int:
    """Write in a context without room until a write fails, then write again; return how many things were wrong.

    All keys begin with ``prefix``. The large entries are deleted at the end, so that the next round has room.
    """
    figures = Figures()
    with target.open() as memory:
        patient(memory.count)
        writer = Writer(memory, f"{prefix}full", figures)
        writer.write()
        with without_room:
            failure = _first_failure(memory, prefix)
        wrong = int(failure.get("error_type") not in ("query_error", "connection_error"))
        writer.look()
        patient(lambda: memory.store("room", 1))
        writer.write()
        large = succeeded(memory.list_keys(prefix=f"{prefix}large/", limit=10_000))["keys"]
        checked = memory.search("fox")["success"] and memory.delete_many(large).get("deleted_count") == len(large)
    return wrong + int(not checked) + figures.wrong + figures.lost + figures.reached


@contextmanager
def _disk_without_room(folder: Path) -> Iterator[None]:
    """Fill a file system with one large file, except for a few bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(folder).free - _ROOM))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def files_without_room(path: Path) -> Iterator[None]:
    """Limit the size of this process's files to little more than the largest file in the folder of ``path``."""
    largest = max(file.stat().st_size for file in path.parent.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + _ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _first_failure(memory: Any, prefix: str) -> Any:
    """Write entries until one fails, and return that failure."""
    for number in range(_MOST_WRITES):
        result = memory.store(f"{prefix}large/{number}", "x" * 200_000)
        if not result["success"]:
            return result
    return {}


def differ_in_time(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F21: client and server have different time zones, and the clock of the client is an hour off."""
    for zone, session, hours in _ZONES[:rounds]:
        command = [sys.executable, "-c", _ELSEWHERE, target.name, target.url, session, str(hours)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, "TZ": zone})
        figures.add(faults=1, wrong=int(done.stdout) if not done.returncode else 1)


def look_at_clocks(target: Target, zone: str) -> int:
    """Check lifetimes, snapshots and times in another time zone; return how many things were wrong."""
    options: dict[str, Any] = {}
    if target.name.startswith("postgresql"):
        target.run(f"ALTER DATABASE {make_url(target.url).database} SET timezone = '{zone}'")
    else:
        options = {"connect_args": {"init_command": f"SET time_zone = '{zone}'"}}
    catalog = "postgres" if target.is_native else "sqlalchemy"
    wrong = 0
    with target.open(catalog=catalog, **options) as memory:
        now = _server_time(target)
        assert abs(datetime.now(timezone.utc) - now) > timedelta(minutes=50)
        memory.store("always", 1)
        memory.store("short", 1, ttl=1.5)
        memory.store("until", 1, expires_at=now + timedelta(seconds=1.5))
        wrong += memory.count()["count"] != 3
        snapshot = memory.catalog.create_snapshot("one")
        memory.store("after", 1)
        wrong += [entry["key"] for entry in memory.catalog.get_changed_entries(snapshot)] != ["after"]
        wrong += memory.search()["results"][0]["key"] != "after"  # the newest
        for entry in memory.iterate_entries():
            wrong += abs(entry["updated_at"] - now) > timedelta(seconds=30)
        time.sleep(2)
        wrong += memory.count()["count"] != 2
        wrong += memory.cleanup_expired()["deleted_count"] != 2
        for name in ("always", "after"):
            memory.delete(name)
        memory.catalog.delete_snapshot(snapshot)
    return int(wrong)


def _server_time(target: Target) -> Any:
    query = {"postgresql": "SELECT extract(epoch FROM now())"}.get(
        target.name.partition("-")[0], "SELECT unix_timestamp(now(6))"
    )
    return datetime.fromtimestamp(float(target.ask(query)), timezone.utc)
