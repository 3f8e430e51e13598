"""The rules of expiry for a catalog: all reads stop returning an expired entry at once, and cleanup counts rightly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.testing.catalog_base import (
    FUTURE,
    PAST,
    CatalogBase,
    FullCatalog,
    OpenCatalog,
    contents,
    entry_of,
    in_seconds,
    keys,
    opened,
    track,
    track_all,
)
from the_edge_agent.testing.contract import assert_same, assert_success
from the_edge_agent.testing.lifetimes import EXPIRY_DELAY, SHORT, wait_until
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import run_in_threads

# Every way to read the entry "k". The snapshot was taken before the entry was tracked.
READS: Final[dict[str, Callable[[CatalogBackend, str], bool]]] = {
    "get_entry": lambda catalog, _: catalog.get_entry("k") is not None,
    "list_entries": lambda catalog, _: "k" in keys(catalog.list_entries()),
    "list_entries with a prefix": lambda catalog, _: "k" in keys(catalog.list_entries("k", None, 1)),
    "list_entries with a filter": lambda catalog, _: "k" in keys(catalog.list_entries(None, {"n": 1})),
    "list_entries with a deep filter": lambda catalog, _: (
        "k" in keys(catalog.list_entries("k", {"$not": {"n": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}))
    ),
    "retrieve_batch of one": lambda catalog, _: catalog.retrieve_batch(["k"])["found_count"] == 1,
    "retrieve_batch": lambda catalog, _: catalog.retrieve_batch(["other", "k"])["entries"]["k"] is not None,
    "get_changed_entries": lambda catalog, _: "k" in keys(catalog.get_changed_entries()),
    "get_changed_entries of a snapshot": lambda catalog, since: "k" in keys(catalog.get_changed_entries(since)),
}
AHEAD: Final = 0.5  # seconds; enough time to read the entry first, and to take a snapshot with it
LONG_AGO: Final = {
    "2000": PAST,
    "1970": datetime(1970, 1, 1),
    "before 1970": datetime(1969, 12, 31, 23, 59, 59, 999_999),
    "1000": datetime(1000, 1, 1, tzinfo=timezone.utc),
    "the first moment": datetime.min,
}


def cleaned(deleted: int, remaining: int) -> dict[str, Any]:
    """Return the result of a cleanup."""
    return {"success": True, "deleted_count": deleted, "remaining_count": remaining}


class CatalogExpiryRules(CatalogBase):
    """Entries that expire."""

    def test_an_expired_entry_is_gone_for_every_read_at_once(self, catalog: CatalogBackend) -> None:
        since = catalog.create_snapshot("without it")
        end = in_seconds(AHEAD)
        track_all(catalog, [entry_of("k", metadata={"n": 1}, expires_at=end), entry_of("other")])
        observations: list[tuple[bool, str]] = []

        def is_gone() -> bool:
            now = [(read(catalog, since), name) for name, read in READS.items()]
            observations.extend(now)
            return not any(visible for visible, _ in now)

        wait_until(is_gone, AHEAD + EXPIRY_DELAY)
        gone = [visible for visible, _ in observations].index(False)
        assert datetime.now(timezone.utc) >= end
        assert gone > 0, "it was never there"
        assert [name for visible, name in observations[gone:] if visible] == [], (
            f"still seen after {observations[gone][1]} did not"
        )
        assert keys(catalog.list_entries()) == ["other"]

    def test_an_entry_is_there_until_its_end(self, catalog: CatalogBackend) -> None:
        end = in_seconds(SHORT)
        track(catalog, "k", expires_at=end.astimezone(timezone(timedelta(hours=-7))))

        def is_gone() -> bool:
            gone = catalog.get_entry("k") is None
            assert not gone or datetime.now(timezone.utc) >= end, "gone too early"
            return gone

        wait_until(is_gone, SHORT + EXPIRY_DELAY)

    def test_delete_of_an_expired_entry_finds_nothing(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", expires_at=PAST)
        assert catalog.delete_entry("k") is False

    @pytest.mark.parametrize("when", LONG_AGO)
    def test_what_is_tracked_with_an_end_in_the_past_has_expired(self, catalog: CatalogBackend, when: str) -> None:
        since = catalog.create_snapshot("without it")
        assert track(catalog, "k", metadata={"n": 1}, expires_at=LONG_AGO[when])["created"] is True
        assert [name for name, read in READS.items() if read(catalog, since)] == []
        assert_same(catalog.cleanup_expired(), cleaned(1, 0))

    def test_a_track_without_an_end_removes_it(self, catalog: CatalogBackend) -> None:
        end = in_seconds(SHORT)
        track_all(catalog, (entry_of(key, expires_at=end) for key in ("k", "batch", "late", "gone")))
        created = track(catalog, "k")["created"]
        assert created is False or datetime.now(timezone.utc) >= end, "it was still there"
        track_all(catalog, [entry_of("batch"), entry_of("late", expires_at=FUTURE)])
        wait_until(lambda: catalog.get_entry("gone") is None, SHORT + EXPIRY_DELAY)
        assert keys(catalog.list_entries()) == ["batch", "k", "late"]

    def test_a_batch_stores_over_expired_entries(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, expires_at=PAST) for key in "abc"))
        track_all(catalog, map(entry_of, "ab"))
        assert keys(catalog.list_entries()) == ["a", "b"]
        assert [track(catalog, key)["created"] for key in "abc"] == [False, False, True]

    def test_an_entry_that_expires_after_a_snapshot_is_deleted_since(self, with_deletions: FullCatalog) -> None:
        for ahead in (AHEAD, 10 * AHEAD):
            end = in_seconds(ahead)
            track_all(with_deletions, [entry_of("k", expires_at=end), entry_of("other")])
            since = with_deletions.create_snapshot("with it")
            deleted = with_deletions.get_deleted_entries(since)
            if with_deletions.get_entry("k") is not None:  # otherwise it expired before: the machine is busy
                break
        assert deleted == []
        wait_until(lambda: keys(with_deletions.get_deleted_entries(since)) == ["k"], ahead + EXPIRY_DELAY)
        assert with_deletions.get_deleted_entries(since)[0]["expires_at"] == end
        assert with_deletions.get_entry("k") is None

    # --- cleanup -----------------------------------------------------------------------------------

    def test_cleanup_of_nothing_deletes_nothing(self, catalog: CatalogBackend) -> None:
        assert_same(catalog.cleanup_expired(), cleaned(0, 0))
        track_all(catalog, [entry_of("never"), entry_of("late", expires_at=FUTURE)])
        for size in (1, 100, 10_000):
            assert_same(catalog.cleanup_expired(size), cleaned(0, 0))
        assert keys(catalog.list_entries()) == ["late", "never"]

    def test_cleanup_deletes_in_batches_and_tells_what_remains(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(f"k{number}", expires_at=PAST) for number in range(7)))
        for expected in (cleaned(3, 4), cleaned(3, 1), cleaned(1, 0), cleaned(0, 0)):
            assert_same(catalog.cleanup_expired(batch_size=3), expected)

    def test_cleanup_deletes_100_at_once_unless_told(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(f"k{number}", expires_at=PAST) for number in range(103)))
        assert_same(catalog.cleanup_expired(), cleaned(100, 3))
        assert_same(catalog.cleanup_expired(), cleaned(3, 0))

    @slow
    def test_cleanup_of_many_deletes_them_all(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(f"k{number}", expires_at=PAST) for number in range(1050)))
        assert_same(catalog.cleanup_expired(1020), cleaned(1020, 30))
        assert_same(catalog.cleanup_expired(10_000), cleaned(30, 0))

    def test_cleanup_touches_no_living_entry(self, catalog: CatalogBackend) -> None:
        for key in ("a", "m", "z"):
            track_all(catalog, [entry_of(f"{key} never"), entry_of(f"{key} late", expires_at=FUTURE)])
            track(catalog, f"{key} gone", expires_at=PAST)
        before = contents(catalog)
        assert_same(catalog.cleanup_expired(batch_size=2), cleaned(2, 1))
        assert_same(catalog.cleanup_expired(batch_size=2), cleaned(1, 0))
        assert contents(catalog) == before
        assert len(before) == 6

    def test_what_was_tracked_over_an_expired_entry_is_not_cleaned_up(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, expires_at=PAST) for key in "abc"))
        track(catalog, "a")
        track(catalog, "b", expires_at=FUTURE)
        assert_same(catalog.cleanup_expired(), cleaned(1, 0))
        assert keys(catalog.list_entries()) == ["a", "b"]

    def test_after_cleanup_a_track_is_a_create(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", expires_at=PAST)
        assert_same(catalog.cleanup_expired(), cleaned(1, 0))
        assert track(catalog, "k")["created"] is True

    def test_another_catalog_cleans_up_the_same_store(
        self, catalog: CatalogBackend, reopen_catalog: OpenCatalog
    ) -> None:
        track_all(catalog, (entry_of(key, expires_at=PAST) for key in "ab"))
        with opened(reopen_catalog) as other:
            assert_same(other.cleanup_expired(), cleaned(2, 0))
        assert_same(catalog.cleanup_expired(), cleaned(0, 0))

    @slow
    def test_threads_that_clean_up_delete_each_entry_once(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(f"k{number:02}", expires_at=PAST) for number in range(30)))

        def clean_up() -> int:
            deleted, remaining = 0, 1
            while remaining:
                result = assert_success(catalog.cleanup_expired(batch_size=4))
                deleted, remaining = deleted + result["deleted_count"], result["remaining_count"]
            return deleted

        assert sum(run_in_threads(clean_up, [()] * 4)) == 30
