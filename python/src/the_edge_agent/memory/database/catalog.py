"""The base class of catalogs on a database: public methods, which check their arguments, and hooks for subclasses."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Final, TypeVar

from the_edge_agent.memory.contract.observed import OF_CATALOGS, Observed
from the_edge_agent.memory.contract.result_types import (
    CleanupResult,
    DeletedEntry,
    PoolState,
    RecordedEntry,
    Snapshot,
    TrackedEntriesResult,
    TrackedEntry,
    TrackManyResult,
    TrackResult,
)
from the_edge_agent.memory.contract.tracking import (
    Tracked,
    check_batch,
    check_snapshot_found,
    check_snapshot_id,
    checked_recorded,
)
from the_edge_agent.memory.core.cancelling import checkpoint
from the_edge_agent.memory.core.damage import Damage, whole, whole_entries
from the_edge_agent.memory.core.filters import Node, parse_filter
from the_edge_agent.memory.core.results import LTMError, ok, returns_result
from the_edge_agent.memory.core.showing import repr_of
from the_edge_agent.memory.core.validation import (
    check_batch_size,
    check_expiry,
    check_flag,
    check_key,
    check_keys,
    check_limit,
    check_prefix,
    check_text,
)

Self = TypeVar("Self", bound="DatabaseCatalog")

RECORDED_AT_ONCE: Final = 1_000  # entries of a snapshot that one statement reads, and one transaction imports


class DatabaseCatalog(Observed):
    """Has every public method of a catalog on a database.

    A subclass sets ``_database_class``, and ``_place`` to a pair: the name of the option that tells where the database
    is, and an example of its value. Its ``__init__`` calls ``_open``.
    """

    _observed = OF_CATALOGS
    _prefix = "catalog."
    _database_class: ClassVar[type[Any]]
    _place: ClassVar[tuple[str, str]]
    _database: Any
    _owns_database: bool

    def __repr__(self) -> str:
        """Name the database, without anything secret."""
        return repr_of(self)

    @classmethod
    def beside(cls: type[Self], database: Any, options: Mapping[str, Any]) -> Self | None:
        """Return a catalog on the database of a memory, so that its transactions write both.

        Args:
            database: the database of the memory, which closes it.
            options: the options of the catalog. They are checked, although the catalog uses the memory's connections.

        Returns:
            The catalog, or None if the options name another database.

        Raises:
            LTMError: ``configuration_error``.
        """
        name, example = cls._place
        if not isinstance(database, cls._database_class) or (name in options and not database.is_at(options[name])):
            return None
        lazy = options.get("lazy", True)
        cls(**{name: example, **options, "lazy": True if lazy is False else lazy}).close()
        catalog = cls.__new__(cls)
        catalog._owns_database, catalog._database = False, database
        return catalog

    def _open(self, database: Any, lazy: bool) -> None:
        """Take the database for this catalog alone, and start it unless ``lazy``."""
        self._owns_database, self._database = True, database
        if check_flag("lazy", lazy):
            return
        try:
            database.start()
        except BaseException:
            database.close()
            raise

    def _connect(self) -> None:
        """Connect now, if the catalog is lazy."""
        self._database.start()

    def _pool_state(self) -> PoolState | None:
        state: PoolState | None = self._database.pool_state()
        return state

    def _target(self) -> tuple[str, str, str]:
        return (*self._database.target(), "ltm_catalog")

    @property
    def _most_at_once(self) -> int:
        """How many calls can use a connection at a time."""
        most: int = self._database.most_connections
        return most

    def is_on(self, database: Any) -> bool:
        """Return whether this is on the database of a backend, so that one transaction can write both."""
        return isinstance(database, self._database_class) and (
            self._database is database or self._database.is_same(database)
        )

    # --- entries -----------------------------------------------------------------------------------

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
        entry = Tracked.of(key, content_hash, storage_uri, byte_size, metadata, inlined_value, expires_at)
        self._check_size(entry)
        return ok(entry_id=entry.entry_id, created=self._track(entry))

    def get_entry(self, key: str) -> TrackedEntry | None:
        """Return the entry of a key, or None if there is none; see ``CatalogBackend.get_entry``."""
        entry: TrackedEntry | None = whole(self._get(check_key(key)))
        return entry

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[TrackedEntry]:
        """Return the first entries by key; see ``CatalogBackend.list_entries``."""
        return self._list(check_prefix(prefix), parse_filter(metadata_filter), check_limit(limit))

    def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether there was one; see ``CatalogBackend.delete_entry``."""
        return self._delete(check_key(key))

    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> TrackManyResult:
        """Track many entries; see ``CatalogBackend.store_batch``."""
        good, errors = check_batch(entries, atomic, self._check_size)
        self._track_many(good)
        return ok(stored_count=len(good), failed_count=len(errors), errors=errors)

    @returns_result
    def retrieve_batch(self, keys: Iterable[str]) -> TrackedEntriesResult:
        """Return the entries of many keys, all from one state; see ``CatalogBackend.retrieve_batch``."""
        return ok(**whole_entries(self._get_many(check_keys(keys))))

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> CleanupResult:
        """Remove expired entries; see ``CatalogBackend.cleanup_expired``."""
        deleted, remaining = self._remove_expired(check_batch_size(batch_size))
        return ok(deleted_count=deleted, remaining_count=remaining)

    # --- snapshots ---------------------------------------------------------------------------------

    def create_snapshot(self, name: str) -> str:
        """Create a snapshot of the catalog and return its id; see ``CatalogBackend.create_snapshot``."""
        snapshot_id = str(uuid.uuid4())
        self._keep(snapshot_id, check_text(name, "name"))
        return snapshot_id

    def get_snapshot(self, snapshot_id: str) -> Snapshot | None:
        """Return ``{"id", "name", "entry_count", "total_bytes", "created_at"}``, or None if there is no snapshot."""
        snapshot: Snapshot | None = whole(self._snapshot(check_snapshot_id(snapshot_id, "snapshot_id")), "snapshot")
        return snapshot

    def list_snapshots(self) -> list[Snapshot]:
        """Return all snapshots as ``get_snapshot`` does, newest first."""
        return self._snapshots()

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot and return whether there was one. The entries stay."""
        return self._delete_snapshot(check_snapshot_id(snapshot_id, "snapshot_id"))

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[TrackedEntry]:
        """Return the entries that are new or changed since a snapshot; see ``CatalogBackend.get_changed_entries``."""
        since = None if since_snapshot_id is None else check_snapshot_id(since_snapshot_id, "since_snapshot_id")
        return self._changed(since)

    def get_deleted_entries(self, since_snapshot_id: str) -> list[DeletedEntry]:
        """Return the entries of a snapshot that were deleted or have expired since, by key.

        Returns:
            ``[{"id", "key", "content_hash", "byte_size", "expires_at"}]``, as they were in the snapshot.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        return self._deleted(check_snapshot_id(since_snapshot_id, "since_snapshot_id"))

    def iterate_snapshot(self, snapshot_id: str) -> Iterator[RecordedEntry]:
        """Yield the entries of a snapshot as it has recorded them, ordered by id. They are read page by page.

        Yields:
            ``{"id", "key", "content_hash", "metadata_hash", "byte_size", "expires_at"}``; ``metadata_hash`` is None for
            an entry without metadata.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        checked = check_snapshot_id(snapshot_id, "snapshot_id")
        check_snapshot_found(self._snapshot(checked))
        return self._iterate_snapshot(checked)

    def _iterate_snapshot(self, snapshot_id: str) -> Iterator[RecordedEntry]:
        after = ""
        while page := self._recorded(snapshot_id, after, RECORDED_AT_ONCE):
            yield from page
            after = page[-1]["id"]

    def import_snapshot(self, snapshot: Snapshot, entries: Iterable[RecordedEntry]) -> bool:
        """Store a copy of a snapshot of another catalog, with its id, name and time.

        If this is interrupted, there is no snapshot; call it again. Do not call it for one id at the same time.

        Args:
            snapshot: as ``get_snapshot`` returns it.
            entries: as ``iterate_snapshot`` yields them, in any order.

        Returns:
            Whether the snapshot was stored; false if there is one with this id already.

        Raises:
            LTMError: ``validation_error`` if ``entry_count`` is not the number of entries, or a field is bad.
        """
        snapshot_id = check_snapshot_id(snapshot["id"], "snapshot_id")
        name, created_at = check_text(snapshot["name"], "name"), check_expiry(snapshot["created_at"], "created_at")
        if created_at is None:
            raise LTMError("validation_error", "a snapshot must have created_at")
        if self._snapshot(snapshot_id) is not None:
            return False
        self._delete_snapshot(snapshot_id)  # what an interrupted call has left
        rest, count, total = iter(entries), 0, 0
        while page := [*islice(rest, RECORDED_AT_ONCE)]:
            recorded = [checked_recorded(entry) for entry in page]
            self._record(snapshot_id, recorded)
            checkpoint()
            count += len(recorded)
            total += sum(entry["byte_size"] or 0 for entry in recorded)
        if (count, total) != (snapshot["entry_count"], snapshot["total_bytes"]):
            self._delete_snapshot(snapshot_id)
            raise LTMError(
                "validation_error",
                f"the snapshot {snapshot_id} has {snapshot['entry_count']:,} entries of {snapshot['total_bytes']:,} "
                f"bytes, not {count:,} of {total:,}",
            )
        self._import_snapshot(
            {"id": snapshot_id, "name": name, "entry_count": count, "total_bytes": total, "created_at": created_at}
        )
        return True

    # --- hooks for subclasses ----------------------------------------------------------------------

    def _check_size(self, entry: Tracked) -> None:
        """Refuse an entry that is too large for the database."""

    def _track(self, entry: Tracked) -> bool:
        """Create or replace an entry; return whether it was created."""
        raise NotImplementedError

    def _track_many(self, entries: Sequence[Tracked]) -> None:
        """Create or replace entries in one transaction."""
        raise NotImplementedError

    def _get(self, key: str) -> dict[str, Any] | Damage | None:
        """Return the entry of a key or its damage, or None if there is none."""
        return self._get_many([key])[key]

    def _get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any] | Damage | None]:
        """Return the entries of keys, all from one state; None for a key that has none."""
        raise NotImplementedError

    def _list(self, prefix: str, condition: Node | None, limit: int) -> list[Any]:
        """Return up to ``limit`` entries that have the prefix and satisfy the filter, ordered by key."""
        raise NotImplementedError

    def _delete(self, key: str) -> bool:
        """Delete an entry; return whether there was one."""
        raise NotImplementedError

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        """Remove up to ``limit`` expired entries; return how many were removed, and how many are left."""
        raise NotImplementedError

    def _keep(self, snapshot_id: str, name: str) -> None:
        """Create a snapshot of the catalog."""
        raise NotImplementedError

    def _snapshot(self, snapshot_id: str) -> dict[str, Any] | Damage | None:
        """Return a snapshot or its damage, or None if there is none."""
        raise NotImplementedError

    def _snapshots(self) -> list[Any]:
        """Return all snapshots, newest first."""
        raise NotImplementedError

    def _delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot; return whether there was one."""
        raise NotImplementedError

    def _recorded(self, snapshot_id: str, after: str, limit: int) -> list[RecordedEntry]:
        """Return the first ``limit`` entries of a snapshot after an id, by id."""
        raise NotImplementedError

    def _record(self, snapshot_id: str, entries: Sequence[RecordedEntry]) -> None:
        """Add entries to a snapshot that is being imported."""
        raise NotImplementedError

    def _import_snapshot(self, snapshot: Snapshot) -> None:
        """Add a snapshot whose entries were added before."""
        raise NotImplementedError

    def _changed(self, snapshot_id: str | None) -> list[Any]:
        """Return the entries that differ from a snapshot; for None return all entries. See ``get_changed_entries``."""
        raise NotImplementedError

    def _deleted(self, snapshot_id: str) -> list[Any]:
        """Return the entries that were deleted or have expired since a snapshot; see ``get_deleted_entries``."""
        raise NotImplementedError

    # --- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection. Later calls fail with ``connection_error``; closing again does nothing.

        On the catalog of a memory (``memory.catalog``) this does nothing: the memory closes it.
        """
        if self._owns_database:
            self._database.close()

    def __enter__(self: Self) -> Self:
        """Return the catalog itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the catalog."""
        self.close()
