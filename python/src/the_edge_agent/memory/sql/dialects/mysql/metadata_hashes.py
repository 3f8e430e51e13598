"""Metadata hashes: the index for filters on MySQL and MariaDB.

A metadata hash is a number for a path in the metadata and the string, integer, true or false at that path. The entry
has its hashes in indexed columns. Different metadata can have the same hash, so the filter itself checks every entry
that the index finds. There are few columns. If an entry has more hashes, its first column has the mark ``TOO_MANY``
instead, and every search by hash finds it.

Neither database has another index for this that follows transactions and takes any key. MariaDB has no index over a
list. MySQL's multi-valued indexes refuse a store whose undo record gets too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from sqlalchemy import ColumnElement, Integer, bindparam

# The columns; each adds 6 to 12 microseconds to a store
METADATA_HASHES: Final = tuple(f"term{number}" for number in range(1, 9))

TOO_MANY: Final = 0  # a mark in the first column; no metadata has this hash


def metadata_hash_columns() -> dict[str, ColumnElement[Any]]:
    """Return the columns for metadata hashes, with their bound parameters."""
    return {name: bindparam(f"b_{name}", type_=Integer()) for name in METADATA_HASHES}


def metadata_hash_parameters(metadata: dict[str, Any]) -> dict[str, int | None]:
    """Return the values for the parameters of these columns."""
    hashes: list[int | None] = [*dict.fromkeys(metadata_hashes(metadata, ""))]
    if len(hashes) > len(METADATA_HASHES):
        hashes = [TOO_MANY]
    hashes += [None] * (len(METADATA_HASHES) - len(hashes))
    return {f"b_{name}": value for name, value in zip(METADATA_HASHES, hashes, strict=True)}


def metadata_hashes(metadata: dict[str, Any], path: str) -> Iterator[int]:
    """Yield the hashes of all values in an object. Fractions, null and the items of lists have no hash."""
    for key, value in metadata.items():
        here = f"{path}{str.__str__(key)}\0"  # a subclass of str may have another __str__
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
