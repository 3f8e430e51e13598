"""CompiledGraph: a loaded agent that can be run. Its nodes run in order and change a state, which is a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from the_edge_agent.workflow import budget
from the_edge_agent.workflow.actions.registry import Action, Actions, call_action, stoppable
from the_edge_agent.workflow.budget import BudgetError, Work
from the_edge_agent.workflow.code import CodeError, frames_of
from the_edge_agent.workflow.errors import ActionError, NodeError, Place, WorkflowError, describe, one_line
from the_edge_agent.workflow.logs import log_frames, logged
from the_edge_agent.workflow.model import Agent, Node, RunBody, UsesBody
from the_edge_agent.workflow.templates import Renderer, TemplateError

if TYPE_CHECKING:
    from anyio import CapacityLimiter

    from the_edge_agent.workflow.aio import AsyncEvents

State = dict[str, Any]
Event = dict[str, Any]

_LONGEST = 500  # characters of a message; the line number comes after it and must stay visible


class CompiledGraph:
    """A loaded agent, which ``YAMLEngine.load_from_file`` returns.

    It has no state between runs, so one graph may run many times, also in several threads at once. It uses the memory
    of the engine that loaded it. When the engine is closed, actions that need the memory fail.
    """

    def __init__(self, agent: Agent, actions: Mapping[str, Action]) -> None:
        """Make a graph of a checked agent. Programs get graphs from ``YAMLEngine``."""
        self._agent = agent
        self._actions = actions

    @property
    def name(self) -> str:
        """The name of the agent in its file; empty if it has none."""
        return self._agent.name

    def invoke(self, state: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """Run the agent.

        Args:
            state: the input. Its keys are added to the file's ``initial_state`` or replace those there. It is copied
                and never changed.

        Returns:
            An iterator of events. The agent runs while the iterator is read. So far there is one event,
            ``{"type": "final", "state": {...}}``.

        Raises:
            NodeError: a node failed; raised while the iterator is read.
            WorkflowError: the input is not a dict whose keys are text, or cannot be copied.
        """
        return (event for event in self.stream(state) if event["type"] == "final")

    def stream(self, state: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """Run the agent and return the state after each node.

        Args:
            state: as for ``invoke``.

        Returns:
            An iterator of events: ``{"type": "state", "node": name, "state": {...}}`` after each node, then
            ``{"type": "final", "state": {...}}``. The states are copies.

        Raises:
            NodeError: a node failed; raised while the iterator is read.
            WorkflowError: the input is not a dict whose keys are text, or cannot be copied.
        """
        return self._run(self._start(state))

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
        return self._asynchronous(state, limiter, only_final=True)

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
        return self._asynchronous(state, limiter, only_final=False)

    def _asynchronous(
        self, state: Mapping[str, Any] | None, limiter: CapacityLimiter | None, *, only_final: bool
    ) -> AsyncEvents:
        from the_edge_agent.workflow.aio import AsyncEvents  # here, because other programs do not need anyio

        return AsyncEvents(lambda: self.stream(state), only_final=only_final, limiter=limiter)

    def _start(self, state: Mapping[str, Any] | None) -> State:
        updates = {} if state is None else state
        if not isinstance(updates, Mapping):
            raise WorkflowError(f"the input state must be a dict, not {type(updates).__name__}")
        for key in updates:
            if not isinstance(key, str):
                raise WorkflowError(f"the keys of the input state must be text, not {key!r}")
        try:
            return deepcopy({**self._agent.initial_state, **updates})
        except Exception as error:
            raise WorkflowError(f"the input state can't be copied: {describe(error)}") from error

    def _run(self, state: State) -> Iterator[Event]:
        # Each step may run in another thread and context, and any `yield` may be the last: no `with` goes around one.
        work = None if self._agent.is_trusted else Work(budget.MAX_RUN_WORK)
        for node in self._agent.nodes:
            with logged("node", node.name):
                state = self._step(node, state, work)
            yield {"type": "state", "node": node.name, "state": deepcopy(state)}
        yield {"type": "final", "state": state}

    def _step(self, node: Node, state: State, work: Work | None) -> State:
        """Run a node and return the state after it. The node may change the dict ``state``."""
        body = node.body
        after = self._run_code(node, body, state) if isinstance(body, RunBody) else self._use(node, body, state, work)
        if work is not None:
            _pay(node, work.weigh_state, after)
        try:
            return deepcopy(after)  # here, so that the error names the node that made an object without a copy
        except Exception as error:
            message = f"it left something in the state that can't be copied: {describe(error)}"
            raise NodeError(node.name, message, error_type=type(error).__name__, place=node.place) from error

    def _run_code(self, node: Node, body: RunBody, state: State) -> State:
        names = {
            "state": state,
            "variables": deepcopy(self._agent.variables),
            "actions": Actions(self._actions, state),
        }
        try:
            updates = body.code.run(names)
        except CodeError as error:
            log_frames(node.name, partial(self._frames, error))
            place, line = node.place, ""
            if error.line is not None and place.line is not None:
                place = Place(place.source, place.path, body.line_before + error.line, 1)
            elif error.line is not None:
                line = f" (line {error.line} of its `run`)"
            raise NodeError(
                node.name, f"{one_line(str(error), _LONGEST)}{line}", error_type=error.kind, place=place
            ) from error.__cause__
        return {**state, **updates}

    def _frames(self, error: CodeError) -> list[str]:
        """Return the frames of user code of a failure, with the lines of the agent's file."""
        codes = {
            node.body.code.filename: (node.place.source, node.body.line_before if node.place.line is not None else 0)
            for node in self._agent.nodes
            if isinstance(node.body, RunBody)
        }
        return [] if error.__cause__ is None else frames_of(error.__cause__, codes)

    def _use(self, node: Node, body: UsesBody, state: State, work: Work | None) -> State:
        values = {"state": state, "variables": self._agent.variables}
        arguments = {key: _render(node, f"with.{key}", render, values, work) for key, render in body.arguments.items()}
        if work is not None:
            _pay(node, work.weigh, arguments)  # an action reads all of its arguments
        try:
            with stoppable(self._actions, body.action, arguments):
                result = call_action(self._actions, body.action, state, **arguments)
        except ActionError as error:
            raise NodeError(node.name, error.message, error_type=error.error_type, place=node.place) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: an action must not end the program
            message = f"`{body.action}` failed: {describe(error)}"
            raise NodeError(node.name, message, error_type=type(error).__name__, place=node.place) from error
        if work is not None:
            _pay(node, work.weigh, result)  # a result has new texts, which may stay in the state
        if isinstance(body.output, str):
            return {**state, body.output: result}
        if body.output is not None:
            values["result"] = result
            rendered = {
                key: _render(node, f"output.{key}", render, values, work) for key, render in body.output.items()
            }
            return {**state, **rendered}
        if not isinstance(result, dict) or not all(isinstance(key, str) for key in result):
            message = f"`{body.action}` gave no dict to merge into the state: name it with `output`"
            raise NodeError(node.name, message, error_type="TypeError", place=node.place)
        return {**state, **result}


def _pay(node: Node, pay: Callable[[Any], None], value: Any) -> None:
    try:
        pay(value)
    except BudgetError as error:
        message = "the nodes up to this one did too much, with too large a state or too large values"
        raise NodeError(node.name, message, error_type="budget_error", place=node.place) from error


def _render(node: Node, where: str, render: Renderer, values: Mapping[str, Any], work: Work | None) -> Any:
    try:
        return render(values, work)
    except TemplateError as error:
        message = f"`{where}`: {error}"
        raise NodeError(node.name, message, error_type="template_error", place=node.place) from None
