"""``Router``: decides which node runs next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.errors import NodeError, Place, WorkflowError, describe, nearest
from the_edge_agent.workflow.model import END, START, Agent, Edge, Fork
from the_edge_agent.workflow.templates import TemplateError


class Router:
    """Decides which node of an agent runs next. It keeps nothing of a run, so several threads may use it."""

    def __init__(self, agent: Agent) -> None:
        """Make the router of one agent."""
        self._agent = agent

    def next(
        self, at: str, state: dict[str, Any], work: Work | None, results: Sequence[Any] = ()
    ) -> tuple[str, tuple[Edge, ...]]:
        """Return the name of the node after ``at``, or ``__end__``. The first way that leads on is taken.

        Args:
            at: the node that has run, or ``__start__``.
            state: the state after it.
            work: the work that the run has left; None if it has no limit.
            results: what the branches of the last fan-out have left.

        Returns:
            The name, and the branches that run before that node.

        Raises:
            NodeError: no way leads on, or a condition cannot be evaluated.
        """
        ways = self._agent.ways.get(at, ())
        names = self._agent.names(state, results)
        for way in ways:
            try:
                branches: tuple[Edge, ...] = ()
                if isinstance(way, Fork):
                    branches = way.taken(names, work)
                    target = way.to if branches else None
                else:
                    target = way.target(names, work)
            except TemplateError as error:
                message = f"the condition {way.shown}: {error}"
                raise NodeError(at, message, error_type="template_error", place=way.place) from None
            except WorkflowError as error:
                message = f"the condition {way.shown}: {error}"
                raise NodeError(at, message, error_type="routing_error", place=way.place) from None
            except Exception as error:  # such as the truth of an array
                message = f"the condition {way.shown}: {describe(error)}"
                raise NodeError(at, message, error_type=type(error).__name__, place=way.place) from error
            if target is not None and target != END and target not in self._agent.nodes:
                message = f"there is no node `{target}`{nearest(target, self._agent.nodes)}"
                raise NodeError(at, message, error_type="routing_error", place=way.place)
            if target is not None:
                return target, branches
        if not ways:
            raise NodeError(at, "no edge leads on from it", error_type="routing_error", place=self._place(at))
        tried = ", ".join(way.shown for way in ways)
        message = f"no way leads on, because no condition is true: {tried}; add one without a condition"
        raise NodeError(at, message, error_type="routing_error", place=self._place(at))

    def _place(self, at: str) -> Place:
        if at == START:
            return next((way.place for way in self._agent.ways.get(START, ())), Place())
        return self._agent.nodes[at].place
