"""The rules of store_batch and retrieve_batch: many entries in one call, right counts, all or none if atomic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.core.results import Result
from the_edge_agent.testing.bad_input import BAD_KEYS, NOT_JSON, assert_refused
from the_edge_agent.testing.catalog_bad_input import BAD_ARGUMENTS
from the_edge_agent.testing.catalog_base import (
    FUTURE,
    PAST,
    CatalogBase,
    Entry,
    contents,
    entry_at,
    entry_of,
    id_of,
    keys,
    track,
    track_all,
)
from the_edge_agent.testing.contract import assert_same
from the_edge_agent.testing.exactness import HOSTILE_TEXTS
from the_edge_agent.testing.slow import slow

MANY: Final = 1_500
NO_ENTRIES: Final[dict[str, Any]] = {
    "None": None,
    "number": 1,
    "text": "text",
    "empty text": "",
    "bytes": b"bytes",
    "one entry": entry_of("k"),
    "empty dict": {},
}
BAD_ENTRIES: Final[dict[str, Any]] = {
    "None": None,
    "text": "k",
    "key and hash": ("k", "hash"),
    "pairs": [*entry_of("k").items()],
    "empty": {},
    "no key": {name: value for name, value in entry_of("k").items() if name != "key"},
    "no content_hash": {name: value for name, value in entry_of("k").items() if name != "content_hash"},
    "unknown field": entry_of("k", byte_sise=1),
    "field in capitals": entry_of("k", Key="k"),
    "a field that is not text": {**entry_of("k"), 1: 1},
    "created_at": entry_of("k", created_at=PAST),
    **{
        f"bad {argument}: {name}": {**entry_of("bad"), argument: bad}
        for argument, cases in BAD_ARGUMENTS.items()
        for name, bad in cases.items()
    },
}
UNSERIALIZABLE: Final = {
    f"{name} in {argument}": entry_of("bad", **{argument: {"a": [bad]}})
    for argument in ("metadata", "inlined_value")
    for name, bad in NOT_JSON.items()
}


def stored(count: int) -> dict[str, Any]:
    """Return the result of a batch that stored this number of entries."""
    return {"success": True, "stored_count": count, "failed_count": 0, "errors": []}


def only_failure(result: Result) -> Result:
    """Check that a batch names its one bad entry by key and reason, and return the result as for a single entry."""
    assert result["failed_count"] == len(result["errors"]) == 1, result
    (error,) = result["errors"]
    assert error.keys() == {"key", "error", "error_type"}
    return {"success": False, "error": error["error"], "error_type": error["error_type"]}


class CatalogBatchRules(CatalogBase):
    """Many entries in one call."""

    def test_a_batch_stores_every_entry(self, catalog: CatalogBackend) -> None:
        track(catalog, "there", metadata={"old": 1})
        entries = [
            entry_of(key, metadata={"key": key}, inlined_value=[key], storage_uri=key) for key in ("z", "there", "a")
        ]
        assert_same(catalog.store_batch(entries), stored(3))
        for key in ("z", "there", "a"):
            entry = entry_at(catalog, key)
            assert (entry["metadata"], entry["inlined_value"], entry["storage_uri"]) == ({"key": key}, [key], key)

    def test_a_batch_is_atomic_unless_told(self, catalog: CatalogBackend) -> None:
        for atomic in (True, False):
            assert_same(catalog.store_batch([entry_of("a"), entry_of("b")], atomic=atomic), stored(2))
        assert keys(catalog.list_entries()) == ["a", "b"]

    def test_what_may_be_left_out_may_be_left_out_in_a_batch(self, catalog: CatalogBackend) -> None:
        track(catalog, "k", inlined_value=1, expires_at=None)
        track_all(catalog, [entry_of("k")])
        assert (entry_at(catalog, "k")["inlined_value"], entry_at(catalog, "k")["expires_at"]) == (None, None)
        optional = ("storage_uri", "metadata", "inlined_value")
        track(catalog, "k", storage_uri="s", metadata={"old": 1}, inlined_value=1)
        required = {name: value for name, value in entry_of("k").items() if name not in optional}
        assert_same(catalog.store_batch([required]), stored(1))
        assert {name: entry_at(catalog, "k")[name] for name in optional} == dict(
            zip(optional, (None, {}, None), strict=True)
        )

    def test_an_empty_batch_stores_nothing(self, catalog: CatalogBackend) -> None:
        collections: list[Iterable[Entry]] = [[], (), iter([])]
        for entries in collections:
            for atomic in (True, False):
                assert_same(catalog.store_batch(entries, atomic), stored(0))
        assert contents(catalog) == []

    def test_any_collection_of_entries_is_a_batch(self, catalog: CatalogBackend) -> None:
        entries = [entry_of(key) for key in "ba"]
        for batch in ((entry for entry in entries), tuple(entries), map(MappingProxyType, entries)):
            assert_same(catalog.store_batch(batch), stored(2))

    def test_a_key_that_comes_twice_is_stored_twice_and_the_last_stays(self, catalog: CatalogBackend) -> None:
        names = ("k", "there", "k", "other", "there", "k")
        track(catalog, "there")
        entries = [entry_of(key, content_hash=f"h{place}", metadata={"n": place}) for place, key in enumerate(names)]
        assert_same(catalog.store_batch(entries), stored(6))
        hashes = {entry["key"]: (entry["content_hash"], entry["metadata"]) for entry in catalog.list_entries()}
        assert hashes == {"k": ("h5", {"n": 5}), "other": ("h3", {"n": 3}), "there": ("h4", {"n": 4})}
        assert [track(catalog, key)["created"] for key in ("k", "other", "there", "new")] == [False] * 3 + [True]

    def test_what_expires_within_a_batch_is_created_anew_by_it(self, catalog: CatalogBackend) -> None:
        track_all(catalog, map(entry_of, ("expires", "stays")))
        ends = {"expires": PAST, "stays": FUTURE}
        track_all(catalog, [entry_of(key, expires_at=end) for key, end in ends.items()] + [*map(entry_of, ends)])
        expired, stayed = entry_at(catalog, "expires"), entry_at(catalog, "stays")
        assert expired["created_at"] == expired["updated_at"] == stayed["updated_at"] > stayed["created_at"]
        track_all(catalog, [entry_of("expires", expires_at=PAST)] * 2)
        assert keys(catalog.list_entries()) == ["stays"]

    def test_a_batch_keeps_what_was_created_when(self, catalog: CatalogBackend) -> None:
        track(catalog, "there")
        track(catalog, "expired", expires_at=PAST)
        before = entry_at(catalog, "there")
        track_all(catalog, map(entry_of, ("new", "there", "expired")))
        after = entry_at(catalog, "there")
        assert after["created_at"] == before["created_at"] < after["updated_at"]
        for key in ("new", "expired"):
            entry = entry_at(catalog, key)
            assert entry["created_at"] == entry["updated_at"] == after["updated_at"], "one moment for the whole batch"

    def test_a_batch_keeps_keys_exactly(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, metadata={"name": name}) for name, key in HOSTILE_TEXTS.items()))
        listed = {entry["key"]: (entry["metadata"], entry["id"]) for entry in catalog.list_entries(limit=1000)}
        assert listed == {key: ({"name": name}, id_of(key)) for name, key in HOSTILE_TEXTS.items()}

    @slow
    def test_a_large_batch_is_one(self, catalog: CatalogBackend) -> None:
        order = [number * 997 % MANY for number in range(MANY)] + [*range(100)]
        entries = [entry_of(f"k{n:04}", byte_size=place, metadata={"n": n}) for place, n in enumerate(order)]
        track_all(catalog, entries)
        sizes = {entry["key"]: entry["byte_size"] for entry in catalog.list_entries(limit=10_000)}
        assert sizes == {entry["key"]: entry["byte_size"] for entry in entries}
        assert len({entry["updated_at"] for entry in catalog.list_entries(limit=10_000)}) == 1
        refused = catalog.store_batch([*(entry_of(f"x{number}") for number in range(MANY)), entry_of("")])
        assert refused["success"] is False
        assert catalog.list_entries("x") == []

    # --- bad entries -------------------------------------------------------------------------------

    @pytest.fixture
    def prepared(self, catalog: CatalogBackend) -> CatalogBackend:
        """Return a catalog with an entry that batches replace."""
        track(catalog, "there", content_hash="before")
        return catalog

    @pytest.mark.parametrize("error_type", ["validation_error", "serialization_error"])
    def test_one_bad_entry_and_an_atomic_batch_stores_nothing(self, prepared: CatalogBackend, error_type: str) -> None:
        before, cases = contents(prepared), BAD_ENTRIES if error_type == "validation_error" else UNSERIALIZABLE

        def store(bad: Any) -> Result:
            result = prepared.store_batch([entry_of("new"), entry_of("there"), bad, entry_of("z")])
            assert (result["success"], result["stored_count"]) == (False, 0)
            assert (result["error_type"], bool(result["error"])) == (result["errors"][0]["error_type"], True)
            return only_failure(result)

        assert_refused(cases, store, error_type)
        assert contents(prepared) == before

    @pytest.mark.parametrize("error_type", ["validation_error", "serialization_error"])
    def test_of_a_batch_that_is_not_atomic_only_the_bad_entry_is_missing(
        self, prepared: CatalogBackend, error_type: str
    ) -> None:
        def store(bad: Any) -> Result:
            good = [entry_of(key, content_hash="h") for key in ("new", "there", "z")]
            result = prepared.store_batch([good[0], bad, *good[1:]], atomic=False)
            assert (result["success"], result["stored_count"]) == (True, 3)
            return only_failure(result)

        assert_refused(BAD_ENTRIES if error_type == "validation_error" else UNSERIALIZABLE, store, error_type)
        assert [(entry["key"], entry["content_hash"]) for entry in prepared.list_entries()] == [
            ("new", "h"),
            ("there", "h"),
            ("z", "h"),
        ]

    @pytest.mark.parametrize("atomic", [True, False])
    def test_every_bad_entry_is_reported_with_its_key_in_order(self, prepared: CatalogBackend, atomic: bool) -> None:
        bad: list[Any] = [
            entry_of("a", content_hash=""),
            entry_of("b", inlined_value=[{1}]),
            entry_of(""),
            {"key": "c"},
            None,
            entry_of("a", byte_size=-1),
        ]
        result = prepared.store_batch([entry_of("new"), *bad, entry_of("there")], atomic)
        assert [error["key"] for error in result["errors"]] == ["a", "b", "", "c", None, "a"]
        kinds = ["validation_error", "serialization_error", *["validation_error"] * 4]
        assert [error["error_type"] for error in result["errors"]] == kinds
        assert all(error["error"].strip() for error in result["errors"])
        counts = (result["success"], result["stored_count"], result["failed_count"])
        assert counts == ((False, 0, 6) if atomic else (True, 2, 6))
        assert keys(prepared.list_entries()) == (["there"] if atomic else ["new", "there"])

    def test_a_batch_of_bad_entries_alone_stores_nothing(self, prepared: CatalogBackend) -> None:
        before = contents(prepared)
        result = prepared.store_batch([entry_of(key) for key in BAD_KEYS.values()], atomic=False)
        assert (result["success"], result["stored_count"], result["failed_count"]) == (True, 0, len(BAD_KEYS))
        assert contents(prepared) == before

    def test_what_is_no_list_of_entries_is_refused(self, prepared: CatalogBackend) -> None:
        before = contents(prepared)
        for atomic in (True, False):
            assert_refused(NO_ENTRIES, partial(prepared.store_batch, atomic=atomic))
        wrong: dict[str, Any] = {"None": None, "number": 1, "text": "false"}
        assert_refused(wrong, lambda atomic: prepared.store_batch([entry_of("k")], atomic))
        assert contents(prepared) == before

    @pytest.mark.parametrize("atomic", [True, False])
    def test_a_generator_that_fails_stores_nothing(self, catalog: CatalogBackend, atomic: bool) -> None:
        def fail_after_one() -> Iterator[Entry]:
            yield entry_of("k")
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            catalog.store_batch(fail_after_one(), atomic)
        assert contents(catalog) == []

    # --- retrieve_batch ----------------------------------------------------------------------------

    def test_retrieve_batch_answers_for_every_key(self, catalog: CatalogBackend) -> None:
        track_all(catalog, [entry_of("a", metadata={"n": 1}, inlined_value=0), entry_of("b"), entry_of("c")])
        catalog.delete_entry("c")
        result = catalog.retrieve_batch(["b", "missing", "a", "c"])
        assert result == {
            "success": True,
            "found_count": 2,
            "missing_count": 2,
            "entries": {"b": entry_at(catalog, "b"), "missing": None, "a": entry_at(catalog, "a"), "c": None},
        }
        assert [*result["entries"]] == ["b", "missing", "a", "c"]

    def test_retrieve_batch_counts_a_key_once(self, catalog: CatalogBackend) -> None:
        track(catalog, "a")
        result = catalog.retrieve_batch(["a", "x", "a", "x", "x"])
        assert ([*result["entries"]], result["found_count"], result["missing_count"]) == (["a", "x"], 1, 1)

    def test_retrieve_batch_of_nothing_finds_nothing(self, catalog: CatalogBackend) -> None:
        track(catalog, "a")
        collections: list[Iterable[str]] = [[], (), iter([])]
        for requested in collections:
            expected = {"success": True, "entries": {}, "found_count": 0, "missing_count": 0}
            assert_same(catalog.retrieve_batch(requested), expected)

    def test_retrieve_batch_tells_keys_apart(self, catalog: CatalogBackend) -> None:
        texts = [*HOSTILE_TEXTS.values()]
        track_all(catalog, map(entry_of, texts[::2]))
        result = catalog.retrieve_batch(key for key in texts)
        assert (result["found_count"], result["missing_count"]) == (len(texts[::2]), len(texts[1::2]))
        for place, key in enumerate(texts):
            entry = result["entries"][key]
            assert (entry and entry["key"]) == (None if place % 2 else key), ascii(key)

    @slow
    def test_retrieve_batch_of_many_keys_is_complete(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(f"k{number}", byte_size=number) for number in range(0, MANY, 2)))
        result = catalog.retrieve_batch(f"k{number}" for number in range(MANY))
        assert (result["found_count"], result["missing_count"]) == (MANY // 2, MANY // 2)
        sizes = {key: entry and entry["byte_size"] for key, entry in result["entries"].items()}
        assert sizes == {f"k{number}": None if number % 2 else number for number in range(MANY)}
