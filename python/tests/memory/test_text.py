"""The Python functions that define text search: tokens, queries and scores, as DESIGN and DIALECTS say."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from the_edge_agent.memory import LTMError, SQLiteBackend, words_of
from the_edge_agent.memory.core.languages import language
from the_edge_agent.memory.core.query import parse_query as parse
from the_edge_agent.memory.core.tokens import Term, matches, score, search_text, tokenize
from the_edge_agent.testing.bad_input import BAD_QUERIES
from the_edge_agent.testing.queries import LIBRARY, QUERIES


def parse_query(query: Any) -> tuple[Term, ...] | None:
    """Return the terms of a query whose words must all occur; None for no condition."""
    parsed = parse(query)
    return parsed.terms if parsed.has_conditions else None


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LETTERS = st.text(st.sampled_from("abqzx019хяёαω"), min_size=1, max_size=12)
WORD = st.sampled_from(["fox", "foxes", "red", "a", "q", "хя", "42"])
HAN = st.text(st.sampled_from("日本語学校"), min_size=1, max_size=8)


def q(char: str) -> str:
    """Return the code of a character: q and its number in base 35 (no digit q), four digits."""
    number, digits = ord(char), ""
    for _ in range(4):
        digits = "0123456789abcdefghijklmnoprstuvwxyz"[number % 35] + digits
        number //= 35
    return "q" + digits


def matched(query: str | None, *values: Any) -> list[bool]:
    """Return for each value whether a query finds it, under a key without words."""
    terms = parse_query(query)
    return [terms is None or matches(search_text("-", value, None), terms) for value in values]


# --- questions and languages ---------------------------------------------------------------------


def parsed_terms(question: str, name: str = "english") -> list[tuple[str, bool]]:
    """Return how each word that counts is shown, and whether it may go on."""
    return [(term.shown, term.prefix) for term in parse(question, "any", language(name)).words or ()]


@pytest.mark.parametrize(
    "text", ["café's", "cafe\u0301's", "CAFE\u0301\u2019S", "café\uff07s", "ca\u00adfe\u00ad's-", "cafe's", "☃ cafe's"]
)
def test_a_possessive_is_left_out_however_it_is_written(text: str) -> None:
    assert [stem for word, stem in words_of(text) if word != "☃"] == ["cafe"]


@pytest.mark.parametrize("text", ["cafe'sb", "☃'s", "'s", "e 's", "'\u0301s"])
def test_what_is_no_possessive_stays(text: str) -> None:
    assert words_of(text)[-1][0] in ("s", "sb")


def test_a_possessive_at_the_end_of_a_part_that_is_folded_by_itself_is_left_out() -> None:
    for length in range(990, 1_010):
        assert words_of("é" + "a" * (length - 1) + "'s b")[-2:] == [("e" + "a" * (length - 1),) * 2, ("b", "b")]


@pytest.mark.parametrize("name", ["french", "russian", "hindi", "arabic"])
def test_marks_that_belong_to_no_letter_are_no_words(name: str) -> None:
    """The stem of one was empty, and a question for it found every entry."""
    for text in ("❤\ufe0fs", "\u0301s", "❤\ufe0fmaison", "\u0301" * 50 + "maison"):
        word = text.lstrip("❤\ufe0f\u0301")
        assert words_of(text, name)[-1] == words_of(word, name)[0]
        assert [
            variant
            for term in parse(text, "any", language(name)).words or ()
            for variant in term.variants
            if not variant
        ] == []


def test_operators_are_before_letters_only() -> None:
    assert parsed_terms("-½ -٣ -² +Ⅷ -5 +49 --fox +-hen") == parsed_terms("½ ٣ ² Ⅷ 5 49 fox hen")
    assert [term.negated for term in parse("-é -ё -日 -ʰ", "any").terms] == [True] * 4


def test_of_too_many_words_those_are_taken_that_fit() -> None:
    long = "x" * (77 * 200 + 1)
    assert parsed_terms(f"{long} fox") == [("fox", False)]
    assert len(parsed_terms('"' + " ".join(f"w{number}" for number in range(250)) + '" fox')) == 200
    assert parsed_terms('"' + "fox red " * 150 + '"') == [("fox", False), ("red", False)]


def test_explain_names_terms_as_the_question_has_them() -> None:
    with SQLiteBackend() as memory:
        memory.store("a", "The red fox meets Ada's Fóxhound")
        for match, question, names in (
            ("any", 'Foxes? FÓX* +Ada "Red  fox" +fox*', ["Ada", "fox*", "foxes", '"Red  fox"']),
            ("all", 'Foxes FÓX* Ada "Red  fox" fox* -hen', ["Foxes", "FÓX*", "Ada", '"Red  fox"', "fox*"]),
        ):
            [entry] = memory.search(question, match=match, explain=True)["results"]  # type: ignore[arg-type]
            assert [part["term"] for part in entry["explain"]] == names


# --- tokens ----------------------------------------------------------------------------------------

TOKENS: dict[str, tuple[str, list[str]]] = {
    "words": ("Red fox", ["qzred", "qzfox"]),
    "punctuation": ("--red,fox!(a)", ["qzred", "qzfox", "qza"]),
    "underscore": ("a_b", ["qza", "qzb"]),
    "digits": ("x1 42 3.25", ["qzx1", "qz42", "qz3", "qz25"]),
    "q is a code": ("quiz q", [f"qz{q('q')}uiz", f"qz{q('q')}"]),
    "accents go": ("Crème BRÛLÉE", ["qzcreme", "qzbrulee"]),
    "decomposed accents go": ("cre\u0300me", ["qzcreme"]),
    "a mark alone is nothing": ("\u0301 x\u0301", ["qzx"]),
    "sharp s": ("Straße", ["qzstrasse"]),
    "ligature": ("ﬁn", ["qzfin"]),
    "full width": ("ＦＯＸ１", ["qzfox1"]),
    "Turkish dotted I": ("İ", ["qzi"]),
    "Greek": ("ΟΔΟΣ οδός", ["qz" + "".join(map(q, "οδοσ"))] * 2),
    "Cyrillic": ("Ёлка", ["qz" + "".join(map(q, "елка"))]),
    "fraction": ("½", ["qz1", "qz2"]),
    "superscript": ("x²", ["qzx2"]),
    "Roman number": ("Ⅷ", ["qzviii"]),
    "Han in pairs": ("日本語", [f"qz{q('日')}{q('本')}", f"qz{q('本')}{q('語')}", f"qz{q('語')}"]),
    "one Han character": ("日", [f"qz{q('日')}"]),
    "Han beside Latin": ("abc日本x", ["qzabc", f"qz{q('日')}{q('本')}", f"qz{q('本')}", "qzx"]),
    "kana in pairs": ("かな", [f"qz{q('か')}{q('な')}", f"qz{q('な')}"]),
    "Thai in pairs": ("กขค", [f"qz{q('ก')}{q('ข')}", f"qz{q('ข')}{q('ค')}", f"qz{q('ค')}"]),
    "emoji": ("a😀b", ["qza", f"qz{q('😀')}", "qzb"]),
    "emoji run": ("😀🎉", [f"qz{q('😀')}", f"qz{q('🎉')}"]),
    "emoji with skin": ("👍🏽", [f"qz{q('👍')}", f"qz{q(chr(0x1F3FD))}"]),
    "emoji family": ("👩\u200d👧", [f"qz{q('👩')}", f"qz{q('👧')}"]),
    "variation selector": ("❤\ufe0f", [f"qz{q('❤')}"]),
    "NUL and controls": ("a\0b\x1fc\nd", ["qza", "qzb", "qzc", "qzd"]),
    "soft hyphen joins": ("soft\u00adhyphen", ["qzsofthyphen"]),
    "zero-width space parts": ("a\u200bb", ["qza", "qzb"]),
    "right-to-left mark joins": ("\u05d0\u200f\u05d1", [f"qz{q(chr(0x5D0))}{q(chr(0x5D1))}"]),
    "currency is punctuation": ("5€", ["qz5"]),
    "nothing": ("", []),
    "only punctuation": ("!!! ... *", []),
    "the longest word of one token": ("x" * 77, ["qz" + "x" * 77]),
    "a long word in parts": ("x" * 78, ["qz" + "x" * 77 + "q", "qyx"]),
    "a very long word": ("x" * 160, ["qz" + "x" * 77 + "q", "qy" + "x" * 77 + "q", "qy" + "x" * 6]),
    "a word cut in the middle of a code": ("я" * 16, ["qz" + (q("я") * 16)[:77] + "q", "qy" + (q("я") * 16)[77:]]),
    "two long words": ("x" * 78 + " y", ["qz" + "x" * 77 + "q", "qyx", "qzy"]),
}


@pytest.mark.parametrize(("text", "expected"), TOKENS.values(), ids=TOKENS.keys())
def test_the_tokens_are(text: str, expected: list[str]) -> None:
    assert [*tokenize(text)] == expected


@given(ANY_TEXT)
def test_a_token_is_short_ascii_that_begins_with_qz(text: str) -> None:
    for token in tokenize(text):
        assert re.fullmatch("q[zy][a-z0-9]+", token)
        assert len(token) <= 80
        assert not re.search("q[zy]", token[2:])  # so that tokens can be counted by their beginning


@given(ANY_TEXT)
def test_the_form_of_unicode_does_not_matter(text: str) -> None:
    forms = [[*tokenize(unicodedata.normalize(form, text))] for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert forms == [[*tokenize(text)]] * 4


MARKED = st.text(st.sampled_from("aé日가ﷺͅ 😀\u0301\u0323\u0e48\u20dd"), max_size=40)


@given(MARKED, st.integers(0, 10))
def test_where_long_text_is_cut_to_be_folded_does_not_matter(text: str, size: int) -> None:
    expected = [*tokenize(text)] * 120
    assert [*tokenize(f"{text} " * 120)] == expected
    assert [*tokenize("!" * (1_000 - size) + f" {text}" * 120)] == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["a" + "\u0301\u0323" * 500_000, "\u0345\u0301" * 500_000, "กุ่" * 300_000, "ﷺ" * 300_000, "日" * 2_000_000],
    ids=["alternating marks", "marks that become letters", "marks of Thai", "18 letters in one", "pairs"],
)
def test_no_text_takes_more_than_its_share_of_time(text: str) -> None:
    begin = time.process_time()
    assert len(search_text("k", text, None)) <= 200_000
    with suppress(LTMError):  # some are too many words
        parse_query(text[:100_000])
    assert time.process_time() - begin < 4


@given(st.text(st.characters(categories=["Ll", "Lu", "Lo", "Nd"], max_codepoint=0x24F, exclude_characters="ı")))
def test_case_does_not_matter(text: str) -> None:
    assert [*tokenize(text.upper())] == [*tokenize(text.lower())] == [*tokenize(text)]


@given(ANY_TEXT, ANY_TEXT)
def test_a_space_parts_tokens(left: str, right: str) -> None:
    assert [*tokenize(f"{left} {right}")] == [*tokenize(left), *tokenize(right)]


# --- search text -----------------------------------------------------------------------------------


def test_the_search_text_is_tokens_of_key_value_and_metadata() -> None:
    indexed = search_text("a/key", {"t": ["red fox", 42, True, None, 2.5], "u": {"name": "x"}}, {"tag": ["y", -7]})
    expected = ["qza qzkey", "qzred qzfox", "qz42", "qz2 qz5", "qzx", "qzy", "qz7"]
    assert [string.strip() for string in indexed.split(".") if string.strip()] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e22, ["qz1e", "qz22"]),
        (-0.5, ["qz0", "qz5"]),
        (10**30, ["qz1" + "0" * 30]),
        (True, []),
        (None, []),
        ({"k": {}}, []),
    ],
    ids=repr,
)
def test_numbers_are_indexed_as_they_are_written(value: Any, expected: list[str]) -> None:
    assert re.findall(r"qz\w+", search_text("-", value, None)) == expected


@given(
    ANY_TEXT.filter(bool),
    st.lists(ANY_TEXT | st.integers(), max_size=5),
    st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
)
def test_the_search_text_is_ascii_tokens_that_end_with_a_space(key: str, value: Any, metadata: dict[str, str]) -> None:
    indexed = search_text(key, value, metadata)
    assert re.fullmatch(r"((q[zy][a-z0-9]+ )+\. )*", indexed)
    tokens = [token for text in (key, *map(str, value), *metadata.values()) for token in tokenize(text)]
    assert re.findall(r"qz\w+", indexed) == tokens


@pytest.mark.parametrize("words", [30_000, 200_000])
def test_the_search_text_is_whole_tokens_of_at_most_200_000_characters(words: int) -> None:
    indexed = search_text("key", " ".join(f"w{number}" for number in range(words)), {"tag": "meta"})
    assert 190_000 < len(indexed) <= 200_000
    numbers = [int(number) for number in re.findall(r"qzw(\d+) ", indexed)]
    assert numbers == [*range(len(numbers))]
    assert "qzmeta" not in indexed


def test_a_token_that_does_not_fit_ends_the_search_text() -> None:
    indexed = search_text("k", ["x" * 70 + f" {number:08}" for number in range(5_000)], None)
    assert len(indexed) <= 200_000
    assert {len(token) for token in indexed.split() if token not in (".", "qzk")} == {72, 10}


# --- queries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "expected"), QUERIES.values(), ids=QUERIES.keys())
def test_a_query_finds(query: str | None, expected: Iterable[str]) -> None:
    terms = parse_query(query)
    indexed = {key: search_text(key, value, metadata) for key, value, metadata in LIBRARY}
    assert {key for key, text in indexed.items() if terms is None or matches(text, terms)} == set(expected)


@pytest.mark.parametrize("query", [None, "", " ", "\t\n ", "\u3000"], ids=repr)
def test_no_words_at_all_are_no_condition(query: str | None) -> None:
    assert parse_query(query) is None


@pytest.mark.parametrize("query", ["!!!", '""', '"', "-", "*", "-*", "%_", "\u0301", "\u200d", "\0"], ids=ascii)
def test_nothing_searchable_finds_nothing(query: str) -> None:
    assert parse_query(query) == ()
    assert matched(query, "fox", "", "!!!", query) == [False] * 4


@pytest.mark.parametrize("query", BAD_QUERIES.values(), ids=BAD_QUERIES.keys())
def test_a_bad_query_is_refused(query: Any) -> None:
    with pytest.raises(LTMError) as raised:
        parse_query(query)
    assert raised.value.error_type == "validation_error"


def test_a_query_has_200_words_at_most() -> None:
    assert parse_query("w " * 200)
    assert parse_query("w" * 77 * 200)
    with pytest.raises(
        LTMError, match=r"at most 200 words that .*; a long word counts once for each 77 of its characters"
    ):
        parse_query("w" * 77 * 201)
    for query in ("w " * 201, '"' + "w " * 201 + '"', "-w " * 201, "a.b " * 101):
        with pytest.raises(LTMError):
            parse_query(query)


@pytest.mark.slow
@given(ANY_TEXT)
def test_any_text_is_a_query(query: str) -> None:
    terms = parse_query(query)
    if terms:
        needles = [(term.prefix, needle) for term in terms for needle in term.needles]
        assert all(re.fullmatch("qz[a-z0-9]+( q[zy][a-z0-9]+)* ?", needle) for _, needle in needles)
        assert all(needle.endswith(" ") is not prefix for prefix, needle in needles)


@given(ANY_TEXT)
def test_an_entry_is_found_by_its_own_text_as_a_phrase(text: str) -> None:
    phrase = text.replace('"', " ")
    if 0 < len([*tokenize(phrase)]) <= 200:
        assert matched(f'"{phrase}"', text.replace('"', " ")) == [True]


@given(LETTERS, LETTERS)
def test_a_word_finds_only_itself_and_a_prefix_what_begins_with_it(word: str, other: str) -> None:
    folded, other_folded = word.replace("ё", "е"), other.replace("ё", "е")
    assert matched(word, other) == [folded == other_folded]
    assert matched(word + "*", other) == [other_folded.startswith(folded)]
    assert matched("-" + word, other) == [folded != other_folded]


@given(LETTERS, st.integers(0, 12))
def test_each_beginning_of_a_word_is_a_prefix_of_it(word: str, length: int) -> None:
    assert matched(word[: max(1, length)] + "*", word, f"x {word} y", ["x", word], f"x{word}")[:3] == [True] * 3


@given(HAN, HAN)
def test_han_characters_are_found_wherever_they_are_adjacent(part: str, text: str) -> None:
    assert matched(part, text, f"x{text}y", f"の{text}の") == [part in text] * 3
    assert matched(f'"{part}"', text) == [part in text]
    assert matched(part + "*", text) == [part in text]


@given(st.lists(WORD, min_size=1, max_size=4), st.lists(st.lists(WORD, max_size=6), max_size=3))
def test_a_phrase_is_adjacent_words_of_one_string(phrase: list[str], strings: list[list[str]]) -> None:
    size = len(phrase)
    adjacent = any(phrase == words[at : at + size] for words in strings for at in range(len(words)))
    value = [" ".join(words) for words in strings]
    for query in ('"' + " ".join(phrase) + '"', "-".join(phrase), "_".join(phrase), '"' + ", ".join(phrase) + '!"'):
        assert matched(query, value) == [adjacent]


@given(st.lists(st.tuples(st.booleans(), WORD), min_size=1, max_size=5), st.lists(WORD, max_size=6))
def test_words_are_and_ed_and_a_minus_negates(parts: list[tuple[bool, str]], words: list[str]) -> None:
    query = " ".join("-" * negated + word for negated, word in parts)
    assert matched(query, " ".join(words)) == [all((word in words) is not negated for negated, word in parts)]


# --- score -----------------------------------------------------------------------------------------

SCORES: dict[str, tuple[list[int], int, float]] = {
    "absent": ([0], 10, 0.0),
    "no term": ([], 10, 0.0),
    "once in 100 tokens": ([1], 100, 1.0),  # 2.2 / (1 + 1.2)
    "twice in 100 tokens": ([2], 100, 1.375),  # 4.4 / 3.2
    "once in 2 tokens": ([1], 2, 1.669196),  # 2.2 / (1 + 1.2 * 0.265)
    "two terms": ([1, 2], 100, 2.375),
    "a term that is absent adds nothing": ([1, 0], 100, 1.0),
    "once in 1,000 tokens": ([1], 1000, 0.213592),  # 2.2 / (1 + 1.2 * 7.75)
    "often": ([10_000], 10_000, 2.180312),  # 22000 / (10000 + 90.3)
}


@pytest.mark.parametrize(("counts", "length", "expected"), SCORES.values(), ids=SCORES.keys())
def test_the_score_is(counts: list[int], length: int, expected: float) -> None:
    assert score(counts, length) == expected


@given(st.lists(st.integers(0, 50), max_size=4), st.integers(1, 20_000))
def test_a_score_has_6_decimals_and_grows_with_each_occurrence(counts: list[int], length: int) -> None:
    ranked = score(counts, length)
    assert ranked == round(ranked, 6)
    assert 0 <= ranked < 2.2 * len(counts) + 1e-6
    assert score([*counts, 1], length) > ranked
    assert score(counts, length + 100) <= ranked


@pytest.mark.slow
def test_a_word_of_many_megabytes_takes_no_longer_than_its_length() -> None:
    word = "x" * 50_000_000  # copied at each of its parts, this would take hours
    assert len(search_text("k", word, None)) <= 200_000
