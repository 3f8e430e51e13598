"""``Observed``: the base class of memories and catalogs whose public calls are counted, timed and logged.

The wrapper of a method is made once, when its class is created. Calls inside of calls do not count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import wraps
from threading import get_ident
from time import perf_counter
from types import FunctionType
from typing import Any, ClassVar, Final, TypeAlias

from the_edge_agent.memory.contract.result_types import PoolState, StatsResult
from the_edge_agent.memory.core.calls import (
    CALLS,
    CallEvent,
    CallListener,
    CallRecorder,
    log_call,
    retries,
    retries_of,
)
from the_edge_agent.memory.core.results import LTMError, interrupts, ok, reported

# The field of a result that has the number of rows, or true for one; or a function of the result of a success.
RowsOf: TypeAlias = str | Callable[[Any], int]

_logger: Final = logging.getLogger(CALLS)
_is_logged: Final = _logger.isEnabledFor
_DEBUG: Final = logging.DEBUG


def _one(_: Any) -> int:
    return 1


def _length(name: str) -> RowsOf:
    return lambda result: len(result[name])


def _imported(result: Any) -> int:
    return int(result["imported_count"] + result["replaced_count"])


def _found(result: Any) -> int:
    return 0 if result is None else 1


OF_MEMORIES: Final[Mapping[str, RowsOf | None]] = {
    "store": "stored",
    "retrieve": "found",
    "delete": "deleted",
    "search": "count",
    "store_many": "stored_count",
    "retrieve_many": "found_count",
    "delete_many": "deleted_count",
    "delete_all": "deleted_count",
    "touch": "found",
    "list_keys": _length("keys"),
    "entries": _length("entries"),
    "count": _one,
    "measure": _one,
    "list_namespaces": "count",
    "import_entries": _imported,
    "cleanup_expired": "deleted_count",
    "cleanup_storage": "deleted_count",
    "optimize": "entries",
    "sync_catalog": "tracked_count",
    "iterate_all": None,
    "iterate_entries": None,
}
OF_CATALOGS: Final[Mapping[str, RowsOf | None]] = {
    "track_entry": _one,
    "get_entry": _found,
    "list_entries": len,
    "delete_entry": int,
    "get_changed_entries": len,
    "get_deleted_entries": len,
    "create_snapshot": _one,
    "get_snapshot": _found,
    "list_snapshots": len,
    "iterate_snapshot": None,
    "import_snapshot": int,
    "delete_snapshot": int,
    "store_batch": "stored_count",
    "retrieve_batch": "found_count",
    "cleanup_expired": "deleted_count",
}
NAMESPACE: Final = "namespace"  # the method that makes a part of a memory
TRANSACTION: Final = "transaction"  # the operation of a commit, and the method that makes a transaction


class Observed:
    """Records the public calls of its subclasses, which need not call its constructor.

    A method is recorded if its name is in ``_observed``. A subclass that overrides it is recorded too.
    """

    _observed: ClassVar[Mapping[str, RowsOf | None]] = {}  # None for a method that returns an iterator
    _prefix: ClassVar[str] = ""  # of the names of operations
    _recorder: CallRecorder | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap the public methods that the class has of its own."""
        super().__init_subclass__(**options)
        for name, method in [*vars(cls).items()]:
            if not isinstance(method, FunctionType) or getattr(method, "__isabstractmethod__", False):
                continue
            if name == TRANSACTION and not cls._prefix:
                setattr(cls, name, _recorded_transaction(method))
            elif name == NAMESPACE and not cls._prefix:
                setattr(cls, name, _sharing(method))
            elif name in cls._observed:
                rows_of = cls._observed[name]
                operation = cls._prefix + name
                wrapper = (
                    _recorded_iteration(operation, method) if rows_of is None else _recorded(operation, method, rows_of)
                )
                setattr(cls, name, wrapper)

    def stats(self) -> StatsResult:
        """Return the statistics of the calls since this object was created. A namespace has those of its whole memory.

        It uses no connection, and works after ``close`` too. It never fails, and returns no secret and nothing that a
        program has stored. Calls inside of other calls do not count. A forked child begins at zero. Many threads may
        call it.

        Returns:
            ``{"success": True, "pool": dict | None, "calls": dict, "slowest": list, "since": datetime}``. ``pool`` is
            ``{"size": int | None, "in_use": int, "idle": int, "overflow": int, "waiting": int | None}``: how many
            connections stay open at most (None: without limit), are in use, are idle, and are above ``size``; and how
            many threads wait for one. It is None without open connections, or if they cannot be counted.
            ``calls`` has a dict for each operation: ``{"count": int, "failed": int, "retries": int, "rows": int,
            "seconds": float, "slowest_seconds": float}``; ``retries`` is how often a transaction ran again, or a lost
            connection was replaced. ``slowest`` has up to 10 calls, slowest first: ``{"operation": str, "seconds":
            float, "at": datetime}``. ``at`` is when the call began. ``since`` is when the counts began. Times are in
            UTC.
        """
        recorder = recorder_of(self)
        return ok(pool=self._pool_state(), calls=recorder.calls(), slowest=recorder.slowest(), since=recorder.since)

    def add_listener(self, listener: CallListener) -> None:
        """Tell a listener about each call from now on; those of namespaces too. See ``CallListener``.

        The listener belongs to this process: copies of this object by pickle have none. Adding it again changes
        nothing.
        """
        recorder_of(self).add_listener(listener)

    def remove_listener(self, listener: CallListener) -> None:
        """Tell a listener about no further call. Removing one that was not added does nothing."""
        recorder_of(self).remove_listener(listener)

    def _pool_state(self) -> PoolState | None:
        """Return the state of the connections, without opening one; None if they cannot be counted."""
        return None

    def _target(self) -> tuple[str, str, str]:
        """Return the kind of the database, its name without anything secret, and the table; empty if unknown."""
        return "", "", ""

    def _depth(self) -> int:
        """Return how many names the namespace has."""
        return 0


