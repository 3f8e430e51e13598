"""The bound columns of our tables, and the parameters that fill them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Table, bindparam

from the_edge_agent.memory.operations import Store
from the_edge_agent.memory.sql.dialects import Dialect

MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Tracked:
    """A checked and encoded ``track_entry``.

    Attributes:
        entry_id: of the key.
        key: the key.
        content_hash: of the value.
        storage_uri: where the value is.
        byte_size: of the value.
        metadata: as JSON text, or None.
        metadata_hash: of the metadata, None for None.
        inlined_value: as JSON text, or None.
        expires_at: in UTC, or None.
    """

    entry_id: str
    key: str
    content_hash: str
    storage_uri: str | None
    byte_size: int | None
    metadata: str | None
    metadata_hash: str | None
    inlined_value: str | None
    expires_at: datetime | None


def entry_row(dialect: Dialect, entries: Table) -> dict[str, Any]:
    """Return the bound columns of an entry; the primary key is first."""
    return {
        "key": bindparam("b_key", type_=entries.c.key.type),
        "value": bindparam("b_value", type_=dialect.text_type),
        **dialect.metadata_columns(),
        "search_text": bindparam("b_search_text", type_=entries.c.search_text.type),
        **_stamps(dialect),
    }


def entry_parameters(dialect: Dialect, store: Store, now: datetime | None, count: int = 1) -> dict[str, Any]:
    """Return the parameters of a store that stands for ``count`` stores of the same key."""
    return {
        "b_key": store.key,
        "b_value": store.value,
        **dialect.metadata_parameters(store.metadata),
        "b_search_text": store.search_text,
        "b_now": now,
        "b_expires_at": now + store.ttl if now and store.ttl else None,
        "b_ttl": store.ttl and store.ttl // MICROSECOND,
        "b_count": count,
    }


def catalog_row(dialect: Dialect, catalog: Table) -> dict[str, Any]:
    """Return the bound columns of a catalog entry; the primary key is first."""
    columns = catalog.c
    bound = ("id", "key", "content_hash", "storage_uri", "byte_size", "metadata_hash")
    return {
        **{name: bindparam(f"b_{name}", type_=columns[name].type) for name in bound},
        "inlined_value": bindparam("b_inlined_value", type_=dialect.text_type),
        **dialect.metadata_columns(),
        **_stamps(dialect),
        "expires_at": bindparam("b_expires_at", type_=dialect.moment),
    }


def catalog_parameters(dialect: Dialect, entry: Tracked, now: datetime | None, count: int = 1) -> dict[str, Any]:
    """Return the parameters of a tracked entry that stands for ``count`` of the same key."""
    return {
        "b_id": entry.entry_id,
        "b_key": entry.key,
        "b_content_hash": entry.content_hash,
        "b_storage_uri": entry.storage_uri,
        "b_byte_size": entry.byte_size,
        "b_metadata_hash": entry.metadata_hash,
        "b_inlined_value": entry.inlined_value,
        **dialect.metadata_parameters(entry.metadata),
        "b_expires_at": entry.expires_at,
        "b_now": now,
        "b_count": count,
    }


def _stamps(dialect: Dialect) -> dict[str, Any]:
    return {
        "version": bindparam("b_count", type_=BigInteger()),
        "expires_at": dialect.expiry,
        "created_at": dialect.now,
        "updated_at": dialect.now,
    }
