"""The rules of if_version: a store happens only if the entry still has the version that was read."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.testing.bad_input import assert_refused
from the_edge_agent.testing.contract import (
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
from the_edge_agent.testing.lifetimes import store_expired
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import PROCESSES, WorkerRules, run_in_threads, run_together

THREADS: Final = 8
INCREMENTS: Final = 5
KEYS: Final = tuple(f"k{number:02}" for number in range(20))

BAD_VERSIONS: Final[dict[str, Any]] = {
    "negative": -1,
    "true": True,
    "false": False,
    "text": "1",
    "float": 1.0,
    "list": [1],
    "2^63": 2**63,
}


def stored(key: str, version: int) -> dict[str, Any]:
    """Return the result of a store."""
    return {"success": True, "stored": True, "key": key, "created": version == 1, "version": version}


def count_up(backend: LTMBackend) -> int:
    """Add 1 to a counter several times, each time with ``if_version``; return how many attempts had a conflict."""
    lost = 0
    for _ in range(INCREMENTS):
        while True:
            entry = assert_success(backend.retrieve("counter", 0))
            result = backend.store("counter", entry["value"] + 1, if_version=entry["version"] or 0)
            if result["success"]:
                break
            assert_conflict(result, "counter", result["version"])
            assert result["version"] > (entry["version"] or 0)
            lost += 1
    return lost


def store_if_absent(backend: LTMBackend, seed: int) -> list[str]:
    """Store every key that does not exist, in random order; return the keys that were stored."""
    won = []
    for key in generator(seed).sample(KEYS, len(KEYS)):
        result = backend.store(key, seed, if_version=0)
        if result["success"]:
            assert_same(result, stored(key, 1))
            won.append(key)
        else:
            assert_conflict(result, key, 1)
    return won


def count_up_elsewhere(open_backend: OpenBackend) -> int:
    """Call ``count_up`` on a backend that this process opens."""
    with open_backend() as backend:
        return count_up(backend)


def store_if_absent_elsewhere(open_backend: OpenBackend, seed: int) -> list[str]:
    """Call ``store_if_absent`` on a backend that this process opens."""
    with open_backend() as backend:
        return store_if_absent(backend, seed)


class VersionRules(WorkerRules):
    """Optimistic writes, for backends that declare ``versions``."""

    def test_a_backend_without_versions_says_so(self, backend: LTMBackend) -> None:
        if "versions" in backend.capabilities:
            assert_success(backend.store("new", 1, if_version=0))
            return
        backend.store("there", 1)
        assert_refused(
            {"absent": ("new", 0), "there": ("there", 1)}, lambda at: backend.store(at[0], 2, if_version=at[1])
        )
        assert contents(backend) == ['["there", 1, null, 1]']
        if "transactions" not in backend.capabilities:
            return
        transaction = backend.transaction()
        assert_failure(transaction.store("new", 2, if_version=0), "validation_error")
        assert_failure(transaction.commit(), "validation_error")
        assert contents(backend) == ['["there", 1, null, 1]']

    def test_a_store_over_the_version_that_is_there_is_a_store(self, versioned: LTMBackend) -> None:
        for version in range(5):
            assert_same(versioned.store("k", version, {"n": version}, if_version=version), stored("k", version + 1))
        expected = {"value": 4, "found": True, "metadata": {"n": 4}, "version": 5}
        assert_same(versioned.retrieve("k"), {"success": True, **expected})

    def test_a_store_over_any_other_version_is_a_conflict(self, versioned: LTMBackend) -> None:
        for number in range(3):
            versioned.store("k", number)
        for version in (0, 1, 2, 4, 5, 10**9, 2**31, 2**63 - 1):
            assert_conflict(versioned.store("k", "new", if_version=version), "k", 3)
        assert_same(versioned.store("k", "new", if_version=3), stored("k", 4))

    def test_a_store_over_a_version_of_a_missing_entry_is_a_conflict(self, versioned: LTMBackend) -> None:
        for version in (1, 2, 2**63 - 1):
            assert_conflict(versioned.store("k", 1, if_version=version), "k", 0)
        assert versioned.retrieve("k")["found"] is False
        assert_same(versioned.store("k", 1, if_version=0), stored("k", 1))

    def test_a_conflict_changes_nothing(self, versioned: LTMBackend) -> None:
        for key in ("k", "newer"):
            versioned.store(key, "fox", {"n": 1})
        before = contents(versioned)
        for version in (0, 2):
            assert_conflict(versioned.store("k", "hound", {"n": 2}, if_version=version), "k", 1)
        assert contents(versioned) == before
        assert keys_of(find(versioned)) == keys_of(find(versioned, "fox", {"n": 1})) == ["newer", "k"]
        assert keys_of(find(versioned, "hound")) == []

    def test_none_stores_over_any_version(self, versioned: LTMBackend) -> None:
        for version in range(1, 4):
            assert_same(versioned.store("k", 1, if_version=None), stored("k", version))

    def test_a_deleted_entry_has_no_version(self, versioned: LTMBackend) -> None:
        for number in range(3):
            versioned.store("k", number)
        versioned.delete("k")
        for version in (1, 3, 4):
            assert_conflict(versioned.store("k", 1, if_version=version), "k", 0)
        assert_same(versioned.store("k", 1, if_version=0), stored("k", 1))

    def test_the_version_is_that_of_the_very_key(self, versioned: LTMBackend) -> None:
        for number, key in enumerate(("a", "A", "a ", "á"), start=1):
            for version in range(number):
                assert_same(versioned.store(key, 1, if_version=version), stored(key, version + 1))
        for number, key in enumerate(("a", "A", "a ", "á"), start=1):
            assert_conflict(versioned.store(key, 1, if_version=0), key, number)

    def test_the_conflict_shows_no_stored_value(self, versioned: LTMBackend) -> None:
        versioned.store("k", "canary", {"canary": "canary"})
        assert "canary" not in str(versioned.store("k", "canary", {"canary": "canary"}, if_version=0))

    def test_bad_versions_are_refused(self, versioned: LTMBackend) -> None:
        versioned.store("k", 1)
        assert_refused(BAD_VERSIONS, lambda version: versioned.store("k", 2, if_version=version))
        assert_refused(BAD_VERSIONS, lambda version: versioned.store("new", 2, if_version=version))
        assert contents(versioned) == ['["k", 1, null, 1]']

    # --- deletes -----------------------------------------------------------------------------------

    def test_a_delete_of_the_version_that_is_there_is_a_delete(self, versioned: LTMBackend) -> None:
        for number in range(3):
            versioned.store("k", number)
        assert_same(versioned.delete("k", if_version=3), {"success": True, "deleted": True, "key": "k"})
        assert contents(versioned) == []

    def test_a_delete_of_any_other_version_is_a_conflict(self, versioned: LTMBackend) -> None:
        for number in range(3):
            versioned.store("k", number)
        before = contents(versioned)
        for version in (0, 1, 2, 4, 2**31, 2**63 - 1):
            assert_conflict(versioned.delete("k", if_version=version), "k", 3)
        assert contents(versioned) == before
        assert versioned.delete("k", if_version=None)["deleted"] is True

    def test_a_delete_of_a_missing_entry_compares_with_0(self, versioned: LTMBackend) -> None:
        for version in (1, 2, 2**63 - 1):
            assert_conflict(versioned.delete("k", if_version=version), "k", 0)
        assert_same(versioned.delete("k", if_version=0), {"success": True, "deleted": False, "key": "k"})

    def test_a_delete_of_an_expired_entry_compares_with_0(self, versioned: LTMBackend, expiring: LTMBackend) -> None:
        store_expired(expiring, "k")
        for version in (1, 2, 3):
            assert_conflict(versioned.delete("k", if_version=version), "k", 0)
        assert_same(versioned.delete("k", if_version=0), {"success": True, "deleted": False, "key": "k"})

    def test_bad_versions_of_a_delete_are_refused(self, versioned: LTMBackend, transactional: LTMBackend) -> None:
        versioned.store("k", 1)
        assert_refused(BAD_VERSIONS, lambda version: versioned.delete("k", if_version=version))
        assert_refused(BAD_VERSIONS, lambda version: transactional.transaction().delete("k", if_version=version))
        assert contents(versioned) == ['["k", 1, null, 1]']

    def test_a_transaction_deletes_the_versions_that_are_there(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        versioned.store("k", 1)
        transaction = transactional.transaction()
        assert_same(transaction.delete("k", if_version=1), {"success": True, "queued": True})
        transaction.delete("k", if_version=0)
        transaction.store("k", 2, if_version=0)
        transaction.store("k", 3)
        transaction.delete("k", if_version=2)
        transaction.store("new", 1)
        transaction.delete("new", if_version=1)
        results = assert_success(transaction.commit())["results"]
        assert [result.get("deleted") for result in results] == [True, False, None, None, True, None, True]
        assert contents(versioned) == []

    def test_a_conflict_of_a_delete_fails_the_whole_commit(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        for key in ("a", "k"):
            versioned.store(key, 1)
        before = contents(versioned)
        for earlier, required, found in (((), 2, 1), ((), 0, 1), (("store",), 1, 2), (("delete",), 1, 0)):
            transaction = transactional.transaction()
            transaction.store("a", 2)
            for method in earlier:
                transaction.store("k", 2) if method == "store" else transaction.delete("k")
            transaction.delete("k", if_version=required)
            transaction.store("b", 1)
            assert_conflict(transaction.commit(), "k", found)
            assert contents(versioned) == before

    def test_of_threads_that_delete_one_version_one_succeeds(self, versioned: LTMBackend) -> None:
        for _ in range(5):
            version = versioned.store("k", 1)["version"]
            results = run_in_threads(lambda: versioned.delete("k", if_version=version), [()] * THREADS)  # noqa: B023
            assert sum(result["success"] for result in results) == 1
            for result in results:
                assert result.get("deleted") is True or result["error_type"] == "conflict"
            versioned.store("k", 1)

    @slow
    def test_of_deletes_and_stores_of_one_version_one_succeeds(self, versioned: LTMBackend) -> None:
        def change(number: int, version: int) -> bool:
            if number % 2:
                return bool(versioned.delete("k", if_version=version)["success"])
            return bool(versioned.store("k", number, if_version=version)["success"])

        for _ in range(10):
            version = versioned.store("k", 1)["version"]
            assert sum(run_in_threads(change, [(number, version) for number in range(THREADS)])) == 1

    # --- in transactions ---------------------------------------------------------------------------

    def test_a_transaction_stores_over_the_versions_that_are_there(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        versioned.store("there", 1)
        transaction = transactional.transaction()
        transaction.store("there", 2, if_version=1)
        transaction.store("new", 1, if_version=0)
        expected = {"success": True, "operations": 2, "results": [stored("there", 2), stored("new", 1)]}
        assert_same(transaction.commit(), expected)

    def test_a_transaction_compares_with_what_its_operations_have_made(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        versioned.store("gone", 1)
        transaction = transactional.transaction()
        for version in range(3):
            transaction.store("k", version, if_version=version)
        transaction.store("k", "any")
        transaction.store("k", "last", if_version=4)
        transaction.delete("gone")
        transaction.store("gone", "again", if_version=0)
        transaction.delete("k")
        transaction.store("k", "anew", if_version=0)
        results = assert_success(transaction.commit())["results"]
        assert [result.get("version") for result in results] == [1, 2, 3, 4, 5, None, 1, None, 1]
        assert contents(versioned) == ['["gone", "again", null, 1]', '["k", "anew", null, 1]']

    def test_a_conflict_fails_the_whole_commit(self, versioned: LTMBackend, transactional: LTMBackend) -> None:
        for key in ("a", "k", "z"):
            versioned.store(key, 1)
        before = contents(versioned)
        for key, version in (("k", 0), ("k", 2), ("new", 1)):
            transaction = transactional.transaction()
            transaction.store("z", 2)
            transaction.delete("a")
            transaction.store(key, 2, if_version=version)
            transaction.store("b", 2)
            assert_conflict(transaction.commit(), key, 0 if key == "new" else 1)
            assert_failure(transaction.commit(), "validation_error")
            assert contents(versioned) == before

    def test_of_several_conflicts_the_first_in_the_queue_is_named(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        for key in ("a", "b", "c"):
            versioned.store(key, 1)
        for order in (("c", "a", "b"), ("b", "c", "a"), ("a", "b", "c")):
            transaction = transactional.transaction()
            transaction.store(order[0], 2, if_version=1)
            transaction.store(order[0], 2, if_version=1)  # the version is 2 now
            for key in order[1:]:
                transaction.store(key, 2, if_version=7)
            assert_conflict(transaction.commit(), order[0], 2)
        assert {versioned.retrieve(key)["version"] for key in ("a", "b", "c")} == {1}

    def test_a_conflict_with_an_operation_before_fails_the_whole_commit(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        versioned.store("k", 1)
        before = contents(versioned)
        for version in (0, 1, 3):
            transaction = transactional.transaction()
            transaction.store("new", 1, if_version=0)
            transaction.store("k", 2, if_version=1)
            transaction.store("k", 3, if_version=version)
            assert_conflict(transaction.commit(), "k", 2)  # the version after the operation before
            assert contents(versioned) == before

    def test_leaving_with_raises_the_conflict(self, versioned: LTMBackend, transactional: LTMBackend) -> None:
        versioned.store("k", 1)
        transaction = transactional.transaction()
        with pytest.raises(LTMError) as raised, transaction:
            transaction.store("k", 2, if_version=5)
        assert_conflict(raised.value.result, "k", 1)

    def test_a_transaction_refuses_bad_versions_at_once(self, versioned: LTMBackend, transactional: LTMBackend) -> None:
        assert_refused(BAD_VERSIONS, lambda version: transactional.transaction().store("k", 1, if_version=version))
        assert contents(versioned) == []

    def test_a_transaction_conflicts_with_what_was_stored_while_it_was_open(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        transactions = [transactional.transaction() for _ in range(3)]
        for number, transaction in enumerate(transactions):
            transaction.store("k", number, if_version=0)
            transaction.store(f"of {number}", 1)
        assert_success(transactions[1].commit())
        for number in (0, 2):
            assert_conflict(transactions[number].commit(), "k", 1)
        assert versioned.list_keys()["keys"] == ["k", "of 1"]

    # --- races -------------------------------------------------------------------------------------

    @slow
    def test_threads_that_count_up_lose_nothing(self, versioned: LTMBackend) -> None:
        run_in_threads(count_up, [(versioned,)] * THREADS)
        entry = versioned.retrieve("counter")
        assert entry["value"] == entry["version"] == THREADS * INCREMENTS

    @slow
    def test_processes_that_count_up_lose_nothing(
        self, versioned: LTMBackend, reopen: OpenBackend, workers: ProcessPoolExecutor
    ) -> None:
        run_together(workers, count_up_elsewhere, [(reopen,)] * PROCESSES)
        entry = versioned.retrieve("counter")
        assert entry["value"] == entry["version"] == PROCESSES * INCREMENTS

    def assert_one_winner_for_each_key(self, backend: LTMBackend, won: list[list[str]]) -> None:
        """Check that each key was stored by one thread, and has the value of this thread."""
        assert sorted(chain.from_iterable(won)) == [*KEYS]
        winners = {key: seed for seed, keys in enumerate(won) for key in keys}
        assert {key: value for key, value, _ in backend.iterate_all()} == winners

    @slow
    def test_of_threads_that_store_what_is_absent_one_wins(self, versioned: LTMBackend) -> None:
        won = run_in_threads(store_if_absent, [(versioned, seed) for seed in range(THREADS)])
        self.assert_one_winner_for_each_key(versioned, won)

    @slow
    def test_of_processes_that_store_what_is_absent_one_wins(
        self, versioned: LTMBackend, reopen: OpenBackend, workers: ProcessPoolExecutor
    ) -> None:
        won = run_together(workers, store_if_absent_elsewhere, [(reopen, seed) for seed in range(PROCESSES)])
        self.assert_one_winner_for_each_key(versioned, won)

    @slow
    def test_transactions_of_threads_over_one_version_store_both_entries_or_none(
        self, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        versioned.store("total", 0)

        def add(mine: int) -> None:
            for number in range(INCREMENTS):
                while True:
                    entry = assert_success(versioned.retrieve("total"))
                    transaction = transactional.transaction()
                    transaction.store(f"t{mine}/{number}", 1)
                    transaction.store("total", entry["value"] + 1, if_version=entry["version"])
                    result = transaction.commit()
                    if result["success"]:
                        break
                    assert_conflict(result, "total", result["version"])

        run_in_threads(add, [(mine,) for mine in range(4)])
        assert versioned.retrieve("total")["value"] == versioned.count("t")["count"] - 1 == 4 * INCREMENTS
