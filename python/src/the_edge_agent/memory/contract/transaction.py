"""LTMTransaction: a queue of writes that become one database transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final

from the_edge_agent.memory.core.operations import Delete, Operation, Store
from the_edge_agent.memory.core.results import LTMError, Result, ok, returns_result


class LTMTransaction:
    """A queue of stores and deletes that become one database transaction on ``commit``.

    As a context manager it commits on leaving, or rolls back when the block raises. No database transaction
    is open while the queue is filled. For use by one thread.
    """

    def __init__(self, check_store: Callable[..., Store], apply: Callable[[Sequence[Operation]], list[Result]]) -> None:
        """Make an empty queue that ``apply`` will run; use ``LTMBackend.transaction`` instead."""
        self._check_store, self._apply = check_store, apply
        self._queue: list[Operation] = []
        self._state = "open"  # then "refused" after a bad entry; "committed", "failed" or "rolled back"
        self._failure: LTMError | None = None  # what leaving the context manager has to report

    @returns_result
    def store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: float | None = None,
        if_version: int | None = None,
        expires_at: datetime | None = None,
    ) -> Result:
        """Check the arguments and queue a store: ``{"success": True, "queued": True}``.

        The value is encoded now: what happens to the object later does not matter. A lifetime begins with the
        commit. An ``if_version`` that does not hold then makes the whole commit a ``conflict``; within the
        transaction it is compared with what the operations before have made of the entry.
        """
        ends: dict[str, Any] = {} if expires_at is None else {"expires_at": expires_at}  # of backends that know it
        return self._enqueue(lambda: self._check_store(key, value, metadata, ttl=ttl, if_version=if_version, **ends))

    @returns_result
    def delete(self, key: str) -> Result:
        """Check the argument and queue a delete: ``{"success": True, "queued": True}``."""
        return self._enqueue(lambda: Delete.of(key))

    @returns_result
    def commit(self) -> Result:
        """Run the queue, all or nothing.

        Returns:
            ``{"success": True, "operations": int, "results": [dict]}``, where the results are those that
            ``store`` and ``delete`` of the backend would have returned, in order. On a ``conflict`` the
            failure has the ``key`` and the ``version`` that it has, operations before in the queue included,
            and nothing is stored; of several it is the first in the queue.
        """
        self._require_open()
        if self._state == "refused":
            self._failure = LTMError("validation_error", "an entry was refused; this transaction can only roll back")
            raise self._failure
        self._state = "failed"
        try:
            results = self._apply(self._queue) if self._queue else []
        except LTMError as failure:
            self._failure = failure
            raise
        self._state = "committed"
        return ok(operations=len(results), results=results)

    @returns_result
    def rollback(self) -> Result:
        """Discard the queue: ``{"success": True, "discarded": int}``."""
        self._require_open()
        self._state, self._failure = "rolled back", None
        discarded = len(self._queue)
        self._queue.clear()
        return ok(discarded=discarded)

    def __enter__(self) -> LTMTransaction:
        """Return the transaction itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or roll back if the block raised.

        Raises:
            LTMError: the commit failed, here or in the block, or an entry was refused: nothing was stored.
        """
        if kind is not None:
            self.rollback()
            return
        if self._state in ("open", "refused"):
            self.commit()
        if self._failure is not None:
            raise self._failure

    def _enqueue(self, make: Callable[[], Operation]) -> Result:
        self._require_open()
        try:
            self._queue.append(make())
        except LTMError:
            self._state = "refused"
            raise
        return ok(queued=True)

    def _require_open(self) -> None:
        if self._state not in ("open", "refused"):
            raise LTMError("validation_error", f"this transaction has already {_ENDED[self._state]}")


_ENDED: Final = {"committed": "been committed", "failed": "failed to commit", "rolled back": "been rolled back"}
