"""Turn the data of an agent file into a checked agent. Unknown words are refused, with the place in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import environ
from typing import Any, Final, NoReturn

from the_edge_agent.memory import LTMError, expand_env_vars
from the_edge_agent.workflow.actions.llm_settings import SettingsError, check_llm_settings
from the_edge_agent.workflow.actions.registry import Action
from the_edge_agent.workflow.checks import Checker, kind_of, listed
from the_edge_agent.workflow.errors import Place, WorkflowFileError, nearest
from the_edge_agent.workflow.load_edges import WayReader, check_strategy
from the_edge_agent.workflow.load_nodes import NodeReader
from the_edge_agent.workflow.model import MAX_CONCURRENCY, Agent
from the_edge_agent.workflow.reading import Document, Path, show_path

TOP: Final = (
    *("name", "version", "description", "state_schema", "variables", "initial_state", "settings", "config"),
    *("nodes", "edges"),
)
CONFIG: Final = ("raise_exceptions",)
PARALLEL: Final = ("max_concurrency", "strategy")
MOST_THREADS: Final = 100  # branches of one fan-out that run at a time
TYPES: Final = ("str", "list", "int", "bool", "dict", "object", "float", "any")

_LATER_CONFIG: Final = dict.fromkeys(("interrupt_before", "interrupt_after", "checkpoint_dir"), "")
_SECRET: Final = re.compile(
    r"(^|[_-])(api_?key|key|token|secrets?|passw(or)?d|credentials?|headers|env)$", re.IGNORECASE
)
_LOGIN: Final = re.compile(r"://[^/]*@")
_FIELD: Final = ("type", "description", "properties")
_SAME_TYPES: Final = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "map": "dict",
}


def load_agent(
    document: Document,
    actions: Mapping[str, Action],
    *,
    allow_code: bool,
    env: Mapping[str, str] | None = None,
    raises: bool = True,
    secrets: Mapping[str, Any] | None = None,
) -> Agent:
    """Check a document and compile its code and templates.

    Args:
        document: the data and the places where it was written.
        actions: the actions that nodes may use.
        allow_code: False refuses ``run`` nodes and ``settings.ltm``.
        env: the environment variables that ``variables`` may use; None for all.
        raises: whether a failed node raises, if the agent does not say so.
        secrets: what templates find under ``secrets``.

    Raises:
        WorkflowFileError: the agent is not valid. The error names the first fault and its place.
    """
    try:
        return _Loader(document, actions, allow_code=allow_code, env=env, raises=raises, secrets=secrets or {}).agent()
    except RecursionError:
        raise WorkflowFileError("nested too deeply", Place(document.source)) from None


def visible_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that may be secret, by their names, and without URLs with a password."""
    visible: dict[str, Any] = {}
    for name, value in settings.items():
        if _SECRET.search(name) or (isinstance(value, str) and _LOGIN.search(value)):
            continue
        visible[name] = visible_settings(value) if isinstance(value, Mapping) else value
    return visible


