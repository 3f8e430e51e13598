"""The highest version of an entry: every database refuses a store after it in the same way, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from databases import Database, run_sql

HIGHEST: Final = 2**63 - 1
WAYS: Final[dict[str, Callable[[Any], dict[str, Any]]]] = {
    "store": lambda memory: memory.store("k", "new"),
    "over this version": lambda memory: memory.store("k", "new", if_version=HIGHEST),
    "many": lambda memory: memory.store_many([{"key": "a", "value": 1}, {"key": "k", "value": "new"}]),
    "twice": lambda memory: memory.store_many([{"key": "k", "value": 1}, {"key": "k", "value": "new"}]),
}


@pytest.mark.targets("native", "portable")
def test_no_store_follows_the_highest_version(database: Database) -> None:
    with database.open() as memory:
        memory.store("k", "old")
        run_sql(memory, f"UPDATE ltm_entries SET version = {HIGHEST}")
        for name, store in WAYS.items():
            result = store(memory)
            assert (result["success"], result.get("error_type")) == (False, "validation_error"), name
            assert "the highest version" in result["error"], name
            entry = memory.retrieve("k")
            assert (entry["value"], entry["version"], type(entry["version"])) == ("old", HIGHEST, int), name
            assert memory.retrieve("a")["found"] is False
        assert memory.store("k", "new", if_version=HIGHEST - 1)["error_type"] == "conflict"
        assert memory.delete("k")["deleted"] is True
        assert memory.store("k", "new")["version"] == 1


@pytest.mark.targets("native", "portable")
def test_a_catalog_tracks_nothing_after_the_highest_version(database: Database) -> None:
    with database.open_catalog() as catalog:
        catalog.track_entry("k", "old", None, 1, None)
        run_sql(catalog, f"UPDATE ltm_catalog SET version = {HIGHEST}")
        assert catalog.track_entry("k", "new", None, 1, None)["error_type"] == "validation_error"
        assert catalog.get_entry("k")["content_hash"] == "old"
