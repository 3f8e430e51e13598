"""The rules of list_keys and count: pages of keys in the order of code points, and the number of entries."""

from __future__ import annotations

from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import ContractBase, assert_same, assert_success, load
from the_edge_agent.testing.exactness import HOSTILE_TEXTS
from the_edge_agent.testing.iteration import LAST, PREFIXES, TREE
from the_edge_agent.testing.slow import slow

AFTERS: Final = (
    *("", "A", "Z", "a", "a ", "a!", "a%", "a/b", "a_b", "aaa", "b", "á", "a\u0301", "\x01", "\x7f", "zzz", "日"),
    *(
        "\ud7ff",
        "\ue000",
        "\uffff",
        "\U00010000",
        LAST,
        LAST * 2,
        LAST * 3,
        "k" * 511,
        "k" * 512,
        LAST * 512,
        "' OR 1=1",
    ),
)


def listed(keys: list[str], following: str | None = None) -> dict[str, Any]:
    """Return the result of list_keys."""
    return {"success": True, "keys": keys, "next": following}


def all_pages(backend: LTMBackend, prefix: str | None, limit: int) -> list[list[str]]:
    """Return every page, up to the one whose ``next`` is None."""
    pages, after = [], None
    while True:
        page = assert_success(backend.list_keys(prefix, limit, after))
        pages.append(page["keys"])
        after = page["next"]
        if after is None:
            return pages
        assert len(pages) < 200, "the pages do not end"


class ListingRules(ContractBase):
    """Listing keys without reading the entries."""

    def test_an_empty_store_has_no_keys(self, backend: LTMBackend) -> None:
        for prefix in (None, "", "k"):
            assert_same(backend.list_keys(prefix), listed([]))
            assert_same(backend.count(prefix), {"success": True, "count": 0})

    def test_list_keys_is_in_the_order_of_code_points(self, backend: LTMBackend) -> None:
        keys = {*HOSTILE_TEXTS.values(), *TREE}
        load(backend, [(key, 1, None) for key in keys])
        assert_same(backend.list_keys(limit=1000), listed(sorted(keys)))

    def test_list_keys_lists_100_unless_told(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:03}", number, None) for number in range(101)])
        keys = [f"k{number:03}" for number in range(101)]
        assert_same(backend.list_keys(), listed(keys[:100], "k099"))
        assert_same(backend.list_keys(after="k099"), listed(["k100"]))
        assert_same(backend.list_keys(limit=101), listed(keys))
        assert_same(backend.list_keys(limit=10_000), listed(keys))

    def test_next_is_none_exactly_when_nothing_follows(self, backend: LTMBackend) -> None:
        for number in range(1, 7):
            backend.store(f"k{number}", 1)
            backend.store(f"x{number}", 1)
            for limit in range(1, 8):
                keys = [f"k{each}" for each in range(1, number + 1)]
                expected = listed(keys[:limit], keys[limit - 1] if limit < number else None)
                assert_same(backend.list_keys("k", limit), expected)

    def test_pages_give_every_key_exactly_once(self, backend: LTMBackend) -> None:
        load(backend, [(key, 1, None) for key in TREE])
        for limit in (1, 2, 7, len(TREE) - 1, len(TREE), len(TREE) + 1):
            pages = all_pages(backend, None, limit)
            assert [key for page in pages for key in page] == sorted(TREE)
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
            assert 0 < len(pages[-1]) <= limit

    def test_prefix_after_and_limit_hold_together(self, backend: LTMBackend) -> None:
        load(backend, [(key, 1, None) for key in TREE])
        for prefix in (None, *PREFIXES):
            among = sorted(key for key in TREE if key.startswith(prefix or ""))
            assert [key for page in all_pages(backend, prefix, 3) for key in page] == among, ascii(prefix)
            for after in AFTERS if prefix in (None, "a", "a%", LAST) else ():
                left = [key for key in among if key > after]
                expected = listed(left[:2], left[1] if len(left) > 2 else None)
                assert_same(backend.list_keys(prefix, 2, after), expected)

    def test_pages_go_on_after_a_key_that_is_not_there(self, backend: LTMBackend) -> None:
        load(backend, [(key, 1, None) for key in "bdf"])
        for after, keys in (("", "bdf"), ("a", "bdf"), ("b", "df"), ("c", "df"), ("e", "f"), ("f", ""), ("g", "")):
            assert_same(backend.list_keys(after=after), listed([*keys]))
        page = backend.list_keys(limit=1)
        backend.delete(page["keys"][0])
        assert_same(backend.list_keys(after=page["next"]), listed(["d", "f"]))

    def test_after_none_and_empty_begin_at_the_first_key(self, backend: LTMBackend) -> None:
        load(backend, [(key, 1, None) for key in ("\x01", "a")])
        for after in (None, ""):
            assert_same(backend.list_keys(None, 1, after), listed(["\x01"], "\x01"))

    def test_pages_go_on_while_keys_come_and_go(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:02}", 1, None) for number in range(0, 40, 2)])
        all_keys, after = [], None
        while True:
            page = assert_success(backend.list_keys("k", 3, after))
            all_keys += page["keys"]
            after = page["next"]
            if after is None:
                break
            backend.delete(page["keys"][0])
            backend.store(after + "x", "comes")
            backend.store("k", "comes too late")
        assert [key for key in all_keys if not key.endswith("x")] == [f"k{number:02}" for number in range(0, 40, 2)]
        assert all_keys == sorted(set(all_keys))

    def test_list_keys_follows_stores_and_deletes(self, backend: LTMBackend) -> None:
        for key in ("b", "a", "b"):
            backend.store(key, 1)
        assert_same(backend.list_keys(), listed(["a", "b"]))
        backend.delete("a")
        assert_same(backend.list_keys(), listed(["b"]))

    def test_count_counts_what_begins_with_the_prefix(self, backend: LTMBackend) -> None:
        load(backend, [(key, 1, None) for key in TREE])
        for prefix in (None, *PREFIXES):
            expected = sum(key.startswith(prefix or "") for key in TREE)
            assert_same(backend.count(prefix), {"success": True, "count": expected})

    def test_count_follows_stores_and_deletes(self, backend: LTMBackend) -> None:
        counts = []
        for _ in range(2):
            backend.store("a", 1)
            counts.append(backend.count()["count"])
        for _ in range(2):
            backend.delete("a")
            counts.append(backend.count()["count"])
        assert counts == [1, 1, 0, 0]

    @slow
    def test_count_counts_all_of_many(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:04}", number, None) for number in range(1100)])
        assert [backend.count(prefix)["count"] for prefix in (None, "k0", "k10", "x")] == [1100, 1000, 100, 0]
        assert len(backend.list_keys(limit=10_000)["keys"]) == 1100
