"""``AsyncItems``: an iteration over a memory or a snapshot, read in worker threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from the_edge_agent.memory.aio.threads import Threads
from the_edge_agent.memory.core.results import LTMError

Item = TypeVar("Item")

_MOST: Final = 100  # items that one hop to a thread brings
_SECONDS: Final = 0.02  # that it collects items; large values come in fewer at a time


class AsyncItems(AsyncIterator[Item], Generic[Item]):
    """What the iterations of ``AsyncMemory`` and ``AsyncCatalog`` return. One task uses it at a time.

    A worker thread reads up to 100 items at a time. No connection is held between two reads.
    """

    def __init__(self, threads: Threads, begin: Callable[[], Iterator[Item]]) -> None:
        """Read nothing yet.

        Args:
            threads: runs the reads.
            begin: returns the iterator of the memory or catalog.
        """
        self._threads, self._begin = threads, begin
        self._iterator: Iterator[Item] | None = None
        self._items: deque[Item] = deque()
        self._is_over = self._is_broken = False

    @property
    def damaged(self) -> tuple[str, ...]:
        """The keys of the damaged entries that were left out so far."""
        found: Any = getattr(self._iterator, "damaged", ())
        return tuple(found)

    def __aiter__(self) -> AsyncItems[Item]:
        """Return the iteration itself."""
        return self

    async def __anext__(self) -> Item:
        """Return the next item.

        Raises:
            LTMError: the database fails, or an argument is bad; ``query_error`` if an earlier item was cancelled or
                failed, because the iteration then has no end that could be trusted.
        """
        if self._is_broken:
            raise LTMError("query_error", "this iteration was cancelled, or has failed; begin another one")
        while not self._items:
            if self._is_over:
                raise StopAsyncIteration
            self._is_broken = True
            self._is_over = await self._threads.run(self._read, only_reads=True)
            self._is_broken = False
        return self._items.popleft()

    async def aclose(self) -> None:
        """End the iteration. This is optional: an iteration that is left early holds nothing."""
        self._iterator, self._is_over = None, True
        self._items.clear()

    def _read(self) -> bool:
        """Read some items; return whether they are the last. A worker thread calls this."""
        if self._iterator is None:
            self._iterator = self._begin()
        end = time.monotonic() + _SECONDS
        for count, item in enumerate(self._iterator, 1):
            self._items.append(item)
            if count == _MOST or time.monotonic() > end:
                return False
        return True
