"""Long lists in pieces that every server accepts as one statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

BATCH_ITEMS: Final = 1_000  # with ten parameters each far below 32,766, SQLite's limit, and 65,535, PostgreSQL's
BATCH_BYTES: Final = 4_000_000  # of what is sent; less where the server reads smaller packets
_ESCAPED: Final = ("'", '"', "\\")  # drivers that write values into the statement double these


def batches(items: Iterable[Item], size: Callable[[Item], int], packet: int | None) -> Iterator[list[Item]]:
    """Yield the items in lists of limited length and size; a single item may be larger than that.

    Args:
        items: in the order wanted.
        size: the bytes of an item as sent.
        packet: how many bytes the server reads at once, None for no limit.
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
