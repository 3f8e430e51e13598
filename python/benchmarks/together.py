"""Four workers at once, with four gets to each update: threads that share a player, or processes with one each."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, Final, TypeAlias

from benchmarks.contenders import Contender
from benchmarks.player import Player
from benchmarks.timing import PLACES
from benchmarks.workload import Entry, Workload

WORKERS: Final = 4
_EVERY: Final = 5  # every fifth call is an update
_ACTIONS: Final = 500  # how many actions a worker prepares and then repeats
_PATIENCE: Final = 120.0  # seconds in which a process must open its player

Action: TypeAlias = str | Entry


def actions(workload: Workload, worker: int) -> list[Action]:
    """Return the actions of a worker: a key to get, or an entry to update."""
    numbers = [workload.number(worker * PLACES // WORKERS + place) for place in range(_ACTIONS)]
    return [
        workload.entry(number, edition=worker + 1) if place % _EVERY == _EVERY - 1 else workload.key(number)
        for place, number in enumerate(numbers)
    ]


def work(player: Player, todo: Sequence[Action], seconds: float) -> tuple[int, float]:
    """Repeat the actions until a time is over; return how many were done, and the seconds."""
    get, put, count, start = player.get, player.put, 0, perf_counter()
    while True:
        for action in todo:
            if isinstance(action, str):
                get(action)
            else:
                put(action)
            count += 1
            taken = perf_counter() - start
            if taken > seconds:
                return count, taken


def by_threads(player: Player, workload: Workload, seconds: float) -> float:
    """Return the calls per second of four threads together."""
    barrier = threading.Barrier(WORKERS)
    rates: list[float] = []
    problems: list[BaseException] = []

    def run(worker: int) -> None:
        try:
            todo = actions(workload, worker)
            player.get(workload.key(0))  # opens the connection of this thread, which is not measured
            barrier.wait()
            count, taken = work(player, todo, seconds)
            rates.append(count / taken)
        except BaseException as error:
            problems.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise next((each for each in problems if not isinstance(each, threading.BrokenBarrierError)), problems[0])
    return sum(rates)


class Processes:
    """Four processes that have opened their players, and wait for the message to work."""

    def __init__(self, contender: Contender, place: str, size: int) -> None:
        """Start the processes."""
        context = multiprocessing.get_context("spawn")  # no connection is shared with this process
        self._ends: list[Connection] = []
        self._processes: list[Any] = []
        for worker in range(WORKERS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_wait_and_work, args=(contender, place, size, worker, theirs), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)
        for end in self._ends:
            if not end.poll(_PATIENCE) or end.recv() != "ready":
                self.close()
                raise RuntimeError(f"{contender.title}: a process could not open it")

    def rate(self, seconds: float) -> float:
        """Return the sum of the calls per second of all processes."""
        for end in self._ends:
            end.send(seconds)
        return sum(float(end.recv()) for end in self._ends)

    def close(self) -> None:
        """End the processes."""
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _wait_and_work(contender: Contender, place: str, size: int, worker: int, end: Connection) -> None:
    player = contender.load()(place)
    try:
        workload = Workload(size)
        todo = actions(workload, worker)
        player.get(workload.key(0))
        end.send("ready")
        while True:
            seconds = end.recv()
            count, taken = work(player, todo, seconds)
            end.send(count / taken)
    except (EOFError, BrokenPipeError):
        pass
    finally:
        player.close()
