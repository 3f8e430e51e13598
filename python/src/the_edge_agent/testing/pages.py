"""The rules of entries and of the times in results: pages of whole entries in three orders."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Final, Literal

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_LIMITS, BAD_PREFIXES, assert_refused
from the_edge_agent.testing.contract import (
    TIMES,
    ContractBase,
    assert_failure,
    assert_same,
    assert_success,
    load,
    text_of,
)
from the_edge_agent.testing.exactness import HOSTILE_TEXTS
from the_edge_agent.testing.full_keys import full_key
from the_edge_agent.testing.iteration import PREFIXES, TREE
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.times import FUTURE, PAST, WHOLE

ORDERS: Final[tuple[Literal["key", "-key", "newest"], ...]] = ("key", "-key", "newest")
BAD_ORDERS: Final[dict[str, Any]] = {"empty": "", "oldest": "oldest", "capitals": "KEY", "None": None, "list": ["key"]}
BAD_PLACES: Final[dict[str, Any]] = {"number": 1, "bytes": b"a", "NUL": "a\0", "lone surrogate": "\ud800"}


def shown(entries: Iterable[Any], following: str | None = None) -> dict[str, Any]:
    """Return the result of entries."""
    return {"success": True, "entries": [*entries], "next": following}


def all_pages(memory: LTMBackend, limit: int, order: Any, **options: Any) -> list[list[dict[str, Any]]]:
    """Return every page, up to the one whose ``next`` is None."""
    pages, after = list[list[dict[str, Any]]](), None
    while True:
        page = assert_success(memory.entries(limit=limit, after=after, order=order, **options))
        assert page.keys() == {"success", "entries", "next"}
        pages.append(page["entries"])
        after = page["next"]
        if after is None:
            return pages
        assert len(pages) < 300, "the pages do not end"


def keys_of_pages(pages: list[list[dict[str, Any]]]) -> list[str]:
    """Return the keys of all pages, in order."""
    return [entry["key"] for page in pages for entry in page]


def store_in_groups(memory: LTMBackend, groups: list[list[str]]) -> None:
    """Store the keys of each group in one transaction, so that they have the same time; the last group is newest."""
    for keys in groups:
        load(memory, [(key, key, None) for key in keys])


class PageRules(ContractBase):
    """Times in results, and pages of whole entries, for backends that declare ``times``."""

    def test_a_backend_without_times_has_no_pages_of_entries(self, backend: LTMBackend) -> None:
        if "times" in backend.capabilities:
            assert_same(backend.entries(), shown([]))
            return
        assert_failure(backend.entries(), "validation_error")
        backend.store("k", 1)
        assert backend.search(prefix="k")["results"][0].keys() == {"key", "value", "metadata", "score"}

    # --- times in results --------------------------------------------------------------------------

    def test_search_answers_with_version_and_times(self, timed: Any) -> None:
        for _ in range(2):
            timed.store("k", "red fox", {"n": 1}, expires_at=FUTURE)
        (whole,) = timed.iterate_entries()
        for arguments in ({}, {"query": "fox"}, {"metadata_filter": {"n": 1}}, {"query": "fox", "prefix": "k"}):
            (entry,) = assert_success(timed.search(**arguments))["results"]
            assert entry.keys() == {"key", "value", "metadata", "score", "version", *TIMES}
            for name in ("key", "value", "metadata", "version", *TIMES):
                assert entry[name] == whole[name], name
            assert entry["version"] == 2

    def test_retrieve_answers_with_times_if_told(self, timed: Any) -> None:
        timed.store("k", 1)
        timed.store("ends", 1, expires_at=FUTURE)
        found = {entry["key"]: entry for entry in timed.iterate_entries()}
        for key, whole in found.items():
            times = {name: whole[name] for name in TIMES}
            expected = {"success": True, "value": 1, "found": True, "metadata": None, "version": 1}
            assert timed.retrieve(key, times=True) == {**expected, **times}
            assert timed.retrieve(key, times=False) == timed.retrieve(key) == expected
            entry = {"value": 1, "metadata": None, "version": 1, **times}
            assert timed.retrieve_many([key, "x"], times=True)["entries"] == {key: entry, "x": None}
        assert found["ends"]["expires_at"] == FUTURE

    def test_a_missing_entry_has_no_times(self, timed: Any) -> None:
        expected = {"success": True, "value": "default", "found": False, "metadata": None, "version": None}
        assert_same(timed.retrieve("k", "default", times=True), {**expected, **dict.fromkeys(TIMES)})
        assert_same(timed.retrieve("k", "default"), expected)

    def test_times_are_in_utc_and_a_store_keeps_the_first(self, timed: Any) -> None:
        before = datetime.now(timezone.utc)
        timed.store("k", 1)
        times: list[Any] = [timed.retrieve("k", times=True)]
        for version in range(2, 5):
            timed.store("k", version, {"n": version})
            times.append(timed.retrieve("k", times=True))
        for entry in times:
            for name in ("created_at", "updated_at"):
                assert entry[name].tzinfo is timezone.utc
                assert abs(entry[name] - before) < timedelta(hours=1)
            assert entry["created_at"] == times[0]["created_at"]
            assert entry["expires_at"] is None
        assert times[0]["created_at"] == times[0]["updated_at"]
        updates = [entry["updated_at"] for entry in times]
        assert updates == sorted(set(updates))

    def test_reads_and_failed_stores_change_no_times(self, timed: Any) -> None:
        timed.store("k", 1)
        before = [*timed.iterate_entries()]
        timed.retrieve("k", times=True)
        timed.search("k")
        timed.store("k", float("nan"))
        if "versions" in timed.capabilities:
            timed.store("k", 2, if_version=0)
        assert [*timed.iterate_entries()] == before

    def test_an_entry_that_is_created_again_has_new_times(self, timed: Any) -> None:
        timed.store("k", 1)
        first: Any = timed.retrieve("k", times=True)["created_at"]
        timed.delete("k")
        timed.store("k", 1)
        second: Any = timed.retrieve("k", times=True)
        assert first < second["created_at"] == second["updated_at"]
        timed.store("k", 1, expires_at=PAST)
        timed.store("k", 1)
        third: Any = timed.retrieve("k", times=True)
        assert second["created_at"] < third["created_at"] == third["updated_at"]

    def test_times_must_be_true_or_false(self, timed: Any) -> None:
        bad = {"1": 1, "text": "yes", "None": None}
        assert_refused(bad, lambda times: timed.retrieve("k", times=times))
        assert_refused(bad, lambda times: timed.retrieve_many(["k"], times=times))

    # --- whole entries -----------------------------------------------------------------------------

    def test_entries_are_those_of_iterate_entries(self, timed: Any) -> None:
        for number, key in enumerate("cab"):
            timed.store(key, [number], {"n": number}, expires_at=FUTURE if number else None)
        whole = [*timed.iterate_entries()]
        assert [entry.keys() for entry in whole] == [WHOLE] * 3
        assert timed.entries() == timed.entries(order="key") == shown(whole)
        assert timed.entries(order="-key") == shown(whole[::-1])
        assert timed.entries(order="newest") == shown([whole[1], whole[0], whole[2]])

    def test_whole_entries_tell_the_lifetime_and_the_index(
        self, timed: Any, touching: Any, indexing: LTMBackend
    ) -> None:
        timed.store("a", 1)
        touching.store("b", 1, ttl=600.5)
        touching.store("c", 1, ttl=100)
        timed.store("d", 1, expires_at=FUTURE)
        indexing.store("e", 1, index=False)
        for entries in ([*timed.iterate_entries()], timed.entries()["entries"]):
            assert [entry["ttl"] for entry in entries] == [None, 600.5, 100.0, None, None]
            assert [type(entry["ttl"]) for entry in entries[1:3]] == [float, float]
            assert [entry["index"] for entry in entries] == [True, True, True, True, False]
        touching.store("b", 2)
        indexing.store("e", 2)
        found = {entry["key"]: entry for entry in timed.iterate_entries()}
        assert (found["b"]["ttl"], found["b"]["expires_at"], found["e"]["index"]) == (None, None, True)

    def test_entries_keep_values_and_metadata_exactly(self, timed: Any) -> None:
        load(timed, [(key, [name, 1.0, -0.0, None], {"s": name}) for name, key in HOSTILE_TEXTS.items()])
        expected = [text_of([*item]) for item in timed.iterate_all()]
        for page in (timed.entries(limit=10_000), timed.entries(limit=10_000, order="-key")):
            found = [text_of([entry["key"], entry["value"], entry["metadata"]]) for entry in page["entries"]]
            assert sorted(found) == sorted(expected)
        assert [entry["key"] for entry in timed.entries(limit=10_000)["entries"]] == sorted(HOSTILE_TEXTS.values())

    def test_expired_entries_are_on_no_page(self, timed: Any) -> None:
        for key in "ace":
            timed.store(key, 1)
        for key in "bd":
            timed.store(key, 1, expires_at=PAST)
        for order, keys in zip(ORDERS, ("ace", "eca", "eca"), strict=True):
            assert keys_of_pages(all_pages(timed, 1, order)) == [*keys]
            assert [len(page) for page in all_pages(timed, 1, order)] == [1, 1, 1]

    # --- pages -------------------------------------------------------------------------------------

    def test_pages_of_each_order_give_every_entry_once(self, timed: Any) -> None:
        groups = [["m", "c", "x"], ["b"], ["z", "a", "y", "k"], ["d", "é", "😀"]]
        store_in_groups(timed, groups)
        has_ties = "transactions" in timed.capabilities
        newest = [key for keys in groups[::-1] for key in (sorted(keys) if has_ties else keys[::-1])]
        keys = sorted(newest)
        for order, expected in zip(ORDERS, (keys, keys[::-1], newest), strict=True):
            for limit in (1, 2, 3, 10, 11, 12):
                pages = all_pages(timed, limit, order)
                assert keys_of_pages(pages) == expected, (order, limit)
                assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
                assert 0 < len(pages[-1]) <= limit

    def test_pages_with_a_prefix_stay_with_it(self, timed: Any) -> None:
        load(timed, [(key, 1, None) for key in TREE])
        for prefix in (None, *PREFIXES):
            keys = sorted(key for key in TREE if key.startswith(prefix or ""))
            for order in ORDERS:
                found = keys_of_pages(all_pages(timed, 7, order, prefix=prefix))
                is_tied = order == "newest" and "transactions" not in timed.capabilities
                expected = keys[::-1] if order == "-key" else keys
                assert (sorted(found) if is_tied else found) == (keys if is_tied else expected), (order, prefix)

    def test_entries_gives_100_unless_told(self, timed: Any) -> None:
        keys = [f"k{number:03}" for number in range(101)]
        load(timed, [(key, 1, None) for key in keys])
        for order, expected in zip(ORDERS[:2], (keys, keys[::-1]), strict=True):
            page = timed.entries(order=order)
            assert [entry["key"] for entry in page["entries"]] == expected[:100]
            assert page["next"] == expected[99]
            last = timed.entries(after=page["next"], order=order)
            assert ([entry["key"] for entry in last["entries"]], last["next"]) == (expected[100:], None)

    def test_in_the_order_of_keys_after_is_any_key(self, timed: Any) -> None:
        load(timed, [(key, 1, None) for key in "bdf"])
        cases = {"": ("bdf", "fdb"), "a": ("bdf", ""), "b": ("df", ""), "c": ("df", "b"), "e": ("f", "db"),
                 "f": ("", "db"), "g": ("", "fdb"), "\U0010ffff" * 512: ("", "fdb")}  # fmt: skip
        for after, (forward, backward) in cases.items():
            for order, keys in zip(ORDERS[:2], (forward, backward), strict=True):
                page = timed.entries(after=after, order=order)
                assert [entry["key"] for entry in page["entries"]] == [*keys], (order, after)

    def test_pages_go_on_while_entries_change(self, timed: Any) -> None:
        store_in_groups(timed, [[f"k{number:02}" for number in range(start, start + 4)] for start in range(0, 24, 4)])
        for order in ORDERS:
            found, after = list[dict[str, Any]](), None
            while True:
                page = assert_success(timed.entries("k", 3, after, order))
                found += page["entries"]
                after = page["next"]
                if after is None:
                    break
                assert_success(timed.store(page["entries"][0]["key"], "changed"))
                assert_success(timed.delete("k"))
                assert_success(timed.store("k", "comes too early or too late"))
            keys = [entry["key"] for entry in found if entry["key"] != "k"]
            assert sorted(keys) == [f"k{number:02}" for number in range(24)], order
            timed.delete("k")

    def test_a_page_goes_on_after_an_entry_that_was_deleted(self, timed: Any) -> None:
        groups = [["a", "b", "c"], ["d", "e", "f"]]
        newest = "defabc" if "transactions" in timed.capabilities else "fedcba"
        for order, keys in zip(ORDERS, ("abcdef", "fedcba", newest), strict=True):
            store_in_groups(timed, groups)
            page = assert_success(timed.entries(limit=2, order=order))
            for key in keys[:2]:
                timed.delete(key)
            following = timed.entries(limit=10, after=page["next"], order=order)
            assert [entry["key"] for entry in following["entries"]] == [*keys[2:]], order

    def test_a_store_moves_an_entry_to_the_front_of_the_newest(self, timed: Any) -> None:
        for key in "abc":
            timed.store(key, 1)
        assert keys_of_pages(all_pages(timed, 2, "newest")) == [*"cba"]
        timed.store("a", 2)
        assert keys_of_pages(all_pages(timed, 2, "newest")) == [*"acb"]

    @slow
    def test_pages_of_many_entries_are_whole(self, timed: Any) -> None:
        store_in_groups(timed, [[f"k{number:04}" for number in range(start, start + 400)] for start in (0, 400, 800)])
        keys = [f"k{number:04}" for number in range(1_200)]
        for order in ORDERS:
            found = keys_of_pages(all_pages(timed, 500, order))
            assert sorted(found) == keys
        assert keys_of_pages(all_pages(timed, 1_200, "-key")) == keys[::-1]

    def test_bad_arguments_of_entries_are_refused(self, timed: Any) -> None:
        timed.store("k", 1)
        assert_refused(BAD_ORDERS, lambda order: timed.entries(order=order))
        assert_refused(BAD_LIMITS, lambda limit: timed.entries(limit=limit))
        assert_refused(BAD_PREFIXES, lambda prefix: timed.entries(prefix))
        for order in ORDERS:
            entries = partial(timed.entries, order=order)
            assert_refused(BAD_PLACES, lambda after: entries(after=after))  # noqa: B023 - called at once
        others = {"a key": "k", "a time alone": "2024-01-01T00:00:00.000000", "a space": " ", "words": "a b"}
        assert_refused(others, lambda after: timed.entries(after=after, order="newest"))

    def test_pages_of_a_namespace_have_its_keys(self, timed: Any, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("a.b")
        for key in ("b", "a", "c"):
            part.store(key, key)
            part.namespace("below").store(key, key)
            timed.store(key, key)
        for order, keys in zip(ORDERS, ("abc", "cba", "cab"), strict=True):
            assert keys_of_pages(all_pages(part, 1, order)) == [*keys]
        page = part.entries(limit=1)
        assert page["next"] == "a"
        assert [entry["key"] for entry in part.entries(after="b")["entries"]] == ["c"]

    def test_nested_pages_go_on_after_full_keys(self, timed: Any, namespaced: LTMBackend) -> None:
        places = [((), "k"), (("b",), "k"), (("b",), "x"), (("b", "c"), "k"), (("c",), "k")]
        part = namespaced.namespace("a")
        for names, key in places:
            part.namespace(*names).store(key, 1)
        timed.store("k", 1)
        full_keys = [full_key(("a", *names), key) for names, key in places]
        assert full_keys == sorted(full_keys)
        for order, expected in (("key", places), ("-key", places[::-1]), ("newest", places[::-1])):
            found = [entry for page in all_pages(part, 2, order, nested=True) for entry in page]
            assert [(entry["namespace"], entry["key"]) for entry in found] == expected
            assert {frozenset(entry) for entry in found} == {frozenset({*WHOLE, "namespace"})}
        assert part.entries(limit=2, nested=True)["next"] == full_keys[1]
        assert part.entries(limit=2, order="-key", nested=True)["next"] == full_keys[3]
        following = part.entries(after=full_keys[2], nested=True)["entries"]
        assert [(entry["namespace"], entry["key"]) for entry in following] == places[3:]

    def test_times_of_a_namespace_are_those_of_the_memory(self, timed: Any, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("a")
        part.store("k", "fox", expires_at=FUTURE)
        part.store("k", "fox", expires_at=FUTURE)
        there, here = timed.retrieve("@a.k", times=True), part.retrieve("k", times=True)
        assert here == there
        assert here["expires_at"] == FUTURE
        assert {name: part.search("fox")["results"][0][name] for name in TIMES} == {name: here[name] for name in TIMES}
        entry: Any = part.retrieve_many(["k"], times=True)["entries"]["k"]
        assert entry["updated_at"] == here["updated_at"]
