"""YAML is read strictly, and every value has its place in the file."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from the_edge_agent.workflow import reading
from the_edge_agent.workflow.errors import WorkflowFileError
from the_edge_agent.workflow.reading import MAX_VALUES, from_dict, read_yaml


def read(text: str) -> Any:
    return read_yaml(text, "agent.yaml").data


def refusal(text: str) -> str:
    with pytest.raises(WorkflowFileError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("text", "text"),
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("2.5e+3", 2500.0),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
        ("12:30", "12:30"),
        ("12:30:59.5", "12:30:59.5"),
        ("y", "y"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ('"no"', "no"),
        ("'010'", "010"),
        ('"\\u00e9 😀"', "é 😀"),
        ("日本 😀", "日本 😀"),
        ("${LTM_URL:-sqlite:///./ltm.db}", "${LTM_URL:-sqlite:///./ltm.db}"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_plain_values_are_what_they_look_like(written: str, value: Any) -> None:
    data = read(f"key: {written}\n")
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


@pytest.mark.parametrize(
    "written", ["no", "Yes", "ON", "off", "010", "1_000", "0b11", "0o17", "1e3", "-.5", ".inf", "-.inf", ".nan"]
)
def test_words_that_yaml_versions_read_differently_are_refused(written: str) -> None:
    message = refusal(f"a: 1\nkey: {written}\n")
    assert "ambiguous" in message
    assert message.startswith("agent.yaml:2:6: ")


@pytest.mark.parametrize("written", ["1.0e+999", "-1.0e+999"])
def test_numbers_that_no_float_holds_are_refused(written: str) -> None:
    assert refusal(f"key: {written}") == "agent.yaml:1:6: this number is too large"


def test_an_integer_that_is_too_long_is_refused() -> None:
    assert refusal(f"key: {'9' * 5000}") == "agent.yaml:1:6: this number is too long"


def test_words_such_as_on_may_be_keys() -> None:
    assert read("on: 1\nno: 2\n") == {"on": 1, "no": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1: x", 'agent.yaml:1:1: keys must be text: write "1" in quotes'),
        ("true: x", 'agent.yaml:1:1: keys must be text: write "true" in quotes'),
        ("a: {~: x}", 'agent.yaml:1:5: keys must be text: write "~" in quotes'),
        ("? [a, b]\n: x", "agent.yaml:1:3: keys must be text"),
        ("a: 1\nb: 2\na: 3", "agent.yaml:3:1: the key `a` is here twice, first in line 1"),
        ("a: {b: 1, 'b': 2}", "agent.yaml:1:11: the key `b` is here twice, first in line 1"),
    ],
)
def test_keys_are_text_and_unique(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary aGk=", "!local x", "! x", "!!str 5"],
)
def test_tags_are_refused(value: str) -> None:
    assert "tags such as" in refusal(f"a: 1\nkey: {value}")
    assert refusal(f"key: {value}").startswith("agent.yaml:1:6: ")


def test_anchors_and_merges_are_followed_and_copied() -> None:
    data = read("base: &base {a: 1, b: [2]}\nsame: *base\nmore: {<<: *base, a: 3}\n")
    assert data == {"base": {"a": 1, "b": [2]}, "same": {"a": 1, "b": [2]}, "more": {"a": 3, "b": [2]}}
    assert data["same"]["b"] is not data["base"]["b"]


def test_the_first_of_several_merges_wins() -> None:
    assert read("x: &x {a: 1}\ny: &y {a: 2, b: 2}\nz: {<<: [*x, *y]}")["z"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}"])
def test_an_alias_that_contains_itself_is_refused(text: str) -> None:
    assert refusal(text).endswith("an alias that contains itself")


def test_a_merge_of_something_else_is_refused() -> None:
    assert refusal("a: {<<: 5}").endswith("`<<` takes a mapping or a list of mappings")


@pytest.mark.parametrize("merge", [False, True], ids=["lists", "merges"])
def test_aliases_that_multiply_are_refused(merge: bool) -> None:
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x, x]"]
    for number in range(1, 40):
        pair = f"[*a{number - 1}, *a{number - 1}]"
        lines.append(f"a{number}: &a{number} {{<<: {pair}}}" if merge else f"a{number}: &a{number} {pair}")
    assert f"more than {MAX_VALUES:,} values" in refusal("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1", "agent.yaml:1:6"),
        ("a: 1\n\tb: 2", "agent.yaml:2:1"),
        ("a: 'x", "agent.yaml:1:6"),
        ("a: b: c", "agent.yaml:1:5"),
        ("a: *nobody", "agent.yaml:1:4"),
        ("a: 1\n---\nb: 2", "agent.yaml:2:1"),
        ("a: 1\nb: x\x00y", "agent.yaml:2:5"),
        ("a: \x1b[31m", "agent.yaml:1:4"),
        ("{{ state.x }}", "agent.yaml:1:2"),
    ],
)
def test_what_is_not_yaml_is_refused_in_one_line_where_it_is(text: str, place: str) -> None:
    message = refusal(text)
    assert message.startswith(f"{place}: ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "[" * 600 + "]" * 600, "- " * 3000 + "x"])
def test_deep_nesting_is_an_error_and_no_crash(text: str) -> None:
    assert "agent.yaml" in refusal(text)


def test_values_and_keys_have_places() -> None:
    document = read_yaml("# a comment\nnodes:\n  - name: one\n    with: {key: v}\n", "agent.yaml")
    assert str(document.place(("nodes", 0, "with", "key"))) == "agent.yaml:4:17"
    assert str(document.place(("nodes", 0, "with", "key"), key=True)) == "agent.yaml:4:12"
    assert str(document.place(("nodes", 0, "uses"))) == "agent.yaml:3:5", "what is not there has its parent's place"


# U+0085 is lost by PyYAML's own writer. What is text to YAML 1.1 and a number to YAML 1.2, such as 0E0, is refused.
NUMBER = re.compile(r"[-+]?[0-9._]+(e[-+]?[0-9]+)?", re.IGNORECASE)
UNAMBIGUOUS = st.text().filter(lambda text: not NUMBER.fullmatch(text) and "\x85" not in text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | UNAMBIGUOUS, lambda inner: st.lists(inner, max_size=3)))
def test_what_another_program_writes_as_yaml_is_read_back(value: Any) -> None:
    assert read(yaml.safe_dump({"key": value}, allow_unicode=True)) == {"key": value}


@given(st.text(alphabet="-:[]{}&*!|>'\"#%@` \n\tab01.e~<?,\\", max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    with suppress(WorkflowFileError):
        read(text)


MERGES = "a0: &a0 {x0: 1, x1: 1, x2: 1, x3: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], y{n}: 1}}\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MERGES, "more than 20,000 values, aliases and merged pairs included"),
        (
            "a: &a [" + "1, " * 400 + "]\nb: &b [" + "*a, " * 400 + "]\nc: [" + "*b, " * 400 + "]",
            "more than 20,000 values",
        ),
        ("[" + "1, " * 30_000 + "]", "more than 20,000 values"),
        ("a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 400 + "]", "more than 20,000,000 characters"),
        ("[" * 50_000, "nested too deeply, more than 100 values"),
        ("a: " + "{a: " * 50_000, "nested too deeply, more than 100 values"),
        ("- " * 5_000 + "a", "nested too deeply, more than 100 values"),
    ],
    ids=["merges", "aliases", "values", "text", "lists", "mappings", "blocks"],
)
def test_a_bomb_is_refused_in_time_where_it_is_written(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_VALUES", 20_000)
    before = time.process_time()
    refused = refusal(text)
    assert message in refused
    assert re.match(r"agent\.yaml:\d+:\d+: ", refused)
    assert time.process_time() - before < 10  # nearly all of it is the reading of 20,000 values


def test_a_file_of_many_megabytes_is_refused_unread() -> None:
    assert "more than 5,000,000 characters" in refusal("# " * 3_000_000)


def test_a_dict_with_shared_parts_is_refused_like_aliases() -> None:
    value: list[Any] = [1]
    for _ in range(64):
        value = [value, value]
    with pytest.raises(WorkflowFileError, match="more than 200,000 values"):
        from_dict({"initial_state": {"a": value}})
    with pytest.raises(WorkflowFileError, match="more than 20,000,000 characters"):
        from_dict({"initial_state": {"a": ["x" * 1_000_000] * 100}})
