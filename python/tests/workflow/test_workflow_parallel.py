"""``type: parallel`` and ``fan_in``: branches that run at the same time, and the node where they meet."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from agents import events, failure, final_state, load, path, refusal
from the_edge_agent import YAMLEngine
from the_edge_agent.workflow.runs import current_node

FORK = [
    {"from": "a", "to": "b", "type": "parallel"},
    {"from": "a", "to": "c", "type": "parallel"},
    {"from": "b", "to": "j"},
    {"from": "c", "to": "j"},
]
TEXT = "nodes: [{name: a, run: x = 1}, {name: b, run: y = 1}, {name: c, run: z = 1}, {name: j, fan_in: true}]\n"
CONTEXT: ContextVar[str] = ContextVar("a value of the caller", default="")


def agent(b: Any = "y = 1", c: Any = "z = 1", j: Any = "r = parallel_results", **more: Any) -> dict[str, Any]:
    """Return an agent with the branches ``b`` and ``c``, which meet at ``j``. Bodies are Python or nodes."""
    bodies = {"a": "x = 1", "b": b, "c": c, "j": j}
    written = [{"name": name, **({"run": body} if isinstance(body, str) else body)} for name, body in bodies.items()]
    written[-1]["fan_in"] = True
    return {"nodes": written, "edges": FORK, **more}


def no_branch_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("branch")]


class TestResults:
    def test_items_are_in_the_order_of_the_edges_and_have_the_states_of_the_branches(self) -> None:
        [b, c] = final_state(agent(b="import time; time.sleep(0.02); y = 1"))["r"]
        assert (b["branch"], b["success"], b["error"], b["state"]) == ("b", True, None, {"x": 1, "y": 1, **b_time(b)})
        assert (c["branch"], c["state"]) == ("c", {"x": 1, "z": 1})
        assert b["timing_ms"] >= 20

    def test_the_state_at_the_join_is_the_state_before_the_branches(self) -> None:
        assert final_state(agent(j="n = len(parallel_results)"), {"k": 0}) == {"k": 0, "x": 1, "n": 2}

    @pytest.mark.parametrize(
        "code",
        [
            "r = [p.branch for p in parallel_results if 'z' in p] + [parallel_results[0].y]",
            "r = [p['branch'] for p in parallel_results if p.get('z')] + [parallel_results[0]['y']]",
            "return {'r': [parallel_results[1].state['x'] and 'c', parallel_results[0].get('y', 5)]}",
        ],
    )
    def test_code_reads_items_by_attribute_and_key_down_to_the_state(self, code: str) -> None:
        assert final_state(agent(j=code))["r"] == ["c", 1]

    @pytest.mark.parametrize(
        ("template", "value"),
        [
            ("{{ parallel_results[0].y }}", 1),
            ("{{ parallel_results[1]['z'] }}", 1),
            ("{{ parallel_results[1].get('y', 7) }}", 7),
            ("{{ parallel_results[1].y | default(3) }}", 3),
            ("{{ parallel_results | map(attribute='branch') | join(',') }}", "b,c"),
            ("{{ parallel_results | selectattr('success') | list | length }}", 2),
        ],
    )
    def test_templates_do_too(self, template: str, value: Any) -> None:
        join = {"uses": "json.stringify", "with": {"data": template}, "output": {"r": template}}
        for allow_code in (True, False):
            code: dict[str, Any] = {"uses": "json.parse", "with": {"text": "1"}}
            plain = agent(b={**code, "output": {"y": "{{ 1 }}"}}, c={**code, "output": {"z": "{{ 1 }}"}}, j=join)
            plain["nodes"][0] = {"name": "a", **code, "output": "x"}
            assert final_state(plain, allow_code=allow_code)["r"] == value

    def test_conditions_behind_the_join_know_them(self) -> None:
        given = agent(j={})
        given["nodes"] += [{"name": "n", "run": "n = 1"}, {"name": "o", "run": "o = 1"}]
        given["edges"] = [*FORK, {"from": "j", "to": "o", "when": "parallel_results[0].y == 1"}]
        assert path(given) == ["a", "j", "o"]

    def test_a_missing_key_names_the_branch_and_its_failure(self) -> None:
        error = failure(agent(b="1 / 0", j="r = parallel_results[0]['y']"))
        assert "the branch 'b' has left no 'y'; it failed: node `b`: ZeroDivisionError" in str(error)


def b_time(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item["state"].items() if key == "time"}


class TestRuns:
    def test_branches_run_at_the_same_time_on_copies(self) -> None:
        both = threading.Barrier(2, timeout=10)

        def meet(state: dict[str, Any]) -> dict[str, Any]:
            state["shared"].append(1)
            both.wait()
            return {"seen": list(state["shared"]), "context": CONTEXT.get(), "node": current_node()}

        CONTEXT.set("of the caller")
        use = {"uses": "test.meet", "output": "got"}
        given = agent(b=use, c=use, j="r = [p.got for p in parallel_results]")
        state = final_state(given, {"shared": []}, actions_registry={"test.meet": meet})
        assert state["r"] == [{"seen": [1], "context": "of the caller", "node": node} for node in "bc"]
        assert state["shared"] == []

    def test_settings_limit_how_many_run_at_a_time(self) -> None:
        running: list[int] = []
        most: list[int] = []

        def count(state: dict[str, Any]) -> dict[str, Any]:
            running.append(1)
            most.append(len(running))
            threading.Event().wait(0.01)
            running.pop()
            return {}

        given = agent(b={"uses": "test.count"}, c={"uses": "test.count"}, settings={"parallel": {"max_concurrency": 1}})
        final_state(given, actions_registry={"test.count": count})
        assert most == [1, 1]

    def test_a_branch_may_have_several_nodes_and_branches_of_its_own(self) -> None:
        given = agent(b="b = 1", j="r = [p.state for p in parallel_results]")
        given["nodes"] += [
            {"name": "d", "run": "d = 1"},
            {"name": "e", "run": "e = 1"},
            {"name": "k", "fan_in": True, "run": "k = [p.branch for p in parallel_results]"},
        ]
        given["edges"] = [
            *FORK[:2],
            FORK[3],
            *({"from": "b", "to": to, "type": "parallel", "fan_in": "k"} for to in "de"),
            {"from": "d", "to": "k"},
            {"from": "e", "to": "k"},
            {"from": "k", "to": "j"},
            {"from": "j", "to": "__end__"},
        ]
        assert final_state(given)["r"] == [{"x": 1, "b": 1, "k": ["d", "e"]}, {"x": 1, "z": 1}]

    def test_only_branches_whose_condition_is_true_run(self) -> None:
        given = agent(j="r = [p.branch for p in parallel_results]")
        given["edges"] = [{**FORK[0], "when": "state.n > 1"}, *FORK[1:]]
        assert [final_state(given, {"n": n})["r"] for n in (1, 2)] == [["c"], ["b", "c"]]

    def test_the_work_of_untrusted_branches_is_limited(self) -> None:
        use = {"uses": "json.parse", "with": {"text": "1"}, "output": "y"}
        given = agent(b=use, c=use, j={})
        given["nodes"][0] = {"name": "a", **use}
        given["edges"] = [*FORK[:2], {"from": "b", "to": "b", "when": "state.y"}, *FORK[2:]]
        given["nodes"][3] |= {"uses": "json.stringify", "with": {"data": "{{ parallel_results[0].error_type }}"}}
        given["nodes"][3]["output"] = "r"
        assert "budget_error" in str(final_state(given, allow_code=False)["r"])


class TestFailures:
    def test_a_failed_branch_is_an_item_and_the_run_goes_on(self) -> None:
        [b, c] = final_state(agent(b="x = 2\nraise ValueError('odd')"))["r"]
        assert (b["success"], b["error_type"], b["state"]) == (False, "ValueError", {"x": 1})
        assert b["error"].startswith("node `b`: ValueError: odd")
        assert c["success"]

    def test_on_error_retry_and_fallback_work_in_branches(self) -> None:
        use = {"uses": "test.fail", "retry": {"max_attempts": 2}, "on_error": "continue", "output": "got"}
        calls: list[int] = []

        def fail(state: dict[str, Any]) -> dict[str, Any]:
            calls.append(1)
            return {"success": False, "error": "no", "error_type": "odd"}

        given = agent(b=use, c={"run": "1 / 0", "fallback": "j"}, j="r = [p.success for p in parallel_results]")
        assert final_state(given, actions_registry={"test.fail": fail})["r"] == [True, True]
        assert len(calls) == 2

    @pytest.mark.parametrize("where", ["a", "b"])
    def test_keyboard_interrupt_ends_the_run_and_leaves_no_thread(self, where: str) -> None:
        def interrupt(state: dict[str, Any]) -> dict[str, Any]:
            raise KeyboardInterrupt

        with YAMLEngine(actions_registry={"test.interrupt": interrupt}) as engine:
            graph = engine.load_from_dict(agent(b={"uses": "test.interrupt"}))
            with pytest.raises(KeyboardInterrupt):
                list(graph.invoke())
        assert no_branch_threads()

    def test_leaving_the_iterator_ends_the_branches_before_their_next_node(self) -> None:
        ran: list[str] = []

        def note(state: dict[str, Any], name: str) -> dict[str, Any]:
            ran.append(name)
            return {}

        def wait(state: dict[str, Any]) -> dict[str, Any]:
            release.wait(10)
            return {}

        release = threading.Event()
        given = agent(b={"uses": "test.wait"}, c={"uses": "test.note", "with": {"name": "c"}})
        given["nodes"].insert(2, {"name": "d", "uses": "test.note", "with": {"name": "d"}})
        given["edges"] = [*FORK[:2], {"from": "b", "to": "d"}, {"from": "d", "to": "j"}, FORK[3]]
        stream = load(given, actions_registry={"test.note": note, "test.wait": wait}).stream()
        for event in stream:
            if event["type"] == "branch_complete":
                break
        threading.Timer(0.05, release.set).start()
        stream.close()  # type: ignore[attr-defined]
        assert ran == ["c"]
        assert no_branch_threads()

    def test_leaving_does_not_wait_for_the_next_attempt(self) -> None:
        given = agent(b={"run": "1 / 0", "retry": {"max_attempts": 2, "backoff_seconds": 300}})
        stream = load(given).stream()
        assert next(event for event in stream if event["type"] == "branch_complete")["branch"] == "c"
        stream.close()  # type: ignore[attr-defined]
        assert no_branch_threads()


class TestEvents:
    def test_stream_tells_of_branches(self) -> None:
        got = events(agent(b="1 / 0", j={}))
        of_b = [event for event in got if event.get("branch") == "b"]
        of_c = [event for event in got if event.get("branch") == "c"]
        assert [event["type"] for event in of_b] == ["parallel_error", "branch_complete"]
        assert [event["type"] for event in of_c] == ["parallel_state", "branch_complete"]
        assert (of_c[0]["node"], of_c[0]["state"]) == ("c", {"x": 1, "z": 1})
        assert (of_b[0]["node"], of_b[0]["error_type"]) == ("b", "ZeroDivisionError")
        assert (of_b[1]["success"], of_b[1]["fan_in"]) == (False, "j")
        assert [event["node"] for event in got if event["type"] == "state"] == ["a", "j"]

    def test_invoke_does_not(self) -> None:
        assert [event["type"] for event in load(agent(b="1 / 0", j={})).invoke()] == ["final"]


class TestAsynchronous:
    @staticmethod
    def collect(given: dict[str, Any], actions: dict[str, Any]) -> list[dict[str, Any]]:
        async def run() -> list[dict[str, Any]]:
            return [event async for event in load(given, actions_registry=actions).astream()]

        return asyncio.run(run())

    def test_asynchronous_actions_of_branches_are_awaited_at_the_same_time(self) -> None:
        arrived: list[str] = []

        async def meet(state: dict[str, Any], name: str) -> dict[str, Any]:
            arrived.append(name)
            while len(arrived) < 2:
                await asyncio.sleep(0)
            return {"got": name}

        given = agent(
            b={"uses": "test.meet", "with": {"name": "b"}},
            c={"uses": "test.meet", "with": {"name": "c"}},
            j="r = [p.got for p in parallel_results]",
        )
        assert self.collect(given, {"test.meet": meet})[-1]["state"]["r"] == ["b", "c"]
        assert no_branch_threads()

    def test_a_cancelled_task_leaves_no_thread(self) -> None:
        ended: list[str] = []

        async def hang(state: dict[str, Any]) -> dict[str, Any]:
            began.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("hang")
            return {}

        async def run() -> None:
            async def read() -> None:
                async for _ in load(agent(b={"uses": "test.hang"}), actions_registry={"test.hang": hang}).astream():
                    pass

            task = asyncio.create_task(read())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        began = asyncio.Event()
        asyncio.run(run())
        assert ended == ["hang"]
        assert no_branch_threads()


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (
            "[{from: a, to: b, type: parallel, parallel_strategy: process}]",
            "2:61: `parallel_strategy` can't be `process`",
        ),
        ("[{from: a, to: j, type: parallel}]", "2:23: `j` is where the branches meet"),
        ("[{from: a, to: b, type: parallel, fan_in: k}]", "2:50: no branches can meet at `k`: "),
        (
            "[{from: a, to: b, type: parallel}, {from: a, to: b, type: parallel}]",
            "2:43: there is already a parallel edge",
        ),
        (
            "[{from: a, to: b, type: parallel}, {from: a, to: c, type: parallel}]",
            "2:9: `b` has no edge, so this branch goes on to the next node, `c`, where another branch begins",
        ),
        (
            "[{from: a, to: b, type: parallel, fan_in: j}, {from: b, to: __end__}]",
            "2:9: the branch from `b` never reaches `j`, where the branches from `a` meet",
        ),
        ("[{from: a, to: b, type: parallel}, {from: b, to: __end__}]", "2:9: the branches from `a` never meet: "),
        ("[{from: a, to: b}]", "1:88: no branches meet at `j`: "),
        ("[{from: a, to: b, type: parallel}, {from: a, to: c}]", "2:43: this edge is never taken"),
        (
            "[{from: a, to: b, type: parallel}, {from: b, to: a, when: x}, {from: b, to: j}]",
            "2:9: a branch from `a` leads back to `a`",
        ),
    ],
)
def test_branches_that_cannot_work_are_refused(edges: str, message: str) -> None:
    assert refusal(f"{TEXT}edges: {edges}\n").startswith(f"a.yaml:{message}")


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ("{max_concurrency: 0}", "`max_concurrency` must be a whole number from 1 to 100"),
        ("{strategy: remote}", "`strategy` can't be `remote`"),
        ("{max_concurency: 2}", "unknown word `max_concurency`; did you mean `max_concurrency`?"),
    ],
)
def test_settings_are_checked(parallel: str, message: str) -> None:
    assert message in refusal(f"settings: {{parallel: {parallel}}}\n{TEXT}")


def test_only_a_node_where_branches_meet_knows_their_results() -> None:
    given = agent(b={"uses": "json.parse", "with": {"text": "{{ parallel_results }}"}})
    assert "`parallel_results` is known only to a node with `fan_in: true`" in refusal(given)
    assert "NameError" in str(final_state(agent(b="y = parallel_results"))["r"][0]["error"])