def recorder_of(owner: Observed) -> CallRecorder:
    """Return the recorder of a memory or catalog; create it at the first time."""
    recorder: CallRecorder = owner._recorder or vars(owner).setdefault("_recorder", CallRecorder())
    return recorder


def _recorded(operation: str, method: Callable[..., Any], rows_of: RowsOf) -> Callable[..., Any]:
    """Wrap a method, so that its calls are recorded.

    This is on the way of each call, so it is written to be quick: most calls take no function of Python more.
    """
    field = rows_of if isinstance(rows_of, str) else None
    work = getattr(method, "without_report", method)  # then what ``returns_result`` does is done here
    reports = work is not method

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = self._recorder or recorder_of(self)
        thread, inside = get_ident(), recorder.inside
        if thread in inside:
            return method(self, *args, **kwargs)
        event = _started(self, recorder, operation) if recorder.listeners else None
        inside.add(thread)
        began = perf_counter()
        try:
            result = work(self, *args, **kwargs)
        except BaseException as error:
            inside.discard(thread)
            _ended(recorder, operation, perf_counter() - began, 0, retries_of(thread), error_type_of(error), event)
            if not reports or (isinstance(error, Exception) and not isinstance(error, LTMError)):
                raise
            if isinstance(error, LTMError):
                return reported(self, error)
            interrupts.note(error)
            raise
        finally:
            inside.discard(thread)
        seconds = perf_counter() - began
        if (
            event is not None
            or field is None
            or field not in result
            or seconds > recorder.threshold
            or thread in retries
            or _is_logged(_DEBUG)
        ):
            rows, error_type = _outcome(result, rows_of)
            _ended(recorder, operation, seconds, rows, retries_of(thread), error_type, event)
            return result
        totals = recorder.totals[thread, operation]
        totals.count += 1
        totals.rows += result[field]
        totals.seconds += seconds
        if seconds > totals.slowest_seconds:
            totals.slowest_seconds = seconds
        return result

    return call


