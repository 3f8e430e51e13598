"""Cancellation: another thread ends the call that runs in this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from the_edge_agent.memory.core.results import LTMError

_local = threading.local()
_CANCELLED: Final = "the call was cancelled"


class Cancellation:
    """Ends one call, from any thread.

    A call that only reads is stopped where it waits. A call that writes runs on, because its outcome must be known; if
    it has several transactions, it ends between two of them. A call that has ended so has failed with
    ``connection_error``. The memory of another package does not know of this.

    A thread makes its call in ``with cancellation.active():``. Then any thread may call ``request``.

    Attributes:
        is_requested: whether ``request`` was called. Later calls of this cancellation end as well.
    """

    def __init__(self, *, only_reads: bool) -> None:
        """Make the cancellation of one call.

        Args:
            only_reads: whether the call only reads.
        """
        self.is_requested = False
        self._only_reads = only_reads
        self._lock = threading.Lock()
        self._stops: list[Callable[[], object]] = []

    def request(self) -> None:
        """End the call soon. A second request does nothing."""
        with self._lock:
            if self.is_requested:
                return
            self.is_requested = True
            for stop in self._stops:
                with suppress(Exception):  # an error of one function must not keep the others from being called
                    stop()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let this cancellation end what this thread does in the block."""
        _local.current = self
        try:
            yield
        finally:
            _local.current = None

    def guard(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` on a request, at once if it came before. Nothing is called for a call that writes."""
        if not self._only_reads:
            return
        with self._lock:
            self._stops.append(stop)
            if self.is_requested:
                stop()

    def release(self, stop: Callable[[], object]) -> None:
        """Do not call ``stop`` any more. When this returns, ``stop`` is not running."""
        if self._only_reads:
            with self._lock:
                self._stops.remove(stop)


def current() -> Cancellation | None:
    """Return the cancellation of the call that runs in this thread, or None if nobody can cancel it."""
    return getattr(_local, "current", None)


@contextmanager
def guarded(stop: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` if the call that runs in this thread is cancelled during the block, or was before."""
    cancellation = current()
    if cancellation is None:
        yield
        return
    cancellation.guard(stop)
    try:
        yield
    finally:
        cancellation.release(stop)


@contextmanager
def shielded() -> Iterator[None]:
    """Let nobody cancel what this thread does in the block."""
    cancellation = current()
    _local.current = None
    try:
        yield
    finally:
        _local.current = cancellation


def checkpoint() -> None:
    """End a cancelled call here, where nothing is half done: between two transactions.

    Raises:
        LTMError: ``connection_error``. Nobody sees it, because the caller has gone.
    """
    cancellation = current()
    if cancellation is not None and cancellation.is_requested:
        raise LTMError("connection_error", _CANCELLED)


def is_stopped() -> bool:
    """Return whether the call that runs in this thread only reads and was cancelled."""
    cancellation = current()
    return cancellation is not None and cancellation.is_requested and cancellation._only_reads
