"""The Python functions that define metadata filters: DESIGN's table, and laws that hold for any filter."""

from __future__ import annotations

import time
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from the_edge_agent.memory import LTMError
from the_edge_agent.memory.core.filters import equal, matches, parse_filter
from the_edge_agent.testing.bad_input import BAD_FILTERS
from the_edge_agent.testing.contract import text_of
from the_edge_agent.testing.filters import EXACT_NUMBERS, FILTERS, HOSTILE_KEYS, RECORDS

NAMES = st.sampled_from(["a", "b", "", "a.b", "é", "'", '"'])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(EXACT_NUMBERS),
    st.integers(-3, 3),
    st.sampled_from([-1.0, -0.0, 0.0, 1.0, 2.0, 2.5]),
    st.sampled_from(["", "a", "A", "á", "1", "\uffff", "\U00010000"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(NAMES, children, max_size=3),
    max_leaves=6,
)
METADATA = st.none() | st.dictionaries(NAMES, VALUES, max_size=4)
NUMBERS = (
    st.sampled_from(EXACT_NUMBERS) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
ORDERED = NUMBERS | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
CONDITIONS = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.builds(lambda value: {"$eq": value}, VALUES),
    st.builds(lambda value: {"$ne": value}, VALUES),
    st.builds(lambda values: {"$in": values}, st.lists(VALUES, max_size=3)),
    st.builds(lambda values: {"$nin": values}, st.lists(VALUES, max_size=3)),
    st.builds(lambda there: {"$exists": there}, st.booleans()),
    st.builds(lambda op, operand: {op: operand}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERED),
)
FILTER = st.recursive(
    st.dictionaries(NAMES, CONDITIONS | st.dictionaries(NAMES, CONDITIONS, max_size=2), max_size=2),
    lambda filters: st.one_of(
        st.builds(lambda several: {"$and": several}, st.lists(filters, max_size=3)),
        st.builds(lambda several: {"$or": several}, st.lists(filters, max_size=3)),
        st.builds(lambda one: {"$not": one}, filters),
    ),
    max_leaves=5,
)


def is_match(metadata_filter: Any, metadata: Any) -> bool:
    return matches(parse_filter(metadata_filter), metadata)


@pytest.mark.parametrize(("metadata_filter", "expected"), FILTERS.values(), ids=FILTERS.keys())
def test_a_filter_finds(metadata_filter: dict[str, Any] | None, expected: Iterable[str]) -> None:
    assert {name for name, metadata in RECORDS.items() if is_match(metadata_filter, metadata)} == set(expected)


@pytest.mark.parametrize("metadata_filter", BAD_FILTERS.values(), ids=BAD_FILTERS.keys())
def test_a_bad_filter_is_refused(metadata_filter: Any) -> None:
    with pytest.raises(LTMError) as raised:
        parse_filter(metadata_filter)
    assert raised.value.error_type == "validation_error"


# DESIGN's table once more, filter by filter, as (filter, metadata that match, metadata that do not).
DESIGN: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "equal": (
        {"a": 1},
        [{"a": 1}, {"a": 1.0}, {"a": 1, "b": 2}],
        [None, {}, {"a": True}, {"a": "1"}, {"a": [1]}, {"b": 1}],
    ),
    "a dot is literal": ({"a.b": 1}, [{"a.b": 1}], [{"a": {"b": 1}}, {"a": 1}]),
    "null or missing": (
        {"a": None},
        [None, {}, {"a": None}, {"b": 1}],
        [{"a": 0}, {"a": False}, {"a": ""}, {"a": []}, {"a": {}}],
    ),
    "descends": (
        {"a": {"b": 1}},
        [{"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}],
        [{"a": 1}, {"a": [{"b": 1}]}, {"a": {"c": 1}}, {"b": 1}],
    ),
    "any object": ({"a": {}}, [{"a": {}}, {"a": {"b": 1}}], [None, {}, {"a": None}, {"a": []}, {"a": "x"}, {"a": 0}]),
    "whole list": (
        {"a": [1, 2]},
        [{"a": [1, 2]}, {"a": [1.0, 2]}],
        [{"a": [2, 1]}, {"a": [1]}, {"a": [1, 2, 3]}, {"a": 1}],
    ),
    "whole object": ({"a": {"$eq": {"b": 1}}}, [{"a": {"b": 1.0}}], [{"a": {"b": 1, "c": 2}}, {"a": {}}, {"b": 1}]),
    "$ne of a missing key": (
        {"a": {"$ne": 1}},
        [None, {}, {"a": None}, {"a": True}, {"a": "1"}],
        [{"a": 1}, {"a": 1.0}],
    ),
    "$nin of a missing key": ({"a": {"$nin": [1, "x"]}}, [None, {}, {"a": 2}], [{"a": 1.0}, {"a": "x"}]),
    "$in": ({"a": {"$in": [1, None]}}, [None, {"a": None}, {"a": 1}], [{"a": 2}, {"a": True}, {"a": [1]}]),
    "$gt": (
        {"a": {"$gt": 1}},
        [{"a": 2}, {"a": 1.5}],
        [None, {}, {"a": 1}, {"a": "2"}, {"a": True}, {"a": None}, {"a": [2]}],
    ),
    "$gte": ({"a": {"$gte": 1}}, [{"a": 1.0}, {"a": 2}], [{"a": 0.9}, {"a": True}, {"a": "1"}, {}]),
    "$lt": ({"a": {"$lt": "b"}}, [{"a": "a"}, {"a": "B"}, {"a": ""}], [{"a": "b"}, {"a": 1}, {"a": None}, {}, None]),
    "$lte": ({"a": {"$lte": "é"}}, [{"a": "é"}, {"a": "z"}, {"a": "e\u0301"}], [{"a": "ê"}, {"a": "日"}, {"a": 0}]),
    "order is by code point": ({"a": {"$gt": "\uffff"}}, [{"a": "\U00010000"}], [{"a": "\uffff"}, {"a": "\ue000"}]),
    "$exists": ({"a": {"$exists": True}}, [{"a": None}, {"a": 0}], [None, {}, {"b": 1}]),
    "not $exists": ({"a": {"$exists": False}}, [None, {}, {"b": 1}], [{"a": None}, {"a": 0}]),
    "AND-ed": ({"a": {"$gt": 1, "$lt": 3}, "b": 1}, [{"a": 2, "b": 1}], [{"a": 2}, {"a": 3, "b": 1}, {"a": 1, "b": 1}]),
    "$and": ({"$and": [{"a": 1}, {"b": 2}]}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}, {}]),
    "$and of nothing": ({"$and": []}, [None, {}, {"a": 1}], []),
    "$or": ({"$or": [{"a": 1}, {"b": 2}]}, [{"a": 1}, {"b": 2}, {"a": 1, "b": 2}], [None, {}, {"a": 2, "b": 1}]),
    "$or of nothing": ({"$or": []}, [], [None, {}, {"a": 1}]),
    "$not": ({"$not": {"a": {"$gt": 1}}}, [None, {}, {"a": 1}, {"a": "x"}], [{"a": 2}]),
}


