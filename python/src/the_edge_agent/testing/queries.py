"""The rules of text search: which entries each form of query matches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import (
    ContractBase,
    Item,
    assert_same,
    assert_success,
    differences,
    find,
    keys_of,
    load,
)
from the_edge_agent.testing.slow import slow

LIBRARY: Final[tuple[Item, ...]] = (
    ("d-sentence", "The quick red fox meets a hound.", None),
    ("d-strings", ["red", "fox"], None),
    ("d-plural", "Foxes, foxhounds!", None),
    ("d-one-word", "fo", None),
    ("d-hyphen", "one foo-bar here", None),
    ("d-space", "foo bar", None),
    ("d-swapped", "bar foo", None),
    ("d-underscore", "a_b", None),
    ("d-mail", "write to user@x.com today", None),
    ("d-mail-words", "com x user", None),
    ("d-operators", "AND OR NOT NEAR", None),
    ("d-chinese", "我爱日本語学校", None),
    ("d-chinese-2", "本日は晴天", None),
    ("d-chinese-mixed", "abc日本xyz", None),
    ("d-thai", "ภาษาไทย", None),
    ("d-korean", "한국어 텍스트", None),
    ("d-emoji", "nice 😀 day", None),
    ("d-emoji-run", "🎉😀🎉", None),
    ("d-emoji-skin", "👍🏽", None),
    ("d-accents", "Crème BRÛLÉE", None),
    ("d-accents-nfd", "cre\u0300me", None),
    ("d-plain", "creme brulee", None),
    ("d-german", "Die Straße", None),
    ("d-greek", "ΟΔΟΣ", None),
    ("d-russian", "Ёжик в тумане", None),
    ("d-ligature", "ﬁnal ﬀ", None),
    ("d-full-width", "ＦＵＬＬ width", None),
    ("d-numbers", {"int": 42, "float": 3.25, "negative": -17}, None),
    ("d-nested", {"a": [{"b": ["deepest treasure"]}]}, None),
    ("d-metadata", 1, {"tags": ["hidden", "gem"], "n": {"year": 1999}}),
    ("d-names", {"zebra": True, "okapi": None}, {"giraffe": False}),
    ("projects/walrus-notes_2", None, None),
    ("d-quote", 'it\'s "quoted" text', None),
    ("d-punctuation", "... !!! ??? %%% \\ ' \" * - _", None),
    ("d-twice", "echo echo, narrow cave", None),
    ("d-rare-han", "𪭌", None),
    ("d-empty", "", {}),
)

CREME = {"d-accents", "d-accents-nfd", "d-plain"}
FOX = {"d-sentence", "d-strings"}
EVERY = {key for key, _, _ in LIBRARY}

QUERIES: Final[dict[str, tuple[str | None, Iterable[str]]]] = {
    "None": (None, EVERY),
    "empty": ("", EVERY),
    "a word": ("fox", FOX),
    "a word is whole": ("fo", {"d-one-word"}),
    "a word that nothing has": ("unicorn", ()),
    "two words": ("fox hound", {"d-sentence"}),
    "two words in any order": ("hound   fox", {"d-sentence"}),
    "two words of two strings": ("red fox", FOX),
    "two words, one missing": ("fox unicorn", ()),
    "a word twice is one condition": ("fox fox", FOX),
    "case is folded": ("FOX Hound", {"d-sentence"}),
    "accents are folded": ("crème", CREME),
    "no accents find accents": ("creme", CREME),
    "decomposed accents": ("cre\u0300me", CREME),
    "upper case with accents": ("BRÛLÉE", {"d-accents", "d-plain"}),
    "sharp s": ("straße", {"d-german"}),
    "sharp s as ss": ("STRASSE", {"d-german"}),
    "final sigma": ("οδος", {"d-greek"}),
    "a rare Chinese character": ("𪭌", {"d-rare-han"}),
    "a digit is not in a Chinese character": ("0", ()),
    "Cyrillic": ("ежик ТУМАНЕ", {"d-russian"}),
    "ligature": ("final ff", {"d-ligature"}),
    "full width": ("full", {"d-full-width"}),
    "full width in the query": ("ｗｉｄｔｈ", {"d-full-width"}),
    "a phrase": ('"red fox"', {"d-sentence"}),
    "a phrase of one word": ('"fox"', FOX),
    "a phrase in the wrong order": ('"fox red"', ()),
    "a phrase with a gap": ('"quick fox"', ()),
    "a phrase of three": ('"quick red fox"', {"d-sentence"}),
    "a phrase across punctuation": ('"foxes foxhounds"', {"d-plural"}),
    "a phrase of a word twice": ('"echo echo"', {"d-twice"}),
    "a phrase of a word three times": ('"echo echo echo"', ()),
    "a phrase ends with its word": ('"quick red fo"', ()),
    "a phrase begins with its word": ('"ox meets"', ()),
    "a phrase and a word": ('"red fox" hound', {"d-sentence"}),
    "an empty phrase is nothing": ('"" fox', FOX),
    "a prefix": ("fo*", {*FOX, "d-plural", "d-one-word", "d-hyphen", "d-space", "d-swapped"}),
    "a longer prefix": ("foxh*", {"d-plural"}),
    "a prefix is whole too": ("foxes*", {"d-plural"}),
    "a prefix in capitals": ("FOXH*", {"d-plural"}),
    "a prefix with accents": ("brûl*", {"d-accents", "d-plain"}),
    "a prefix in Cyrillic": ("тума*", {"d-russian"}),
    "two prefixes": ("qui* hou*", {"d-sentence"}),
    "a prefix is no infix": ("ounds*", ()),
    "a star inside quotes is punctuation": ('"fo*"', {"d-one-word"}),
    "a star inside quotes after a phrase": ('"red fo*"', ()),
    "a star before a word is punctuation": ("*fo", {"d-one-word"}),
    "a prefix of a compound": ("foo-b*", {"d-hyphen", "d-space"}),
    "a negated word": ("fox -hound", {"d-strings"}),
    "a negated phrase": ('fox -"red fox"', {"d-strings"}),
    "a negated prefix": ("foo -ba*", ()),
    "a negated prefix that spares": ("red -houn*", {"d-strings"}),
    "a word and its negation": ("fox -fox", ()),
    "negations alone": ("-fox -bar", EVERY - FOX - {"d-hyphen", "d-space", "d-swapped"}),
    "a negated phrase alone": ('-"red fox"', EVERY - {"d-sentence"}),
    "a negated word that nothing has": ("-unicorn", EVERY),
    "a negated compound": ("foo -foo-bar", {"d-swapped"}),
    "a hyphen inside": ("foo-bar", {"d-hyphen", "d-space"}),
    "an underscore inside": ("a_b", {"d-underscore"}),
    "an underscore is no wildcard": ("f_x", ()),
    "a per cent sign is no wildcard": ("f%x", ()),
    "a mail address": ("user@x.com", {"d-mail"}),
    "the words of a mail address": ("com user x", {"d-mail", "d-mail-words"}),
    "a path": ("projects/walrus", {"projects/walrus-notes_2"}),
    "AND is a word": ("fox AND hound", ()),
    "OR is a word": ("fox OR unicorn", ()),
    "operators are words": ("NOT NEAR and or", {"d-operators"}),
    "two Chinese characters": ("日本", {"d-chinese", "d-chinese-mixed"}),
    "one Chinese character": ("日", {"d-chinese", "d-chinese-2", "d-chinese-mixed"}),
    "another Chinese character": ("本", {"d-chinese", "d-chinese-2", "d-chinese-mixed"}),
    "the last Chinese character": ("校", {"d-chinese"}),
    "three Chinese characters": ("日本語", {"d-chinese"}),
    "a whole Chinese run": ("我爱日本語学校", {"d-chinese"}),
    "Chinese characters that are not adjacent": ("我日", ()),
    "Chinese words apart": ("学校 日本", {"d-chinese"}),
    "a negated Chinese word": ("日 -日本", {"d-chinese-2"}),
    "a Chinese phrase": ('"日本"', {"d-chinese", "d-chinese-mixed"}),
    "Chinese beside Latin": ("abc日本", {"d-chinese-mixed"}),
    "Latin beside Chinese": ("xyz", {"d-chinese-mixed"}),
    "Thai": ("ไทย", {"d-thai"}),
    "Korean": ("한국어", {"d-korean"}),
    "a Korean prefix": ("텍스*", {"d-korean"}),
    "an emoji": ("😀", {"d-emoji", "d-emoji-run"}),
    "two emoji": ("🎉😀", {"d-emoji-run"}),
    "an emoji that nothing has": ("😎", ()),
    "a negated emoji": ("😀 -🎉", {"d-emoji"}),
    "an emoji with any skin": ("👍", {"d-emoji-skin"}),
    "an emoji with its skin": ("👍🏽", {"d-emoji-skin"}),
    "an emoji with another skin": ("👍🏿", ()),
    "a number": ("42", {"d-numbers"}),
    "a fraction": ("3.25", {"d-numbers"}),
    "a negative number": ('"-17"', {"d-numbers"}),
    "a prefix of a number": ("199*", {"d-metadata"}),
    "nested in the value": ("deepest treasure", {"d-nested"}),
    "in the metadata": ("hidden gem", {"d-metadata"}),
    "a number in the metadata": ("1999", {"d-metadata"}),
    "key and metadata together": ("metadata hidden", {"d-metadata"}),
    "in the key": ("walrus notes", {"projects/walrus-notes_2"}),
    "names of fields are not text": ("zebra", ()),
    "names of fields in the metadata are not text": ("giraffe", ()),
    "true is not text": ("true", ()),
    "null is not text": ("null", ()),
    "an apostrophe": ("it's", {"d-quote"}),
    "nothing searchable": ("!!!", ()),
    "only quotes": ('""', ()),
    "only a star": ("*", ()),
    "only a minus": ("-", ()),
    "only negated punctuation": ("-!!!", ()),
    "a wildcard alone": ("%", ()),
    "punctuation beside a word": ("!!! fox", FOX),
    "injection": ("fox' OR '1'='1", ()),
    "full-text syntax": ("fox:* | !hound & (red)", {"d-sentence"}),
    "boolean-mode syntax": ("+fox -unicorn ~red >quick", {"d-sentence"}),
    "no comment": ("fox -- comment", ()),
    "NUL is punctuation": ("red\0fox", {"d-sentence"}),
}


SPLIT_PHRASES: Final[dict[str, tuple[Any, dict[str, Any] | None]]] = {
    "list": (["red", "fox", "red"], None),
    "object": ({"a": "red", "b": "fox"}, None),
    "value and metadata": ({"a": "red"}, {"b": "fox"}),
    "key and value": ("fox", None),
    "key and metadata": (None, {"a": "fox"}),
    "metadata": (1, {"a": ["red"], "b": ["fox"]}),
    "scalar and metadata": ("red", {"a": "fox"}),
}


class QueryRules(ContractBase):
    """A table of queries, tried on a small set of entries."""

    @slow
    def test_each_form_of_query_finds_what_it_must(self, backend: LTMBackend) -> None:
        load(backend, LIBRARY)
        actual = {name: set(keys_of(find(backend, query, limit=100))) for name, (query, _) in QUERIES.items()}
        assert differences(actual, {name: set(expected) for name, (_, expected) in QUERIES.items()}) == {}

    def test_a_result_is_the_whole_entry_with_its_score(self, backend: LTMBackend) -> None:
        backend.store("k", {"text": "fox"}, {"a": 1})
        (entry,) = assert_success(find(backend, "fox"))["results"]
        assert entry.pop("score") > 0
        assert_same(entry, {"key": "k", "value": {"text": "fox"}, "metadata": {"a": 1}})

    def test_10_results_at_most_unless_told_otherwise(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:02}", "fox", None) for number in range(12)])
        assert find(backend)["count"] == find(backend, "fox")["count"] == 10
        assert find(backend, "fox", limit=12)["count"] == 12

    def test_positional_arguments_are_query_filter_and_limit(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number}", "fox", {"n": number}) for number in range(4)])
        keys = keys_of(find(backend, "fox", {"n": {"$gte": 1}}, 2))
        assert len(keys) == 2
        assert "k0" not in keys

    def test_words_may_be_in_different_parts_of_an_entry(self, backend: LTMBackend) -> None:
        backend.store("alpha", {"text": "beta"}, {"tag": "gamma"})
        assert keys_of(find(backend, "gamma alpha beta")) == ["alpha"]

    def test_a_phrase_never_crosses_from_one_string_to_the_next(self, backend: LTMBackend) -> None:
        load(backend, [(f"{name} red", value, metadata) for name, (value, metadata) in SPLIT_PHRASES.items()])
        assert set(keys_of(find(backend, "red fox"))) == {f"{name} red" for name in SPLIT_PHRASES}
        for phrase in ('"red fox"', "red-fox", '"fox red"', "red_fox"):
            assert keys_of(find(backend, phrase)) == [], phrase

    def test_no_word_is_too_short_or_too_common(self, backend: LTMBackend) -> None:
        words = ["a", "i", "the", "is", "of", "to", "x", "q", "qz", "0", "com", "www", "and", "or", "not", "de", "la"]
        load(backend, [(f"k{number}", f"{word} sentence", None) for number, word in enumerate(words)])
        for number, word in enumerate(words):
            assert keys_of(find(backend, word)) == [f"k{number}"], word

    def test_words_beyond_200_000_characters_are_not_indexed(self, backend: LTMBackend) -> None:
        text = " ".join(f"w{number}" for number in range(40_000))
        backend.store("key-word", text, {"tag": "meta"})
        counts = {
            word: find(backend, word)["count"]
            for word in ("key-word", "w0", "w9999", '"w9998 w9999"', "w39999", "meta")
        }
        assert counts == {"key-word": 1, "w0": 1, "w9999": 1, '"w9998 w9999"': 1, "w39999": 0, "meta": 0}
        assert backend.retrieve("key-word")["value"] == text

    @pytest.mark.parametrize("letter", ["x", "q", "я", "한"])
    def test_long_words_are_told_apart_at_any_length(self, backend: LTMBackend, letter: str) -> None:
        lengths = [*range(8, 18), 39, 40, *range(75, 81), 155, 156, 300]
        load(backend, [(f"k{length}", letter * length + "a", None) for length in lengths])
        for length in lengths:
            assert keys_of(find(backend, letter * length + "a")) == [f"k{length}"]
            assert keys_of(find(backend, letter * length)) == keys_of(find(backend, letter * length + "b")) == []
            longer = [other for other in lengths if other >= length]
            assert set(keys_of(find(backend, letter * length + "*", limit=99))) == {f"k{other}" for other in longer}
            assert find(backend, f"-{letter * length}a", limit=99)["count"] == len(lengths) - 1

    def test_a_query_may_have_200_words(self, backend: LTMBackend) -> None:
        words = [f"w{number}" for number in range(200)]
        backend.store("k", " ".join(words))
        for query in (" ".join(words), f'"{" ".join(words)}"', "k " + " ".join(f"-n{word}" for word in words[1:])):
            assert keys_of(find(backend, query)) == ["k"]

    def test_a_query_of_more_words_is_refused(self, backend: LTMBackend) -> None:
        result = find(backend, " ".join(f"w{number}" for number in range(201)))
        assert result["success"] is False
        assert result["error_type"] == "validation_error"

    def test_search_sees_what_was_just_written(self, backend: LTMBackend) -> None:
        for number in range(20):
            backend.store("k", f"word{number}")
            assert keys_of(find(backend, f"word{number}")) == ["k"]
            assert keys_of(find(backend, f"word{number - 1}")) == []
        backend.delete("k")
        assert keys_of(find(backend, "word19")) == []
