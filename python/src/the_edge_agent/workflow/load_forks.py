"""Find the node where the branches of parallel edges meet, and refuse branches that do not meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from the_edge_agent.workflow.checks import Checker, listed
from the_edge_agent.workflow.errors import WorkflowFileError, nearest
from the_edge_agent.workflow.model import END, Edge, Fork, Node, Way
from the_edge_agent.workflow.reading import Path

_HELP: Final = "give the node where they meet `fan_in: true`, and lead each branch to it"


@dataclass
class Branches:
    """The parallel edges of one node, as they were written.

    Attributes:
        edges: the edges, each with its path in the document.
        joins: the nodes that they name as ``fan_in``, each with the path of this word.
    """

    edges: list[tuple[Path, Edge]] = field(default_factory=list)
    joins: list[tuple[Path, str]] = field(default_factory=list)


class ForkReader:
    """Completes the forks of one document."""

    def __init__(
        self,
        checker: Checker,
        nodes: Mapping[str, Node],
        ways: Mapping[str, tuple[Way, ...]],
        branches: Mapping[str, Branches],
        implicit: Iterable[str],
    ) -> None:
        """Read the forks of one document.

        Args:
            checker: refuses parts of the document.
            nodes: the nodes of the document, by name.
            ways: what leads on from each node. Its forks do not know yet where their branches meet.
            branches: the parallel edges of each node.
            implicit: the nodes that go on to the next of the list, because they have no ways of their own.
        """
        self._check = checker
        self._nodes = nodes
        self._ways = dict(ways)
        self._branches = {at: group for at, group in branches.items() if any(isinstance(way, Fork) for way in ways[at])}
        self._implicit = frozenset(implicit)

    def ways(self) -> dict[str, tuple[Way, ...]]:
        """Return the ways with complete forks."""
        joins = {at: self._join(at, group) for at, group in self._branches.items()}
        for at, join in joins.items():
            edges = tuple(edge for _, edge in self._branches[at].edges)
            self._ways[at] = tuple(
                replace(way, to=join, branches=edges) if isinstance(way, Fork) else way for way in self._ways[at]
            )
        regions = {at: self._region([edge.to for _, edge in self._branches[at].edges], joins[at]) for at in joins}
        for at, join in joins.items():
            self._check_branches(at, join)
            self._check_inner(at, joins, regions)
        for index, node in enumerate(self._nodes.values()):
            if node.fan_in and node.name not in joins.values():
                message = f"no branches meet at `{node.name}`: lead branches of `type: parallel` there, or leave it out"
                raise self._check.refused(("nodes", index, "fan_in"), message, key=True)
        return self._ways

    def _join(self, at: str, group: Branches) -> str:
        """Return the node where the branches from a node meet."""
        joins = [name for name, node in self._nodes.items() if node.fan_in]
        for path, name in group.joins:
            if name not in joins:
                hint = f"give that node `fan_in: true`{'' if not joins else f', or name one of {listed(joins)}'}"
                if name not in self._nodes:
                    hint = nearest(name, joins).lstrip("; ") or (f"there are {listed(joins)}" if joins else _HELP)
                raise self._check.refused(path, f"no branches can meet at `{name}`: {hint}")
            if name != group.joins[0][1]:
                message = f"the branches from `{at}` must meet at one node, not at `{group.joins[0][1]}` and `{name}`"
                raise self._check.refused(path, message)
        if group.joins:
            return group.joins[0][1]
        reached = [list(self._walk([edge.to])) for _, edge in group.edges]
        for name in reached[0]:
            if name in joins and all(name in names for names in reached):
                return name
        raise self._check.refused(group.edges[0][0], f"the branches from `{at}` never meet: {_HELP}")

    def _check_branches(self, at: str, join: str) -> None:
        first = {edge.to for _, edge in self._branches[at].edges}
        for path, edge in self._branches[at].edges:
            if edge.to == join:
                message = f"`{join}` is where the branches meet: a branch begins at a node before it"
                raise self._check.refused((*path, "to"), message)
            region = self._region([edge.to], join)
            if join not in region:
                message = f"the branch from `{edge.to}` never reaches `{join}`, where the branches from `{at}` meet"
                raise self._check.refused(path, f"{message}: add an edge to `{join}`")
            for name in region:
                following = next((way.to for way in self._ways.get(name, ()) if isinstance(way, Edge)), "")
                if name in self._implicit and name != join and following in first:
                    message = (
                        f"`{name}` has no edge, so this branch goes on to the next node, `{following}`,"
                        f" where another branch begins: add an edge from `{name}` to `{join}`"
                    )
                    raise self._check.refused(path, message)

    def _check_inner(self, at: str, joins: Mapping[str, str], regions: Mapping[str, list[str]]) -> None:
        for inner, join in joins.items():
            if inner not in regions[at] or inner == joins[at]:
                continue
            path = self._branches[inner].edges[0][0]
            if inner == at:
                raise self._refused_loop(path, at)
            if join == joins[at]:
                message = f"the branches from `{inner}` can't meet at `{join}`, where those of `{at}` meet"
                raise self._check.refused(path, f"{message}: give them a node of their own with `fan_in: true`")
            if joins[at] in regions[inner]:
                message = f"a branch from `{inner}` can reach `{joins[at]}` before `{join}`, where it meets the others"
                raise self._check.refused(path, f"{message}: lead it to `{join}` first")

    def _refused_loop(self, path: Path, at: str) -> WorkflowFileError:
        return self._check.refused(path, f"a branch from `{at}` leads back to `{at}`: go back after the branches met")

    def _region(self, begins: list[str], join: str) -> list[str]:
        """Return the nodes that branches can reach, up to the node where they meet."""
        return list(self._walk(begins, join))

    def _walk(self, begins: list[str], end: str | None = None) -> Iterator[str]:
        queue = list(dict.fromkeys(begins))
        reached = set(queue)
        for name in queue:
            yield name
            for following in () if name in (end, END) else self._following(name):
                if following not in reached:
                    reached.add(following)
                    queue.append(following)

    def _following(self, name: str) -> Iterator[str]:
        for way in self._ways.get(name, ()):
            if isinstance(way, Edge):
                yield way.to
            if isinstance(way, Fork):
                yield from (edge.to for _, edge in self._branches[name].edges)
                if way.to:
                    yield way.to
        if (fallback := self._nodes[name].fallback) is not None:
            yield fallback
