"""Damaged entries: rows that cannot be read as an entry, because another program wrote them or the file is damaged."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, Generic, TypeAlias, TypeVar

from the_edge_agent.memory.core.codec import INT64_MAX, UnreadableError, decode, decode_metadata
from the_edge_agent.memory.core.filters import Node, matches
from the_edge_agent.memory.core.results import FILE_DAMAGED, LTMError, Result, found_entries, interrupts, ok
from the_edge_agent.memory.core.tokens import RANK_WINDOW, Term, has_words, positive_needles, rank
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH, MAX_TTL, seconds_of

Item = TypeVar("Item")
Row = TypeVar("Row")
Timestamp: TypeAlias = Callable[[Any], "datetime | None"]
Facts: TypeAlias = "tuple[datetime | None, str | None]"
Lost: TypeAlias = "Callable[[str], Damage | None]"
Ranked: TypeAlias = "tuple[list[tuple[float, Sequence[Any]]], list[Damage]]"

_logger = logging.getLogger("the_edge_agent.memory")
LISTED: Final = "a list of the catalog"  # how a log message calls it
TRACKED: Final = (
    *("id", "key", "content_hash", "storage_uri", "byte_size", "inlined_value", "metadata"),
    *("expires_at", "created_at", "updated_at"),
)
TIMES: Final = ("created_at", "updated_at", "expires_at")
_GONE: Final = ("id", "key", "content_hash", "byte_size", "expires_at")
_SNAPSHOT: Final = ("id", "name", "entry_count", "total_bytes", "created_at")
_TEXTS: Final = ("id", "content_hash", "name")
_NUMBERS: Final = ("byte_size", "entry_count", "total_bytes")

_INEXACT: Final = re.compile(r"\0\\x[0-9a-f]{2}")  # stands for a byte that is not UTF-8, on SQLite
ROW: Final = "row"  # the damaged part, if a row cannot be read at all
_MOST_NAMED: Final = 10  # keys that a message names
_KEPT_BY_STORE: Final = ("version", "created_at")  # a store does not repair these
_LONGEST_LIFETIME: Final = MAX_TTL // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Damage:
    """Takes the place of a damaged entry in lists and results. It holds no part of the value or the metadata.

    Attributes:
        key: the key of the entry; for a key that is not text, its repr.
        what: the damaged part, such as ``value``.
        problem: what is wrong, such as ``its value is no JSON``.
    """

    key: str
    what: str
    problem: str

    @classmethod
    def of(cls, key: Any, error: UnreadableError) -> Damage:
        """Return the damage of the entry with this key."""
        return cls(key if isinstance(key, str) else repr(key)[:MAX_KEY_LENGTH], error.what, str(error))


# --- keys ------------------------------------------------------------------------------------------


def is_key(key: Any) -> bool:
    """Return whether the key of a row is valid, so that a call can name it."""
    return isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH and "\0" not in key


def _check_key(key: Any) -> None:
    if not is_key(key):
        is_text = isinstance(key, str) and not _INEXACT.search(key)
        raise UnreadableError("key", "is none that a store takes" if is_text else "is no text")


def place_after(keys: Sequence[Any]) -> tuple[Any, int]:
    """Return where the next page begins, after the page with these keys: ``(key, skip)``.

    The next page begins ``skip`` rows after ``key``. Usually ``key`` is the last key and ``skip`` is 0. But a query
    cannot name a key that is empty, not text, or not UTF-8; then ``key`` is the last key that it can name, or None.
    """
    for skip, key in enumerate(reversed(keys)):
        if isinstance(key, str) and key and not ("\0" in key and _INEXACT.search(key)):
            return key, skip
    return None, len(keys)


# --- reading around a damaged part of a file -------------------------------------------------------


def is_of_file(failure: LTMError) -> bool:
    """Return whether a call failed because the database file is damaged."""
    return failure.error_type == "connection_error" and str(failure).startswith(FILE_DAMAGED)


def around(
    after: str, next_key: Callable[[str], Any], next_row: Callable[[str], Sequence[Row]]
) -> Iterator[Row | Damage]:
    """Yield the rows after a key one by one, and a ``Damage`` for each row that cannot be read.

    Args:
        after: the key.
        next_key: a function that takes a key and returns the next one, or None; it reads the index alone.
        next_row: a function that takes a key and returns the next row in a list, which is empty if there is none.

    Raises:
        LTMError: the index is damaged too.
    """
    while isinstance(key := next_key(after), str):
        try:
            yield from next_row(after)
        except LTMError as failure:
            if not is_of_file(failure):
                raise
            yield Damage(key, ROW, "its row is in a damaged part of the file")
        after = key


# --- rows to entries -------------------------------------------------------------------------------


def read_entry(key: Any, value: Any, metadata: Any, version: Any = 1) -> dict[str, Any] | Damage:
    """Decode the columns of a row and return ``{"value", "metadata", "version"}``, or the damage."""
    try:
        if not is_key(key):
            _check_key(key)
        _check_version(version)
        return {"value": decode(value), "metadata": decode_metadata(metadata), "version": version}
    except UnreadableError as error:
        damage = Damage.of(key, error)
    return damage


def _check_version(version: Any) -> int:
    if type(version) is int and 1 <= version <= INT64_MAX:
        return version
    raise UnreadableError("version", "is no integer from 1 to 2^63 - 1")


def read_timed_entry(
    key: Any, value: Any, metadata: Any, version: Any, times: Sequence[Any], timestamp: Timestamp
) -> dict[str, Any] | Damage:
    """Decode the columns of a row and return ``{"value", "metadata", "version"}`` with ``TIMES``, or the damage.

    Args:
        key: the column.
        value: the column, or the JSON text from the blob storage.
        metadata: the column.
        version: the column.
        times: the columns ``created_at``, ``updated_at`` and ``expires_at``.
        timestamp: converts a time from the driver into a datetime in UTC.
    """
    entry = read_entry(key, value, metadata, version)
    if isinstance(entry, Damage):
        return entry
    try:
        for name, raw in zip(TIMES, times, strict=True):
            entry[name] = read_time(raw, name, timestamp)
    except UnreadableError as error:
        damage = Damage.of(key, error)
    else:
        return entry
    return damage


def read_whole_entry(
    key: Any,
    value: Any,
    metadata: Any,
    version: Any,
    times: Sequence[Any],
    timestamp: Timestamp,
    *,
    lifetime: Any,
    is_indexed: Any,
) -> dict[str, Any] | Damage:
    """Decode the columns of a row and return the entry that ``iterate_entries`` yields, or the damage.

    Args:
        key: as for ``read_timed_entry``, like the next five.
        value: see there.
        metadata: see there.
        version: see there.
        times: see there.
        timestamp: see there.
        lifetime: the column, in microseconds.
        is_indexed: the column: 0 if the words of the entry are not indexed, otherwise 1 or None.
    """
    entry = read_timed_entry(key, value, metadata, version, times, timestamp)
    if isinstance(entry, Damage):
        return entry
    try:
        ttl = seconds_of(read_lifetime(lifetime))
    except UnreadableError as error:
        damage = Damage.of(key, error)
    else:
        return {"key": key, **entry, "ttl": ttl, "index": is_indexed != 0}
    return damage


def read_lifetime(raw: Any) -> timedelta | None:
    """Return a lifetime from its column, in microseconds.

    Raises:
        UnreadableError: the column is neither NULL nor an integer from 1 microsecond to 100 years.
    """
    if raw is None:
        return None
    if type(raw) is int and 1 <= raw <= _LONGEST_LIFETIME:
        return timedelta(microseconds=raw)
    raise UnreadableError("lifetime", "is no number of microseconds up to 100 years")


def read_lifetimes(
    rows: Iterable[Sequence[Any]], timestamp: Timestamp
) -> dict[str, tuple[datetime | None, timedelta | None]]:
    """Return ``(expires_at, lifetime)`` of entries by key, from their rows ``(key, expires_at, lifetime)``.

    Raises:
        LTMError: ``query_error``; it names the damaged entries.
    """
    read, damages = dict[str, tuple[datetime | None, timedelta | None]](), list[Damage]()
    for key, expires_at, lifetime in rows:
        try:
            read[key] = read_time(expires_at, "expires_at", timestamp), read_lifetime(lifetime)
        except UnreadableError as error:
            damages.append(Damage.of(key, error))
    if damages:
        raise damaged(damages)
    return read


def read_tracked(row: Sequence[Any], timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return the entry of a catalog, or the damage, from its columns in the order of ``TRACKED``."""
    return _read_columns(TRACKED, row, timestamp, row[1])


