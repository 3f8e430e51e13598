"""A model of a catalog in Python. It computes the right answers for any sequence of calls."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeAlias

from the_edge_agent.testing.catalog_base import PAST, Entry

State: TypeAlias = tuple[str, str, datetime | None]
"""What a change is a change of: the hash, the metadata as text in one order of keys, the expiry in UTC."""


def state_of(entry: Entry) -> State:
    """Return the parts of an entry that count as a change: what a snapshot records."""
    end = entry.get("expires_at")
    return entry["content_hash"], json.dumps(entry["metadata"], sort_keys=True), end and end.astimezone(timezone.utc)


@dataclass
class CatalogModel:
    """A catalog in Python. An entry has expired if its ``expires_at`` is ``PAST``.

    Attributes:
        entries: the entry that was tracked last for each key, expired or not.
        snapshots: for each snapshot its entries by key.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    snapshots: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def living(self) -> dict[str, Entry]:
        """Return the entries that have not expired, by key."""
        return {key: entry for key, entry in sorted(self.entries.items()) if entry.get("expires_at") != PAST}

    def track(self, entries: Iterable[Entry]) -> list[bool]:
        """Track entries; return for each whether it was created."""
        created = []
        for entry in entries:
            created.append(entry["key"] not in self.living())
            self.entries[entry["key"]] = entry
        return created

    def delete(self, key: str) -> bool:
        """Delete an entry and return whether there was one."""
        is_there = key in self.living()
        if is_there:
            del self.entries[key]
        return is_there

    def clean_up(self, batch_size: int) -> dict[str, Any]:
        """Remove expired entries; return the result."""
        expired = sorted(self.entries.keys() - self.living().keys())
        deleted = min(batch_size, len(expired))
        if deleted == len(expired):  # the contract does not say which entries a smaller batch removes
            self.entries = self.living()
        return {"success": True, "deleted_count": deleted, "remaining_count": len(expired) - deleted}

    def snapshot(self, snapshot_id: str) -> None:
        """Record the entries that have not expired."""
        self.snapshots[snapshot_id] = self.living()

    def changed(self, since: str | None) -> list[str]:
        """Return the keys of entries that are new or changed since a snapshot."""
        before = {} if since is None else self.snapshots[since]
        return [
            key
            for key, entry in self.living().items()
            if key not in before or since is None or state_of(before[key]) != state_of(entry)
        ]

    def deleted(self, since: str) -> list[str]:
        """Return the keys of entries of a snapshot that were deleted or have expired since."""
        living = self.living()
        return [key for key in sorted(self.snapshots[since]) if key not in living]
