"""The ``catalog.*`` actions: entries of the catalog, snapshots, and changes since a snapshot.

Their results are plain JSON. Times are ISO 8601 text in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from the_edge_agent.memory import CatalogBackend, LTMBackend, LTMError, compute_content_hash

Result = dict[str, Any]

_ABSENT: Final[Any] = type("NotGiven", (), {"__repr__": lambda _: "<not given>"})()  # not None, because null is a value
_MOMENT: Final = re.compile(  # for the same result on every Python: fromisoformat of 3.10 reads fewer forms
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?(Z|[+-]\d{2}:\d{2})?)?", re.ASCII
)


def track(
    memory: LTMBackend,
    key: str,
    value: Any = _ABSENT,
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
    if (value is _ABSENT) == (content_hash is None):
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
    return {"success": True, "found": entry is not None, "entry": None if entry is None else _plain(entry)}


def list_entries(
    memory: LTMBackend,
    prefix: str | None = None,
    metadata_filter: dict[str, Any] | None = None,
    limit: int = 100,
) -> Result:
    """List up to ``limit`` entries that have the prefix and satisfy the metadata filter, ordered by key."""
    entries = _catalog(memory).list_entries(prefix, metadata_filter, limit)
    return {"success": True, "entries": _all_plain(entries), "count": len(entries), **_damaged(entries)}


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
    changed = _all_plain(entries)
    gone = [] if since is None or get_deleted is None else _all_plain(get_deleted(since))
    deleted = {entry["key"] for entry in gone}
    changed = [entry for entry in changed if entry["key"] not in deleted]  # deleted between the two calls
    counts = {"changed_count": len(changed), "deleted_count": len(gone)}
    return {"success": True, "changed": changed, "deleted": gone, **counts, **_damaged(entries)}


def cleanup(memory: LTMBackend, batch_size: int = 100) -> Result:
    """Remove up to ``batch_size`` expired entries from the catalog. No action returns them any more."""
    return _catalog(memory).cleanup_expired(batch_size)


CATALOG_ACTIONS: dict[str, Callable[..., Result]] = {
    "catalog.track": track,
    "catalog.get": get,
    "catalog.list": list_entries,
    "catalog.delete": delete,
    "catalog.snapshot": snapshot,
    "catalog.changes": changes,
    "catalog.cleanup": cleanup,
}


def _catalog(memory: LTMBackend) -> CatalogBackend:
    catalog = getattr(memory, "catalog", None)
    if not isinstance(catalog, CatalogBackend):
        message = "the memory has no catalog; write `catalog: sqlalchemy` under `settings.ltm`, beside its `url`"
        raise LTMError("configuration_error", message)
    return catalog


def moment(text: Any) -> Any:
    """Return the time that a text names. Values that are not text are returned unchanged; the memory checks them."""
    if not isinstance(text, str):
        return text
    if parts := _MOMENT.fullmatch(text):
        day, minute, second, fraction, zone = parts.groups()
        written = f"{day}T{minute or '00:00'}:{second or '00'}.{fraction or '0':0<6}"
        try:
            time = datetime.fromisoformat(written + (zone or "Z").replace("Z", "+00:00"))
            return time.astimezone(timezone.utc)
        except (ValueError, OverflowError):
            pass  # such as a 13th month
    raise LTMError("validation_error", "expires_at must be a time in ISO 8601, such as 2030-12-31T23:59:59+00:00")


def _plain(entry: Mapping[str, Any]) -> Result:
    """Return an entry with its times as ISO 8601 text in UTC."""
    return {
        name: value.astimezone(timezone.utc).isoformat(timespec="microseconds")
        if isinstance(value, datetime)
        else value
        for name, value in entry.items()
    }


def _damaged(entries: Any) -> Result:
    """Return ``{"damaged": [keys]}`` for the entries that a catalog has left out of a list, or ``{}``."""
    keys = getattr(entries, "damaged", None)
    return {"damaged": list(keys)} if keys else {}


def _all_plain(entries: Iterable[Mapping[str, Any]]) -> list[Result]:
    return [_plain(entry) for entry in entries]
