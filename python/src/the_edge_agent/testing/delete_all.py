"""The rules of delete_all, which deletes the entries of a prefix."""

from __future__ import annotations

from typing import Any

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_PREFIXES, assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_failure,
    assert_same,
    contents,
    find,
    keys_of,
    load,
)
from the_edge_agent.testing.iteration import PREFIXES, TREE
from the_edge_agent.testing.lifetimes import store_expired
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import run_in_threads


def deleted(count: int) -> dict[str, Any]:
    """Return the result of delete_all."""
    return {"success": True, "deleted_count": count}


class DeleteAllRules(ContractBase):
    """Deleting all entries whose keys begin with a text."""

    def test_delete_all_deletes_what_begins_with_the_prefix(self, backend: LTMBackend) -> None:
        for prefix in PREFIXES:
            load(backend, [(key, 1, None) for key in TREE])
            left = sorted(key for key in TREE if not key.startswith(prefix))
            assert_same(backend.delete_all(prefix), deleted(len(set(TREE)) - len(left)))
            assert [key for key, _, _ in backend.iterate_all()] == left, ascii(prefix)

    def test_delete_all_of_the_empty_prefix_deletes_every_entry(self, backend: LTMBackend) -> None:
        load(backend, [(key, "fox", {"n": 1}) for key in TREE])
        assert_same(backend.delete_all(""), deleted(len(set(TREE))))
        assert contents(backend) == []
        assert keys_of(find(backend, "fox")) == []
        assert backend.store("k", 1)["version"] == 1

    def test_delete_all_can_be_called_again(self, backend: LTMBackend) -> None:
        assert_same(backend.delete_all("k"), deleted(0))
        load(backend, [("k1", 1, None), ("k2", 1, None), ("x", 1, None)])
        assert_same(backend.delete_all("k"), deleted(2))
        assert_same(backend.delete_all("k"), deleted(0))
        assert_same(backend.delete_all("", nested=False), deleted(1))

    def test_delete_all_deletes_more_than_a_thousand(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:04}", 1, None) for number in range(2_100)])
        load(backend, [("j", 1, None), ("l", 1, None)])
        assert_same(backend.delete_all("k"), deleted(2_100))
        assert backend.list_keys()["keys"] == ["j", "l"]

    def test_delete_all_does_not_count_expired_entries(self, expiring: LTMBackend) -> None:
        expiring.store("k", 1)
        store_expired(expiring, "k1", "k2")
        assert_same(expiring.delete_all("k"), deleted(1))

    def test_delete_all_needs_a_prefix(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        assert_refused({**BAD_PREFIXES, "None": None}, lambda prefix: backend.delete_all(prefix))
        assert_refused({"1": 1, "None": None}, lambda nested: backend.delete_all("", nested=nested))
        assert contents(backend) == ['["k", 1, null, 1]']

    def test_a_failure_of_delete_all_tells_how_many_are_gone(self, backend: LTMBackend) -> None:
        backend.close()
        result: Any = backend.delete_all("")
        assert result.pop("deleted_count") == 0
        assert_failure(result, "connection_error")

    @slow
    def test_threads_that_delete_all_count_each_entry_once(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:03}", 1, None) for number in range(300)])
        results = run_in_threads(backend.delete_all, [("k",)] * 4)
        assert sum(result["deleted_count"] for result in results) == 300
        assert backend.count()["count"] == 0
