"""``edges``: which node follows which, and the conditions that choose."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from agents import failure, load, nodes, path, refusal

THREE = "nodes: [{name: a, run: x = 1}, {name: b, run: y = 1}, {name: c, run: z = 1}]\n"


def chosen(when: Any, state: dict[str, Any], **edge: Any) -> bool:
    """Return whether an edge with this condition is taken."""
    edges = [{"from": "a", "to": "b", "when": when, **edge}, {"from": "a", "to": "c"}]
    return path({"nodes": nodes("abc"), "edges": [*edges, {"from": "b", "to": "__end__"}]}, state)[1] == "b"


class TestOrder:
    def test_without_edges_nodes_run_in_the_order_of_the_list(self) -> None:
        assert path({"nodes": nodes("cab")}) == ["c", "a", "b"]

    def test_edges_lead_from_node_to_node(self) -> None:
        edges = [("__start__", "b"), ("b", "a"), ("a", "c"), ("c", "__end__")]
        written = [{"from": at, "to": to} for at, to in edges]
        assert path({"nodes": nodes("abc"), "edges": written}) == ["b", "a", "c"]

    def test_a_node_without_edges_goes_on_to_the_next_of_the_list(self) -> None:
        assert path({"nodes": nodes("abcd"), "edges": [{"from": "a", "to": "c"}]}) == ["a", "c", "d"]

    def test_without_an_edge_from_the_start_the_first_node_begins(self) -> None:
        assert path({"nodes": nodes("abc"), "edges": [{"from": "b", "to": "__end__"}]}) == ["a", "b"]

    @pytest.mark.parametrize("edges", [None, []])
    def test_no_edges_are_fine(self, edges: Any) -> None:
        assert path({"nodes": nodes("ab"), "edges": edges}) == ["a", "b"]

    def test_entry_and_finish_need_only_one_node(self) -> None:
        edges = [{"type": "entry", "to": "b"}, {"type": "finish", "from": "b"}]
        assert path({"nodes": nodes("abc"), "edges": edges}) == ["b"]

    def test_edges_from_the_start_and_to_the_end_may_have_conditions(self) -> None:
        edges = [
            {"from": "__start__", "to": "b", "when": "late"},
            {"type": "entry", "to": "a"},
            {"from": "a", "to": "__end__", "when": "short"},
            {"from": "a", "to": "c"},
        ]
        agent = {"nodes": nodes("abc"), "edges": edges}
        assert path(agent) == ["a", "c"]
        assert path(agent, {"short": True}) == ["a"]
        assert path(agent, {"late": True}) == ["b", "c"]

    def test_the_first_edge_that_matches_is_taken(self) -> None:
        edges = [{"from": "a", "to": "c", "when": "state.n > 1"}, {"from": "a", "to": "b", "when": "state.n > 0"}]
        agent = {"nodes": nodes("abc"), "edges": [*edges, {"from": "b", "to": "__end__"}]}
        assert path(agent, {"n": 2}) == ["a", "c"]
        assert path(agent, {"n": 1}) == ["a", "b"]

    def test_a_loop_runs_as_often_as_its_condition_says(self) -> None:
        agent = {
            "nodes": [{"name": "count", "run": "n = state.get('n', 0) + 1"}, *nodes("b")],
            "edges": [{"from": "count", "to": "count", "when": "state.n < 1000"}, {"from": "count", "to": "b"}],
        }
        assert path(agent) == ["count"] * 1000 + ["b"]


class TestConditions:
    @pytest.mark.parametrize(
        ("state", "is_taken"),
        [
            ({"k": True}, True),
            ({"k": 1}, True),
            ({"k": "text"}, True),
            ({"k": ["x"]}, True),
            ({"k": "yes"}, True),
            ({}, False),
            ({"k": False}, False),
            ({"k": None}, False),
            ({"k": 0}, False),
            ({"k": ""}, False),
            ({"k": []}, False),
            ({"k": {}}, False),
            ({"k": "False"}, False),
            ({"k": " no\n"}, False),
            ({"k": "none"}, False),
            ({"k": "0"}, False),
        ],
        ids=str,
    )
    def test_the_name_of_a_key(self, state: dict[str, Any], is_taken: bool) -> None:
        assert chosen("k", state) is is_taken
        assert chosen("!k", state) is not is_taken
        assert chosen("! k", state) is not is_taken
        if state:
            assert chosen("{{ state.k }}", state) is is_taken
            assert chosen("{{ not state.k }}", {"k": bool(state["k"])}) is not bool(state["k"])

    @pytest.mark.parametrize(
        ("condition", "is_taken"),
        [
            (True, True),
            (False, False),
            ("true", True),
            ("False", False),
            ("TRUE", True),
            ("state.n > 3", True),
            ("state.n > 4", False),
            ("{{ state.n > 3 }}", True),
            ("  {{ state.n > 4 }}\n", False),
            ("state.n > 3 and state.t == 'x'", True),
            ("'x' in state.t", True),
            ("state.get('n', 0) == 4", True),
            ("state.get('m', 0) > 0", False),
            ("state.get('m', True) == True", True),
            ("state.m | default(false)", False),
            ("not state.get('m')", True),
            ("state['n'] == variables.four", True),
            ("state.n == 4 if True else False", True),
            ("{'k': {'l': 1}}.k.l == 1", True),
            ("{% if state.n > 4 %}true{% else %}false{% endif %}", False),
            ("{% if state.n > 3 %}true{% else %}false{% endif %}", True),
            ({"type": "expression", "value": "state.n > 3"}, True),
            ({"type": "expression", "value": "n"}, True),
            ({"type": "expression", "value": False}, False),
        ],
        ids=str,
    )
    def test_expressions(self, condition: Any, is_taken: bool) -> None:
        agent = {
            "nodes": nodes("abc"),
            "variables": {"four": 4},
            "edges": [
                {"from": "a", "to": "c", "when": condition},
                {"from": "a", "to": "b"},
                {"from": "b", "to": "__end__"},
            ],
        }
        assert path(agent, {"n": 4, "t": "x"}) == (["a", "c"] if is_taken else ["a", "b"])
        agent["edges"][0]["condition"] = agent["edges"][0].pop("when")  # type: ignore[index]
        assert path(agent, {"n": 4, "t": "x"}) == (["a", "c"] if is_taken else ["a", "b"])

    def test_beside_a_condition_when_is_the_result_for_which_the_edge_is_taken(self) -> None:
        for condition in ("k", {"type": "expression", "value": "state.k"}):
            assert [chosen(True, {"k": k}, condition=condition) for k in (True, False)] == [True, False]
            assert [chosen(False, {"k": k}, condition=condition) for k in (True, False)] == [False, True]

    def test_a_declared_key_is_null(self) -> None:
        agent = {
            "state_schema": {"k": "str"},
            "nodes": nodes("abc"),
            "edges": [{"from": "a", "to": "c", "when": "state.k is none"}, {"from": "a", "to": "b"}],
        }
        assert path(agent) == ["a", "c"]

    def test_values_of_the_state_are_never_conditions(self) -> None:
        assert chosen("{{ state.evil }}", {"evil": "{{ false }}", "x": 1})
        assert chosen("evil", {"evil": "!x", "x": 1})


class TestFailures:
    def test_no_edge_that_matches_is_an_error(self) -> None:
        error = failure(
            THREE + "edges: [{from: b, to: c, when: state.y > 1}, {from: b, to: __end__, when: '!y'}]\n",
        )
        assert str(error) == (
            "a.yaml:1:32: node `b`: no way leads on, because no condition is true: `state.y > 1` (to `c`),"
            " `!y` (to `__end__`); add one without a condition"
        )
        assert (error.node, error.error_type) == ("b", "routing_error")

    def test_also_at_the_start(self) -> None:
        error = failure(THREE + "edges: [{from: __start__, to: b, when: k}]\n")
        assert str(error).startswith(
            "a.yaml:2:9: node `__start__`: no way leads on, because no condition is true: `k` "
        )

    def test_a_condition_that_fails_is_an_error(self) -> None:
        error = failure(THREE + "edges: [{from: a, to: b, when: state.q > 1}]\n")
        assert str(error) == "a.yaml:2:9: node `a`: the condition `state.q > 1` (to `b`): `state.q` is missing"
        assert error.error_type == "template_error"

    def test_so_is_one_that_compares_what_cannot_be_compared(self) -> None:
        error = failure(THREE + "edges: [{from: a, to: b, when: state.q > 1}]\n", {"q": None})
        assert "the condition `state.q > 1` (to `b`): TypeError: " in str(error)

    def test_a_value_without_truth_is_an_error(self) -> None:
        node = {"name": "a", "run": "class Odd:\n  def __bool__(self): raise ValueError('odd')\nreturn {'k': Odd()}"}
        error = failure({"nodes": [node, *nodes("b")], "edges": [{"from": "a", "to": "b", "when": "k"}]})
        assert str(error) == "node `a`: the condition `k` (to `b`): ValueError: odd"

    def test_with_raise_exceptions_false_it_is_an_event(self) -> None:
        agent = {
            "config": {"raise_exceptions": False},
            "nodes": nodes("ab"),
            "edges": [{"from": "a", "to": "b", "when": False}],
        }
        [event] = load(agent).invoke()
        assert (event["type"], event["node"], event["error_type"]) == ("error", "a", "routing_error")

        async def events() -> list[dict[str, Any]]:
            return [event async for event in load(agent).ainvoke()]

        assert asyncio.run(events()) == [event]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ("{a: b}", "2:1: `edges` must be a list, not a mapping"),
        ("[a]", "2:9: an edge is a mapping with `from` and `to`, not text"),
        ("[{to: b}]", "2:9: an edge needs `from`, the name of a node"),
        ("[{from: a}]", "2:9: an edge needs `to`, the name of a node"),
        ("[{from: a, to: d}]", "2:23: `to` names the non-existent node `d`; there are `a`, `b`, `c`, `__end__`"),
        ("[{from: a, to: __ends__}]", "2:23: `to` names the non-existent node `__ends__`; did you mean `__end__`?"),
        ("[{from: A, to: b}]", "2:16: `from` names the non-existent node `A`; there are "),
        ("[{from: __end__, to: b}]", "2:16: `from` names the non-existent node `__end__`"),
        ("[{from: a, to: __start__}]", "2:23: `to` names the non-existent node `__start__`"),
        ("[{from: 5, to: b}]", "2:16: `from` must be text, not a number"),
        ("[{from: [a, b], to: c}]", "2:16: `from` takes one node: write one edge for each node, and `type: parallel`"),
        ("[{from: a, to: [b, c]}]", "2:23: `to` takes one node: write one edge for each node, and `type: parallel`"),
        (
            "[{from: a, to: b, type: parallel, fan_in: c}]",
            "2:50: no branches can meet at `c`: give that node ",
        ),
        ("[{from: a, to: b, fan_in: c}]", "2:26: `fan_in` goes with `type: parallel`"),
        ("[{from: a, to: b, type: entri}]", "2:32: `type` can't be `entri`; did you mean `entry`?"),
        ("[{from: a, to: b, type: entry}]", "2:16: an edge of `type: entry` comes from `__start__`: leave `from` out"),
        ("[{from: a, to: b, type: finish}]", "2:23: an edge of `type: finish` leads to `__end__`: leave `to` out"),
        ("[{form: a, to: b}]", "2:10: unknown word `form`; did you mean `from`?"),
        ("[{from: a, to: b, if: x}]", "2:26: unknown word `if`"),
        (
            "[{from: a, to: b}, {from: a, to: c}]",
            "2:27: `a` already has an edge without a condition in line 2, to `b`: ",
        ),
        (
            "[{from: a, to: b}, {from: a, to: b}]",
            "2:27: `a` already has an edge without a condition in line 2, to `b`: ",
        ),
        (
            "[{from: a, to: b}, {from: a, to: c, when: k}]",
            "2:27: this edge is never taken, because the edge in line 2 ",
        ),
        ("[{from: a, to: b, when: }]", "2:31: `when` must be text, not nothing"),
        ("[{from: a, to: b, when: ''}]", "2:32: the condition ``: the condition is empty"),
        ("[{from: a, to: b, when: 5}]", "2:32: `when` must be text, not a number"),
        ("[{from: a, to: b, when: [k]}]", "2:32: `when` must be text, not a list"),
        ("[{from: a, to: b, when: n > 3}]", "2:32: the condition `n > 3`: unknown name `n` in a template; values of"),
        (
            "[{from: a, to: b, when: stat.n}]",
            "2:32: the condition `stat.n`: unknown name `stat` in a template; did you",
        ),
        ("[{from: a, to: b, when: 'state.n >'}]", "2:32: the condition `state.n >`: not a valid template: "),
        ("[{from: a, to: b, when: '{{ state.n'}]", "2:32: the condition `{{ state.n`: not a valid template: "),
        (
            "[{from: a, to: b, when: 'true }} x'}]",
            "2:32: the condition `true }} x`: not a valid expression: it has `}}`",
        ),
        ("[{from: a, to: b, when: '!state.n'}]", "2:32: the condition `!state.n`: `!` goes before the name of one key"),
        (
            "[{from: a, to: b, when: {type: python, value: k}}]",
            "2:39: `type` can't be `python`; known are `expression`",
        ),
        ("[{from: a, to: b, when: {type: expression}}]", "2:32: `value` must be text, not nothing"),
        ("[{from: a, to: b, when: {type: expression, vale: k}}]", "2:51: unknown word `vale`; did you mean `value`?"),
        ("[{from: a, to: b, condition: k, when: x}]", "2:46: beside `condition`, `when` is the result for which"),
    ],
)
def test_wrong_edges_are_refused(edges: str, message: str) -> None:
    assert refusal(f"{THREE}edges: {edges}\n").startswith(f"a.yaml:{message}")


def test_several_plain_edges_are_refused_with_what_to_write() -> None:
    assert refusal(f"{THREE}edges: [{{from: a, to: b}}, {{from: a, to: c}}]").endswith(
        "write `type: parallel` on edges that are taken at the same time, or `when` on edges of which one is taken"
    )


def test_a_graph_of_an_untrusted_file_that_loops_for_ever_ends() -> None:
    node = {"name": "a", "uses": "my.nothing", "output": "x"}
    agent = {"nodes": [node], "edges": [{"from": "a", "to": "a"}]}
    calls = []
    registry = {"my.nothing": lambda state: calls.append(1)}
    began = time.monotonic()
    error = failure(agent, allow_code=False, actions_registry=registry)
    assert error.error_type == "budget_error"
    assert 1000 < len(calls) < 50_000
    assert time.monotonic() - began < 30


def test_a_condition_of_an_untrusted_file_has_a_limit_of_work() -> None:
    condition = "'x' * 100000 * state.n"
    agent = {"nodes": [{"name": "a", "uses": "ltm.count"}], "edges": [{"from": "a", "to": "a", "when": condition}]}
    error = failure(agent, {"n": 1_000_000}, allow_code=False)
    assert "does too much" in str(error)
