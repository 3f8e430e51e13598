"""What a catalog must hold and tell, computed in Python: the oracle for any sequence of calls."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeAlias

from the_edge_agent.testing.catalog_base import PAST, Entry

Seen: TypeAlias = tuple[str, str, datetime | None]
"""What a change is a change of: the hash, the metadata as text in one order of keys, the expiry in UTC."""


def seen_of(entry: Entry) -> Seen:
    """Return the part of an entry that a snapshot keeps."""
    end = entry.get("expires_at")
    return entry["content_hash"], json.dumps(entry["metadata"], sort_keys=True), end and end.astimezone(timezone.utc)


@dataclass
class CatalogModel:
    """A catalog in Python; an entry lives unless it expires at ``PAST``.

    Attributes:
        entries: what was tracked last, by key, expired or not.
        snapshots: of each what it holds, by key.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    snapshots: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def living(self) -> dict[str, Entry]:
        """Return the entries that have not expired, by key."""
        return {key: entry for key, entry in sorted(self.entries.items()) if entry.get("expires_at") != PAST}

    def track(self, entries: Iterable[Entry]) -> list[bool]:
        """Track entries and return of each whether it is a create."""
        created = []
        for entry in entries:
            created.append(entry["key"] not in self.living())
            self.entries[entry["key"]] = entry
        return created

    def delete(self, key: str) -> bool:
        """Delete an entry and return whether it was there."""
        is_there = key in self.living()
        if is_there:
            del self.entries[key]
        return is_there

    def clean_up(self, batch_size: int) -> dict[str, Any]:
        """Remove expired entries; return the result."""
        expired = sorted(self.entries.keys() - self.living().keys())
        deleted = min(batch_size, len(expired))
        if deleted == len(expired):  # otherwise it is not told which go first
            self.entries = self.living()
        return {"success": True, "deleted_count": deleted, "remaining_count": len(expired) - deleted}

    def snapshot(self, snapshot_id: str) -> None:
        """Keep what is living."""
        self.snapshots[snapshot_id] = self.living()

    def changed(self, since: str | None) -> list[str]:
        """Return the keys of what is new or different since a snapshot."""
        kept = {} if since is None else self.snapshots[since]
        return [
            key
            for key, entry in self.living().items()
            if key not in kept or since is None or seen_of(kept[key]) != seen_of(entry)
        ]

    def deleted(self, since: str) -> list[str]:
        """Return the keys of what a snapshot has and is living no more."""
        living = self.living()
        return [key for key in sorted(self.snapshots[since]) if key not in living]
