"""Templates: a lone expression keeps its type, what is missing is an error, and values are data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from the_edge_agent.workflow.templates import TemplateError, compile_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def render(template: str, state: Any = None, **names: Any) -> Any:
    values = {"state": {} if state is None else state, "variables": {"top_k": 5}, **names}
    return compile_text(template, tuple(values))(values)


def failure(template: str, state: Any = None, **names: Any) -> str:
    with pytest.raises(TemplateError) as caught:
        render(template, state, **names)
    return str(caught.value)


@given(JSON)
def test_a_lone_expression_gives_the_value_itself(value: Any) -> None:
    rendered = render("{{ state.x }}", {"x": value})
    assert rendered == value
    assert json.dumps(rendered) == json.dumps(value), "the same types, too"


@pytest.mark.parametrize(
    "template", ["{{state.x}}", "  {{ state.x }}\n", "{{- state.x -}}", "{{ state['x'] }}{# note #}"]
)
def test_space_and_comments_around_a_lone_expression_do_not_matter(template: str) -> None:
    assert render(template, {"x": [1]}) == [1]


def test_the_value_is_a_copy() -> None:
    state = {"x": {"deep": [1]}}
    render("{{ state.x }}", state)["deep"].append(2)
    assert state == {"x": {"deep": [1]}}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("100 % { state }", "100 % { state }"),
        ("n = {{ state.n }}", "n = 3"),
        ("{{ state.n }}{{ state.n }}", "33"),
        ("{{ state.n }}.", "3."),
        ("kept\r\n{{ state.n }}\n", "kept\n3\n"),
        ("{% if state.n > 2 %}many{% else %}few{% endif %}", "many"),
        ("{% for x in state.l %}{{ x }};{% endfor %}", "a;b;"),
        ("{% for x in state.l %}{{ loop.index }}{{ x }}{% endfor %}", "1a2b"),
        ("{% set y = state.n %}{% macro m(z) %}<{{ z }}>{% endmacro %}{{ m(y) }}", "<3>"),
        ("{% raw %}{{ state.n }}{% endraw %}", "{{ state.n }}"),
        ("none: {{ state.none }}", "none: None"),
        ("list: {{ state.l }}", "list: ['a', 'b']"),
        ("lazy: {{ state.l | map('upper') }}", "lazy: ['A', 'B']"),
        ("maybe:{{ ' yes' if not state.n }}", "maybe:"),
    ],
)
def test_anything_else_gives_text(template: str, value: str) -> None:
    assert render(template, {"n": 3, "l": ["a", "b"], "none": None}) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("state.n + variables.top_k", 8),
        ("state.n > 2 and state.l", ["a", "b"]),
        ("state.l | length", 2),
        ("state.l | map('upper')", ["A", "B"]),
        ("state.l | join(', ')", "a, b"),
        ("range(3)", [0, 1, 2]),
        ("(1, 2)", [1, 2]),
        ("{'a': state.n, 'b': [state.l]}", {"a": 3, "b": [["a", "b"]]}),
        ("state.d | json", '{"é": "<"}'),
        ("state.d | tojson", '{"é": "<"}'),
        ("'<' | escape", "&lt;"),
        ("state.n is defined", True),
        ("state.nope is defined", False),
        ("state.nope.deeper is defined", False),
        ("'yes' if state.n else 'no'", "yes"),
        ("'yes' if not state.n", None),
        ("state.get('nope', 7)", 7),
        ("state.l[-1]", "b"),
        ("'a' * 3", "aaa"),
        ("2 ** 10", 1024),
        ("-1", -1),
    ],
)
def test_expressions(expression: str, value: Any) -> None:
    rendered = render(f"{{{{ {expression} }}}}", {"n": 3, "l": ["a", "b"], "d": {"é": "<"}})
    assert rendered == value
    assert type(rendered) is type(value)


@pytest.mark.parametrize("key", ["items", "keys", "get", "values", "pop", "_private", "__class__", "copy"])
def test_a_key_comes_before_a_method_of_dicts(key: str) -> None:
    assert render(f"{{{{ state.{key} }}}}", {key: [1]}) == [1]
    assert render(f"-{{{{ state.{key} }}}}", {key: 1}) == "-1"


@pytest.mark.parametrize("template", ["{{ state.items }}", "all: {{ state.items }}", "{{ [state.items] }}"])
def test_a_method_is_not_data(template: str) -> None:
    assert "not data" in failure(template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ state.topik }}", "`state.topik` is missing; did you mean `topic`?"),
        ("about {{ state.topik }}", "`state.topik` is missing; did you mean `topic`?"),
        ("{{ state.user.nam }}", "`state.user.nam` is missing; did you mean `name`?"),
        ("{{ state.user.zzz.first }}", "`state.user.zzz.first` is missing (there is no `state.user.zzz`)"),
        ("{{ state.zzz.first }}", "`state.zzz.first` is missing (there is no `state.zzz`)"),
        ("{{ state.zzz['a b'][0] }}", "`state.zzz['a b'][0]` is missing (there is no `state.zzz`)"),
        ("{{ state.list[7] }}", "`state.list[7]` is missing"),
        ("{{ state['a b'] }}", "`state['a b']` is missing"),
        ("{{ variables.zzz }}", "`variables.zzz` is missing"),
        ("{{ state.topic.zzz }}", "`state.topic.zzz` is missing"),
        ("{% for x in state.list %}{{ x.zzz }}{% endfor %}", "`state.list[0].zzz` is missing"),
        ("{{ [1, state.zzz] }}", "`state.zzz` is missing"),
        ("{{ {'a': state.zzz} }}", "`state.zzz` is missing"),
        ("{{ state.zzz + 1 }}", "`state.zzz` is missing"),
        ("{{ state.zzz == 1 }}", "`state.zzz` is missing"),
        ("{{ state.zzz | upper }}", "`state.zzz` is missing"),
        ("{{ state.zzz | json }}", "`state.zzz` is missing"),
        ("{{ state.zzz() }}", "`state.zzz` is missing"),
        ("{{ 'a' if state.zzz else 'b' }}", "`state.zzz` is missing"),
        ("{{ {'a': 1}.b }}", "`b` is missing"),
        ("{{ [] | first }}", "No first item, sequence was empty."),
    ],
)
def test_what_is_missing_is_an_error_with_the_path_that_was_asked_for(template: str, message: str) -> None:
    assert failure(template, {"topic": "tea", "user": {"name": "Ana"}, "list": [{}]}) == message


@pytest.mark.parametrize(
    "path", ["state.zzz", "state.zzz.deeper", "state.zzz['a'][0].b", "state.list[9]", "state.topic.zzz"]
)
def test_default_takes_the_place_of_what_is_missing_at_any_depth(path: str) -> None:
    state = {"topic": "tea", "list": []}
    assert render(f"{{{{ {path} | default(['d']) }}}}", state) == ["d"]
    assert render(f"-{{{{ {path} | default('d') }}}}", state) == "-d"


@given(st.text(alphabet="{}%#state. xé|'\"\n"))
def test_values_are_never_rendered_again(text: str) -> None:
    assert render("{{ state.x }}", {"x": text}) == text
    assert render("<{{ state.x }}>", {"x": text}) == f"<{text}>"


def test_a_value_that_looks_like_a_template_stays_text() -> None:
    state = {"x": "{{ state.secret }}", "secret": "s3cret"}
    assert render("{{ state.x }} and {{ [state.x] }}", state) == "{{ state.secret }} and ['{{ state.secret }}']"


@pytest.mark.parametrize(
    "expression",
    [
        "state.__class__",
        "state.__class__.__mro__",
        "''.__class__.__mro__[1].__subclasses__()",
        "state['__class__']",
        "state | attr('__class__')",
        "[state] | map(attribute='__class__') | list",
        "[state] | groupby('__class__')",
        "'{0.__class__}'.format(state)",
        "'{0.__class__.__init__.__globals__}'.format(state)",
        "('{0.__class__}' | string).format(state)",
        "'{x.__class__}'.format_map({'x': state})",
        "['{0.__class__}'] | map('format', state) | first | attr('format')",
        "('{0.__class__}' | attr('format'))(state)",
        "range.__globals__",
        "namespace.__init__",
        "state.get.__self__",
        "(state.items | attr('__call__'))()",
        "state.update({'x': 1})",
        "state.list.append(1)",
        "state.list.sort()",
        "state.pop('list')",
        "lipsum.__globals__",
        "cycler.__init__.__globals__",
        "self.__init__",
        "state.function.__globals__",
        "state.function.__code__",
        "(1).__class__.__base__",
    ],
)
def test_the_sandbox_does_not_let_out(expression: str) -> None:
    state = {"list": [2, 1], "function": lambda: None}
    before = dict(state)
    for template in (f"{{{{ {expression} }}}}", f"text {{{{ {expression} }}}}"):
        failure(template, state)
    assert state == before


@pytest.mark.parametrize(
    "expression",
    [
        "range(10 ** 9)",
        "10 ** (10 ** 10)",
        "'a' * 10 ** 9",
        "10 ** 9 * [1]",
        "(10 ** 20000) * (10 ** 20000)",
        "10 ** 20000",
        "1 / 0",
    ],
)
def test_small_templates_with_large_results_fail(expression: str) -> None:
    failure(f"value: {{{{ {expression} }}}}")


def test_a_value_that_contains_itself_fails() -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    assert failure("{{ state.self }}", state) == "the value is nested too deeply"
    assert failure("{{ state.zzz }}", state) == "`state.zzz` is missing"
