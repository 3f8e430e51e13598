"""The bound columns of our tables, and the values for their parameters."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Table, bindparam

from the_edge_agent.memory.contract.tracking import Tracked
from the_edge_agent.memory.core.damage import Damage, read_entry, read_timed_entry
from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.core.validation import microseconds_of
from the_edge_agent.memory.sql.dialects import Dialect


class Pointer(str):
    """Stands for a value in the blob storage, until the value is fetched."""


def entry_of(
    key: Any, text: Any, metadata: Any, pointer: str | None, version: Any = 1, *times: Any
) -> dict[str, Any] | Damage:
    """Return ``{"value", "metadata", "version"}`` of a row. The value may be a ``Pointer``.

    With ``times``, the columns of ``TIMES``, the result has these too.
    """
    inline = text if pointer is None else "null"
    if times:
        entry = read_timed_entry(key, inline, metadata, version, times, time_of)
    else:
        entry = read_entry(key, inline, metadata, version)
    if pointer is None:
        return entry
    return entry if isinstance(entry, Damage) else {**entry, "value": Pointer(pointer)}


def time_of(value: Any) -> datetime | None:
    """Return a time that SQLAlchemy has converted. ``read_time`` later refuses a value that is not a time."""
    timestamp: datetime | None = value
    return timestamp


def entry_row(dialect: Dialect, entries: Table) -> dict[str, Any]:
    """Return the bound columns of an entry. The first is the primary key."""
    names = ("search_text", "write_id", "storage_uri", "lifetime", "is_indexed")
    optional = [name for name in names if name in entries.c]
    return {
        "key": bindparam("b_key", type_=entries.c.key.type),
        "value": bindparam("b_value", type_=dialect.features.text_type),
        **dialect.queries.metadata_columns(entries),
        **{name: bindparam(f"b_{name}", type_=entries.c[name].type) for name in optional},
        **_time_columns(dialect),
    }


def entry_parameters(
    dialect: Dialect, store: Store, now: datetime | None, count: int = 1, write_id: str | None = None
) -> dict[str, Any]:
    """Return the parameters of a store. The store adds ``count`` to the version, as that many stores of the key do."""
    return {
        "b_key": store.key,
        "b_value": store.stored_value,
        **dialect.queries.metadata_parameters(store.metadata),
        "b_search_text": store.search_text,
        "b_write_id": write_id,
        "b_storage_uri": store.pointer,
        "b_lifetime": microseconds_of(store.ttl),
        "b_is_indexed": int(store.index),
        **time_parameters(store.ttl, store.expires_at, now),
        "b_count": count,
    }


def catalog_row(dialect: Dialect, catalog: Table) -> dict[str, Any]:
    """Return the bound columns of a catalog entry. The first is the primary key."""
    columns = catalog.c
    names = ("id", "key", "content_hash", "storage_uri", "byte_size", "metadata_hash")
    return {
        **{name: bindparam(f"b_{name}", type_=columns[name].type) for name in names},
        "inlined_value": bindparam("b_inlined_value", type_=dialect.features.text_type),
        **dialect.queries.metadata_columns(catalog),
        **_time_columns(dialect),
    }


def catalog_parameters(dialect: Dialect, entry: Tracked, now: datetime | None, count: int = 1) -> dict[str, Any]:
    """Return the parameters of a tracked entry. It adds ``count`` to the version, like that many entries of the key."""
    return {
        "b_id": entry.entry_id,
        "b_key": entry.key,
        "b_content_hash": entry.content_hash,
        "b_storage_uri": entry.storage_uri,
        "b_byte_size": entry.byte_size,
        "b_metadata_hash": entry.metadata_hash,
        "b_inlined_value": entry.inlined_value,
        **dialect.queries.metadata_parameters(entry.metadata),
        **time_parameters(entry.ttl, entry.expires_at, now),
        "b_count": count,
    }


def time_parameters(ttl: timedelta | None, until: datetime | None, now: datetime | None) -> dict[str, Any]:
    """Return the parameters of ``Times.now`` and ``Times.expiry``: the end is ``until``, or ``ttl`` after ``now``."""
    return {
        "b_now": now,
        "b_until": until,
        "b_expires_at": now + ttl if now and ttl else until,
        "b_ttl": microseconds_of(ttl),
    }


def _time_columns(dialect: Dialect) -> dict[str, Any]:
    return {
        "version": bindparam("b_count", type_=BigInteger()),
        "expires_at": dialect.times.expiry,
        "created_at": dialect.times.now,
        "updated_at": dialect.times.now,
    }
