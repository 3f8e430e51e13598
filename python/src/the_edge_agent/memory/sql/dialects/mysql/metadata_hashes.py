"""The index for filters on MySQL and MariaDB: what the metadata holds, as numbers in indexed columns of the entry.

Such a number is called a term here; a ``Term`` is a word of a query. A number stands for a path and the string,
integer, true or false that is there. It may stand for others too, so that a filter still looks at what it finds. There
are few columns: an entry that holds more has a mark in the first of them, by which every search finds it.

Neither database has another index for this that follows transactions and takes any key: MariaDB has none over a list,
and MySQL's multi-valued indexes refuse a store whose undo record grows too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from sqlalchemy import ColumnElement, Integer, bindparam

METADATA_HASHES: Final = tuple(
    f"term{number}" for number in range(1, 9)
)  # columns; each costs a store 6 to 12 microseconds

TOO_MANY: Final = 0  # the mark; no term


def metadata_hash_columns() -> dict[str, ColumnElement[Any]]:
    """Return the bound columns."""
    return {name: bindparam(f"b_{name}", type_=Integer()) for name in METADATA_HASHES}


def metadata_hash_parameters(metadata: dict[str, Any]) -> dict[str, int | None]:
    """Return their parameters."""
    hashes: list[int | None] = [*dict.fromkeys(metadata_hashes(metadata, ""))]
    if len(hashes) > len(METADATA_HASHES):
        hashes = [TOO_MANY]
    hashes += [None] * (len(METADATA_HASHES) - len(hashes))
    return {f"b_{name}": value for name, value in zip(METADATA_HASHES, hashes, strict=True)}


def metadata_hashes(metadata: dict[str, Any], path: str) -> Iterator[int]:
    """Yield the terms of what an object holds; a fraction, null and what is in a list have none."""
    for key, value in metadata.items():
        here = f"{path}{str.__str__(key)}\0"  # of subclasses too, which may show themselves otherwise
        match value:
            case dict():
                yield from metadata_hashes(value, here)
            case bool():
                yield _metadata_hash(f"{here}{value}")
            case str():
                yield _metadata_hash(f"{here}'{str.__str__(value)}'")
            case int() | float() if value == (whole := int(value)):
                yield _metadata_hash(f"{here}{whole}")


def _metadata_hash(written: str) -> int:
    return crc32(written.encode()) or 1
