"""Entries of a catalog after their arguments were checked and encoded, and the checks of catalog arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import compute_content_hash, generate_entry_id
from the_edge_agent.memory.contract.result_types import RecordedEntry
from the_edge_agent.memory.core.codec import INT64_MAX, MAX_VALUE_DEPTH, decode, encode_json, encode_metadata
from the_edge_agent.memory.core.damage import Damage, Timestamp, damaged, read_gone, read_tracked
from the_edge_agent.memory.core.operations import Delete, Import, Operation, Store
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import check_expiry, check_items, check_key, check_text

LOW_PART: Final = 2**32  # sizes are added in two parts, see ``total_of``
MAX_HASH_LENGTH: Final = 200
SNAPSHOT_ID_LENGTH: Final = 36
#: The columns of an entry of a snapshot.
RECORDED: Final = ("entry_id", "key", "content_hash", "metadata_hash", "byte_size", "expires_at")
_REQUIRED: Final = frozenset({"key", "content_hash", "byte_size"})
_OPTIONAL: Final = frozenset({"storage_uri", "metadata", "inlined_value", "expires_at"})
_BAD_ENTRY: Final = ("validation_error", "serialization_error")  # any other failure ends the whole batch


@dataclass(frozen=True, slots=True)
class Tracked:
    """A checked and encoded ``track_entry``, ready for the database.

    Attributes:
        entry_id: the id that belongs to the key.
        key: the key.
        content_hash: the hash of the value.
        storage_uri: where the value is, or None.
        byte_size: the size of the value in bytes, or None.
        metadata: the metadata as JSON text, or None.
        metadata_hash: the hash of the metadata, or None.
        inlined_value: the value as JSON text, or None.
        expires_at: when the entry expires, in UTC, or None.
        ttl: how long the entry lives from the write on, or None; used instead of ``expires_at``.
    """

    entry_id: str
    key: str
    content_hash: str
    storage_uri: str | None
    byte_size: int | None
    metadata: str | None
    metadata_hash: str | None
    inlined_value: str | None = None
    expires_at: datetime | None = None
    ttl: timedelta | None = None

    @classmethod
    def of(
        cls,
        key: str,
        content_hash: str,
        storage_uri: str | None,
        byte_size: int | None,
        metadata: dict[str, Any] | None,
        inlined_value: Any = None,
        expires_at: datetime | None = None,
    ) -> Tracked:
        """Check and encode the arguments of ``track_entry``.

        Raises:
            LTMError: ``validation_error`` or ``serialization_error``.
        """
        checked = check_key(key)
        encoded = encode_metadata(metadata)
        return cls(
            entry_id=generate_entry_id(checked),
            key=checked,
            content_hash=_check_hash(content_hash),
            storage_uri=None if storage_uri is None else check_text(storage_uri, "storage_uri"),
            byte_size=None if byte_size is None else _check_size(byte_size),
            metadata=encoded,
            metadata_hash=None if encoded is None else compute_content_hash(metadata),
            inlined_value=None if inlined_value is None else _encoded(inlined_value),
            expires_at=check_expiry(expires_at),
        )

    @classmethod
    def of_store(cls, store: Store) -> Tracked:
        """Return the entry that the ledger gets for a store."""
        metadata = None if store.metadata is None else decode(store.metadata)
        return cls(
            entry_id=generate_entry_id(store.key),
            key=store.key,
            content_hash=compute_content_hash(decode(store.value)),
            storage_uri=store.pointer,
            byte_size=len(store.value.encode()),
            metadata=store.metadata,
            metadata_hash=None if metadata is None else compute_content_hash(metadata),
            expires_at=store.expires_at,
            ttl=store.ttl,
        )

    @classmethod
    def of_import(cls, entry: Import) -> Tracked:
        """Return the entry that the ledger gets for an imported entry, whose ``expires_at`` alone says when it ends."""
        return replace(cls.of_store(entry.store), ttl=None)


def check_batch(
    entries: Iterable[Mapping[str, Any]], atomic: Any, check: Callable[[Tracked], None] | None = None
) -> tuple[list[Tracked], list[dict[str, Any]]]:
    """Check and encode the arguments of ``store_batch``.

    Args:
        entries: dicts of the arguments of ``track_entry``; see ``CatalogBackend.store_batch``.
        atomic: whether one bad entry makes the whole batch fail.
        check: a further check of each entry, for limits of this catalog; it raises LTMError.

    Returns:
        The good entries in their order, and a list ``[{"key", "error", "error_type"}]`` of the bad ones.

    Raises:
        LTMError: ``validation_error`` for bad arguments. If ``atomic``, the failure of the first bad entry, with the
            counts and ``errors`` of the result. Any failure of ``check`` that is neither a ``validation_error`` nor a
            ``serialization_error``.
    """
    if not isinstance(atomic, bool):
        raise LTMError("validation_error", "atomic must be true or false")
    good: list[Tracked] = []
    errors: list[dict[str, Any]] = []
    first: LTMError | None = None
    for place, entry in enumerate(check_items(entries, "entries")):
        try:
            good.append(_tracked(entry, f"entries[{place}]", check))
        except LTMError as failure:
            if failure.error_type not in _BAD_ENTRY:
                raise
            first = first or failure
            key = entry.get("key") if isinstance(entry, Mapping) else None
            errors.append({"key": key, "error": str(failure), "error_type": failure.error_type})
    if first is not None and atomic:
        raise LTMError.of({**first.result, "stored_count": 0, "failed_count": len(errors), "errors": errors})
    return good, errors


def check_snapshot_id(snapshot_id: Any, what: str) -> str:
    """Return the id of a snapshot, or ``""`` for text that cannot be an id.

    Such text is not sent to the database, because not every database compares it exactly with an ASCII column.

    Raises:
        LTMError: ``validation_error`` if ``snapshot_id`` is not text; ``what`` names the argument.
    """
    checked = check_text(snapshot_id, what)
    return checked if len(checked) == SNAPSHOT_ID_LENGTH and checked.isascii() else ""


def check_snapshot_found(snapshot: Any) -> None:
    """Refuse None, the answer of a query for a snapshot that does not exist.

    Raises:
        LTMError: ``validation_error`` for None.
    """
    if snapshot is None:
        raise LTMError("validation_error", "there is no snapshot with this id")


def changes_of(operations: Sequence[Operation]) -> tuple[list[str], list[Tracked]]:
    """Return ``(deleted, stored)``: the keys to delete from a ledger after operations, and the entries to track there.

    A key that is stored several times has one entry, that of its last store.
    """
    last = {operation.key: operation for operation in operations}
    deleted = sorted({operation.key for operation in operations if isinstance(operation, Delete)})
    return deleted, [Tracked.of_store(operation) for operation in last.values() if isinstance(operation, Store)]


def check_total(size: Any) -> None:
    """Refuse a sum of sizes that does not fit a 64-bit integer.

    Args:
        size: the exact sum in bytes; None for the sum of no sizes.

    Raises:
        LTMError: ``validation_error``.
    """
    if size is not None and size > INT64_MAX:
        raise LTMError("validation_error", "the sizes of all entries add up to more than 2^63 - 1 bytes")


def total_of(high: Any, low: Any) -> int:
    """Return a sum of sizes that the database added in two parts. In one part the sum might overflow there.

    Args:
        high: the sum of ``size - size % LOW_PART``; it is exact even as a double.
        low: the sum of ``size % LOW_PART``.
    """
    return int(high or 0) + int(low or 0)


def _tracked(entry: Any, place: str, check: Callable[[Tracked], None] | None) -> Tracked:
    if not isinstance(entry, Mapping):
        raise LTMError("validation_error", f"{place} must be a dict, not {type(entry).__name__}")
    if not entry.keys() >= _REQUIRED or not entry.keys() <= _REQUIRED | _OPTIONAL:
        required, optional = ", ".join(sorted(_REQUIRED)), ", ".join(sorted(_OPTIONAL))
        raise LTMError("validation_error", f"{place} must have {required}; it may have {optional}")
    try:
        tracked = Tracked.of(**{"storage_uri": None, "metadata": {}, **entry})
        if check is not None:
            check(tracked)
    except LTMError as failure:
        raise failure.within(place) from None
    return tracked


def _encoded(inlined_value: Any) -> str:
    return encode_json(inlined_value, "inlined_value", MAX_VALUE_DEPTH)


def _check_hash(content_hash: Any) -> str:
    checked = check_text(content_hash, "content_hash")
    # No spaces, because MySQL and MariaDB ignore spaces at the end when they compare ASCII columns.
    if not 1 <= len(checked) <= MAX_HASH_LENGTH or not all("!" <= character <= "~" for character in checked):
        message = f"content_hash must be 1 to {MAX_HASH_LENGTH} printable ASCII characters without spaces"
        raise LTMError("validation_error", message)
    return checked


def _check_size(byte_size: Any) -> int:
    if isinstance(byte_size, bool) or not isinstance(byte_size, int) or not 0 <= byte_size <= INT64_MAX:
        raise LTMError("validation_error", "byte_size must be an integer from 0 to 2^63 - 1, or None")
    return int(byte_size)


def read_tracked_at(
    keys: Sequence[str], rows: Iterable[Sequence[Any]], timestamp: Timestamp
) -> dict[str, dict[str, Any] | Damage | None]:
    """Return the entries of a catalog at these keys, None for a missing one, from the rows with the ids of the keys."""
    by_id = {row[0]: row for row in rows}
    return {key: _read_tracked_at(key, by_id.get(generate_entry_id(key)), timestamp) for key in keys}


def _read_tracked_at(key: str, row: Sequence[Any] | None, timestamp: Timestamp) -> dict[str, Any] | Damage | None:
    if row is None:
        return None
    return read_tracked(row, timestamp) if row[1] == key else Damage(key, "key", "its row has another key")


def checked_recorded(entry: Mapping[str, Any]) -> RecordedEntry:
    """Check an entry of a snapshot that is imported.

    Raises:
        LTMError: ``validation_error``.
    """
    key, metadata_hash, size = check_key(entry["key"]), entry["metadata_hash"], entry["byte_size"]
    return {
        "id": generate_entry_id(key),
        "key": key,
        "content_hash": _check_hash(entry["content_hash"]),
        "metadata_hash": None if metadata_hash is None else _check_hash(metadata_hash),
        "byte_size": None if size is None else _check_size(size),
        "expires_at": check_expiry(entry["expires_at"]),
    }


def read_recorded(row: Sequence[Any], timestamp: Timestamp) -> RecordedEntry:
    """Return the entry of a snapshot from a row with the columns of ``RECORDED``.

    Raises:
        LTMError: ``query_error`` if the row is damaged.
    """
    entry_id, key, content_hash, metadata_hash, byte_size, expires_at = row
    gone = read_gone((entry_id, key, content_hash, byte_size, expires_at), timestamp)
    if isinstance(gone, Damage):
        raise damaged([gone])
    return {**gone, "metadata_hash": metadata_hash}  # type: ignore[typeddict-item]
