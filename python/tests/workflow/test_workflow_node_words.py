"""``script``, ``language``, expressions, ``output_key``, the names in templates, their filters, and ``${NAME}``."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from agents import failure, final_state, refusal
from the_edge_agent.workflow.loader import visible_settings


def template(text: str, state: dict[str, Any] | None = None, **options: Any) -> Any:
    """Render one template in a node, with the variables ``top`` and ``text``."""
    node = {"name": "a", "uses": "my.echo", "with": {"value": text}, "output": "x"}
    registry = {"my.echo": lambda state, value: value}
    agent = {"variables": {"top": 5, "text": "{{ state.evil }}"}, "nodes": [node]}
    return final_state(agent, state, actions_registry=registry, **options)["x"]


class TestBodies:
    def test_script_is_another_word_for_run(self) -> None:
        assert final_state({"nodes": [{"name": "a", "script": "x = 1"}]}) == {"x": 1}

    def test_the_language_is_python(self) -> None:
        assert final_state({"nodes": [{"name": "a", "language": "python", "run": "x = 1"}]}) == {"x": 1}

    @pytest.mark.parametrize("language", ["lua", "prolog"])
    def test_other_languages_are_refused_by_name(self, language: str) -> None:
        message = refusal(f"nodes: [{{name: a, language: {language}, run: x = 1}}]")
        assert message == f"a.yaml:1:29: there is no `{language}` here: the language of `run` is `python`"

    @pytest.mark.parametrize(
        ("value", "x"),
        [("state.n * 2", 8), ("{{ state.n * 2 }}", 8), ("n is {{ state.n }}", "n is 4"), ("state.get('m', [1])", [1])],
    )
    def test_an_expression_is_a_value_for_the_state(self, value: str, x: Any) -> None:
        run = {"type": "expression", "value": value}
        assert final_state({"nodes": [{"name": "a", "run": run, "output": "x"}]}, {"n": 4}) == {"n": 4, "x": x}
        assert final_state({"nodes": [{"name": "a", "run": run}]}, {"n": 4})["result"] == x
        inner = {"name": "a", "run": {**run, "output_key": "x"}}
        assert final_state({"nodes": [inner]}, {"n": 4}, allow_code=False)["x"] == x

    def test_an_expression_that_fails_names_its_place(self) -> None:
        error = failure({"nodes": [{"name": "a", "run": {"type": "expression", "value": "state.m"}}]})
        assert str(error) == "node `a`: `run.value`: `state.m` is missing"

    def test_output_key_is_another_word_for_output(self) -> None:
        node = {"name": "a", "uses": "ltm.count", "output_key": {"n": "{{ result.count }}"}}
        assert final_state({"nodes": [node]}) == {"n": 0}

    @pytest.mark.parametrize(
        ("node", "message"),
        [
            ("run: x = 1, script: y = 1", "1:31: node `a` has `run` and `script`; it takes exactly one"),
            ("script: ' '", "1:27: `script` of node `a` is empty"),
            ("script: x = 1, output: y", "1:34: `output` goes with `uses`, not with `script`"),
            ("run: x = 1, output_key: y", "1:31: `output_key` goes with `uses`, not with `run`"),
            ("uses: ltm.count, language: python", "1:36: `language` goes with `run`, not with `uses`"),
            ("uses: ltm.count, output: x, output_key: y", "1:47: `output_key` is another word for `output`: leave one"),
            ("run: {type: code, value: x}", "1:31: `type` can't be `code`; known are `expression`"),
            ("run: {type: expression}", "1:24: `value` must be text, not nothing"),
            ("run: {type: expression, valu: x}", "1:43: unknown word `valu`; did you mean `value`?"),
            ("run: {type: expression, value: x}", "1:50: unknown name `x` in a template; values of the state are"),
            ("run: {type: expression, value: '1', output_key: x}, output: y", "1:55: the value has one name in the"),
            ("run: {type: expression, value: '1'}, with: {}", "1:56: `with` goes with `uses`, not with `run`"),
            ("run: {type: expression, value: '1'}, output: {x: y}", "1:64: `output` must be text, not a mapping"),
        ],
    )
    def test_wrong_bodies_are_refused(self, node: str, message: str) -> None:
        assert refusal(f"nodes: [{{name: a, {node}}}]").startswith(f"a.yaml:{message}")


class TestNames:
    def test_data_is_the_state(self) -> None:
        assert template("{{ data.k + state.k }}", {"k": 1}) == 2

    def test_env_has_the_variables_that_the_host_allows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEA_TEST_ONE", "1")
        assert template("{{ env.TEA_TEST_ONE }}") == "1"
        assert template("{{ env }}", env={"A": "b"}) == {"A": "b"}
        agent = {"nodes": [{"name": "a", "uses": "ltm.count", "output": {"x": "{{ env.TEA_TEST_ONE }}"}}]}
        assert "`env.TEA_TEST_ONE` is missing" in str(failure(agent, env=["PATH"]))

    def test_secrets_are_those_of_the_host(self) -> None:
        assert template("Bearer {{ secrets.token }}", secrets={"token": "t"}) == "Bearer t"

    def test_conditions_know_them_too(self) -> None:
        agent = {
            "nodes": [{"name": "a", "run": "return {}"}, {"name": "b", "run": "b = 1"}],
            "edges": [
                {"from": "a", "to": "__end__", "when": "env.A == secrets.b and data.c"},
                {"from": "a", "to": "b"},
            ],
        }
        assert final_state(agent, {"c": 1}, env={"A": "x"}, secrets={"b": "x"}) == {"c": 1}
        assert final_state(agent, {"c": 1}, env={"A": "x"}, secrets={"b": "y"}) == {"c": 1, "b": 1}

    def test_settings_have_no_secrets(self) -> None:
        agent = {
            "settings": {"llm": {"model": "m", "api_key": "k"}, "ltm": {"url": "sqlite://"}},
            "nodes": [{"name": "a", "uses": "ltm.count", "output": {"x": "{{ settings }}"}}],
        }
        llm = final_state(agent)["x"]["llm"]
        assert llm["model"] == "m"
        assert "api_key" not in llm

    @pytest.mark.parametrize("name", ["api_key", "apikey", "API_KEY", "key", "auth-token", "db_password", "secret"])
    def test_names_of_secrets(self, name: str) -> None:
        shown = {"max_tokens": 5, "model": "m", "url": "https://example.org/a"}
        written = {"llm": {**shown, name: "s", "other_url": "https://me:s@example.org"}, name: {"a": 1}}
        assert visible_settings(written) == {"llm": shown}


class TestFilters:
    def test_fromjson(self) -> None:
        assert template("{{ state.t | fromjson }}", {"t": '{"a": [1, null]}'}) == {"a": [1, None]}
        assert template("{{ (state.t | fromjson).a }}", {"t": '{"a": 1}'}) == 1

    @pytest.mark.parametrize(
        ("value", "message"), [("{", "not JSON"), ("NaN", "NaN is not JSON"), (5, "`fromjson` takes text, not int")]
    )
    def test_fromjson_refuses_what_is_no_json(self, value: Any, message: str) -> None:
        agent = {"nodes": [{"name": "a", "uses": "ltm.count", "output": {"x": "{{ state.t | fromjson }}"}}]}
        assert message in str(failure(agent, {"t": value}))

    def test_sha256(self) -> None:
        assert template("{{ 'Käse' | sha256 }}") == hashlib.sha256("Käse".encode()).hexdigest()
        assert template("{{ [1, 'é'] | sha256 }}") == hashlib.sha256('[1, "é"]'.encode()).hexdigest()

    def test_tojson_with_an_indent(self) -> None:
        value = {"a": [1, "é"], "b": {}}
        assert template("{{ state.v | tojson(indent=2) }}", {"v": value}) == json.dumps(
            value, indent=2, ensure_ascii=False
        )
        assert template("{{ state.v | tojson }}", {"v": value}) == json.dumps(value, ensure_ascii=False)

    @pytest.mark.parametrize(
        ("text", "state"),
        [
            ("{{ state.v | tojson(indent=1000000) }}", {"v": [[1] * 100] * 10}),
            ("{{ state.v | tojson(1000000) }}", {"v": [[1] * 100] * 10}),
            ("{{ state.v | tojson(indent='x' * 100000) }}", {"v": [[1] * 100] * 10}),
            ("{{ state.t | fromjson }}", {"t": "[" + "1," * 2_000_000 + "1]"}),
        ],
        ids=["width", "position", "text", "fromjson"],
    )
    def test_they_pay_for_their_work_before_they_do_it(
        self, text: str, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def begun(*args: Any, **named: Any) -> None:
            raise AssertionError("the work has begun")

        monkeypatch.setattr(json, "dumps", begun)
        monkeypatch.setattr(json, "loads", begun)
        agent = {"nodes": [{"name": "a", "uses": "ltm.count", "output": {"x": text}}]}
        assert "does too much" in str(failure(agent, state))


class TestVariables:
    def test_a_name_in_braces_after_a_dollar_is_a_variable(self) -> None:
        assert template("top ${top}, {{ state.k }} ${top}", {"k": 1}) == "top 5, 1 5"
        assert template("${top}") == 5, "alone it keeps its type"

    @pytest.mark.parametrize("text", ["${HOME}", "${other} {{ 1 }}", "$top", "${ top }", "$ {top}", "${top:-1}"])
    def test_anything_else_is_text(self, text: str) -> None:
        assert template(text) == text.replace("{{ 1 }}", "1")

    def test_its_value_is_never_rendered(self) -> None:
        assert template("${text}!", {"evil": 1}) == "{{ state.evil }}!"
        assert template("{{ state.t }}", {"t": "${top}"}) == "${top}"

    def test_not_within_an_expression(self) -> None:
        assert template("{{ '${top}' }}") == "${top}"
