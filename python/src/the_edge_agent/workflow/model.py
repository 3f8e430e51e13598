"""The classes of a checked agent: the agent, its nodes and their bodies, and what leads from node to node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.code import RunCode
from the_edge_agent.workflow.errors import Place
from the_edge_agent.workflow.templates import Renderer

START: Final = "__start__"
END: Final = "__end__"

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


Body: TypeAlias = RunBody | UsesBody


@dataclass(frozen=True)
class Node:
    """One step of an agent."""

    name: str
    body: Body
    place: Place


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
    unset: dict[str, None] = field(init=False)

    def __post_init__(self) -> None:
        """Make a null for each declared key, for the states that templates see."""
        object.__setattr__(self, "unset", dict.fromkeys(self.declared))

    def names(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the values of the names that templates and conditions know. A declared key that is not set is null."""
        seen = {**self.unset, **state} if self.unset else state
        return {"state": seen, "variables": self.variables}
