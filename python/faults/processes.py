"""Faults of processes: killed writers, many processes that start at once, forks while other threads are in calls."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from faults.figures import Figures, Writer
from faults.targets import Target

_COLD = 32  # how many processes start at once
_MOST = 60.0  # how many seconds they may take

# Programs for other processes, started as `python -c PROGRAM name url ...`.
_WRITING = """
import sys
from faults.targets import opened
memory = opened(*sys.argv[1:3])
for number in range(int(sys.argv[3]) + 1, 10**9):
    value = {"number": number, "text": f"fox{number}"}
    assert memory.store("single", value)["success"]
    print("single", number, flush=True)
    assert memory.store_many([{"key": f"batch/{place}", "value": value} for place in range(5)])["success"]
    print("batch", number, flush=True)
"""
_STARTING = """
import sys
from faults.targets import opened
with opened(*sys.argv[1:3], pool_size=1) as memory:
    sys.exit(not memory.store(sys.argv[3], 1).get("created"))
"""
_FORKING = """
import os, signal, sys, threading, time, warnings
from faults.targets import opened
warnings.simplefilter("ignore", DeprecationWarning)
name, url, forks = sys.argv[1:4]
memory, is_over, failures = opened(name, url), threading.Event(), []


def write(number):
    while not is_over.is_set():
        time.sleep(0.001)  # its connection waits in the pool meanwhile
        result = memory.store(f"parent {number}", number)
        if not result["success"]:
            failures.append(result)


def child(number):
    result = memory.store(f"child {number}", number)
    if "spawn" in result.get("error", ""):
        return 0
    stored = memory.retrieve(f"child {number}")
    return 0 if result.get("created") and stored.get("value") == number else 1


memory.store("first", 1)
threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
wrong = 0
for number in range(int(forks)):
    pid = os.fork()
    if pid == 0:
        os._exit(child(number))
    end = time.monotonic() + 40
    while not (pid_and_status := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    wrong += pid_and_status[1] != 0
is_over.set()
for thread in threads:
    thread.join()
memory.close()
print(wrong, len(failures))
"""


def started(program: str, target: Target, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that runs a program with the name and the URL of a target."""
    command = [sys.executable, "-c", program, target.name, target.url, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_writers(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F1: kill a process that writes, at random moments, and check what the database has."""
    moments, done = random.Random(seed), 0
    acknowledged = {"single": 0, "batch": 0}  # the highest acknowledged number of each kind, 0 for none
    with target.open() as memory:
        for _ in range(rounds):
            with started(_WRITING, target, done) as process:
                assert process.stdout
                lines = [process.stdout.readline()]  # wait until it has written once
                time.sleep(moments.uniform(0, 0.3))
                process.kill()
                lines += process.stdout.readlines()
            for line in lines:
                if line.endswith("\n"):  # otherwise the process was killed while it printed the line
                    kind, number = line.split()
                    acknowledged[kind] = int(number)
            figures.add(faults=1, acknowledged=len(lines))
            highest = _look(memory, figures, acknowledged)
            done = max(done, *acknowledged.values(), highest)
        if not target.is_server:
            with sqlite3.connect(target.path) as connection:
                if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                    figures.add(wrong=1)
            connection.close()


def _look(memory: object, figures: Figures, acknowledged: dict[str, int]) -> int:
    """Compare the entries with the acknowledged numbers; return the highest number in the database."""
    keys = ["single", *(f"batch/{place}" for place in range(5))]
    entries = memory.retrieve_many(keys)["entries"]  # type: ignore[attr-defined]
    single, *batch = ((entries[key] or {"value": {"number": 0}})["value"]["number"] for key in keys)
    if len({*batch}) > 1:
        figures.add(half=1)
    if single < acknowledged["single"] or batch[0] < acknowledged["batch"]:
        figures.add(lost=1)
    for number in {single, batch[0]} - {0}:
        results = memory.search(f"fox{number}", limit=10)["results"]  # type: ignore[attr-defined]
        expected = [key for key, value in zip(keys, (single, *batch), strict=True) if value == number]
        if sorted(entry["key"] for entry in results) != sorted(expected):
            figures.add(wrong=1)
    return int(max(single, batch[0]))


def start_cold(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F17: start many processes at once on an empty database; each stores one key."""
    processes = min(_COLD, 4 * rounds)
    begun = time.monotonic()
    children = [started(_STARTING, target, f"process {number}") for number in range(processes)]
    for child in children:
        child.communicate()
        figures.add(faults=1, **{"reached" if child.returncode else "acknowledged": 1})
    figures.add(late=time.monotonic() - begun - _MOST)
    with target.open() as memory:
        figures.add(lost=figures.acknowledged - memory.count()["count"])


def fork_beside_threads(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F16: fork while other threads are in calls; the child stores and reads."""
    process = started(_FORKING, target, rounds)
    output, _ = process.communicate()
    if process.returncode:
        figures.add(wrong=1)
        return
    wrong, failures = map(int, output.split())
    figures.add(faults=rounds, wrong=wrong, reached=failures)


def race_processes(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F8: threads and processes store the same keys. Each key must be created once, and each store must count."""
    keys, writers = min(100, 10 * rounds), min(32, 4 * rounds)
    with target.open(pool_size=4) as memory, ThreadPoolExecutor(writers) as threads:
        memory.count()
        children = [started(_RACING, target, keys) for _ in range(writers // 4)]
        totals = [*threads.map(lambda _: _race(memory, keys), range(writers - len(children)))]
        for child in children:
            output, _ = child.communicate()
            totals.append((int(output.split()[0]), int(output.split()[1])) if not child.returncode else (0, 0))
            figures.add(wrong=int(child.returncode != 0))
        stored, created = (sum(column) for column in zip(*totals, strict=True))
        entries = memory.retrieve_many([f"k{number}" for number in range(keys)])["entries"].values()
        versions = sum(entry["version"] for entry in entries if entry)
        figures.add(faults=writers * keys, acknowledged=stored, reached=writers * keys - stored)
        figures.add(wrong=int(created != keys) + int(versions != stored))


_RACING = """
import sys
from faults.processes import _race
from faults.targets import opened
with opened(*sys.argv[1:3]) as memory:
    print(*_race(memory, int(sys.argv[3])))
"""


def _race(memory: object, keys: int) -> tuple[int, int]:
    """Store each key once, in a random order; return how many stores succeeded, and how many created the key."""
    order = [*range(keys)]
    random.shuffle(order)
    results = [memory.store(f"k{number}", os.getpid()) for number in order]  # type: ignore[attr-defined]
    return sum(each["success"] for each in results), sum(each.get("created", False) for each in results)


def write_all(writers: Sequence[Writer], is_over: threading.Event) -> None:
    """Let each writer write in its own thread until ``is_over`` is set."""

    def write(writer: Writer) -> None:
        while not is_over.is_set():
            writer.write()

    with ThreadPoolExecutor(len(writers)) as threads:
        for future in [threads.submit(write, writer) for writer in writers]:
            future.result()
