"""What an agent file is, once it has been read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from the_edge_agent.workflow.code import RunCode
from the_edge_agent.workflow.errors import Place
from the_edge_agent.workflow.templates import Renderer


@dataclass(frozen=True)
class RunBody:
    """Python code.

    Attributes:
        code: the compiled text.
        line_before: the line of the file before the first one of the code, 0 when there is no file.
    """

    code: RunCode
    line_before: int


@dataclass(frozen=True)
class UsesBody:
    """An action.

    Attributes:
        action: its name in the registry.
        arguments: a renderer for each argument.
        output: the key of the state for the result, or a renderer for each key; None merges the result into
            the state.
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


@dataclass(frozen=True)
class Agent:
    """A checked agent file.

    Attributes:
        name: what the file calls the agent, empty when it does not.
        variables: the same for every run; environment variables are expanded.
        initial_state: what a run's input is laid over.
        ltm: the part of ``settings`` that configures the memory, None when there is none.
        ltm_place: where that part was written.
        nodes: in the order in which they run.
        is_trusted: whether it may run code; otherwise what one run may do is limited.
    """

    name: str
    variables: dict[str, Any]
    initial_state: dict[str, Any]
    ltm: dict[str, Any] | None
    ltm_place: Place
    nodes: tuple[Node, ...]
    is_trusted: bool
