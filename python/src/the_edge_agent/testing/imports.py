"""The rules of import_entries: copies of entries that keep everything, and what happens to keys that have an entry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_KEYS, BAD_METADATA, NOT_JSON, assert_refused
from the_edge_agent.testing.batches import NO_ENTRIES
from the_edge_agent.testing.contract import (
    ContractBase,
    OpenBackend,
    assert_conflict,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    find,
    keys_of,
    load,
    text_of,
)
from the_edge_agent.testing.exactness import HOSTILE_TEXTS, METADATA, VALUES
from the_edge_agent.testing.expiry import BAD_TTLS
from the_edge_agent.testing.lifetimes import LONG, SOON, wait_until_expired
from the_edge_agent.testing.pages import ORDERS
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.times import FUTURE, MOMENTS, NO_MOMENTS, PAST
from the_edge_agent.testing.touches import assert_ends_in
from the_edge_agent.testing.workers import run_in_threads

CREATED: Final = datetime(2019, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
UPDATED: Final = datetime(2020, 6, 7, 8, 9, 10, 111_213, tzinfo=timezone.utc)
WHOLE: Final[dict[str, Any]] = {
    "key": "k",
    "value": ["red fox", 1.0, None],
    "metadata": {"n": 1},
    "version": 7,
    "created_at": CREATED,
    "updated_at": UPDATED,
    "expires_at": FUTURE,
    "ttl": 3600.25,
    "index": True,
}
WAYS: Final = ("fail", "skip", "replace")
BAD_WAYS: Final[dict[str, Any]] = {"empty": "", "other": "ignore", "capitals": "FAIL", "None": None, "true": True}
BAD_ENTRIES: Final[dict[str, Any]] = {
    "None": None,
    "text": "k",
    "empty": {},
    "no key": {"value": 1},
    "no value": {"key": "k"},
    "unknown field": {"key": "k", "value": 1, "vaule": 1},
    "if_version": {"key": "k", "value": 1, "if_version": 0},
    "version 0": {"key": "k", "value": 1, "version": 0},
    "version true": {"key": "k", "value": 1, "version": True},
    "version text": {"key": "k", "value": 1, "version": "1"},
    "version None": {"key": "k", "value": 1, "version": None},
    "version 2^63": {"key": "k", "value": 1, "version": 2**63},
    "index 1": {"key": "k", "value": 1, "index": 1},
    "namespace text": {"key": "k", "value": 1, "namespace": "a"},
    "namespace number": {"key": "k", "value": 1, "namespace": 1},
    "namespace empty name": {"key": "k", "value": 1, "namespace": ("",)},
    "ttl without expires_at": {"key": "k", "value": 1, "ttl": 60},
}


def counts(imported: int = 0, skipped: int = 0, replaced: int = 0) -> dict[str, int]:
    """Return the counts in the result of an import."""
    return {"imported_count": imported, "skipped_count": skipped, "replaced_count": replaced}


def done(imported: int = 0, skipped: int = 0, replaced: int = 0) -> dict[str, Any]:
    """Return the result of an import."""
    return {"success": True, **counts(imported, skipped, replaced)}


def assert_failed(result: Any, error_type: str, **expected: int) -> None:
    """Check that an import failed with these counts."""
    shown = {name: result.pop(name) for name in counts()}
    assert_failure(result, error_type)
    assert shown == counts(**expected)


def assert_in_conflict(result: Any, key: str, version: int, **expected: int) -> None:
    """Check that an import failed with a conflict and these counts."""
    shown = {name: result.pop(name) for name in counts()}
    assert_conflict(result, key, version)
    assert shown == counts(**expected)


def plain(*keys: str) -> list[dict[str, Any]]:
    """Return entries with nothing but a key and a value."""
    return [{"key": key, "value": key} for key in keys]


class ImportRules(ContractBase):
    """Copies of entries, for backends that declare ``import`` (and ``times``)."""

    def test_a_backend_without_import_says_so(self, backend: LTMBackend) -> None:
        if "import" in backend.capabilities:
            assert_same(backend.import_entries([]), done())
            return
        assert_failure(backend.import_entries(plain("k")), "validation_error")
        assert contents(backend) == []

    def test_a_copy_keeps_everything(self, importing: Any) -> None:
        assert_same(importing.import_entries([WHOLE]), done(1))
        assert [*importing.iterate_entries()] == [WHOLE]
        assert importing.entries()["entries"] == [WHOLE]
        expected = {"success": True, "value": WHOLE["value"], "found": True, "metadata": {"n": 1}, "version": 7}
        times = {name: WHOLE[name] for name in ("created_at", "updated_at", "expires_at")}
        assert importing.retrieve("k", times=True) == {**expected, **times}
        entry: Any = importing.search("fox", {"n": 1})["results"][0]
        assert {name: entry[name] for name in (*times, "version")} == {**times, "version": 7}

    def test_only_key_and_value_are_required(self, importing: Any) -> None:
        assert_same(importing.import_entries(plain("a", "b")), done(2))
        for entry in importing.iterate_entries():
            assert (entry["metadata"], entry["version"], entry["expires_at"]) == (None, 1, None)
            assert (entry["ttl"], entry["index"]) == (None, True)
            assert entry["created_at"] == entry["updated_at"]
            assert_ends_in(entry["updated_at"], 0)
        assert keys_of(find(importing, "a")) == ["a"]

    def test_each_part_is_kept_alone(self, importing: Any) -> None:
        parts = {name: WHOLE[name] for name in ("metadata", "version", "created_at", "updated_at", "expires_at")}
        entries = [{"key": name, "value": 1, name: part} for name, part in parts.items()]
        assert_same(importing.import_entries([*entries, {"key": "index", "value": "fox", "index": False}]), done(6))
        found: dict[str, Any] = {entry["key"]: entry for entry in importing.iterate_entries()}
        assert {name: found[name][name] for name in parts} == parts
        assert found["index"]["index"] is False
        assert keys_of(find(importing, "fox")) == []
        for name in ("created_at", "updated_at"):
            other = "updated_at" if name == "created_at" else "created_at"
            assert_ends_in(found[name][other], 0)

    def test_times_are_taken_in_any_zone(self, importing: Any) -> None:
        for name, moment in MOMENTS.items():
            entry: dict[str, Any] = {
                "key": name,
                "value": 1,
                "created_at": moment,
                "updated_at": moment,
                "expires_at": moment,
            }
            assert_same(importing.import_entries([entry]), done(1))
        for found in importing.iterate_entries():
            assert (found["created_at"], found["updated_at"], found["expires_at"]) == (FUTURE, FUTURE, FUTURE)
            assert found["updated_at"].tzinfo is timezone.utc

    def test_a_copy_keeps_values_metadata_and_keys_exactly(self, importing: Any) -> None:
        values = [{"key": f"value {name}", "value": value} for name, value in VALUES.items() if "2 MB" not in name]
        metadata = [{"key": f"metadata {name}", "value": 1, "metadata": data} for name, data in METADATA.items()]
        entries = [*values, *metadata, *({"key": key, "value": name} for name, key in HOSTILE_TEXTS.items())]
        assert_same(importing.import_entries(entries), done(len(entries)))
        expected = {each["key"]: text_of([each["value"], each.get("metadata")]) for each in entries}
        assert {key: text_of([value, data]) for key, value, data in importing.iterate_all()} == expected

    def test_newest_first_goes_by_the_time_of_a_copy(self, importing: Any) -> None:
        times = {"a": UPDATED, "b": CREATED, "c": FUTURE, "d": UPDATED, "e": PAST}
        importing.store("now", "fox")
        entries = [{"key": key, "value": "fox", "updated_at": time} for key, time in times.items()]
        assert_same(importing.import_entries(entries), done(5))
        expected = ["c", "now", "a", "d", "b", "e"]
        assert keys_of(find(importing)) == keys_of(find(importing, "fox")) == expected
        assert [entry["key"] for entry in importing.entries(order="newest")["entries"]] == expected

    def test_a_store_over_a_copy_goes_on_with_its_version(self, importing: Any, versioned: LTMBackend) -> None:
        importing.import_entries([WHOLE])
        assert_conflict(versioned.store("k", 1, if_version=1), "k", 7)
        assert versioned.store("k", 1, if_version=7)["version"] == 8
        (entry,) = importing.iterate_entries()
        assert entry["created_at"] == CREATED
        assert entry["updated_at"] > UPDATED
        assert (entry["ttl"], entry["expires_at"]) == (None, None)

    def test_the_lifetime_of_a_copy_is_renewed(self, importing: Any, touching: Any) -> None:
        assert_same(importing.import_entries([WHOLE]), done(1))
        assert importing.retrieve("k", times=True)["expires_at"] == FUTURE
        assert_ends_in(touching.touch("k")["expires_at"], 3600.25)

    def test_a_copy_that_has_expired_does_not_exist(self, importing: Any) -> None:
        assert_same(importing.import_entries([{**WHOLE, "expires_at": PAST}]), done(1))
        assert importing.retrieve("k")["found"] is False
        assert contents(importing) == []
        assert_same(importing.import_entries([WHOLE]), done(1))
        assert importing.retrieve("k")["version"] == 7

    def test_an_expired_entry_is_no_conflict(self, importing: Any, expiring: LTMBackend) -> None:
        for way in WAYS:
            expiring.store("k", 1, ttl=SOON)
            wait_until_expired(expiring, SOON, "k")
            assert_same(importing.import_entries([WHOLE], way), done(1))
            assert [*importing.iterate_entries()] == [WHOLE]

    # --- keys that have an entry -------------------------------------------------------------------

    def test_fail_stores_nothing_of_the_batch_and_names_the_entry(self, importing: Any) -> None:
        for _ in range(3):
            importing.store("k", "there")
        before = [*importing.iterate_entries()]
        for result in (
            importing.import_entries([*plain("a"), WHOLE, *plain("b")]),
            importing.import_entries([*plain("a"), WHOLE], "fail"),
            importing.import_entries([WHOLE], on_conflict="fail"),
        ):
            assert_in_conflict(result, "k", 3)
        assert [*importing.iterate_entries()] == before

    def test_skip_keeps_the_entry_that_is_there(self, importing: Any) -> None:
        importing.store("k", "there", {"n": 5})
        (before,) = importing.iterate_entries()
        assert_same(importing.import_entries([*plain("a"), WHOLE, *plain("z")], "skip"), done(2, skipped=1))
        found = {entry["key"]: entry for entry in importing.iterate_entries()}
        assert found.keys() == {"a", "k", "z"}
        assert found["k"] == before

    def test_replace_replaces_the_entry_as_a_whole(self, importing: Any) -> None:
        for _ in range(9):
            importing.store("k", "hound there", {"m": 5})
        assert_same(importing.import_entries([*plain("a"), WHOLE, *plain("z")], "replace"), done(2, replaced=1))
        found = {entry["key"]: entry for entry in importing.iterate_entries()}
        assert found["k"] == WHOLE
        assert keys_of(find(importing, "hound")) == keys_of(find(importing, None, {"m": 5})) == []
        assert keys_of(find(importing, "fox", {"n": 1})) == ["k"]
        assert_same(importing.import_entries(plain("k"), "replace"), done(replaced=1))
        (entry,) = importing.iterate_entries("k")
        assert (entry["version"], entry["expires_at"], entry["ttl"], entry["metadata"]) == (1, None, None, None)
        assert entry["created_at"] == entry["updated_at"] > UPDATED
        assert keys_of(find(importing, "fox")) == []

    def test_a_key_that_comes_twice_is_a_conflict_too(self, importing: Any) -> None:
        twice = [{"key": "k", "value": 1, "version": 4}, *plain("a"), {"key": "k", "value": 2, "version": 5}]
        assert_in_conflict(importing.import_entries(twice), "k", 4)
        assert contents(importing) == []
        assert_same(importing.import_entries(twice, "skip"), done(2, skipped=1))
        assert contents(importing) == ['["a", "a", null, 1]', '["k", 1, null, 4]']
        assert_same(importing.import_entries(twice, "skip"), done(skipped=3))
        assert_same(importing.import_entries(twice, "replace"), done(replaced=3))
        assert contents(importing) == ['["a", "a", null, 1]', '["k", 2, null, 5]']
        assert_success(importing.delete("k"))
        assert_same(importing.import_entries([*twice, *twice[:1]], "replace"), done(1, replaced=3))
        assert contents(importing) == ['["a", "a", null, 1]', '["k", 1, null, 4]']

    def test_similar_keys_are_different_entries(self, importing: Any) -> None:
        keys = ("a", "A", "a ", "á", "a\u0301", "ª", "@a.k", "@A.k")
        assert_same(importing.import_entries(plain(*keys)), done(len(keys)))
        assert {key: value for key, value, _ in importing.iterate_all()} == {key: key for key in keys}

    # --- collections and batches -------------------------------------------------------------------

    def test_any_collection_of_entries_can_be_imported(self, importing: Any) -> None:
        def generate() -> Iterator[dict[str, Any]]:
            yield from plain("b", "a")

        nothing: tuple[Iterable[dict[str, Any]], ...] = ([], (), iter([]))
        for batch in nothing:
            assert_same(importing.import_entries(batch), done())
        assert_same(importing.import_entries(generate()), done(2))
        assert_same(importing.import_entries(tuple(plain("c", "d"))), done(2))
        assert_same(importing.import_entries(map(MappingProxyType, plain("e"))), done(1))
        assert importing.list_keys()["keys"] == [*"abcde"]

    def test_entries_are_imported_a_thousand_in_a_transaction(self, importing: Any) -> None:
        keys = [f"k{number:04}" for number in range(2_150)]
        importing.store(keys[2_100], "there")
        assert_in_conflict(importing.import_entries(iter(plain(*keys))), keys[2_100], 1, imported=2_000)
        assert importing.count()["count"] == 2_001
        assert_same(importing.import_entries(plain(*keys), "skip"), done(149, skipped=2_001))
        assert_same(importing.import_entries(plain(*keys[:1_100]), "replace"), done(replaced=1_100))
        assert importing.count()["count"] == 2_150

    @slow
    def test_a_key_may_come_again_in_a_later_transaction(self, importing: Any) -> None:
        entries = [*plain("k"), *plain(*(f"x{number:04}" for number in range(1_000))), {"key": "k", "value": 2}]
        assert_in_conflict(importing.import_entries(entries), "k", 1, imported=1_000)
        importing.delete_all("")
        assert_same(importing.import_entries(entries, "skip"), done(1_001, skipped=1))
        assert importing.retrieve("k")["value"] == "k"
        importing.delete_all("")
        assert_same(importing.import_entries(entries, "replace"), done(1_001, replaced=1))
        assert importing.retrieve("k")["value"] == 2

    def test_a_bad_entry_of_a_later_transaction_is_named_by_its_place(self, importing: Any) -> None:
        entries = [*plain(*(f"k{number:04}" for number in range(1_002))), {"key": "bad", "value": math.nan}]
        result = importing.import_entries(entries)
        assert "entries[1002]" in result["error"]
        assert_failed(result, "serialization_error", imported=1_000)
        assert importing.count()["count"] == 1_000

    def test_a_generator_that_fails_keeps_earlier_transactions(self, importing: Any) -> None:
        def fail_after(number: int) -> Iterator[dict[str, Any]]:
            yield from plain(*(f"k{place:04}" for place in range(number)))
            raise KeyError("mine")

        for number, stored in ((3, 0), (1_003, 1_000)):
            with pytest.raises(KeyError, match="mine"):
                importing.import_entries(fail_after(number))
            assert importing.count()["count"] == stored

    # --- a whole memory ----------------------------------------------------------------------------

    def test_a_copy_of_a_memory_is_equal_entry_for_entry(self, importing: Any, namespaced: LTMBackend) -> None:
        source, target = namespaced.namespace("source"), namespaced.namespace("target")
        fill_with_everything(source)
        entries = [*source.iterate_entries()]
        assert len(entries) > 10
        assert_same(target.import_entries(source.iterate_entries()), done(len(entries)))
        assert [*target.iterate_entries()] == entries
        for order in ORDERS:
            assert target.entries(order=order) == source.entries(order=order)
        for query in (None, "fox", "hound", "-fox", "deep"):
            assert target.search(query, limit=100) == source.search(query, limit=100)
        assert_same(importing.import_entries([*importing.iterate_entries()], "skip"), done(skipped=2 * len(entries)))

    def test_a_copy_of_a_memory_with_its_namespaces_is_equal(self, importing: Any, namespaced: LTMBackend) -> None:
        source, target = namespaced.namespace("a", "b"), importing.namespace("c.d")
        for names in ((), ("x",), ("x", "y/z"), ("%",)):
            fill_with_everything(source.namespace(*names))
        entries = [*source.iterate_entries(nested=True)]
        assert_same(target.import_entries(source.iterate_entries(nested=True)), done(len(entries)))
        assert [*target.iterate_entries(nested=True)] == entries
        assert target.list_namespaces() == source.list_namespaces()
        for query in (None, "fox"):
            found = [memory.search(query, limit=1_000, nested=True) for memory in (source, target)]
            assert found[0] == found[1]

    def test_namespace_places_an_entry_below_this_memory(self, importing: Any, namespaced: LTMBackend) -> None:
        entries = [{**entry, "namespace": names} for names in (("x",), ["x", "y"], ()) for entry in plain("k")]
        assert_same(namespaced.namespace("a").import_entries(entries), done(3))
        assert importing.list_keys()["keys"] == ["@a.k", "@a/x.k", "@a/x/y.k"]
        assert_same(importing.import_entries(entries[:1]), done(1))
        assert namespaced.namespace("x").retrieve("k")["value"] == "k"

    def test_a_conflict_of_an_import_names_the_key_in_the_namespace(
        self, importing: Any, namespaced: LTMBackend
    ) -> None:
        part = namespaced.namespace("a")
        for memory in (part, part.namespace("b")):
            memory.store("k", 1)
            memory.store("k", 1)
        assert_in_conflict(part.import_entries(plain("x", "k")), "k", 2)
        below = [{"key": "k", "value": 1, "namespace": ("b",)}]
        assert_in_conflict(part.import_entries(below), "@a/b.k", 2)
        assert_in_conflict(importing.import_entries(below + plain("@a.k")), "@a.k", 2)
        assert part.list_keys()["keys"] == ["k"]

    def test_an_import_into_another_backend_on_the_store_is_seen(self, importing: Any, reopen: OpenBackend) -> None:
        with reopen() as other:
            assert_same(other.import_entries([WHOLE]), done(1))
        assert [*importing.iterate_entries()] == [WHOLE]

    def test_threads_that_import_the_same_store_each_entry_once(self, importing: Any) -> None:
        entries = [{**WHOLE, "key": f"k{number}"} for number in range(40)]
        results = run_in_threads(importing.import_entries, [(entries, "skip")] * 4)
        assert sum(assert_success(result)["imported_count"] for result in results) == 40
        assert sum(result["skipped_count"] for result in results) == 120
        assert [*importing.iterate_entries()] == sorted(entries, key=lambda entry: str(entry["key"]))

    # --- bad arguments -----------------------------------------------------------------------------

    def assert_entries_refused(self, backend: LTMBackend, cases: dict[str, Any], error_type: str) -> None:
        """Check that each bad entry, after one good entry, is refused by its place, and that nothing is stored."""
        for name, case in cases.items():
            result = backend.import_entries([*plain("good"), case, *plain("other")], "replace")
            assert "entries[1]" in result.get("error", ""), name
            assert_failed(result, error_type)
        assert contents(backend) == []

    def test_a_bad_entry_is_named_and_nothing_is_imported(self, importing: Any) -> None:
        cases = dict(BAD_ENTRIES)
        cases |= {f"key {name}": {"key": key, "value": 1} for name, key in BAD_KEYS.items()}
        cases |= {f"metadata {name}": {"key": "k", "value": 1, "metadata": data} for name, data in BAD_METADATA.items()}
        for field in ("created_at", "updated_at", "expires_at"):
            cases |= {f"{field} {name}": {"key": "k", "value": 1, field: bad} for name, bad in NO_MOMENTS.items()}
        for name, ttl in BAD_TTLS.items():
            cases[f"ttl {name}"] = {"key": "k", "value": 1, "ttl": ttl, "expires_at": FUTURE}
        self.assert_entries_refused(importing, cases, "validation_error")

    def test_a_bad_value_is_named_and_nothing_is_imported(self, importing: Any) -> None:
        cases = {name: {"key": "k", "value": [value]} for name, value in NOT_JSON.items()}
        self.assert_entries_refused(importing, cases, "serialization_error")

    def test_bad_arguments_of_import_are_refused(self, importing: Any) -> None:
        assert_refused(NO_ENTRIES, lambda entries: importing.import_entries(entries))
        assert_refused(BAD_WAYS, lambda way: importing.import_entries(plain("k"), way))
        assert contents(importing) == []

    def test_an_error_of_an_import_shows_no_value(self, importing: Any) -> None:
        importing.store("k", "canary")
        for entry in (
            {"key": "k", "value": "canary"},
            {"key": "x", "value": ["canary", math.nan]},
            {"key": "x", "value": "canary", "unknown": "canary"},
        ):
            result = importing.import_entries([entry])
            assert result["success"] is False
            assert "canary" not in str(result)


def fill_with_everything(memory: LTMBackend) -> None:
    """Store entries of every kind: with several versions, times, lifetimes, and without words."""
    load(memory, [(key, f"fox {name}", {"s": name}) for name, key in [*HOSTILE_TEXTS.items()][:12]])
    for version in range(3):
        memory.store("stored thrice", ["hound", version], {"n": version})
    memory.store("ends", "fox", expires_at=FUTURE)
    memory.store("lives", {"deep": [1.0, -0.0, 2**70]}, ttl=LONG)
    memory.store("lives long", 1, ttl=LONG + 0.25)
    memory.store("no words", "fox", {"n": None}, index=False)
    memory.touch("lives", 7_000.5)
    memory.import_entries([{**WHOLE, "key": "old", "updated_at": CREATED - timedelta(days=1)}])
