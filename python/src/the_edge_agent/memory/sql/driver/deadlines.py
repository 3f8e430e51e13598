"""Deadlines: every call ends in time, even if the driver would wait longer."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Final, TypeVar
from weakref import ref

from the_edge_agent.memory.core import cancelling
from the_edge_agent.memory.core.in_time import TimedOutError, call_in_time

Answer = TypeVar("Answer")
Row = TypeVar("Row")

_TICK: Final = 0.2  # seconds between two checks of the running calls; a call may end this much too late

_local = threading.local()


class DeadlineError(Exception):
    """The time for a call is over."""


class Deadline:
    """The time for one call, as a context manager. When the time is over, it stops the connections that the call uses.

    Not every driver can limit every wait. So one thread of the process checks all running calls. If the time of a call
    is over, the thread stops its connections, and then the driver raises an error.
    """

    def __init__(self, seconds: float) -> None:
        """Start the time now."""
        self.seconds = seconds
        self.expired = False
        self._begun = time.monotonic()
        self.end = min(self._begun + seconds, getattr(_local, "end", math.inf))
        self._stops: list[Callable[[], object]] = []
        self.reference = ref(self)

    def remaining(self) -> float:
        """Return the seconds that are left, never less than 0."""
        return max(0.0, self.end - time.monotonic())

    def elapsed(self) -> timedelta:
        """Return the time since the start."""
        return timedelta(seconds=time.monotonic() - self._begun)

    def in_time(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows until the time is over. Nothing else can stop the work of Python between two rows.

        Raises:
            DeadlineError: the time is over.
        """
        for row in rows:
            if time.monotonic() > self.end:
                raise DeadlineError
            yield row

    def guard(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` when the time is over, unless ``release`` was called before.

        Raises:
            DeadlineError: the call was stopped before.
        """
        self._stops.append(stop)
        if self.expired:  # checked after the append, so that a stop from another thread is never missed
            raise DeadlineError

    def release(self) -> None:
        """Forget all functions that were passed to ``guard``. Other calls may use the connections from now on."""
        with _watch.lock:
            self._stops.clear()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Call ``release`` at the end of the block."""
        try:
            yield
        finally:
            self.release()

    def stop(self) -> None:
        """Call all functions of ``guard``."""
        self.expired = True
        for stop in self._stops:
            with suppress(Exception):  # an error of one function must not keep the others from being called
                stop()

    def cancel(self) -> None:
        """End the call now."""
        with _watch.lock:
            self.end = -math.inf
            self.stop()

    def call(self, work: Callable[[], Answer], *, seconds: float, undo: Callable[[Answer], object]) -> Answer:
        """Return the answer of ``work``, which may take ``seconds``. If the answer comes later, call ``undo`` with it.

        Raises:
            DeadlineError: ``work`` took too long.
        """
        try:
            return call_in_time(work, seconds=min(seconds, self.remaining()), undo=undo)
        except TimedOutError:
            raise DeadlineError from None

    def __enter__(self) -> Deadline:
        """Let the watching thread check this call from now on."""
        _local.deadline = self
        _watch.add(self)
        cancellation = cancelling.current()
        if cancellation is not None:
            cancellation.guard(self.cancel)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the checks of this call."""
        _local.deadline = None
        cancellation = cancelling.current()
        if cancellation is not None:
            cancellation.release(self.cancel)
        _watch.remove(self)


def current() -> Deadline | None:
    """Return the deadline of this thread's call.

    Listeners and the pool need it, because they get no argument from us.
    """
    return getattr(_local, "deadline", None)


@contextmanager
def common_end(seconds: float) -> Iterator[None]:
    """Let all deadlines that begin in this block end at the same time. So a call with several has no more time."""
    _local.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _local.end = math.inf


class _Watch:
    """The thread that checks the running calls. The first call starts it. It waits while no call runs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._calls: set[ref[Deadline]] = set()  # weak: a call that an exception interrupted leaves no entry
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, call: Deadline) -> None:
        self._calls.add(call.reference)
        if self._thread is None:
            self._start()
        if not self._busy.is_set():
            self._busy.set()

    def remove(self, call: Deadline) -> None:
        with self.lock:
            self._calls.discard(call.reference)

    def _start(self) -> None:
        with self.lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="the-edge-agent deadlines")
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._busy.wait()
            time.sleep(_TICK)
            with self.lock:
                self._busy.clear()
                if self._calls:  # checked after clear(), so that no call is missed
                    self._busy.set()
                for reference in tuple(self._calls):
                    call = reference()
                    if call is None:
                        self._calls.discard(reference)
                    elif not call.remaining():
                        call.stop()


_watch = _Watch()


def _forget_the_parent() -> None:
    global _watch, _local
    _watch, _local = _Watch(), threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parent)
