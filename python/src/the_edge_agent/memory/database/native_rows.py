"""Rows to entries for the native memories, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

from the_edge_agent.memory.core.damage import (
    Damage,
    Timestamp,
    may_fit,
    not_here,
    place_after,
    read_entry,
    read_whole_entry,
    search_result,
    undamaged,
)
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.core.tokens import Term
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH, end_of_prefix

Item = TypeVar("Item")

Row: TypeAlias = Sequence[Any]
Page: TypeAlias = tuple[list[Row], bool]  # rows, and whether this is the last page


_PAGE_TEXT: Final = 1_000_000  # characters; a page of iterate_all ends after the row that exceeds this
_ABOVE_ALL_KEYS: Final = "\U0010ffff" * (MAX_KEY_LENGTH + 1)


def range_of(prefix: str) -> dict[str, Any]:
    """Return the parameters ``prefix`` and ``end`` for ``key >= prefix AND key < end``: the keys with this prefix."""
    return {"prefix": prefix, "end": end_of_prefix(prefix) or _ABOVE_ALL_KEYS}


def entry_of(key: str, value: str, metadata: str | None, version: int, pointer: str | None) -> dict[str, Any] | Damage:
    """Return ``{"value", "metadata", "version"}`` of a row, or its damage. A value in a blob storage is damage here."""
    if pointer is not None:
        return not_here(key)
    return read_entry(key, value, metadata, version)


def page_of(rows: Iterable[Row], skip: int) -> Page:
    """Skip rows, and return the next ones as a page, which ends when its text is long.

    Rows are ``(key, value, metadata, pointer, ...)``.
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
    """Return ``(key, value, metadata)``, or the damage, of a row ``(key, value, metadata, pointer)``."""
    key, value, metadata, pointer = row
    entry = entry_of(key, value, metadata, 1, pointer)
    return entry if isinstance(entry, Damage) else (key, entry["value"], entry["metadata"])


def whole_of(row: Row, timestamp: Timestamp) -> dict[str, Any] | Damage:
    """Return the whole entry, or the damage, of a row.

    The row is ``(key, value, metadata, pointer, version, created_at, updated_at, expires_at)``.
    """
    key, value, metadata, pointer, version, *times = row
    if pointer is not None:
        return not_here(key)
    return read_whole_entry(key, value, metadata, version, times, timestamp)


def fitting(rows: Iterable[Row], condition: Node | None) -> Iterator[Row]:
    """Return the rows ``(place, metadata, ...)`` whose metadata satisfies a condition, and rows without a place."""
    if condition is None:
        return iter(rows)
    return (row for row in rows if row[0] is None or may_fit(condition, row[1]))


def result_of(row: Row, score: float = 0.0) -> dict[str, Any] | Damage:
    """Return ``{"key", "value", "metadata", "score"}``, or the damage, of a row ``(key, metadata, value, pointer)``."""
    key, metadata, value, pointer = row
    entry = entry_of(key, value, metadata, 1, pointer)
    if isinstance(entry, Damage):
        return entry
    return {"key": key, "value": entry["value"], "metadata": entry["metadata"], "score": score}


def undamaged_results(
    rows: Iterable[Row], terms: Sequence[Term], condition: Node | None, offset: int, limit: int
) -> Result:
    """Return the result of a search that has met damage, from rows as ``undamaged`` takes them."""
    ranked, damages = undamaged(rows, terms, condition, offset, limit, not_here)
    results = [result_of((key, metadata, value, pointer), score) for score, (key, value, metadata, pointer) in ranked]
    return search_result([result for result in results if not isinstance(result, Damage)], damages)
