"""``Walk``: runs nodes one after the other, from a beginning to an end. A run is a walk, and so is each branch."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Final

from the_edge_agent.workflow.budget import BudgetError, Work
from the_edge_agent.workflow.copies import copied
from the_edge_agent.workflow.errors import NodeError, describe
from the_edge_agent.workflow.logs import log_branch
from the_edge_agent.workflow.model import END, START, Agent, Edge
from the_edge_agent.workflow.parallel import BranchResult, Emit, Event, Job, Stop, Stopped, fan_out
from the_edge_agent.workflow.routing import Router
from the_edge_agent.workflow.running import Runner, State
from the_edge_agent.workflow.runs import Run, running

_DEEPEST: Final = 10  # fan-outs within branches; a graph of functions could go on for ever


@dataclass
class Walk:
    """One walk along the nodes of an agent. One thread uses it.

    Attributes:
        agent: the agent.
        router: decides which node follows.
        runner: runs the nodes.
        run: the run that the walk belongs to.
        state: the state at the beginning, and then after each node.
        work: the work that is left; None if it has no limit.
        with_states: whether the states of the events are shown to a program.
        until: the node before which the walk ends; it ends at ``__end__`` too.
        stop: ends a branch before its next node; None for a walk that is no branch.
        depth: within how many branches the walk is.
        results: what the branches of the last fan-out have left.
    """

    agent: Agent
    router: Router
    runner: Runner
    run: Run
    state: State
    work: Work | None
    with_states: bool
    until: str = END
    stop: Stop | None = None
    depth: int = 0
    results: list[BranchResult] = field(default_factory=list)

    def events(self, begin: str = START) -> Iterator[Event]:
        """Run the nodes.

        Args:
            begin: the first node, or ``__start__`` for the node that follows the start.

        Returns:
            An iterator of the events of the nodes and of branches. The nodes run while it is read.

        Raises:
            NodeError: a node failed.
            Stopped: ``stop`` was set.
        """
        # Each step may run in another thread and context, and any `yield` may be the last: no `with` goes around one.
        at, ahead = START, None if begin == START else begin
        while True:
            branches: tuple[Edge, ...] = ()
            before = at
            if ahead is not None:
                at = ahead
            else:
                at, branches = self.router.next(at, self.state, self.work, self.results)
            if at in (END, self.until):
                return
            if branches:
                self.results = yield from self._fan_out(before, branches, at)
            if self.stop is not None:
                self.stop.pause(0)
            with running(self.run, at):
                step = self.runner.run(
                    self.agent.nodes[at],
                    self.state,
                    self.work,
                    with_states=self.with_states,
                    results=self.results,
                    pause=None if self.stop is None else self.stop.pause,
                )
            self.state, ahead = step.state, step.goto
            yield {"type": "state", "node": at, "state": step.shown, **failure_of(step.error)}

    def _fan_out(self, at: str, branches: Sequence[Edge], join: str) -> Generator[Event, None, list[BranchResult]]:
        """Run the branches that lead from ``at`` to the node ``join``."""
        if self.depth == _DEEPEST:
            message = f"branches are nested more than {_DEEPEST} deep: a branch must not lead to its own beginning"
            raise NodeError(at, message, error_type="routing_error", place=branches[0].place)
        works = [None] * len(branches) if self.work is None else self.work.split(len(branches))
        stop = Stop(self.stop)
        jobs: list[Job] = [
            partial(self._branch, edge.to, join, work) for edge, work in zip(branches, works, strict=True)
        ]
        results = yield from fan_out(jobs, limit=self.agent.max_concurrency, stop=stop)
        if self.work is not None:
            self.work.take_back(work for work in works if work is not None)
        return results

    def _branch(self, name: str, join: str, work: Work | None, stop: Stop, emit: Emit) -> BranchResult:
        """Run one branch in its thread."""
        began = perf_counter()
        walk = replace(self, work=work, until=join, stop=stop, depth=self.depth + 1, results=[])
        error: NodeError | None = None
        try:
            stop.pause(0)
            walk.state = self._copy(name, work)
            for event in walk.events(name):
                if self.with_states:
                    is_own = event["type"] == "state"
                    emit({**event, "type": "parallel_state", "branch": name} if is_own else event)
        except NodeError as failure:
            error = failure
        except Stopped:
            error = NodeError(name, "it was stopped", error_type="stopped")
        result = BranchResult(
            branch=name,
            success=error is None,
            state=walk.state,
            error=None if error is None else str(error),
            error_type=None if error is None else error.error_type,
            timing_ms=round((perf_counter() - began) * 1000, 3),
        )
        if error is not None:
            log_branch(name, error.error_type)
        if error is not None and self.with_states:
            failed = {"node": error.node, "branch": name, "state": copied(walk.state), **failure_of(error)}
            emit({"type": "parallel_error", **failed})
        if self.with_states:
            ended = {key: result[key] for key in ("branch", "success", "error", "timing_ms")}
            emit({"type": "branch_complete", "fan_in": join, **ended})
        return result

    def _copy(self, branch: str, work: Work | None) -> State:
        try:
            if work is not None:
                work.weigh_state(self.state)
            return dict(copied(self.state))
        except BudgetError:
            message = "the nodes up to this one did too much, with too large a state"
            raise NodeError(branch, message, error_type="budget_error") from None
        except Exception as error:
            message = f"the state can't be copied for the branch: {describe(error)}"
            raise NodeError(branch, message, error_type=type(error).__name__) from error


def failure_of(error: NodeError | None) -> dict[str, Any]:
    """Return what an event says about a failure."""
    return {} if error is None else {"error": str(error), "error_type": error.error_type}
