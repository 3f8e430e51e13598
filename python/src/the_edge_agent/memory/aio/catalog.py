"""``AsyncCatalog``: the contract of catalogs as coroutines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from the_edge_agent.memory.aio.items import AsyncItems
from the_edge_agent.memory.aio.threads import Threads
from the_edge_agent.memory.aio.wrapper import AsyncWrapper, if_there
from the_edge_agent.memory.contract.catalog import CatalogBackend, create_catalog_backend
from the_edge_agent.memory.contract.result_types import (
    CleanupResult,
    DeletedEntry,
    RecordedEntry,
    Snapshot,
    TrackedEntriesResult,
    TrackedEntry,
    TrackManyResult,
    TrackResult,
)


class AsyncCatalog(AsyncWrapper[CatalogBackend]):
    """A catalog whose methods are coroutines, for programs on asyncio or trio.

    Each method takes the arguments of the catalog's method with its name, and returns or raises the same. A method
    beyond those of ``CatalogBackend`` is missing if the catalog does not have it. Threads, turns and cancellation are
    those of ``AsyncMemory``. The catalog of a memory is ``AsyncMemory.catalog``.

    Example:
        >>> import anyio
        >>> from the_edge_agent.memory.aio import AsyncCatalog
        >>> async def main():
        ...     async with AsyncCatalog(url="sqlite://") as catalog:
        ...         monday = await catalog.create_snapshot("monday")
        ...         await catalog.track_entry("report", "sha256:1", "s3://reports/1", 31, None)
        ...         print([entry["key"] for entry in await catalog.get_changed_entries(monday)])
        >>> anyio.run(main)
        ['report']
    """

    def __init__(
        self,
        catalog: CatalogBackend | None = None,
        *,
        max_concurrency: int | None = None,
        pool_timeout: float | None = None,
        **options: Any,
    ) -> None:
        """Wrap a catalog, or open one by its options. Nothing is connected yet.

        Args:
            catalog: any catalog; ``close`` closes it. One of ``raising`` raises its failures here too.
            max_concurrency: how many calls run at a time. None means the highest number of connections that the pool of
                the catalog may have, and 10 for a catalog without a pool.
            pool_timeout: seconds that a call may wait for its turn; None means 10.
            options: in place of ``catalog``, the arguments of ``create_catalog_backend``, such as ``url``.
                ``async with`` connects, or else the first call.

        Raises:
            LTMError: ``configuration_error``.
            TypeError: both a catalog and options were given, or neither.
        """
        self._open(catalog, create_catalog_backend, options, max_concurrency, pool_timeout)

    @classmethod
    def _with(cls, catalog: CatalogBackend, threads: Threads) -> AsyncCatalog:
        """Wrap the catalog of a memory, which calls in the memory's threads."""
        wrapper = cls.__new__(cls)
        wrapper._wrap(catalog, threads)
        wrapper._owns_threads = False
        return wrapper

    async def track_entry(
        self,
        key: str,
        content_hash: str,
        storage_uri: str | None,
        byte_size: int | None,
        metadata: dict[str, Any] | None,
        inlined_value: Any = None,
        expires_at: datetime | None = None,
    ) -> TrackResult:
        """Create or replace the entry of a key; see ``CatalogBackend.track_entry``."""
        return await self._call(
            self._wrapped.track_entry,
            key,
            content_hash,
            storage_uri,
            byte_size,
            metadata,
            inlined_value,
            expires_at,
        )

    async def get_entry(self, key: str) -> TrackedEntry | None:
        """Return the entry of a key, or None if there is none; see ``CatalogBackend.get_entry``."""
        return await self._threads.run(self._wrapped.get_entry, key, only_reads=True)

    async def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[TrackedEntry]:
        """Return the first entries by key; see ``CatalogBackend.list_entries``."""
        return await self._threads.run(self._wrapped.list_entries, prefix, metadata_filter, limit, only_reads=True)

    async def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether there was one; see ``CatalogBackend.delete_entry``."""
        return await self._threads.run(self._wrapped.delete_entry, key)

    async def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> TrackManyResult:
        """Track many entries; see ``CatalogBackend.store_batch``."""
        return await self._call(self._wrapped.store_batch, entries, atomic)

    async def retrieve_batch(self, keys: Iterable[str]) -> TrackedEntriesResult:
        """Return the entries of many keys; see ``CatalogBackend.retrieve_batch``."""
        return await self._call(self._wrapped.retrieve_batch, keys, only_reads=True)

    async def cleanup_expired(self, batch_size: int = 100) -> CleanupResult:
        """Remove expired entries; see ``CatalogBackend.cleanup_expired``."""
        return await self._call(self._wrapped.cleanup_expired, batch_size)

    async def create_snapshot(self, name: str) -> str:
        """Create a snapshot of the catalog and return its id; see ``CatalogBackend.create_snapshot``."""
        return await self._threads.run(self._wrapped.create_snapshot, name)

    async def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[TrackedEntry]:
        """Return the entries that are new or changed since a snapshot; see ``CatalogBackend.get_changed_entries``."""
        return await self._threads.run(self._wrapped.get_changed_entries, since_snapshot_id, only_reads=True)

    @if_there
    async def get_deleted_entries(self, since_snapshot_id: str) -> list[DeletedEntry]:
        """Return the entries of a snapshot that were deleted or have expired since, by key.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        deleted: list[DeletedEntry] = await self._threads.run(
            self._ours.get_deleted_entries, since_snapshot_id, only_reads=True
        )
        return deleted

    @if_there
    async def get_snapshot(self, snapshot_id: str) -> Snapshot | None:
        """Return ``{"id", "name", "entry_count", "total_bytes", "created_at"}``, or None if there is no snapshot."""
        snapshot: Snapshot | None = await self._threads.run(self._ours.get_snapshot, snapshot_id, only_reads=True)
        return snapshot

    @if_there
    async def list_snapshots(self) -> list[Snapshot]:
        """Return all snapshots as ``get_snapshot`` does, newest first."""
        snapshots: list[Snapshot] = await self._threads.run(self._ours.list_snapshots, only_reads=True)
        return snapshots

    @if_there
    async def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot and return whether there was one. The entries stay."""
        was_there: bool = await self._threads.run(self._ours.delete_snapshot, snapshot_id)
        return was_there

    @if_there
    def iterate_snapshot(self, snapshot_id: str) -> AsyncItems[RecordedEntry]:
        """Iterate by ``async for`` over the entries of a snapshot as it has recorded them, ordered by id.

        An entry is ``{"id", "key", "content_hash", "metadata_hash", "byte_size", "expires_at"}``. Failures are raised
        by the iteration: ``validation_error`` for an unknown snapshot.
        """
        return AsyncItems(self._threads, lambda: self._ours.iterate_snapshot(snapshot_id))

    @if_there
    async def import_snapshot(self, snapshot: Snapshot, entries: Iterable[RecordedEntry]) -> bool:
        """Store a copy of a snapshot of another catalog, with its id, name and time.

        If this is cancelled, it ends after the present transaction, and there is no snapshot; call it again. Do not
        call it for one id at the same time.

        Args:
            snapshot: as ``get_snapshot`` returns it.
            entries: as ``iterate_snapshot`` yields them, in any order. A worker thread reads them.

        Returns:
            Whether the snapshot was stored; false if there is one with this id already.

        Raises:
            LTMError: ``validation_error`` if ``entry_count`` is not the number of entries, or a field is bad.
        """
        is_stored: bool = await self._threads.run(self._ours.import_snapshot, snapshot, entries)
        return is_stored
