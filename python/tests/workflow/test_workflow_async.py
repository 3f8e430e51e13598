"""``ainvoke`` and ``astream``: agents in asynchronous programs, on asyncio and trio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest
import trio

from absent import WITHOUT, run_python
from databases import Database
from locks import lock_tables
from the_edge_agent import NodeError, WorkflowError, YAMLEngine
from the_edge_agent.memory import SQLiteBackend
from the_edge_agent.memory.core.cancelling import guarded
from the_edge_agent.workflow import CompiledGraph

Main = Callable[[], Awaitable[None]]
Run = Callable[[Main], None]
Load = Callable[..., CompiledGraph]

caller: ContextVar[str] = ContextVar("caller", default="nobody")


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function on an event loop; fail if it does not end."""

    async def limited(main: Main) -> None:
        with anyio.fail_after(40):
            await main()

    return lambda main: anyio.run(limited, main, backend=request.param)


@pytest.fixture
def load() -> Iterator[Load]:
    """Load code nodes, or whole nodes, by name, with actions of the program."""
    with YAMLEngine() as engine:

        def loaded(nodes: dict[str, Any], **actions: Any) -> CompiledGraph:
            engine.actions_registry.update(actions)
            bodies = {name: {"run": body} if isinstance(body, str) else body for name, body in nodes.items()}
            return engine.load_from_dict({"nodes": [{"name": name, **body} for name, body in bodies.items()]})

        yield loaded


class Gate:
    """An action that waits until the test lets it go on, and counts."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self._lock = threading.Lock()
        self.begun = self.ended = 0

    def __call__(self, state: Any) -> dict[str, Any]:
        with self._lock:
            self.begun += 1
        assert self.is_open.wait(10)
        with self._lock:
            self.ended += 1
        return {}

    async def reached(self, count: int = 1) -> None:
        with anyio.fail_after(10):
            while self.begun < count:
                await anyio.sleep(0.001)

    def open_later(self, seconds: float = 0.2) -> None:
        threading.Timer(seconds, self.is_open.set).start()


class Endless:
    """An asynchronous action that waits until it is cancelled."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def wait(self, state: Any) -> None:
        try:
            await anyio.sleep(30)
        except anyio.get_cancelled_exc_class():
            self.ends.append("cancelled")
            raise


async def final(graph: CompiledGraph, state: Any = None, **options: Any) -> dict[str, Any]:
    [event] = [event async for event in graph.ainvoke(state, **options)]
    assert event["type"] == "final"
    return dict(event["state"])


class TestEvents:
    NODES: ClassVar[dict[str, Any]] = {
        "a": "x = [state['n']]",
        "b": {"uses": "ltm.store", "with": {"key": "k", "value": "{{ state.x }}"}, "output": "stored"},
        "c": "state['x'].append(2)",
    }

    def test_they_are_those_of_stream_and_invoke(self, run: Run, load: Load) -> None:
        graph = load(self.NODES)
        list(graph.invoke({"n": 0}))  # from now on the store replaces an entry
        expected = [[*graph.stream({"n": 1})], [*graph.invoke({"n": 1})]]
        for events in expected:
            events[-1]["state"]["stored"]["version"] = 0

        async def main() -> None:
            streamed = [event async for event in graph.astream({"n": 1})]
            invoked = [event async for event in graph.ainvoke({"n": 1})]
            for events in (streamed, invoked):
                events[-1]["state"]["stored"]["version"] = 0
            for event in [*streamed[1:3], *expected[0][1:3]]:
                event["state"]["stored"]["version"] = 0
            assert [streamed, invoked] == expected

        run(main)

    def test_nodes_see_the_context_variables_of_the_task(self, run: Run, load: Load) -> None:
        graph = load({"a": {"uses": "my.caller"}}, **{"my.caller": lambda state: {"caller": caller.get()}})

        async def check(name: str) -> None:
            caller.set(name)
            assert await final(graph) == {"caller": name}

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(check, f"caller {number}")

        run(main)

    def test_a_failed_node_raises_its_error_with_its_place(self, run: Run, tmp_path: Any) -> None:
        path = tmp_path / "agent.yaml"
        path.write_text("nodes:\n  - name: a\n    run: x = 1\n  - name: b\n    run: |\n      y = 1\n      y / 0\n")
        with YAMLEngine() as engine:
            graph = engine.load_from_file(path)

        async def main() -> None:
            events = graph.astream()
            assert (await anext(events))["node"] == "a"
            with pytest.raises(NodeError, match="ZeroDivisionError") as caught:
                await anext(events)
            assert (caught.value.node, caught.value.place.line) == ("b", 7)
            assert [event async for event in events] == []

        run(main)

    def test_a_bad_input_is_an_error_of_the_first_event(self, run: Run, load: Load) -> None:
        async def main() -> None:
            events = load({"a": "x = 1"}).ainvoke({1: 2})  # type: ignore[dict-item]
            with pytest.raises(WorkflowError, match="keys of the input"):
                await anext(events)

        run(main)

    def test_tasks_that_read_one_run_take_turns(self, run: Run, load: Load) -> None:
        graph = load({f"n{number}": "import time; time.sleep(0.01)" for number in range(5)})
        events: list[Any] = []

        async def main() -> None:
            shared = graph.astream()

            async def read() -> None:
                async for event in shared:
                    events.append(event)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                tasks.start_soon(read)

        run(main)
        assert [event.get("node") for event in events if event["type"] == "state"] == ["n0", "n1", "n2", "n3", "n4"]


