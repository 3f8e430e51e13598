"""The rules of rank and order: scores, newest first, equal times by key, the window of 1,000 matches, pages."""

from __future__ import annotations

from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_same,
    assert_success,
    differences,
    find,
    keys_of,
    load,
)
from the_edge_agent.testing.exactness import ALIKE_UNTIL_THE_END
from the_edge_agent.testing.model import Model
from the_edge_agent.testing.slow import slow

# tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * dl / 100)), computed by hand. The key "k" is a token too.
SCORES: Final[dict[str, tuple[Any, dict[str, Any] | None, str, float]]] = {
    "once in 2 tokens": ("fox", None, "fox", 1.669196),  # 2.2 / 1.318
    "once in 4 tokens": ("red fox runs", None, "fox", 1.646707),  # 2.2 / 1.336
    "twice in 4 tokens": ("fox fox hound", None, "fox", 1.883562),  # 4.4 / 2.336
    "twice in two strings": (["fox", "fox"], None, "fox", 1.890847),  # 4.4 / 2.327
    "in value and metadata": ("fox", {"tag": "fox"}, "fox", 1.890847),
    "two words": ("fox hound", None, "hound fox", 3.31575),  # 2 * 2.2 / 1.327
    "a word asked for twice counts twice": ("fox hound", None, "fox fox", 3.31575),
    "a prefix counts each word": ("fox foxes foxglove", None, "fox*", 1.978417),  # 6.6 / 3.336
    "a phrase counts as a whole": ("red fox, red fox, red hound", None, '"red fox"', 1.86204),  # 4.4 / 2.363
    "a negation adds nothing": ("fox", None, "fox -hound", 1.669196),
    "a negation alone": ("fox", None, "-hound", 0.0),
    "no query": ("fox", None, "", 0.0),
    "101 tokens": ("fox " + "word " * 99, None, "fox", 0.995926),  # 2.2 / 2.209
    "Chinese": ("日本日本", None, "日本", 1.876333),  # each character begins a token: 4.4 / 2.345
}


