"""Deadlines: no call outlasts its time, whatever the driver is waiting for."""

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

from the_edge_agent.memory.core.in_time import TimedOutError, call_in_time

Answer = TypeVar("Answer")
Row = TypeVar("Row")

_TICK: Final = 0.2  # seconds between two looks at the calls under way; a call may be late by so much

_local = threading.local()


class DeadlineError(Exception):
    """The time of a call is over."""


class Deadline:
    """The time that one call has, as a context manager; within it, what the call waits for is stopped in the end.

    Drivers differ in which waits they can limit. So one thread of the process looks at the calls under way, and
    stops the connections of those whose time is over, which makes the driver give up.
    """

    def __init__(self, seconds: float) -> None:
        """Begin now."""
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
        """Return the time since the beginning."""
        return timedelta(seconds=time.monotonic() - self._begun)

    def in_time(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows until the time is over: what Python does with them nobody can stop.

        Raises:
            DeadlineError: it is over.
        """
        for row in rows:
            if time.monotonic() > self.end:
                raise DeadlineError
            yield row

    def guard(self, stop: Callable[[], object]) -> None:
        """Have ``stop`` called when the time is over, until ``release``."""
        self._stops.append(stop)

    def release(self) -> None:
        """Let go what is guarded: others may use it from now on."""
        with _watch.lock:
            self._stops.clear()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let what is guarded within go in the end."""
        try:
            yield
        finally:
            self.release()

    def stop(self) -> None:
        """Stop what is guarded."""
        self.expired = True
        for stop in self._stops:
            with suppress(Exception):  # what cannot be stopped must not end the watch over the others
                stop()

    def call(self, work: Callable[[], Answer], *, seconds: float, undo: Callable[[Answer], object]) -> Answer:
        """Return the answer of ``work``, which may take ``seconds`` at most; undo one that comes too late.

        Raises:
            DeadlineError: it took too long.
        """
        try:
            return call_in_time(work, seconds=min(seconds, self.remaining()), undo=undo)
        except TimedOutError:
            raise DeadlineError from None

    def __enter__(self) -> Deadline:
        """Begin to watch the calling thread."""
        _local.deadline = self
        _watch.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch."""
        _local.deadline = None
        _watch.remove(self)


def current() -> Deadline | None:
    """Return the deadline of the call that this thread is in; for listeners and the pool, which no argument reaches."""
    return getattr(_local, "deadline", None)


@contextmanager
def one_end(seconds: float) -> Iterator[None]:
    """Let all deadlines that begin within end together: a call that needs several has no more time than others."""
    _local.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _local.end = math.inf


class _Watch:
    """The thread that looks at the calls under way; started with the first of them, idle without."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._calls: set[ref[Deadline]] = set()  # one that an exception has torn out of its call is gone by itself
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
                if self._calls:  # looked at after the clearing, so that no call is overlooked
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
