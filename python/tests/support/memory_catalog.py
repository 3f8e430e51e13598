"""Catalogs in RAM, to test the contract kit: one with only the nine methods, one with all methods that ours have."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, TypeAlias

from memory_backend import fresh
from the_edge_agent.memory import LTMError
from the_edge_agent.memory.contract.catalog import compute_content_hash, generate_entry_id
from the_edge_agent.memory.contract.tracking import check_total
from the_edge_agent.memory.core import filters
from the_edge_agent.memory.core.codec import encode_metadata, encode_value
from the_edge_agent.memory.core.results import Result, fail, found_entries, ok, returns_result
from the_edge_agent.memory.core.validation import (
    check_batch_size,
    check_items,
    check_key,
    check_keys,
    check_limit,
    check_prefix,
    check_text,
)

Row: TypeAlias = Any  # an entry, or a snapshot

FIELDS = {"key", "content_hash", "storage_uri", "byte_size", "metadata", "inlined_value", "expires_at"}


class NineMethods:
    """The nine methods that a third party must write, with a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._snapshots: dict[str, tuple[Row, dict[str, Row]]] = {}
        self._turn = threading.RLock()
        self._closed = False

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._turn:
            if self._closed:
                raise LTMError("connection_error", "this catalog is closed")
            yield

    def _now(self) -> datetime:
        return datetime.now(timezone.utc)

    def _living(self) -> dict[str, Row]:
        now = self._now()
        return {
            key: row for key, row in sorted(self._rows.items()) if row["expires_at"] is None or row["expires_at"] > now
        }

    def _put(self, row: Row, now: datetime) -> bool:
        before = self._living().get(row["key"])
        created_at = before["created_at"] if before else now
        self._rows[row["key"]] = {**row, "created_at": created_at, "updated_at": now}
        return before is None

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
    ) -> Result:
        row = checked(key, content_hash, storage_uri, byte_size, metadata, inlined_value, expires_at)
        with self._open():
            return ok(entry_id=row["id"], created=self._put(row, self._now()))

    def get_entry(self, key: str) -> Row | None:
        checked = check_key(key)
        with self._open():
            row = self._living().get(checked)
            return row and shown(row)

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[Row]:
        beginning, condition, most = check_prefix(prefix), filters.parse_filter(metadata_filter), check_limit(limit)
        with self._open():
            rows = [row for key, row in self._living().items() if key.startswith(beginning)]
            return [shown(row) for row in rows if filters.matches(condition, row["metadata"])][:most]

    def delete_entry(self, key: str) -> bool:
        checked = check_key(key)
        with self._open():
            is_there = checked in self._living()
            if is_there:
                del self._rows[checked]
            return is_there

    def _holds(self, snapshot_id: Any) -> dict[str, Row]:
        checked = check_text(snapshot_id, "snapshot_id")
        with self._open():
            if checked not in self._snapshots:
                raise LTMError("validation_error", "there is no snapshot with this id")
            return self._snapshots[checked][1]

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[Row]:
        with self._open():
            before = {} if since_snapshot_id is None else self._holds(since_snapshot_id)
            living = self._living().items()
            return [shown(row) for key, row in living if key not in before or state(before[key]) != state(row)]

    def create_snapshot(self, name: str) -> str:
        label = check_text(name, "name")
        with self._open():
            rows = self._living()
            total = sum(row["byte_size"] or 0 for row in rows.values())
            check_total(total)
            snapshot_id = str(uuid.uuid4())
            facts = {"id": snapshot_id, "name": label, "entry_count": len(rows), "total_bytes": total}
            self._snapshots[snapshot_id] = ({**facts, "created_at": self._now()}, rows)
            return snapshot_id

    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        if not isinstance(atomic, bool):
            raise LTMError("validation_error", "atomic must be true or false")
        good: list[Row] = []
        errors: list[dict[str, Any]] = []
        for entry in check_items(entries, "entries"):
            try:
                if not isinstance(entry, Mapping) or not {"key", "content_hash"} <= entry.keys() <= FIELDS:
                    raise LTMError("validation_error", "an entry must be a dict of the arguments of track_entry")
                good.append(checked(**{"storage_uri": None, "byte_size": None, "metadata": {}, **entry}))
            except LTMError as failure:
                key = entry.get("key") if isinstance(entry, Mapping) else None
                errors.append({"key": key, "error": str(failure), "error_type": failure.error_type})
        with self._open():
            if errors and atomic:
                counts = {"stored_count": 0, "failed_count": len(errors), "errors": errors}
                return fail(errors[0]["error_type"], errors[0]["error"], **counts)
            now = self._now()
            for row in good:
                self._put(row, now)
            return ok(stored_count=len(good), failed_count=len(errors), errors=errors)

    @returns_result
    def retrieve_batch(self, keys: Iterable[str]) -> Result:
        checked = check_keys(keys)
        with self._open():
            living = self._living()
            return ok(**found_entries({key: shown(living[key]) if key in living else None for key in checked}))

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        most = check_batch_size(batch_size)
        with self._open():
            expired = [*(self._rows.keys() - self._living().keys())]
            for key in expired[:most]:
                del self._rows[key]
            return ok(deleted_count=len(expired[:most]), remaining_count=len(expired[most:]))


