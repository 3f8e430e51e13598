"""The rules of retrieve_many and delete_many: one call for many keys; a key that comes twice counts once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_KEYS, assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    differences,
    find,
    generator,
    keys_of,
    load,
    text_of,
)
from the_edge_agent.testing.exactness import HOSTILE_TEXTS, VALUES
from the_edge_agent.testing.slow import slow

NO_KEYS: Final[dict[str, Any]] = {
    "None": None,
    "number": 1,
    "a key": "k",
    "empty text": "",
    "bytes": b"k",
    "dict": {"k": 1},
}


class ManyKeysRules(ContractBase):
    """Reading and deleting many entries at once."""

    # --- retrieve_many -----------------------------------------------------------------------------

    def test_retrieve_many_answers_with_each_whole_entry_or_none(self, backend: LTMBackend) -> None:
        backend.store("a", {"x": [1.0, None]}, {"n": 1})
        for value in (1, None):
            backend.store("b", value)
        entries = {
            "b": {"value": None, "metadata": None, "version": 2},
            "missing": None,
            "a": {"value": {"x": [1.0, None]}, "metadata": {"n": 1}, "version": 1},
        }
        result = backend.retrieve_many(["b", "missing", "a"])
        assert_same(result, {"success": True, "entries": entries, "found_count": 2, "missing_count": 1})

    def test_retrieve_many_answers_in_the_order_of_the_keys_each_once(self, backend: LTMBackend) -> None:
        load(backend, [(key, key, None) for key in "abcde"])
        result = assert_success(backend.retrieve_many(["d", "x", "a", "d", "e", "x", "a", "b"]))
        assert [*result["entries"]] == ["d", "x", "a", "e", "b"]
        assert (result["found_count"], result["missing_count"]) == (4, 1)

    def test_retrieve_many_of_no_keys_finds_nothing(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        collections: list[Iterable[str]] = [[], (), iter([])]
        for keys in collections:
            expected = {"success": True, "entries": {}, "found_count": 0, "missing_count": 0}
            assert_same(backend.retrieve_many(keys), expected)

    def test_retrieve_many_takes_any_collection_of_keys(self, backend: LTMBackend) -> None:
        load(backend, [(key, key, None) for key in "abc"])
        for keys in (("b", "c"), iter(["b", "c"]), (key for key in "bc"), dict.fromkeys("bc").keys()):
            assert [*backend.retrieve_many(keys)["entries"]] == ["b", "c"]

    def test_retrieve_many_gives_values_and_metadata_exactly(self, backend: LTMBackend) -> None:
        values = {name: value for name, value in VALUES.items() if "2 MB" not in name}
        load(
            backend, [(name, value, {"same": value} if name == "key order" else None) for name, value in values.items()]
        )
        entries = assert_success(backend.retrieve_many([*values]))["entries"]
        actual = {name: text_of(entry and entry["value"]) for name, entry in entries.items()}
        assert differences(actual, {name: text_of(value) for name, value in values.items()}) == {}
        assert text_of(entries["key order"]["metadata"]) == text_of({"same": values["key order"]})

    def test_retrieve_many_tells_every_key_from_every_other(self, backend: LTMBackend) -> None:
        names = {key: name for name, key in HOSTILE_TEXTS.items()}
        stored = {key: name for place, (key, name) in enumerate(names.items()) if place % 2}
        load(backend, [(key, name, None) for key, name in stored.items()])
        result = assert_success(backend.retrieve_many([*names]))
        actual = {key: entry["value"] for key, entry in result["entries"].items() if entry is not None}
        assert actual == stored
        assert (result["found_count"], result["missing_count"]) == (len(stored), len(names) - len(stored))

    @slow
    def test_retrieve_many_finds_all_of_many(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:04}", number, {"n": number}) for number in range(0, 2500, 5)])
        order = generator(self.seed).sample(range(2500), 2500)
        result = assert_success(backend.retrieve_many(f"k{number:04}" for number in order))
        assert [*result["entries"]] == [f"k{number:04}" for number in order]
        assert (result["found_count"], result["missing_count"]) == (500, 2000)
        actual = {key: entry["value"] for key, entry in result["entries"].items() if entry is not None}
        assert actual == {f"k{number:04}": number for number in range(0, 2500, 5)}

    def test_what_is_changed_after_retrieve_many_is_not_stored(self, backend: LTMBackend) -> None:
        backend.store("k", {"list": [1]}, {"list": [1]})
        before = contents(backend)
        entry: Any = backend.retrieve_many(["k"])["entries"]["k"]
        entry["value"]["list"].append(2)
        entry["metadata"]["list"].append(2)
        assert contents(backend) == before

    def test_retrieve_many_refuses_a_bad_key_by_its_place(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        for name, key in BAD_KEYS.items():
            result = backend.retrieve_many(["k", "missing", key, "k"])
            assert_failure(result, "validation_error")
            assert "keys[2]" in result["error"], name

    def test_retrieve_many_refuses_what_is_no_list_of_keys(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        assert_refused(NO_KEYS, lambda keys: backend.retrieve_many(keys))

    # --- delete_many -------------------------------------------------------------------------------

    def test_a_backend_without_transactions_deletes_no_batch(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        if "transactions" in backend.capabilities:
            assert_same(backend.delete_many([]), {"success": True, "deleted_count": 0})
            return
        for keys in ([], ["k"]):
            assert_failure(backend.delete_many(keys), "validation_error")
        assert contents(backend) == ['["k", 1, null, 1]']

    def test_delete_many_deletes_and_counts_what_is_there(self, transactional: LTMBackend) -> None:
        load(transactional, [(key, "fox", {"n": 1}) for key in "abcd"])
        result = transactional.delete_many(["d", "missing", "a"])
        assert_same(result, {"success": True, "deleted_count": 2})
        assert transactional.list_keys()["keys"] == ["b", "c"]
        assert keys_of(find(transactional, "fox", {"n": 1})) == ["b", "c"]
        assert transactional.store("a", 1)["created"] is True

    def test_delete_many_counts_a_key_that_comes_twice_once(self, transactional: LTMBackend) -> None:
        load(transactional, [(key, 1, None) for key in "abc"])
        assert_same(
            transactional.delete_many(["a", "b", "a", "a", "b", "x", "x"]), {"success": True, "deleted_count": 2}
        )
        assert transactional.list_keys()["keys"] == ["c"]

    def test_delete_many_of_no_keys_or_missing_ones_deletes_nothing(self, transactional: LTMBackend) -> None:
        transactional.store("k", 1)
        collections: list[Iterable[str]] = [[], (), iter([]), ["x"], ["K", "k ", "x"]]
        for keys in collections:
            assert_same(transactional.delete_many(keys), {"success": True, "deleted_count": 0})
        assert contents(transactional) == ['["k", 1, null, 1]']

    def test_delete_many_takes_any_collection_of_keys(self, transactional: LTMBackend) -> None:
        for keys in (("b", "c"), iter(["b", "c"]), (key for key in "bc"), {"b", "c"}):
            load(transactional, [(key, key, None) for key in "abc"])
            assert_same(transactional.delete_many(keys), {"success": True, "deleted_count": 2})

    def test_delete_many_deletes_only_the_very_keys(self, transactional: LTMBackend) -> None:
        keys = [*HOSTILE_TEXTS.values()]
        load(transactional, [(key, 1, None) for key in keys])
        assert_same(transactional.delete_many(keys[::2]), {"success": True, "deleted_count": len(keys[::2])})
        assert {key for key, _, _ in transactional.iterate_all()} == {*keys[1::2]}

    @slow
    def test_delete_many_deletes_all_of_many(self, transactional: LTMBackend) -> None:
        load(transactional, [(f"k{number:04}", number, None) for number in range(0, 2500, 5)])
        order = generator(self.seed).sample(range(2490), 2490)
        result = transactional.delete_many(f"k{number:04}" for number in order)
        assert_same(result, {"success": True, "deleted_count": 498})
        assert [value for _, value, _ in transactional.iterate_all()] == [2490, 2495]

    def test_delete_many_refuses_a_bad_key_by_its_place_and_deletes_nothing(self, transactional: LTMBackend) -> None:
        load(transactional, [("k", 1, None), ("other", 1, None)])
        before = contents(transactional)
        for name, key in BAD_KEYS.items():
            result = transactional.delete_many(["k", "other", key])
            assert_failure(result, "validation_error")
            assert "keys[2]" in result["error"], name
        assert contents(transactional) == before

    def test_delete_many_refuses_what_is_no_list_of_keys(self, transactional: LTMBackend) -> None:
        transactional.store("k", 1)
        assert_refused(NO_KEYS, lambda keys: transactional.delete_many(keys))
        assert contents(transactional) == ['["k", 1, null, 1]']
