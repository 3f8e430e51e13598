"""The rules of track_entry, get_entry and delete_entry: their results and their effects."""

from __future__ import annotations

from datetime import timezone
from typing import Any

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.testing.catalog_base import (
    FUTURE,
    PAST,
    CatalogBase,
    OpenCatalog,
    contents,
    entry_at,
    entry_of,
    id_of,
    opened,
    track,
)
from the_edge_agent.testing.contract import assert_same


def tracked(key: str, *, created: bool) -> dict[str, Any]:
    """Return the result of tracking a key."""
    return {"success": True, "entry_id": id_of(key), "created": created}


class CatalogEntryRules(CatalogBase):
    """One entry at a time."""

    def test_it_is_a_catalog(self, catalog: CatalogBackend) -> None:
        assert isinstance(catalog, CatalogBackend)

    def test_the_catalog_is_empty_at_first(self, catalog: CatalogBackend) -> None:
        assert catalog.list_entries() == catalog.get_changed_entries() == []

    def test_a_first_track_creates_the_entry(self, catalog: CatalogBackend) -> None:
        assert_same(catalog.track_entry("k", "hash", None, 1, None), tracked("k", created=True))

    def test_the_id_of_an_entry_is_the_sha_256_of_its_key(self, catalog: CatalogBackend) -> None:
        expected_id = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
        assert track(catalog, "key")["entry_id"] == entry_at(catalog, "key")["id"] == expected_id

    def test_a_second_track_creates_nothing(self, catalog: CatalogBackend) -> None:
        track(catalog, "k")
        for number in range(3):
            again = catalog.track_entry("k", f"hash {number}".replace(" ", ""), None, number, None)
            assert_same(again, tracked("k", created=False))

    def test_get_entry_answers_with_the_whole_entry(self, catalog: CatalogBackend) -> None:
        metadata, value = {"topic": "foxes", "n": [1, None]}, {"x": [1.0]}
        catalog.track_entry("k", "sha256:abc", "s3://bucket/k", 17, metadata, value, FUTURE)
        entry = entry_at(catalog, "k")
        assert {name: entry[name] for name in entry if name not in ("created_at", "updated_at")} == {
            "id": id_of("k"),
            "key": "k",
            "content_hash": "sha256:abc",
            "storage_uri": "s3://bucket/k",
            "byte_size": 17,
            "inlined_value": value,
            "metadata": metadata,
            "expires_at": FUTURE,
        }

    def test_arguments_may_be_given_by_name(self, catalog: CatalogBackend) -> None:
        assert_same(
            catalog.track_entry(**entry_of("k", inlined_value=0, expires_at=FUTURE)), tracked("k", created=True)
        )
        assert (entry_at(catalog, "k")["inlined_value"], entry_at(catalog, "k")["expires_at"]) == (0, FUTURE)

    def test_get_entry_of_a_missing_key_is_none(self, catalog: CatalogBackend) -> None:
        track(catalog, "other")
        assert catalog.get_entry("k") is None

    def test_a_track_replaces_the_entry_as_a_whole(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", storage_uri="old", byte_size=9, metadata={"old": 1}, inlined_value=1, expires_at=FUTURE)
        track(catalog, "k", content_hash="new", byte_size=None)
        entry = entry_at(catalog, "k")
        assert entry["content_hash"] == "new"
        for name in ("storage_uri", "byte_size", "metadata", "inlined_value", "expires_at"):
            assert entry[name] is None, name

    def test_times_are_in_utc(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", expires_at=FUTURE)
        for name in ("created_at", "updated_at", "expires_at"):
            assert entry_at(catalog, "k")[name].tzinfo is timezone.utc, name

    def test_created_at_stays_and_updated_at_moves(self, catalog: CatalogBackend) -> None:
        track(catalog, "k")
        before = entry_at(catalog, "k")
        assert before["updated_at"] == before["created_at"]
        for _ in range(3):
            track(catalog, "k")
            after = entry_at(catalog, "k")
            assert after["created_at"] == before["created_at"]
            assert after["updated_at"] > before["updated_at"]
            before = after

    def test_times_have_microseconds(self, catalog: CatalogBackend) -> None:
        moments = []
        for number in range(20):
            track(catalog, f"k{number}")
            moments.append(entry_at(catalog, f"k{number}")["created_at"])
        assert moments == sorted(moments)
        assert any(moment.microsecond % 1000 for moment in moments)

    def test_delete_removes_the_entry_and_no_other(self, catalog: CatalogBackend) -> None:
        for key in ("k", "K", "k ", "k2"):
            track(catalog, key)
        assert catalog.delete_entry("k") is True
        assert catalog.get_entry("k") is None
        assert [entry["key"] for entry in catalog.list_entries()] == ["K", "k ", "k2"]

    def test_delete_of_a_missing_key_says_so(self, catalog: CatalogBackend) -> None:
        assert catalog.delete_entry("k") is False
        track(catalog, "k")
        assert [catalog.delete_entry("k") for _ in range(3)] == [True, False, False]

    def test_a_track_after_delete_is_a_create(self, catalog: CatalogBackend) -> None:
        track(catalog, "k")
        track(catalog, "k")
        first = entry_at(catalog, "k")["created_at"]
        catalog.delete_entry("k")
        assert_same(catalog.track_entry("k", "hash", None, 1, None), tracked("k", created=True))
        assert entry_at(catalog, "k")["created_at"] > first

    def test_a_track_over_an_expired_entry_is_a_create(self, catalog: CatalogBackend) -> None:
        track(catalog, "k")
        first = entry_at(catalog, "k")["created_at"]
        assert_same(catalog.track_entry("k", "hash", None, 1, None, None, PAST), tracked("k", created=False))
        for _ in range(2):
            assert_same(catalog.track_entry("k", "hash", None, 1, None, None, PAST), tracked("k", created=True))
        assert catalog.get_entry("k") is None
        assert_same(catalog.track_entry("k", "hash", None, 1, None), tracked("k", created=True))
        assert entry_at(catalog, "k")["created_at"] > first
        assert_same(catalog.track_entry("k", "hash", None, 1, None), tracked("k", created=False))

    def test_what_is_changed_after_a_track_is_not_stored(self, catalog: CatalogBackend) -> None:
        metadata: dict[str, Any] = {"list": [1]}
        value: dict[str, Any] = {"list": [1]}
        track(catalog, "k", metadata=metadata, inlined_value=value)
        metadata["list"].append(2)
        value["list"].append(2)
        assert entry_at(catalog, "k")["metadata"] == entry_at(catalog, "k")["inlined_value"] == {"list": [1]}

    def test_what_is_changed_after_a_read_is_not_stored(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", metadata={"list": [1]}, inlined_value={"list": [1]})
        before = contents(catalog)
        entries: list[Any] = [entry_at(catalog, "k"), *catalog.list_entries(), *catalog.get_changed_entries()]
        for entry in (*entries, catalog.retrieve_batch(["k"])["entries"]["k"]):
            entry["metadata"]["list"].append(2)
            entry["inlined_value"]["list"].append(2)
            entry["content_hash"] = "other"
        assert contents(catalog) == before

    def test_every_read_answers_with_the_same_entry(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", storage_uri="uri", metadata={"n": 1}, inlined_value=[1], expires_at=FUTURE)
        entry = entry_at(catalog, "k")
        assert catalog.list_entries() == catalog.get_changed_entries() == [entry]
        assert catalog.retrieve_batch(["k"])["entries"] == {"k": entry}

    def test_two_catalogs_on_one_store_see_each_other(self, reopen_catalog: OpenCatalog) -> None:
        with opened(reopen_catalog) as first, opened(reopen_catalog) as second:
            assert track(first, "k", metadata={"n": 1})["created"] is True
            assert entry_at(second, "k")["metadata"] == {"n": 1}
            assert track(second, "k", metadata={"n": 2})["created"] is False
            assert entry_at(first, "k")["metadata"] == {"n": 2}
            since = first.create_snapshot("shared")
            track(second, "new")
            assert [entry["key"] for entry in second.get_changed_entries(since)] == ["new"]
            assert second.delete_entry("k") is True
            assert first.get_entry("k") is None

    def test_a_catalog_outlives_what_opened_it(self, reopen_catalog: OpenCatalog) -> None:
        with opened(reopen_catalog) as first:
            track(first, "k", storage_uri="uri", metadata={"n": 1.0}, inlined_value={"a": [1]}, expires_at=FUTURE)
            since, before = first.create_snapshot("kept"), contents(first)
        with opened(reopen_catalog) as second:
            assert contents(second) == before
            assert second.get_changed_entries(since) == []
