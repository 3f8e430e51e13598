"""The rules of metadata filters: which entries each form of filter matches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import ContractBase, assert_success, differences, find, keys_of, load
from the_edge_agent.testing.slow import slow

RECORDS: Final[dict[str, dict[str, Any] | None]] = {
    "none": None,
    "empty": {},
    "null": {"a": None},
    "true": {"a": True},
    "false": {"a": False},
    "0": {"a": 0},
    "-0.0": {"a": -0.0},
    "1": {"a": 1},
    "1.0": {"a": 1.0},
    "2": {"a": 2},
    "2.5": {"a": 2.5},
    "10": {"a": 10},
    "-3": {"a": -3},
    "text 1": {"a": "1"},
    "text true": {"a": "true"},
    "text null": {"a": "null"},
    "empty text": {"a": ""},
    "a": {"a": "a"},
    "A": {"a": "A"},
    "a space": {"a": "a "},
    "a accent": {"a": "\u00e1"},
    "a accent NFD": {"a": "a\u0301"},
    "z": {"a": "z"},
    "U+E000": {"a": "\ue000"},
    "emoji": {"a": "\U0001f600"},
    "quotes": {"a": "it's \"\\ %_"},
    "list": {"a": [1, 2]},
    "list of floats": {"a": [1.0, 2.0]},
    "list reversed": {"a": [2, 1]},
    "list longer": {"a": [1, 2, 3]},
    "list of text": {"a": ["1", "2"]},
    "list of true": {"a": [True]},
    "list of 1": {"a": [1]},
    "empty list": {"a": []},
    "list of null": {"a": [None]},
    "nested list": {"a": [[1], {"b": 1}]},
    "object": {"a": {"b": 1}},
    "object with more": {"a": {"b": 1, "c": 2}},
    "object swapped": {"a": {"c": 2, "b": 1}},
    "empty object": {"a": {}},
    "object with null": {"a": {"b": None}},
    "deep": {"a": {"b": {"c": {"d": "x"}}}},
    "dotted": {"a.b": 1},
    "other key": {"b": 1},
}
TEXTS = {"text 1", "text true", "text null", "empty text", "a", "A", "a space", "a accent", "a accent NFD", "z"}
TEXTS |= {"U+E000", "emoji", "quotes"}
NUMBERS = {"0", "-0.0", "1", "1.0", "2", "2.5", "10", "-3"}
LISTS = {name for name in RECORDS if "list" in name}
OBJECTS = {"object", "object with more", "object swapped", "empty object", "object with null", "deep"}
MISSING = {"none", "empty", "dotted", "other key"}
ABSENT = MISSING | {"null"}
ALL = set(RECORDS)
ONES = {"1", "1.0"}

FILTERS: Final[dict[str, tuple[dict[str, Any] | None, Iterable[str]]]] = {
    "None": (None, ALL),
    "empty": ({}, ALL),
    "number": ({"a": 1}, ONES),
    "float": ({"a": 1.0}, ONES),
    "number with a fraction": ({"a": 2.5}, {"2.5"}),
    "zero": ({"a": 0}, {"0", "-0.0"}),
    "minus zero": ({"a": -0.0}, {"0", "-0.0"}),
    "negative": ({"a": -3.0}, {"-3"}),
    "number that nothing has": ({"a": 7}, ()),
    "true is not 1": ({"a": True}, {"true"}),
    "false is not 0": ({"a": False}, {"false"}),
    "text": ({"a": "a"}, {"a"}),
    "text in capitals": ({"a": "A"}, {"A"}),
    "text with a space": ({"a": "a "}, {"a space"}),
    "text with an accent": ({"a": "\u00e1"}, {"a accent"}),
    "text with an accent NFD": ({"a": "a\u0301"}, {"a accent NFD"}),
    "text that looks like a number": ({"a": "1"}, {"text 1"}),
    "text that looks like true": ({"a": "true"}, {"text true"}),
    "text that looks like null": ({"a": "null"}, {"text null"}),
    "empty text": ({"a": ""}, {"empty text"}),
    "text with quotes": ({"a": "it's \"\\ %_"}, {"quotes"}),
    "text with a wildcard": ({"a": "%"}, ()),
    "emoji": ({"a": "\U0001f600"}, {"emoji"}),
    "null": ({"a": None}, ABSENT),
    "null of a key that nothing has": ({"x": None}, ALL),
    "null of a nested key": ({"a": {"b": None}}, {"empty object", "object with null"}),
    "list": ({"a": [1, 2]}, {"list", "list of floats"}),
    "list with a float": ({"a": [1, 2.0]}, {"list", "list of floats"}),
    "list in its order": ({"a": [2, 1]}, {"list reversed"}),
    "list of text": ({"a": ["1", "2"]}, {"list of text"}),
    "list of true": ({"a": [True]}, {"list of true"}),
    "list of 1": ({"a": [1]}, {"list of 1"}),
    "list of null": ({"a": [None]}, {"list of null"}),
    "empty list": ({"a": []}, {"empty list"}),
    "nested list": ({"a": [[1.0], {"b": 1}]}, {"nested list"}),
    "objects in lists are compared whole": ({"a": [[1], {}]}, ()),
    "operators in lists are plain": ({"a": [{"$gt": 0}]}, ()),
    "object descends": ({"a": {"b": 1}}, {"object", "object with more", "object swapped"}),
    "object with two keys": ({"a": {"b": 1, "c": 2}}, {"object with more", "object swapped"}),
    "object with a wrong key": ({"a": {"b": 1, "c": 3}}, ()),
    "object does not descend into lists": ({"a": {"0": 1}}, ()),
    "empty object matches any object": ({"a": {}}, OBJECTS),
    "empty object, nested": ({"a": {"b": {}}}, {"deep"}),
    "deep": ({"a": {"b": {"c": {"d": "x"}}}}, {"deep"}),
    "deep with an operator": ({"a": {"b": {"c": {"d": {"$gt": "w"}}}}}, {"deep"}),
    "a dot means nothing": ({"a.b": 1}, {"dotted"}),
    "two keys": ({"a": None, "b": 1}, {"other key"}),
    "$eq number": ({"a": {"$eq": 1}}, ONES),
    "$eq null": ({"a": {"$eq": None}}, ABSENT),
    "$eq list": ({"a": {"$eq": [1, 2]}}, {"list", "list of floats"}),
    "$eq object compares it whole": ({"a": {"$eq": {"b": 1}}}, {"object"}),
    "$eq object in any order": ({"a": {"$eq": {"c": 2.0, "b": 1}}}, {"object with more", "object swapped"}),
    "$eq empty object": ({"a": {"$eq": {}}}, {"empty object"}),
    "$eq object with null": ({"a": {"$eq": {"b": None}}}, {"object with null"}),
    "$ne number": ({"a": {"$ne": 1}}, ALL - ONES),
    "$ne null": ({"a": {"$ne": None}}, ALL - ABSENT),
    "$ne true": ({"a": {"$ne": True}}, ALL - {"true"}),
    "$ne text": ({"a": {"$ne": "a"}}, ALL - {"a"}),
    "$ne list": ({"a": {"$ne": [1, 2]}}, ALL - {"list", "list of floats"}),
    "$ne object": ({"a": {"$ne": {"b": 1}}}, ALL - {"object"}),
    "$gt number": ({"a": {"$gt": 1}}, {"2", "2.5", "10"}),
    "$gt float": ({"a": {"$gt": 2.4}}, {"2.5", "10"}),
    "$gte number": ({"a": {"$gte": 1}}, {"1", "1.0", "2", "2.5", "10"}),
    "$lt number": ({"a": {"$lt": 1}}, {"0", "-0.0", "-3"}),
    "$lte number": ({"a": {"$lte": 1.0}}, {"0", "-0.0", "-3", "1", "1.0"}),
    "$gt minus zero": ({"a": {"$gt": -0.0}}, {"1", "1.0", "2", "2.5", "10"}),
    "$gte beyond everything": ({"a": {"$gte": 1e300}}, ()),
    "$lt beyond everything": ({"a": {"$lt": 1e300}}, NUMBERS),
    "$gt text": (
        {"a": {"$gt": "a"}},
        {"a space", "a accent", "a accent NFD", "z", "U+E000", "emoji"} | {"quotes", "text true", "text null"},
    ),
    "$gte text": ({"a": {"$gte": "z"}}, {"z", "a accent", "U+E000", "emoji"}),
    "$lt text": ({"a": {"$lt": "a"}}, {"A", "empty text", "text 1"}),
    "$lte text": ({"a": {"$lte": "A"}}, {"A", "empty text", "text 1"}),
    "$gt text is by code point": ({"a": {"$gt": "\ue000"}}, {"emoji"}),
    "$gte empty text": ({"a": {"$gte": ""}}, TEXTS),
    "two comparisons": ({"a": {"$gt": 0, "$lt": 2.5}}, {"1", "1.0", "2"}),
    "comparisons of two types": ({"a": {"$gt": 0, "$lt": "z"}}, ()),
    "$in": ({"a": {"$in": [1, "1", True]}}, {"1", "1.0", "text 1", "true"}),
    "$in with null": ({"a": {"$in": [None, "z"]}}, ABSENT | {"z"}),
    "$in with lists and objects": (
        {"a": {"$in": [[], {}, [1, 2]]}},
        {"empty list", "empty object", "list", "list of floats"},
    ),
    "$in of lists looks at the whole": ({"a": {"$in": [3]}}, ()),
    "$in nothing": ({"a": {"$in": []}}, ()),
    "$nin": ({"a": {"$nin": [1, "1", True]}}, ALL - {"1", "1.0", "text 1", "true"}),
    "$nin with null": ({"a": {"$nin": [None, 0]}}, ALL - ABSENT - {"0", "-0.0"}),
    "$nin nothing": ({"a": {"$nin": []}}, ALL),
    "$exists": ({"a": {"$exists": True}}, ALL - MISSING),
    "$exists not": ({"a": {"$exists": False}}, MISSING),
    "$exists nested": (
        {"a": {"b": {"$exists": True}}},
        {"object", "object with more", "object swapped"} | {"object with null", "deep"},
    ),
    "$exists not, nested": ({"a": {"b": {"$exists": False}}}, {"empty object"}),
    "$ne nested": ({"a": {"b": {"$ne": 1}}}, {"empty object", "object with null", "deep"}),
    "several operators": ({"a": {"$exists": True, "$ne": None, "$nin": [1, 2], "$gte": 0}}, {"0", "-0.0", "2.5", "10"}),
    "$and": ({"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 10}}]}, {"2", "2.5"}),
    "$and of nothing": ({"$and": []}, ALL),
    "$and of empty filters": ({"$and": [{}, {}]}, ALL),
    "$or": ({"$or": [{"a": "z"}, {"b": 1}]}, {"z", "other key"}),
    "$or of nothing": ({"$or": []}, ()),
    "$or with an empty filter": ({"$or": [{"a": "z"}, {}]}, ALL),
    "$not": ({"$not": {"a": {"$gt": 1}}}, ALL - {"2", "2.5", "10"}),
    "$not of equality": ({"$not": {"a": 1}}, ALL - ONES),
    "$not of nothing": ({"$not": {}}, ()),
    "$not of $not": ({"$not": {"$not": {"a": "z"}}}, {"z"}),
    "$not of $or": ({"$not": {"$or": [{"a": {"$exists": True}}, {"b": 1}]}}, {"none", "empty", "dotted"}),
    "$and, $or and $not together": (
        {"$and": [{"a": {"$gte": 0}}], "$or": [{"a": 1}, {"a": 2}], "$not": {"a": 2}},
        ONES,
    ),
    "$or in $and": ({"$and": [{"$or": [{"a": 1}, {"a": "z"}]}, {"$not": {"a": "z"}}]}, ONES),
}

# Numbers that become equal if a database converts them to doubles or decimals.
EXACT_NUMBERS: Final[tuple[int | float, ...]] = (
    *(-(2**63), -(2**63) + 1, -(2**53) - 1, -(2**53), -(2**53) + 1, -1e300, -1e22, -0.1, -5e-324, 0, 5e-324),
    *(2.2250738585072014e-308, 0.1, 0.30000000000000004, 0.3, 1e-7, 1 / 3, 123456789.123456789, 2**53 - 1, 2**53),
    *(2**53 + 1, 2**53 + 2, 9007199254740994.0, 2**60 - 1, 2**60, 2**60 + 1, 1.152921504606847e18, 10**18),
    *(1e18, 10**18 + 1, 2**63 - 1, 2**63 - 513, 9223372036854774784.0, 9.223372036854775807e18, 1e19, 1e22),
    *(1.0000000000000001e22, 1e300, 1.7976931348623157e308),
)

HOSTILE_KEYS: Final[tuple[str, ...]] = (
    *(
        "",
        " ",
        "a",
        "A",
        "a ",
        "'",
        '"',
        '""',
        "\\",
        "\\\\",
        "\\'",
        '\\"',
        ".",
        "a.b",
        "$a",
        "a$",
        "a$b",
        "$.a",
        "[0]",
        "0",
    ),
    *(
        "*",
        "**",
        "%",
        "_",
        "?",
        ":",
        ":p",
        "@",
        "#",
        "--",
        ";",
        "/",
        "{",
        "}",
        "{}",
        "%s",
        "%(x)s",
        "null",
        "true",
        "\t",
    ),
    *("\n", "\r", "\x01", "\x1f", "\x7f", "\u2028", "\u00e1", "a\u0301", "日本", "\U0001f600", "\uffff", "\U00010000"),
    *(
        "\U0010ffff",
        "x" * 300,
        "' OR '1'='1",
        '"; DROP TABLE ltm_entries; --',
        "key",
        "value",
        "type",
        "atom",
        "metadata",
    ),
)


class FilterRules(ContractBase):
    """A table of filters, tried on one entry for each kind of metadata."""

    @slow
    @pytest.mark.parametrize("query", [None, "value -unicorn"], ids=["alone", "with a query"])
    def test_each_form_of_filter_finds_what_it_must(self, backend: LTMBackend, query: str | None) -> None:
        load(backend, [(key, "value", metadata) for key, metadata in RECORDS.items()])
        actual = {name: set(keys_of(find(backend, query, condition, 100))) for name, (condition, _) in FILTERS.items()}
        assert differences(actual, {name: set(expected) for name, (_, expected) in FILTERS.items()}) == {}

    def test_numbers_are_compared_exactly(self, backend: LTMBackend) -> None:
        load(backend, [(repr(number), None, {"n": number}) for number in EXACT_NUMBERS])
        for number in EXACT_NUMBERS:
            expected = {
                "$eq": {repr(other) for other in EXACT_NUMBERS if other == number},
                "$lt": {repr(other) for other in EXACT_NUMBERS if other < number},
                "$gte": {repr(other) for other in EXACT_NUMBERS if other >= number},
            }
            for op, keys in expected.items():
                result = find(backend, metadata_filter={"n": {op: number}}, limit=100)
                assert set(keys_of(result)) == keys, (op, number)

    def test_numbers_in_lists_and_objects_are_compared_exactly(self, backend: LTMBackend) -> None:
        load(backend, [(repr(number), None, {"n": [{"x": number}]}) for number in EXACT_NUMBERS])
        for number in EXACT_NUMBERS:
            result = keys_of(find(backend, metadata_filter={"n": [{"x": number}]}, limit=100))
            assert set(result) == {repr(other) for other in EXACT_NUMBERS if other == number}, number

    @slow
    def test_any_text_is_a_key_of_metadata(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{place}", None, {key: place}) for place, key in enumerate(HOSTILE_KEYS)])
        load(backend, [(f"n{place}", None, {"outer": {key: place}}) for place, key in enumerate(HOSTILE_KEYS)])
        for place, key in enumerate(HOSTILE_KEYS):
            if not key.startswith("$"):  # which would be an operator
                for condition in (place, {"$gte": 0}, {"$exists": True}, {"$ne": None}):
                    assert keys_of(find(backend, metadata_filter={key: condition})) == [f"k{place}"], key
                    assert keys_of(find(backend, metadata_filter={"outer": {key: condition}})) == [f"n{place}"], key
            whole = {"outer": {"$eq": {key: place}}}
            assert keys_of(find(backend, metadata_filter=whole)) == [f"n{place}"], key

    @slow
    def test_any_text_is_a_value_of_metadata(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{place}", None, {"text": text}) for place, text in enumerate(HOSTILE_KEYS)])
        ordered = sorted(HOSTILE_KEYS)
        for place, text in enumerate(HOSTILE_KEYS):
            assert keys_of(find(backend, metadata_filter={"text": text})) == [f"k{place}"], text
            above = find(backend, metadata_filter={"text": {"$gt": text}}, limit=100)
            assert above["count"] == len(ordered) - 1 - ordered.index(text), text

    def test_a_filter_may_be_deep(self, backend: LTMBackend) -> None:
        metadata: dict[str, Any] = {"leaf": 1}
        for _ in range(29):
            metadata = {"k": metadata}
        backend.store("k", 1, metadata)
        assert keys_of(find(backend, metadata_filter=metadata)) == ["k"]
        assert keys_of(find(backend, metadata_filter={"$not": {"$not": metadata}})) == ["k"]

    @pytest.mark.parametrize("width", [100, 600])
    def test_a_filter_may_be_wide(self, backend: LTMBackend, width: int) -> None:
        every = {f"n{number}": number for number in range(width)}
        backend.store("k", 1, every)
        for wide, is_match in (
            (every, True),
            ({**every, "n7": 8}, False),
            ({"$or": [{"n7": number} for number in range(width)]}, True),
            ({"$and": [{"n7": {"$ne": number}} for number in range(width)]}, False),
            ({"n7": {"$in": [*range(width)]}}, True),
            ({"n7": {"$nin": [str(number) for number in range(width)]}}, True),
        ):
            assert keys_of(find(backend, metadata_filter=wide)) == ["k"] * is_match

    @slow
    def test_a_filter_is_applied_before_the_limit(self, backend: LTMBackend) -> None:
        load(backend, [("wanted", "fox", {"n": 1})])
        load(backend, [(f"k{number}", "fox fox", {"n": 0}) for number in range(600)])
        for query in (None, "fox", "-unicorn"):
            assert keys_of(find(backend, query, {"n": 1}, limit=1)) == ["wanted"]

    def test_a_filter_sees_the_newest_metadata(self, backend: LTMBackend) -> None:
        for number in range(10):
            backend.store("k", 1, {"n": number, "only": {str(number): True}})
            assert keys_of(find(backend, metadata_filter={"n": number})) == ["k"]
            assert keys_of(find(backend, metadata_filter={"n": number - 1})) == []
            assert keys_of(find(backend, metadata_filter={"only": {str(number - 1): {"$exists": True}}})) == []
        assert assert_success(backend.delete("k"))["deleted"] is True
        assert keys_of(find(backend, metadata_filter={"n": 9})) == []
