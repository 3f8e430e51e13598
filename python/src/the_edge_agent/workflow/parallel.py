"""Run branches of a run at the same time, each in a thread, and collect what they leave."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from threading import Event as Flag
from threading import Lock
from typing import Any, TypeAlias
from weakref import WeakSet

from the_edge_agent.workflow.actions.registry import AWAITER

Event: TypeAlias = dict[str, Any]
Emit: TypeAlias = Callable[[Event], None]


class Stopped(Exception):  # noqa: N818 - it is no fault
    """A branch ended before its time, because the run does not need it any more."""


class BranchResult(dict[str, Any]):
    """What one branch has left. Its keys can be read as attributes too.

    Keys that it does not have are looked up in the state of the branch: ``item["k"]``, ``item.k``, ``item.get("k")``
    and ``"k" in item``.

    Its keys are:

    - ``branch``: the name of the first node of the branch, or of the ``dynamic_parallel`` node.
    - ``success``: whether it reached its end.
    - ``state``: the state at its end. If it failed, the state before the node that failed.
    - ``error``: the message of the failure; None if there was none.
    - ``error_type``: the kind of failure; None if there was none.
    - ``timing_ms``: how many milliseconds it took.
    """

    def __missing__(self, key: str) -> Any:
        """Return a key of the branch's state."""
        state = dict.get(self, "state")
        if isinstance(state, dict) and key in state:
            return state[key]
        why = "" if dict.get(self, "success", True) else f"; it failed: {dict.get(self, 'error')}"
        raise KeyError(f"the branch {dict.get(self, 'branch')!r} has left no {key!r}{why}")

    def __contains__(self, key: object) -> bool:
        """Return whether this or the branch's state has a key."""
        return dict.__contains__(self, key) or key in (dict.get(self, "state") or ())

    def get(self, key: str, default: Any = None) -> Any:
        """Return a key of this or of the branch's state, or ``default``."""
        try:
            return self[key]
        except KeyError:
            return default

    def __getattr__(self, name: str) -> Any:
        """Return a key of this or of the branch's state."""
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None


class Stop:
    """Tells the branches of one fan-out, and those within them, to end before their next node. For several threads."""

    def __init__(self, outer: Stop | None = None) -> None:
        """Make a signal that is given with ``outer`` too."""
        self._flag = Flag()
        self._lock = Lock()
        self._inner: WeakSet[Stop] = WeakSet()
        if outer is not None:
            outer._add(self)

    def _add(self, inner: Stop) -> None:
        with self._lock:
            self._inner.add(inner)
            is_set = self._flag.is_set()
        if is_set:
            inner.set()

    def set(self) -> None:
        """Give the signal."""
        with self._lock:
            self._flag.set()
            inner = list(self._inner)
        for stop in inner:
            stop.set()

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: the signal was given.
        """
        if self._flag.wait(seconds):
            raise Stopped


Job: TypeAlias = Callable[[Stop, Emit], BranchResult]
"""Runs one branch to its end. It passes on its events, and raises only what ends the whole run."""


def fan_out(jobs: Sequence[Job], *, limit: int, stop: Stop) -> Generator[Event, None, list[BranchResult]]:
    """Run branches in threads and yield their events. When this generator ends or is closed, no thread is left.

    Each branch gets a copy of the caller's context. In an asynchronous program all events come after the last branch
    has ended, because there nothing may run between two events. Asynchronous actions are awaited on the event loop.

    Args:
        jobs: the branches.
        limit: how many run at a time.
        stop: ends the branches. It is set when this generator ends.

    Returns:
        What the branches have left, in the order of ``jobs``.

    Raises:
        BaseException: what a branch raised, such as KeyboardInterrupt.
    """
    events: SimpleQueue[Event | None] = SimpleQueue()  # None: a branch has ended
    futures: list[Future[BranchResult]] = []
    contexts = [copy_context() for _ in jobs]
    pool = ThreadPoolExecutor(max(1, min(limit, len(jobs))), thread_name_prefix="branch")

    def begin(prepare: Callable[[], object], at_end: Callable[[], object]) -> None:
        for job, context in zip(jobs, contexts, strict=True):
            future = pool.submit(_in_context, context, prepare, partial(job, stop, events.put))
            futures.append(future)
            future.add_done_callback(partial(_ended, stop, at_end))

    try:
        awaiter = AWAITER.get()
        if awaiter is None or not jobs:
            begin(lambda: None, lambda: events.put(None))
            left = len(jobs)
            while left:
                event = events.get()
                if event is None:
                    left -= 1
                else:
                    yield event
        else:
            from the_edge_agent.workflow.aio import serve_threads  # here, because other programs do not need anyio

            awaiter(serve_threads(begin, len(jobs)))
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    results = [future.result() for future in futures]
    while not events.empty():
        if (event := events.get()) is not None:
            yield event
    return results


def _in_context(context: Context, prepare: Callable[[], object], job: Callable[[], BranchResult]) -> BranchResult:
    context.run(prepare)
    return context.run(job)


def _ended(stop: Stop, at_end: Callable[[], object], future: Future[BranchResult]) -> None:
    if future.cancelled() or future.exception() is not None:
        stop.set()
    at_end()
