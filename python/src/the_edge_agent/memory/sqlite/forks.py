"""Forks while other threads use SQLite.

SQLite's library has locks for the whole process. If a process forks while another thread holds such a lock, the child
inherits the locked lock and would wait for ever. So a fork waits a moment until no other thread is in a call. If one
still is, the child must not use SQLite, and its calls fail.
"""

from __future__ import annotations

import os
import time
from threading import Event, get_ident
from types import TracebackType
from typing import Final
from weakref import ref

from the_edge_agent.memory.core.results import LTMError

_PATIENCE: Final = 0.5  # seconds that a fork waits for the calls of other threads
_CHECK_INTERVAL: Final = 0.001  # seconds between two checks for such calls

_calls: dict[int, tuple[int, ref[SQLiteCall]]] = {}
_may_begin = Event()
_may_begin.set()
_is_forking = False  # whether this process is about to be forked
_is_unsafe = False  # whether this process was forked while another thread was in a call


class SQLiteCall:
    """A context manager around a call on SQLite. If an exception skips its end, the call ends when it is collected."""

    __slots__ = ("__weakref__",)

    def __enter__(self) -> None:
        """Begin the call. If a fork is under way, wait until it has ended.

        Raises:
            LTMError: ``connection_error``: this process must not use SQLite.
        """
        if _is_unsafe:
            raise LTMError(
                "connection_error",
                "this process was forked while other threads were in calls on SQLite, and has inherited its locks; "
                "start processes with spawn (multiprocessing.get_context('spawn')), or fork before the first call",
            )
        _calls[id(self)] = get_ident(), ref(self)
        if _is_forking:  # looked at after the call is known: a fork waits for those that it knows
            self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while not _may_begin.is_set() and time.monotonic() < end:
            _calls.pop(id(self), None)
            _may_begin.wait(_PATIENCE)
            _calls[id(self)] = get_ident(), ref(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the call."""
        _calls.pop(id(self), None)


def _others() -> bool:
    """Return whether other threads are in calls. Calls whose object was collected are forgotten."""
    mine, is_any = get_ident(), False
    for key, (thread, call) in [*_calls.items()]:
        if call() is None:
            _calls.pop(key, None)
        elif thread != mine:
            is_any = True
    return is_any


def _before_fork() -> None:
    global _is_forking
    _is_forking = True
    _may_begin.clear()
    end = time.monotonic() + _PATIENCE
    while _others() and time.monotonic() < end:
        time.sleep(_CHECK_INTERVAL)


def _after_fork_in_parent() -> None:
    global _is_forking
    _is_forking = False
    _may_begin.set()


def _after_fork_in_child() -> None:
    global _is_forking, _is_unsafe, _may_begin
    _is_forking = False
    _is_unsafe = _is_unsafe or _others()
    _calls.clear()
    _may_begin = Event()
    _may_begin.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