@pytest.mark.parametrize(("metadata_filter", "matching", "others"), DESIGN.values(), ids=DESIGN.keys())
def test_the_table_of_the_design(metadata_filter: dict[str, Any], matching: list[Any], others: list[Any]) -> None:
    assert [metadata for metadata in matching if not is_match(metadata_filter, metadata)] == []
    assert [metadata for metadata in others if is_match(metadata_filter, metadata)] == []


@given(NUMBERS, NUMBERS)
def test_numbers_are_compared_as_exact_fractions(left: float, right: float) -> None:
    exact, other = Fraction(left), Fraction(right)
    expected = {"$eq": exact == other, "$ne": exact != other, "$gt": exact > other, "$gte": exact >= other}
    expected |= {"$lt": exact < other, "$lte": exact <= other}
    assert {op: is_match({"a": {op: right}}, {"a": left}) for op in expected} == expected


@given(st.text(max_size=4), st.text(max_size=4))
def test_strings_are_ordered_by_code_point(left: str, right: str) -> None:
    left, right = (text.replace("\0", "").encode(errors="ignore").decode() for text in (left, right))
    points, others = [*map(ord, left)], [*map(ord, right)]
    assert is_match({"a": {"$lt": right}}, {"a": left}) is (points < others)
    assert is_match({"a": {"$gte": right}}, {"a": left}) is (points >= others)
    assert is_match({"a": right}, {"a": left}) is (points == others)


