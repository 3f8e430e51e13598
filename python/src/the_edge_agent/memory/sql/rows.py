"""The bound columns of our tables, and the parameters that fill them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Table, bindparam

from the_edge_agent.memory.operations import Store
from the_edge_agent.memory.sql.dialects import Dialect

MICROSECOND: Final = timedelta(microseconds=1)


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


def _stamps(dialect: Dialect) -> dict[str, Any]:
    return {
        "version": bindparam("b_count", type_=BigInteger()),
        "expires_at": dialect.expiry,
        "created_at": dialect.now,
        "updated_at": dialect.now,
    }