class MemoryCatalog(NineMethods):
    """The catalog with the methods that are optional in the protocol."""

    def get_snapshot(self, snapshot_id: str) -> Row | None:
        checked = check_text(snapshot_id, "snapshot_id")
        with self._open():
            return dict(self._snapshots[checked][0]) if checked in self._snapshots else None

    def list_snapshots(self) -> list[Row]:
        with self._open():
            return [dict(facts) for facts, _ in reversed(self._snapshots.values())]

    def delete_snapshot(self, snapshot_id: str) -> bool:
        checked = check_text(snapshot_id, "snapshot_id")
        with self._open():
            return self._snapshots.pop(checked, None) is not None

    def get_deleted_entries(self, since_snapshot_id: str) -> list[Row]:
        before = self._holds(since_snapshot_id)
        fields = ("id", "key", "content_hash", "byte_size", "expires_at")
        with self._open():
            living = self._living()
            return [{name: row[name] for name in fields} for key, row in before.items() if key not in living]

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> MemoryCatalog:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def state(row: Row) -> tuple[Any, ...]:
    """Return the fields that count as a change if they differ."""
    return row["content_hash"], row["metadata"] is None, compute_content_hash(row["metadata"]), row["expires_at"]


def shown(row: Row) -> Row:
    """Return a copy that the caller may change."""
    return {**row, "metadata": fresh(row["metadata"]), "inlined_value": fresh(row["inlined_value"])}


def checked(
    key: Any,
    content_hash: Any,
    storage_uri: Any,
    byte_size: Any,
    metadata: Any,
    inlined_value: Any = None,
    expires_at: Any = None,
) -> Row:
    """Return the arguments of ``track_entry`` as a row, or raise an ``LTMError``."""
    check_key(key)
    check_text(content_hash, "content_hash")
    if not 1 <= len(content_hash) <= 200 or not all("!" <= character <= "~" for character in content_hash):
        raise LTMError("validation_error", "content_hash must be 1 to 200 printable ASCII characters without spaces")
    if storage_uri is not None:
        check_text(storage_uri, "storage_uri")
    if byte_size is not None and (type(byte_size) is not int or not 0 <= byte_size < 2**63):
        raise LTMError("validation_error", "byte_size must be an integer from 0 to 2^63 - 1, or None")
    encode_metadata(metadata)
    encode_value(inlined_value)
    texts = {"id": generate_entry_id(key), "key": key, "content_hash": content_hash, "storage_uri": storage_uri}
    values = {"byte_size": byte_size, "inlined_value": fresh(inlined_value), "metadata": fresh(metadata)}
    return {**texts, **values, "expires_at": in_utc(expires_at)}


def in_utc(moment: Any) -> datetime | None:
    """Return a moment in UTC, or raise an ``LTMError``. A moment without a time zone is in UTC."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise LTMError("validation_error", "expires_at must be a datetime or None")
    try:
        return moment.replace(tzinfo=timezone.utc) if moment.utcoffset() is None else moment.astimezone(timezone.utc)
    except OverflowError:
        raise LTMError("validation_error", "expires_at must be between the years 1 and 9999 in UTC") from None
