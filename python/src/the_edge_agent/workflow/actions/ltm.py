"""The ``ltm.*`` actions: the long-term memory of an agent. Each returns the result dict of the memory unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from the_edge_agent.memory import LTMBackend
from the_edge_agent.workflow.actions.catalog import moment

Result = dict[str, Any]


def store(
    memory: LTMBackend,
    key: str,
    value: Any,
    metadata: dict[str, Any] | None = None,
    *,
    ttl: float | None = None,
    if_version: int | None = None,
    expires_at: str | datetime | None = None,
) -> Result:
    """Create or replace an entry, for ``ttl`` seconds or until ``expires_at``, and only over ``if_version`` if set."""
    expiry = {} if expires_at is None else {"expires_at": moment(expires_at)}  # not every memory has this argument
    return memory.store(key, value, metadata, ttl=ttl, if_version=if_version, **expiry)


def store_many(memory: LTMBackend, entries: list[dict[str, Any]]) -> Result:
    """Store entries, all or none. Each is a dict of ``key``, ``value``, ``metadata``, and ``ttl`` or ``expires_at``."""
    return memory.store_many([*map(_timed, entries)] if isinstance(entries, list) else entries)


def retrieve(memory: LTMBackend, key: str, default: Any = None) -> Result:
    """Read the entry of a key. If there is none, the value is ``default``."""
    return memory.retrieve(key, default)


def retrieve_many(memory: LTMBackend, keys: list[str]) -> Result:
    """Read the entries of many keys; a key without an entry has None."""
    return memory.retrieve_many(keys)


def delete(memory: LTMBackend, key: str) -> Result:
    """Delete the entry of a key. It is no failure if there is none."""
    return memory.delete(key)


def delete_many(memory: LTMBackend, keys: list[str]) -> Result:
    """Delete the entries of many keys. It is no failure if some do not exist."""
    return memory.delete_many(keys)


def search(
    memory: LTMBackend,
    query: str | None = None,
    metadata_filter: dict[str, Any] | None = None,
    limit: int = 10,
    prefix: str | None = None,
    offset: int = 0,
    match: Literal["any", "all"] | None = None,
    explain: bool = False,
) -> Result:
    """Search by a question or words, by metadata and by a prefix of the key; best matches first."""
    more: dict[str, Any] = {"match": match, "explain": explain} if "match" in memory.capabilities else {}
    if not more:
        memory.check_match(match, explain=explain)
    return memory.search(query, metadata_filter, limit, prefix=prefix, offset=offset, **more)


def list_keys(memory: LTMBackend, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
    """List a page of the keys that begin with ``prefix``. For ``after`` pass the ``next`` of the page before."""
    return memory.list_keys(prefix, limit, after)


def count(memory: LTMBackend, prefix: str | None = None) -> Result:
    """Count the entries, or those whose keys begin with ``prefix``."""
    return memory.count(prefix)


def cleanup(memory: LTMBackend, batch_size: int = 100) -> Result:
    """Remove up to ``batch_size`` expired entries from the database. No action returns them any more."""
    return memory.cleanup_expired(batch_size)


def _timed(entry: Any) -> Any:
    is_timed = isinstance(entry, Mapping) and entry.get("expires_at") is not None
    return {**entry, "expires_at": moment(entry["expires_at"])} if is_timed else entry


LTM_ACTIONS: dict[str, Callable[..., Result]] = {
    "ltm.store": store,
    "ltm.store_many": store_many,
    "ltm.retrieve": retrieve,
    "ltm.retrieve_many": retrieve_many,
    "ltm.delete": delete,
    "ltm.delete_many": delete_many,
    "ltm.search": search,
    "ltm.list": list_keys,
    "ltm.count": count,
    "ltm.cleanup": cleanup,
}
