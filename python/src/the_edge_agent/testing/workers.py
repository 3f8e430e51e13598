"""Run work in threads or processes that start at the same moment."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import pytest

from the_edge_agent.testing.contract import ContractBase

PROCESSES: Final = 4
PATIENCE: Final = 120.0  # seconds; a test that hangs fails after this time

Answer = TypeVar("Answer")

_POOL: Final = pytest.StashKey[ProcessPoolExecutor]()

_meeting: Any = None  # the barrier at which the processes of a pool wait for each other


class Workers:
    """The fixture for rules that need other processes."""

    @pytest.fixture(scope="session")
    @classmethod
    def workers(cls, pytestconfig: pytest.Config) -> ProcessPoolExecutor:
        """Return a pool of new processes. All classes share it, because starting processes takes long."""
        return shared_pool(pytestconfig)


class WorkerRules(Workers, ContractBase):
    """Rules of long-term memory that need other processes."""


def shared_pool(config: pytest.Config) -> ProcessPoolExecutor:
    """Return the pool of this run of pytest. Its processes start when they are first used, and end with the run."""
    if _POOL not in config.stash:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(PROCESSES)
        pool = ProcessPoolExecutor(PROCESSES, context, initializer=_join, initargs=(barrier,))
        config.add_cleanup(pool.shutdown)
        config.stash[_POOL] = pool
    return config.stash[_POOL]


def run_together(pool: Executor, work: Callable[..., Answer], arguments: Sequence[tuple[Any, ...]]) -> list[Answer]:
    """Call ``work`` with each tuple of arguments in a process of its own; return the answers in order."""
    together = len(arguments) == PROCESSES
    futures = [pool.submit(_start, work, each, together) for each in arguments]
    return [future.result(PATIENCE) for future in futures]


def run_in_threads(work: Callable[..., Answer], arguments: Sequence[tuple[Any, ...]]) -> list[Answer]:
    """Call ``work`` with each tuple of arguments in a thread of its own, all at once; return the answers in order."""
    barrier = threading.Barrier(len(arguments))

    def run(each: tuple[Any, ...]) -> Answer:
        barrier.wait(PATIENCE)
        return work(*each)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, each) for each in arguments]]


def _join(barrier: Any) -> None:
    global _meeting
    _meeting = barrier


def _start(work: Callable[..., Answer], arguments: tuple[Any, ...], together: bool) -> Answer:
    if together:
        _meeting.wait(PATIENCE)
    return work(*arguments)
