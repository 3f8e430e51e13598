"""CompiledGraph: a loaded agent that can be run. Its nodes run one at a time and change a state, which is a dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from the_edge_agent.workflow import budget
from the_edge_agent.workflow.actions.registry import Action
from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.copies import copied
from the_edge_agent.workflow.errors import NodeError, WorkflowError, describe
from the_edge_agent.workflow.model import Agent
from the_edge_agent.workflow.routing import Router
from the_edge_agent.workflow.running import Runner, State
from the_edge_agent.workflow.runs import Run
from the_edge_agent.workflow.walking import Walk, failure_of

if TYPE_CHECKING:
    from anyio import CapacityLimiter

    from the_edge_agent.workflow.aio import AsyncEvents

Event = dict[str, Any]


class CompiledGraph:
    """A loaded agent, which ``YAMLEngine.load_from_file`` returns.

    It has no state between runs, so one graph may run many times, also in several threads at once. It uses the memory
    of the engine that loaded it. When the engine is closed, actions that need the memory fail.
    """

    def __init__(self, agent: Agent, actions: Mapping[str, Action]) -> None:
        """Make a graph of a checked agent. Programs get graphs from ``YAMLEngine``."""
        self._actions = actions
        self._use_agent(agent)

    def _use_agent(self, agent: Agent) -> None:
        self._agent = agent
        self._router = Router(agent)
        self._runner = Runner(agent, self._actions)

    @property
    def name(self) -> str:
        """The name of the agent in its file; empty if it has none."""
        return self._agent.name

    @property
    def version(self) -> str:
        """The version of the agent in its file; empty if it has none."""
        return self._agent.version

    def invoke(self, state: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """Run the agent.

        Args:
            state: the input. Its keys are added to the file's ``initial_state`` or replace those there. It is copied
                and never changed.

        Returns:
            An iterator of events. The agent runs while the iterator is read. The last event is
            ``{"type": "final", "state": {...}}``. If a node fails and the file has ``raise_exceptions: false``, it is
            ``{"type": "error", "node": name, "error": message, "error_type": ..., "state": {...}}`` instead.

        Raises:
            NodeError: a node failed; raised while the iterator is read. Not with ``raise_exceptions: false``.
            WorkflowError: the input is not a dict whose keys are text, or cannot be copied.
        """
        events = self._run(self._start(state), with_states=False)
        return (event for event in events if event["type"] != "state")

    def stream(self, state: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """Run the agent and return the state after each node.

        Args:
            state: as for ``invoke``.

        Returns:
            An iterator of events: ``{"type": "state", "node": name, "state": {...}}`` after each node, then
            the last event of ``invoke``. The program may change these states. Branches have events of their own, with
            ``branch``, the name of its first node: ``parallel_state`` after each node, ``parallel_error`` if it failed,
            and ``branch_complete`` at its end, with ``fan_in``, ``success``, ``error`` and ``timing_ms``. If the
            iterator is closed, the nodes that run in branches are awaited, and no other node begins.

        Raises:
            NodeError: as for ``invoke``.
            WorkflowError: the input is not a dict whose keys are text, or cannot be copied.
        """
        return self._run(self._start(state), with_states=True)

    def ainvoke(self, state: Mapping[str, Any] | None = None, *, limiter: CapacityLimiter | None = None) -> AsyncEvents:
        """Run the agent in an asynchronous program, on asyncio or trio.

        It has the events of ``invoke``, so it is no coroutine, but is read by
        ``async for event in graph.ainvoke(state)``. It needs ``pip install "the-edge-agent[async]"``.

        Each node runs in a worker thread, with the context variables of the task that reads. Between two nodes no
        thread is held. The event loop is never blocked: states are copied in the threads too. An action that is a
        coroutine function is awaited on the event loop, while the thread of its node waits.

        If the task is cancelled, the node that runs is awaited to its end, so that its writes were done or were not.
        Two actions end sooner: an asynchronous one is cancelled, and one of a ``uses`` node that only reads the memory
        is stopped. No other node begins, and then the task ends.

        Args:
            state: as for ``invoke``. It is copied when the first event is read.
            limiter: limits how many nodes run at a time; the others wait without a thread. None means 40 for all runs
                of the event loop; runs inside of actions of other runs have 40 of their own. Such runs must not share a
                limiter with the others, because the others wait for them.

        Returns:
            An asynchronous iterator of events. Its method ``aclose`` ends the run after the present node.

        Raises:
            ImportError: anyio is missing.
            NodeError: a node failed; raised while the iterator is read.
            WorkflowError: the input is not a dict whose keys are text, or cannot be copied; raised while the iterator
                is read.
        """
        return self._asynchronous(state, limiter, with_states=False)

    def astream(self, state: Mapping[str, Any] | None = None, *, limiter: CapacityLimiter | None = None) -> AsyncEvents:
        """Run the agent in an asynchronous program and return the state after each node, as ``stream`` does.

        Args:
            state: as for ``ainvoke``.
            limiter: as for ``ainvoke``.

        Returns:
            An asynchronous iterator of the events of ``stream``; otherwise as ``ainvoke``.

        Raises:
            ImportError: anyio is missing.
            NodeError: as for ``ainvoke``.
            WorkflowError: as for ``ainvoke``.
        """
        return self._asynchronous(state, limiter, with_states=True)

    def _asynchronous(
        self, state: Mapping[str, Any] | None, limiter: CapacityLimiter | None, *, with_states: bool
    ) -> AsyncEvents:
        from the_edge_agent.workflow.aio import AsyncEvents  # here, because other programs do not need anyio

        def begin() -> Iterator[Event]:
            return self._run(self._start(state), with_states=with_states)

        return AsyncEvents(begin, with_states=with_states, limiter=limiter)

    def _start(self, state: Mapping[str, Any] | None) -> State:
        updates = {} if state is None else state
        if not isinstance(updates, Mapping):
            raise WorkflowError(f"the input state must be a dict, not {type(updates).__name__}")
        for key in updates:
            if not isinstance(key, str):
                raise WorkflowError(f"the keys of the input state must be text, not {key!r}")
        try:
            return dict(copied({**self._agent.initial_state, **updates}))
        except Exception as error:
            raise WorkflowError(f"the input state can't be copied: {describe(error)}") from error

    def _run(self, state: State, *, with_states: bool) -> Iterator[Event]:
        """Run the agent, node by node.

        Args:
            state: the state at the beginning, which is changed.
            with_states: whether the states of the events after each node are shown to the program.
        """
        work = None if self._agent.is_trusted else Work(budget.MAX_RUN_WORK)
        run = Run(self._agent.llm)
        walk = Walk(self._agent, self._router, self._runner, run, state, work, with_states)
        try:
            yield from walk.events()
        except NodeError as error:
            if self._agent.raises:
                raise
            yield {"type": "error", "node": error.node, **failure_of(error), "state": walk.state}
            return
        yield {"type": "final", "state": walk.state}
