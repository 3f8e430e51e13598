"""``StateGraph``: nodes that are functions of a program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from the_edge_agent import END, START, NodeError, StateGraph


def graph(*names: str, **options: Any) -> StateGraph:
    """Return a graph with nodes that write down that they ran."""
    made = StateGraph({"path": list}, **options)
    for name in names:
        made.add_node(name, run=partial(visited, name))
    return made


def visited(name: str, state: dict[str, Any]) -> dict[str, Any]:
    return {"path": [*state.get("path", []), name]}


def path(made: StateGraph, state: dict[str, Any] | None = None) -> list[str]:
    [final] = made.invoke(state)
    assert final["type"] == "final", final
    return list(final["state"]["path"])


def chain(*names: str, **options: Any) -> StateGraph:
    made = graph(*names, **options)
    made.set_entry_point(names[0])
    for at, to in pairwise(names):
        made.add_edge(at, to)
    made.set_finish_point(names[-1])
    return made


class TestRuns:
    def test_nodes_run_along_the_edges(self) -> None:
        assert path(chain("b", "a", "c").compile()) == ["b", "a", "c"]

    def test_also_without_compile(self) -> None:
        assert path(chain("a", "b")) == ["a", "b"]

    def test_start_and_end_are_nodes_of_edges(self) -> None:
        made = graph("a")
        made.add_edge(START, "a")
        made.add_edge("a", END)
        assert (START, END) == ("__start__", "__end__")
        assert path(made) == ["a"]

    def test_the_events_are_those_of_agents(self) -> None:
        events = list(chain("a", "b").stream({"n": 1}))
        assert [event["type"] for event in events] == ["state", "state", "final"]
        assert events[0] == {"type": "state", "node": "a", "state": {"n": 1, "path": ["a"]}}

    def test_a_function_chooses_the_next_node(self) -> None:
        made = graph("a", "b", "c")
        made.set_entry_point("a")
        made.add_conditional_edges("a", lambda state: state["n"] > 1, {True: "b", False: "c"})
        made.add_conditional_edges("b", lambda: "over", {"over": END})
        made.add_conditional_edges("c", lambda state: END)
        assert path(made.compile(), {"n": 2}) == ["a", "b"]
        assert path(made, {"n": 1}) == ["a", "c"]

    def test_also_the_first(self) -> None:
        made = graph("a", "b")
        made.add_conditional_edges(START, lambda state: state["go"], {"b": "b", "a": "a"})
        made.add_edge("a", "b")
        made.set_finish_point("b")
        assert path(made, {"go": "b"}) == ["b"]

    def test_a_loop(self) -> None:
        made = graph("a")
        made.set_entry_point("a")
        made.add_conditional_edges("a", lambda state: len(state["path"]) < 100, {True: "a", False: END})
        assert path(made) == ["a"] * 100

    def test_a_node_without_a_function_does_nothing(self) -> None:
        made = StateGraph()
        made.add_node("a")
        made.set_entry_point("a")
        made.set_finish_point("a")
        assert list(made.invoke({"n": 1})) == [{"type": "final", "state": {"n": 1}}]

    def test_a_coroutine_function_is_awaited(self) -> None:
        async def run(state: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"n": 1}

        made = StateGraph(raise_exceptions=True)
        made.add_node("a", run=run)
        made.set_entry_point("a")
        made.set_finish_point("a")

        async def final() -> Any:
            return [event async for event in made.ainvoke()]

        assert asyncio.run(final()) == [{"type": "final", "state": {"n": 1}}]
        with pytest.raises(NodeError, match="run the agent with `ainvoke` or `astream`"):
            list(made.invoke())

    def test_runs_in_many_threads_see_nothing_of_each_other(self) -> None:
        made = chain(*"abcd")
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda n: path(made, {"path": [n]}), range(200))) == [[n, *"abcd"] for n in range(200)]

    def test_what_a_function_keeps_is_no_part_of_the_state(self) -> None:
        kept: list[int] = []
        made = StateGraph()
        made.add_node("a", run=lambda state: {"x": kept})
        made.add_node("b", run=lambda state: state["x"].append(1))
        made.set_entry_point("a")
        made.add_edge("a", "b")
        made.set_finish_point("b")
        assert [next(made.invoke())["state"]["x"] for _ in range(2)] == [[1], [1]]
        assert kept == []


class TestParameters:
    @pytest.mark.parametrize(
        "function",
        [
            lambda state: state["n"],
            lambda state, config: (state["n"], config)[0],
            lambda s: s["n"],
            lambda s, node: (s["n"], node)[0],
            lambda state, node, graph, more=1: state["n"] if node == "a" and isinstance(graph, StateGraph) else more,
            lambda **named: named["state"]["n"] if sorted(named) == ["config", "graph", "node", "state"] else None,
        ],
    )
    def test_a_function_gets_what_it_asks_for(self, function: Any) -> None:
        def run(value: Any) -> dict[str, Any]:
            return {"m": value}

        made = StateGraph(raise_exceptions=True)
        made.add_node("a", run=lambda: {"seen": True})
        made.set_entry_point("a")
        made.add_conditional_edges("a", function, {5: END})
        assert next(made.invoke({"n": 5}))["state"] == {"n": 5, "seen": True}

    @pytest.mark.parametrize("function", [lambda a, b: None, lambda state, other: None, lambda *, other: None])
    def test_other_parameters_are_refused(self, function: Any) -> None:
        with pytest.raises(ValueError, match="the function of 'a' has the parameter"):
            StateGraph().add_node("a", run=function)


class TestFailures:
    def failing(self, **options: Any) -> StateGraph:
        made = StateGraph(**options)
        made.add_node("a", run=lambda state: {"x": 1})
        made.add_node("b", run=lambda state: 1 / 0)
        made.set_entry_point("a")
        made.add_edge("a", "b")
        made.set_finish_point("b")
        return made

    def test_a_failed_node_is_an_event(self) -> None:
        message = "node `b`: ZeroDivisionError: division by zero"
        error = {"type": "error", "node": "b", "error": message, "error_type": "ZeroDivisionError", "state": {"x": 1}}
        assert list(self.failing().invoke()) == [error]

    def test_or_an_exception(self) -> None:
        with pytest.raises(RuntimeError, match="ZeroDivisionError") as caught:
            list(self.failing(raise_exceptions=True).invoke())
        assert isinstance(caught.value, NodeError)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize(
        ("answer", "message"),
        [("x", "the function returned 'x'"), ([], "TypeError: "), (1 / 2, "the function returned 0.5")],
    )
    def test_a_choice_that_leads_nowhere_is_an_error(self, answer: Any, message: str) -> None:
        made = graph("a", raise_exceptions=True)
        made.set_entry_point("a")
        made.add_conditional_edges("a", lambda: answer, {"y": END})
        with pytest.raises(NodeError, match=message):
            list(made.invoke())

    def test_so_is_the_name_of_no_node(self) -> None:
        made = graph("alpha", raise_exceptions=True)
        made.set_entry_point("alpha")
        made.add_conditional_edges("alpha", lambda: "alpah")
        with pytest.raises(NodeError, match="there is no node `alpah`; did you mean `alpha`"):
            list(made.invoke())

    def test_something_other_than_a_dict_is_an_error(self) -> None:
        made = StateGraph(raise_exceptions=True)
        made.add_node("a", run=lambda: [1])
        made.set_entry_point("a")
        made.set_finish_point("a")
        with pytest.raises(NodeError, match="its function must return a dict of updates, not list"):
            list(made.invoke())

    def test_a_node_that_leads_nowhere(self) -> None:
        made = graph("a")
        assert [event["error"] for event in made.invoke()] == ["node `__start__`: no edge leads on from it"]
        made.set_entry_point("a")
        assert [event["error"] for event in made.invoke()] == ["node `a`: no edge leads on from it"]


class TestBuilding:
    @pytest.mark.parametrize("name", ["a", START, END, "", " ", 5])
    def test_names_that_no_node_can_have(self, name: Any) -> None:
        with pytest.raises(ValueError, match=r"already a node|can't be the name"):
            graph("a").add_node(name)

    def test_edges_between_nodes_that_there_are(self) -> None:
        made = graph("first", "second")
        wrong: list[Callable[[], None]] = [
            lambda: made.add_edge("first", "secnd"),
            lambda: made.add_edge("secnd", "first"),
            lambda: made.add_edge("secnd", END),
            lambda: made.set_entry_point("secnd"),
            lambda: made.set_finish_point("secnd"),
            lambda: made.add_conditional_edges("secnd", lambda: 1, {1: "first"}),
            lambda: made.add_conditional_edges("first", lambda: 1, {1: "secnd"}),
        ]
        for add in wrong:
            with pytest.raises(ValueError, match="there is no node 'secnd'; did you mean `second`"):
                add()
        for at, to in (("first", START), (END, "first")):
            with pytest.raises(ValueError, match="there is no node '__"):
                made.add_edge(at, to)

    def test_compile_checks_the_graph(self) -> None:
        made = graph("a", "b")
        with pytest.raises(ValueError, match="no entry point"):
            made.compile()
        made.set_entry_point("a")
        with pytest.raises(ValueError, match="no edge leads on from the node 'a'"):
            made.compile()
        made.add_edge("a", "b")
        made.set_finish_point("b")
        assert made.compile() is made
        made.add_edge("a", END)
        with pytest.raises(ValueError, match="edges of 'a' are never taken, because the one to 'b' comes first"):
            made.compile()
