"""``StateGraph``: a graph whose nodes are functions of a program. It runs on the engine of the YAML agents."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from the_edge_agent.workflow.actions.registry import awaited
from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.errors import Place, WorkflowError, nearest
from the_edge_agent.workflow.graph import CompiledGraph
from the_edge_agent.workflow.model import END, START, Agent, Edge, FunctionBody, Node, Way

_GIVEN: Final = ("state", "config", "node", "graph")
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class _Switch:
    """A way that a function chooses.

    Attributes:
        at: the node from which it leads.
        call: calls the function, with the values that it may ask for.
        targets: the nodes by what the function returns; None if it returns the name of a node.
    """

    at: str
    call: Callable[[Mapping[str, Any]], Any]
    targets: Mapping[Any, str] | None

    @property
    def place(self) -> Place:
        """No place, because the way was not read from a file."""
        return Place()

    @property
    def shown(self) -> str:
        """The choices, for messages."""
        return "of the function" if self.targets is None else f"of the function, one of {[*self.targets]}"

    def target(self, values: Mapping[str, Any], work: Work | None) -> str | None:
        """Return the node that the function chooses."""
        answer = self.call({"state": values["state"], "config": {}, "node": self.at})
        if self.targets is None:
            return str(answer)
        if answer not in self.targets:
            raise WorkflowError(f"the function returned {answer!r}")
        return self.targets[answer]


class StateGraph(CompiledGraph):
    """A graph whose nodes are functions of a program.

    Its methods add nodes, and edges between them. It can run as soon as it has nodes, an entry point and a finish
    point; ``compile`` checks this first. It has the methods of ``CompiledGraph``, such as ``invoke``, ``stream``,
    ``ainvoke`` and ``astream``.

    One thread builds a graph. Then several threads may run it.

    Examples:
        >>> from the_edge_agent import StateGraph
        >>> graph = StateGraph({"n": int})
        >>> graph.add_node("double", run=lambda state: {"n": state["n"] * 2})
        >>> graph.set_entry_point("double")
        >>> graph.add_conditional_edges("double", lambda state: state["n"] < 10, {True: "double", False: END})
        >>> list(graph.compile().invoke({"n": 3}))
        [{'type': 'final', 'state': {'n': 12}}]

    Attributes:
        state_schema: the keys of the state and their types. They are for readers: values are not checked.
        raise_exceptions: whether a failed node raises NodeError. Otherwise it ends the run with an ``error`` event.
    """

    def __init__(self, state_schema: Mapping[str, Any] | type | None = None, *, raise_exceptions: bool = False) -> None:
        """Make a graph without nodes.

        Args:
            state_schema: the keys of the state with their types, or a ``TypedDict`` class.
            raise_exceptions: True raises NodeError if a node fails. False yields a last event
                ``{"type": "error", "node": ..., "error": ..., "error_type": ..., "state": ...}``.
        """
        self.state_schema = {} if state_schema is None else state_schema
        self.raise_exceptions = raise_exceptions
        super().__init__(
            Agent(
                name="",
                variables={},
                initial_state={},
                ltm=None,
                ltm_place=Place(),
                nodes={},
                ways={},
                llm={},
                is_trusted=True,
                raises=raise_exceptions,
            ),
            {},
        )

    def add_node(self, node: str, run: Callable[..., Any] | None = None) -> None:
        """Add a node.

        Args:
            node: its name.
            run: a function that returns a dict of updates of the state, or None. It gets those of ``state``,
                ``config`` (an empty dict), ``node`` (the name) and ``graph`` that are among its parameters; a single
                parameter with another name gets the state. A coroutine function needs ``ainvoke`` or ``astream``.
                None makes a node that does nothing.

        Raises:
            ValueError: there is such a node, the name is not allowed, or the function has other parameters.
        """
        if not isinstance(node, str) or not node.strip() or node in (START, END):
            raise ValueError(f"{node!r} can't be the name of a node")
        if node in self._agent.nodes:
            raise ValueError(f"there is already a node {node!r}")
        body = FunctionBody(self._caller(node, run) if run is not None else lambda values: None)
        self._use_agent(replace(self._agent, nodes={**self._agent.nodes, node: Node(node, body, Place())}))

    def add_edge(self, in_node: str, out_node: str) -> None:
        """Add an edge without a condition.

        Args:
            in_node: the node from which it leads, or ``START``.
            out_node: the node to which it leads, or ``END``.

        Raises:
            ValueError: there is no such node.
        """
        self._add_way(in_node, Edge(self._named(out_node, END), Place(), text="always"))

    def add_conditional_edges(
        self, in_node: str, func: Callable[..., Any], cond: Mapping[Any, str] | None = None
    ) -> None:
        """Let a function choose which node follows.

        Args:
            in_node: the node from which the edges lead, or ``START``.
            func: a function with parameters as those of a node's function.
            cond: the nodes, or ``END``, by what the function returns. None if it returns the name of a node.

        Raises:
            ValueError: there is no such node, or the function has other parameters.
        """
        targets = None if cond is None else {answer: self._named(to, END) for answer, to in cond.items()}
        self._add_way(in_node, _Switch(in_node, self._caller(in_node, func), targets))

    def set_entry_point(self, init_state: str) -> None:
        """Begin each run with a node.

        Raises:
            ValueError: there is no such node.
        """
        self.add_edge(START, init_state)

    def set_finish_point(self, final_state: str) -> None:
        """End the run after a node.

        Raises:
            ValueError: there is no such node.
        """
        self.add_edge(final_state, END)

    def compile(self) -> StateGraph:
        """Check the graph and return it.

        Raises:
            ValueError: there is no entry point, a node leads nowhere, or a node has edges that are never taken, because
                an edge before them has no condition.
        """
        if START not in self._agent.ways:
            raise ValueError("the graph has no entry point: call set_entry_point")
        for node in self._agent.nodes:
            if node not in self._agent.ways:
                raise ValueError(f"no edge leads on from the node {node!r}: call add_edge or set_finish_point")
        for node, ways in self._agent.ways.items():
            for way in ways[:-1]:
                if isinstance(way, Edge):
                    raise ValueError(f"edges of {node!r} are never taken, because the one to {way.to!r} comes first")
        return self

    def _add_way(self, at: str, way: Way) -> None:
        ways = self._agent.ways
        at = self._named(at, START)
        self._use_agent(replace(self._agent, ways={**ways, at: (*ways.get(at, ()), way)}))

    def _named(self, name: str, other: str) -> str:
        if name != other and name not in self._agent.nodes:
            raise ValueError(f"there is no node {name!r}{nearest(str(name), self._agent.nodes)}")
        return name

    def _caller(self, node: str, function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
        """Return what calls a function with the values that it asks for."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # a callable without a signature
            return lambda values: function(values["state"])
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        names = [parameter.name for parameter in parameters if parameter.name in _GIVEN]
        others = [
            parameter
            for parameter in parameters
            if parameter.name not in _GIVEN
            and parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        is_state = len(others) == 1 and others[0] is parameters[0] and others[0].kind in _POSITIONAL
        if others and (not is_state or "state" in names):
            raise ValueError(f"the function of {node!r} has the parameter {others[-1].name!r}; it may have {_GIVEN}")

        def call(values: Mapping[str, Any]) -> Any:
            given = {**values, "graph": self}
            named = given if takes_all and not others else {name: given[name] for name in names}
            answer = function(*((values["state"],) if others else ()), **named)
            return awaited(node, answer) if inspect.isawaitable(answer) else answer

        return call
