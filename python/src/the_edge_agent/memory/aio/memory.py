"""``AsyncMemory``: the contract of long-term memory as coroutines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import cache
from inspect import signature
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

from the_edge_agent.memory.aio.items import AsyncItems
from the_edge_agent.memory.aio.threads import Threads
from the_edge_agent.memory.aio.transaction import AsyncTransaction
from the_edge_agent.memory.contract.backend import LTMBackend, create_ltm_backend
from the_edge_agent.memory.contract.raising import raising
from the_edge_agent.memory.contract.result_types import (
    CleanupResult,
    CountResult,
    DeletedCountResult,
    DeleteResult,
    EntriesResult,
    ImportResult,
    KeysResult,
    MeasureResult,
    NamespacesResult,
    RetrieveManyResult,
    RetrieveResult,
    SearchResult,
    StatsResult,
    StoreManyResult,
    StoreResult,
    TouchResult,
    WholeEntry,
)
from the_edge_agent.memory.core.calls import CallListener
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import NOT_GIVEN, TTL

Answer = TypeVar("Answer")

_SECONDS: Final = 10.0  # that a call waits for its turn


class AsyncMemory:
    """A memory whose methods are coroutines, for programs on asyncio or trio.

    Each method takes the arguments of the method of ``LTMBackend`` with its name, and returns or raises the same. The
    calls run in worker threads, at most as many at a time as the pool of the memory has connections. A call that waits
    for its turn has no thread; after ``pool_timeout`` seconds it fails with ``connection_timeout``.

    Cancellation: a call that only reads is stopped within a second. A call that writes is awaited to its end, also by a
    cancelled task, so that the write was done or was not; a call of many transactions (``delete_all``,
    ``import_entries``) ends after the present one. The memory of another package is awaited in any case.

    One event loop uses an ``AsyncMemory``; many tasks of it may do so at the same time.

    Example:
        >>> import anyio
        >>> from the_edge_agent.memory.aio import AsyncMemory
        >>> async def main():
        ...     async with AsyncMemory(url="sqlite://", errors="raise") as memory:
        ...         await memory.store("ada", {"likes": "tea"})
        ...         print((await memory.search("who likes tea?"))["results"][0]["key"])
        >>> anyio.run(main)
        ada
    """

    def __init__(
        self,
        memory: LTMBackend | None = None,
        *,
        max_concurrency: int | None = None,
        pool_timeout: float | None = None,
        **options: Any,
    ) -> None:
        """Wrap a memory, or open one by its options. Nothing is connected yet.

        Args:
            memory: any memory; ``close`` closes it.
            max_concurrency: how many calls run at a time. None means the highest number of connections that the pool of
                the memory may have, and 10 for a memory without a pool.
            pool_timeout: seconds that a call may wait for its turn; None means 10.
            options: in place of ``memory``, the arguments of ``create_ltm_backend``, such as ``url``. The memory is
                lazy: its first call connects.

        Raises:
            LTMError: ``configuration_error``.
            TypeError: both a memory and options were given, or neither.
        """
        if (memory is None) == (not options):
            raise TypeError("AsyncMemory takes a memory, or the options of one, such as url=")
        if memory is None:
            memory = create_ltm_backend(**{"lazy": True, **options})
        self._memory: LTMBackend = memory
        self._raises = memory._raises or raising(memory) is memory
        most = max_concurrency if max_concurrency is not None else memory._most_at_once
        self._threads = Threads(most, _SECONDS if pool_timeout is None else pool_timeout)

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
    ) -> StoreResult:
        """Create or replace the entry at ``key``; see ``LTMBackend.store``."""
        return await self._call(
            self._memory.store,
            key,
            value,
            metadata,
            ttl=ttl,
            if_version=if_version,
            expires_at=expires_at,
            index=index,
        )

    async def retrieve(
        self,
        key: str,
        default: Any = None,
        *,
        times: bool = False,
        refresh_ttl: bool = False,
    ) -> RetrieveResult:
        """Return the entry at ``key``; see ``LTMBackend.retrieve``."""
        return await self._call(
            self._memory.retrieve,
            key,
            default,
            times=times,
            refresh_ttl=refresh_ttl,
            only_reads=refresh_ttl is False,
        )

    async def delete(
        self,
        key: str,
        *,
        if_version: int | None = None,
    ) -> DeleteResult:
        """Delete the entry at ``key``; see ``LTMBackend.delete``."""
        return await self._call(
            self._memory.delete,
            key,
            if_version=if_version,
        )

    async def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        match: Literal["any", "all"] | None = None,
        prefix: str | None = None,
        offset: int = 0,
        explain: bool = False,
        nested: bool = False,
        refresh_ttl: bool = False,
    ) -> SearchResult:
        """Return the entries that match, best first; see ``LTMBackend.search``."""
        return await self._call(
            self._memory.search,
            query,
            metadata_filter,
            limit,
            match=match,
            prefix=prefix,
            offset=offset,
            explain=explain,
            nested=nested,
            refresh_ttl=refresh_ttl,
            only_reads=refresh_ttl is False,
        )

    async def store_many(
        self,
        entries: Iterable[Mapping[str, Any]],
    ) -> StoreManyResult:
        """Store many entries in one transaction; see ``LTMBackend.store_many``."""
        return await self._call(
            self._memory.store_many,
            entries,
        )

    async def retrieve_many(
        self,
        keys: Iterable[str],
        *,
        times: bool = False,
    ) -> RetrieveManyResult:
        """Return the entries at many keys; see ``LTMBackend.retrieve_many``."""
        return await self._call(
            self._memory.retrieve_many,
            keys,
            times=times,
            only_reads=True,
        )

    async def delete_many(
        self,
        keys: Iterable[str],
    ) -> DeletedCountResult:
        """Delete the entries at many keys; see ``LTMBackend.delete_many``."""
        return await self._call(
            self._memory.delete_many,
            keys,
        )

    async def delete_all(
        self,
        prefix: str,
        *,
        nested: bool = False,
    ) -> DeletedCountResult:
        """Delete all entries with a prefix, in batches; see ``LTMBackend.delete_all``."""
        return await self._call(
            self._memory.delete_all,
            prefix,
            nested=nested,
        )

    async def touch(
        self,
        key: str,
        ttl: float | None = None,
    ) -> TouchResult:
        """Renew the lifetime of an entry; see ``LTMBackend.touch``."""
        return await self._call(
            self._memory.touch,
            key,
            ttl,
        )

    async def list_keys(
        self,
        prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> KeysResult:
        """Return a page of the keys; see ``LTMBackend.list_keys``."""
        return await self._call(
            self._memory.list_keys,
            prefix,
            limit,
            after,
            only_reads=True,
        )

    async def entries(
        self,
        prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
        order: Literal["key", "-key", "newest"] = "key",
        *,
        nested: bool = False,
    ) -> EntriesResult:
        """Return a page of whole entries; see ``LTMBackend.entries``."""
        return await self._call(
            self._memory.entries,
            prefix,
            limit,
            after,
            order,
            nested=nested,
            only_reads=True,
        )

    async def count(
        self,
        prefix: str | None = None,
        *,
        nested: bool = False,
    ) -> CountResult:
        """Return how many entries there are; see ``LTMBackend.count``."""
        return await self._call(
            self._memory.count,
            prefix,
            nested=nested,
            only_reads=True,
        )

    async def list_namespaces(
        self,
        prefix: Sequence[str] | None = None,
        suffix: Sequence[str] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> NamespacesResult:
        """Return namespaces that have entries; see ``LTMBackend.list_namespaces``."""
        return await self._call(
            self._memory.list_namespaces,
            prefix,
            suffix,
            max_depth,
            limit,
            offset,
            only_reads=True,
        )

    async def import_entries(
        self,
        entries: Iterable[Mapping[str, Any]],
        on_conflict: Literal["fail", "skip", "replace"] = "fail",
    ) -> ImportResult:
        """Store copies of entries; see ``LTMBackend.import_entries``."""
        return await self._call(
            self._memory.import_entries,
            entries,
            on_conflict,
        )

    async def cleanup_expired(
        self,
        batch_size: int = 100,
    ) -> CleanupResult:
        """Remove expired entries; see ``LTMBackend.cleanup_expired``."""
        return await self._call(
            self._memory.cleanup_expired,
            batch_size,
        )

    async def measure(self, prefix: str | None = None, *, nested: bool = False) -> MeasureResult:
        """Return how many entries there are, how large and how old they are; see ``LTMBackend.measure``."""
        return await self._call(self._memory.measure, prefix, nested=nested, only_reads=True)

    def stats(self) -> StatsResult:
        """Return what the memory has done; see ``LTMBackend.stats``. It waits for nothing."""
        return self._memory.stats()

    def add_listener(self, listener: CallListener) -> None:
        """Tell a listener about each call, in the thread of the call; see ``LTMBackend.add_listener``."""
        self._memory.add_listener(listener)

    def remove_listener(self, listener: CallListener) -> None:
        """Tell a listener about no further call."""
        self._memory.remove_listener(listener)

    async def close(self) -> None:
        """Close the memory, after the calls that have begun; see ``LTMBackend.close``."""
        await self._threads.run(self._memory.close)
        self._threads.close()

    def iterate_all(self, prefix: str | None = None, *, nested: bool = False) -> AsyncItems[tuple[Any, ...]]:
        """Iterate over all entries by ``async for``; see ``LTMBackend.iterate_all``.

        Failures are raised by the iteration.
        """
        return AsyncItems(self._threads, lambda: self._memory.iterate_all(prefix, nested=nested))

    def iterate_entries(self, prefix: str | None = None, *, nested: bool = False) -> AsyncItems[WholeEntry]:
        """Iterate over whole entries by ``async for``; see ``LTMBackend.iterate_entries``.

        Failures are raised by the iteration.
        """
        return AsyncItems(self._threads, lambda: self._memory.iterate_entries(prefix, nested=nested))

    def transaction(self) -> AsyncTransaction:
        """Return a transaction; see ``LTMBackend.transaction``."""
        return AsyncTransaction(self._threads, self._memory.transaction)

    def namespace(self, *names: str) -> AsyncMemory:
        """Return a namespace of this memory, which shares its connections and turns; see ``LTMBackend.namespace``."""
        if not names:
            return self
        part = copy(self)
        part._memory = self._memory.namespace(*names)
        return part

    @property
    def namespace_names(self) -> tuple[str, ...]:
        """The names of the namespace that this memory is; empty for a whole memory."""
        return self._memory.namespace_names

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities of the memory; see ``LTMBackend``."""
        return self._memory.capabilities

    @property
    def backend(self) -> LTMBackend:
        """The memory that this object wraps, for threads."""
        return self._memory

    async def __aenter__(self) -> AsyncMemory:
        """Return the memory itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the memory."""
        await self.close()

    def __repr__(self) -> str:
        """Name the memory, without anything secret."""
        return f"AsyncMemory({self._memory!r})"

    async def _call(
        self, method: Callable[..., Answer], *args: Any, only_reads: bool = False, **options: Any
    ) -> Answer:
        """Call a method of the memory. Options that have their default values are left out.

        A memory of another package may not know the options of capabilities that it does not declare.
        """
        defaults = _defaults_of(method.__name__)
        changed = {option: value for option, value in options.items() if value is not defaults[option]}
        try:
            return await self._threads.run(method, *args, only_reads=only_reads, **changed)
        except LTMError as failure:
            if self._raises:
                raise
            return failure.result  # type: ignore[return-value]  # what the method would have returned


@cache
def _defaults_of(name: str) -> Mapping[str, Any]:
    return {each.name: each.default for each in signature(getattr(LTMBackend, name)).parameters.values()}
