"""The rules of lifetimes: for every method an expired entry does not exist any more, from the same moment on."""

from __future__ import annotations

import math
import time
from decimal import Decimal
from itertools import cycle
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    OpenBackend,
    assert_conflict,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    find,
    generator,
    keys_of,
)
from the_edge_agent.testing.lifetimes import (
    EXPIRY_DELAY,
    LONG,
    READS,
    SHORT,
    SOON,
    store_expired,
    wait_until,
    wait_until_expired,
)
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import run_in_threads

CENTURY: Final = 36_525 * 86_400
THREADS: Final = 8

BAD_TTLS: Final[dict[str, Any]] = {
    "0": 0,
    "0.0": 0.0,
    "negative": -1,
    "less than a microsecond": 1e-9,
    "true": True,
    "false": False,
    "text": "1",
    "list": [1],
    "decimal": Decimal(1),
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "more than 100 years": CENTURY + 1,
    "10^400": 10**400,
}
GOOD_TTLS: Final = (None, 1e-6, 1, 0.5, 1.5, 86_400, CENTURY, float(CENTURY))


def stored(key: str, version: int) -> dict[str, Any]:
    """Return the result of a store."""
    return {"success": True, "stored": True, "key": key, "created": version == 1, "version": version}


class ExpiryRules(ContractBase):
    """Entries that expire, for backends that declare ``ttl``."""

    def test_a_backend_without_lifetimes_says_so(self, backend: LTMBackend) -> None:
        if "ttl" in backend.capabilities:
            assert_success(backend.cleanup_expired())
            return
        backend.store("there", 1)
        assert_refused({"new": "new", "there": "there"}, lambda key: backend.store(key, 2, ttl=LONG))
        assert_failure(backend.cleanup_expired(), "validation_error")
        assert contents(backend) == ['["there", 1, null, 1]']
        if "transactions" not in backend.capabilities:
            return
        assert_failure(backend.store_many([{"key": "new", "value": 2, "ttl": LONG}]), "validation_error")
        transaction = backend.transaction()
        assert_failure(transaction.store("new", 2, ttl=LONG), "validation_error")
        assert_failure(transaction.commit(), "validation_error")
        assert contents(backend) == ['["there", 1, null, 1]']

    # --- the end -----------------------------------------------------------------------------------

    def test_an_entry_with_a_lifetime_is_an_entry_like_any_other(self, expiring: LTMBackend) -> None:
        expiring.store("other", "hound")
        assert_same(expiring.store("k", "red fox", {"n": 1}, ttl=LONG), stored("k", 1))
        assert [name for name, shows in READS.items() if not shows(expiring)] == []
        assert_same(expiring.store("k", "red fox", ttl=LONG), stored("k", 2))
        assert expiring.delete("k")["deleted"] is True

    def test_an_entry_lives_its_time_and_vanishes_from_every_read_at_once(self, expiring: LTMBackend) -> None:
        expiring.store("other", "hound")
        before = time.monotonic()
        expiring.store("k", "red fox", {"n": 1}, ttl=SHORT)
        after = time.monotonic()
        for name, shows in cycle(READS.items()):
            begun = time.monotonic()
            if not shows(expiring):
                assert time.monotonic() > before + SHORT - 0.01, f"{name} does not show what lives"
                break
            assert begun < after + SHORT + EXPIRY_DELAY, f"{name} shows what has expired"
        assert [name for _ in range(3) for name, shows in READS.items() if shows(expiring)] == []
        assert expiring.retrieve("other")["found"] is True

    def test_retrieve_of_an_expired_entry_answers_as_for_a_missing_one(self, expiring: LTMBackend) -> None:
        store_expired(expiring, "k")
        missing = {"success": True, "found": False, "metadata": None, "version": None}
        assert_same(expiring.retrieve("k"), {**missing, "value": None})
        assert_same(expiring.retrieve("k", "default"), {**missing, "value": "default"})
        expected = {"success": True, "entries": {"k": None}, "found_count": 0, "missing_count": 1}
        assert_same(expiring.retrieve_many(["k"]), expected)

    def test_expired_entries_take_no_place_on_a_page(self, expiring: LTMBackend) -> None:
        for key in ("a", "z"):
            expiring.store(key, "fox fox", {"n": 1})
        store_expired(expiring, "b", "c", "d")
        for query, condition in ((None, None), ("fox", None), (None, {"n": 1}), ("fox", {"n": 1})):
            assert keys_of(find(expiring, query, condition, limit=2)) == ["z", "a"]
            assert keys_of(find(expiring, query, condition, limit=1, offset=1)) == ["a"]
        assert_same(expiring.list_keys(limit=2), {"success": True, "keys": ["a", "z"], "next": None})
        assert_same(expiring.list_keys(limit=1, after="a"), {"success": True, "keys": ["z"], "next": None})

    def test_entries_end_each_at_its_own_time(self, expiring: LTMBackend) -> None:
        for key, ttl in (("never", None), ("soon", SOON), ("late", LONG), ("in a century", CENTURY)):
            expiring.store(key, 1, ttl=ttl)
        wait_until_expired(expiring, SOON, "soon")
        assert expiring.list_keys()["keys"] == ["in a century", "late", "never"]

    def test_an_entry_ends_for_a_backend_that_is_opened_later(self, reopen: OpenBackend, expiring: LTMBackend) -> None:
        expiring.store("late", 1, ttl=LONG)
        expiring.store("soon", 1, ttl=SOON)
        with reopen() as later:
            wait_until_expired(later, SOON, "soon")
            assert later.retrieve("late")["found"] is True
            assert_same(later.store("soon", 2), stored("soon", 1))
        assert expiring.retrieve("soon")["value"] == 2

    # --- writes over it ----------------------------------------------------------------------------

    def test_a_store_over_an_expired_entry_is_a_create(self, expiring: LTMBackend) -> None:
        expiring.store("other", "fox")
        store_expired(expiring, "k")
        assert_same(expiring.store("k", "hound"), stored("k", 1))
        expected = {"success": True, "value": "hound", "found": True, "metadata": None, "version": 1}
        assert_same(expiring.retrieve("k"), expected)
        assert keys_of(find(expiring, "gone")) == []
        assert keys_of(find(expiring)) == ["k", "other"]
        assert_same(expiring.store("k", "hound"), stored("k", 2))

    def test_a_delete_of_an_expired_entry_finds_none(self, expiring: LTMBackend) -> None:
        store_expired(expiring, "k")
        for _ in range(2):
            assert_same(expiring.delete("k"), {"success": True, "deleted": False, "key": "k"})

    @slow
    def test_delete_many_does_not_count_expired_entries(self, expiring: LTMBackend, transactional: LTMBackend) -> None:
        transactional.store("a", 1)
        store_expired(expiring, "k")
        assert_same(transactional.delete_many(["k", "a"]), {"success": True, "deleted_count": 1})
        assert transactional.count()["count"] == 0

    def test_an_expired_entry_has_no_version(self, expiring: LTMBackend, versioned: LTMBackend) -> None:
        store_expired(expiring, "k")
        for version in (1, 2, 3):
            assert_conflict(versioned.store("k", "x", if_version=version), "k", 0)
        assert versioned.retrieve("k")["found"] is False
        assert_same(versioned.store("k", "x", if_version=0), stored("k", 1))
        assert_conflict(versioned.store("k", "y", if_version=0), "k", 1)

    def test_a_store_without_ttl_removes_the_lifetime(self, expiring: LTMBackend) -> None:
        expiring.store("k", 1, ttl=SHORT)
        expiring.store("k", 2)
        expiring.store("clock", 1, ttl=SHORT)
        wait_until_expired(expiring, SHORT, "clock")
        assert expiring.retrieve("k")["value"] == 2

    def test_a_store_with_a_ttl_replaces_the_lifetime(self, expiring: LTMBackend) -> None:
        for key, first, second in (("longer", SHORT, LONG), ("shorter", LONG, SHORT), ("mortal", None, SHORT)):
            expiring.store(key, 1, ttl=first)
            assert expiring.store(key, 2, ttl=second)["success"] is True
        wait_until_expired(expiring, SHORT, "shorter", "mortal")
        assert expiring.retrieve("longer")["value"] == 2

    def test_a_refused_store_leaves_the_lifetime_as_it_was(self, expiring: LTMBackend, versioned: LTMBackend) -> None:
        expiring.store("late", 1, ttl=LONG)
        expiring.store("soon", 1, ttl=SHORT)
        for key, ttl in (("late", SOON), ("soon", LONG), ("soon", None)):
            assert versioned.store(key, 2, ttl=ttl, if_version=7)["error_type"] == "conflict"
        wait_until_expired(expiring, SHORT, "soon")
        assert expiring.retrieve("late")["value"] == 1

    @slow
    def test_threads_that_store_over_expired_entries_create_each_once(self, expiring: LTMBackend) -> None:
        keys = [f"k{number}" for number in range(10)]
        store_expired(expiring, *keys)

        def store_all(seed: int) -> list[dict[str, Any]]:
            return [assert_success(expiring.store(key, seed)) for key in generator(seed).sample(keys, len(keys))]

        results = [
            result for each in run_in_threads(store_all, [(seed,) for seed in range(THREADS)]) for result in each
        ]
        assert all(result["created"] is (result["version"] == 1) for result in results)
        versions = {key: sorted(result["version"] for result in results if result["key"] == key) for key in keys}
        assert versions == {key: [*range(1, THREADS + 1)] for key in keys}

    # --- in transactions and batches ---------------------------------------------------------------

    def test_a_lifetime_begins_with_the_commit(self, expiring: LTMBackend, transactional: LTMBackend) -> None:
        transaction = transactional.transaction()
        assert_success(transaction.store("k", 1, ttl=SHORT))
        queued = time.monotonic()
        wait_until(lambda: time.monotonic() > queued + SHORT, SHORT + EXPIRY_DELAY)
        before = time.monotonic()
        assert_success(transaction.commit())
        is_there = transactional.retrieve("k")["found"]
        assert is_there or time.monotonic() > before + SHORT - 0.01
        wait_until_expired(expiring, SHORT, "k")

    def test_a_transaction_replaces_lifetimes_in_its_order(
        self, expiring: LTMBackend, transactional: LTMBackend
    ) -> None:
        store_expired(expiring, "was")
        with transactional.transaction() as transaction:
            for key, ttl in (("a", SOON), ("a", None), ("b", None), ("b", SOON), ("c", SOON), ("was", LONG)):
                transaction.store(key, 1, ttl=ttl)
            transaction.delete("c")
            transaction.store("c", 2)
            results = transaction.commit()["results"]
        assert [result.get("version") for result in results] == [1, 2, 1, 2, 1, 1, None, 1]
        wait_until_expired(expiring, SOON, "b")
        assert transactional.list_keys()["keys"] == ["a", "c", "was"]

    @slow
    def test_store_many_takes_a_ttl_for_each_entry(self, expiring: LTMBackend, transactional: LTMBackend) -> None:
        store_expired(expiring, "was")
        ttls = {"never": None, "soon": SOON, "late": LONG, "was": LONG}
        result = transactional.store_many([{"key": key, "value": 1, "ttl": ttl} for key, ttl in ttls.items()])
        assert [entry["created"] for entry in assert_success(result)["results"]] == [True] * 4
        wait_until_expired(expiring, SOON, "soon")
        assert transactional.list_keys()["keys"] == ["late", "never", "was"]

    def test_a_transaction_refuses_bad_lifetimes_at_once(self, expiring: LTMBackend, transactional: LTMBackend) -> None:
        assert_refused(BAD_TTLS, lambda ttl: transactional.transaction().store("k", 1, ttl=ttl))
        transaction = transactional.transaction()
        assert_success(transaction.store("good", 1, ttl=LONG))
        assert_failure(transaction.store("bad", 1, ttl=0), "validation_error")
        assert_failure(transaction.commit(), "validation_error")
        assert contents(expiring) == []

    @slow
    def test_store_many_names_the_entry_of_a_bad_lifetime(
        self, expiring: LTMBackend, transactional: LTMBackend
    ) -> None:
        good = [{"key": f"k{number}", "value": 1, "ttl": LONG} for number in range(3)]
        for ttl in BAD_TTLS.values():
            result = transactional.store_many([*good, {"key": "bad", "value": 1, "ttl": ttl}])
            assert_failure(result, "validation_error")
            assert "entries[3]" in result["error"]
        assert contents(expiring) == []

    # --- which lifetimes there are -----------------------------------------------------------------

    def test_bad_lifetimes_are_refused(self, expiring: LTMBackend) -> None:
        expiring.store("there", 1)
        assert_refused(BAD_TTLS, lambda ttl: expiring.store("there", 2, ttl=ttl))
        assert_refused(BAD_TTLS, lambda ttl: expiring.store("new", 2, ttl=ttl))
        assert contents(expiring) == ['["there", 1, null, 1]']

    def test_lifetimes_go_from_parts_of_a_second_to_100_years(self, expiring: LTMBackend) -> None:
        for number, ttl in enumerate(GOOD_TTLS):
            assert_same(expiring.store(f"k{number}", 1, ttl=ttl), stored(f"k{number}", 1))
        assert expiring.retrieve(f"k{len(GOOD_TTLS) - 1}")["found"] is True
