"""The rules of cleanup_expired: it removes expired entries in batches, counts them, and changes nothing else."""

from __future__ import annotations

import threading
from typing import Any

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_LIMITS, assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    OpenBackend,
    assert_same,
    assert_success,
    contents,
    find,
    keys_of,
)
from the_edge_agent.testing.lifetimes import LONG, SOON, store_expired, wait_until_expired
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import run_in_threads


def cleaned(deleted: int, remaining: int) -> dict[str, Any]:
    """Return the result of a cleanup."""
    return {"success": True, "deleted_count": deleted, "remaining_count": remaining}


class CleanupRules(ContractBase):
    """Removing expired entries from the store, for backends that declare ``ttl``."""

    def test_cleanup_of_nothing_deletes_nothing(self, expiring: LTMBackend) -> None:
        assert_same(expiring.cleanup_expired(), cleaned(0, 0))
        expiring.store("k", 1)
        expiring.store("late", 1, ttl=LONG)
        for size in (1, 100, 10_000):
            assert_same(expiring.cleanup_expired(size), cleaned(0, 0))
        assert expiring.count()["count"] == 2

    def test_cleanup_deletes_in_batches_and_tells_what_remains(self, expiring: LTMBackend) -> None:
        store_expired(expiring, *(f"k{number}" for number in range(7)))
        expected = [cleaned(3, 4), cleaned(3, 1), cleaned(1, 0), cleaned(0, 0)]
        for each in expected:
            assert_same(expiring.cleanup_expired(batch_size=3), each)

    def test_cleanup_deletes_100_at_once_unless_told(self, expiring: LTMBackend) -> None:
        for number in range(103):
            expiring.store(f"k{number}", 1, ttl=SOON)
        wait_until_expired(expiring, SOON, "k102")  # stored last, so it ends last
        assert_same(expiring.cleanup_expired(), cleaned(100, 3))
        assert_same(expiring.cleanup_expired(), cleaned(3, 0))

    def test_cleanup_touches_no_living_entry(self, expiring: LTMBackend) -> None:
        for place, key in enumerate(("a", "m", "z")):
            expiring.store(f"{key} never", "fox", {"n": place})
            expiring.store(f"{key} late", "fox", {"n": place}, ttl=LONG)
        store_expired(expiring, "a gone", "m gone", "z gone", "a late gone")
        before = contents(expiring), keys_of(find(expiring, "fox")), expiring.list_keys()
        assert_same(expiring.cleanup_expired(batch_size=2), cleaned(2, 2))
        assert_same(expiring.cleanup_expired(batch_size=2), cleaned(2, 0))
        assert (contents(expiring), keys_of(find(expiring, "fox")), expiring.list_keys()) == before

    def test_what_was_stored_over_an_expired_entry_is_not_cleaned_up(self, expiring: LTMBackend) -> None:
        store_expired(expiring, "a", "b", "c")
        expiring.store("a", 1)
        expiring.store("b", 1, ttl=LONG)
        assert_same(expiring.cleanup_expired(), cleaned(1, 0))
        assert contents(expiring) == ['["a", 1, null, 1]', '["b", 1, null, 1]']

    def test_after_cleanup_a_store_is_a_create(self, expiring: LTMBackend) -> None:
        store_expired(expiring, "k")
        assert_same(expiring.cleanup_expired(), cleaned(1, 0))
        result = expiring.store("k", 1)
        assert (result["created"], result["version"]) == (True, 1)

    def test_another_backend_cleans_up_the_same_store(self, reopen: OpenBackend, expiring: LTMBackend) -> None:
        expiring.store("late", 1, ttl=LONG)
        store_expired(expiring, "a", "b")
        with reopen() as other:
            assert_same(other.cleanup_expired(), cleaned(2, 0))
        assert_same(expiring.cleanup_expired(), cleaned(0, 0))
        assert expiring.list_keys()["keys"] == ["late"]

    def test_bad_batch_sizes_are_refused(self, expiring: LTMBackend) -> None:
        store_expired(expiring, "k")
        assert_refused(BAD_LIMITS, lambda size: expiring.cleanup_expired(size))
        assert_same(expiring.cleanup_expired(1), cleaned(1, 0))

    @slow
    def test_cleanup_deletes_nothing_that_threads_store_meanwhile(self, expiring: LTMBackend) -> None:
        keys = [f"k{number:02}" for number in range(30)]
        store_expired(expiring, *keys)
        done = threading.Event()

        def store_all() -> None:
            try:
                for key in keys:
                    assert assert_success(expiring.store(key, 1))["created"] is True
            finally:
                done.set()

        def clean_up() -> None:
            while not done.is_set():
                assert_success(expiring.cleanup_expired(batch_size=2))

        run_in_threads(lambda work: work(), [(store_all,), (clean_up,), (clean_up,)])
        assert expiring.list_keys()["keys"] == keys
        assert_same(expiring.cleanup_expired(), cleaned(0, 0))

    @slow
    def test_threads_that_clean_up_delete_each_entry_once(self, expiring: LTMBackend) -> None:
        store_expired(expiring, *(f"k{number:02}" for number in range(30)))

        def clean_up() -> int:
            deleted, remaining = 0, 1
            while remaining:
                result = assert_success(expiring.cleanup_expired(batch_size=4))
                deleted, remaining = deleted + result["deleted_count"], result["remaining_count"]
            return deleted

        assert sum(run_in_threads(clean_up, [()] * 4)) == 30
