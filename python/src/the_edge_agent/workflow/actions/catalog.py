"""The ``catalog.*`` actions: entries of the catalog, snapshots, and changes since a snapshot.

Their results are plain JSON. Times are ISO 8601 text in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from the_edge_agent.memory import NOT_GIVEN, CatalogBackend, LTMBackend, LTMError, compute_content_hash
from the_edge_agent.workflow.actions.plain import all_plain, moment, plain

Result: TypeAlias = Mapping[str, Any]


def track(
    memory: LTMBackend,
    key: str,
    value: Any = NOT_GIVEN,
    content_hash: str | None = None,
    *,
    storage_uri: str | None = None,
    byte_size: int | None = None,
    metadata: dict[str, Any] | None = None,
    inlined_value: Any = None,
    expires_at: str | datetime | None = None,
) -> Result:
    """Create or replace an entry. With ``value``, its hash is computed, and its size if ``byte_size`` is not set."""
    catalog = _catalog(memory)
    if (value is NOT_GIVEN) == (content_hash is None):
        raise LTMError("validation_error", "give the value or its content_hash, one of the two")
    if content_hash is None:
        store = memory.check_store(key, value, metadata)
        content_hash = compute_content_hash(value)
        byte_size = len(store.value.encode()) if byte_size is None else byte_size
    expiry = moment(expires_at)
    return catalog.track_entry(key, content_hash, storage_uri, byte_size, metadata, inlined_value, expiry)


def get(memory: LTMBackend, key: str) -> Result:
    """Read the entry of a key; ``entry`` is null if there is none."""
    entry = _catalog(memory).get_entry(key)
    return {"success": True, "found": entry is not None, "entry": None if entry is None else plain(entry)}


def list_entries(
    memory: LTMBackend,
    prefix: str | None = None,
    metadata_filter: dict[str, Any] | None = None,
    limit: int = 100,
) -> Result:
    """List up to ``limit`` entries that have the prefix and satisfy the metadata filter, ordered by key."""
    entries = _catalog(memory).list_entries(prefix, metadata_filter, limit)
    return {"success": True, "entries": all_plain(entries), "count": len(entries), **_damaged(entries)}


def delete(memory: LTMBackend, key: str) -> Result:
    """Delete the entry of a key. It is no failure if there is none."""
    return {"success": True, "deleted": _catalog(memory).delete_entry(key)}


def snapshot(memory: LTMBackend, name: str) -> Result:
    """Take a snapshot of the catalog and return its id. The counts are null if the catalog does not have them."""
    catalog = _catalog(memory)
    snapshot_id = catalog.create_snapshot(name)
    get_snapshot = getattr(catalog, "get_snapshot", None)
    taken = (get_snapshot and get_snapshot(snapshot_id)) or {}
    counts = {name: taken.get(name) for name in ("entry_count", "total_bytes")}
    return {"success": True, "snapshot_id": snapshot_id, **counts}


def changes(memory: LTMBackend, since: str | None = None) -> Result:
    """List the entries that are new, changed or deleted since a snapshot. Without a snapshot all entries are new."""
    catalog = _catalog(memory)
    get_deleted = getattr(catalog, "get_deleted_entries", None)
    if since is not None and get_deleted is None:
        raise LTMError("configuration_error", "this catalog does not tell what was deleted since a snapshot")
    entries = catalog.get_changed_entries(since)
    changed = all_plain(entries)
    gone = [] if since is None or get_deleted is None else all_plain(get_deleted(since))
    deleted = {entry["key"] for entry in gone}
    changed = [entry for entry in changed if entry["key"] not in deleted]  # deleted between the two calls
    counts = {"changed_count": len(changed), "deleted_count": len(gone)}
    return {"success": True, "changed": changed, "deleted": gone, **counts, **_damaged(entries)}


def snapshots(memory: LTMBackend) -> Result:
    """List all snapshots of the catalog, newest first."""
    found = _method(memory, "list_snapshots")()
    return {"success": True, "snapshots": all_plain(found), "count": len(found), **_damaged(found)}


def delete_snapshot(memory: LTMBackend, snapshot_id: str) -> Result:
    """Delete a snapshot. The entries stay, and it is no failure if there is no such snapshot."""
    return {"success": True, "deleted": _method(memory, "delete_snapshot")(snapshot_id)}


def sync(memory: LTMBackend) -> Result:
    """Make the whole catalog agree with the memory, for example when the catalog is new."""
    _catalog(memory)
    sync_catalog: Callable[[], Result] | None = getattr(memory, "sync_catalog", None)
    if sync_catalog is None:
        raise LTMError("configuration_error", "this memory cannot sync its catalog")
    return sync_catalog()


def cleanup(memory: LTMBackend, batch_size: int = 100) -> Result:
    """Remove up to ``batch_size`` expired entries from the catalog. No action returns them any more."""
    return _catalog(memory).cleanup_expired(batch_size)


CATALOG_ACTIONS: dict[str, Callable[..., Result]] = {
    "catalog.track": track,
    "catalog.get": get,
    "catalog.list": list_entries,
    "catalog.delete": delete,
    "catalog.snapshot": snapshot,
    "catalog.snapshots": snapshots,
    "catalog.delete_snapshot": delete_snapshot,
    "catalog.changes": changes,
    "catalog.sync": sync,
    "catalog.cleanup": cleanup,
}


def _catalog(memory: LTMBackend) -> CatalogBackend:
    catalog = getattr(memory, "catalog", None)
    if not isinstance(catalog, CatalogBackend):
        message = "the memory has no catalog; write `catalog: sqlalchemy` under `settings.ltm`, beside its `url`"
        raise LTMError("configuration_error", message)
    return catalog


def _method(memory: LTMBackend, name: str) -> Callable[..., Any]:
    """Return a method that a catalog of another package may lack."""
    method: Callable[..., Any] | None = getattr(_catalog(memory), name, None)
    if method is None:
        raise LTMError("configuration_error", f"this catalog has no {name}")
    return method


def _damaged(entries: Any) -> Result:
    """Return ``{"damaged": [keys]}`` for the entries that a catalog has left out of a list, or ``{}``."""
    keys = getattr(entries, "damaged", None)
    return {"damaged": list(keys)} if keys else {}
