"""The rules of index=False: an entry that a search finds as one without words."""

from __future__ import annotations

from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    find,
    keys_of,
    without_times,
)
from the_edge_agent.testing.model import Entry, Model

BAD_FLAGS: Final[dict[str, Any]] = {"1": 1, "0": 0, "text": "no", "None": None}


class IndexRules(ContractBase):
    """Entries whose words are not searched, for backends that declare ``index``."""

    def test_a_backend_without_index_says_so(self, backend: LTMBackend) -> None:
        if "index" not in backend.capabilities:
            assert_failure(backend.store_many([{"key": "k", "value": 1, "index": False}]), "validation_error")
        assert contents(backend) == []

    def test_words_that_are_not_indexed_are_not_found(self, indexing: LTMBackend) -> None:
        indexing.store("fox", "fox hound", {"s": "hen"}, index=False)
        indexing.store("other fox", "hound", {"s": "hen"})
        for query in ("fox", "hound", "hen", '"fox hound"', "fo*", "fox hound", "other fox"):
            assert keys_of(find(indexing, query)) == (["other fox"] if query != '"fox hound"' else []), query

    def test_an_entry_without_words_is_found_by_metadata_and_prefix(self, indexing: LTMBackend) -> None:
        indexing.store("k", "fox", {"n": 1}, index=False)
        indexing.store("x", "fox", {"n": 1})
        assert keys_of(find(indexing)) == ["x", "k"]
        assert keys_of(find(indexing, metadata_filter={"n": 1})) == ["x", "k"]
        assert keys_of(find(indexing, prefix="k")) == ["k"]
        assert keys_of(find(indexing, "-hound", {"n": 1})) == ["x", "k"]
        assert keys_of(find(indexing, "-fox")) == ["k"]
        entry = {"key": "k", "value": "fox", "metadata": {"n": 1}, "score": 0.0}
        assert_same(find(indexing, None, {"n": 1}, prefix="k"), {"success": True, "results": [entry], "count": 1})

    def test_other_calls_return_it_like_any_other(self, indexing: LTMBackend) -> None:
        assert_same(
            indexing.store("k", [1], {"n": 1}, index=False),
            {"success": True, "stored": True, "key": "k", "created": True, "version": 1},
        )
        expected = {"success": True, "value": [1], "found": True, "metadata": {"n": 1}, "version": 1}
        assert_same(indexing.retrieve("k"), expected)
        assert indexing.list_keys()["keys"] == ["k"]
        assert [*indexing.iterate_all()] == [("k", [1], {"n": 1})]
        assert indexing.delete("k")["deleted"] is True

    def test_the_last_store_decides_whether_words_are_indexed(self, indexing: LTMBackend) -> None:
        for index in (False, True, False, False, True):
            indexing.store("k", "fox", index=index)
            assert keys_of(find(indexing, "fox")) == ["k"] * index
        indexing.store("k", "fox", index=False)
        indexing.store("k", "fox")
        assert keys_of(find(indexing, "fox")) == ["k"]

    def test_batches_and_transactions_take_index(self, indexing: LTMBackend, transactional: LTMBackend) -> None:
        entries = [{"key": key, "value": "fox", "index": index} for key, index in (("a", False), ("b", True))]
        assert_success(transactional.store_many([*entries, {"key": "c", "value": "fox"}]))
        with transactional.transaction() as transaction:
            transaction.store("d", "fox", index=False)
            transaction.store("e", "fox")
        assert sorted(keys_of(find(indexing, "fox"))) == ["b", "c", "e"]
        assert indexing.count()["count"] == 5

    def test_a_question_does_not_find_them(self, indexing: LTMBackend, matching: LTMBackend) -> None:
        model = Model(matching.language)
        for number in range(12):
            value, index = ("fox " * (number % 3 + 1) + "hound" * (number % 2), bool(number % 4))
            indexing.store(f"k{number}", value, index=index)
            model.entries[f"k{number}"] = Entry(f"k{number}", value, None, number, matching.language, index)
        for query in ("fox hound", "fox", "hound -fox", "-fox", "fox -hound", "k1 k4 fox"):
            assert_same(without_times(matching.search(query, limit=50)), model.ask(query, limit=50))

    def test_bad_values_of_index_are_refused(self, indexing: LTMBackend) -> None:
        assert_refused(BAD_FLAGS, lambda index: indexing.store("k", 1, index=index))
        if "transactions" in indexing.capabilities:
            assert_refused(BAD_FLAGS, lambda index: indexing.transaction().store("k", 1, index=index))
            assert_refused_in_batches(indexing)
        assert contents(indexing) == []


def assert_refused_in_batches(backend: LTMBackend) -> None:
    """Check that store_many refuses bad values of index, and names the entry."""
    for bad in BAD_FLAGS.values():
        result = backend.store_many([{"key": "a", "value": 1}, {"key": "k", "value": 1, "index": bad}])
        assert_failure(result, "validation_error")
        assert "entries[1]" in result["error"]
