"""The words of a file beside its nodes and edges: ``version``, ``state_schema``, ``config``."""

from __future__ import annotations

from typing import Any

import pytest

from agents import failure, final_state, load, refusal
from the_edge_agent import NodeError

NODES = "nodes: [{name: a, run: x = 1}]\n"


class TestVersion:
    @pytest.mark.parametrize(
        ("written", "kept"), [('"1.0"', "1.0"), ("1.0", "1.0"), ("2", "2"), ("2026-01-31", "2026-01-31")]
    )
    def test_it_is_kept_as_text(self, written: str, kept: str) -> None:
        assert load(f"version: {written}\n{NODES}").version == kept

    def test_a_file_may_have_none(self) -> None:
        assert load(NODES).version == ""

    @pytest.mark.parametrize(("written", "shown"), [("true", "true"), ("[1]", "a list"), ("", "nothing")])
    def test_anything_else_is_refused(self, written: str, shown: str) -> None:
        assert "`version` must be text or a number, not " + shown in refusal(f"version: {written}\n{NODES}")


class TestStateSchema:
    @pytest.mark.parametrize("kind", ["str", "list", "int", "bool", "dict", "object", "float", "any"])
    def test_the_types(self, kind: str) -> None:
        load(f"state_schema: {{x: {kind}, y: {{type: {kind}, description: text}}}}\n{NODES}")

    def test_python_types_in_a_dict(self) -> None:
        load({"state_schema": {"x": str, "y": int}, "nodes": [{"name": "a", "run": "return {}"}]})

    def test_properties_are_checked_too(self) -> None:
        load(f"state_schema: {{x: {{type: object, properties: {{y: {{type: int}}}}}}}}\n{NODES}")
        message = refusal(f"state_schema:\n  x: {{type: dict, properties: {{y: itn}}}}\n{NODES}")
        assert message == "a.yaml:2:35: unknown type `itn`; did you mean `int`?"

    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            ("{x: sting}", "1:19: unknown type `sting`; did you mean `str`?"),
            ("{x: string}", "1:19: unknown type `string`; did you mean `str`?"),
            ("{x: Integer}", "1:19: unknown type `Integer`; did you mean `int`?"),
            ("{x: zzz}", "1:19: unknown type `zzz`; known are `str`, `list`, `int`, `bool`, "),
            ("{x: 5}", "1:19: a type must be text, one of `str`, "),
            ("{x: }", "1:18: a type must be text, one of `str`, "),
            ("{x: [str]}", "1:19: a type must be text, one of `str`, "),
            ("{x: {typ: str}}", "1:20: unknown word `typ`; did you mean `type`?"),
            ("{x: {description: y}}", "1:19: `x` needs a `type`: one of `str`, "),
            ("{x: {type: str, description: 5}}", "1:44: `description` must be text, not a number"),
            ("[x]", "1:15: `state_schema` must be a mapping, not a list"),
        ],
    )
    def test_other_types_are_refused(self, schema: str, message: str) -> None:
        assert refusal(f"state_schema: {schema}\n{NODES}").startswith(f"a.yaml:{message}")

    def test_values_are_not_checked(self) -> None:
        assert final_state(f"state_schema: {{x: str, y: int}}\n{NODES}", {"y": "text"}) == {"x": 1, "y": "text"}

    def test_other_keys_are_allowed(self) -> None:
        assert final_state(f"state_schema: {{y: int}}\n{NODES}", {"z": 2}) == {"x": 1, "z": 2}

    def test_a_declared_key_that_is_not_set_is_null_in_templates_and_is_not_stored(self) -> None:
        agent = """
            state_schema: {x: str, y: str}
            nodes:
              - {name: a, uses: ltm.retrieve, with: {key: k, default: "{{ state.y }}"}, output: {z: "{{ state.x }}"}}
            """
        assert final_state(agent) == {"z": None}
        assert final_state(agent, {"x": 1}) == {"x": 1, "z": 1}

    def test_another_name_that_is_missing_is_an_error(self) -> None:
        error = failure("""
            state_schema: {topic: str}
            nodes: [{name: a, uses: ltm.retrieve, with: {key: "{{ state.topik }}"}}]
            """)
        assert "`state.topik` is missing; did you mean `topic`?" in str(error)

    def test_code_sees_the_state_as_it_is(self) -> None:
        agent = "state_schema: {x: str}\nnodes: [{name: a, run: 'return {\"keys\": list(state)}'}]"
        assert final_state(agent) == {"keys": []}


class TestConfig:
    def failing(self, config: str) -> str:
        return (
            f"config: {config}\nnodes: [{{name: a, run: x = 1}}, {{name: b, run: y = 1 / 0}}, {{name: c, run: z = 1}}]"
        )

    @pytest.mark.parametrize("config", ["", "{}", "{raise_exceptions: true}"])
    def test_a_failed_node_raises(self, config: str) -> None:
        error = failure(self.failing(config))
        assert (error.node, error.error_type) == ("b", "ZeroDivisionError")

    def test_the_error_is_a_runtime_error(self) -> None:
        assert isinstance(failure(self.failing("")), RuntimeError)

    def test_or_ends_the_run_with_an_event(self) -> None:
        graph = load(self.failing("{raise_exceptions: false}"))
        error = {
            "type": "error",
            "node": "b",
            "error": "a.yaml:2:1: node `b`: ZeroDivisionError: division by zero",
            "error_type": "ZeroDivisionError",
            "state": {"x": 1},
        }
        assert list(graph.invoke()) == [error]
        assert list(graph.stream()) == [{"type": "state", "node": "a", "state": {"x": 1}}, error]

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("{raise_exceptions: 1}", "1:28: `raise_exceptions` must be true or false, not a number"),
            ("{raise_exception: true}", "1:10: unknown word `raise_exception`; did you mean `raise_exceptions`?"),
            ("{interrupt_before: [a]}", "1:10: `interrupt_before` is not supported yet"),
            ("[]", "1:9: `config` must be a mapping, not a list"),
        ],
    )
    def test_what_is_unknown_is_refused(self, config: str, message: str) -> None:
        assert refusal(f"config: {config}\n{NODES}") == f"a.yaml:{message}"


def test_the_engine_raises_or_not_for_files_that_do_not_say() -> None:
    agent: dict[str, Any] = {"nodes": [{"name": "a", "run": "x = 1 / 0"}]}
    assert [event["type"] for event in load(agent, raise_exceptions=False).invoke()] == ["error"]
    agent["config"] = {"raise_exceptions": True}
    with pytest.raises(NodeError):
        list(load(agent, raise_exceptions=False).invoke())
