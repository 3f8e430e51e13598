"""Rows to entries for the native memories, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

from the_edge_agent.memory.core.codec import UnreadableError
from the_edge_agent.memory.core.damage import (
    TIMES,
    Damage,
    Timestamp,
    may_fit,
    not_here,
    place_after,
    read_entry,
    read_time,
    read_timed_entry,
    read_whole_entry,
    search_result,
    undamaged,
)
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.operations import Import, Store
from the_edge_agent.memory.core.pages import EntryRow
from the_edge_agent.memory.core.results import LTMError, Result, scored
from the_edge_agent.memory.core.tokens import Term
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH

Item = TypeVar("Item")

Row: TypeAlias = Sequence[Any]
Page: TypeAlias = tuple[list[Row], bool]  # rows, and whether this is the last page

#: The columns of rows. A value in a blob storage is damage here.
ITEM: Final = ("key", "value", "metadata", "storage_uri")
ENTRY: Final = (*ITEM, "version")
TIMED: Final = (*ENTRY, *TIMES)
WHOLE: Final = (*TIMED, "lifetime", "is_indexed")
#: The columns of a result of a search. The first two are the place and the metadata, as ``fitting`` takes them.
RESULT: Final = ("key", "metadata", "value", "storage_uri", "version", *TIMES)
_PAGE_TEXT: Final = 1_000_000  # characters; a page of iterate_all ends after the row that exceeds this
_ABOVE_ALL_KEYS: Final = "\U0010ffff" * (MAX_KEY_LENGTH + 1)


def range_of(keys: KeyRange) -> dict[str, Any]:
    """Return the parameters ``start`` and ``end`` for ``key >= start AND key < end``: the keys of this range."""
    return {"start": keys.start, "end": keys.end or _ABOVE_ALL_KEYS}


def measured_by(visible: str, expired: str, size: str, time: str) -> str:
    """Return the columns that measure entries: their number, bytes, times, and how many have expired.

    Args:
        visible: the SQL condition that an entry has not expired.
        expired: the condition that it has.
        size: the SQL for the bytes of a text, with ``{}`` for the column.
        time: the SQL that selects a time, with ``{0}`` for its expression.
    """
    bytes_of = " + ".join(f"coalesce({size.format(column)}, 0)" for column in ("key", "value", "metadata"))
    oldest, newest = (
        time.format(f"{function}(CASE WHEN {visible} THEN {column} END)")
        for function, column in (("min", "created_at"), ("max", "updated_at"))
    )
    numbers = (f"coalesce(sum(CASE WHEN {visible} THEN {number} END), 0)" for number in (1, f"({bytes_of})"))
    outside = f"coalesce(sum(CASE WHEN {visible} AND storage_uri IS NOT NULL THEN 1 END), 0)"
    return f"{', '.join(numbers)}, {oldest}, {newest}, coalesce(sum(CASE WHEN {expired} THEN 1 END), 0), {outside}"


def measured_of(row: Sequence[Any], timestamp: Callable[[Any], Any]) -> tuple[int, int, Any, Any, int, int]:
    """Return the numbers of ``DatabaseBackend._measure`` from a row with the columns that ``measured_by`` selects.

    Raises:
        LTMError: ``query_error``: values are in a blob storage, which a native memory does not read.
    """
    entries, size, oldest, newest, expired, outside = row
    if outside:
        raise values_elsewhere(outside)
    return int(entries), int(size), _readable(oldest, timestamp), _readable(newest, timestamp), int(expired), 0


def values_elsewhere(count: int) -> LTMError:
    """Return the failure of a measurement of values that are in a blob storage which this memory was not given."""
    message = f"{count:,} values are in a blob storage, which this memory was opened without; open it with its storage"
    return LTMError("query_error", message)


def _readable(raw: Any, timestamp: Callable[[Any], Any]) -> Any:
    try:
        return timestamp(raw)
    except (TypeError, ValueError, AttributeError, OverflowError):
        return raw


def namespaced(find: str, percent: str = "%") -> str:
    """Return the SQL condition that a key is one of a namespace, as ``split_key`` decides. The key begins with ``@``.

    It is a CASE: most keys need only its first part, and PostgreSQL does not take it for a condition that few keys
    satisfy.

    Args:
        find: the SQL function that returns the place of one text in another, from 1 on, or 0.
        percent: the character ``%`` as the driver takes it.
    """
    end = f"{find}(key, '.')"
    names = f"'/' || substr(substr(key, 1, {end}), 2)"  # each name follows a slash, and a dot ends the last one
    plain = names
    for code in ("25", "2E", "2F"):
        plain = f"replace({plain}, '{percent}{code}', '-')"

    def are_absent(texts: Iterable[str], text: str) -> str:
        return " AND ".join(f"{find}({text}, '{each}') = 0" for each in texts)

    is_plain = are_absent((percent, "//", "/.", "@/", "@."), "key")
    is_right = f"{are_absent(('//', '/.'), names)} AND {are_absent((percent,), plain)}"
    return f"CASE WHEN NOT ({end} > 0 AND length(key) > {end}) THEN false WHEN {is_plain} THEN true ELSE {is_right} END"


def entry_of(row: Row) -> dict[str, Any] | Damage:
    """Return ``{"value", "metadata", "version"}`` of a row of ``ENTRY``, or its damage."""
    key, value, metadata, pointer, version = row
    return read_entry(key, value, metadata, version) if pointer is None else not_here(key)


def timed_of(row: Row, timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return ``{"value", "metadata", "version"}`` and the times of a row of ``TIMED``, or its damage."""
    key, value, metadata, pointer, version, *times = row
    return read_timed_entry(key, value, metadata, version, times, timestamp) if pointer is None else not_here(key)


