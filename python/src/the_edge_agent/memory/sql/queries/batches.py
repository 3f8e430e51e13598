"""Batches: long lists in parts that every server accepts as one statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

BATCH_ITEMS: Final = 1_000  # ten parameters each are far below the limits of SQLite (32,766) and PostgreSQL (65,535)
BATCH_BYTES: Final = 4_000_000  # as sent; less if the server accepts only smaller packets
# Drivers that write values into the statement escape each of these with one more character.
_ESCAPED: Final = ("'", '"', "\\")


def batches(items: Iterable[Item], size: Callable[[Item], int], packet: int | None) -> Iterator[list[Item]]:
    """Yield the items in lists of limited length and size. A list may be larger if it has only one item.

    Args:
        items: the items, in order.
        size: a function that returns how many bytes an item has as sent.
        packet: how many bytes the server accepts in one statement; None for no limit.
    """
    limit = min(BATCH_BYTES, (packet or BATCH_BYTES) // 2)
    batch: list[Item] = []
    total = 0
    for item in items:
        grown = total + size(item)
        if batch and (grown > limit or len(batch) == BATCH_ITEMS):
            yield batch
            batch, grown = [], size(item)
        batch.append(item)
        total = grown
    if batch:
        yield batch


def exact_bytes(texts: Iterable[str | None]) -> int:
    """Return how many bytes texts have as sent."""
    return sum(len(text.encode()) + sum(map(text.count, _ESCAPED)) for text in texts if text)
