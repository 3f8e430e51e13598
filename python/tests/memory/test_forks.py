"""Processes that are forked, spawned or started early, while other threads are in calls on SQLite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from run_length import of_this_run

pytestmark = pytest.mark.slow

FORKS = of_this_run(25, 500)
PROCESSES = """
import multiprocessing, os, sys, threading, time
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLiteBackend

kind, path = sys.argv[1], sys.argv[2]


def opened():
    return SQLiteBackend(path) if kind == "native" else SQLAlchemyBackend(f"sqlite:///{path}")


def seconds_to_end(pid, most=20):
    end = time.monotonic() + most
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False


def store(number):
    with opened() as memory:
        return memory.store(f"child {number}", number)["success"]
"""
BESIDE_CALLS = """
memory, is_over = opened(), threading.Event()


def write(number):
    while not is_over.is_set():
        with opened() as other:
            other.store(f"k{number}", "fox")
        memory.store(f"k{number}", "fox")


threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
hung = refused = 0
for number in range(int(sys.argv[3])):
    pid = os.fork()
    if pid == 0:
        try:
            with opened() as own:
                own.retrieve("k0")
            memory.retrieve("k0")
        except LTMError as failure:
            os._exit(0 if "spawn" in str(failure) else 1)
        os._exit(0)
    hung += not seconds_to_end(pid)
is_over.set()
for thread in threads:
    thread.join()
memory.close()
print(hung)
"""
IN_A_CALL = """
from the_edge_agent.memory.sqlite import forks

memory, entered, is_over = opened(), threading.Event(), threading.Event()


def stay():
    with forks.SQLiteCall():
        entered.set()
        is_over.wait()


thread = threading.Thread(target=stay)
thread.start()
entered.wait()
begun = time.monotonic()
pid = os.fork()
if pid == 0:
    result = memory.store("k", 1)
    os._exit(0 if result["error_type"] == "connection_error" and "spawn" in result["error"] else 1)
assert time.monotonic() - begun < 2
status = os.waitpid(pid, 0)[1]
is_over.set()
thread.join()
assert memory.store("k", 1)["created"] is True
memory.close()
print(status)
"""
POOLS = """
if __name__ == "__main__":
    with opened() as memory:
        memory.store("k", 1)
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                assert pool.map(store, range(4)) == [True] * 4, method
    print(0)
"""


def run(program: str, kind: str, path: Path, *arguments: object) -> str:
    file = path.with_suffix(".py")  # spawned processes import it
    file.write_text(PROCESSES + program)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(file), kind, str(path), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


kinds = pytest.mark.parametrize("kind", ["native", "sqlalchemy"])


@kinds
def test_a_child_forked_beside_calls_of_other_threads_does_not_hang(kind: str, tmp_path: Path) -> None:
    assert run(BESIDE_CALLS, kind, tmp_path / "memory.db", FORKS) == "0"


@kinds
def test_a_child_forked_in_the_middle_of_a_call_is_told_to_spawn(kind: str, tmp_path: Path) -> None:
    assert run(IN_A_CALL, kind, tmp_path / "memory.db") == "0"


@kinds
def test_processes_of_a_pool_have_connections_of_their_own(kind: str, tmp_path: Path) -> None:
    assert run(POOLS, kind, tmp_path / "memory.db") == "0"
