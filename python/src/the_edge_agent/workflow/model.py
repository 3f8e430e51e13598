"""The classes of a checked agent: the agent, its nodes and their bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from the_edge_agent.workflow.code import RunCode
from the_edge_agent.workflow.errors import Place
from the_edge_agent.workflow.templates import Renderer


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


@dataclass(frozen=True)
class Agent:
    """A checked agent file.

    Attributes:
        name: the name of the agent; empty if the file gives none.
        variables: values that are the same for every run, with environment variables expanded.
        initial_state: the state of a run before the input is added.
        ltm: the part of ``settings`` that configures the memory; None if there is none.
        ltm_place: where this part was written.
        nodes: the nodes, in the order in which they run.
        llm: the part of ``settings`` that configures language models, checked, with environment variables expanded.
        is_trusted: whether the file may run code. If not, each run has a limit of work.
    """

    name: str
    variables: dict[str, Any]
    initial_state: dict[str, Any]
    ltm: dict[str, Any] | None
    ltm_place: Place
    nodes: tuple[Node, ...]
    llm: dict[str, Any]
    is_trusted: bool
