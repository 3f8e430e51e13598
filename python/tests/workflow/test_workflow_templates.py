"""Templates: a single expression keeps its type, a missing name is an error, and values are data."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.workflow import NodeError, WorkflowFileError, YAMLEngine, budget
from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.templates import TemplateError, compile_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def render(template: str, state: Any = None, **names: Any) -> Any:
    values = {"state": {} if state is None else state, "variables": {"top_k": 5}, **names}
    return compile_text(template, tuple(values))(values, None)


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


DOUBLED = "{% set n = (state.n, state.n) %}" + "{% set n = (n, n) %}" * 40
LONG = "{% set a = 'a' * 300000 %}"
NESTED = "{% for a in range(9999) %}" * 3
MANY = "{%% for i in range(99999) %%}%s{%% endfor %%}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{{ range(10 ** 9) }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * [1] }}",
        "{{ (10 ** 20000) * (10 ** 20000) }}",
        "{{ 10 ** 20000 }}",
        "{{ 1 / 0 }}",
        # a width
        "{{ '%100000000d' % 1 }}",
        "{{ '%(a)100000000d' % {'a': 1} }}",
        "{{ '%(a(b(c)))100000000d' % {'a(b(c))': 1} }}",
        "{{ '%.100000000f' % 1 }}",
        "{{ '%*d' % (100000000, 1) }}",
        "{{ '%-+ 0100000000d' % 1 }}",
        "{{ '%100000000d' | format(1) }}",
        "{{ '%(a)100000000d' | format(a=1) }}",
        "{{ ('%s' * 2000) % ((state.text,) * 2000) }}",
        "{{ '{:>100000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 100000000) }}",
        "{{ '{a:.100000000f}'.format(a=1.5) }}",
        "{{ '{a:>100000000}'.format_map({'a': 1}) }}",
        "{{ ('{:>100000000}' | escape).format(1) }}",
        "{{ ('{:>100000000}' | attr('format'))(1) }}",
        "{{ ('{0}' * 2000).format(state.text) }}",
        "{{ ('{0!r}' * 2000).format(state.text) }}",
        "{{ 'a'.ljust(10 ** 8) }}",
        "{{ 'a'.rjust(10 ** 8) }}",
        "{{ 'a'.center(10 ** 8) }}",
        "{{ 'a'.zfill(10 ** 8) }}",
        "{{ ('\\t' * 1000).expandtabs(10 ** 6) }}",
        "{{ ('\\t' * 1000).expandtabs(tabsize=10 ** 6) }}",
        "{{ (1).to_bytes(10 ** 9, 'big') }}",
        "{{ (1).to_bytes(length=10 ** 9, byteorder='big') }}",
        "{{ 'a' | center(10 ** 8) }}",
        "{{ 'a' | center(width=10 ** 8) }}",
        "{{ ['a'] | map('center', 10 ** 8) | list }}",
        "{% filter center(100000000) %}a{% endfilter %}",
        "{% autoescape 'a' | center(1000000000) %}a{% endautoescape %}",
        "{{ state.lines | indent(10 ** 6) }}",
        "{{ state.lines | indent('a' * 100000, true, true) }}",
        "{{ [1] | batch(10 ** 9, 0) | list }}",
        "{{ [1] | slice(10 ** 9) | list }}",
        "{{ 1 | round(10 ** 9, 'ceil') }}",
        "{{ 1 | round(-10 ** 9) }}",
        # a little of something, many times
        "{{ state.text.replace('a', state.text) }}",
        "{{ state.text | replace('', 'b' * 100000) }}",
        "{{ state.text.translate({97: 'b' * 100000}) }}",
        "{{ state.text.join(range(9999) | map('string')) }}",
        "{{ range(9999) | join(state.text) }}",
        "{{ (state.text * 30) | wordwrap(1, wrapstring=state.text) }}",
        "{{ (state.text * 30) | wordwrap(1) }}",
        "{{ (('<!--' * 50000) | safe).striptags() }}",
        "{{ ('<!--' * 50000) | striptags }}",
        "{{ ('http://a.b ' * 10000) | urlize(target='a' * 10000) }}",
        "{{ (')' * 100000 ~ 'a') | urlize }}",
        "{{ ('a' * 300000).rfind('b' ~ 'a' * 100000) }}",
        "{{ ('a' * 300000).strip('b' * 100000 ~ 'a') }}",
        "{{ range(999) | map('default', [1]) | batch(1) | sum(start=[]) }}",
        "{{ ([state.text] * 9999) | join }}",
        "{{ ([1] * 9999) | groupby('b', default=state.text) }}",
        "{{ ([1] * 9999) | map(attribute='b', default=state.text) | map('upper') }}",
        "{{ (['a'] * 9999) | select('in', state.text * 9) }}",
        "{{ ([state.text] * 9999) | tojson }}",
        "{{ ([state.text] * 9999) | pprint }}",
        "{{ [state.text] * 9999 }}",
        "{{ {'a': state.text} | xmlattr * 9999 }}",
        # elements that stand for many
        DOUBLED + "{{ n }}",
        DOUBLED + "{{ n ~ '' }}",
        DOUBLED + "{{ n == (n, 1) }}",
        DOUBLED + "{{ n in [(n, 1)] }}",
        DOUBLED + "{{ n in {} }}",
        DOUBLED + "{{ {}[n] }}",
        DOUBLED + "{{ {}.get(n) }}",
        DOUBLED + "{{ {n: 1} | length }}",
        DOUBLED + "{{ n | string }}",
        DOUBLED + "{{ n | tojson }}",
        DOUBLED + "{{ [n, n] | unique }}",
        DOUBLED + "{{ [n, n] | sort }}",
        DOUBLED + "{{ n is eq (n, 1) }}",
        DOUBLED + "{{ n.index((n, 1)) }}",
        DOUBLED + "{% set ns = namespace(n=n) %}{{ ns ~ '' }}",
        "{% set ns = namespace(n=[1]) %}" + "{% set ns.n = [ns.n, ns.n] %}" * 40 + "{{ ns.n }}",
        # steps
        NESTED + "{% endfor %}" * 3,
        NESTED.replace("range(9999)", "(1,) * 9999") + "{% endfor %}" * 3,
        "{% set l = [1] * 9999 %}" + NESTED.replace("range(9999)", "l[:]") + "{{ loop.index }}" + "{% endfor %}" * 3,
        NESTED.replace("%}", "if a %}") + "{% endfor %}" * 3,
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}",
        "{% for x in [99] recursive %}{% if x %}{{ loop([x - 1] * x) }}{% endif %}{% endfor %}",
        "{% macro m() %}{{ 'a' * 100000 }}{% endmacro %}{% for a in range(9999) %}{{ m() }}{% endfor %}",
        "{% for a in range(9999) %}" + "b" * 99999 + "{% endfor %}",
        "{% set t %}{% for a in range(9999) %}" + "b" * 99999 + "{% endfor %}{% endset %}",
        "{% macro m() %}" + "b" * 99999 + "{% endmacro %}{{ range(9999) | map('default') | list }}"
        "{% for a in range(9999) %}{% set b = m() %}{% endfor %}",
        "{% for a in range(9999) %}{% set b = state.text * 5 %}{% endfor %}",
        "{% set ns = namespace(t=state.text) %}{% for a in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
        "{% set ns = namespace(t=state.text) %}{% for a in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t=[1]) %}{% for a in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        LONG + "{% for b in range(9999) %}{% if 'b' in a %}{% endif %}{% endfor %}",
        LONG + "{% for b in range(9999) %}{% set c = a[1:] %}{% endfor %}",
        LONG + "{% for b in range(9999) %}{% set c = a.upper() %}{% endfor %}",
        LONG + "{% for b in range(9999) %}{% set c = a | upper %}{% endfor %}",
        LONG + "{% for b in range(9999) %}{% set c = a is upper %}{% endfor %}",
        LONG + "{% for b in range(9999) %}{% set c = a ~ b %}{% endfor %}",
        "{% set l = range(99999) | list %}{% for b in range(9999) %}{% set c = b in l %}{% endfor %}",
        # expressions with many parts
        MANY % ("{% set a = [" + "state.text[1]," * 999 + "] %}"),
        MANY % ("{% set a = [" + "[]," * 999 + "] %}"),
        MANY % ("{% set a = [" + "not state.n," * 999 + "] %}"),
        MANY % ("{% if not [" + "state.n," * 999 + "] %}{% elif not [" + "state.n," * 999 + "] %}{% endif %}"),
        MANY % ("{% macro m(a=[" + "state.n," * 999 + "]) %}{% endmacro %}{{ m() }}"),
        MANY % ("{% macro m() %}{{ caller() }}{% endmacro %}{% call(a=[" + "1," * 999 + "]) m() %}{% endcall %}"),
        "{% for a in range(99999) if [" + "state.n," * 999 + "] %}{% endfor %}",
        MANY % ("{% with a=[" + "state.n," * 999 + "] %}{% endwith %}"),
        MANY % ("{{ state.n }}" * 999),
        "{% set ns = namespace(a=state.b) %}" + MANY % "{% set ns.a = ns.a.b %}",
        # long integers and slow codecs
        "{% set a = 10 ** 20000 %}" + MANY % "{% set b = a % (10 ** 9999) %}",
        "{% set a = 10 ** 14000 %}" + MANY % "{% set b = a * a %}",
        "{% set a = 10 ** 4200 %}" + MANY % "{% set b = a ~ '' %}",
        MANY % "{% set a = state.lines | wordwrap %}",
        MANY % "{% set a = ('\u00e9' ~ state.text).encode('punycode') %}",
    ],
)  # fmt: skip
def test_small_templates_with_large_results_fail_in_time(template: str) -> None:
    """Most of these would take minutes or gigabytes. The budget is a small one, so that the tests are fast."""
    state = {"n": 1, "text": "a" * 10_000, "lines": "a\n" * 10_000}
    render = compile_text(f"text {template}", ("state",))
    before = time.process_time()
    with pytest.raises(TemplateError) as caught:
        render({"state": state}, Work(2_000_000))
    assert time.process_time() - before < 2
    assert len(str(caught.value)) < 1_000


def test_a_run_of_an_untrusted_file_has_a_budget_for_all_its_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_RUN_WORK", 10_000_000)
    nodes = [{"name": f"n{n}", "uses": "ltm.count", "output": {f"v{n}": "{{ 'a' * 1000000 }}"}} for n in range(20)]
    with YAMLEngine(allow_code=False) as engine, pytest.raises(NodeError, match="does too much"):
        list(engine.load_from_dict({"nodes": nodes}).invoke())
    copies = [{"name": f"n{n}", "uses": "ltm.count", "output": "o"} for n in range(300)]
    state = {"list": [[1] * 10 for _ in range(2_000)]}
    with YAMLEngine(allow_code=False) as engine, pytest.raises(NodeError, match="too large a state"):
        list(engine.load_from_dict({"nodes": copies}).invoke(state))


ENTRY = {"key": "k0", "value": "v" * 100_000, "metadata": {"m": "m" * 100_000}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "node",
    [
        {"uses": "ltm.retrieve", "with": {"key": "k0"}},
        {"uses": "ltm.retrieve", "with": {"key": "none", "default": "{{ state.text }}"}},
        {"uses": "ltm.retrieve_many", "with": {"keys": ["k0", "none"]}},
        {"uses": "ltm.search", "with": {"metadata_filter": {}}},
        {"uses": "ltm.store", "with": {"key": "k", "value": "{{ state.text }}"}},
        {"uses": "ltm.store_many", "with": {"entries": [{"key": "k", "value": "{{ state.text }}"}]}},
        {"uses": "catalog.list", "with": {}},
        {"uses": "catalog.get", "with": {"key": "k0"}},
        {"uses": "catalog.changes", "with": {}},
    ],
    ids=lambda node: node["uses"],
)
def test_what_actions_take_and_give_counts_into_the_budget_of_a_run(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may stay in the state: 500 retrieves of a value of 5 MB made a state of 2.5 GB."""
    monkeypatch.setattr(budget, "MAX_RUN_WORK", 5_000_000)
    nodes = [{"name": f"n{n}", "output": "v", **node} for n in range(100)]
    with SQLAlchemyBackend("sqlite://", catalog="sqlalchemy") as memory:
        memory.store_many([ENTRY])
        with (
            YAMLEngine(allow_code=False, ltm_backend=memory) as engine,
            pytest.raises(NodeError, match="too large values"),
        ):
            for _ in engine.load_from_dict({"nodes": nodes}).invoke({"text": "t" * 100_000}):
                pass


