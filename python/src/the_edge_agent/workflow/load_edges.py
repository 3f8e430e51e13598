"""Read what leads from node to node: ``edges``, ``goto``, and the order in which nodes are written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from the_edge_agent.workflow.checks import Checker, kind_of, listed
from the_edge_agent.workflow.conditions import compile_condition, negated
from the_edge_agent.workflow.errors import WorkflowFileError, nearest
from the_edge_agent.workflow.load_forks import Branches, ForkReader
from the_edge_agent.workflow.model import END, START, Condition, Edge, Fork, Node, Way
from the_edge_agent.workflow.reading import Path
from the_edge_agent.workflow.templates import NAMES, RESULTS, TemplateError

EDGE: Final = ("from", "to", "type", "when", "condition", "fan_in", "parallel_strategy")
EDGE_TYPES: Final = ("normal", "entry", "finish", "parallel")

_LATER_EDGE: Final = {"parallel_config": ": write `settings.parallel`"}
_OTHER_STRATEGIES: Final = ("process", "remote")
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
        self._branches: dict[str, Branches] = {}

    def ways(self, data: dict[str, Any]) -> dict[str, tuple[Way, ...]]:
        """Return for ``__start__`` and each node the ways that may lead on.

        ``goto`` of a node comes before its edges. A node with neither goes on to the next node of the list.
        """
        edges = self._edges(data)
        ways: dict[str, tuple[Way, ...]] = {}
        order = [START, *self._nodes, END]
        implicit = {*order} - {*edges}
        for at, following in pairwise(order):
            ways[at] = edges.get(at) or (Edge(following, self._check.document.place(())),)
        for index, node in enumerate(data["nodes"]):
            if "goto" in node:
                implicit.discard(node["name"])
                names = (*NAMES, RESULTS) if self._nodes[node["name"]].fan_in else NAMES
                ways[node["name"]] = self._goto(("nodes", index, "goto"), node["goto"], names)
        return ForkReader(self._check, self._nodes, ways, self._branches, implicit).ways()

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
            if item.get("type") == "parallel":
                if at in plain:
                    raise self._never_taken(path, at, plain[at], edge)
                if at not in self._branches:
                    ways[at] = (*ways.get(at, ()), Fork("", (edge,)))
                self._add_branch(path, item, at, edge)
                continue
            if at in self._branches and any(branch.condition is None for _, branch in self._branches[at].edges):
                message = f"this edge is never taken, because `{at}` has edges of `type: parallel`: write it first"
                raise self._check.refused(path, f"{message}, with `when`")
            if at in plain:
                raise self._never_taken(path, at, plain[at], edge)
            if edge.condition is None:
                plain[at] = edge
            ways[at] = (*ways.get(at, ()), edge)
        return ways

    def _add_branch(self, path: Path, item: dict[str, Any], at: str, edge: Edge) -> None:
        if edge.to == END:
            raise self._check.refused((*path, "to"), f"a branch can't begin at `{END}`: name its first node")
        group = self._branches.setdefault(at, Branches())
        if any(other.to == edge.to for _, other in group.edges):
            message = f"there is already a parallel edge from `{at}` to `{edge.to}`; `type: dynamic_parallel` on a node"
            raise self._check.refused(path, f"{message} runs the same for each item of a list")
        group.edges.append((path, edge))
        if "fan_in" in item:
            group.joins.append(((*path, "fan_in"), self._check.text((*path, "fan_in"), item["fan_in"])))

    def _edge(self, path: Path, item: Any) -> tuple[str, Edge]:
        if not isinstance(item, dict):
            raise self._check.refused(path, f"an edge is a mapping with `from` and `to`, not {kind_of(item)}")
        self._check.words(path, item, EDGE, later=_LATER_EDGE)
        kind = self._check.choice((*path, "type"), item.get("type", "normal"), EDGE_TYPES)
        for word in ("fan_in", "parallel_strategy"):
            if word in item and kind != "parallel":
                raise self._check.refused((*path, word), f"`{word}` goes with `type: parallel`", key=True)
        check_strategy(self._check, (*path, "parallel_strategy"), item.get("parallel_strategy", "thread"))
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
        fan_in = self._nodes[at].fan_in if at in self._nodes else False
        condition, text = self._condition_of_edge(path, item, (*NAMES, RESULTS) if fan_in else NAMES)
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

    def _condition_of_edge(
        self, path: Path, item: dict[str, Any], names: tuple[str, ...]
    ) -> tuple[Condition | None, str]:
        if "condition" not in item:
            return self._condition((*path, "when"), item["when"], names) if "when" in item else (None, "")
        condition, text = self._condition((*path, "condition"), item["condition"], names)
        if "when" not in item:
            return condition, text
        if not isinstance(item["when"], bool):
            message = "beside `condition`, `when` is the result for which the edge is taken: true or false"
            raise self._check.refused((*path, "when"), message)
        return (condition, text) if item["when"] else (negated(condition), f"not ({text})")

    def _condition(self, path: Path, value: Any, names: tuple[str, ...]) -> tuple[Condition, str]:
        if isinstance(value, dict):
            self._check.words(path, value, _EXPRESSION)
            self._check.choice((*path, "type"), value.get("type"), ["expression"])
            path, value = (*path, "value"), value.get("value")
        if isinstance(value, bool):
            value = "true" if value else "false"
        text = self._check.text(path, value)
        try:
            return compile_condition(text, names), text.strip()
        except TemplateError as error:
            raise self._check.refused(path, f"the condition `{text.strip()}`: {error}") from None

    def _goto(self, path: Path, value: Any, names: tuple[str, ...]) -> tuple[Way, ...]:
        if isinstance(value, str):
            return (Edge(self._node(path, value, other=END), self._check.document.place(path)),)
        if not isinstance(value, list) or not value:
            shown = "an empty list" if value == [] else kind_of(value)
            message = f"`goto` is the name of a node, or a list of `{{if: condition, to: node}}`, not {shown}"
            raise self._check.refused(path, message)
        rules = [self._rule((*path, index), rule, names) for index, rule in enumerate(value)]
        for index, rule in enumerate(rules[:-1]):
            if rule.condition is None:
                message = "only the last rule of `goto` may have no `if`: those after it would never be reached"
                raise self._check.refused((*path, index), message)
        return tuple(rules)

    def _rule(self, path: Path, rule: Any, names: tuple[str, ...]) -> Edge:
        if not isinstance(rule, dict):
            raise self._check.refused(path, f"a rule of `goto` is a mapping with 'if' and 'to', not {kind_of(rule)}")
        self._check.words(path, rule, _RULE)
        if "to" not in rule:
            raise self._check.refused(path, "a rule of `goto` needs 'to', the name of a node")
        to = self._node((*path, "to"), rule["to"], other=END)
        condition, text = self._condition((*path, "if"), rule["if"], names) if "if" in rule else (None, "")
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


def check_strategy(checker: Checker, path: Path, value: Any) -> None:
    """Refuse a strategy of parallel branches other than ``thread``.

    Raises:
        WorkflowFileError: it is another one.
    """
    if checker.text(path, value) in _OTHER_STRATEGIES:
        raise checker.refused(path, f"`{path[-1]}` can't be `{value}`: branches run in threads, so `thread`")
    checker.choice(path, value, ["thread"])
