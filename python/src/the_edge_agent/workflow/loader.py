"""Turn the data of an agent file into a checked agent. Unknown words are refused, with the place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from the_edge_agent.memory import LTMError, expand_env_vars
from the_edge_agent.workflow.actions.llm_settings import SettingsError, check_llm_settings
from the_edge_agent.workflow.actions.registry import Action, check_arguments, known_actions, nearest_action
from the_edge_agent.workflow.code import CodeError, compile_code, file_name
from the_edge_agent.workflow.errors import Place, WorkflowFileError, nearest
from the_edge_agent.workflow.model import Agent, Body, Node, RunBody, UsesBody
from the_edge_agent.workflow.reading import Document, Path, show_path
from the_edge_agent.workflow.templates import Renderer, TemplateError, compile_text, constant, is_template

TOP = ("name", "description", "variables", "initial_state", "settings", "nodes")
NODE = ("name", "description", "run", "uses", "with", "output")
ARGUMENT_NAMES = ("state", "variables")
OUTPUT_NAMES = ("state", "variables", "result")

_LATER_TOP = {
    "edges": ": nodes run in the order in which they are written",
    "config": "",
    "state_schema": "",
}
_LATER_NODE = {
    "script": ": write `run`",
    "steps": ": write one node for each step",
    "goto": ": nodes run in the order in which they are written",
    **dict.fromkeys(
        (
            "type",
            "on_error",
            "retry",
            "fallback",
            "fan_in",
            "items",
            "item_var",
            "index_var",
            "max_concurrency",
            "fail_fast",
            "action",
            "subgraph",
            "condition",
            "max_iterations",
            "body",
        ),
        "",
    ),
}
_RESERVED_NODES = ("__start__", "__end__")


def load_agent(
    document: Document, actions: Mapping[str, Action], *, allow_code: bool, env: Mapping[str, str] | None = None
) -> Agent:
    """Check a document and compile its code and templates.

    Args:
        document: the data and the places where it was written.
        actions: the actions that nodes may use.
        allow_code: False refuses ``run`` nodes and ``settings.ltm``.
        env: the environment variables that ``variables`` may use; None for all.

    Raises:
        WorkflowFileError: the agent is not valid. The error names the first fault and its place.
    """
    try:
        return _Loader(document, actions, allow_code=allow_code, env=env).agent()
    except RecursionError:
        raise WorkflowFileError("nested too deeply", Place(document.source)) from None


class _Loader:
    def __init__(
        self, document: Document, actions: Mapping[str, Action], *, allow_code: bool, env: Mapping[str, str] | None
    ) -> None:
        self._document = document
        self._actions = actions
        self._allow_code = allow_code
        self._env = env

    def agent(self) -> Agent:
        data = self._document.data
        if data is None:
            raise self._refused((), "the file is empty; an agent has `nodes`")
        if not isinstance(data, dict):
            raise self._refused((), f"an agent is a mapping with `nodes`, not {_kind(data)}")
        self._check_words((), data, TOP, _LATER_TOP)
        for word in ("name", "description"):
            self._text((word,), data.get(word, ""))
        settings = dict(self._mapping(("settings",), data.get("settings")))
        llm = self._llm(settings.pop("llm", {}))
        ltm = self._ltm(settings)
        return Agent(
            name=data.get("name", ""),
            variables=self._variables(self._mapping(("variables",), data.get("variables"))),
            initial_state=self._mapping(("initial_state",), data.get("initial_state")),
            ltm=ltm,
            ltm_place=self._document.place(("settings", "ltm"), key=True),
            nodes=self._nodes(data),
            llm=llm,
            is_trusted=self._allow_code,
        )

    def _llm(self, block: Any) -> dict[str, Any]:
        if block and not self._allow_code:
            message = (
                "`settings.llm`: a file that may not run code can't choose its model; the host gives it, with `llm`"
            )
            raise self._refused(("settings", "llm"), message, key=True)
        try:
            return check_llm_settings(block, self._env)
        except SettingsError as error:
            raise self._refused(("settings", "llm", *error.path), str(error), key=bool(error.path)) from None

    def _ltm(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        for word in settings:
            if word != "ltm" and not word.startswith("ltm_"):
                hint = nearest(word, ["ltm", "llm"]) or "; only `ltm` and `llm` are"
                raise self._refused(("settings", word), f"`settings.{word}` is not supported yet{hint}", key=True)
        if "ltm" in settings and not settings["ltm"]:
            raise self._refused(
                ("settings", "ltm"), "`settings.ltm` is empty: give it a `backend`, or leave it out", key=True
            )
        if settings and not self._allow_code:
            self._refuse_settings(settings)
        return settings or None

    def _refuse_settings(self, settings: dict[str, Any]) -> NoReturn:
        """Refuse the configuration of a memory, because its options give access to files, servers and programs."""
        word = next(iter(settings))
        block = settings[word]
        option = next(iter(block)) if word == "ltm" and isinstance(block, dict) else None
        path = ("settings", word) if option is None else ("settings", word, option)
        message = (
            f"`{show_path(path)}`: a file that may not run code can't configure its memory;"
            " the host gives it, with `tea run --url` or `ltm_backend`"
        )
        raise self._refused(path, message, key=True)

    def _variables(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {name: self._expanded(("variables", name), value) for name, value in variables.items()}

    def _expanded(self, path: Path, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._expanded((*path, key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expanded((*path, index), item) for index, item in enumerate(value)]
        try:
            return expand_env_vars(value, self._env)
        except LTMError as error:
            raise self._refused(path, str(error)) from error

    def _nodes(self, data: dict[str, Any]) -> tuple[Node, ...]:
        if "nodes" not in data:
            raise self._refused((), "an agent needs `nodes`")
        nodes = data["nodes"]
        if not isinstance(nodes, list) or not nodes:
            shown = "an empty list" if nodes == [] else _kind(nodes)
            raise self._refused(("nodes",), f"`nodes` must be a list of at least one node, not {shown}", key=True)
        names: set[str] = set()
        return tuple(self._node(("nodes", index), node, names) for index, node in enumerate(nodes))

    def _node(self, path: Path, node: Any, names: set[str]) -> Node:
        if not isinstance(node, dict):
            raise self._refused(path, f"a node is a mapping with a `name` and a body, not {_kind(node)}")
        self._check_words(path, node, NODE, _LATER_NODE)
        if "name" not in node:
            raise self._refused(path, "a node needs a `name`")
        name = self._text((*path, "name"), node["name"])
        self._text((*path, "description"), node.get("description", ""))
        if not name.strip() or "\n" in name or name in _RESERVED_NODES:
            raise self._refused((*path, "name"), f"`{name}` can't be the name of a node")
        if name in names:
            raise self._refused((*path, "name"), f"there is already a node `{name}`")
        names.add(name)
        return Node(name, self._body(path, node, name), self._document.place(path))

    def _body(self, path: Path, node: dict[str, Any], name: str) -> Body:
        if "run" in node and "uses" in node:
            raise self._refused((*path, "uses"), f"node `{name}` has `run` and `uses`; it takes exactly one", key=True)
        if "run" in node:
            for word in ("with", "output"):
                if word in node:
                    raise self._refused((*path, word), f"`{word}` goes with `uses`, not with `run`", key=True)
            return self._run((*path, "run"), node["run"], name)
        if "uses" in node:
            return self._uses(path, node)
        raise self._refused(path, f"node `{name}` has no body: give it `run` or `uses`")

    def _run(self, path: Path, text: Any, name: str) -> RunBody:
        if not self._allow_code:
            raise self._refused(path, f"node `{name}` runs Python code, which is not allowed here", key=True)
        line_before = self._document.text_line(path)
        if not self._text(path, text).strip():
            raise self._refused(path, f"`run` of node `{name}` is empty")
        try:
            return RunBody(compile_code(text, file_name(name)), line_before)
        except CodeError as error:
            place = self._document.place(path)
            if place.line is not None and error.line is not None:
                place = Place(place.source, place.path, line_before + error.line, 1)
                raise WorkflowFileError(f"node `{name}`: {error}", place) from None
            line = f" (line {error.line} of its `run`)" if error.line else ""
            raise self._refused(path, f"node `{name}`: {error}{line}") from None

    def _uses(self, path: Path, node: dict[str, Any]) -> UsesBody:
        action = self._text((*path, "uses"), node["uses"])
        if action not in self._actions:
            hint = nearest_action(action, self._actions) or known_actions(action, self._actions)
            raise self._refused((*path, "uses"), f"unknown action `{action}`{hint}")
        values = self._mapping((*path, "with"), node.get("with"))
        if problem := check_arguments(self._actions[action], list(values)):
            argument, message = problem
            place = (*path, "with", argument) if argument else (*path, "uses")
            raise self._refused(place, f"action `{action}` {message}", key=bool(argument))
        arguments = self._renderers((*path, "with"), values, ARGUMENT_NAMES)
        return UsesBody(action, arguments, self._output((*path, "output"), node))

    def _output(self, path: Path, node: dict[str, Any]) -> str | dict[str, Renderer] | None:
        if "output" not in node:
            return None
        output = node["output"]
        if isinstance(output, str) and output and not is_template(output):
            return output
        if isinstance(output, dict) and output:
            return self._renderers(path, self._mapping(path, output), OUTPUT_NAMES)
        raise self._refused(path, "`output` is the name of a key of the state, or a mapping of names to templates")

    def _renderers(self, path: Path, values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Renderer]:
        return {key: self._renderer((*path, key), value, names) for key, value in values.items()}

    def _renderer(self, path: Path, value: Any, names: tuple[str, ...]) -> Renderer:
        if isinstance(value, dict):
            fields = self._renderers(path, self._mapping(path, value), names)
            return lambda context, work: {key: render(context, work) for key, render in fields.items()}
        if isinstance(value, list | tuple):
            items = [self._renderer((*path, index), item, names) for index, item in enumerate(value)]
            return lambda context, work: [render(context, work) for render in items]
        if not isinstance(value, str):
            return constant(value)
        try:
            return compile_text(value, names)
        except TemplateError as error:
            raise self._refused(path, str(error)) from None

    def _check_words(self, path: Path, data: dict[str, Any], words: tuple[str, ...], later: Mapping[str, str]) -> None:
        self._check_keys(path, data)
        for word in data:
            if word in later:
                raise self._refused((*path, word), f"`{word}` is not supported yet{later[word]}", key=True)
            if word not in words:
                hint = nearest(word, [*words, *later]) or f"; known are {', '.join(f'`{each}`' for each in words)}"
                raise self._refused((*path, word), f"unknown word `{word}`{hint}", key=True)

    def _check_keys(self, path: Path, data: dict[Any, Any]) -> None:
        for key in data:
            if not isinstance(key, str):
                raise self._refused(path, f"keys must be text, not {key!r}")

    def _mapping(self, path: Path, value: Any) -> dict[str, Any]:
        """Return the mapping at ``path``. None (only the key was written) becomes an empty mapping."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._refused(path, f"`{path[-1]}` must be a mapping, not {_kind(value)}")
        self._check_keys(path, value)
        return value

    def _text(self, path: Path, value: Any) -> str:
        if not isinstance(value, str):
            raise self._refused(path, f"`{path[-1]}` must be text, not {_kind(value)}")
        return value

    def _refused(self, path: Path, message: str, *, key: bool = False) -> WorkflowFileError:
        place = self._document.place(path, key=key)
        if place.line is None and place.source and path:
            message = f"{show_path(path)}: {message}"
        return WorkflowFileError(message, place)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    for kind, shown in ((str, "text"), (list, "a list"), (dict, "a mapping")):
        if isinstance(value, kind):
            return shown
    return type(value).__name__
