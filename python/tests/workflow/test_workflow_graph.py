"""Running an agent: the state goes from node to node, in order."""

from __future__ import annotations

import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from the_edge_agent import NodeError, WorkflowError, YAMLEngine

Node = dict[str, Any]


def run(*nodes: Node, state: Any = None, **rest: Any) -> dict[str, Any]:
    """Run nodes in an engine of their own and return the final state."""
    with YAMLEngine() as engine:
        *_, final = engine.load_from_dict({"nodes": list(nodes), **rest}).invoke(state)
    assert final["type"] == "final"
    return dict(final["state"])


def code(text: str, state: Any = None, **rest: Any) -> dict[str, Any]:
    return run({"name": "one", "run": text}, state=state, **rest)


def failure(*nodes: Node, state: Any = None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        run(*nodes, state=state)
    assert "\n" not in str(caught.value)
    return caught.value


def code_failure(text: str, state: Any = None) -> NodeError:
    return failure({"name": "one", "run": text}, state=state)


class TestState:
    def test_the_input_lies_over_the_initial_state(self) -> None:
        assert code("c = state['a'] + state['b']", {"b": 10}, initial_state={"a": 1, "b": 2}) == {
            "a": 1,
            "b": 10,
            "c": 11,
        }

    def test_nodes_run_in_the_order_in_which_they_are_written(self) -> None:
        nodes = [{"name": str(n), "run": f"return {{'order': [*state.get('order', []), {n}]}}"} for n in (3, 1, 2)]
        assert run(*nodes) == {"order": [3, 1, 2]}

    def test_the_input_is_never_changed(self) -> None:
        given = {"deep": {"list": [1]}}
        assert code("state['deep']['list'].append(2)", given) == {"deep": {"list": [1, 2]}}
        assert given == {"deep": {"list": [1]}}

    def test_runs_do_not_see_each_other(self) -> None:
        config = {
            "initial_state": {"seen": []},
            "variables": {"list": []},
            "nodes": [
                {"name": "a", "run": "state['seen'].append(1)\nvariables['list'].append(1)\nn = len(variables['list'])"}
            ],
        }
        with YAMLEngine() as engine:
            graph = engine.load_from_dict(config)
            assert [next(graph.invoke())["state"] for _ in range(2)] == [{"seen": [1], "n": 1}] * 2

    def test_stream_tells_the_state_after_each_node(self) -> None:
        with YAMLEngine() as engine:
            graph = engine.load_from_dict(
                {"nodes": [{"name": "a", "run": "x = [1]"}, {"name": "b", "run": "y = list(state['x'])"}]}
            )
            events = []
            for event in graph.stream():
                events.append({**event, "state": dict(event["state"])})
                event["state"]["x"].append("changed outside")
        assert [event["type"] for event in events] == ["state", "state", "final"]
        assert [event.get("node") for event in events] == ["a", "b", None]
        assert events[1]["state"]["y"] == [1], "the events are copies"

    def test_invoke_tells_the_final_state_only(self) -> None:
        with YAMLEngine() as engine:
            assert list(engine.load_from_dict({"nodes": [{"name": "a", "run": "x = 1"}]}).invoke({})) == [
                {"type": "final", "state": {"x": 1}}
            ]

    @pytest.mark.parametrize("state", [[], "text", 5, {1: 2}], ids=repr)
    def test_the_input_is_a_dict_with_text_for_keys(self, state: Any) -> None:
        with YAMLEngine() as engine:
            graph = engine.load_from_dict({"nodes": [{"name": "a", "run": "x = 1"}]})
            with pytest.raises(WorkflowError, match=r"must be a dict|must be text"):
                graph.invoke(state)

    def test_an_input_that_cannot_be_copied_is_refused(self) -> None:
        with YAMLEngine() as engine:
            graph = engine.load_from_dict({"nodes": [{"name": "a", "run": "x = 1"}]})
            with pytest.raises(WorkflowError, match="the input state can't be copied"):
                graph.invoke({"lock": threading.Lock()})

    def test_one_graph_runs_in_many_threads_at_once(self) -> None:
        with YAMLEngine() as engine, ThreadPoolExecutor(8) as pool:
            graph = engine.load_from_dict(
                {
                    "nodes": [
                        {
                            "name": "put",
                            "uses": "ltm.store",
                            "with": {"key": "k{{ state.n }}", "value": "{{ state.n }}"},
                        },
                        {"name": "get", "uses": "ltm.retrieve", "with": {"key": "k{{ state.n }}"}},
                    ]
                }
            )
            values = pool.map(lambda n: next(graph.invoke({"n": n}))["state"]["value"], range(50))
            assert list(values) == list(range(50))


class TestRun:
    def test_assigned_names_update_the_state(self) -> None:
        text = "a = 1\nb: int = 2\na += 1\nc, (d, *e) = 3, (4, 5, 6)\nif (f := 7): pass\nstate['g'] = 8"
        assert code(text) == {"a": 2, "b": 2, "c": 3, "d": 4, "e": [5, 6], "f": 7, "g": 8}

    def test_only_assigned_names_do(self) -> None:
        text = (
            "import math\nfrom json import dumps as to_text\n"
            "def double(x):\n    inner = 2 * x\n    return inner\n"
            "class Box:\n    inside = 1\n"
            "_hidden = 1\n"
            "for each in [1]:\n    total = double(each) + math.floor(0.5)\n"
            "with open('/dev/null') as file: pass\n"
            "try: 1 / 0\nexcept ZeroDivisionError as error: pass\n"
            "squares = [inside * 2 for inside in [1]]\n"
        )
        assert code(text) == {"total": 2, "squares": [2]}

    def test_a_name_that_was_not_assigned_after_all_changes_nothing(self) -> None:
        assert code("if False:\n    x = 1\ny = 2\ndel y") == {}

    def test_return_updates_the_state_and_then_assigned_names_do_not(self) -> None:
        assert code("x = 1\nreturn {'y': x}") == {"y": 1}

    def test_return_may_be_early_or_empty(self) -> None:
        text = "if state['n'] > 1:\n    return\nreturn {'small': True}"
        assert code(text, {"n": 2}) == {"n": 2}
        assert code(text, {"n": 1}) == {"n": 1, "small": True}

    def test_a_return_in_a_function_is_that_functions(self) -> None:
        assert code("def f():\n    return 5\nx = f()\ng = (lambda: 6)()") == {"x": 5, "g": 6}

    def test_code_that_returns_may_assign_what_it_is_given(self) -> None:
        assert code("state = dict(state, b=2)\njson = 1\nreturn state", {"a": 1}) == {"a": 1, "b": 2}

    def test_functions_see_each_other_and_what_is_given(self) -> None:
        text = (
            "def f(n):\n    return n if n < 1 else f(n - 1) + state['step']\nreturn {'x': f(3), 'y': json.dumps([1])}"
        )
        assert code(text, {"step": 2}) == {"step": 2, "x": 6, "y": "[1]"}
        assert code(text.replace("return {'x'", "z = {'x'"), {"step": 2})["z"]["x"] == 6

    def test_variables_are_in_scope(self) -> None:
        assert code("x = variables['k'] + 1", variables={"k": 4}) == {"x": 5}

    def test_the_text_is_not_a_template(self) -> None:
        text = "return {'x': '{{ state.secret }}' + '{% if %}', 'y': '${HOME}'}"
        assert code(text) == {"x": "{{ state.secret }}{% if %}", "y": "${HOME}"}

    @pytest.mark.parametrize("value", ["'''\nimport os\n'''", "__import__('os')", "{{ 1 + 1 }}", '"""', "\\", "\n\n"])
    def test_what_is_in_the_state_never_becomes_code(self, value: str) -> None:
        assert code("same = state['value']\nquoted = f\"{state['value']}\"", {"value": value})["quoted"] == value

    @pytest.mark.parametrize(
        ("text", "shown"), [("return 5", "int"), ("return [1]", "list"), ("yield 1\nreturn", "generator")]
    )
    def test_anything_but_a_dict_is_refused(self, text: str, shown: str) -> None:
        error = code_failure(text)
        assert str(error) == f"node `one`: `run` must return a dict, not {shown}"
        assert error.error_type == "TypeError"

    def test_keys_must_be_text(self) -> None:
        assert str(code_failure("return {1: 2}")) == "node `one`: `run` returned a key that is not text: 1"

    def test_an_exception_fails_the_node_and_names_the_line(self) -> None:
        error = code_failure("x = 1\ny = x / 0")
        assert str(error) == "node `one`: ZeroDivisionError: division by zero (line 2 of its `run`)"
        assert (error.node, error.error_type) == ("one", "ZeroDivisionError")
        assert isinstance(error.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize("text", ["exit(0)", "raise SystemExit(0)", "raise BaseException", "raise GeneratorExit"])
    def test_code_can_not_end_the_program(self, text: str) -> None:
        assert code_failure(text).error_type in ("SystemExit", "BaseException", "GeneratorExit")

    def test_an_interrupt_is_not_a_failure(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            code("raise KeyboardInterrupt")

    def test_an_exception_without_a_message_or_with_a_long_one(self) -> None:
        assert str(code_failure("raise KeyError")) == "node `one`: KeyError (line 1 of its `run`)"
        assert len(str(code_failure("raise ValueError('x' * 10_000)"))) < 1000

    def test_an_error_in_a_function_that_code_calls_shows_the_line_of_the_function(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "helper_of_code.py").write_text("def halve(x):\n    y = 2\n    return y / x\n")
        monkeypatch.syspath_prepend(tmp_path)
        problem = "ZeroDivisionError: division by zero"
        error = code_failure("import helper_of_code\n\nx = helper_of_code.halve(0)")
        assert str(error) == f"node `one`: {problem} (in `halve`, helper_of_code.py:3) (line 3 of its `run`)"
        nodes = [
            {"name": "a", "run": "def f(x):\n    return 1 / x\nstate['f'] = f"},
            {"name": "b", "run": "\ny = state['f'](0)"},
        ]
        told = "(in `f`, line 2 of the `run` of node `a`) (line 2 of its `run`)"
        assert str(failure(*nodes)) == f"node `b`: {problem} {told}"
        assert str(code_failure("x = json.loads('nonsense')")).endswith("(char 0) (line 1 of its `run`)")

    def test_a_long_message_does_not_hide_the_line(self) -> None:
        assert str(code_failure("raise ValueError('x' * 10_000)")).endswith("… (line 1 of its `run`)")

    def test_endless_recursion_fails_the_node(self) -> None:
        assert code_failure("def f(): f()\nf()").error_type == "RecursionError"

    def test_what_cannot_be_copied_is_told_of_the_node_that_made_it(self) -> None:
        error = failure(
            {"name": "bad", "run": "import threading\nlock = threading.Lock()"}, {"name": "good", "run": "x = 1"}
        )
        assert error.node == "bad"
        assert "something in the state that can't be copied" in str(error)

    def test_a_dataclass_in_the_code_works(self) -> None:
        text = (
            "from dataclasses import dataclass, asdict\n"
            "@dataclass\nclass Note:\n    text: 'str'\n    n: int = 0\n"
            "x = asdict(Note('hi'))"
        )
        assert code(text) == {"x": {"text": "hi", "n": 0}}

    def test_the_file_and_line_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.yaml"
        path.write_text(
            "nodes:\n  - name: one\n    run: |\n      x = 1\n\n      def f():\n          return x / 0\n      f()\n"
        )
        with YAMLEngine() as engine, pytest.raises(NodeError) as caught:
            list(engine.load_from_file(path).invoke())
        assert str(caught.value) == f"{path}:7:1: node `one`: ZeroDivisionError: division by zero"

    def test_the_modules_of_the_process_are_as_before(self) -> None:
        before = set(sys.modules)
        code("x = __name__")
        assert set(sys.modules) == before


class TestUses:
    def test_output_names_the_result(self) -> None:
        state = run({"name": "a", "uses": "ltm.retrieve", "with": {"key": "none", "default": 5}, "output": "found"})
        assert state == {"found": {"success": True, "value": 5, "found": False, "metadata": None, "version": None}}

    def test_output_picks_from_the_result(self) -> None:
        node = {
            "name": "a",
            "uses": "ltm.retrieve",
            "with": {"key": "none", "default": {"n": 1}},
            "output": {
                "n": "{{ result.value.n + state.m }}",
                "text": "n={{ result.value.n }}",
                "fixed": [1, "{{ state.m }}"],
            },
        }
        assert run(node, state={"m": 2}) == {"m": 2, "n": 3, "text": "n=1", "fixed": [1, 2]}

    def test_without_output_a_dict_is_merged_into_the_state(self) -> None:
        state = run({"name": "a", "uses": "ltm.delete", "with": {"key": "k"}}, state={"mine": 1})
        assert state == {"mine": 1, "success": True, "deleted": False, "key": "k"}

    def test_without_output_something_else_fails_the_node(self) -> None:
        with YAMLEngine() as engine:
            engine.actions_registry["my.list"] = lambda state: [1]
            with pytest.raises(NodeError, match=r"node `a`: `my\.list` gave no dict to merge into the state"):
                list(engine.load_from_dict({"nodes": [{"name": "a", "uses": "my.list"}]}).invoke())

    def test_templates_are_rendered_through_lists_and_dicts_but_keys_are_not(self) -> None:
        value = {"{{ state.x }}": ["{{ state.x }}", {"deep": "{{ state.x }} {{ variables.v }}"}], "n": 1, "none": None}
        store = {"name": "a", "uses": "ltm.store", "with": {"key": "k", "value": value}, "output": "stored"}
        read = {"name": "b", "uses": "ltm.retrieve", "with": {"key": "k"}, "output": {"read": "{{ result.value }}"}}
        state = run(store, read, state={"x": [1]}, variables={"v": "V"})
        assert state["read"] == {"{{ state.x }}": [[1], {"deep": "[1] V"}], "n": 1, "none": None}

    def test_values_from_state_and_memory_are_never_rendered_again(self) -> None:
        evil = "{{ state.secret }}{% for x in range(9) %}x{% endfor %}"
        store = {
            "name": "a",
            "uses": "ltm.store",
            "with": {"key": "k", "value": "{{ state.evil }}"},
            "output": "stored",
        }
        read = {"name": "b", "uses": "ltm.retrieve", "with": {"key": "k"}, "output": {"read": "{{ result.value }}"}}
        again = {
            "name": "c",
            "uses": "ltm.store",
            "with": {"key": "k2", "value": "<{{ state.read }}>"},
            "output": "stored",
        }
        last = {"name": "d", "uses": "ltm.retrieve", "with": {"key": "k2"}, "output": {"last": "{{ result.value }}"}}
        state = run(store, read, again, last, state={"evil": evil, "secret": "s3cret"})
        assert (state["read"], state["last"]) == (evil, f"<{evil}>")

    def test_a_template_that_fails_names_the_node_and_the_place_in_it(self) -> None:
        error = failure({"name": "a", "uses": "ltm.delete", "with": {"key": "{{ state.topik }}"}}, state={"topic": 1})
        assert str(error) == "node `a`: `with.key`: `state.topik` is missing; did you mean `topic`?"
        assert error.error_type == "template_error"
        error = failure({"name": "a", "uses": "ltm.search", "output": {"n": "{{ result.cuont }}"}})
        assert str(error) == "node `a`: `output.n`: `result.cuont` is missing; did you mean `count`?"

    def test_a_failed_action_fails_its_node(self) -> None:
        error = failure({"name": "a", "uses": "ltm.store", "with": {"key": "", "value": 1}, "output": "stored"})
        assert str(error).startswith("node `a`: `ltm.store` failed: key must not be empty")
        assert error.error_type == "validation_error"

    def test_an_action_that_raises_fails_its_node(self) -> None:
        def broken(state: dict[str, Any]) -> None:
            raise OSError("disk is full")

        with YAMLEngine() as engine:
            engine.actions_registry["my.broken"] = broken
            with pytest.raises(NodeError) as caught:
                list(engine.load_from_dict({"nodes": [{"name": "a", "uses": "my.broken"}]}).invoke())
        assert str(caught.value) == "node `a`: `my.broken` failed: OSError: disk is full"
        assert caught.value.error_type == "OSError"

    def test_no_later_node_runs(self) -> None:
        ran: list[str] = []

        def note(state: dict[str, Any], what: str) -> dict[str, Any]:
            ran.append(what)
            return {}

        with YAMLEngine() as engine:
            engine.actions_registry["my.note"] = note
            nodes = [
                {"name": "a", "uses": "my.note", "with": {"what": "a"}},
                {"name": "b", "uses": "ltm.store", "with": {"key": "", "value": 1}},
                {"name": "c", "uses": "my.note", "with": {"what": "c"}},
            ]
            with pytest.raises(NodeError):
                list(engine.load_from_dict({"nodes": nodes}).invoke())
        assert ran == ["a"]


def test_an_exception_whose_text_fails_is_told_by_its_kind() -> None:
    text = "class Bad(Exception):\n    def __str__(self): raise ValueError\nraise Bad"
    assert str(code_failure(text)) == "node `one`: Bad (line 3 of its `run`)"


def test_an_action_can_not_end_the_program() -> None:
    def leave(state: dict[str, Any]) -> None:
        raise SystemExit(0)

    with YAMLEngine() as engine:
        engine.actions_registry["my.leave"] = leave
        with pytest.raises(NodeError, match="SystemExit: 0"):
            list(engine.load_from_dict({"nodes": [{"name": "a", "uses": "my.leave"}]}).invoke())


def test_a_node_error_survives_a_process_boundary() -> None:
    error = code_failure("raise ValueError('x')")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.node, copy.error_type) == (str(error), "one", "ValueError")
