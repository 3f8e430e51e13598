"""``CallRecorder``: counts and times the calls of one memory or catalog, and tells its listeners about each."""

from __future__ import annotations

import logging
import os
import threading
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from threading import get_ident
from typing import Any, Final, Protocol
from weakref import WeakSet

CALLS: Final = "the_edge_agent.memory.calls"  # the logger that gets a line a call, at DEBUG
MOST_SLOWEST: Final = 10  # calls that ``stats`` lists

_calls_logger: Final = logging.getLogger(CALLS)
_logger: Final = logging.getLogger("the_edge_agent.memory")
_recorders: WeakSet[CallRecorder] = WeakSet()


@dataclass(eq=False)
class CallEvent:
    """A call of a memory or a catalog. It has no keys, values, metadata, queries or names of namespaces.

    Attributes:
        operation: the name of the method, such as ``search``; ``transaction`` for a commit. The methods of catalogs
            begin with ``catalog.``.
        system: the kind of database: ``sqlite``, ``postgresql``, ``mysql``, ``mariadb`` or another; empty if unknown.
        database: the name of the database, or of the file without its folder; empty if unknown.
        table: the table of the entries; empty if unknown.
        depth: how many names the namespace has whose method was called; 0 for the whole memory.
        started_at: when the call began, in UTC.
        is_iteration: whether this is an iteration, which runs from its first to its last item.
        seconds: how long the call took. An iteration includes the work of the program between two items.
        rows: how many entries (of ``list_namespaces``: namespaces; of snapshots: snapshots) the call returned or
            changed.
        retries: how often a transaction ran again, or a lost connection was replaced.
        error_type: the ``error_type`` of the failure, or the name of another exception; None for a success.
    """

    operation: str
    system: str
    database: str
    table: str
    depth: int
    started_at: datetime
    is_iteration: bool = False
    seconds: float = 0.0
    rows: int = 0
    retries: int = 0
    error_type: str | None = None


class CallListener(Protocol):
    """Is told about each call of a memory or catalog, in the thread of the call. It must be quick.

    An exception that it raises is logged once, and does not change the call. Calls of the same memory that a listener
    makes are not recorded.
    """

    def call_started(self, event: CallEvent) -> None:
        """Take a call that begins. ``call_ended`` gets the same object."""
        ...

    def call_ended(self, event: CallEvent) -> None:
        """Take a call that has ended: its event is complete now."""
        ...


class Totals:
    """The sums of the calls of one operation; see ``CallRecorder.calls``."""

    __slots__ = ("count", "failed", "retries", "rows", "seconds", "slowest_seconds")

    def __init__(self) -> None:
        """Begin with zeros."""
        self.count = self.failed = self.retries = self.rows = 0
        self.seconds = self.slowest_seconds = 0.0

    def add(self, seconds: float, rows: int, retries: int, *, is_failure: bool) -> None:
        """Add a call."""
        self.count += 1
        self.failed += is_failure
        self.retries += retries
        self.rows += rows
        self.seconds += seconds
        self.slowest_seconds = max(self.slowest_seconds, seconds)

    def merge(self, other: Totals) -> None:
        """Add the calls of another thread."""
        self.count += other.count
        self.failed += other.failed
        self.retries += other.retries
        self.rows += other.rows
        self.seconds += other.seconds
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)


retries: Final[dict[int, int]] = {}  # of the calls that run now, by the number of their thread


def note_retry() -> None:
    """Count that the transaction of this thread's call runs again, or that its lost connection is replaced."""
    thread = get_ident()
    retries[thread] = retries.get(thread, 0) + 1


def retries_of(thread: int) -> int:
    """Return how often the call of a thread was repeated, and forget it."""
    return retries.pop(thread, 0) if retries else 0


@dataclass(order=True)
class _Slow:
    seconds: float
    operation: str = field(compare=False)
    at: datetime = field(compare=False)


