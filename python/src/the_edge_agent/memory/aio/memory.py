"""``AsyncMemory``: the contract of long-term memory as coroutines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import cache
from inspect import signature
from typing import Any, Literal, TypeVar

from the_edge_agent.memory.aio.catalog import AsyncCatalog
from the_edge_agent.memory.aio.items import AsyncItems
from the_edge_agent.memory.aio.transaction import AsyncTransaction
from the_edge_agent.memory.aio.wrapper import AsyncWrapper
from the_edge_agent.memory.contract.backend import LTMBackend, create_ltm_backend
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
    StoreManyResult,
    StoreResult,
    TouchResult,
    WholeEntry,
)
from the_edge_agent.memory.core.validation import NOT_GIVEN, TTL

Answer = TypeVar("Answer")


class AsyncMemory(AsyncWrapper[LTMBackend]):
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
            options: in place of ``memory``, the arguments of ``create_ltm_backend``, such as ``url``.
                ``async with`` connects, or else the first call.

        Raises:
            LTMError: ``configuration_error``.
            TypeError: both a memory and options were given, or neither.
        """
        self._open(memory, create_ltm_backend, options, max_concurrency, pool_timeout)

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
            self._wrapped.store,
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
            self._wrapped.retrieve,
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
            self._wrapped.delete,
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
            self._wrapped.search,
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
            self._wrapped.store_many,
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
            self._wrapped.retrieve_many,
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
            self._wrapped.delete_many,
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
            self._wrapped.delete_all,
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
            self._wrapped.touch,
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
            self._wrapped.list_keys,
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
            self._wrapped.entries,
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
            self._wrapped.count,
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
            self._wrapped.list_namespaces,
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
            self._wrapped.import_entries,
            entries,
            on_conflict,
        )

    async def cleanup_expired(
        self,
        batch_size: int = 100,
    ) -> CleanupResult:
        """Remove expired entries; see ``LTMBackend.cleanup_expired``."""
        return await self._call(
            self._wrapped.cleanup_expired,
            batch_size,
        )

    async def measure(self, prefix: str | None = None, *, nested: bool = False) -> MeasureResult:
        """Return how many entries there are, how large and how old they are; see ``LTMBackend.measure``."""
        return await self._call(self._wrapped.measure, prefix, nested=nested, only_reads=True)

    def iterate_all(self, prefix: str | None = None, *, nested: bool = False) -> AsyncItems[tuple[Any, ...]]:
        """Iterate over all entries by ``async for``; see ``LTMBackend.iterate_all``.

        Failures are raised by the iteration.
        """
        return AsyncItems(self._threads, lambda: self._wrapped.iterate_all(prefix, nested=nested))

    def iterate_entries(self, prefix: str | None = None, *, nested: bool = False) -> AsyncItems[WholeEntry]:
        """Iterate over whole entries by ``async for``; see ``LTMBackend.iterate_entries``.

        Failures are raised by the iteration.
        """
        return AsyncItems(self._threads, lambda: self._wrapped.iterate_entries(prefix, nested=nested))

    def transaction(self) -> AsyncTransaction:
        """Return a transaction; see ``LTMBackend.transaction``."""
        return AsyncTransaction(self._threads, self._wrapped.transaction)

    def namespace(self, *names: str) -> AsyncMemory:
        """Return a namespace of this memory, which shares its connections and turns; see ``LTMBackend.namespace``."""
        if not names:
            return self
        part = copy(self)
        part._wrapped, part._owns_threads = self._wrapped.namespace(*names), False
        return part

    @property
    def catalog(self) -> AsyncCatalog | None:
        """The catalog of this memory, which shares its connections and turns; None if there is none.

        The catalog of a namespace has the keys of the namespace. The memory closes the catalog.
        """
        catalog = getattr(self._wrapped, "catalog", None)
        return None if catalog is None else AsyncCatalog._with(catalog, self._threads)

    @property
    def namespace_names(self) -> tuple[str, ...]:
        """The names of the namespace that this memory is; empty for a whole memory."""
        return self._wrapped.namespace_names

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities of the memory; see ``LTMBackend``."""
        return self._wrapped.capabilities

    async def _call(
        self, method: Callable[..., Answer], *args: Any, only_reads: bool = False, **options: Any
    ) -> Answer:
        """Call a method of the memory. Options that have their default values are left out.

        A memory of another package may not know the options of capabilities that it does not declare.
        """
        defaults = _defaults_of(method.__name__)
        changed = {option: value for option, value in options.items() if value is not defaults.get(option, ...)}
        return await super()._call(method, *args, only_reads=only_reads, **changed)


@cache
def _defaults_of(name: str) -> Mapping[str, Any]:
    method = getattr(LTMBackend, name, None)  # a decorator of another package may have changed the name
    return {} if method is None else {each.name: each.default for each in signature(method).parameters.values()}
