"""The contract of a catalog: the CatalogBackend protocol, content hashes, and the registry of catalogs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from the_edge_agent.memory.contract.registry import Registry
from the_edge_agent.memory.contract.result_types import (
    CleanupResult,
    TrackedEntriesResult,
    TrackedEntry,
    TrackManyResult,
    TrackResult,
)


@runtime_checkable
class CatalogBackend(Protocol):
    """A catalog records for each key where its value is stored, and the value's hash, size and metadata.

    Methods that return a dict return a failure as ``{"success": False, "error": str, "error_type": str}``. The other
    methods raise ``LTMError``. After its ``expires_at`` an entry does not exist for any call. Times in results are
    datetimes in UTC with microseconds. An argument may have any time zone; a datetime without one means UTC.

    An entry is a dict with the keys ``id, key, content_hash, storage_uri, byte_size, inlined_value, metadata,
    expires_at, created_at, updated_at``.
    """

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
        """Create or replace the entry of a key.

        Args:
            key: 1 to 512 characters; case, accents and spaces count.
            content_hash: up to 200 printable ASCII characters without spaces, such as ``compute_content_hash`` returns.
            storage_uri: where the value is stored; None if only the catalog has it.
            byte_size: the size of the value in bytes, or None.
            metadata: a JSON object or None, with the limits of ``LTMBackend.store``.
            inlined_value: the value itself, if it is small: any JSON value.
            expires_at: when the entry expires; None for never.

        Returns:
            ``{"success": True, "entry_id": str, "created": bool}``. ``created`` is true if there was no entry; if many
            calls race for a new key, exactly one of them gets true.
        """
        ...

    def get_entry(self, key: str) -> TrackedEntry | None:
        """Return the entry of a key, or None if there is none."""
        ...

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[TrackedEntry]:
        """Return up to ``limit`` entries that have the prefix and satisfy the filter, ordered by key."""
        ...

    def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether there was one."""
        ...

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[TrackedEntry]:
        """Return the entries that were created, or whose hash, metadata or expiry changed, since a snapshot, by key.

        Without a snapshot this returns all entries.

        Raises:
            LTMError: ``validation_error`` if there is no snapshot with this id.
        """
        ...

    def create_snapshot(self, name: str) -> str:
        """Record the present state of the catalog in one transaction and return the snapshot's id of 36 characters.

        Raises:
            LTMError: ``validation_error`` if the sizes of all entries add up to more than 2^63 - 1 bytes.
        """
        ...

    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> TrackManyResult:
        """Track many entries.

        Args:
            entries: dicts with the arguments of ``track_entry``. A key that comes twice is tracked twice. An entry may
                leave out ``storage_uri`` (default None), ``metadata`` (default ``{}``), ``inlined_value`` (default
                None) and ``expires_at`` (default None).
            atomic: true stores all entries or none; false stores every good entry and reports the others.

        Returns:
            ``{"success": True, "stored_count": int, "failed_count": int, "errors": [{"key", "error",
            "error_type"}]}``. If ``atomic`` and an entry is bad: a failure, which also has ``errors``.
        """
        ...

    def retrieve_batch(self, keys: Iterable[str]) -> TrackedEntriesResult:
        """Return ``{"success": True, "entries": {key: entry | None}, "found_count": int, "missing_count": int}``."""
        ...

    def cleanup_expired(self, batch_size: int = 100) -> CleanupResult:
        """Remove up to ``batch_size`` expired entries from the database. No call returns them any more.

        Returns:
            ``{"success": True, "deleted_count": int, "remaining_count": int}``.
        """
        ...


def compute_content_hash(value: Any) -> str:
    """Return ``"sha256:"`` and the hex digest of a value's JSON text with sorted keys.

    An object that is not JSON is hashed as its ``str``, so that hashes agree with existing catalogs.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def generate_entry_id(key: str) -> str:
    """Return the id of the entry with this key: the SHA-256 hex digest of the key."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def catalog_as_it_is(memory: Any) -> CatalogBackend | None:
    """Return the catalog of a memory that has not connected yet; None if it has no catalog.

    The start of a memory fills an empty catalog with the entries of the memory. After this call it does not, so that
    reading the catalog changes nothing. Later writes of this memory go into the catalog as always.

    Args:
        memory: a memory that was opened with ``lazy=True``, or a namespace of one.
    """
    keep = getattr(memory, "_keep_catalog_as_it_is", None)
    if keep is not None:
        keep()
    catalog: CatalogBackend | None = getattr(memory, "catalog", None)
    return catalog


CatalogFactory: TypeAlias = Callable[..., CatalogBackend]
_catalogs: Final = Registry(
    "LTM catalog",
    {
        "postgres": "the_edge_agent.memory.postgres.catalog:PostgresCatalog",
        "sqlalchemy": "the_edge_agent.memory.sql.catalog:SQLAlchemyCatalog",
        "sqlite": "the_edge_agent.memory.sqlite.catalog:SQLiteCatalog",
    },
    "the_edge_agent.ltm_catalogs",
)


def register_catalog_backend(name: str, factory: CatalogFactory) -> None:
    """Make ``create_catalog_backend(name, ...)`` call ``factory(...)``. Registering a name again replaces the factory.

    A package may instead declare an entry point in the group ``the_edge_agent.ltm_catalogs``.

    Raises:
        ValueError: the name is empty or not text.
        TypeError: the factory is not callable.
    """
    _catalogs.register(name, factory)


def get_registered_catalog_backends() -> list[str]:
    """Return the names that ``create_catalog_backend`` knows, sorted."""
    return _catalogs.names()


def create_catalog_backend(catalog_type: str = "sqlalchemy", **options: Any) -> CatalogBackend:
    """Return a new catalog. The caller must close it.

    Args:
        catalog_type: a registered name, case-insensitive.
        options: the arguments of the catalog's constructor, such as ``url``.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
        LTMError: the catalog could not be created, for example because the database cannot be reached.
        ImportError: an optional dependency is missing; the message names the extra to install.
    """
    return find_catalog_factory(catalog_type, options.get("url"))(**options)


def find_catalog_factory(name: str, url: Any = None) -> CatalogFactory:
    """Return the class or function that is registered under a name.

    Args:
        name: the name of the catalog, case-insensitive.
        url: the URL that the catalog will connect to; only the message of an ImportError uses it.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
        ImportError: an optional dependency is missing; the message names the extra that the URL needs.
    """
    return _catalogs.find(name, url)