def _recorded_transaction(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method that makes a transaction. Its commit is a recorded call; to make it counts only if it fails."""

    @wraps(method)
    def call(self: Any) -> Any:
        recorder, began = recorder_of(self), perf_counter()
        try:
            transaction = method(self)
        except BaseException as error:
            if get_ident() not in recorder.inside:
                _ended(recorder, TRANSACTION, perf_counter() - began, 0, 0, error_type_of(error), None)
            raise
        if hasattr(transaction, "memory"):
            transaction.memory = self
        return transaction

    return call


def _sharing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method that makes a part of a memory, so that both have one recorder."""

    @wraps(method)
    def call(self: Any, *names: Any, **options: Any) -> Any:
        part = method(self, *names, **options)
        if part is not self and isinstance(part, Observed):
            part._recorder = recorder_of(self)
        return part

    return call


def _recorded_iteration(operation: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method that returns an iterator. An iteration is a call from its first item to its end."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder, thread = recorder_of(self), get_ident()
        if thread in recorder.inside:
            return method(self, *args, **kwargs)
        began = perf_counter()
        try:
            with recorder.unrecorded():
                items = method(self, *args, **kwargs)
        except BaseException as error:
            _ended(recorder, operation, perf_counter() - began, 0, retries_of(thread), error_type_of(error), None)
            raise
        return RecordedIterator(self, recorder, operation, items, retries_of(thread))

    return call


class RecordedIterator(Iterator[Any]):
    """Iterates, and records the iteration at its end. Other attributes, such as ``damaged``, are those of the items."""

    def __init__(
        self, owner: Observed, recorder: CallRecorder, operation: str, items: Iterator[Any], retries: int
    ) -> None:
        """Take the items of an iteration that has not begun."""
        self._owner, self._recorder, self._operation, self._items = owner, recorder, operation, items
        self._began: float | None = None
        self._event: CallEvent | None = None
        self._rows, self._retries = 0, retries
        self._is_over = False

    def __next__(self) -> Any:
        """Return the next item."""
        recorder, thread = self._recorder, get_ident()
        if self._began is None:
            self._began = perf_counter()
            if recorder.listeners:
                self._event = _started(self._owner, recorder, self._operation, is_iteration=True)
        inside = recorder.inside
        is_inside = thread in inside
        inside.add(thread)
        try:
            item = next(self._items)
        except BaseException as error:
            if not is_inside:
                inside.discard(thread)
            self._retries += retries_of(thread)
            self._end(None if isinstance(error, StopIteration) else error_type_of(error))
            raise
        finally:
            if not is_inside:
                inside.discard(thread)
        if thread in retries:
            self._retries += retries_of(thread)
        self._rows += 1
        return item

    def close(self) -> None:
        """End the iteration."""
        close = getattr(self._items, "close", None)
        if close is not None:
            close()
        self._end(None)

    def _end(self, error_type: str | None) -> None:
        if self._began is None or self._is_over:
            return
        self._is_over = True
        seconds = perf_counter() - self._began
        _ended(self._recorder, self._operation, seconds, self._rows, self._retries, error_type, self._event)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the items."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._items, name)

    def __del__(self) -> None:
        """Record an iteration that was left in the middle."""
        if not getattr(self, "_is_over", True):  # an interrupt may have come before ``__init__``
            self._end(None)


def _outcome(result: Any, rows_of: RowsOf) -> tuple[int, str | None]:
    """Return the rows of a result, and its ``error_type`` if it is a failure."""
    try:
        if result.__class__ is dict and result.get("success") is False:
            return 0, str(result["error_type"])
        return int(result[rows_of]) if isinstance(rows_of, str) else rows_of(result), None
    except (KeyError, TypeError, ValueError):  # a result of another package, without a field
        return 0, None


def error_type_of(error: BaseException) -> str:
    """Return the ``error_type`` of a failure, or the name of another exception."""
    return error.error_type if isinstance(error, LTMError) else type(error).__name__


def _started(owner: Observed, recorder: CallRecorder, operation: str, *, is_iteration: bool = False) -> CallEvent:
    """Tell the listeners that a call begins."""
    system, database, table = owner._target()
    event = CallEvent(
        operation, system, database, table, owner._depth(), datetime.now(timezone.utc), is_iteration=is_iteration
    )
    with recorder.unrecorded():
        recorder.tell("call_started", event)
    return event


def _ended(
    recorder: CallRecorder,
    operation: str,
    seconds: float,
    rows: int,
    retries: int,
    error_type: str | None,
    event: CallEvent | None,
) -> None:
    """Record a call that has ended, write its line of the log, and tell the listeners that know its beginning."""
    recorder.record(operation, seconds, rows, retries, error_type)
    if _is_logged(_DEBUG):
        log_call(operation, seconds, rows, retries, error_type)
    if event is not None:
        event.seconds, event.rows, event.retries, event.error_type = seconds, rows, retries, error_type
        with recorder.unrecorded():
            recorder.tell("call_ended", event)


def recorded_commit(owner: Observed, commit: Callable[[], Any]) -> Any:
    """Run the commit of a transaction of a memory, and record it as one call."""
    return _commit(owner, commit)


def _run_commit(owner: Observed, commit: Callable[[], Any]) -> Any:
    return commit()


_commit: Final = _recorded(TRANSACTION, _run_commit, "operations")
