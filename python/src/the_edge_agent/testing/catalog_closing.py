"""The rules of closing a catalog: closing twice is allowed, and later calls fail with connection_error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from the_edge_agent.testing.catalog_base import (
    CatalogBase,
    FullCatalog,
    OpenCatalog,
    assert_raises,
    entry_at,
    entry_of,
    opened,
    result_of,
    track,
)
from the_edge_agent.testing.contract import assert_failure, assert_success

ANSWERING: Final[dict[str, Callable[[FullCatalog], Any]]] = {
    "track_entry": lambda catalog: catalog.track_entry("k", "hash", None, 1, None),
    "store_batch": lambda catalog: catalog.store_batch([entry_of("k")]),
    "store_batch of nothing": lambda catalog: catalog.store_batch([]),
    "store_batch, not atomic": lambda catalog: catalog.store_batch([entry_of("k"), entry_of("k2")], atomic=False),
    "retrieve_batch": lambda catalog: catalog.retrieve_batch(["k", "other"]),
    "retrieve_batch of nothing": lambda catalog: catalog.retrieve_batch([]),
    "cleanup_expired": lambda catalog: catalog.cleanup_expired(),
}
RAISING: Final[dict[str, Callable[[FullCatalog, str], Any]]] = {
    "get_entry": lambda catalog, _: catalog.get_entry("k"),
    "delete_entry": lambda catalog, _: catalog.delete_entry("k"),
    "list_entries": lambda catalog, _: catalog.list_entries(),
    "list_entries with everything": lambda catalog, _: catalog.list_entries("k", {"a": 1}, 1),
    "get_changed_entries": lambda catalog, _: catalog.get_changed_entries(),
    "get_changed_entries of a snapshot": lambda catalog, since: catalog.get_changed_entries(since),
    "create_snapshot": lambda catalog, _: catalog.create_snapshot("name"),
    "get_snapshot": lambda catalog, since: catalog.get_snapshot(since),
    "list_snapshots": lambda catalog, _: catalog.list_snapshots(),
    "get_deleted_entries": lambda catalog, since: catalog.get_deleted_entries(since),
    "delete_snapshot": lambda catalog, since: catalog.delete_snapshot(since),
}


class CatalogClosingRules(CatalogBase):
    """Closing a catalog, if it can be closed."""

    def test_after_close_every_call_that_answers_is_a_connection_error(self, closable: FullCatalog) -> None:
        for call in ANSWERING.values():
            assert_success(call(closable))
        closable.close()
        for name, call in [*ANSWERING.items()] * 2:
            assert call(closable)["success"] is False, name
            assert_failure(call(closable), "connection_error")

    def test_after_close_every_other_call_raises_a_connection_error(self, closable: FullCatalog) -> None:
        since = closable.create_snapshot("before")
        calls = {name: call for name, call in RAISING.items() if hasattr(closable, name.partition(" ")[0])}
        for call in calls.values():
            call(closable, since)
        closable.close()
        for name, call in [*calls.items()] * 2:
            result = result_of(partial(call, closable, since))
            assert result["success"] is False, name
            assert_failure(result, "connection_error")

    def test_close_is_idempotent(self, closable: FullCatalog) -> None:
        track(closable, "k")
        for _ in range(3):
            closable.close()
        assert_raises(lambda: closable.get_entry("k"), "connection_error")

    def test_leaving_with_closes(self, closable: FullCatalog) -> None:
        with closable as entered:
            assert entered is closable
            track(closable, "k")
        assert_raises(lambda: closable.get_entry("k"), "connection_error")

    def test_leaving_with_by_an_exception_closes_and_keeps_the_exception(self, closable: FullCatalog) -> None:
        with pytest.raises(KeyError, match="mine"), closable:
            raise KeyError("mine")
        assert_raises(lambda: closable.get_entry("k"), "connection_error")

    def test_to_close_one_catalog_leaves_another_open(self, reopen_catalog: OpenCatalog) -> None:
        with opened(reopen_catalog) as first:
            with opened(reopen_catalog) as second:
                track(second, "k")
            assert entry_at(first, "k")["key"] == "k"
