"""The rules of get_changed_entries and get_deleted_entries: what has changed since a snapshot."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.testing.catalog_base import (
    FUTURE,
    PAST,
    CatalogBase,
    FullCatalog,
    assert_raises,
    entry_at,
    entry_of,
    id_of,
    keys,
    track,
    track_all,
)
from the_edge_agent.testing.exactness import HOSTILE_TEXTS

_TOKYO: Final = timezone(timedelta(hours=9))

# For each case: the entry at first, the entry that is tracked later, and whether this counts as a change.
CHANGES: Final[dict[str, tuple[dict[str, Any], dict[str, Any], bool]]] = {
    "nothing": ({}, {}, False),
    "nothing of much": (
        {"metadata": {"a": [1, {"b": None}]}, "expires_at": FUTURE},
        {"metadata": {"a": [1, {"b": None}]}, "expires_at": FUTURE},
        False,
    ),
    "hash": ({"content_hash": "old"}, {"content_hash": "new"}, True),
    "hash in capitals": ({"content_hash": "h"}, {"content_hash": "H"}, True),
    "hash cut": ({"content_hash": "hh"}, {"content_hash": "h"}, True),
    "metadata": ({"metadata": {"a": 1}}, {"metadata": {"a": 2}}, True),
    "metadata 1 to 1.0": ({"metadata": {"a": 1}}, {"metadata": {"a": 1.0}}, True),
    "metadata 1 to true": ({"metadata": {"a": 1}}, {"metadata": {"a": True}}, True),
    "metadata 1 to text": ({"metadata": {"a": 1}}, {"metadata": {"a": "1"}}, True),
    "metadata None to empty": ({"metadata": None}, {"metadata": {}}, True),
    "metadata empty to None": ({"metadata": {}}, {"metadata": None}, True),
    "metadata None to some": ({"metadata": None}, {"metadata": {"a": 1}}, True),
    "metadata key to null": ({"metadata": {}}, {"metadata": {"a": None}}, True),
    "metadata in capitals": ({"metadata": {"a": "x"}}, {"metadata": {"a": "X"}}, True),
    "metadata with a space": ({"metadata": {"a": "x"}}, {"metadata": {"a": "x "}}, True),
    "metadata NFC to NFD": ({"metadata": {"a": "\u00e1"}}, {"metadata": {"a": "a\u0301"}}, True),
    "order of keys": ({"metadata": {"a": 1, "b": 2}}, {"metadata": {"b": 2, "a": 1}}, False),
    "order of nested keys": (
        {"metadata": {"o": [{"a": 1, "b": 2}]}},
        {"metadata": {"o": [{"b": 2, "a": 1}]}},
        False,
    ),
    "order of a list": ({"metadata": {"l": [1, 2]}}, {"metadata": {"l": [2, 1]}}, True),
    "expiry set": ({}, {"expires_at": FUTURE}, True),
    "expiry removed": ({"expires_at": FUTURE}, {"expires_at": None}, True),
    "expiry by a microsecond": ({"expires_at": FUTURE}, {"expires_at": FUTURE + timedelta(microseconds=1)}, True),
    "expiry in another zone": ({"expires_at": FUTURE}, {"expires_at": FUTURE.astimezone(_TOKYO)}, False),
    "expiry without a zone": ({"expires_at": FUTURE}, {"expires_at": FUTURE.replace(tzinfo=None)}, False),
    "storage_uri": ({"storage_uri": "old"}, {"storage_uri": "new"}, False),
    "byte_size": ({"byte_size": 1}, {"byte_size": 2}, False),
    "inlined_value": ({"inlined_value": 1}, {"inlined_value": 2}, False),
}
CHANGED: Final = sorted(name for name, (_, _, changed) in CHANGES.items() if changed)


class CatalogChangeRules(CatalogBase):
    """Changes and deletions since a snapshot."""

    def test_without_a_snapshot_everything_is_new(self, catalog: CatalogBackend) -> None:
        track_all(catalog, map(entry_of, "cab"))
        catalog.create_snapshot("any")
        assert catalog.get_changed_entries() == catalog.get_changed_entries(None) == catalog.list_entries()
        assert keys(catalog.get_changed_entries()) == ["a", "b", "c"]

    def test_since_a_snapshot_of_nothing_everything_is_new(self, catalog: CatalogBackend) -> None:
        since = catalog.create_snapshot("empty")
        track_all(catalog, map(entry_of, "cab"))
        assert catalog.get_changed_entries(since) == catalog.list_entries()

    def test_hash_metadata_and_expiry_are_what_changes(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(name, **before) for name, (before, _, _) in CHANGES.items()))
        since = catalog.create_snapshot("before")
        assert catalog.get_changed_entries(since) == []
        for name, (_, after, _) in CHANGES.items():
            track(catalog, name, **after)
        assert keys(catalog.get_changed_entries(since)) == CHANGED

    def test_a_change_in_a_batch_is_a_change(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(name, **before) for name, (before, _, _) in CHANGES.items()))
        since = catalog.create_snapshot("before")
        track_all(catalog, (entry_of(name, **after) for name, (_, after, _) in CHANGES.items()))
        assert keys(catalog.get_changed_entries(since)) == CHANGED

    def test_what_is_changed_back_is_no_change(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(name, **before) for name, (before, _, _) in CHANGES.items()))
        since = catalog.create_snapshot("before")
        track_all(catalog, (entry_of(name, **after) for name, (_, after, _) in CHANGES.items()))
        track_all(catalog, (entry_of(name, **before) for name, (before, _, _) in CHANGES.items()))
        assert catalog.get_changed_entries(since) == []

    def test_a_changed_entry_is_the_whole_entry_as_it_is_now(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", content_hash="old")
        since = catalog.create_snapshot("before")
        track(catalog, "k", content_hash="new", storage_uri="uri", metadata={"n": 1.0}, inlined_value=[0])
        assert catalog.get_changed_entries(since) == [entry_at(catalog, "k")]
        assert entry_at(catalog, "k")["content_hash"] == "new"

    def test_new_entries_are_changes_in_the_order_of_keys(self, catalog: CatalogBackend) -> None:
        texts = [*HOSTILE_TEXTS.values()]
        track_all(catalog, map(entry_of, texts[::2]))
        since = catalog.create_snapshot("half")
        track_all(catalog, map(entry_of, texts))
        assert keys(catalog.get_changed_entries(since)) == sorted(texts[1::2])

    def test_deleted_and_created_again_as_it_was_is_no_change(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", metadata={"n": 1})
        since = catalog.create_snapshot("before")
        catalog.delete_entry("k")
        assert catalog.get_changed_entries(since) == []
        track(catalog, "k", metadata={"n": 1})
        assert catalog.get_changed_entries(since) == []
        catalog.delete_entry("k")
        track(catalog, "k", metadata={"n": 2})
        assert keys(catalog.get_changed_entries(since)) == ["k"]

    def test_what_has_expired_is_no_change(self, catalog: CatalogBackend) -> None:
        track(catalog, "k")
        since = catalog.create_snapshot("before")
        track(catalog, "k", content_hash="new", expires_at=PAST)
        track(catalog, "new", expires_at=PAST)
        assert catalog.get_changed_entries(since) == catalog.get_changed_entries() == []

    def test_what_had_expired_before_a_snapshot_is_new_when_it_comes_back(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", expires_at=PAST)
        since = catalog.create_snapshot("without it")
        track(catalog, "k")
        assert keys(catalog.get_changed_entries(since)) == ["k"]

    def test_each_snapshot_has_its_own_changes(self, catalog: CatalogBackend) -> None:
        since = [catalog.create_snapshot("same")]
        for number in range(4):
            track(catalog, f"k{number}")
            track(catalog, "k", content_hash=f"h{number % 2}")
            since.append(catalog.create_snapshot("same"))
        changed = [keys(catalog.get_changed_entries(each)) for each in since]
        assert changed == [
            *(["k", "k0", "k1", "k2", "k3"], ["k", "k1", "k2", "k3"], ["k2", "k3"], ["k", "k3"]),
            [],
        ]

    # --- deletions ---------------------------------------------------------------------------------

    def test_a_deleted_entry_is_told_as_the_snapshot_saw_it(self, with_deletions: FullCatalog) -> None:
        track(with_deletions, "k", content_hash="then", byte_size=2**40, expires_at=FUTURE)
        track(with_deletions, "stays")
        since = with_deletions.create_snapshot("before")
        assert with_deletions.get_deleted_entries(since) == []
        track(with_deletions, "k", content_hash="later")
        with_deletions.delete_entry("k")
        then = {"id": id_of("k"), "key": "k", "content_hash": "then", "byte_size": 2**40, "expires_at": FUTURE}
        assert with_deletions.get_deleted_entries(since) == [then]
        assert with_deletions.get_changed_entries(since) == []

    def test_what_has_expired_counts_as_deleted_cleaned_up_or_not(self, with_deletions: FullCatalog) -> None:
        track_all(with_deletions, map(entry_of, ("gone", "stays")))
        since = with_deletions.create_snapshot("before")
        track(with_deletions, "gone", expires_at=PAST)
        assert keys(with_deletions.get_deleted_entries(since)) == ["gone"]
        with_deletions.cleanup_expired()
        assert keys(with_deletions.get_deleted_entries(since)) == ["gone"]

    def test_what_was_created_again_is_not_deleted(self, with_deletions: FullCatalog) -> None:
        track_all(with_deletions, map(entry_of, ("back", "changed", "gone")))
        since = with_deletions.create_snapshot("before")
        for key in ("back", "changed", "gone"):
            with_deletions.delete_entry(key)
        assert keys(with_deletions.get_deleted_entries(since)) == ["back", "changed", "gone"]
        track(with_deletions, "back")
        track(with_deletions, "changed", content_hash="other")
        track(with_deletions, "new")
        assert keys(with_deletions.get_deleted_entries(since)) == ["gone"]
        assert keys(with_deletions.get_changed_entries(since)) == ["changed", "new"]

    def test_what_came_and_went_after_a_snapshot_is_neither(self, with_deletions: FullCatalog) -> None:
        since = with_deletions.create_snapshot("before")
        track(with_deletions, "k")
        with_deletions.delete_entry("k")
        assert with_deletions.get_deleted_entries(since) == with_deletions.get_changed_entries(since) == []

    def test_deleted_entries_are_in_the_order_of_keys(self, with_deletions: FullCatalog) -> None:
        texts = [*HOSTILE_TEXTS.values()]
        track_all(with_deletions, map(entry_of, texts))
        since = with_deletions.create_snapshot("all")
        for key in texts[::2]:
            with_deletions.delete_entry(key)
        assert keys(with_deletions.get_deleted_entries(since)) == sorted(texts[::2])

    def test_since_none_nothing_can_be_deleted(self, with_deletions: FullCatalog) -> None:
        nothing: Any = None
        assert_raises(lambda: with_deletions.get_deleted_entries(nothing), "validation_error")
