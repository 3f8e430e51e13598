"""Read the nodes of an agent file: their bodies and the words beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from the_edge_agent.workflow.actions.registry import Action, check_arguments, known_actions, nearest_action
from the_edge_agent.workflow.checks import Checker, kind_of, listed
from the_edge_agent.workflow.code import NAMES as CODE_NAMES
from the_edge_agent.workflow.code import CodeError, compile_code, file_name
from the_edge_agent.workflow.errors import Place, WorkflowFileError, nearest
from the_edge_agent.workflow.model import (
    END,
    LONGEST_WAIT,
    START,
    Body,
    ExpressionBody,
    FunctionBody,
    Node,
    Retry,
    RunBody,
    UsesBody,
)
from the_edge_agent.workflow.reading import Path
from the_edge_agent.workflow.templates import (
    NAMES,
    RESULTS,
    Renderer,
    TemplateError,
    compile_expression,
    compile_text,
    constant,
    is_template,
)

NODE: Final = (
    *("name", "description", "run", "script", "language", "uses", "with", "output", "output_key"),
    *("goto", "on_error", "retry", "fallback", "fan_in"),
)
ARGUMENT_NAMES: Final = NAMES
OUTPUT_NAMES: Final = (*NAMES, "result")
MAX_ATTEMPTS: Final = 100

_LATER: Final = {
    "steps": ": write one node for each step",
    **dict.fromkeys(
        (
            "type",
            "interrupt",
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
_RETRY: Final = ("max_attempts", "backoff_seconds", "on")
_EXPRESSION: Final = ("type", "value", "output_key")
_BODIES: Final = ("run", "script", "uses")
_INSTEAD: Final = {
    "action": "write `uses`, with the name of the action",
    "params": "write `with`, with the arguments of the action",
    "next": "write `goto`, or an edge under `edges`",
}


class NodeReader:
    """Reads nodes."""

    def __init__(
        self, checker: Checker, actions: Mapping[str, Action], variables: Iterable[str], *, allow_code: bool
    ) -> None:
        """Read nodes of one document.

        Args:
            checker: reads and refuses parts of the document.
            actions: the actions that nodes may use.
            variables: the names of ``variables``, for ``${NAME}`` in templates.
            allow_code: False refuses ``run`` nodes.
        """
        self._check = checker
        self._actions = actions
        self._variables = frozenset(variables)
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
        for index, name in enumerate(nodes):
            self._check_fallback(("nodes", index, "fallback"), name, nodes)
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
        fan_in = self._check.boolean((*path, "fan_in"), node.get("fan_in", False))
        return Node(
            name,
            self._body(path, node, name, (RESULTS,) if fan_in else ()),
            self._check.document.place(path),
            retry=self._retry((*path, "retry"), node["retry"]) if "retry" in node else Retry(),
            goes_on=self._goes_on((*path, "on_error"), node),
            fallback=self._check.text((*path, "fallback"), node["fallback"]) if "fallback" in node else None,
            fan_in=fan_in,
        )

    def _goes_on(self, path: Path, node: dict[str, Any]) -> bool:
        if isinstance(node.get("on_error"), dict):
            message = "`on_error` is `fail` or `continue`; write `retry` for more attempts, `fallback` for another node"
            raise self._check.refused(path, message)
        goes_on = self._check.choice(path, node.get("on_error", "fail"), ["fail", "continue"]) == "continue"
        if goes_on and "fallback" in node:
            raise self._check.refused(path, "`on_error: continue` and `fallback` exclude each other: leave one out")
        return goes_on

    def _check_fallback(self, path: Path, name: str, nodes: Mapping[str, Node]) -> None:
        fallback = nodes[name].fallback
        if fallback is not None and (fallback == name or fallback not in nodes):
            others = [other for other in nodes if other != name]
            hint = nearest(fallback, others) or (f"; there are {listed(others)}" if others else "")
            what = "is the node itself" if fallback == name else f"names the non-existent node `{fallback}`"
            raise self._check.refused(path, f"`fallback` {what}{hint}")

    def _retry(self, path: Path, value: Any) -> Retry:
        words = self._check.mapping(path, value)
        self._check.words(path, words, _RETRY)
        attempts, backoff, on = words.get("max_attempts", 3), words.get("backoff_seconds", 0), words.get("on", [])
        if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= MAX_ATTEMPTS:
            message = f"`max_attempts` must be a whole number from 1 to {MAX_ATTEMPTS}; it counts the first attempt too"
            raise self._check.refused((*path, "max_attempts"), message)
        if isinstance(backoff, bool) or not isinstance(backoff, int | float) or not 0 <= backoff <= LONGEST_WAIT:
            message = f"`backoff_seconds` must be a number from 0 to {LONGEST_WAIT:g}"
            raise self._check.refused((*path, "backoff_seconds"), message)
        if not isinstance(on, list) or not all(isinstance(name, str) and name for name in on):
            raise self._check.refused((*path, "on"), "`on` must be a list of error types, such as [timeout, conflict]")
        return Retry(attempts, float(backoff), frozenset(on))

    def _body(self, path: Path, node: dict[str, Any], name: str, more: tuple[str, ...]) -> Body:
        bodies = [word for word in _BODIES if word in node]
        if not bodies and more:
            for word in ("with", "output", "output_key", "language"):
                if word in node:
                    message = f"`{word}` goes with a body: give the node `run` or `uses`, or leave `{word}` out"
                    raise self._check.refused((*path, word), message, key=True)
            return FunctionBody(lambda values: None)
        if not bodies:
            raise self._check.refused(path, f"node `{name}` has no body: give it `run` or `uses`")
        if len(bodies) > 1:
            first, second = bodies[:2]
            message = f"node `{name}` has `{first}` and `{second}`; it takes exactly one"
            raise self._check.refused((*path, second), message, key=True)
        word = bodies[0]
        if "output" in node and "output_key" in node:
            message = "`output_key` is another word for `output`: leave one out"
            raise self._check.refused((*path, "output_key"), message, key=True)
        if word == "uses":
            if "language" in node:
                message = "`language` goes with `run`, not with `uses`"
                raise self._check.refused((*path, "language"), message, key=True)
            return self._uses(path, node, more)
        self._check_language((*path, "language"), node)
        is_expression = isinstance(node[word], dict)
        for wrong in ("with",) if is_expression else ("with", "output", "output_key"):
            if wrong in node:
                message = f"`{wrong}` goes with `uses`, not with `{word}`"
                raise self._check.refused((*path, wrong), message, key=True)
        if is_expression:
            return self._expression(path, node, word, more)
        return self._run((*path, word), node[word], name, more)

    def _check_language(self, path: Path, node: dict[str, Any]) -> None:
        language = self._check.text(path, node.get("language", "python"))
        if language != "python":
            raise self._check.refused(path, f"there is no `{language}` here: the language of `run` is `python`")

    def _expression(self, path: Path, node: dict[str, Any], word: str, more: tuple[str, ...]) -> ExpressionBody:
        inner: Path = (*path, word)
        expression = self._check.mapping(inner, node[word])
        self._check.words(inner, expression, _EXPRESSION)
        self._check.choice((*inner, "type"), expression.get("type"), ["expression"])
        text = self._check.text((*inner, "value"), expression.get("value")).strip()
        keys = [(*path, key) for key in ("output", "output_key") if key in node]
        keys += [(*inner, "output_key")] if "output_key" in expression else []
        if len(keys) > 1:
            raise self._check.refused(
                keys[1], "the value has one name in the state: leave out one of the two", key=True
            )
        output = "result"
        if keys:
            output = self._check.text(keys[0], node.get("output", node.get("output_key", expression.get("output_key"))))
            if not output or is_template(output):
                raise self._check.refused(keys[0], f"`{keys[0][-1]}` is the name of a key of the state")
        try:
            compiled = (compile_text if is_template(text) else compile_expression)(text, (*NAMES, *more))
        except TemplateError as error:
            raise self._check.refused((*inner, "value"), str(error)) from None
        return ExpressionBody(compiled, output)

    def _run(self, path: Path, text: Any, name: str, more: tuple[str, ...]) -> RunBody:
        if not self._allow_code:
            raise self._check.refused(path, f"node `{name}` runs Python code, which is not allowed here", key=True)
        line_before = self._check.document.text_line(path)
        if not self._check.text(path, text).strip():
            raise self._check.refused(path, f"`{path[-1]}` of node `{name}` is empty")
        try:
            return RunBody(compile_code(text, file_name(name), (*CODE_NAMES, *more)), line_before)
        except CodeError as error:
            place = self._check.document.place(path)
            if place.line is not None and error.line is not None:
                place = Place(place.source, place.path, line_before + error.line, 1)
                raise WorkflowFileError(f"node `{name}`: {error}", place) from None
            line = f" (line {error.line} of its `{path[-1]}`)" if error.line else ""
            raise self._check.refused(path, f"node `{name}`: {error}{line}") from None

    def _uses(self, path: Path, node: dict[str, Any], more: tuple[str, ...]) -> UsesBody:
        action = self._check.text((*path, "uses"), node["uses"])
        if action not in self._actions:
            hint = nearest_action(action, self._actions) or known_actions(action, self._actions)
            raise self._check.refused((*path, "uses"), f"unknown action `{action}`{hint}")
        values = self._check.mapping((*path, "with"), node.get("with"))
        if problem := check_arguments(self._actions[action], list(values)):
            argument, message = problem
            place = (*path, "with", argument) if argument else (*path, "uses")
            raise self._check.refused(place, f"action `{action}` {message}", key=bool(argument))
        arguments = self._renderers((*path, "with"), values, (*ARGUMENT_NAMES, *more))
        return UsesBody(action, arguments, self._output(path, node, more))

    def _output(self, node_path: Path, node: dict[str, Any], more: tuple[str, ...]) -> str | dict[str, Renderer] | None:
        word = "output_key" if "output_key" in node else "output"
        if word not in node:
            return None
        path, output = (*node_path, word), node[word]
        if isinstance(output, str) and output and not is_template(output):
            return output
        if isinstance(output, dict) and output:
            return self._renderers(path, self._check.mapping(path, output), (*OUTPUT_NAMES, *more))
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
            return compile_text(value, names, self._variables)
        except TemplateError as error:
            raise self._check.refused(path, str(error)) from None
