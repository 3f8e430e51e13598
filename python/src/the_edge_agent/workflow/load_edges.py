"""Read what leads from node to node: ``edges``, ``goto``, and the order in which nodes are written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from the_edge_agent.workflow.checks import Checker, kind_of, listed
from the_edge_agent.workflow.conditions import compile_condition, negated
from the_edge_agent.workflow.errors import WorkflowFileError, nearest
from the_edge_agent.workflow.model import END, START, Condition, Edge, Node, Way
from the_edge_agent.workflow.reading import Path
from the_edge_agent.workflow.templates import TemplateError

EDGE: Final = ("from", "to", "type", "when", "condition")
EDGE_TYPES: Final = ("normal", "entry", "finish")

_LATER_EDGE: Final = dict.fromkeys(("fan_in", "parallel_strategy", "parallel_config"), "")
_RULE: Final = ("if", "to")
_EXPRESSION: Final = ("type", "value")


class WayReader:
    """Reads the ways between nodes."""

    def __init__(self, checker: Checker, nodes: Mapping[str, Node]) -> None:
        """Read ways of one document.

        Args:
            checker: reads and refuses parts of the document.
            nodes: the nodes of the document, by name.
        """
        self._check = checker
        self._nodes = nodes

    def ways(self, data: dict[str, Any]) -> dict[str, tuple[Way, ...]]:
        """Return for ``__start__`` and each node the ways that may lead on.

        ``goto`` of a node comes before its edges. A node with neither goes on to the next node of the list.
        """
        edges = self._edges(data)
        ways: dict[str, tuple[Way, ...]] = {}
        names = [START, *self._nodes, END]
        for at, following in pairwise(names):
            ways[at] = edges.get(at) or (Edge(following, self._check.document.place(())),)
        for index, node in enumerate(data["nodes"]):
            if "goto" in node:
                ways[node["name"]] = self._goto(("nodes", index, "goto"), node["goto"])
        return ways

    def _edges(self, data: dict[str, Any]) -> dict[str, tuple[Way, ...]]:
        written = data.get("edges")
        if written is None:
            return {}
        if not isinstance(written, list):
            raise self._check.refused(("edges",), f"`edges` must be a list, not {kind_of(written)}", key=True)
        ways: dict[str, tuple[Way, ...]] = {}
        plain: dict[str, Edge] = {}
        for index, item in enumerate(written):
            path: Path = ("edges", index)
            at, edge = self._edge(path, item)
            if at in plain:
                raise self._never_taken(path, at, plain[at], edge)
            if edge.condition is None:
                plain[at] = edge
            ways[at] = (*ways.get(at, ()), edge)
        return ways

    def _edge(self, path: Path, item: Any) -> tuple[str, Edge]:
        if not isinstance(item, dict):
            raise self._check.refused(path, f"an edge is a mapping with `from` and `to`, not {kind_of(item)}")
        if item.get("type") == "parallel":
            raise self._check.refused((*path, "type"), "`type: parallel` is not supported yet")
        self._check.words(path, item, EDGE, later=_LATER_EDGE)
        kind = self._check.choice((*path, "type"), item.get("type", "normal"), EDGE_TYPES)
        at, to = START if kind == "entry" else None, END if kind == "finish" else None
        at = self._end_of_edge(path, item, "from", at)
        to = self._end_of_edge(path, item, "to", to)
        if kind == "entry" and at != START:
            raise self._check.refused(
                (*path, "from"), f"an edge of `type: entry` comes from `{START}`: leave `from` out"
            )
        if kind == "finish" and to != END:
            message = f"an edge of `type: finish` leads to `{END}`: leave `to` out"
            raise self._check.refused((*path, "to"), message)
        condition, text = self._condition_of_edge(path, item)
        return at, Edge(to, self._check.document.place(path), condition, text)

    def _end_of_edge(self, path: Path, item: dict[str, Any], word: str, default: str | None) -> str:
        if word not in item:
            if default is None:
                raise self._check.refused(path, f"an edge needs `{word}`, the name of a node")
            return default
        if isinstance(item[word], list):
            message = f"`{word}` takes one node: write one edge for each node, and `type: parallel` if all shall run"
            raise self._check.refused((*path, word), message)
        return self._node((*path, word), item[word], other=START if word == "from" else END)

    def _node(self, path: Path, value: Any, *, other: str) -> str:
        name = self._check.text(path, value)
        if name != other and name not in self._nodes:
            names = [*self._nodes, other]
            hint = nearest(name, names) or f"; there are {listed(names)}"
            raise self._check.refused(path, f"`{path[-1]}` names the non-existent node `{name}`{hint}")
        return name

    def _condition_of_edge(self, path: Path, item: dict[str, Any]) -> tuple[Condition | None, str]:
        if "condition" not in item:
            return self._condition((*path, "when"), item["when"]) if "when" in item else (None, "")
        condition, text = self._condition((*path, "condition"), item["condition"])
        if "when" not in item:
            return condition, text
        if not isinstance(item["when"], bool):
            message = "beside `condition`, `when` is the result for which the edge is taken: true or false"
            raise self._check.refused((*path, "when"), message)
        return (condition, text) if item["when"] else (negated(condition), f"not ({text})")

    def _condition(self, path: Path, value: Any) -> tuple[Condition, str]:
        if isinstance(value, dict):
            self._check.words(path, value, _EXPRESSION)
            self._check.choice((*path, "type"), value.get("type"), ["expression"])
            path, value = (*path, "value"), value.get("value")
        if isinstance(value, bool):
            value = "true" if value else "false"
        text = self._check.text(path, value)
        try:
            return compile_condition(text), text.strip()
        except TemplateError as error:
            raise self._check.refused(path, f"the condition `{text.strip()}`: {error}") from None

    def _goto(self, path: Path, value: Any) -> tuple[Way, ...]:
        if isinstance(value, str):
            return (Edge(self._node(path, value, other=END), self._check.document.place(path)),)
        if not isinstance(value, list) or not value:
            shown = "an empty list" if value == [] else kind_of(value)
            message = f"`goto` is the name of a node, or a list of `{{if: condition, to: node}}`, not {shown}"
            raise self._check.refused(path, message)
        rules = [self._rule((*path, index), rule) for index, rule in enumerate(value)]
        for index, rule in enumerate(rules[:-1]):
            if rule.condition is None:
                message = "only the last rule of `goto` may have no `if`: those after it would never be reached"
                raise self._check.refused((*path, index), message)
        return tuple(rules)

    def _rule(self, path: Path, rule: Any) -> Edge:
        if not isinstance(rule, dict):
            raise self._check.refused(path, f"a rule of `goto` is a mapping with 'if' and 'to', not {kind_of(rule)}")
        self._check.words(path, rule, _RULE)
        if "to" not in rule:
            raise self._check.refused(path, "a rule of `goto` needs 'to', the name of a node")
        to = self._node((*path, "to"), rule["to"], other=END)
        condition, text = self._condition((*path, "if"), rule["if"]) if "if" in rule else (None, "")
        return Edge(to, self._check.document.place(path), condition, text)

    def _never_taken(self, path: Path, at: str, first: Edge, edge: Edge) -> WorkflowFileError:
        where = f" in line {first.place.line}" if first.place.line is not None else ""
        if edge.condition is None:
            message = (
                f"`{at}` already has an edge without a condition{where}, to `{first.to}`: write `type: parallel` on"
                " edges that are taken at the same time, or `when` on edges of which one is taken"
            )
        else:
            message = (
                f"this edge is never taken, because the edge{where} from `{at}` to `{first.to}` has no condition:"
                " write that one last"
            )
        return self._check.refused(path, message)
