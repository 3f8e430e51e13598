"""The rules of snapshots: their ids, their names, and right counts of their entries."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from functools import partial
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.testing.bad_input import assert_refused
from the_edge_agent.testing.catalog_bad_input import BAD_NAMES
from the_edge_agent.testing.catalog_base import (
    FUTURE,
    PAST,
    CatalogBase,
    FullCatalog,
    assert_raises,
    contents,
    entry_of,
    keys,
    result_of,
    track,
    track_all,
)
from the_edge_agent.testing.exactness import HOSTILE_TEXTS
from the_edge_agent.testing.slow import slow

NAMES: Final = ("", " ", "same", "same", "Same", "日本 😀", "x" * 5000)


def unknown_ids(existing: str) -> dict[str, Any]:
    """Return ids that no snapshot has. Some are very similar to an existing one."""
    return {
        "another": str(uuid.UUID(int=7)),
        "empty": "",
        "word": "latest",
        "the name": "known",
        "accent": "é" * 36,
        "space after": existing + " ",
        "space before": " " + existing,
        "cut": existing[:-1],
        "capitals": existing.upper() + "X",
        "longer": existing + existing,
        "very long": "x" * 10_000,
        "pattern": "%",
        "or true": "' OR '1'='1",
        "emoji": "😀",
        "without dashes": existing.replace("-", ""),
        "newline": existing + "\n",
    }


class CatalogSnapshotRules(CatalogBase):
    """Snapshots themselves. Changes since a snapshot have a class of their own."""

    def test_a_snapshot_has_an_id_of_36_characters(self, catalog: CatalogBackend) -> None:
        ids = [catalog.create_snapshot("name") for _ in range(3)]
        assert [str(uuid.UUID(each)) for each in ids] == ids
        assert {len(each) for each in ids} == {36}
        assert len({*ids}) == 3

    def test_a_snapshot_changes_no_entry(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", metadata={"n": 1}, inlined_value=[1], expires_at=FUTURE)
        before = contents(catalog)
        catalog.create_snapshot("name")
        assert contents(catalog) == before

    @slow
    def test_a_name_is_any_text(self, catalog: CatalogBackend) -> None:
        for name in (*NAMES, *HOSTILE_TEXTS.values()):
            assert catalog.get_changed_entries(catalog.create_snapshot(name)) == []

    def test_an_unknown_snapshot_is_an_error(self, catalog: CatalogBackend) -> None:
        track(catalog, "k")
        existing = catalog.create_snapshot("known")
        unknown = {**unknown_ids(existing), **{name: bad for name, bad in BAD_NAMES.items() if bad is not None}}
        assert_refused(unknown, lambda since: result_of(lambda: catalog.get_changed_entries(since)))

    def test_an_unknown_snapshot_is_an_error_for_deletions_too(self, with_deletions: FullCatalog) -> None:
        existing = with_deletions.create_snapshot("known")
        unknown = {**unknown_ids(existing), **BAD_NAMES}
        assert_refused(unknown, lambda since: result_of(lambda: with_deletions.get_deleted_entries(since)))

    # --- get_snapshot, list_snapshots, delete_snapshot ----------------------------------------------

    def test_a_snapshot_tells_its_name_and_what_it_holds(self, with_snapshots: FullCatalog) -> None:
        begun = datetime.now(timezone.utc)
        track_all(
            with_snapshots, [entry_of("a", byte_size=2**40), entry_of("b", byte_size=3), entry_of("c", byte_size=None)]
        )
        snapshot_id = with_snapshots.create_snapshot("the name")
        snapshot = with_snapshots.get_snapshot(snapshot_id)
        assert snapshot is not None
        moment = snapshot.pop("created_at")
        assert moment.tzinfo is timezone.utc
        assert abs((moment - begun).total_seconds()) < 60
        assert snapshot == {"id": snapshot_id, "name": "the name", "entry_count": 3, "total_bytes": 2**40 + 3}
        assert {type(snapshot[name]) for name in ("entry_count", "total_bytes")} == {int}

    def test_a_snapshot_of_nothing_holds_nothing(self, with_snapshots: FullCatalog) -> None:
        snapshot = with_snapshots.get_snapshot(with_snapshots.create_snapshot("empty"))
        assert snapshot is not None
        assert (snapshot["entry_count"], snapshot["total_bytes"]) == (0, 0)

    def test_total_bytes_go_up_to_2_to_the_63(self, with_snapshots: FullCatalog) -> None:
        track(with_snapshots, "k", byte_size=2**63 - 1)
        snapshot = with_snapshots.get_snapshot(with_snapshots.create_snapshot("large"))
        assert snapshot is not None
        assert snapshot["total_bytes"] == 2**63 - 1

    def test_sizes_that_add_up_to_more_are_refused(self, with_snapshots: FullCatalog) -> None:
        track_all(with_snapshots, [entry_of("a", byte_size=2**63 - 1), entry_of("b", byte_size=2**63 - 1)])
        assert_raises(lambda: with_snapshots.create_snapshot("too large"), "validation_error")
        track(with_snapshots, "b", byte_size=1)  # one byte above the limit is refused too
        assert_raises(lambda: with_snapshots.create_snapshot("too large"), "validation_error")
        assert with_snapshots.list_snapshots() == []
        track(with_snapshots, "a", byte_size=2**63 - 2)
        snapshot = with_snapshots.get_snapshot(with_snapshots.create_snapshot("fits"))
        assert snapshot is not None
        assert snapshot["total_bytes"] == 2**63 - 1

    def test_a_snapshot_stays_as_it_was(self, with_snapshots: FullCatalog) -> None:
        track_all(with_snapshots, (entry_of(key, byte_size=10) for key in "abc"))
        snapshot_id = with_snapshots.create_snapshot("then")
        before = with_snapshots.get_snapshot(snapshot_id)
        track(with_snapshots, "a", byte_size=99)
        with_snapshots.delete_entry("b")
        track(with_snapshots, "d")
        with_snapshots.create_snapshot("now")
        assert before is not None
        assert (before["entry_count"], before["total_bytes"]) == (3, 30)
        assert with_snapshots.get_snapshot(snapshot_id) == before

    def test_what_has_expired_is_in_no_snapshot(self, with_snapshots: FullCatalog) -> None:
        track_all(
            with_snapshots,
            [entry_of("gone", byte_size=5, expires_at=PAST), entry_of("late", byte_size=7, expires_at=FUTURE)],
        )
        snapshot = with_snapshots.get_snapshot(with_snapshots.create_snapshot("living"))
        assert snapshot is not None
        assert (snapshot["entry_count"], snapshot["total_bytes"]) == (1, 7)

    def test_names_come_back_and_may_repeat(self, with_snapshots: FullCatalog) -> None:
        names = [*NAMES, *HOSTILE_TEXTS.values()]
        ids = [with_snapshots.create_snapshot(name) for name in names]
        names_by_id = {snapshot["id"]: snapshot["name"] for snapshot in with_snapshots.list_snapshots()}
        assert names_by_id == dict(zip(ids, names, strict=True))

    def test_snapshots_are_listed_newest_first(self, with_snapshots: FullCatalog) -> None:
        assert with_snapshots.list_snapshots() == []
        ids = [with_snapshots.create_snapshot(f"n{number}") for number in range(5)]
        listed = with_snapshots.list_snapshots()
        assert [snapshot["id"] for snapshot in listed] == ids[::-1]
        assert [with_snapshots.get_snapshot(each) for each in ids[::-1]] == listed

    def test_a_refused_snapshot_leaves_nothing_behind(self, with_snapshots: FullCatalog) -> None:
        assert_refused(BAD_NAMES, lambda name: result_of(lambda: with_snapshots.create_snapshot(name)))
        assert with_snapshots.list_snapshots() == []

    def test_a_missing_snapshot_is_none_and_cannot_be_deleted(self, with_snapshots: FullCatalog) -> None:
        existing = with_snapshots.create_snapshot("known")
        for name, unknown in unknown_ids(existing).items():
            assert with_snapshots.get_snapshot(unknown) is None, name
            assert with_snapshots.delete_snapshot(unknown) is False, name
        for bad in BAD_NAMES.values():
            assert_raises(partial(with_snapshots.get_snapshot, bad), "validation_error")
            assert_raises(partial(with_snapshots.delete_snapshot, bad), "validation_error")
        assert with_snapshots.get_snapshot(existing) is not None

    def test_deleting_a_snapshot_deletes_no_entry_and_no_other_snapshot(self, with_snapshots: FullCatalog) -> None:
        track(with_snapshots, "k")
        first, second = with_snapshots.create_snapshot("same"), with_snapshots.create_snapshot("same")
        assert with_snapshots.delete_snapshot(first) is True
        assert with_snapshots.delete_snapshot(first) is False
        assert with_snapshots.get_snapshot(first) is None
        assert [snapshot["id"] for snapshot in with_snapshots.list_snapshots()] == [second]
        assert keys(with_snapshots.list_entries()) == ["k"]
        assert with_snapshots.get_changed_entries(second) == []
        assert_raises(lambda: with_snapshots.get_changed_entries(first), "validation_error")
