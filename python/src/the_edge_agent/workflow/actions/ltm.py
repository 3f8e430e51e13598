"""The ``ltm.*`` actions: the long-term memory of an agent. Each returns the backend's dict as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from the_edge_agent.memory import LTMBackend

Result = dict[str, Any]


def store(memory: LTMBackend, key: str, value: Any, metadata: dict[str, Any] | None = None) -> Result:
    """Store a value under a key, over what was there."""
    return memory.store(key, value, metadata)


def retrieve(memory: LTMBackend, key: str, default: Any = None) -> Result:
    """Read the value of a key; ``default`` is the value when there is none."""
    return memory.retrieve(key, default)


def delete(memory: LTMBackend, key: str) -> Result:
    """Delete a key; one that is not there is no failure."""
    return memory.delete(key)


def search(
    memory: LTMBackend,
    query: str | None = None,
    metadata_filter: dict[str, Any] | None = None,
    limit: int = 10,
    prefix: str | None = None,
    offset: int = 0,
) -> Result:
    """Search by words, by metadata and by the beginning of the key, best matches first."""
    return memory.search(query, metadata_filter, limit, prefix=prefix, offset=offset)


LTM_ACTIONS: dict[str, Callable[..., Result]] = {
    "ltm.store": store,
    "ltm.retrieve": retrieve,
    "ltm.delete": delete,
    "ltm.search": search,
}
