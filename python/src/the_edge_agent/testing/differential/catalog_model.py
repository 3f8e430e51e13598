"""A model of the catalog in Python, written from docs/catalog.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from the_edge_agent.testing.differential import conditions, rules
from the_edge_agent.testing.differential.answers import Exact, Failure, InOrder, Lifetime, Message, Moment, SnapshotId

_Row = dict[str, Any]


@dataclass(frozen=True)
class Tracked:
    """The entry of the catalog for one key."""

    key: str
    content_hash: str
    storage_uri: str | None
    byte_size: int | None
    metadata: dict[str, Any] | None
    inlined_value: Any
    expires_at: datetime | Lifetime | None
    created: int
    updated: int
    is_expired: bool = False

    @property
    def identity(self) -> str:
        """The id of the entry."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def facts(self) -> tuple[Any, ...]:
        """The facts that count as a change since a snapshot."""
        return self.content_hash, json.dumps(self.metadata, sort_keys=True), self.expires_at

    @property
    def expiry_order(self) -> tuple[Any, ...]:
        """A sort key: the entry that expires first comes first."""
        if isinstance(self.expires_at, Lifetime):
            return 1, self.expires_at.write, self.expires_at.seconds, self.identity
        return 0, self.expires_at, self.identity

    def answer(self) -> _Row:
        """Return the entry as the methods of a catalog return it."""
        return {
            "id": self.identity,
            "key": self.key,
            "content_hash": self.content_hash,
            "storage_uri": self.storage_uri,
            "byte_size": self.byte_size,
            "inlined_value": Exact(self.inlined_value),
            "metadata": Exact(self.metadata),
            "expires_at": self.expires_at,
            "created_at": Moment(self.created),
            "updated_at": Moment(self.updated),
        }


@dataclass(frozen=True)
class _Snapshot:
    number: int
    name: str
    write: int
    entries: dict[str, Tracked]

    def answer(self) -> _Row:
        return {
            "id": SnapshotId(self.number),
            "name": self.name,
            "entry_count": len(self.entries),
            "total_bytes": sum(entry.byte_size or 0 for entry in self.entries.values()),
            "created_at": Moment(self.write),
        }


