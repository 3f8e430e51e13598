"""The contract of a catalog: the CatalogBackend protocol, content hashes, and the registry of catalogs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from the_edge_agent.memory.contract.registry import Registry
from the_edge_agent.memory.core.results import Result


@runtime_checkable
class CatalogBackend(Protocol):
    """The ledger of what is stored: of each key the hash of its content, its size, its metadata and its place.

    Methods that return a dict answer a failure as ``{"success": False, "error": str, "error_type": str}``; the
    others raise ``LTMError``. An entry whose ``expires_at`` is over is as if it were not there. Times are aware
    datetimes in UTC with microseconds; any aware datetime goes in, a naive one means UTC.

    An entry is a dict of ``id, key, content_hash, storage_uri, byte_size, inlined_value, metadata, expires_at,
    created_at, updated_at``.
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
    ) -> Result:
        """Create or replace the entry of a key.

        Args:
            key: 1 to 512 characters, exact.
            content_hash: up to 200 printable ASCII characters without spaces, such as ``compute_content_hash`` returns.
            storage_uri: where the value is, None if it is nowhere else.
            byte_size: of the value, in bytes.
            metadata: a JSON object or None, by the rules of ``LTMBackend.store``.
            inlined_value: the value itself, where it is small: any JSON value.
            expires_at: when the entry expires, None for never.

        Returns:
            ``{"success": True, "entry_id": str, "created": bool}``; ``created`` is true exactly once per key
            under any race.
        """
        ...

    def get_entry(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a key, None if there is none."""
        ...

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the first entries, in the order of their keys, that fit a prefix and a metadata filter."""
        ...

    def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether it was there."""
        ...

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[dict[str, Any]]:
        """Return the entries that are new since a snapshot or have another hash, metadata or expiry, by key.

        Without a snapshot all entries. An unknown snapshot raises ``LTMError``.
        """
        ...

    def create_snapshot(self, name: str) -> str:
        """Keep what the catalog holds now, one consistent state, and return the snapshot's id of 36 characters.

        Sizes that add up to more than 2^63 - 1 bytes raise ``LTMError`` (``validation_error``).
        """
        ...

    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        """Track many entries.

        Args:
            entries: dicts of the arguments of ``track_entry``; a key that comes twice is tracked twice. An entry
                may leave out ``storage_uri`` (None is meant), ``metadata`` (``{}``), ``inlined_value`` and
                ``expires_at`` (None).
            atomic: store all or none; otherwise each that can be stored.

        Returns:
            ``{"success": True, "stored_count": int, "failed_count": int, "errors": [{"key", "error",
            "error_type"}]}``. With ``atomic`` one bad entry is a failure, with ``errors`` too.
        """
        ...

    def retrieve_batch(self, keys: Iterable[str]) -> Result:
        """Return ``{"success": True, "entries": {key: entry | None}, "found_count": int, "missing_count": int}``."""
        ...

    def cleanup_expired(self, batch_size: int = 100) -> Result:
        """Remove up to ``batch_size`` expired entries.

        Returns:
            ``{"success": True, "deleted_count": int, "remaining_count": int}``.
        """
        ...


def compute_content_hash(value: Any) -> str:
    """Return ``"sha256:"`` and the hex digest of the JSON of a value, with sorted keys.

    What JSON does not know is hashed as its ``str``, so that hashes agree with existing catalogs.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def generate_entry_id(key: str) -> str:
    """Return the id of a key's entry: the SHA-256 hex digest of the key."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


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
    """Make ``create_catalog_backend(name, ...)`` call ``factory(...)``; a later registration replaces it.

    Third parties may instead declare an entry point in the group ``the_edge_agent.ltm_catalogs``.
    """
    _catalogs.register(name, factory)


def get_registered_catalog_backends() -> list[str]:
    """Return the names that ``create_catalog_backend`` knows, sorted."""
    return _catalogs.names()


def create_catalog_backend(catalog_type: str = "sqlalchemy", **options: Any) -> CatalogBackend:
    """Return a new catalog; the caller closes it.

    Args:
        catalog_type: a registered name, case-insensitive.
        options: the arguments of the catalog's constructor, such as ``url``.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        LTMError: the catalog could not be built.
        ImportError: its optional dependency is missing; the message names the extra to install.
    """
    return find_catalog_factory(catalog_type, options.get("url"))(**options)


def find_catalog_factory(name: str, url: Any = None) -> CatalogFactory:
    """Return the registered class or function of a name, which is to serve a URL.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        ImportError: its optional dependency is missing; the message names the extra that the URL needs.
    """
    return _catalogs.find(name, url)