class TestThreads:
    def test_the_event_loop_neither_copies_nor_renders_nor_calls(self, run: Run, load: Load) -> None:
        places: list[tuple[str, threading.Thread]] = []

        class Witness:
            def __deepcopy__(self, memo: Any) -> Witness:
                places.append(("copied", threading.current_thread()))
                return self

            def __str__(self) -> str:
                places.append(("rendered", threading.current_thread()))
                return "witness"

        def look(state: Any, text: str) -> dict[str, Any]:
            places.append(("called", threading.current_thread()))
            return {"text": text}

        node = {"uses": "my.look", "with": {"text": "a {{ state.witness }}"}, "output": {"b": "{{ result.text }}!"}}
        graph = load({"a": node, "c": "d = 1"}, **{"my.look": look})

        async def main() -> None:
            for events in (graph.ainvoke, graph.astream):
                *_, last = [event async for event in events({"witness": Witness()})]
                assert last["state"]["b"] == "a witness!"

        run(main)
        assert {what for what, _ in places} == {"copied", "rendered", "called"}
        assert threading.main_thread() not in {thread for _, thread in places}

    def test_many_runs_have_few_threads(self, run: Run, load: Load) -> None:
        gate = Gate()
        graph = load({"a": {"uses": "my.gate"}, "b": {"uses": "ltm.count"}}, **{"my.gate": gate})
        before = threading.active_count()

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    tasks.start_soon(final, graph)
                await gate.reached(40)
                await anyio.sleep(0.05)
                assert gate.begun == 40
                assert threading.active_count() - before <= 42
                gate.is_open.set()

        run(main)
        assert gate.ended == 200

    def test_other_threads_of_the_program_are_not_taken(self, run: Run, load: Load) -> None:
        gate = Gate()
        graph = load({"a": {"uses": "my.gate"}}, **{"my.gate": gate})

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(final, graph)
                await gate.reached(40)
                assert await anyio.to_thread.run_sync(lambda: "not blocked") == "not blocked"
                gate.is_open.set()

        run(main)

    def test_a_program_may_limit_them_otherwise(self, run: Run, load: Load) -> None:
        gate = Gate()
        graph = load({"a": {"uses": "my.gate"}}, **{"my.gate": gate})

        async def main() -> None:
            limiter = anyio.CapacityLimiter(3)
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(partial(final, graph, limiter=limiter))
                await gate.reached(3)
                await anyio.sleep(0.05)
                assert gate.begun == limiter.borrowed_tokens == 3
                gate.is_open.set()

        run(main)

    def test_between_two_events_no_thread_is_held(self, run: Run, load: Load) -> None:
        graph = load({"a": "x = 1", "b": "x = 2"})

        async def main() -> None:
            limiter = anyio.CapacityLimiter(1)
            runs = [graph.astream(limiter=limiter) for _ in range(5)]
            for _ in range(3):
                for events in runs:
                    await anext(events)
                    assert limiter.borrowed_tokens == 0

        run(main)


