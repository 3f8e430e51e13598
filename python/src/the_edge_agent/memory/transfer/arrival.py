"""``Arrival`` stores a stream of entries in a memory, and goes on where an earlier, interrupted run has ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final, Literal, TypeAlias

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.result_types import MoveResult
from the_edge_agent.memory.core.namespaces import Namespace
from the_edge_agent.memory.core.results import LTMError, Result, already_there, ok, outcome_of, succeeded
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.transfer.lines import entry_fields, in_utc

Progress: TypeAlias = Callable[[int], object]
OnConflict: TypeAlias = Literal["fail", "skip", "replace"]

_WAYS: Final = ("fail", "skip", "replace")
_BATCH_ENTRIES: Final = 1_000
_BATCH_BYTES: Final = 8_000_000
_PAGE_BYTES: Final = 2_000_000
_LEAST_PAGE, _MOST_PAGE = 16, 1_000  # entries that are read from the target at a time
_LAST_CHARACTER: Final = "\U0010ffff"
# A failure of one of these kinds may be that of one entry of the batch.
_OF_ENTRIES: Final = ("validation_error", "serialization_error", "query_error")
_COUNTS: Final = ("imported_count", "replaced_count", "unchanged_count", "skipped_count", "expired_count")
_dumps = json.JSONEncoder(sort_keys=True, allow_nan=False, separators=(",", ":")).encode


class Arrival:
    """Stores entries in a target, in batches that are limited by number and by size.

    An entry that is there already and equal is left alone. So the same entries can be stored again after an
    interruption, and no file has to record how far it came.
    """

    def __init__(self, target: LTMBackend, on_conflict: str, progress: Progress | None) -> None:
        """Store into this memory.

        Args:
            target: the memory.
            on_conflict: ``fail``, ``skip`` or ``replace``: what to do about an entry that is there and differs.
            progress: called after each batch, with the number of entries so far.

        Raises:
            LTMError: ``validation_error`` for another ``on_conflict``, or a memory that cannot keep copies.
        """
        if on_conflict not in _WAYS:
            raise LTMError("validation_error", f"on_conflict must be one of {', '.join(_WAYS)}")
        for capability in ("import", "times"):
            if capability not in target.capabilities:
                raise LTMError(
                    "validation_error", f"{type(target).__name__} does not have the capability {capability!r}"
                )
        self._target, self._way, self._progress = target, on_conflict, progress
        self._place = Namespace.of(target.namespace_names)
        self._there = Present(target)
        self.counts = dict.fromkeys(_COUNTS, 0)
        self._seen = 0

    def store(self, entries: Iterable[tuple[dict[str, Any], int]]) -> MoveResult:
        """Store entries, each with its size in bytes, and return the counts.

        Raises:
            LTMError: an entry cannot be stored; it has the ``key`` and the counts too. Earlier batches are stored.
        """
        batch: list[dict[str, Any]] = []
        size = 0
        try:
            succeeded(outcome_of(self._target.import_entries, ()))  # fails if the memory is closed
            for entry, entry_size in entries:
                if batch and (len(batch) == _BATCH_ENTRIES or size + entry_size > _BATCH_BYTES):
                    self._store_batch(batch)
                    batch, size = [], 0
                if not entry.get("namespace", True):  # a memory without namespaces may not know this field
                    del entry["namespace"]
                batch.append(entry)
                size += entry_size
            self._store_batch(batch)
        except LTMError as error:
            failure = error.with_fields(**self.counts)
        else:
            return ok(**self.counts)
        raise failure

    def _store_batch(self, batch: Sequence[dict[str, Any]]) -> None:
        now = datetime.now(timezone.utc)
        new: list[dict[str, Any]] = []
        different: list[dict[str, Any]] = []
        for entry in batch:
            if entry.get("expires_at") is not None and in_utc(entry["expires_at"]) <= now:
                self.counts["expired_count"] += 1
                continue
            full_key = self._full_key(entry)
            present = self._there.at(full_key)
            if present is None:
                new.append(entry)
            elif present is not DAMAGED and _is_equal(entry, present):
                self.counts["unchanged_count"] += 1
            elif self._way == "fail":
                self._import(new, "fail")
                version = 0 if present is DAMAGED else present["version"]
                raise self._conflict(already_there(full_key, version))
            elif self._way == "skip":
                self.counts["skipped_count"] += 1
            else:
                different.append(entry)
        self._import(new, self._way)
        self._import(different, "replace")
        self._seen += len(batch)
        if self._progress is not None:
            self._progress(self._seen)

    def _import(self, entries: Sequence[dict[str, Any]], way: Any) -> None:
        if not entries:
            return
        result = self._imported(entries, way)
        if not result["success"] and result["error_type"] in _OF_ENTRIES and "key" not in result:
            # Store them one by one, to name the entry that cannot be stored.
            for entry in entries:
                alone = self._imported([entry], way)
                if not alone["success"]:
                    full_key = self._full_key(entry)
                    problem = alone["error"].removeprefix("entries[0]: ")
                    raise LTMError.of({**alone, "key": full_key, "error": f"the entry {full_key!r}: {problem}"})
            return
        if not result["success"]:
            failure = LTMError.of(result)
            raise self._conflict(failure) if failure.error_type == "conflict" else failure

    def _imported(self, entries: Sequence[dict[str, Any]], way: Any) -> Result:
        result: Result = outcome_of(self._target.import_entries, entries, on_conflict=way)
        for name in _COUNTS:
            self.counts[name] += result.get(name, 0)
        return result

    def _conflict(self, failure: LTMError) -> LTMError:
        key, version = str(failure.result["key"]), failure.result["version"]
        if not key.startswith(self._place.head):
            key = self._place.head + key
        there = f"version {version}" if version else "and is damaged"
        return LTMError(
            "conflict",
            f"the entry {key!r} is there already, {there}, and differs; choose what to do: skip, or replace",
            key=key,
            version=version,
        )

    def _full_key(self, entry: Mapping[str, Any]) -> str:
        names = entry.get("namespace") or ()
        try:
            return (self._place.below(names) if names else self._place).full_key(entry["key"])
        except (KeyError, TypeError):
            raise LTMError("validation_error", "an entry has no key, or a namespace that is no list of names") from None


#: Stands for an entry that is there but cannot be read.
DAMAGED: Final[Any] = object()


class Present:
    """Tells which entries a memory has. Keys should come in order: it reads the memory page by page."""

    def __init__(self, memory: LTMBackend) -> None:
        """Read this memory."""
        self._memory = memory
        self._has_namespaces = "namespaces" in memory.capabilities
        self._place = Namespace.of(memory.namespace_names)
        self._page: dict[str, Any] = {}
        self._start = ""  # the page has all entries after this full key ...
        self._end: str | None = ""  # ... up to this one; None for all that follow
        self._rows = _LEAST_PAGE
        self._used = 0
        self._is_empty: bool | None = None

    def at(self, full_key: str) -> Any:
        """Return the entry with this full key, ``DAMAGED`` if it is damaged, or None."""
        if self._is_empty is None:
            self._is_empty = not next(iter(self._entries(None, 1)), None)
        if self._is_empty:
            return None
        if not self._start < full_key or (self._end is not None and full_key > self._end):
            self._read(full_key)
        entry = self._page.get(full_key)
        self._used += entry is not None
        return entry

    def _read(self, full_key: str) -> None:
        # A page that was of use is followed by a larger one.
        self._rows = self._rows * 4 if 2 * self._used >= len(self._page) else self._rows // 4
        if self._page:
            size = sum(len(str(entry)) for entry in [*self._page.values()][:20]) // min(20, len(self._page)) + 1
            self._rows = min(self._rows, _PAGE_BYTES // size)
        self._rows, self._used = max(_LEAST_PAGE, min(_MOST_PAGE, self._rows)), 0
        self._start = _just_before(full_key)
        self._page = dict(self._entries(self._start or None, self._rows))
        self._end = self._next

    def _entries(self, after: str | None, limit: int) -> Iterator[tuple[str, Any]]:
        more: dict[str, Any] = {"nested": True} if self._has_namespaces else {}
        result = succeeded(outcome_of(self._memory.entries, limit=limit, after=after, **more))
        self._next = result["next"]
        for full_key in result.get("damaged", ()):
            yield full_key, DAMAGED
        for entry in result["entries"]:
            yield self._place.below(entry.get("namespace", ())).full_key(entry["key"]), entry


def _just_before(key: str) -> str:
    """Return a text that is lower than ``key``, and higher than nearly all lower keys."""
    code = ord(key[-1]) - 1
    if code < 1:
        return key[:-1]
    last = chr(0xD7FF if code == 0xDFFF else code)  # no surrogates
    return (key[:-1] + last + _LAST_CHARACTER)[:MAX_KEY_LENGTH]


def _is_equal(entry: Mapping[str, Any], present: Mapping[str, Any]) -> bool:
    """Return whether the entry that is there has all that an arriving one names. Numbers must have one type too."""
    return _comparable({**present, **entry}) == _comparable(present)


def _comparable(entry: Mapping[str, Any]) -> str:
    ttl = entry["ttl"]
    return _dumps({**entry_fields(entry), "namespace": None, "ttl": None if ttl is None else float(ttl)})
