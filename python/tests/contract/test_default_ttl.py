"""The argument ``ttl`` of constructors: the lifetime of entries that are stored without ``ttl`` and ``expires_at``."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Final

import pytest

from databases import Database
from memory_backend import MemoryBackend
from the_edge_agent.memory import LTMError
from the_edge_agent.testing.contract import assert_success
from the_edge_agent.testing.expiry import BAD_TTLS
from the_edge_agent.testing.touches import assert_ends_in

FUTURE: Final = datetime(2099, 12, 31, tzinfo=timezone.utc)
# The arguments of a store, and the lifetime that the entry has then.
STORES: Final[dict[str, tuple[dict[str, Any], float | None]]] = {
    "not given": ({}, 50_000.5),
    "never": ({"ttl": None}, None),
    "another lifetime": ({"ttl": 7_000}, 7_000.0),
    "an end": ({"expires_at": FUTURE}, None),
    "an end and never": ({"ttl": None, "expires_at": FUTURE}, None),
}


def store_each(memory: Any, way: str) -> None:
    """Make all stores, with one of the methods that store."""
    transaction = memory.transaction()
    for name, (options, _) in STORES.items():
        if way == "store":
            assert_success(memory.store(name, 1, **options))
        elif way == "store_many":
            assert_success(memory.store_many([{"key": name, "value": 1, **options}]))
        else:
            assert_success(transaction.store(name, 1, **options))
    assert_success(transaction.commit())


def assert_lifetimes(memory: Any) -> None:
    entries = {entry["key"]: entry for entry in memory.iterate_entries()}
    assert {name: entry["ttl"] for name, entry in entries.items()} == {name: ttl for name, (_, ttl) in STORES.items()}
    for name, (options, ttl) in STORES.items():
        if ttl is None:
            assert entries[name]["expires_at"] == options.get("expires_at")
        else:
            assert_ends_in(entries[name]["expires_at"], ttl)
            assert_ends_in(memory.touch(name)["expires_at"], ttl)


@pytest.mark.targets("native", portable=False)
@pytest.mark.parametrize("way", ["store", "store_many", "transaction"])
def test_an_entry_has_the_lifetime_of_the_constructor_unless_a_store_says_otherwise(
    way: str, database: Database
) -> None:
    with database.open(ttl=50_000.5) as memory:
        for part in (memory, memory.namespace("a")):
            store_each(part, way)
        assert_lifetimes(memory.namespace("a"))
        memory.namespace("a").delete_all("")
        assert_lifetimes(memory)


def test_the_model_of_the_tests_does_the_same() -> None:
    for way in ("store", "store_many", "transaction"):
        memory = MemoryBackend(ttl=50_000.5)
        store_each(memory.namespace("a"), way)
        assert_lifetimes(memory.namespace("a"))


@pytest.mark.targets("native", portable=False)
def test_a_memory_without_ttl_gives_no_lifetime(database: Database) -> None:
    for options in ({}, {"ttl": None}):
        with database.open(**options) as memory:
            memory.store("k", 1)
            assert memory.retrieve("k", times=True)["expires_at"] is None


@pytest.mark.targets("native", portable=False)
def test_copies_keep_their_lifetimes(database: Database) -> None:
    with database.open(ttl=600) as memory:
        assert_success(memory.import_entries([{"key": "k", "value": 1}]))
        (entry,) = memory.iterate_entries()
        assert (entry["ttl"], entry["expires_at"]) == (None, None)


@pytest.mark.targets("native", portable=False)
def test_a_bad_default_is_refused(database: Database) -> None:
    for name, ttl in BAD_TTLS.items():
        with pytest.raises(LTMError) as raised:
            database.open(ttl=ttl)
        assert raised.value.error_type == "configuration_error", name
