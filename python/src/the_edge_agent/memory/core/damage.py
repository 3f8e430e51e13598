"""Damaged entries: rows that somebody else wrote, or that were damaged, so that no entry can be made of them."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, Generic, TypeAlias, TypeVar

from the_edge_agent.memory.core.codec import INT64_MAX, UnreadableError, decode, decode_metadata
from the_edge_agent.memory.core.filters import Node, matches
from the_edge_agent.memory.core.results import FILE_DAMAGED, LTMError, Result, found_entries, ok
from the_edge_agent.memory.core.tokens import RANK_WINDOW, Term, has_words, positive_needles, rank
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH

Item = TypeVar("Item")
Row = TypeVar("Row")
Timestamp: TypeAlias = Callable[[Any], "datetime | None"]
Facts: TypeAlias = "tuple[datetime | None, str | None]"
Lost: TypeAlias = "Callable[[str], Damage | None]"
Found: TypeAlias = "tuple[list[tuple[float, Sequence[Any]]], list[Damage]]"

_logger = logging.getLogger("the_edge_agent.memory")
LISTED: Final = "a list of the catalog"  # in the log
TRACKED: Final = (
    *("id", "key", "content_hash", "storage_uri", "byte_size", "inlined_value", "metadata"),
    *("expires_at", "created_at", "updated_at"),
)
TIMES: Final = ("created_at", "updated_at", "expires_at")
_GONE: Final = ("id", "key", "content_hash", "byte_size", "expires_at")
_SNAPSHOT: Final = ("id", "name", "entry_count", "total_bytes", "created_at")
_TEXTS: Final = ("id", "content_hash", "name")
_NUMBERS: Final = ("byte_size", "entry_count", "total_bytes")

_INEXACT: Final = re.compile(r"\0\\x[0-9a-f]{2}")  # of bytes that are no UTF-8, on SQLite
ROW: Final = "row"  # what is damaged where a row cannot be read at all
_MOST_NAMED: Final = 10  # keys in a message


@dataclass(frozen=True, slots=True)
class Damage:
    """What stands in the place of an entry that is damaged. It holds nothing of the value and the metadata.

    Attributes:
        key: of the entry; of a key that is no text, how Python writes it.
        what: is damaged, such as ``value``.
        problem: what is wrong, as a sentence without its beginning.
    """

    key: str
    what: str
    problem: str

    @classmethod
    def of(cls, key: Any, error: UnreadableError) -> Damage:
        """Return the damage of the entry at a key."""
        return cls(key if isinstance(key, str) else repr(key)[:MAX_KEY_LENGTH], error.what, str(error))


# --- keys ------------------------------------------------------------------------------------------


def is_key(key: Any) -> bool:
    """Return whether the key of a row is one that a call takes."""
    return isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH and "\0" not in key


def _check_key(key: Any) -> None:
    if not is_key(key):
        is_text = isinstance(key, str) and not _INEXACT.search(key)
        raise UnreadableError("key", "is none that a store takes" if is_text else "is no text")


def place_after(keys: Sequence[Any]) -> tuple[Any, int]:
    """Return where the page after these keys begins: a key, None for none of them, and how many rows follow it here.

    A key that is empty, no text, or no UTF-8 cannot be asked for: the page begins after one that can.
    """
    for skip, key in enumerate(reversed(keys)):
        if isinstance(key, str) and key and not ("\0" in key and _INEXACT.search(key)):
            return key, skip
    return None, len(keys)


# --- around the damaged part of a file -------------------------------------------------------------


def is_of_file(failure: LTMError) -> bool:
    """Return whether a call failed because the file of the database is damaged."""
    return failure.error_type == "connection_error" and str(failure).startswith(FILE_DAMAGED)


def around(
    after: str, next_key: Callable[[str], Any], next_row: Callable[[str], Sequence[Row]]
) -> Iterator[Row | Damage]:
    """Yield the rows after a key, one by one, and the damage of those that cannot be read.

    Args:
        after: the key.
        next_key: returns the key after a key, from the index alone; None for none.
        next_row: returns the row after a key, or nothing.

    Raises:
        LTMError: the index is damaged, too.
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
    """Return ``{"value", "metadata", "version"}`` of the columns of a row; what ``value`` stands for is decoded."""
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