class TestCancellation:
    NODES: ClassVar[dict[str, Any]] = {"a": {"uses": "my.gate"}, "b": {"uses": "my.later"}}

    @pytest.fixture
    def gate(self) -> Gate:
        return Gate()

    @pytest.fixture
    def later(self) -> Gate:
        return Gate()

    @pytest.fixture
    def graph(self, load: Load, gate: Gate, later: Gate) -> CompiledGraph:
        later.is_open.set()
        return load(self.NODES, **{"my.gate": gate, "my.later": later})

    def test_the_node_is_awaited_and_no_later_one_begins(
        self, run: Run, graph: CompiledGraph, gate: Gate, later: Gate
    ) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(final, graph)
                await gate.reached()
                tasks.cancel_scope.cancel()
                gate.open_later()
                began = time.process_time()
            assert time.process_time() - began < 0.1, "it waits without work"
            assert (gate.ended, later.begun) == (1, 0)

        run(main)

    @pytest.mark.parametrize("times", [1, 3])
    def test_so_it_is_if_a_task_of_asyncio_is_cancelled(
        self, graph: CompiledGraph, gate: Gate, later: Gate, times: int
    ) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(final(graph))
            await gate.reached()
            gate.open_later()
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0.01)
            assert not task.done()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (gate.ended, later.begun) == (1, 0)

        asyncio.run(main())

    @pytest.mark.parametrize("times", [1, 3])
    def test_so_it_is_if_all_tasks_are_cancelled(
        self, graph: CompiledGraph, gate: Gate, later: Gate, times: int
    ) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(final(graph))
            await gate.reached()
            gate.open_later()
            for _ in range(times):
                for each in asyncio.all_tasks() - {asyncio.current_task()}:
                    each.cancel()
                await asyncio.sleep(0.01)
            await asyncio.wait([task])
            assert task.cancelled()
            assert (gate.ended, later.begun) == (1, 0)

        asyncio.run(main())

    def test_a_timeout_of_asyncio_is_one_after_the_node(self, graph: CompiledGraph, gate: Gate, later: Gate) -> None:
        async def main() -> None:
            gate.open_later()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(final(graph), 0.05)
            assert (gate.ended, later.begun) == (1, 0)
            await asyncio.sleep(0)  # raises if the task were still cancelled

        asyncio.run(main())

    def test_a_run_that_waits_for_a_thread_ends_at_once(
        self, run: Run, graph: CompiledGraph, gate: Gate, later: Gate
    ) -> None:
        async def main() -> None:
            limiter = anyio.CapacityLimiter(1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(final, graph, limiter=limiter))
                await gate.reached()
                with anyio.move_on_after(0.05) as scope:
                    await final(graph, limiter=limiter)
                assert scope.cancelled_caught
                assert gate.begun == 1
                gate.is_open.set()
            assert later.begun == 1

        run(main)

    def test_a_cancelled_run_has_ended(self, run: Run, graph: CompiledGraph, gate: Gate, later: Gate) -> None:
        async def main() -> None:
            events = graph.astream()
            gate.open_later()
            with anyio.move_on_after(0.05):
                await anext(events)
            assert [event async for event in events] == []
            assert (gate.ended, later.begun) == (1, 0)

        run(main)