@dataclass
class CatalogModel:
    """A catalog in Python, with its snapshots. Expired entries stay until they are cleaned up.

    Attributes:
        next_write: returns the number of the next write.
        rows: the entries by key.
        snapshots: the snapshots by number.
        snapshot_count: how many snapshots were created.
    """

    next_write: Callable[[], int]
    rows: dict[str, Tracked] = field(default_factory=dict)
    snapshots: dict[int, _Snapshot] = field(default_factory=dict)
    snapshot_count: int = 0

    def live(self) -> Iterator[Tracked]:
        """Yield the entries that have not expired, by key."""
        return (self.rows[key] for key in sorted(self.rows) if not self.rows[key].is_expired)

    def pass_time(self) -> None:
        """Let entries with a lifetime of less than a second expire."""
        for key, row in self.rows.items():
            if isinstance(row.expires_at, Lifetime) and row.expires_at.seconds < 1:
                self.rows[key] = replace(row, is_expired=True)

    def put(self, write: int, entry: _Row) -> bool:
        """Track an entry and return whether it was created."""
        before = self.rows.get(entry["key"])
        is_new = before is None or before.is_expired
        end = in_utc(entry.get("expires_at"))
        created = write if before is None or before.is_expired else before.created
        fields = {name: entry[name] for name in ("key", "content_hash", "storage_uri", "byte_size", "metadata")}
        is_expired = isinstance(end, datetime) and end < datetime.now(timezone.utc)
        self.rows[entry["key"]] = Tracked(
            **fields,
            inlined_value=entry.get("inlined_value"),
            expires_at=end,
            created=created,
            updated=write,
            is_expired=is_expired,
        )
        return is_new

    def track_entry(self, **entry: Any) -> Any:
        """See the docs."""
        rules.check_track(entry)
        created = self.put(self.next_write(), entry)
        return {"success": True, "entry_id": self.rows[entry["key"]].identity, "created": created}

    def get_entry(self, key: str) -> Any:
        """See the docs."""
        rules.check_key(key)
        return self._answer_of(key)

    def list_entries(self, prefix: str | None = None, metadata_filter: Any = None, limit: int = 100) -> Any:
        """See the docs."""
        rules.check_part_of_key(prefix)
        check_filter(metadata_filter)
        rules.check_limit(limit)
        rows = [
            row
            for row in self.live()
            if row.key.startswith(prefix or "") and conditions.holds(metadata_filter, row.metadata)
        ]
        return [row.answer() for row in rows[:limit]]

    def delete_entry(self, key: str) -> Any:
        """See the docs."""
        rules.check_key(key)
        return self.forget(key)

    def forget(self, key: str) -> bool:
        """Delete an entry that has not expired; return whether there was one."""
        is_there = key in self.rows and not self.rows[key].is_expired
        if is_there:
            del self.rows[key]
        return is_there

    def store_batch(self, entries: list[_Row], atomic: bool = True) -> Any:
        """See the docs."""
        bad, good = [], []
        for place, entry in enumerate(entries):
            try:
                rules.check_track(entry)
                good.append(entry)
            except rules.RefusedError as refused:
                bad.append((entry["key"], refused.failure.error_type, f"entries[{place}]: "))
        errors = [{"key": key, "error": Message(text), "error_type": kind} for key, kind, text in bad]
        counts = {"failed_count": len(bad), "errors": errors}
        if bad and atomic:
            return Failure(bad[0][1], {"stored_count": 0, **counts}, bad[0][2])
        write = self.next_write()
        for entry in good:
            self.put(write, entry)
        return {"success": True, "stored_count": len(good), **counts}

    def retrieve_batch(self, keys: list[str]) -> Any:
        """See the docs."""
        rules.check_each(keys, "keys", rules.check_key)
        entries = {key: self._answer_of(key) for key in keys}
        missing = sum(entry is None for entry in entries.values())
        return {
            "success": True,
            "entries": InOrder(entries),
            "found_count": len(entries) - missing,
            "missing_count": missing,
        }

    def cleanup_expired(self, batch_size: int = 100) -> Any:
        """See the docs."""
        rules.check_limit(batch_size)
        expired = sorted((row for row in self.rows.values() if row.is_expired), key=lambda row: row.expiry_order)
        for row in expired[:batch_size]:
            del self.rows[row.key]
        deleted = min(batch_size, len(expired))
        return {"success": True, "deleted_count": deleted, "remaining_count": len(expired) - deleted}

    def create_snapshot(self, name: str) -> Any:
        """See the docs."""
        self.snapshot_count += 1
        entries = {row.key: row for row in self.live()}
        self.snapshots[self.snapshot_count] = _Snapshot(self.snapshot_count, name, self.next_write(), entries)
        return SnapshotId(self.snapshot_count)

    def get_snapshot(self, snapshot: SnapshotId) -> Any:
        """See the docs."""
        existing = self.snapshots.get(snapshot.number)
        return existing and existing.answer()

    def list_snapshots(self) -> Any:
        """See the docs."""
        return [snapshot.answer() for snapshot in sorted(self.snapshots.values(), key=lambda each: -each.write)]

    def delete_snapshot(self, snapshot: SnapshotId) -> Any:
        """See the docs."""
        return self.snapshots.pop(snapshot.number, None) is not None

    def get_changed_entries(self, snapshot: SnapshotId | None = None) -> Any:
        """See the docs."""
        before = {} if snapshot is None else self._existing(snapshot).entries
        return [row.answer() for row in self.live() if row.key not in before or before[row.key].facts != row.facts]

    def get_deleted_entries(self, snapshot: SnapshotId) -> Any:
        """See the docs."""
        live = {row.key for row in self.live()}
        before = self._existing(snapshot).entries
        return [
            {
                "id": before[key].identity,
                "key": key,
                "content_hash": before[key].content_hash,
                "byte_size": before[key].byte_size,
                "expires_at": before[key].expires_at,
            }
            for key in sorted(before)
            if key not in live
        ]

    def _existing(self, snapshot: SnapshotId) -> _Snapshot:
        if snapshot.number not in self.snapshots:
            raise rules.refuse()
        return self.snapshots[snapshot.number]

    def _answer_of(self, key: str) -> _Row | None:
        row = self.rows.get(key)
        return None if row is None or row.is_expired else row.answer()


def in_utc(moment: Any) -> Any:
    """Return a datetime in UTC; a naive one is taken as UTC. Other values are returned unchanged."""
    if not isinstance(moment, datetime):
        return moment
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def check_filter(condition: Any) -> None:
    """Raise ``RefusedError`` for a metadata filter that breaks a rule."""
    try:
        conditions.check(condition)
    except conditions.InvalidFilterError:
        raise rules.refuse() from None


def content_hash(value: Any) -> str:
    """Return the hash of a value, as docs/catalog.md defines it."""
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