def read_gone(row: Sequence[Any], timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return a snapshot's record of an entry that was deleted since, or the damage.

    The columns are id, key, content_hash, byte_size and expires_at.
    """
    return _read_columns(_GONE, row, timestamp, row[1])


def read_snapshot(row: Sequence[Any], timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return a snapshot, or the damage, from its columns: id, name, entry_count, total_bytes and created_at."""
    return _read_columns(_SNAPSHOT, row, timestamp, row[0])


def _read_columns(names: Sequence[str], row: Sequence[Any], timestamp: Timestamp, key: Any) -> dict[str, Any] | Damage:
    fields = dict(zip(names, row, strict=True))
    try:
        for name, raw in fields.items():
            if name == "key":
                _check_key(raw)
            elif name in TIMES:
                fields[name] = read_time(raw, name, timestamp)
            elif name == "metadata":
                fields[name] = decode_metadata(raw)
            elif name in _TEXTS or (name == "storage_uri" and raw is not None):
                if not isinstance(raw, str) or "\0" in raw:
                    raise UnreadableError(name, "is no text")
            elif name == "inlined_value" and raw is not None:
                fields[name] = decode(raw, name)
            elif name in _NUMBERS and raw is not None and (type(raw) is not int or raw < 0):
                raise UnreadableError(name, "is no size")
    except UnreadableError as error:
        damage = Damage.of(key, error)
    else:
        return fields
    return damage


def read_facts(key: str, expires_at: Any, pointer: str | None, version: Any, *, timestamp: Timestamp) -> Facts | Damage:
    """Return ``(expires_at, pointer)`` of an entry, or the damage. ``pointer`` names its value in the blob storage."""
    try:
        _check_version(version)
        return read_time(expires_at, "expires_at", timestamp), pointer
    except UnreadableError as error:
        damage = Damage.of(key, error)
    return damage


def read_time(raw: Any, what: str, timestamp: Timestamp) -> datetime | None:
    """Return a time in UTC. Only ``expires_at`` may be None.

    Raises:
        UnreadableError: the column does not hold a time.
    """
    try:
        time = timestamp(raw)
    except (TypeError, ValueError, AttributeError, OverflowError):
        time = raw
    if isinstance(time, datetime) or (time is None and what == "expires_at"):
        return time
    raise UnreadableError(what, "is no time")


def not_here(key: str) -> Damage:
    """Return the damage of an entry whose value is in a blob storage, for a memory that has no blob storage."""
    problem = "is in a blob storage; open the memory by SQLAlchemyBackend with its storage"
    return Damage(key, "value", f"its value {problem}")


def may_fit(condition: Node, metadata: Any) -> bool:
    """Return whether the stored metadata satisfies a filter. Metadata that cannot be read does not."""
    try:
        return matches(condition, decode_metadata(metadata))
    except UnreadableError:
        return False


def undamaged(
    rows: Iterable[Sequence[Any]],
    terms: Sequence[Term],
    condition: Node | None,
    offset: int,
    limit: int,
    lost: Lost,
    timestamp: Timestamp,
) -> Ranked:
    """Run a search again without the damaged entries; return its results, best first, and the damage.

    A search calls this after it met a damaged entry. It reads every entry that may be among the results.

    Args:
        rows: ``(key, value, metadata, search_text, pointer, version, created_at, updated_at, expires_at)`` of all
            matches, newest first, then by key.
        terms: the terms of the query.
        condition: the metadata filter. An entry with damaged metadata does not satisfy it, and is not reported.
        offset: how many results to skip.
        limit: how many results to return.
        lost: takes the key of an entry whose value is in a blob storage, and returns the damage of the value or None.
        timestamp: converts a time from the driver into a datetime in UTC.

    Returns:
        The score and the row of each result, without the search text, and the damage.
    """
    damages: list[Damage] = []
    is_ranked = has_words(terms)
    needles = positive_needles(terms)

    def readable() -> Iterator[tuple[float, Sequence[Any]]]:
        for row in rows:
            key, value, metadata, words, pointer, version, *times = row
            inline = "null" if pointer is not None else value
            entry = read_timed_entry(key, inline, metadata, version, times, timestamp)
            if pointer is not None and not isinstance(entry, Damage):
                entry = lost(key) or entry
            if not isinstance(entry, Damage):
                if condition is None or matches(condition, entry["metadata"]):
                    yield rank(needles, words) if is_ranked else 0.0, (*row[:3], *row[4:])
            elif condition is None or (entry.what != "metadata" and may_fit(condition, metadata)):
                damages.append(entry)

    end = offset + limit
    if is_ranked:
        newest = islice(readable(), max(RANK_WINDOW, end))
        ranked = heapq.nlargest(end, newest, key=lambda match: match[0])  # stable: equal scores stay newest first
    else:
        ranked = [*islice(readable(), end)]
    return ranked[offset:], damages


# --- the results and failures of calls -------------------------------------------------------------


def damaged(damages: Sequence[Damage], kind: str = "entry") -> LTMError:
    """Return the failure of a call that needs these entries, or, if ``kind`` is ``snapshot``, this snapshot."""
    keys = [damage.key for damage in damages]
    if len(keys) == 1:
        is_repaired_by_store = kind == "entry" and damages[0].what not in _KEPT_BY_STORE
        remedy = "store it again or delete it" if is_repaired_by_store else "delete it"
        message = f"the {kind} {keys[0]!r} is damaged, {damages[0].problem}; {remedy}"
    else:
        message = f"{len(keys):,} entries are damaged: {_named(keys)}; store them again or delete them"
    return LTMError("query_error", message, damaged=keys)


def whole(entry: dict[str, Any] | Damage | None, kind: str = "entry") -> Any:
    """Return an entry (or, if ``kind`` is ``snapshot``, a snapshot) that is not damaged. None stays None.

    Raises:
        LTMError: ``query_error``: it is damaged.
    """
    if isinstance(entry, Damage):
        raise damaged([entry], kind)
    return entry


def whole_entries(entries: Mapping[str, dict[str, Any] | Damage | None]) -> dict[str, Any]:
    """Return the fields of the success dict of ``retrieve_many``.

    Raises:
        LTMError: ``query_error``; it names the damaged entries.
    """
    if damages := [entry for entry in entries.values() if isinstance(entry, Damage)]:
        raise damaged(damages)
    return found_entries({key: entry for key, entry in entries.items() if not isinstance(entry, Damage)})


def read_version(key: str, version: Any) -> int:
    """Return the version of a row.

    Raises:
        LTMError: ``query_error``: the entry is damaged.
    """
    try:
        return _check_version(version)
    except UnreadableError as error:
        problem = damaged([Damage.of(key, error)])
    raise problem


def search_result(results: list[Any], damages: Sequence[Damage] = ()) -> Result:
    """Return the success dict of ``search``. It lists the keys of damaged entries if there are any."""
    damaged_keys = {"damaged": [damage.key for damage in damages]} if damages else {}
    return ok(results=results, count=len(results), **damaged_keys)


class Readable(Iterator[Item], Generic[Item]):
    """Iterates over the items that can be read, and leaves out damaged ones. At the end it logs the keys left out.

    Attributes:
        damaged: the keys of the items that were left out so far.
    """

    def __init__(self, items: Iterable[Item | Damage], of: str = "an iteration over a memory") -> None:
        """Iterate over ``items``; the log message begins with ``of``."""
        self.damaged: list[str] = []
        self._left = self._readable(items, of)

    def __next__(self) -> Item:
        """Return the next item that can be read."""
        return next(self._left)

    def close(self) -> None:
        """End the iteration."""
        self._left.close()

    def _readable(self, items: Iterable[Item | Damage], of: str) -> Generator[Item, None, None]:
        try:
            for item in items:
                if isinstance(item, Damage):
                    self.damaged.append(item.key)
                else:
                    yield item
        except (Exception, GeneratorExit):
            raise
        except BaseException as interrupt:
            interrupts.note(interrupt)
            raise
        finally:
            if self.damaged:
                count = f"{len(self.damaged):,}"
                _logger.warning("%s left out %s damaged: %s", of, count, _named(self.damaged))


class Listed(list[Item]):
    """A list of the items that can be read.

    Attributes:
        damaged: the keys of the items that were left out.
    """

    def __init__(
        self, items: Iterable[Item | Damage], fits: Callable[[Item], bool] | None = None, limit: int | None = None
    ):
        """Take the first ``limit`` readable items for which ``fits`` is true; without these arguments take all."""
        readable = Readable(items, LISTED)
        super().__init__(islice(readable if fits is None else filter(fits, readable), limit))
        readable.close()
        self.damaged = readable.damaged


def _named(keys: Sequence[str]) -> str:
    more = ", ..." if len(keys) > _MOST_NAMED else ""
    return ", ".join(map(repr, keys[:_MOST_NAMED])) + more
