"""The codec: a stored value comes back exactly as it was, or it is refused."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from the_edge_agent.memory import LTMError
from the_edge_agent.memory.core.codec import UnreadableError, decode, decode_metadata, encode_metadata, encode_value
from the_edge_agent.testing.bad_input import BAD_METADATA, NOT_JSON, anywhere
from the_edge_agent.testing.contract import text_of
from the_edge_agent.testing.exactness import NUMBERS, VALUES, nested

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(TEXT, children, max_size=5),
    max_leaves=30,
)
FILTERABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), children, max_size=5
        )
    ),
    max_leaves=20,
)


def refused(encode: Any, value: Any) -> str:
    with pytest.raises(LTMError) as raised:
        encode(value)
    return raised.value.error_type


@given(JSON)
def test_any_json_comes_back_exactly(value: Any) -> None:
    assert text_of(decode(encode_value(value))) == text_of(value)


@given(JSON)
def test_the_text_is_json_that_others_read(value: Any) -> None:
    encoded = encode_value(value)
    assert text_of(json.loads(encoded)) == text_of(value)
    encoded.encode("utf-8")
    assert "\0" not in encoded  # which PostgreSQL's TEXT could not hold


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), FILTERABLE))
def test_any_metadata_within_the_rules_comes_back_exactly(metadata: dict[str, Any]) -> None:
    encoded = encode_metadata(metadata)
    assert encoded is not None
    assert text_of(decode(encoded)) == text_of(metadata)


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_a_number_keeps_value_sign_and_type(number: float) -> None:
    assert repr(decode(encode_value(number))) == repr(number)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_hostile_value_comes_back_exactly(value: Any) -> None:
    assert text_of(decode(encode_value(value))) == text_of(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (2**64, "18446744073709551616"),
        ({"b": 1, "a": [1, 2]}, '{"b":1,"a":[1,2]}'),
        ("é\U0001f600", '"é\U0001f600"'),
        ("\0", '"\\u0000"'),
        ('\x1f\n"\\', '"\\u001f\\n\\"\\\\"'),
    ],
    ids=repr,
)
def test_the_text_is_compact_and_readable(value: Any, expected: str) -> None:
    assert encode_value(value) == expected


@pytest.mark.parametrize("value", anywhere(NOT_JSON).values(), ids=anywhere(NOT_JSON).keys())
def test_what_is_not_json_is_refused(value: Any) -> None:
    assert refused(encode_value, value) == "serialization_error"
    assert refused(encode_metadata, {"a": value}) == "serialization_error"


@pytest.mark.parametrize("metadata", BAD_METADATA.values(), ids=BAD_METADATA.keys())
def test_metadata_that_cannot_be_filtered_is_refused(metadata: Any) -> None:
    assert refused(encode_metadata, metadata) == "validation_error"


@given(JSON, st.sampled_from([math.nan, math.inf, (1,), b"x", {1}, "\ud800", {1: 2}]), st.data())
def test_one_wrong_part_anywhere_is_refused(value: Any, wrong: Any, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 3))):
        value = data.draw(st.sampled_from([[value], {"k": value}, [1, value]]))
    container = data.draw(st.sampled_from([[value, wrong], {"a": value, "b": wrong}, {"a": [wrong], "b": value}]))
    assert refused(encode_value, container) == "serialization_error"


def in_lists(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


WRONG_PARTS: dict[str, tuple[Any, str]] = {
    "itself": (math.nan, "value"),
    "in an object in a list": (
        {"n": 1, "items": [1, 2.5, None, {"a": {}, "when": NOT_JSON["datetime"]}]},
        ".items[3].when",
    ),
    "the first of two": ([[], [1, (2,)], {3}], "[1][1]"),
    "an object with such a key": ({"a": {"b": {1: 2}}}, ".a.b"),
    "a key that is not shown": ({"first": 1, "p@ss word": [b"x"]}, "[key 2][0]"),
    "a lone surrogate": ({"a": ["\ud800"]}, ".a[0]"),
    "the part that leads back": ({"a": [NOT_JSON["circular list"]]}, ".a[0][0]"),
    "deep": ({"a": [[nested(30), NOT_JSON["circular dict"]]], "b": 1}, ".a[0][1].self[0]"),
    "deeper than is shown": (in_lists(math.inf, 30), "value" + "[0]" * 19 + "..."),
}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_the_part_that_is_not_json_is_named_by_its_path(name: str) -> None:
    value, path = WRONG_PARTS[name]
    with pytest.raises(LTMError) as raised:
        encode_value(value)
    assert f"{path} cannot be kept exactly as JSON: " in str(raised.value)
    assert str(raised.value).startswith("value")
    if name != "deeper than is shown":
        with pytest.raises(LTMError, match=r"^metadata\.b"):
            encode_metadata({"b": value})


@given(JSON, st.sampled_from([math.inf, -math.inf, math.nan, "\ud800", "\udfff\ud800", {"\udbff": 1}, nested(501)]))
def test_what_is_refused_is_unreadable(value: Any, wrong: Any) -> None:
    for container in ([value, wrong], {"a": value, "b": [wrong]}):
        text = json.dumps(container).replace("Infinity", "1e400")
        assert refused(encode_value, container) is not None
        with pytest.raises(UnreadableError):
            decode(text)
        with pytest.raises(UnreadableError):
            decode_metadata(f'{{"a":{text}}}')


@pytest.mark.parametrize("metadata", [{"a": "\0"}, {"\0": 1}, {"a": 2**63}, {"a": [-(2**63) - 1]}, {"a": nested(30)}])
def test_metadata_that_is_refused_is_unreadable(metadata: Any) -> None:
    assert refused(encode_metadata, metadata) == "validation_error"
    with pytest.raises(UnreadableError):
        decode_metadata(json.dumps(metadata))
    assert decode(json.dumps(metadata)) == metadata, "as a value it is good"


@pytest.mark.parametrize("leaf", [1, [], {}, "[[[[{{{{"], ids=repr)
def test_a_value_may_be_500_levels_deep_and_metadata_30(leaf: Any) -> None:
    deeper = int(isinstance(leaf, (list, dict)))
    for levels in (499, 500):
        value = _lists(leaf, levels - deeper)
        assert text_of(decode(encode_value(value))) == text_of(value)
    assert refused(encode_value, _lists(leaf, 501 - deeper)) == "validation_error"
    assert encode_metadata({"a": _lists(leaf, 29 - deeper)}) is not None
    assert refused(encode_metadata, {"a": _lists(leaf, 30 - deeper)}) == "validation_error"


@pytest.mark.parametrize("depth", [1_000, 10_000, 200_000])
def test_a_very_deep_value_is_refused_not_fatal(depth: int) -> None:
    assert refused(encode_value, nested(depth)) == "validation_error"


def test_many_brackets_in_texts_are_not_depth() -> None:
    assert decode(encode_value(["[" * 1_000, {"{" * 1_000: 1}])) == ["[" * 1_000, {"{" * 1_000: 1}]
    assert decode(encode_value([[]] * 1_000)) == [[]] * 1_000


def test_metadata_none_and_empty_stay_different() -> None:
    assert encode_metadata(None) is None
    assert encode_metadata({}) == "{}"


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_metadata_has_integers_of_64_bits(number: int) -> None:
    assert encode_metadata({"a": [number]}) is not None


def test_floats_beyond_64_bits_are_metadata() -> None:
    assert encode_metadata({"a": 1e300, "b": -1e19}) == '{"a":1e+300,"b":-1e+19}'


class Color(str, enum.Enum):
    RED = "red"


class Count(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "plain"),
    [(OrderedDict(b=1, a=2), {"b": 1, "a": 2}), (Color.RED, "red"), (Count.ONE, 1)],
    ids=["OrderedDict", "str enum", "int enum"],
)
def test_what_equals_its_json_is_kept_as_that(value: Any, plain: Any) -> None:
    decoded = decode(encode_value(value))
    assert text_of(decoded) == text_of(plain)
    assert type(decoded) is type(plain)


def test_an_error_never_shows_the_value() -> None:
    strange = {"canary !": b"", "https://canary@h": b"", "canary" * 9: b""}
    for wrong in (["canary", math.nan], {"a": b"canary"}, ["canary\ud800"], ("canary",), strange):
        with pytest.raises(LTMError) as raised:
            encode_value(wrong)
        assert "canary" not in str(raised.value)
        assert raised.value.__cause__ is None


def _lists(leaf: Any, levels: int) -> Any:
    for _ in range(levels):
        leaf = [leaf]
    return leaf