def test_what_real_templates_do_is_far_below_the_budget() -> None:
    state = {"rows": [{"id": n, "text": "words " * 20} for n in range(2_000)], "text": "x" * 40_000_000}
    table = "{% for r in state.rows if r.id is even %}| {{ r.id }} | {{ r.text | upper | trim }} |\n{% endfor %}"
    assert render(table, state).count("\n") == 1_000
    assert len(render("{{ state.rows | map(attribute='text') | unique | list }}", state)) == 1
    assert render("{{ [state.text, state.rows] }}", state)[0] is state["text"], "a text that passes costs nothing"
    assert (
        len(render("{{ state.rows | selectattr('id', 'gt', 1000) | map(attribute='id') | join(', ') }}", state)) > 5_000
    )
    assert len(render("{{ state.rows | tojson }}", state)) > 200_000


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in state.l %}" * 42 + "{% endfor %}" * 42,
        "{% if state.l %}" * 120 + "{% endif %}" * 120,
        "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
        "{{ " + "not " * 50_000 + "1 }}",
        "{{ " + "[" * 500 + "]" * 500 + " }}",
        "{{ 1" + "0" * 5_000 + " }}",
        "{{ range(1, a=1, a=2) }}",
        "{% if state.l %}{% endif %}" * 3_000,
        "a" * 2_000_000 + "{{ state.l }}",
    ],
)
def test_what_cannot_be_compiled_is_an_error_of_the_file(template: str) -> None:
    """Python allows 20 loops in each other, for example."""
    agent = {"nodes": [{"name": "a", "uses": "ltm.retrieve", "with": {"key": template}}]}
    with YAMLEngine(allow_code=False) as engine, pytest.raises(WorkflowFileError, match="template") as caught:
        engine.load_from_dict(agent)
    assert caught.value.place.path == "nodes[0].with.key"


@pytest.mark.slow
def test_a_value_that_contains_itself_fails() -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    assert "does too much" in failure("{{ state.self }}", state)
    assert failure("{{ state.zzz }}", state) == "`state.zzz` is missing"
