"""``AsyncTransaction``: a queue of writes that become one database transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any

from the_edge_agent.memory.aio.threads import Threads
from the_edge_agent.memory.contract.result_types import CommitResult, QueuedResult, RollbackResult
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.validation import NOT_GIVEN, TTL


class AsyncTransaction:
    """``LTMTransaction`` for one task. Used as ``async with memory.transaction() as transaction:``.

    The block commits at its end, or rolls back if it raises or is cancelled. A commit that has begun is awaited.
    """

    def __init__(self, threads: Threads, begin: Callable[[], LTMTransaction]) -> None:
        """Begin nothing yet. Programs call ``AsyncMemory.transaction`` instead.

        Args:
            threads: runs the calls.
            begin: returns the transaction of the memory.
        """
        self._threads, self._begin = threads, begin

    async def store(
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
        """Queue a store; see ``LTMTransaction.store``."""
        return await self._threads.run(
            lambda: self._begun.store(
                key, value, metadata, ttl=ttl, if_version=if_version, expires_at=expires_at, index=index
            )
        )

    async def delete(self, key: str, *, if_version: int | None = None) -> QueuedResult:
        """Queue a delete; see ``LTMTransaction.delete``."""
        return await self._threads.run(lambda: self._begun.delete(key, if_version=if_version))

    async def commit(self) -> CommitResult:
        """Run the queue in one database transaction; see ``LTMTransaction.commit``."""
        return await self._threads.run(lambda: self._begun.commit())

    async def rollback(self) -> RollbackResult:
        """Discard the queue; see ``LTMTransaction.rollback``."""
        return await self._threads.run(lambda: self._begun.rollback())

    async def __aenter__(self) -> AsyncTransaction:
        """Return the transaction itself.

        Raises:
            LTMError: as ``LTMBackend.transaction``.
        """
        await self._threads.run(lambda: self._begun)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or roll back if the block raised; see ``LTMTransaction.__exit__``."""
        if kind is not None:
            self._begun.__exit__(kind, error, trace)  # only forgets the queue
        else:
            await self._threads.run(lambda: self._begun.__exit__(None, None, None))

    @cached_property
    def _begun(self) -> LTMTransaction:
        return self._begin()
