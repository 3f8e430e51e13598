"""The classes of a checked agent: the agent, its nodes and their bodies, and what leads from node to node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.code import RunCode
from the_edge_agent.workflow.errors import Place
from the_edge_agent.workflow.templates import RESULTS, Renderer

START: Final = "__start__"
END: Final = "__end__"
ERROR: Final = "__error__"  # the key of the state that gets the last failure after which a run went on
MAX_CONCURRENCY: Final = 5  # branches that run at a time, if the file does not say how many
LONGEST_WAIT: Final = 300.0  # seconds between two attempts

Condition: TypeAlias = Callable[[Mapping[str, Any], Work | None], bool]
"""Takes the values of the names, and the work that the run has left (None if it has no limit)."""


@dataclass(frozen=True)
class RunBody:
    """The Python code of a node.

    Attributes:
        code: the compiled text.
        line_before: the number of the line before the code in its file; 0 if the agent was not read from a file.
    """

    code: RunCode
    line_before: int


@dataclass(frozen=True)
class UsesBody:
    """The action of a node.

    Attributes:
        action: the name of the action in the registry.
        arguments: a renderer for each argument.
        output: the key of the state that gets the result, or a renderer for each key of the state. None merges the
            result into the state.
    """

    action: str
    arguments: dict[str, Renderer]
    output: str | dict[str, Renderer] | None


@dataclass(frozen=True)
class ExpressionBody:
    """An expression whose value a node puts into the state.

    Attributes:
        render: computes the value.
        output: the key of the state that gets it.
    """

    render: Renderer
    output: str


@dataclass(frozen=True)
class FunctionBody:
    """A function of a program. It takes the state and returns a dict of updates, or None.

    Attributes:
        call: takes the values that the function may ask for, by name.
    """

    call: Callable[[Mapping[str, Any]], Any]


Body: TypeAlias = RunBody | UsesBody | ExpressionBody | FunctionBody


@dataclass(frozen=True)
class Retry:
    """How often a node is tried.

    Attributes:
        attempts: how often in all.
        backoff: the seconds before the second attempt. The wait doubles with each further one.
        on: the error types after which the node is tried again; empty for all.
    """

    attempts: int = 1
    backoff: float = 0.0
    on: frozenset[str] = frozenset()

    def wait_after(self, attempt: int, error_type: str) -> float | None:
        """Return the seconds before the next attempt, or None if there is none.

        Args:
            attempt: the number of the attempt that failed, counted from 1.
            error_type: how it failed.
        """
        if attempt >= self.attempts or (self.on and error_type not in self.on):
            return None
        return min(self.backoff * 2.0 ** (attempt - 1), LONGEST_WAIT)


@dataclass(frozen=True)
class Node:
    """One step of an agent.

    Attributes:
        name: the name of the node.
        body: what it does.
        place: where it was written.
        retry: how often it is tried.
        goes_on: whether the run goes on after it failed.
        fallback: the node that runs after it failed; None if there is none.
        fan_in: whether branches end before it. It then knows ``parallel_results``.
    """

    name: str
    body: Body
    place: Place
    retry: Retry = Retry()
    goes_on: bool = False
    fallback: str | None = None
    fan_in: bool = False

    @property
    def handles_failures(self) -> bool:
        """Whether a failed attempt does not end the run."""
        return self.goes_on or self.fallback is not None or self.retry.attempts > 1


class Way(Protocol):
    """One way that may lead on from a node."""

    @property
    def shown(self) -> str:
        """The way, for messages."""
        ...

    @property
    def place(self) -> Place:
        """Where the way was written."""
        ...

    def target(self, values: Mapping[str, Any], work: Work | None) -> str | None:
        """Return the name of the next node, or None if this way does not lead on now.

        Args:
            values: the values of the names in conditions.
            work: the work that the run has left; None if it has no limit.

        Raises:
            TemplateError: the condition cannot be evaluated.
        """
        ...


@dataclass(frozen=True)
class Edge:
    """A way to one node.

    Attributes:
        to: the name of the node, or ``__end__``.
        place: where it was written.
        condition: decides whether the edge leads on; None means always.
        text: the condition as it was written.
    """

    to: str
    place: Place
    condition: Condition | None = None
    text: str = ""

    @property
    def shown(self) -> str:
        """The condition and the node, for messages."""
        return f"`{self.text}` (to `{self.to}`)"

    def target(self, values: Mapping[str, Any], work: Work | None) -> str | None:
        """Return the name of the next node if the condition is true."""
        return self.to if self.condition is None or self.condition(values, work) else None


@dataclass(frozen=True)
class Fork:
    """Several edges that are taken at the same time. It leads to the node where the branches meet.

    Attributes:
        to: the name of that node.
        branches: the edges to the first nodes of the branches.
    """

    to: str
    branches: tuple[Edge, ...]

    @property
    def place(self) -> Place:
        """Where the first of the edges was written."""
        return self.branches[0].place

    @property
    def shown(self) -> str:
        """The conditions of the branches, for messages."""
        return ", ".join(edge.shown for edge in self.branches)

    def taken(self, values: Mapping[str, Any], work: Work | None) -> tuple[Edge, ...]:
        """Return the edges whose conditions are true."""
        return tuple(edge for edge in self.branches if edge.target(values, work) is not None)

    def target(self, values: Mapping[str, Any], work: Work | None) -> str | None:
        """Return the node where the branches meet, if there are any."""
        return self.to if self.taken(values, work) else None


@dataclass(frozen=True)
class Agent:
    """A checked agent file.

    Attributes:
        name: the name of the agent; empty if the file gives none.
        variables: values that are the same for every run, with environment variables expanded.
        initial_state: the state of a run before the input is added.
        ltm: the part of ``settings`` that configures the memory; None if there is none.
        ltm_place: where this part was written.
        nodes: the nodes by name, in the order in which they were written.
        llm: the part of ``settings`` that configures language models, checked, with environment variables expanded.
        ways: for ``__start__`` and each node the ways that may lead on. The first that does is taken.
        is_trusted: whether the file may run code. If not, each run has a limit of work.
        version: the version of the agent; empty if the file gives none.
        declared: the keys of ``state_schema``.
        raises: whether a failed node raises; otherwise it ends the run with an event.
        settings: the part of ``settings`` that templates may see.
        secrets: secrets of the host, by name.
        env: the environment variables that the file may read.
        max_concurrency: how many branches of one fan-out run at a time.
    """

    name: str
    variables: dict[str, Any]
    initial_state: dict[str, Any]
    ltm: dict[str, Any] | None
    ltm_place: Place
    nodes: dict[str, Node]
    ways: dict[str, tuple[Way, ...]]
    llm: dict[str, Any]
    is_trusted: bool
    version: str = ""
    declared: tuple[str, ...] = ()
    raises: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    max_concurrency: int = MAX_CONCURRENCY
    unset: dict[str, None] = field(init=False)

    def __post_init__(self) -> None:
        """Make a null for each declared key, for the states that templates see."""
        object.__setattr__(self, "unset", dict.fromkeys(self.declared))

    def names(self, state: dict[str, Any], results: Sequence[Any] = ()) -> dict[str, Any]:
        """Return the values of the names that templates and conditions know. A declared key that is not set is null."""
        seen = {**self.unset, **state} if self.unset else state
        return {
            "state": seen,
            "data": seen,
            "variables": self.variables,
            "settings": self.settings,
            "secrets": self.secrets,
            "env": self.env,
            RESULTS: results,
        }