class RankRules(ContractBase):
    """Order of results, the same on every database."""

    def test_the_score_is_that_of_the_formula(self, backend: LTMBackend) -> None:
        actual = {}
        for name, (value, metadata, query, _) in SCORES.items():
            backend.store("k", value, metadata)
            actual[name] = [entry["score"] for entry in assert_success(find(backend, query))["results"]]
        assert differences(actual, {name: [score] for name, (*_, score) in SCORES.items()}) == {}

    def test_the_best_comes_first_even_if_older(self, backend: LTMBackend) -> None:
        for key, value in [("best", "fox fox fox"), ("good", "fox fox"), ("fair", "fox"), ("none", "hound")]:
            backend.store(key, value)
        assert keys_of(find(backend, "fox")) == ["best", "good", "fair"]

    def test_a_short_entry_beats_a_long_one(self, backend: LTMBackend) -> None:
        load(backend, [("a", "fox " + "filling " * 50, None), ("b", "fox", None)])
        assert keys_of(find(backend, "fox")) == ["b", "a"]

    def test_equal_scores_are_newest_first(self, backend: LTMBackend) -> None:
        for key in ("b", "c", "a"):
            backend.store(key, "fox")
        assert keys_of(find(backend, "fox")) == keys_of(find(backend)) == ["a", "c", "b"]

    def test_without_words_newest_comes_first(self, backend: LTMBackend) -> None:
        for key in ("b", "c", "a"):
            backend.store(key, "fox", {"n": 1})
        for result in (
            find(backend),
            find(backend, ""),
            find(backend, "-hound"),
            find(backend, metadata_filter={"n": 1}),
            find(backend, "-hound", {"n": {"$ne": 2}}, prefix=""),
        ):
            assert keys_of(result) == ["a", "c", "b"]
            assert [entry["score"] for entry in result["results"]] == [0.0] * 3
            assert all(type(entry["score"]) is float for entry in result["results"])

    def test_ties_of_long_keys_are_in_the_order_of_their_ends(self, transactional: LTMBackend) -> None:
        expected = sorted(ALIKE_UNTIL_THE_END)
        load(transactional, [(key, "fox", {"n": 1}) for key in ALIKE_UNTIL_THE_END])
        for limit in (1, 5, 1000):
            assert keys_of(find(transactional, limit=limit)) == expected[:limit]
            assert keys_of(find(transactional, "-hound", limit=limit)) == expected[:limit]
            assert keys_of(find(transactional, None, {"n": 1}, limit)) == expected[:limit]
            assert keys_of(find(transactional, limit=limit, offset=3)) == expected[3 : 3 + limit]

    def test_a_store_makes_an_entry_the_newest(self, backend: LTMBackend) -> None:
        for key in ("a", "b", "c", "a"):
            backend.store(key, "fox")
        assert keys_of(find(backend, "fox")) == keys_of(find(backend)) == ["a", "c", "b"]

    def test_a_read_does_not_make_an_entry_newer(self, backend: LTMBackend) -> None:
        for key in ("a", "b"):
            backend.store(key, "fox")
        backend.retrieve("a")
        backend.delete("missing")
        assert keys_of(find(backend)) == ["b", "a"]

    def test_what_one_transaction_wrote_is_equally_new_and_ordered_by_key(self, transactional: LTMBackend) -> None:
        hostile = ["\U00010000", "\uffff", "\ud7ff", "\ue000", "z", "a ", "a", "A", "á", "a\u0301", "_", "%", "10", "9"]
        load(transactional, [(key, "fox", {"n": 1}) for key in hostile])
        assert keys_of(find(transactional, limit=100)) == sorted(hostile)
        assert keys_of(find(transactional, "-hound", {"n": 1}, limit=100)) == sorted(hostile)

    def test_a_later_transaction_is_newer_as_a_whole(self, transactional: LTMBackend) -> None:
        load(transactional, [(key, "fox", None) for key in ("c", "a", "e")])
        load(transactional, [(key, "fox", None) for key in ("d", "b", "e")])
        assert keys_of(find(transactional, "fox")) == keys_of(find(transactional)) == ["b", "d", "e", "a", "c"]

    def test_offset_skips_and_limit_cuts(self, backend: LTMBackend) -> None:
        for number in range(6):
            backend.store(f"k{number}", "fox", {"n": 1})
        for query, condition in ((None, None), ("fox", None), (None, {"n": 1}), ("fox", {"n": 1}), ("-hound", None)):
            assert keys_of(find(backend, query, condition, limit=2, offset=3)) == ["k2", "k1"]
            assert keys_of(find(backend, query, condition, limit=10, offset=5)) == ["k0"]
            assert keys_of(find(backend, query, condition, offset=6)) == []
            assert keys_of(find(backend, query, condition, offset=10**6)) == []

    def test_pages_cover_every_match_once(self, backend: LTMBackend) -> None:
        model = Model()
        for group in range(10):
            items = [(f"k{number:02}", "fox " * (1 + number % 4), {"n": 1}) for number in range(group, 100, 10)]
            model.load(backend, items)
        for query, condition in (
            (None, None),
            ("fox", None),
            ("fo*", {"n": 1}),
            (None, {"n": 1}),
            ("-hound", {"n": 1}),
        ):
            pages = [keys_of(find(backend, query, condition, limit=7, offset=offset)) for offset in range(0, 105, 7)]
            assert [key for page in pages for key in page] == keys_of(model.search(query, condition, 1000))
            assert len({key for page in pages for key in page}) == 100

    @slow
    def test_only_the_newest_1000_matches_are_ranked(self, backend: LTMBackend) -> None:
        load(backend, [("best", "fox fox fox", {"n": 1})])
        model = Model()
        for group in (range(300), range(300, 1000)):  # many equal scores; pages of any size must keep their order
            model.load(backend, [(f"k{number:04}", f"fox w{number}", {"n": 1}) for number in group])
        for condition in (None, {"n": 1}):
            assert_same(find(backend, "fox", condition), model.search("fox", condition))
            assert "best" not in keys_of(find(backend, "fox", condition, limit=1000))
            assert keys_of(find(backend, "fox", condition, limit=1001))[0] == "best"
            assert keys_of(find(backend, "fox w7", condition)) == ["k0007"]
            assert keys_of(find(backend, "fox -w8", condition))[0] == "best"

    @slow
    def test_what_is_no_match_takes_no_place_among_the_1000(self, backend: LTMBackend) -> None:
        load(backend, [("wanted", "fox", {"n": 1}), ("p/wanted", "fox", {"n": 2})])
        load(backend, [(f"k{number:04}", "fox fox", {"n": 0}) for number in range(1100)])
        assert keys_of(find(backend, "fox", {"n": {"$gte": 1}})) == ["wanted", "p/wanted"]
        assert keys_of(find(backend, "fox", prefix="p/")) == ["p/wanted"]