def read_whole_entry(
    key: Any, value: Any, metadata: Any, version: Any, times: Sequence[Any], timestamp: Timestamp
) -> dict[str, Any] | Damage:
    """Return the entry that ``iterate_entries`` yields.

    Args:
        key: of the row.
        value: what stands for it is decoded.
        metadata: of the row.
        version: of the row.
        times: ``created_at``, ``updated_at`` and ``expires_at``.
        timestamp: makes a time in UTC of what a driver returns.
    """
    entry = read_entry(key, value, metadata, version)
    if isinstance(entry, Damage):
        return entry
    try:
        found = {name: read_time(raw, name, timestamp) for name, raw in zip(TIMES, times, strict=True)}
    except UnreadableError as error:
        damage = Damage.of(key, error)
    else:
        return {"key": key, **entry, **found}
    return damage


def read_tracked(row: Sequence[Any], timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return the entry of a catalog from its columns, in the order of ``TRACKED``."""
    return _read_columns(TRACKED, row, timestamp, row[1])


def read_gone(row: Sequence[Any], timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return a snapshot's record of an entry that is gone: its id, key, content_hash, byte_size and expires_at."""
    return _read_columns(_GONE, row, timestamp, row[1])


def read_snapshot(row: Sequence[Any], timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return a snapshot from its columns: id, name, entry_count, total_bytes and created_at."""
    return _read_columns(_SNAPSHOT, row, timestamp, row[0])


def _read_columns(names: Sequence[str], row: Sequence[Any], timestamp: Timestamp, key: Any) -> dict[str, Any] | Damage:
    found = dict(zip(names, row, strict=True))
    try:
        for name, raw in found.items():
            if name == "key":
                _check_key(raw)
            elif name in TIMES:
                found[name] = read_time(raw, name, timestamp)
            elif name == "metadata":
                found[name] = decode_metadata(raw)
            elif name in _TEXTS or (name == "storage_uri" and raw is not None):
                if not isinstance(raw, str) or "\0" in raw:
                    raise UnreadableError(name, "is no text")
            elif name == "inlined_value" and raw is not None:
                found[name] = decode(raw, name)
            elif name in _NUMBERS and raw is not None and (type(raw) is not int or raw < 0):
                raise UnreadableError(name, "is no size")
    except UnreadableError as error:
        damage = Damage.of(key, error)
    else:
        return found
    return damage


def read_facts(key: str, expires_at: Any, pointer: str | None, version: Any, *, timestamp: Timestamp) -> Facts | Damage:
    """Return when an entry expires, and the pointer to its value in a blob storage."""
    try:
        _check_version(version)
        return read_time(expires_at, "expires_at", timestamp), pointer
    except UnreadableError as error:
        damage = Damage.of(key, error)
    return damage


def read_time(raw: Any, what: str, timestamp: Timestamp) -> datetime | None:
    """Return a time in UTC; only ``expires_at`` may be None.

    Raises:
        UnreadableError: it is no time.
    """
    try:
        found = timestamp(raw)
    except (TypeError, ValueError, AttributeError, OverflowError):
        found = raw
    if isinstance(found, datetime) or (found is None and what == "expires_at"):
        return found
    raise UnreadableError(what, "is no time")


def not_here(key: str) -> Damage:
    """Return the damage of an entry whose value is in a blob storage, for a memory without one."""
    problem = "is in a blob storage; open the memory by SQLAlchemyBackend with its storage"
    return Damage(key, "value", f"its value {problem}")


def may_fit(condition: Node, metadata: Any) -> bool:
    """Return whether metadata, as it is stored, satisfies a filter; what cannot be read does not."""
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
) -> Found:
    """Return the results of a search in which nothing damaged is counted, best first, and what was damaged.

    For a search that came upon damage: every entry that may be among the results is read.

    Args:
        rows: ``(key, value, metadata, search_text, pointer)`` of all that matches, newest first, then by key.
        terms: of the query.
        condition: the metadata filter. An entry whose metadata is damaged does not satisfy it, and is not named.
        offset: how many results to skip.
        limit: how many to return.
        lost: tells of a key whether its value, which is in a blob storage, is damaged.
    """
    damages: list[Damage] = []
    is_ranked = has_words(terms)
    needles = positive_needles(terms)

    def readable() -> Iterator[tuple[float, Sequence[Any]]]:
        for row in rows:
            key, value, metadata, words, pointer = row
            entry = read_entry(key, "null" if pointer is not None else value, metadata)
            if pointer is not None and not isinstance(entry, Damage):
                entry = lost(key) or entry
            if not isinstance(entry, Damage):
                if condition is None or matches(condition, entry["metadata"]):
                    yield rank(needles, words) if is_ranked else 0.0, (key, value, metadata, pointer)
            elif condition is None or (entry.what != "metadata" and may_fit(condition, metadata)):
                damages.append(entry)

    wanted = offset + limit
    if is_ranked:
        newest = islice(readable(), max(RANK_WINDOW, wanted))
        ranked = heapq.nlargest(wanted, newest, key=lambda found: found[0])  # stable: equal ones stay newest first
    else:
        ranked = [*islice(readable(), wanted)]
    return ranked[offset:], damages


# --- what calls answer -----------------------------------------------------------------------------


def damaged(damages: Sequence[Damage], kind: str = "entry") -> LTMError:
    """Return the failure of a call that was asked for these entries, or for a ``snapshot``."""
    keys = [damage.key for damage in damages]
    if len(keys) == 1:
        is_mended = kind == "entry" and damages[0].what != "version"  # by a store
        remedy = "store it anew or delete it" if is_mended else "delete it"
        message = f"the {kind} {keys[0]!r} is damaged, {damages[0].problem}; {remedy}"
    else:
        message = f"{len(keys):,} entries are damaged: {_named(keys)}; store them anew or delete them"
    return LTMError("query_error", message, damaged=keys)


def whole(entry: dict[str, Any] | Damage | None, kind: str = "entry") -> dict[str, Any] | None:
    """Return the entry that a call was asked for, or the ``snapshot``, None for none.

    Raises:
        LTMError: ``query_error``: it is damaged.
    """
    if isinstance(entry, Damage):
        raise damaged([entry], kind)
    return entry


def whole_entries(entries: Mapping[str, dict[str, Any] | Damage | None]) -> Result:
    """Return the success dict of ``retrieve_many``.

    Raises:
        LTMError: ``query_error`` that names the damaged ones.
    """
    if damages := [entry for entry in entries.values() if isinstance(entry, Damage)]:
        raise damaged(damages)
    return found_entries({key: entry for key, entry in entries.items() if not isinstance(entry, Damage)})


def found_entry(entry: dict[str, Any] | Damage) -> Result:
    """Return the success dict of a ``retrieve`` that found a row.

    Raises:
        LTMError: ``query_error``: the entry is damaged.
    """
    if isinstance(entry, Damage):
        raise damaged([entry])
    return ok(found=True, **entry)


def read_version(key: str, version: Any) -> int:
    """Return the version that a row has.

    Raises:
        LTMError: ``query_error``: the entry is damaged.
    """
    try:
        return _check_version(version)
    except UnreadableError as error:
        problem = damaged([Damage.of(key, error)])
    raise problem


def search_result(results: list[Any], damages: Sequence[Damage] = ()) -> Result:
    """Return the success dict of ``search``, which names what is damaged if there is any."""
    named = {"damaged": [damage.key for damage in damages]} if damages else {}
    return ok(results=results, count=len(results), **named)


class Readable(Iterator[Item], Generic[Item]):
    """Iterates over what can be read, and leaves out what is damaged.

    Attributes:
        damaged: the keys of what was left out so far.
    """

    def __init__(self, found: Iterable[Item | Damage], of: str = "an iteration over a memory") -> None:
        """Take what was found; ``of`` says in the log where that was."""
        self.damaged: list[str] = []
        self._left = self._readable(found, of)

    def __next__(self) -> Item:
        """Return the next that can be read."""
        return next(self._left)

    def close(self) -> None:
        """End the iteration."""
        self._left.close()

    def _readable(self, found: Iterable[Item | Damage], of: str) -> Generator[Item, None, None]:
        try:
            for item in found:
                if isinstance(item, Damage):
                    self.damaged.append(item.key)
                else:
                    yield item
        finally:
            if self.damaged:
                _logger.warning("%s left out %s damaged: %s", of, f"{len(self.damaged):,}", _named(self.damaged))


class Listed(list[Item]):
    """A list of what can be read.

    Attributes:
        damaged: the keys of what was left out.
    """

    def __init__(
        self, found: Iterable[Item | Damage], fits: Callable[[Item], bool] | None = None, limit: int | None = None
    ):
        """Take the first so many that fit, of all that was found."""
        readable = Readable(found, LISTED)
        super().__init__(islice(readable if fits is None else filter(fits, readable), limit))
        readable.close()
        self.damaged = readable.damaged


def _named(keys: Sequence[str]) -> str:
    more = ", ..." if len(keys) > _MOST_NAMED else ""
    return ", ".join(map(repr, keys[:_MOST_NAMED])) + more
