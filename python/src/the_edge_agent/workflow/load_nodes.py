"""Read the nodes of an agent file: their bodies and the words beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from the_edge_agent.workflow.actions.registry import Action, check_arguments, known_actions, nearest_action
from the_edge_agent.workflow.checks import Checker, kind_of
from the_edge_agent.workflow.code import CodeError, compile_code, file_name
from the_edge_agent.workflow.errors import Place, WorkflowFileError
from the_edge_agent.workflow.model import END, START, Body, Node, RunBody, UsesBody
from the_edge_agent.workflow.reading import Path
from the_edge_agent.workflow.templates import Renderer, TemplateError, compile_text, constant, is_template

NODE: Final = ("name", "description", "run", "uses", "with", "output", "goto")
ARGUMENT_NAMES: Final = ("state", "variables")
OUTPUT_NAMES: Final = ("state", "variables", "result")

_LATER: Final = {
    "script": ": write `run`",
    "steps": ": write one node for each step",
    **dict.fromkeys(
        (
            "type",
            "on_error",
            "retry",
            "fallback",
            "interrupt",
            "fan_in",
            "items",
            "item_var",
            "index_var",
            "max_concurrency",
            "fail_fast",
            "subgraph",
            "condition",
            "max_iterations",
            "body",
        ),
        "",
    ),
}
_INSTEAD: Final = {
    "action": "write `uses`, with the name of the action",
    "params": "write `with`, with the arguments of the action",
    "next": "write `goto`, or an edge under `edges`",
}


class NodeReader:
    """Reads nodes."""

    def __init__(self, checker: Checker, actions: Mapping[str, Action], *, allow_code: bool) -> None:
        """Read nodes of one document.

        Args:
            checker: reads and refuses parts of the document.
            actions: the actions that nodes may use.
            allow_code: False refuses ``run`` nodes.
        """
        self._check = checker
        self._actions = actions
        self._allow_code = allow_code

    def nodes(self, data: dict[str, Any]) -> dict[str, Node]:
        """Return the nodes of an agent by name."""
        if "nodes" not in data:
            raise self._check.refused((), "an agent needs `nodes`")
        written = data["nodes"]
        if not isinstance(written, list) or not written:
            shown = "an empty list" if written == [] else kind_of(written)
            raise self._check.refused(("nodes",), f"`nodes` must be a list of at least one node, not {shown}", key=True)
        nodes: dict[str, Node] = {}
        for index, node in enumerate(written):
            read = self._node(("nodes", index), node, nodes)
            nodes[read.name] = read
        return nodes

    def _node(self, path: Path, node: Any, others: Mapping[str, Node]) -> Node:
        if not isinstance(node, dict):
            raise self._check.refused(path, f"a node is a mapping with a `name` and a body, not {kind_of(node)}")
        self._check.words(path, node, NODE, later=_LATER, instead=_INSTEAD)
        if "name" not in node:
            raise self._check.refused(path, "a node needs a `name`")
        name = self._check.text((*path, "name"), node["name"])
        self._check.text((*path, "description"), node.get("description", ""))
        if not name.strip() or "\n" in name or name in (START, END):
            raise self._check.refused((*path, "name"), f"`{name}` can't be the name of a node")
        if name in others:
            raise self._check.refused((*path, "name"), f"there is already a node `{name}`")
        return Node(name, self._body(path, node, name), self._check.document.place(path))

    def _body(self, path: Path, node: dict[str, Any], name: str) -> Body:
        if "run" in node and "uses" in node:
            message = f"node `{name}` has `run` and `uses`; it takes exactly one"
            raise self._check.refused((*path, "uses"), message, key=True)
        if "run" in node:
            for word in ("with", "output"):
                if word in node:
                    raise self._check.refused((*path, word), f"`{word}` goes with `uses`, not with `run`", key=True)
            return self._run((*path, "run"), node["run"], name)
        if "uses" in node:
            return self._uses(path, node)
        raise self._check.refused(path, f"node `{name}` has no body: give it `run` or `uses`")

    def _run(self, path: Path, text: Any, name: str) -> RunBody:
        if not self._allow_code:
            raise self._check.refused(path, f"node `{name}` runs Python code, which is not allowed here", key=True)
        line_before = self._check.document.text_line(path)
        if not self._check.text(path, text).strip():
            raise self._check.refused(path, f"`{path[-1]}` of node `{name}` is empty")
        try:
            return RunBody(compile_code(text, file_name(name)), line_before)
        except CodeError as error:
            place = self._check.document.place(path)
            if place.line is not None and error.line is not None:
                place = Place(place.source, place.path, line_before + error.line, 1)
                raise WorkflowFileError(f"node `{name}`: {error}", place) from None
            line = f" (line {error.line} of its `{path[-1]}`)" if error.line else ""
            raise self._check.refused(path, f"node `{name}`: {error}{line}") from None

    def _uses(self, path: Path, node: dict[str, Any]) -> UsesBody:
        action = self._check.text((*path, "uses"), node["uses"])
        if action not in self._actions:
            hint = nearest_action(action, self._actions) or known_actions(action, self._actions)
            raise self._check.refused((*path, "uses"), f"unknown action `{action}`{hint}")
        values = self._check.mapping((*path, "with"), node.get("with"))
        if problem := check_arguments(self._actions[action], list(values)):
            argument, message = problem
            place = (*path, "with", argument) if argument else (*path, "uses")
            raise self._check.refused(place, f"action `{action}` {message}", key=bool(argument))
        arguments = self._renderers((*path, "with"), values, ARGUMENT_NAMES)
        return UsesBody(action, arguments, self._output((*path, "output"), node))

    def _output(self, path: Path, node: dict[str, Any]) -> str | dict[str, Renderer] | None:
        if "output" not in node:
            return None
        output = node["output"]
        if isinstance(output, str) and output and not is_template(output):
            return output
        if isinstance(output, dict) and output:
            return self._renderers(path, self._check.mapping(path, output), OUTPUT_NAMES)
        raise self._check.refused(
            path, "`output` is the name of a key of the state, or a mapping of names to templates"
        )

    def _renderers(self, path: Path, values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Renderer]:
        return {key: self._renderer((*path, key), value, names) for key, value in values.items()}

    def _renderer(self, path: Path, value: Any, names: tuple[str, ...]) -> Renderer:
        if isinstance(value, dict):
            fields = self._renderers(path, self._check.mapping(path, value), names)
            return lambda context, work: {key: render(context, work) for key, render in fields.items()}
        if isinstance(value, list | tuple):
            items = [self._renderer((*path, index), item, names) for index, item in enumerate(value)]
            return lambda context, work: [render(context, work) for render in items]
        if not isinstance(value, str):
            return constant(value)
        try:
            return compile_text(value, names)
        except TemplateError as error:
            raise self._check.refused(path, str(error)) from None
