"""The rules of transactions: queue, commit all or nothing, roll back, leave a ``with`` block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.testing.contract import (
    ContractBase,
    OpenBackend,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    find,
    keys_of,
)
from the_edge_agent.testing.slow import slow

QUEUED = {"success": True, "queued": True}

REFUSED: Final[dict[str, Callable[[LTMTransaction], Any]]] = {
    "key": lambda transaction: transaction.store("", 1),
    "value": lambda transaction: transaction.store("k", math.nan),
    "metadata": lambda transaction: transaction.store("k", 1, {"a": "\0"}),
    "delete": lambda transaction: transaction.delete("k\0"),
}


def stored(key: str, version: int) -> dict[str, Any]:
    """Return the result of a store."""
    return {"success": True, "stored": True, "key": key, "created": version == 1, "version": version}


def deleted(key: str, *, there: bool) -> dict[str, Any]:
    """Return the result of a delete."""
    return {"success": True, "deleted": there, "key": key}


class TransactionRules(ContractBase):
    """Several operations in one transaction, for backends that declare ``transactions``."""

    def test_a_backend_without_transactions_says_so(self, backend: LTMBackend) -> None:
        if "transactions" in backend.capabilities:
            assert_success(backend.transaction().rollback())
            return
        with pytest.raises(LTMError) as raised:
            backend.transaction()
        assert_failure(raised.value.result, "validation_error")

    def test_operations_are_queued_and_answered_on_commit(self, transactional: LTMBackend) -> None:
        transaction = transactional.transaction()
        assert_same(transaction.store("a", 1, {"n": 1}), QUEUED)
        assert_same(transaction.delete("b"), QUEUED)
        expected = {"success": True, "operations": 2, "results": [stored("a", 1), deleted("b", there=False)]}
        assert_same(transaction.commit(), expected)
        assert transactional.retrieve("a")["metadata"] == {"n": 1}

    def test_nothing_is_seen_before_commit(self, transactional: LTMBackend) -> None:
        transactional.store("old", 1)
        before = contents(transactional)
        transaction = transactional.transaction()
        transaction.store("new", 1)
        transaction.store("old", 2)
        transaction.delete("old")
        assert contents(transactional) == before
        assert keys_of(find(transactional)) == ["old"]
        transaction.commit()
        assert keys_of(find(transactional)) == ["new"]

    def test_other_calls_go_on_while_a_transaction_is_open(self, transactional: LTMBackend) -> None:
        transactions = [transactional.transaction() for _ in range(50)]
        for number, transaction in enumerate(transactions):
            assert_same(transaction.store("k", number), QUEUED)
            assert transactional.store("k", "direct")["version"] == number + 1
        for number, transaction in enumerate(transactions):
            assert_same(transaction.commit(), {"success": True, "operations": 1, "results": [stored("k", 51 + number)]})

    def test_each_key_sees_its_operations_in_their_order(self, transactional: LTMBackend) -> None:
        transactional.store("there", 0)
        steps: list[tuple[str, str, dict[str, Any]]] = [
            ("store", "z", stored("z", 1)),
            ("store", "there", stored("there", 2)),
            ("delete", "there", deleted("there", there=True)),
            ("delete", "a", deleted("a", there=False)),
            ("store", "z", stored("z", 2)),
            ("delete", "there", deleted("there", there=False)),
            ("store", "a", stored("a", 1)),
            ("store", "there", stored("there", 1)),
            ("delete", "z", deleted("z", there=True)),
            ("store", "there", stored("there", 2)),
        ]
        transaction = transactional.transaction()
        for number, (action, key, _) in enumerate(steps):
            assert_same(transaction.store(key, number) if action == "store" else transaction.delete(key), QUEUED)
        result = transaction.commit()
        assert_same(result, {"success": True, "operations": 10, "results": [expected for *_, expected in steps]})
        assert [item[:2] for item in transactional.iterate_all()] == [("a", 6), ("there", 9)]

    def test_results_are_in_the_order_of_the_queue(self, transactional: LTMBackend) -> None:
        keys = [f"k{number * 37 % 101:03}" for number in range(101)]
        transaction = transactional.transaction()
        for key in keys:
            transaction.store(key, key)
        assert [result["key"] for result in transaction.commit()["results"]] == keys

    def test_versions_go_on_from_what_is_stored(self, transactional: LTMBackend) -> None:
        for expected in range(1, 4):
            with transactional.transaction() as transaction:
                transaction.store("k", expected)
                assert_same(transaction.commit()["results"][0], stored("k", expected))
        assert_same(transactional.store("k", 4), stored("k", 4))

    def test_an_empty_commit_does_nothing(self, transactional: LTMBackend) -> None:
        assert_same(transactional.transaction().commit(), {"success": True, "operations": 0, "results": []})
        with transactional.transaction():
            pass

    def test_a_queued_value_is_what_it_was_when_it_was_queued(self, transactional: LTMBackend) -> None:
        value: dict[str, Any] = {"list": [1]}
        metadata: dict[str, Any] = {"list": [1]}
        transaction = transactional.transaction()
        transaction.store("k", value, metadata)
        value["list"].append(math.nan)
        metadata.clear()
        assert_success(transaction.commit())
        entry = transactional.retrieve("k")
        assert (entry["value"], entry["metadata"]) == ({"list": [1]}, {"list": [1]})

    @slow
    def test_a_large_transaction_is_one(self, transactional: LTMBackend) -> None:
        transaction = transactional.transaction()
        for number in range(1500):
            transaction.store(f"k{number % 1000:04}", number)
        result = assert_success(transaction.commit())
        assert result["operations"] == 1500
        assert [entry["version"] for entry in result["results"]] == [1] * 1000 + [2] * 500
        assert keys_of(find(transactional, limit=3)) == ["k0000", "k0001", "k0002"]

    # --- rollback and second use -------------------------------------------------------------------

    def test_rollback_discards_the_queue(self, transactional: LTMBackend) -> None:
        transactional.store("k", 1)
        before = contents(transactional)
        transaction = transactional.transaction()
        transaction.store("k", 2)
        transaction.delete("k")
        transaction.store("new", 1)
        assert_same(transaction.rollback(), {"success": True, "discarded": 3})
        assert contents(transactional) == before

    def test_rollback_of_nothing_discards_nothing(self, transactional: LTMBackend) -> None:
        assert_same(transactional.transaction().rollback(), {"success": True, "discarded": 0})

    def test_an_ended_transaction_takes_nothing_more(self, transactional: LTMBackend) -> None:
        for end in ("commit", "rollback"):
            transaction = transactional.transaction()
            transaction.store("k", 1)
            assert_success(getattr(transaction, end)())
            before = contents(transactional)
            for result in (transaction.commit(), transaction.store("k", 2), transaction.delete("k")):
                assert_failure(result, "validation_error")
            assert_failure(transaction.commit(), "validation_error")
            assert contents(transactional) == before

    # --- a refused entry ---------------------------------------------------------------------------

    def test_after_a_refused_entry_it_can_only_roll_back(self, transactional: LTMBackend) -> None:
        for refused in REFUSED.values():
            transaction = transactional.transaction()
            assert_success(transaction.store("good", 1))
            assert refused(transaction)["success"] is False
            for _ in range(2):
                assert_failure(transaction.commit(), "validation_error")
            assert_same(transaction.rollback(), {"success": True, "discarded": 1})
            assert contents(transactional) == []

    # --- leaving with ------------------------------------------------------------------------------

    def test_leaving_with_commits(self, transactional: LTMBackend) -> None:
        with transactional.transaction() as transaction:
            transaction.store("a", 1)
            transaction.store("b", 2)
        assert [item[:2] for item in transactional.iterate_all()] == [("a", 1), ("b", 2)]
        assert_failure(transaction.commit(), "validation_error")

    def test_leaving_with_by_an_exception_rolls_back(self, transactional: LTMBackend) -> None:
        with pytest.raises(KeyError, match="mine"), transactional.transaction() as transaction:
            transaction.store("a", 1)
            raise KeyError("mine")
        assert contents(transactional) == []
        assert_failure(transaction.commit(), "validation_error")

    def test_leaving_with_by_an_exception_after_commit_keeps_it(self, transactional: LTMBackend) -> None:
        with pytest.raises(KeyError, match="mine"), transactional.transaction() as transaction:
            transaction.store("a", 1)
            transaction.commit()
            raise KeyError("mine")
        assert transactional.retrieve("a")["found"] is True

    def test_leaving_with_after_a_refused_entry_raises(self, transactional: LTMBackend) -> None:
        with pytest.raises(LTMError) as raised, transactional.transaction() as transaction:
            transaction.store("a", 1)
            transaction.store("b", math.nan)
        assert_failure(raised.value.result, "validation_error")
        assert contents(transactional) == []

    def test_leaving_with_after_a_refused_entry_and_rollback_is_quiet(self, transactional: LTMBackend) -> None:
        with transactional.transaction() as transaction:
            transaction.store("a", 1)
            transaction.store("b", math.nan)
            transaction.rollback()
        assert contents(transactional) == []

    def test_leaving_with_after_commit_or_rollback_does_nothing_more(self, transactional: LTMBackend) -> None:
        with transactional.transaction() as transaction:
            transaction.store("a", 1)
            assert_success(transaction.commit())
        with transactional.transaction() as transaction:
            transaction.store("a", 2)
            assert_success(transaction.rollback())
        assert transactional.retrieve("a")["version"] == 1

    # --- a failing commit --------------------------------------------------------------------------

    def test_a_failed_commit_stores_nothing(self, reopen: OpenBackend) -> None:
        with reopen() as backend:
            if "transactions" not in backend.capabilities:
                pytest.skip("the backend declares no transactions")
            transaction = backend.transaction()
            transaction.store("a", 1)
        assert_failure(transaction.commit(), "connection_error")
        for result in (transaction.commit(), transaction.store("b", 1), transaction.delete("b")):
            assert_failure(result, "validation_error")
        with reopen() as backend:
            assert contents(backend) == []

    def test_leaving_with_raises_when_the_commit_fails(self, transactional: LTMBackend) -> None:
        with pytest.raises(LTMError) as raised, transactional.transaction() as transaction:
            transaction.store("a", 1)
            transactional.close()
        assert_failure(raised.value.result, "connection_error")

    def test_leaving_with_raises_after_a_failed_commit(self, transactional: LTMBackend) -> None:
        with pytest.raises(LTMError) as raised, transactional.transaction() as transaction:
            transaction.store("a", 1)
            transactional.close()
            assert_failure(transaction.commit(), "connection_error")
        assert_failure(raised.value.result, "connection_error")

    def test_leaving_with_by_an_exception_after_a_failed_commit_keeps_the_exception(
        self, transactional: LTMBackend
    ) -> None:
        with pytest.raises(KeyError, match="mine"), transactional.transaction() as transaction:
            transaction.store("a", 1)
            transactional.close()
            transaction.commit()
            raise KeyError("mine")
