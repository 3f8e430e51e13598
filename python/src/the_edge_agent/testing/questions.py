"""The rules of questions: which entries have some of the words, and their order."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing import corpus
from the_edge_agent.testing.contract import (
    ContractBase,
    Item,
    assert_failure,
    assert_same,
    assert_success,
    generator,
    keys_of,
    load,
    text_of,
    without_times,
)
from the_edge_agent.testing.model import Model

ANIMALS: Final[tuple[Item, ...]] = (
    ("a", "the red fox meets a hound", {"n": 1}),
    ("b", "a red hen", {"n": 2}),
    ("c", "the fox and the fox", {"n": 1}),
    ("d", "foo bar", {"n": 2}),
    ("e", "foo-bar, one two three", None),
    ("f", "quite another thing", None),
)
# Queries and their matches.
QUESTIONS: Final[dict[str, tuple[str, set[str]]]] = {
    "some of the words": ("fox unicorn", {"a", "c"}),
    "each of the words": ("hen hound", {"a", "b"}),
    "nothing of it": ("unicorn dragon", set()),
    "an excluded word": ("red -hen", {"a"}),
    "an excluded phrase": ('fox -"red fox"', {"c"}),
    "a required word": ("fox +red", {"a", "b"}),
    "a required phrase": ('hen +"red fox"', {"a"}),
    "required and excluded": ("+red -hound", {"b"}),
    "a phrase is one word": ('"red fox" hen', {"a", "b"}),
    "a compound is its words": ("foo-baz", {"d", "e"}),
    "a required compound is a phrase": ("+foo-bar", {"d", "e"}),
    "an underscore separates": ("foo_baz", {"d", "e"}),
    "a minus before a digit is no operator": ("fox -5", {"a", "c"}),
    "a plus before a digit is no operator": ("+49 fox", {"a", "c"}),
    "a quotation mark that is not closed is a space": ('fox "hen', {"a", "b", "c"}),
    "negations alone": ("-red -foo", {"c", "f"}),
    "a prefix": ("fo* hen", {"a", "b", "c", "d", "e"}),
    "punctuation": ("What, fox? (hen!)", {"a", "b", "c"}),
    "nothing to look for": ("?!", set()),
}
WORDS: Final = ("common", "often", "third", "tenth", "seldom", "rare", "once", "absent")


class QuestionRules(ContractBase):
    """The rules of ``match="any"``, for a backend that declares ``"match"``."""

    questions: int = 60

    @pytest.mark.parametrize("name", QUESTIONS)
    def test_a_question_finds_entries_that_have_some_of_its_words(self, matching: LTMBackend, name: str) -> None:
        query, expected = QUESTIONS[name]
        load(matching, ANIMALS)
        assert set(keys_of(matching.search(query))) == set(keys_of(matching.search(query, match="any"))) == expected

    def test_a_rare_word_tells_more_than_a_common_one(self, matching: LTMBackend) -> None:
        load(matching, [(f"k{number}", "fox", None) for number in range(20)])
        load(matching, [("rare", "hound", None)])
        load(matching, [("newest", "fox", None)])
        assert keys_of(matching.search("hound fox"))[:2] == ["rare", "newest"]

    def test_what_a_filter_leaves_out_still_counts_for_how_much_a_word_tells(self, matching: LTMBackend) -> None:
        load(matching, ANIMALS)
        everything = {entry["key"]: entry["score"] for entry in matching.search("fox red")["results"]}
        filtered = matching.search("fox red", {"n": 1})["results"]
        assert {entry["key"]: entry["score"] for entry in filtered} == {key: everything[key] for key in ("a", "c")}

    def test_explain_tells_what_each_word_adds(self, matching: LTMBackend) -> None:
        load(matching, ANIMALS)
        for match in ("any", "all"):
            results = assert_success(matching.search('fox "red fox" -hen', match=match, explain=True))["results"]
            assert results[0]["key"] == "a"
            for entry in results:
                parts = {part["term"]: part["score"] for part in entry["explain"]}
                assert parts.keys() <= {"fox", '"red fox"'}
                assert abs(sum(parts.values()) - entry["score"]) < 0.00001
        assert matching.search(limit=1, explain=True)["results"][0]["explain"] == []
        assert "explain" not in matching.search("fox")["results"][0]

    def test_more_than_200_words_are_cut(self, matching: LTMBackend) -> None:
        matching.store("first", "w0")
        matching.store("last", "w250")
        assert keys_of(matching.search(" ".join(f"w{number}" for number in range(251)))) == ["first"]

    def test_bad_matches_are_refused(self, matching: LTMBackend) -> None:
        for match in ("", "ANY", "none", 1, True, ["any"]):
            assert_failure(matching.search("fox", match=match), "validation_error")  # type: ignore[arg-type]
        for explain in (1, "yes", None):
            assert_failure(matching.search("fox", explain=explain), "validation_error")  # type: ignore[arg-type]

    def test_without_the_capability_any_is_refused(self, backend: LTMBackend) -> None:
        if "match" not in backend.capabilities:
            assert_failure(backend.search("fox", match="any"), "validation_error")
            assert_success(backend.search("fox", match="all"))

    def test_generated_questions_answer_as_the_oracle_does(self, matching: LTMBackend) -> None:
        rng = generator(self.seed)
        model, items = Model(matching.language), list[Item]()
        for group in corpus.entries(rng, 300):
            model.load(matching, group)
            items += group
        matched = 0
        for example in range(self.questions):
            arguments: dict[str, Any] = {"query": _question(rng, items), "limit": rng.choice([1, 3, 10, 100])}
            if rng.random() < 0.4:
                arguments["metadata_filter"] = corpus.metadata_filter(rng, items)
            if rng.random() < 0.4:
                arguments["prefix"] = rng.choice(items)[0][: rng.choice([0, 1, 2])]
            arguments["offset"] = rng.choice([0, 0, 0, 2, 20])
            actual = without_times(matching.search(**arguments))
            expected = model.ask(**arguments)
            assert text_of(actual) == text_of(expected), f"seed {self.seed}, example {example}: search({arguments})"
            matched += bool(expected["results"])
        assert matched >= self.questions * 0.3, f"seed {self.seed}: {matched}"

    def test_questions_of_more_matches_than_candidates(self, matching: LTMBackend) -> None:
        model = Model(matching.language)
        for group in range(5):
            load_items = [(f"{'pq'[n % 2]}/{n:04}", _words_at(n), {"n": n % 7}) for n in range(group, 4_700, 5)]
            model.load(matching, load_items)
        questions = ("common", "once", "common once", "third rare", " ".join(WORDS), "+third tenth", "often -third")
        scopes: Any = (
            (None, None, 10, 0),
            (None, None, 1_200, 30),
            ({"n": 3}, "p/", 20, 5),
            ({"n": {"$lt": 4}}, None, 10, 0),
            (None, "q/00", 10, 0),
        )
        for number, query in enumerate(questions):
            for condition, prefix, limit, offset in scopes if number == 0 else [scopes[number % len(scopes)]]:
                actual = without_times(matching.search(query, condition, limit, prefix=prefix, offset=offset))
                expected = model.ask(query, condition, limit, prefix=prefix, offset=offset)
                assert_same(actual, expected)
        assert keys_of(matching.search("common first"))[0] == "p/0000"  # however old
        assert keys_of(matching.search("common", offset=2**31 - 1)) == []


def _words_at(number: int) -> str:
    parts = ["common", "common often" if number % 4 else "", "third" if number % 3 == 0 else ""]
    parts += ["tenth" if number % 10 == 0 else "", "seldom" if number % 90 == 0 else ""]
    parts += ["rare " * 3 if number % 900 == 4 else "", "once first" if number == 0 else ""]
    return " ".join(part for part in parts if part)


def _question(rng: random.Random, items: list[Item]) -> str:
    parts = [corpus.query(rng, items) for _ in range(rng.choice([1, 2, 3]))]
    if rng.random() < 0.3:
        parts.append(rng.choice(["+", "-", ""]) + rng.choice(corpus.WORDS))
    return " ".join(parts)