@given(VALUES)
def test_a_value_is_found_by_itself(value: Any) -> None:
    assert is_match({"a": {"$eq": value}}, {"a": value})
    assert is_match({"a": {"$in": ["other", value]}}, {"a": value})
    assert not is_match({"a": {"$ne": value}}, {"a": value})


@given(VALUES, VALUES)
def test_equality_is_that_of_json_with_numbers_by_value(left: Any, right: Any) -> None:
    assert equal(left, right) is (_canonical(left) == _canonical(right))
    assert is_match({"a": {"$eq": right}}, {"a": left}) is (_canonical(left) == _canonical(right))


@given(FILTER, METADATA)
def test_not_is_the_opposite(metadata_filter: dict[str, Any], metadata: Any) -> None:
    assert is_match({"$not": metadata_filter}, metadata) is not is_match(metadata_filter, metadata)


@given(st.lists(FILTER, max_size=3), METADATA)
def test_and_is_all_and_or_is_any(filters: list[dict[str, Any]], metadata: Any) -> None:
    each = [is_match(metadata_filter, metadata) for metadata_filter in filters]
    assert is_match({"$and": filters}, metadata) is all(each)
    assert is_match({"$or": filters}, metadata) is any(each)


@given(VALUES, st.lists(VALUES, max_size=4), METADATA)
def test_ne_nin_and_in_follow_from_eq(value: Any, values: list[Any], metadata: Any) -> None:
    assert is_match({"a": {"$ne": value}}, metadata) is not is_match({"a": {"$eq": value}}, metadata)
    any_of = any(is_match({"a": {"$eq": each}}, metadata) for each in values)
    assert is_match({"a": {"$in": values}}, metadata) is any_of
    assert is_match({"a": {"$nin": values}}, metadata) is not any_of


@given(FILTER, METADATA)
def test_none_counts_as_an_empty_object(metadata_filter: dict[str, Any], metadata: Any) -> None:
    assert is_match(metadata_filter, None) is is_match(metadata_filter, {})
    assert is_match(metadata_filter, metadata) is is_match(metadata_filter, metadata or {})


@given(FILTER, FILTER, METADATA)
def test_keys_in_one_object_are_and_ed(first: dict[str, Any], second: dict[str, Any], metadata: Any) -> None:
    both = {**first, **{key: value for key, value in second.items() if key not in first}}
    if len({key.startswith("$") for key in both}) == 1:  # operators do not mix with plain keys
        rest = {key: value for key, value in both.items() if key not in first}
        assert is_match(both, metadata) is (is_match(first, metadata) and is_match(rest, metadata))


@pytest.mark.parametrize("key", [key for key in HOSTILE_KEYS if not key.startswith("$")], ids=ascii)
def test_any_key_is_literal(key: str) -> None:
    assert is_match({key: 1}, {key: 1})
    assert is_match({"outer": {key: {"$gte": 1}}}, {"outer": {key: 1}})
    assert not is_match({key: 1}, {f"{key}x": 1})


def test_no_condition_matches_everything() -> None:
    assert parse_filter(None) is None
    assert parse_filter({}) is None
    assert all(is_match({}, metadata) for metadata in RECORDS.values())


def _canonical(value: Any) -> str:
    """Return text that is equal for equal values: numbers as fractions, keys sorted."""
    if isinstance(value, dict):
        return text_of(sorted((key, _canonical(item)) for key, item in value.items())) + "object"
    if isinstance(value, list):
        return text_of([_canonical(item) for item in value])
    if isinstance(value, (bool, str)) or value is None:
        return text_of(value)
    return str(Fraction(value))


def test_a_filter_that_is_too_large_is_refused_at_once() -> None:
    doubled: dict[str, Any] = {"a": 1}
    for _ in range(40):
        doubled = {"$and": [doubled, doubled]}
    begin = time.process_time()
    for too_large in ({"a": {"$in": ["x"] * 1_000_000}}, {"$or": [{"a": 1}] * 20_001}, doubled):
        with pytest.raises(LTMError, match="at most 20,000 keys and values"):
            parse_filter(too_large)
    assert parse_filter({"a": {"$in": [*range(9_998)]}})
    assert time.process_time() - begin < 1