def page_of(rows: Iterable[Row], skip: int) -> Page:
    """Skip rows, and return the next ones as a page, which ends when its text is long.

    Rows begin with the columns of ``ITEM``.
    """
    page, size = [], 0
    for row in islice(rows, skip, None):
        page.append(row)
        size += len(row[1]) + len(row[2] or "")
        if size > _PAGE_TEXT:
            return page, False
    return page, True


def iterate(page_after: Callable[[str, int], Page], item_of: Callable[[Row], Item | Damage]) -> Iterator[Item | Damage]:
    """Read page after page, and yield ``item_of(row)`` of each row.

    ``page_after`` takes a key, and how many rows after this key to skip. The second is not 0 only after damaged keys,
    see ``place_after``.
    """
    after, skip, is_over = "", 0, False
    while not is_over:
        page, is_over = page_after(after, skip)
        yield from map(item_of, page)
        last_key, more = place_after([row[0] for row in page])
        after, skip = (after, skip + more) if last_key is None else (last_key, more)


def item_of(row: Row) -> tuple[str, Any, dict[str, Any] | None] | Damage:
    """Return ``(key, value, metadata)``, or the damage, of a row of ``ITEM``."""
    entry = entry_of((*row, 1))
    return entry if isinstance(entry, Damage) else (row[0], entry["value"], entry["metadata"])


def whole_of(row: Row, timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return the whole entry, or the damage, of a row of ``WHOLE``."""
    key, value, metadata, pointer, version, *times, lifetime, is_indexed = row
    if pointer is not None:
        return not_here(key)
    return read_whole_entry(key, value, metadata, version, times, timestamp, lifetime=lifetime, is_indexed=is_indexed)


def entry_row_of(row: Row, timestamp: Timestamp) -> EntryRow:
    """Return a row of ``entries`` from a row of ``WHOLE``."""
    try:
        updated_at = read_time(row[WHOLE.index("updated_at")], "updated_at", timestamp)
    except UnreadableError:
        updated_at = None
    return EntryRow(row[0], updated_at, whole_of(row, timestamp))


def stores_of_imports(imports: Iterable[Import]) -> list[Store]:
    """Return imports as the stores that a ledger follows: only ``expires_at`` says when their entries expire."""
    return [replace(each.store, ttl=None) for each in imports]


def fitting(rows: Iterable[Row], condition: Node | None) -> Iterator[Row]:
    """Return the rows ``(place, metadata, ...)`` whose metadata satisfies a condition, and rows without a place."""
    if condition is None:
        return iter(rows)
    return (row for row in rows if row[0] is None or may_fit(condition, row[1]))


def result_of(row: Row, timestamp: Timestamp, score: float = 0.0) -> dict[str, Any] | Damage:
    """Return a result of a search, or the damage, of a row of ``RESULT``."""
    key, metadata, value, *more = row
    entry = timed_of((key, value, metadata, *more), timestamp)
    return entry if isinstance(entry, Damage) else scored(key, entry, score)


def undamaged_results(
    rows: Iterable[Row], terms: Sequence[Term], condition: Node | None, offset: int, limit: int, timestamp: Timestamp
) -> Result:
    """Return the result of a search that has met damage, from rows as ``undamaged`` takes them."""
    ranked, damages = undamaged(rows, terms, condition, offset, limit, not_here, timestamp)
    results = [
        result_of((key, metadata, value, *more), timestamp, score) for score, (key, value, metadata, *more) in ranked
    ]
    return search_result([result for result in results if not isinstance(result, Damage)], damages)