class CallRecorder:
    """The calls of one memory with its namespaces, or of one catalog. Many threads may use it.

    A copy, also by pickle, is a new recorder without calls and listeners. So is that of a forked child.

    Attributes:
        since: when the recorder began, in UTC.
        totals: the sums, by the number of a thread and the operation. Each thread changes its own alone, because a lock
            would take a fifth of a microsecond.
        threshold: a call that took no longer than so many seconds is not among the slowest.
        listeners: the listeners, in the order in which they were added.
        inside: the numbers of the threads that are in a recorded call. What they call there does not count. This is
            faster than a ``threading.local``.
    """

    def __init__(self) -> None:
        """Begin to record."""
        self.listeners: tuple[CallListener, ...] = ()
        self.start_anew()
        _recorders.add(self)

    def start_anew(self) -> None:
        """Forget all calls. The listeners stay."""
        self._lock = threading.RLock()  # a signal handler may make a call while its thread has the lock
        self.since = datetime.now(timezone.utc)
        self.totals: defaultdict[tuple[int, str], Totals] = defaultdict(Totals)
        self.inside: set[int] = set()
        self.threshold = 0.0
        self._slowest: list[_Slow] = []  # the fastest of them is first
        self._failed_listeners: list[CallListener] = []

    def record(self, operation: str, seconds: float, rows: int, retries: int, error_type: str | None) -> None:
        """Count a call that has ended."""
        totals = self.totals[get_ident(), operation]
        totals.add(seconds, rows, retries, is_failure=error_type is not None)
        if seconds > self.threshold:
            self._keep_slow(operation, seconds)

    def _keep_slow(self, operation: str, seconds: float) -> None:
        slow = _Slow(seconds, operation, datetime.now(timezone.utc) - timedelta(seconds=seconds))
        with self._lock:
            insort(self._slowest, slow)
            if len(self._slowest) > MOST_SLOWEST:
                del self._slowest[0]
            if len(self._slowest) == MOST_SLOWEST:
                self.threshold = self._slowest[0].seconds

    def calls(self) -> dict[str, dict[str, Any]]:
        """Return the sums by operation, in the order of their names."""
        sums: defaultdict[str, Totals] = defaultdict(Totals)
        for (_, operation), totals in self.totals.copy().items():
            sums[operation].merge(totals)
        return {name: {each: getattr(sums[name], each) for each in Totals.__slots__} for name in sorted(sums)}

    def slowest(self) -> list[dict[str, Any]]:
        """Return the slowest calls, slowest first."""
        with self._lock:
            slow = self._slowest[::-1]
        return [{"operation": each.operation, "seconds": each.seconds, "at": each.at} for each in slow]

    def add_listener(self, listener: CallListener) -> None:
        """Tell a listener about each call from now on. Adding it again changes nothing."""
        with self._lock:
            if listener not in self.listeners:
                self.listeners = (*self.listeners, listener)

    def remove_listener(self, listener: CallListener) -> None:
        """Tell a listener about no further call. Removing one that was not added does nothing."""
        with self._lock:
            self.listeners = tuple(each for each in self.listeners if each is not listener)

    def tell(self, method: str, event: CallEvent) -> None:
        """Call a method of each listener. A failure of a listener is logged once."""
        for listener in self.listeners:
            try:
                getattr(listener, method)(event)
            except Exception:
                with self._lock:
                    is_first = not any(each is listener for each in self._failed_listeners)
                    if is_first:
                        self._failed_listeners.append(listener)
                if is_first:
                    _logger.exception(
                        "a listener of calls has failed; this is logged once: %s", type(listener).__name__
                    )

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Do not record calls that this thread makes in the block."""
        thread, inside = get_ident(), self.inside
        is_inside = thread in inside
        inside.add(thread)
        try:
            yield
        finally:
            if not is_inside:
                inside.discard(thread)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a new recorder: the calls and the listeners belong to this process."""
        return CallRecorder, ()


def log_call(operation: str, seconds: float, rows: int, retries: int, error_type: str | None) -> None:
    """Write the line of a call into the log, at DEBUG."""
    milliseconds = round(seconds * 1000, 3)
    _calls_logger.debug(
        "%s %s in %.3f ms, rows: %d, retries: %d",
        operation,
        "succeeded" if error_type is None else f"failed ({error_type})",
        milliseconds,
        rows,
        retries,
        extra={
            "operation": operation,
            "milliseconds": milliseconds,
            "rows": rows,
            "retries": retries,
            "error_type": error_type,
        },
    )


def _after_fork() -> None:
    retries.clear()
    for recorder in list(_recorders):
        recorder.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
