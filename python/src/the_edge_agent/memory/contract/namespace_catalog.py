"""``NamespaceCatalog``: the part of a catalog that has the keys of one namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.contract.result_types import (
    CleanupResult,
    DeletedEntry,
    RecordedEntry,
    TrackedEntriesResult,
    TrackedEntry,
    TrackManyResult,
    TrackResult,
)
from the_edge_agent.memory.core.namespaces import Namespace
from the_edge_agent.memory.core.results import LTMError, outcome_of, returns_result
from the_edge_agent.memory.core.validation import MAX_LIMIT, check_items, check_keys, check_limit, check_prefix


class NamespaceCatalog:
    """A catalog with the keys of one namespace, over the catalog of a whole memory; see ``CatalogBackend``.

    Snapshots and ``cleanup_expired`` are those of the whole catalog. The lists of entries have those of the namespace
    alone. Many threads may use one object if they may use the whole catalog.
    """

    def __init__(self, catalog: CatalogBackend, namespace: Namespace) -> None:
        """Take the whole catalog, which this object does not close."""
        self._catalog, self._namespace = catalog, namespace
        self._ours: Any = catalog  # which has methods that are not in the protocol

    @returns_result
    def track_entry(
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
        full_key = self._namespace.full_key(key)
        return self._catalog.track_entry(
            full_key, content_hash, storage_uri, byte_size, metadata, inlined_value, expires_at
        )

    def get_entry(self, key: str) -> TrackedEntry | None:
        """Return the entry of a key, or None; see ``CatalogBackend.get_entry``."""
        return self._shown(self._catalog.get_entry(self._namespace.full_key(key)))

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[TrackedEntry]:
        """Return entries that have the prefix and satisfy the filter; see ``CatalogBackend.list_entries``."""
        begin, count = self._namespace.head + check_prefix(prefix), check_limit(limit)
        found = self._catalog.list_entries(begin, metadata_filter, min(count + 1, MAX_LIMIT))
        return self._all_shown(found)[:count]

    def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether there was one."""
        return self._catalog.delete_entry(self._namespace.full_key(key))

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[TrackedEntry]:
        """Return the entries of the namespace that have changed; see ``CatalogBackend.get_changed_entries``."""
        return self._all_shown(self._catalog.get_changed_entries(since_snapshot_id))

    def create_snapshot(self, name: str) -> str:
        """Record the present state of the whole catalog; see ``CatalogBackend.create_snapshot``."""
        return self._catalog.create_snapshot(name)

    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> TrackManyResult:
        """Track many entries; see ``CatalogBackend.store_batch``."""
        placed = [self._placed(entry) for entry in check_items(entries, "entries")]
        result = outcome_of(self._catalog.store_batch, placed, atomic)
        for error in result.get("errors", ()):
            error["key"] = self._own(error["key"])
        return result

    @returns_result
    def retrieve_batch(self, keys: Iterable[str]) -> TrackedEntriesResult:
        """Return the entries of many keys; see ``CatalogBackend.retrieve_batch``."""
        full_keys = {key: self._namespace.full_key(key) for key in check_keys(keys)}
        result = outcome_of(self._catalog.retrieve_batch, [*full_keys.values()])
        if not result["success"]:
            damaged = {"damaged": [*map(self._own, result["damaged"])]} if "damaged" in result else {}
            raise LTMError.of({**result, **damaged})
        entries = {key: self._shown(result["entries"][full_key]) for key, full_key in full_keys.items()}
        return {**result, "entries": entries}

    def cleanup_expired(self, batch_size: int = 100) -> CleanupResult:
        """Remove expired entries of the whole catalog; see ``CatalogBackend.cleanup_expired``."""
        return self._catalog.cleanup_expired(batch_size)

    # A catalog of another package may lack the next seven methods. Its namespaces then lack them too.

    @property
    def stats(self) -> Any:
        """The method of the whole catalog that returns what it has done."""
        return self._ours.stats

    @property
    def add_listener(self) -> Any:
        """The method of the whole catalog that adds a listener of its calls."""
        return self._ours.add_listener

    @property
    def remove_listener(self) -> Any:
        """The method of the whole catalog that removes a listener of its calls."""
        return self._ours.remove_listener

    # A catalog of another package may lack the next five methods. Its namespaces then lack them too.

    @property
    def get_snapshot(self) -> Any:
        """The method of the whole catalog that returns a snapshot."""
        return self._ours.get_snapshot

    @property
    def list_snapshots(self) -> Any:
        """The method of the whole catalog that returns all snapshots."""
        return self._ours.list_snapshots

    @property
    def delete_snapshot(self) -> Any:
        """The method of the whole catalog that deletes a snapshot."""
        return self._ours.delete_snapshot

    @property
    def get_deleted_entries(self) -> Callable[[str], list[DeletedEntry]]:
        """A method that returns the entries of the namespace that a snapshot has and that were deleted since."""
        method = self._ours.get_deleted_entries
        return lambda since_snapshot_id: self._all_shown(method(since_snapshot_id))

    @property
    def iterate_snapshot(self) -> Callable[[str], Iterator[RecordedEntry]]:
        """A method that yields the entries of the namespace that a snapshot has recorded."""
        method, head = self._ours.iterate_snapshot, self._namespace.head

        def iterate_snapshot(snapshot_id: str) -> Iterator[RecordedEntry]:
            entries = method(snapshot_id)  # an unknown snapshot is refused at once
            ours = (entry for entry in entries if entry["key"].startswith(head) and entry["key"] != head)
            return map(self._recorded, ours)

        return iterate_snapshot

    def _recorded(self, entry: RecordedEntry) -> RecordedEntry:
        shown = entry.copy()
        shown["key"] = self._namespace.key_of(entry["key"])
        return shown

    def close(self) -> None:
        """Do nothing: the whole catalog stays open."""

    def _placed(self, entry: Any) -> Any:
        """Return an entry of ``store_batch`` with its full key. A bad one stays as it is: the catalog refuses it."""
        if not isinstance(entry, Mapping) or not isinstance(entry.get("key"), str) or not entry["key"]:
            return entry
        return {**entry, "key": self._namespace.head + entry["key"]}

    def _own(self, full_key: Any) -> Any:
        is_ours = isinstance(full_key, str) and full_key.startswith(self._namespace.head)
        return self._namespace.key_of(full_key) if is_ours else full_key

    def _shown(self, entry: TrackedEntry | None) -> TrackedEntry | None:
        return None if entry is None else {**entry, "key": self._namespace.key_of(entry["key"])}

    def _all_shown(self, entries: Iterable[Any]) -> list[Any]:
        head = self._namespace.head
        return [
            {**entry, "key": self._namespace.key_of(entry["key"])}
            for entry in entries
            if entry["key"].startswith(head) and entry["key"] != head
        ]