class _Loader:
    def __init__(
        self,
        document: Document,
        actions: Mapping[str, Action],
        *,
        allow_code: bool,
        env: Mapping[str, str] | None,
        raises: bool,
        secrets: Mapping[str, Any],
    ) -> None:
        self._document = document
        self._check = Checker(document)
        self._actions = actions
        self._allow_code = allow_code
        self._env = env
        self._raises_otherwise = raises
        self._secrets = secrets

    def agent(self) -> Agent:
        data = self._document.data
        if data is None:
            raise self._check.refused((), "the file is empty; an agent has `nodes`")
        if not isinstance(data, dict):
            raise self._check.refused((), f"an agent is a mapping with `nodes`, not {kind_of(data)}")
        self._check.words((), data, TOP)
        for word in ("name", "description"):
            self._check.text((word,), data.get(word, ""))
        version = self._version(data.get("version", ""))
        settings = dict(self._check.mapping(("settings",), data.get("settings")))
        llm = self._llm(settings.pop("llm", {}))
        max_concurrency = self._max_concurrency(settings.pop("parallel", None))
        ltm = self._ltm(settings)
        declared = self._declared(("state_schema",), data.get("state_schema"))
        raises = self._raises(self._check.mapping(("config",), data.get("config")))
        variables = self._variables(self._check.mapping(("variables",), data.get("variables")))
        initial_state = self._check.mapping(("initial_state",), data.get("initial_state"))
        nodes = NodeReader(self._check, self._actions, variables, allow_code=self._allow_code).nodes(data)
        return Agent(
            name=data.get("name", ""),
            version=version,
            declared=declared,
            raises=raises,
            variables=variables,
            initial_state=initial_state,
            ltm=ltm,
            ltm_place=self._document.place(("settings", "ltm"), key=True),
            nodes=nodes,
            llm=llm,
            max_concurrency=max_concurrency,
            ways=WayReader(self._check, nodes).ways(data),
            is_trusted=self._allow_code,
            settings=visible_settings({"llm": llm} if llm else {}),
            secrets=self._secrets,
            env=dict(environ if self._env is None else self._env),
        )

    def _llm(self, block: Any) -> dict[str, Any]:
        if block and not self._allow_code:
            message = (
                "`settings.llm`: a file that may not run code can't choose its model; the host gives it, with `llm`"
            )
            raise self._check.refused(("settings", "llm"), message, key=True)
        try:
            return check_llm_settings(block, self._env)
        except SettingsError as error:
            path: Path = ("settings", "llm", *error.path)
            raise self._check.refused(path, str(error), key=bool(error.path)) from None

    def _max_concurrency(self, block: Any) -> int:
        path: Path = ("settings", "parallel")
        words = self._check.mapping(path, block)
        self._check.words(path, words, PARALLEL)
        check_strategy(self._check, (*path, "strategy"), words.get("strategy", "thread"))
        value = words.get("max_concurrency", MAX_CONCURRENCY)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_THREADS:
            message = f"`max_concurrency` must be a whole number from 1 to {MOST_THREADS}"
            raise self._check.refused((*path, "max_concurrency"), message)
        return value

    def _version(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._check.refused(("version",), f"`version` must be text or a number, not {kind_of(value)}")
        return str(value)

    def _raises(self, config: dict[str, Any]) -> bool:
        self._check.words(("config",), config, CONFIG, later=_LATER_CONFIG)
        return self._check.boolean(
            ("config", "raise_exceptions"), config.get("raise_exceptions", self._raises_otherwise)
        )

    def _declared(self, path: Path, schema: Any) -> tuple[str, ...]:
        """Check a schema of the state and return its keys. Only the names of types are checked, not values."""
        fields = self._check.mapping(path, schema)
        for key, value in fields.items():
            self._check_type((*path, key), value)
        return tuple(fields)

    def _check_type(self, path: Path, value: Any) -> None:
        if isinstance(value, dict):
            self._check.words(path, value, _FIELD)
            if "type" not in value:
                raise self._check.refused(path, f"`{path[-1]}` needs a `type`: one of {listed(TYPES)}")
            self._check_type((*path, "type"), value["type"])
            self._check.text((*path, "description"), value.get("description", ""))
            self._declared((*path, "properties"), value.get("properties"))
            return
        name = value.__name__ if isinstance(value, type) else value  # a dict may have Python's own types
        if not isinstance(name, str):
            raise self._check.refused(path, f"a type must be text, one of {listed(TYPES)}, not {kind_of(name)}")
        if name not in TYPES:
            like = _SAME_TYPES.get(name.lower())
            hint = f"; did you mean `{like}`?" if like else nearest(name, TYPES) or f"; known are {listed(TYPES)}"
            raise self._check.refused(path, f"unknown type `{name}`{hint}")

    def _ltm(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        for word in settings:
            if word != "ltm" and not word.startswith("ltm_"):
                hint = nearest(word, ["ltm", "llm", "parallel"]) or "; only `ltm`, `llm` and `parallel` are"
                message = f"`settings.{word}` is not supported yet{hint}"
                raise self._check.refused(("settings", word), message, key=True)
        if "ltm" in settings and not settings["ltm"]:
            message = "`settings.ltm` is empty: give it a `backend`, or leave it out"
            raise self._check.refused(("settings", "ltm"), message, key=True)
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
        raise self._check.refused(path, message, key=True)

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
            raise self._check.refused(path, str(error)) from error