class Waiting(SQLiteBackend):
    """A memory whose calls wait until they are stopped, or for half a second."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()
        self.outcomes: list[str] = []

    def retrieve(self, key: str, default: Any = None, **options: Any) -> Any:
        self._wait()
        return super().retrieve(key, default, **options)

    def store(self, *args: Any, **options: Any) -> Any:
        self._wait()
        return super().store(*args, **options)

    def _wait(self) -> None:
        is_stopped = threading.Event()
        self.waits.set()
        with guarded(is_stopped.set):
            self.outcomes.append("stopped" if is_stopped.wait(0.5) else "awaited")


class TestReadsOfACancelledRun:
    @pytest.mark.parametrize(
        ("body", "outcome"),
        [
            ({"uses": "ltm.retrieve", "with": {"key": "k"}}, "stopped"),
            ({"uses": "actions.ltm_retrieve", "with": {"key": "k"}}, "stopped"),
            ({"uses": "ltm.retrieve", "with": {"key": "k", "refresh_ttl": True}}, "awaited"),
            ({"uses": "ltm.store", "with": {"key": "k", "value": 1}}, "awaited"),
            ({"run": "actions.ltm_retrieve(key='k')"}, "awaited"),
        ],
    )
    def test_a_node_that_only_reads_is_stopped(self, run: Run, body: dict[str, Any], outcome: str) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(final, graph)
                while not memory.waits.is_set():
                    await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
            assert memory.outcomes == [outcome]

        with Waiting() as memory, YAMLEngine(ltm_backend=memory) as engine:
            graph = engine.load_from_dict({"nodes": [{"name": "a", **body}]})
            run(main)

    def test_an_action_of_the_program_is_awaited_also_with_the_name_of_a_read(self, run: Run, load: Load) -> None:
        gate = Gate()
        graph = load({"a": {"uses": "ltm.count"}}, **{"ltm.count": gate})

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(final, graph)
                await gate.reached()
                gate.open_later()
                tasks.cancel_scope.cancel()

        run(main)
        assert gate.ended == 1

    @pytest.mark.targets(server=True, portable=False)
    def test_one_that_waits_for_a_lock_is_stopped(self, database: Database) -> None:
        async def main() -> None:
            began = time.monotonic()
            with anyio.move_on_after(0.3) as scope:
                await final(graph)
            assert scope.cancelled_caught
            assert time.monotonic() - began < 5, "otherwise it waits for ten seconds"

        memory = database.open(errors="raise")
        memory.store("k", "red fox")
        with YAMLEngine(ltm_backend=memory) as engine, lock_tables(database, "ltm_entries"):
            graph = engine.load_from_dict({"nodes": [{"name": "a", "uses": "ltm.search", "with": {"query": "fox"}}]})
            anyio.run(main)


class TestLeavingEarly:
    NODES: ClassVar[dict[str, Any]] = {"a": "x = 1", "b": {"uses": "my.later"}}

    def test_after_break_no_later_node_begins(self, run: Run, load: Load) -> None:
        later = Gate()
        graph = load(self.NODES, **{"my.later": later})

        async def main() -> None:
            async for event in graph.astream():
                assert event["node"] == "a"
                break
            await anyio.sleep(0.02)

        run(main)
        assert later.begun == 0

    def test_aclose_ends_a_run(self, run: Run, load: Load) -> None:
        later = Gate()
        graph = load(self.NODES, **{"my.later": later})

        async def main() -> None:
            events = graph.astream()
            await anext(events)
            await events.aclose()
            await events.aclose()
            assert [event async for event in events] == []

        run(main)
        assert later.begun == 0

    def test_aclose_waits_for_the_node_that_another_task_awaits(self, run: Run, load: Load) -> None:
        gate, later = Gate(), Gate()
        graph = load({"0": {"uses": "my.gate"}, **self.NODES}, **{"my.gate": gate, "my.later": later})

        async def main() -> None:
            events = graph.ainvoke()

            async def read() -> None:
                assert [event async for event in events] == []

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await gate.reached()
                gate.open_later()
                await events.aclose()
                assert gate.ended == 1

        run(main)
        assert later.begun == 0


class TestAsynchronousActions:
    @pytest.fixture
    def graph(self, load: Load) -> CompiledGraph:
        async def double(state: Any, number: int) -> dict[str, Any]:
            await anyio.sleep(0.01)
            assert threading.current_thread() is threading.main_thread()
            return {"doubled": 2 * number, "caller": caller.get()}

        async def refuse(state: Any) -> dict[str, Any]:
            return {"success": False, "error": "no", "error_type": "refused"}

        nodes = {
            "used": {"uses": "my.double", "with": {"number": 2}},
            "called": "again = actions.my_double(number=state['doubled'])['doubled']",
            "failed": "try: actions.my_refuse()\nexcept Exception as error: kind = error.error_type",
        }
        return load(nodes, **{"my.double": double, "my.refuse": refuse})

    def test_they_are_awaited_on_the_event_loop(self, run: Run, graph: CompiledGraph) -> None:
        async def main() -> None:
            caller.set("me")
            assert await final(graph) == {"doubled": 4, "caller": "me", "again": 8, "kind": "refused"}

        run(main)

    def test_invoke_refuses_them(self, graph: CompiledGraph) -> None:
        with pytest.raises(NodeError, match=r"`my\.double` failed: it is asynchronous: run the agent with `ainvoke`"):
            list(graph.invoke())

    def test_one_that_raises_fails_its_node(self, run: Run, load: Load) -> None:
        async def fail(state: Any) -> None:
            raise OSError("no network")

        graph = load({"a": {"uses": "my.fail"}}, **{"my.fail": fail})

        async def main() -> None:
            with pytest.raises(NodeError, match="OSError: no network"):
                await final(graph)

        run(main)

    def test_one_is_cancelled_with_the_task(self, run: Run, load: Load) -> None:
        endless = Endless()
        graph = load({"a": {"uses": "my.wait"}}, **{"my.wait": endless.wait})

        async def main() -> None:
            began = time.monotonic()
            with anyio.move_on_after(0.1) as scope:
                await final(graph)
            assert scope.cancelled_caught
            assert endless.ends == ["cancelled"]
            assert time.monotonic() - began < 5

        run(main)

    def test_one_is_cancelled_with_a_task_of_asyncio(self, load: Load) -> None:
        endless = Endless()
        graph = load({"a": {"uses": "my.wait"}}, **{"my.wait": endless.wait})

        async def main() -> None:
            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(final(graph), 0.1)
            assert endless.ends == ["cancelled"]
            assert time.monotonic() - began < 5

        asyncio.run(main())

    def test_runs_inside_of_actions_do_not_wait_for_each_other(self, run: Run, load: Load) -> None:
        inner = load({"a": "import time; time.sleep(0.01); x = 1"})
        together = Gate()

        async def outer(state: Any) -> dict[str, Any]:
            together.begun += 1
            await together.reached(40)
            return await final(inner)

        graph = load({"b": {"uses": "my.outer"}}, **{"my.outer": outer})

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(80):
                    tasks.start_soon(final, graph)

        run(main)

    def test_one_that_invokes_an_agent_blocks_nothing_for_ever(self, run: Run, load: Load) -> None:
        async def refused(state: Any) -> None:
            list(inner.invoke())

        async def quick(state: Any) -> dict[str, Any]:
            return {}

        inner = load({"a": {"uses": "my.quick"}}, **{"my.quick": quick})
        graph = load({"b": {"uses": "my.refused"}}, **{"my.refused": refused})

        async def main() -> None:
            with pytest.raises(NodeError, match="it is asynchronous"):
                await final(graph)

        run(main)


def test_a_graph_runs_on_several_event_loops(load: Load) -> None:
    graph = load({"a": "x = 1"})
    for _ in range(2):
        assert asyncio.run(final(graph)) == {"x": 1}
        assert trio.run(final, graph) == {"x": 1}


def test_without_anyio_a_call_names_the_extra_and_the_rest_works() -> None:
    code = (
        "from the_edge_agent import YAMLEngine\n"
        "with YAMLEngine() as engine:\n"
        "    graph = engine.load_from_dict({'nodes': [{'name': 'a', 'run': 'x = 1'}]})\n"
        "    print([*graph.invoke()])\n"
        "    for name in ('ainvoke', 'astream'):\n"
        "        try: getattr(graph, name)()\n"
        "        except ImportError as error: print(error)\n"
    )
    first, *others = run_python(WITHOUT.format(package="anyio") + code).splitlines()
    assert first == "[{'type': 'final', 'state': {'x': 1}}]"
    assert ['pip install "the-edge-agent[async]"' in line for line in others] == [True, True]


def test_importing_the_engine_does_not_load_anyio() -> None:
    assert run_python("import sys, the_edge_agent.workflow; print('anyio' in sys.modules)") == "False"
