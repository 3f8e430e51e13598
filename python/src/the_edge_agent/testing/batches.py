"""The rules of store_many: many entries in one transaction, in order, all of them or none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_KEYS, BAD_METADATA, NOT_JSON, assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    differences,
    find,
    keys_of,
    load,
    text_of,
)
from the_edge_agent.testing.exactness import HOSTILE_TEXTS, METADATA, VALUES
from the_edge_agent.testing.slow import slow

Entry = dict[str, Any]

GOOD: Final[tuple[Entry, ...]] = (
    {"key": "new", "value": 1},
    {"key": "there", "value": 2, "metadata": {"n": 2}},
    {"key": "new", "value": 3},
)

NO_ENTRIES: Final[dict[str, Any]] = {
    "None": None,
    "number": 1,
    "text": "text",
    "empty text": "",
    "bytes": b"bytes",
    "one entry": {"key": "k", "value": 1},
    "empty dict": {},
}

BAD_ENTRIES: Final[dict[str, Any]] = {
    "None": None,
    "text": "k",
    "key and value": ("k", 1),
    "list of pairs": [("key", "k"), ("value", 1)],
    "empty": {},
    "no key": {"value": 1},
    "no value": {"key": "k"},
    "only metadata": {"metadata": {}},
    "unknown field": {"key": "k", "value": 1, "vaule": 1},
    "field in capitals": {"Key": "k", "value": 1},
    "if_version": {"key": "k", "value": 1, "if_version": 0},
    "a field that is not text": {"key": "k", "value": 1, 1: 1},
    "metadata is a list": {"key": "k", "value": 1, "metadata": []},
}


def result_of(*entries: tuple[str, int]) -> dict[str, Any]:
    """Return the result of a batch that stored these keys with these versions."""
    results = [{"key": key, "created": version == 1, "version": version} for key, version in entries]
    return {"success": True, "stored_count": len(results), "results": results}


class BatchRules(ContractBase):
    """Many stores in one call, for backends that declare ``transactions``."""

    def test_a_backend_without_transactions_stores_no_batch(self, backend: LTMBackend) -> None:
        if "transactions" in backend.capabilities:
            assert_same(backend.store_many([]), result_of())
            return
        for entries in ([], [{"key": "k", "value": 1}]):
            assert_failure(backend.store_many(entries), "validation_error")
        assert contents(backend) == []

    def test_a_batch_answers_for_each_entry_in_order(self, transactional: LTMBackend) -> None:
        transactional.store("there", 1)
        entries = [{"key": key, "value": key} for key in ("z", "there", "a", "m")]
        assert_same(transactional.store_many(entries), result_of(("z", 1), ("there", 2), ("a", 1), ("m", 1)))
        assert contents(transactional) == [
            '["a", "a", null, 1]',
            '["m", "m", null, 1]',
            '["there", "there", null, 2]',
            '["z", "z", null, 1]',
        ]

    def test_a_key_that_comes_twice_is_stored_twice_in_that_order(self, transactional: LTMBackend) -> None:
        transactional.store("there", 0)
        keys = ["k", "there", "k", "other", "there", "k"]
        entries = [{"key": key, "value": place, "metadata": {"n": place}} for place, key in enumerate(keys)]
        expected = result_of(("k", 1), ("there", 2), ("k", 2), ("other", 1), ("there", 3), ("k", 3))
        assert_same(transactional.store_many(entries), expected)
        assert contents(transactional) == [
            '["k", 5, {"n": 5}, 3]',
            '["other", 3, {"n": 3}, 1]',
            '["there", 4, {"n": 4}, 3]',
        ]
        assert keys_of(find(transactional, metadata_filter={"n": {"$lt": 3}})) == []

    def test_an_empty_batch_stores_nothing(self, transactional: LTMBackend) -> None:
        transactional.store("k", 1)
        collections: list[Iterable[Entry]] = [[], (), iter([])]
        for entries in collections:
            assert_same(transactional.store_many(entries), result_of())
        assert contents(transactional) == ['["k", 1, null, 1]']

    def test_any_collection_of_entries_is_a_batch(self, transactional: LTMBackend) -> None:
        def generate() -> Iterator[Entry]:
            for key in ("b", "a"):
                yield {"key": key, "value": key}

        entries = [*generate()]
        for version, batch in enumerate((generate(), tuple(entries), map(MappingProxyType, entries)), start=1):
            assert_same(transactional.store_many(batch), result_of(("b", version), ("a", version)))

    def test_entries_are_as_they_were_when_they_were_stored(self, transactional: LTMBackend) -> None:
        entry: Entry = {"key": "k", "value": [1], "metadata": {"list": [1]}}
        assert_success(transactional.store_many([entry]))
        entry["value"].append(2)
        entry["metadata"]["list"].append(2)
        assert contents(transactional) == ['["k", [1], {"list": [1]}, 1]']

    def test_metadata_none_missing_and_empty_in_a_batch(self, transactional: LTMBackend) -> None:
        for key in ("none", "missing", "empty"):
            transactional.store(key, 1, {"a": 1})
        none, missing = {"key": "none", "value": 1, "metadata": None}, {"key": "missing", "value": None}
        assert_success(transactional.store_many([none, missing, {"key": "empty", "value": 1, "metadata": {}}]))
        assert [*transactional.iterate_all()] == [("empty", 1, {}), ("missing", None, None), ("none", 1, None)]

    def test_a_batch_keeps_values_metadata_and_keys_exactly(self, transactional: LTMBackend) -> None:
        values = [{"key": f"value {name}", "value": value} for name, value in VALUES.items() if "2 MB" not in name]
        metadata = [{"key": f"metadata {name}", "value": 1, "metadata": data} for name, data in METADATA.items()]
        keys = [{"key": key, "value": name} for name, key in HOSTILE_TEXTS.items()]
        entries = [*values, *metadata, *keys]
        assert_success(transactional.store_many(entries))
        actual = {key: text_of([value, data]) for key, value, data in transactional.iterate_all()}
        assert (
            differences(actual, {each["key"]: text_of([each["value"], each.get("metadata")]) for each in entries}) == {}
        )

    def test_what_a_batch_stores_is_found(self, transactional: LTMBackend) -> None:
        load(transactional, [("k", "hound", {"n": 0}), ("old", "fox", {"n": 0})])
        entries = [
            {"key": key, "value": "red fox", "metadata": {"n": n}} for n, key in enumerate(("k", "a", "b"), start=1)
        ]
        assert_success(transactional.store_many(entries))
        assert keys_of(find(transactional, '"red fox"')) == ["a", "b", "k"]
        assert keys_of(find(transactional, "fox", {"n": {"$gte": 2}})) == ["a", "b"]
        assert keys_of(find(transactional, "hound")) == []
        assert keys_of(find(transactional, metadata_filter={"n": 0})) == ["old"]

    def test_a_batch_is_equally_new_and_ordered_by_key(self, transactional: LTMBackend) -> None:
        transactional.store("m", "fox")
        for batch in ("zac", "yzb"):
            assert_success(transactional.store_many({"key": key, "value": "fox"} for key in batch))
        assert keys_of(find(transactional)) == keys_of(find(transactional, "fox")) == ["b", "y", "z", "a", "c", "m"]

    @slow
    def test_a_large_batch_is_one(self, transactional: LTMBackend) -> None:
        load(transactional, [(f"k{number:04}", "old", {"n": -1}) for number in range(0, 1500, 10)])
        order = [number * 997 % 1500 for number in range(1500)] + [*range(100)]
        entries = [{"key": f"k{n:04}", "value": place, "metadata": {"n": n}} for place, n in enumerate(order)]
        overwritten = dict.fromkeys(range(0, 1500, 10), 1)
        expected = []
        for number in order:
            overwritten[number] = overwritten.get(number, 0) + 1
            expected.append((f"k{number:04}", overwritten[number]))
        assert_same(transactional.store_many(entries), result_of(*expected))
        values = {entry["key"]: entry["value"] for entry in entries}
        assert {key: value for key, value, _ in transactional.iterate_all()} == values
        assert keys_of(find(transactional, limit=3)) == ["k0000", "k0001", "k0002"]
        assert find(transactional, metadata_filter={"n": -1})["count"] == 0

    # --- all or nothing ----------------------------------------------------------------------------

    def assert_batches_refused(self, backend: LTMBackend, cases: dict[str, Any], error_type: str) -> None:
        """Check that each bad entry, after three good ones, is refused by its place, and that nothing is stored."""
        backend.store("there", 1)
        results = {name: backend.store_many([*GOOD, case, *GOOD]) for name, case in cases.items()}
        assert_refused(cases, lambda case: backend.store_many([*GOOD, case, *GOOD]), error_type)
        assert [name for name, result in results.items() if "entries[3]" not in result["error"]] == []
        assert contents(backend) == ['["there", 1, null, 1]']

    def test_a_bad_entry_is_named_and_nothing_is_stored(self, transactional: LTMBackend) -> None:
        self.assert_batches_refused(transactional, BAD_ENTRIES, "validation_error")

    def test_a_bad_key_in_a_batch_is_named_and_nothing_is_stored(self, transactional: LTMBackend) -> None:
        cases = {name: {"key": key, "value": 1} for name, key in BAD_KEYS.items()}
        self.assert_batches_refused(transactional, cases, "validation_error")

    def test_a_bad_value_in_a_batch_is_named_and_nothing_is_stored(self, transactional: LTMBackend) -> None:
        cases = {name: {"key": "k", "value": [value]} for name, value in NOT_JSON.items()}
        self.assert_batches_refused(transactional, cases, "serialization_error")

    def test_bad_metadata_in_a_batch_is_named_and_nothing_is_stored(self, transactional: LTMBackend) -> None:
        cases = {name: {"key": "k", "value": 1, "metadata": data} for name, data in BAD_METADATA.items()}
        self.assert_batches_refused(transactional, cases, "validation_error")

    def test_what_is_no_list_of_entries_is_refused(self, transactional: LTMBackend) -> None:
        assert_refused(NO_ENTRIES, lambda entries: transactional.store_many(entries))
        assert contents(transactional) == []

    def test_the_first_bad_entry_is_the_one_that_is_named(self, transactional: LTMBackend) -> None:
        result = transactional.store_many([GOOD[0], {"key": "", "value": 1}, {"key": "k", "value": math.nan}])
        assert_failure(result, "validation_error")
        assert "entries[1]" in result["error"]

    def test_an_error_of_a_batch_shows_no_stored_value(self, transactional: LTMBackend) -> None:
        for entry in (
            {"key": "k", "value": ["canary", math.nan]},
            {"key": "k", "value": 1, "metadata": {"canary": "\0"}},
            {"key": "k", "value": "canary", "unknown": "canary"},
        ):
            result = transactional.store_many([{"key": "a", "value": "canary"}, entry])
            assert result["success"] is False
            assert "canary" not in str(result)

    def test_a_generator_that_fails_stores_nothing(self, transactional: LTMBackend) -> None:
        def fail_after_one() -> Iterator[Entry]:
            yield {"key": "k", "value": 1}
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            transactional.store_many(fail_after_one())
        assert contents(transactional) == []
