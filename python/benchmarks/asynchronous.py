"""Compares ``AsyncMemory`` with threads: the throughput of many tasks, and what one call costs more.

    python -m benchmarks.asynchronous sqlite:///memory.db postgresql://... mysql://...

The throughput is that of 200 tasks, beside as many threads as the pool has connections, on the same memory, in turns.
Each reads three times and stores once, keys of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import anyio

from the_edge_agent.memory import LTMBackend, create_ltm_backend
from the_edge_agent.memory.aio import AsyncMemory

TASKS: Final = 200
_READS: Final = 3  # for each store
_VALUE: Final = {"likes": "red foxes", "since": 1843, "notes": ["a", "b", "c"]}
_CALLS: Final = 2000  # of one caller


def connections_of(memory: LTMBackend) -> int:
    """Return how many connections the pool of a memory may have."""
    count: int = getattr(memory, "_most_at_once", 10)
    return count


def of_threads(memory: LTMBackend, seconds: float) -> float:
    """Return the calls per second of as many threads as the pool has connections."""
    end = time.monotonic() + seconds

    def work(number: int) -> int:
        calls = 0
        while time.monotonic() < end:
            memory.store(f"thread {number}", _VALUE)
            for _ in range(_READS):
                memory.retrieve(f"thread {number}")
            calls += 1 + _READS
        return calls

    count = connections_of(memory)
    with ThreadPoolExecutor(count) as threads:
        return sum(threads.map(work, range(count))) / seconds


async def of_tasks(memory: LTMBackend, seconds: float) -> float:
    """Return the calls per second of many tasks."""
    asynchronous, calls = AsyncMemory(memory), [0]
    end = time.monotonic() + seconds

    async def work(number: int) -> None:
        while time.monotonic() < end:
            await asynchronous.store(f"task {number}", _VALUE)
            for _ in range(_READS):
                await asynchronous.retrieve(f"task {number}")
            calls[0] += 1 + _READS

    async with anyio.create_task_group() as tasks:
        for number in range(TASKS):
            tasks.start_soon(work, number)
    return calls[0] / seconds


def of_a_call(memory: LTMBackend) -> float:
    """Return the seconds of one call of a thread."""
    began = time.perf_counter()
    for _ in range(_CALLS):
        memory.retrieve("thread 0")
    return (time.perf_counter() - began) / _CALLS


async def of_an_awaited_call(memory: LTMBackend) -> float:
    """Return the seconds of one call of a task."""
    asynchronous = AsyncMemory(memory)
    began = time.perf_counter()
    for _ in range(_CALLS):
        await asynchronous.retrieve("thread 0")
    return (time.perf_counter() - began) / _CALLS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="URL", help="a database; some entries are stored there")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    for url in options.urls:
        with create_ltm_backend(url=url, errors="raise") as memory:
            throughputs, calls = [], []
            for _ in range(options.rounds):
                throughputs.append((of_threads(memory, options.seconds), anyio.run(of_tasks, memory, options.seconds)))
                calls.append((of_a_call(memory), anyio.run(of_an_awaited_call, memory)))
            threads, tasks = (statistics.median(values) for values in zip(*throughputs, strict=True))
            ratio = statistics.median(of_tasks / of_threads for of_threads, of_tasks in throughputs)
            alone, awaited = (statistics.median(values) * 1e6 for values in zip(*calls, strict=True))
            print(
                f"{url.split(':')[0]}: {connections_of(memory)} threads {threads:.0f} calls/s, {TASKS} tasks "
                f"{tasks:.0f} calls/s, ratio {ratio:.2f}; one call {alone:.0f} us, awaited {awaited:.0f} us"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
