"""Shared by the rules of expiry: short lifetimes, every way to read an entry, and waiting until it has expired."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import assert_success, find, keys_of

SHORT: Final = 0.3  # seconds; long enough to read the entry before it expires
SOON: Final = 0.02  # seconds; for entries that just have to expire
EXPIRY_DELAY: Final = 0.2  # seconds after the end of its lifetime, when no read may return an entry any more
LONG: Final = 600.0  # seconds; longer than any test

READS: Final[dict[str, Callable[[LTMBackend], bool]]] = {
    "retrieve": lambda backend: bool(assert_success(backend.retrieve("k"))["found"]),
    "search": lambda backend: "k" in keys_of(find(backend)),
    "search for a word": lambda backend: "k" in keys_of(find(backend, "fox")),
    "search for a phrase": lambda backend: "k" in keys_of(find(backend, '"red fox"')),
    "search without a word": lambda backend: "k" in keys_of(find(backend, "-hound")),
    "search with a filter": lambda backend: "k" in keys_of(find(backend, metadata_filter={"n": 1})),
    "search with a prefix": lambda backend: "k" in keys_of(find(backend, prefix="k")),
    "search with everything": lambda backend: "k" in keys_of(find(backend, "fox", {"n": 1}, prefix="k")),
    "retrieve_many": lambda backend: assert_success(backend.retrieve_many(["other", "k"]))["entries"]["k"] is not None,
    "list_keys": lambda backend: "k" in assert_success(backend.list_keys())["keys"],
    "list_keys with a prefix": lambda backend: "k" in assert_success(backend.list_keys("k", 1))["keys"],
    "count": lambda backend: assert_success(backend.count())["count"] == 2,
    "count with a prefix": lambda backend: assert_success(backend.count("k"))["count"] == 1,
    "iterate_all": lambda backend: "k" in [key for key, _, _ in backend.iterate_all()],
    "iterate_all with a prefix": lambda backend: "k" in [key for key, _, _ in backend.iterate_all("k")],
}


def wait_until(condition: Callable[[], bool], patience: float) -> None:
    """Wait until the condition holds; fail if this takes more than ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        begun = time.monotonic()
        if condition():
            return
        assert begun < deadline, f"still not so after {patience} seconds"
        time.sleep(0.005)


def wait_until_expired(backend: LTMBackend, ttl: float, *keys: str) -> None:
    """Wait until the entries at these keys, which were stored with this ttl, have expired."""
    wait_until(lambda: not any(assert_success(backend.retrieve(key))["found"] for key in keys), ttl + EXPIRY_DELAY)


def store_expired(backend: LTMBackend, *keys: str) -> None:
    """Store each key twice, so that its entry has version 2, and wait until the entries have expired."""
    for key in keys:
        assert_success(backend.store(key, "a fox that has gone", {"n": 1}))
        assert_success(backend.store(key, "a fox that has gone", {"n": 1}, ttl=SOON))
    wait_until_expired(backend, SOON, *keys)
