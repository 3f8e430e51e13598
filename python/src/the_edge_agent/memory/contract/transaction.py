"""LTMTransaction: a queue of writes that become one database transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final

from the_edge_agent.memory.contract.observed import Observed, recorded_commit
from the_edge_agent.memory.contract.result_types import (
    CommitResult,
    QueuedResult,
    RollbackResult,
)
from the_edge_agent.memory.core.operations import Delete, Operation, Store
from the_edge_agent.memory.core.results import LTMError, Result, ok, returns_result
from the_edge_agent.memory.core.validation import NOT_GIVEN, TTL


class LTMTransaction:
    """A queue of stores and deletes; ``commit`` runs them in one database transaction.

    As a context manager it commits at the end of the block, or rolls back if the block raises. No database transaction
    is open before the commit. Only one thread may use a transaction.

    Attributes:
        memory: the memory whose ``stats`` count the commit as one call; None for a transaction that none has made.
    """

    memory: Observed | None = None

    def __init__(
        self,
        check_store: Callable[..., Store],
        apply: Callable[[Sequence[Operation]], list[Result]],
        check_delete: Callable[..., Delete] = Delete.of,
        *,
        raises: bool = False,
    ) -> None:
        """Make an empty queue that ``apply`` will run. Programs call ``LTMBackend.transaction`` instead.

        Args:
            check_store: checks the arguments of ``store``.
            apply: runs the queue.
            check_delete: checks the arguments of ``delete``.
            raises: whether the methods raise their failures.
        """
        self._check_store, self._apply, self._check_delete = check_store, apply, check_delete
        self._raises = raises
        self._queue: list[Operation] = []
        self._state = "open"  # later "refused" (after a bad entry), "committed", "failed" or "rolled back"
        self._failure: LTMError | None = None  # raised at the end of the with block

    @returns_result
    def store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: TTL = NOT_GIVEN,
        if_version: int | None = None,
        expires_at: datetime | None = None,
        index: bool = True,
    ) -> QueuedResult:
        """Check the arguments of a store and put it into the queue: ``{"success": True, "queued": True}``.

        The value is encoded now, so later changes of the object have no effect. A lifetime (``ttl``) begins with the
        commit. The commit compares ``if_version`` with the version that the entry has after the earlier operations of
        this transaction; if it differs, the whole commit fails with ``conflict``.
        """
        # A backend may have written its own check_store, which does not know the arguments of other capabilities.
        more: dict[str, Any] = {} if ttl is NOT_GIVEN else {"ttl": ttl}
        more |= {} if expires_at is None else {"expires_at": expires_at}
        more |= {} if index is True else {"index": index}
        return self._enqueue(lambda: self._check_store(key, value, metadata, if_version=if_version, **more))

    @returns_result
    def delete(self, key: str, *, if_version: int | None = None) -> QueuedResult:
        """Check the arguments and put a delete into the queue: ``{"success": True, "queued": True}``.

        The commit compares ``if_version`` as for ``store``.
        """
        more = {} if if_version is None else {"if_version": if_version}
        return self._enqueue(lambda: self._check_delete(key, **more))

    def commit(self) -> CommitResult:
        """Run the queued operations in one database transaction: all of them or none.

        Returns:
            ``{"success": True, "operations": int, "results": [dict]}``. The results are those that ``store`` and
            ``delete`` of the backend would have returned, in the order of the queue.
            On a ``conflict`` nothing is stored. The failure has the ``key`` of the first operation in the queue whose
            ``if_version`` differs, and the ``version`` that its entry has after the operations before it.
        """
        result: CommitResult = self._commit() if self.memory is None else recorded_commit(self.memory, self._commit)
        return result

    @returns_result
    def _commit(self) -> CommitResult:
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
    def rollback(self) -> RollbackResult:
        """Discard the queued operations: ``{"success": True, "discarded": int}``."""
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
            LTMError: a commit failed, here or in the block, or an entry was refused. Nothing was stored.
        """
        if kind is not None:
            self.rollback()
            return
        if self._state in ("open", "refused"):
            self.commit()
        if self._failure is not None:
            raise self._failure

    def _enqueue(self, make: Callable[[], Operation]) -> QueuedResult:
        self._require_open()
        try:
            self._queue.append(make())
        except LTMError:
            self._state = "refused"
            raise
        return ok(queued=True)

    def _reported(self, failure: LTMError) -> Result:
        if self._raises:
            raise failure
        return failure.result

    def _require_open(self) -> None:
        if self._state not in ("open", "refused"):
            raise LTMError("validation_error", f"this transaction has already {_ENDED[self._state]}")


_ENDED: Final = {"committed": "been committed", "failed": "failed to commit", "rolled back": "been rolled back"}
