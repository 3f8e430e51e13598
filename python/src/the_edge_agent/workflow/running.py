"""``Runner``: runs one node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import sleep
from typing import Any, TypeAlias

from the_edge_agent.workflow import budget
from the_edge_agent.workflow.actions.registry import Action, Actions, call_action, stoppable
from the_edge_agent.workflow.budget import BudgetError, Work
from the_edge_agent.workflow.code import CodeError, frames_of
from the_edge_agent.workflow.copies import copied
from the_edge_agent.workflow.errors import ActionError, NodeError, Place, describe, one_line
from the_edge_agent.workflow.logs import log_frames, logged
from the_edge_agent.workflow.model import ERROR, Agent, ExpressionBody, FunctionBody, Node, RunBody, UsesBody
from the_edge_agent.workflow.templates import RESULTS, Renderer, TemplateError

State: TypeAlias = dict[str, Any]

_LONGEST = 500  # characters of a message; the line number comes after it and must stay visible


@dataclass(frozen=True)
class Step:
    """What a node has done.

    Attributes:
        state: the state after it, with which the run goes on.
        shown: the same state for an event. The program that gets it may change it if it asked for states.
        error: the failure after which the run goes on; None if the node succeeded.
        goto: the node that runs next because of the failure; None if the ways of the node decide.
    """

    state: State
    shown: State
    error: NodeError | None = None
    goto: str | None = None


class Runner:
    """Runs single nodes of an agent. It keeps nothing of a run, so several threads may use it."""

    def __init__(self, agent: Agent, actions: Mapping[str, Action]) -> None:
        """Make the runner of one agent, with the actions that its nodes may use."""
        self._agent = agent
        self._actions = actions

    def run(
        self,
        node: Node,
        state: State,
        work: Work | None,
        *,
        with_states: bool,
        results: Sequence[Any] = (),
        pause: Callable[[float], None] | None = None,
    ) -> Step:
        """Run a node.

        Args:
            node: the node.
            state: the state before it. The node may change the objects in it.
            work: the work that the run has left; None if it has no limit.
            with_states: whether a program gets the state after the node. If so the whole state is copied, otherwise
                only what the node has put into it.
            results: what the branches of the last fan-out have left. The node may change them.
            pause: waits for a number of seconds before another attempt; None sleeps.

        Raises:
            NodeError: the node failed.
        """
        attempt = 1
        while True:
            if work is not None:
                _pay(node, work.charge, budget.VISIT)
            try:
                with logged("node", node.name):
                    before = copied(state) if node.handles_failures else state  # code may change it, and then fail
                    left = copied(results) if node.fan_in and (node.handles_failures or with_states) else results
                    updates = self._updates(node, before, work, left)
                    return self._step(node, before, updates, work, with_states=with_states)
            except NodeError as error:
                wait = node.retry.wait_after(attempt, error.error_type)
                if wait is None:
                    if node.goes_on or node.fallback is not None:
                        return self._failed(node, state, error, work, with_states=with_states)
                    raise
            if work is not None:
                _pay(node, work.charge, int(wait * budget.SECOND))
            (pause or sleep)(wait)
            attempt += 1

    def _step(
        self, node: Node, before: State, updates: dict[str, Any], work: Work | None, *, with_states: bool
    ) -> Step:
        after = {**before, **updates}
        if work is not None:
            _pay(node, work.weigh_state, after)
        try:  # here, so that the error names the node that made an object without a copy
            if with_states:
                return Step(copied(after), after)
            after.update(copied(updates))
            return Step(after, after)
        except Exception as error:
            message = f"it left something in the state that can't be copied: {describe(error)}"
            raise NodeError(node.name, message, error_type=type(error).__name__, place=node.place) from error

    def _failed(self, node: Node, state: State, error: NodeError, work: Work | None, *, with_states: bool) -> Step:
        """Return the step of a node that failed, after which the run goes on. An action's output is its failure."""
        updates: dict[str, Any] = {ERROR: {"node": node.name, "type": error.error_type, "message": error.message}}
        if isinstance(node.body, UsesBody):
            failure = {"success": False, "error": error.message, "error_type": error.error_type}
            cause = error.__cause__
            result = cause.result if isinstance(cause, ActionError) else failure
            if isinstance(node.body.output, str):
                updates[node.body.output] = result
            elif node.body.output is None:
                updates |= result
        step = self._step(node, state, updates, work, with_states=with_states)
        return replace(step, error=error, goto=node.fallback)

    def _updates(self, node: Node, state: State, work: Work | None, results: Sequence[Any]) -> dict[str, Any]:
        """Run the body of a node and return what it puts into the state."""
        body = node.body
        if isinstance(body, RunBody):
            return self._run_code(node, body, state, results)
        if isinstance(body, UsesBody):
            return self._use(node, body, self._agent.names(state, results), state, work)
        if isinstance(body, ExpressionBody):
            return {body.output: _render(node, "run.value", body.render, self._agent.names(state, results), work)}
        return _call(node, body, state, results)

    def _run_code(self, node: Node, body: RunBody, state: State, results: Sequence[Any]) -> dict[str, Any]:
        names = {
            "state": state,
            "variables": copied(self._agent.variables),
            "actions": Actions(self._actions, state),
            **({RESULTS: results} if node.fan_in else {}),
        }
        try:
            return body.code.run(names)
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

    def _frames(self, error: CodeError) -> list[str]:
        """Return the frames of user code of a failure, with the lines of the agent's file."""
        codes = {
            node.body.code.filename: (node.place.source, node.body.line_before if node.place.line is not None else 0)
            for node in self._agent.nodes.values()
            if isinstance(node.body, RunBody)
        }
        return [] if error.__cause__ is None else frames_of(error.__cause__, codes)

    def _use(
        self, node: Node, body: UsesBody, values: dict[str, Any], state: State, work: Work | None
    ) -> dict[str, Any]:
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
            return {body.output: result}
        if body.output is not None:
            values["result"] = result
            return {key: _render(node, f"output.{key}", render, values, work) for key, render in body.output.items()}
        if not isinstance(result, dict) or not all(isinstance(key, str) for key in result):
            message = f"`{body.action}` gave no dict to merge into the state: name it with `output`"
            raise NodeError(node.name, message, error_type="TypeError", place=node.place)
        return result


def _call(node: Node, body: FunctionBody, state: State, results: Sequence[Any]) -> dict[str, Any]:
    try:
        updates = body.call({"state": state, "config": {}, "node": node.name, RESULTS: results})
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: a node must not end the program
        raise NodeError(node.name, describe(error), error_type=type(error).__name__, place=node.place) from error
    if updates is None:
        return {}
    if not isinstance(updates, Mapping):
        message = f"its function must return a dict of updates, not {type(updates).__name__}"
        raise NodeError(node.name, message, error_type="TypeError", place=node.place)
    return dict(updates)


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
