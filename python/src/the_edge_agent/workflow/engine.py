"""YAMLEngine: it loads agents and has the long-term memory that they share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from os import PathLike, environ, fspath
from threading import RLock
from types import ModuleType, TracebackType
from typing import Any

from the_edge_agent.memory import LTMBackend, LTMError, create_ltm_backend, parse_ltm_config
from the_edge_agent.workflow.absent import check_absent_parts
from the_edge_agent.workflow.actions.llm_settings import check_llm_settings
from the_edge_agent.workflow.actions.modules import register_installed, register_module
from the_edge_agent.workflow.actions.registry import Action, build_registry
from the_edge_agent.workflow.actions.web import Web
from the_edge_agent.workflow.errors import WorkflowFileError
from the_edge_agent.workflow.graph import CompiledGraph
from the_edge_agent.workflow.loader import load_agent
from the_edge_agent.workflow.model import Agent
from the_edge_agent.workflow.reading import Document, from_dict, read_file


class YAMLEngine:
    """Loads agents from YAML and gives them a long-term memory.

    The agents use the first of these memories:

    1. the argument ``ltm_backend``, which no file can replace;
    2. the memory that the last loaded file with ``settings.ltm`` configures;
    3. the memory that the arguments ``ltm_path`` or ``ltm_config`` configure;
    4. an SQLite database in RAM, created on first use.

    The engine closes the backends that it has created. The caller must close its own ``ltm_backend``.

    A file is trusted like a program, unless ``allow_code`` is False. Then the file can use only the memory and the
    environment variables that the constructor gets, and it cannot read files.

    Several threads may use one engine. It is a context manager; the end of the block closes it.

    Examples:
        >>> from the_edge_agent import YAMLEngine
        >>> with YAMLEngine() as engine:
        ...     hello = {"name": "hello", "run": "greeting = 'Hello ' + state['who']"}
        ...     for event in engine.load_from_dict({"nodes": [hello]}).invoke({"who": "Ana"}):
        ...         print(event["state"]["greeting"])
        Hello Ana

    Attributes:
        actions_registry: the actions by name, called as ``action(state, **arguments)``. Files that are loaded later
            can use actions that a program adds here.
    """

    def __init__(
        self,
        *,
        enable_ltm: bool = True,
        ltm_backend: LTMBackend | None = None,
        ltm_path: str | PathLike[str] | None = None,
        ltm_backend_type: str | None = None,
        ltm_config: Mapping[str, Any] | None = None,
        allow_code: bool = True,
        env: Mapping[str, str] | Iterable[str] | None = None,
        actions_registry: Mapping[str, Action] | None = None,
        actions_modules: Iterable[str | PathLike[str] | ModuleType] = (),
        llm: Mapping[str, Any] | None = None,
        on_chunk: Callable[[dict[str, Any]], object] | None = None,
        raise_exceptions: bool = True,
        secrets: Mapping[str, Any] | None = None,
        **absent: Any,
    ) -> None:
        """Make an engine.

        Args:
            enable_ltm: False makes every ``ltm.*`` action fail, and ``settings.ltm`` is ignored.
            ltm_backend: a memory to use; the engine never closes it. Files with ``settings.ltm`` are refused.
            ltm_path: a file for an SQLite memory.
            ltm_backend_type: the kind of memory for ``ltm_path`` and ``ltm_config``, "sqlalchemy" by default.
            ltm_config: the options that a file would have under ``settings.ltm``, without ``backend``.
            allow_code: False refuses files with ``run`` nodes or ``settings.ltm``, and limits the work of each run.
            env: the environment variables that files may read: their names, or a mapping of names to values. None
                means all of them; with ``allow_code=False`` it means none.
            actions_registry: actions of the program, by name. They are added to the built-in ones, or replace them.
            actions_modules: modules with a function ``register_actions(registry, engine)``: their names, files that end
                with ``.py``, or the modules themselves. They add actions, or replace others. Packages add theirs with
                an entry point in the group ``the_edge_agent.actions``.
            llm: the options that a file would have under ``settings.llm``. A file with these settings replaces them;
                with ``allow_code=False`` no file has them, and ``llm.call`` is there only if the program gives them.
            on_chunk: a function that gets ``{"type": "llm_chunk", "node": name, "content": text}`` for each part of
                the answer of a model to an ``llm.call`` with ``stream: true``, in the thread of the node.
            raise_exceptions: whether a failed node raises NodeError, in files that do not say so under ``config``.
                False ends the run with an event of the type ``error``.
            secrets: what templates find under ``secrets``, such as ``{"token": ...}``. It is for every file, so give
                files that you do not trust only what they may know.
            absent: arguments for parts that this engine does not have, such as ``enable_graph`` and ``lua_enabled``,
                for programs that switch these parts off.

        Raises:
            ActionsModuleError: a module of actions cannot be loaded, or has failed.
            LTMError: the memory cannot be created.
            TypeError: an argument is unknown; ``env`` is a string, or has a name or value that is not text.
            ValueError: more than one of ``ltm_backend``, ``ltm_path`` and ``ltm_config`` was passed, or
                ``ltm_backend`` and ``ltm_backend_type``; an argument switches on a part that this engine does not have;
                ``llm`` is not valid; ``actions_modules`` with ``allow_code=False``.
        """
        check_absent_parts(absent, inspect.signature(YAMLEngine).parameters)
        actions_modules = [actions_modules] if isinstance(actions_modules, str) else list(actions_modules)
        if actions_modules and not allow_code:
            raise ValueError("actions_modules run code, which allow_code=False refuses; pass actions_registry instead")
        if sum(argument is not None for argument in (ltm_backend, ltm_path, ltm_config)) > 1:
            raise ValueError("give one of ltm_backend, ltm_path and ltm_config")
        if ltm_backend is not None and ltm_backend_type is not None:
            raise ValueError("ltm_backend_type goes with ltm_path or ltm_config, not with ltm_backend")
        self._enable_ltm = enable_ltm
        self._allow_code = allow_code
        self._raises = raise_exceptions
        self._secrets = dict(secrets or {})
        self._env = _readable(env) if env is not None or allow_code else {}
        self._has_callers_backend = ltm_backend is not None
        self._lock = RLock()
        self._closed = False
        self._ltm_backend: LTMBackend | None = ltm_backend
        self._owns_backend = False
        if enable_ltm and any(argument is not None for argument in (ltm_path, ltm_config, ltm_backend_type)):
            config = {"path": fspath(ltm_path)} if ltm_path is not None else dict(ltm_config or {})
            self._ltm_backend = parse_ltm_config({"ltm": {"backend": ltm_backend_type or "sqlalchemy", **config}})
            self._owns_backend = True
        self._web = Web()
        self.actions_registry: dict[str, Action] = build_registry(
            self._memory,
            self._web,
            allow_code=allow_code,
            llm=None if llm is None else check_llm_settings(llm, self._env),
            env=self._env,
            on_chunk=on_chunk,
        )
        self._add_actions(actions_modules, actions_registry or {})

    def _add_actions(self, modules: Iterable[str | PathLike[str] | ModuleType], registry: Mapping[str, Action]) -> None:
        try:
            if self._allow_code:
                register_installed(self.actions_registry, self)
            for module in modules:
                register_module(module, self.actions_registry, self)
            self.actions_registry.update(registry)
        except BaseException:
            self.close()
            raise

    @property
    def ltm_backend(self) -> LTMBackend | None:
        """The memory in use. It is created now if there is none yet. None if ``enable_ltm`` is False."""
        return self._memory() if self._enable_ltm else None

    def load_from_file(self, path: str | PathLike[str]) -> CompiledGraph:
        """Load an agent from a YAML file.

        Raises:
            WorkflowFileError: the file cannot be read, is not a valid agent, or its memory cannot be created. The
                engine then keeps its memory.
        """
        return self._load(read_file(path))

    def load_from_dict(self, config: Mapping[str, Any]) -> CompiledGraph:
        """Load an agent from a dict with the contents of an agent file. The dict is copied.

        Raises:
            WorkflowFileError: as for ``load_from_file``.
        """
        return self._load(from_dict(config))

    def close(self) -> None:
        """Close the memory that the engine has created, and HTTP connections.

        Later actions that need them fail. Closing again does nothing.
        """
        with self._lock:
            self._closed = True
            self._replace_backend(None)
        self._web.close()

    def __enter__(self) -> YAMLEngine:
        """Return the engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close()

    def _load(self, document: Document) -> CompiledGraph:
        agent = load_agent(
            document,
            self.actions_registry,
            allow_code=self._allow_code,
            env=self._env,
            raises=self._raises,
            secrets=self._secrets,
        )
        if agent.ltm is not None and self._enable_ltm:
            self._configure(agent)
        return CompiledGraph(agent, self.actions_registry)

    def _configure(self, agent: Agent) -> None:
        with self._lock:
            if self._closed:
                raise WorkflowFileError("the engine is closed", agent.ltm_place)
            if self._has_callers_backend:
                message = "`settings.ltm` can't replace the memory that the host gives: leave it out"
                raise WorkflowFileError(message, agent.ltm_place if agent.ltm_place.line is not None else None)
            try:
                backend = parse_ltm_config(agent.ltm or {}, self._env)
            except (LTMError, ImportError, ValueError) as error:
                message = str(error)
                if not message.startswith("settings."):  # messages that begin so already name the key
                    message = f"settings.ltm: {message}"
                in_file = agent.ltm_place.line is not None
                raise WorkflowFileError(message, agent.ltm_place if in_file else None) from error
            self._replace_backend(backend)  # only now, so that a bad configuration leaves the old memory in use

    def _replace_backend(self, backend: LTMBackend | None) -> None:
        old, owned = self._ltm_backend, self._owns_backend
        self._ltm_backend, self._owns_backend = backend, backend is not None
        if old is not None and owned:
            old.close()

    def _memory(self) -> LTMBackend:
        if not self._enable_ltm:
            raise LTMError(
                "configuration_error",
                "long-term memory is switched off: make the engine with enable_ltm=True",
            )
        with self._lock:
            if self._closed:
                raise LTMError("connection_error", "the engine is closed")
            if self._ltm_backend is None:
                self._ltm_backend, self._owns_backend = create_ltm_backend("sqlite"), True
            return self._ltm_backend


def _readable(env: Mapping[str, str] | Iterable[str] | None) -> dict[str, str] | None:
    """Return the environment variables that files may read, or None for all."""
    if env is None:
        return None
    if isinstance(env, str):
        raise TypeError("env must be a mapping or a list of names, not one text")
    names = list(env)
    values = list(env.values()) if isinstance(env, Mapping) else []
    if not all(isinstance(text, str) for text in (*names, *values)):
        raise TypeError("the names and values of env must be text")
    return dict(env) if isinstance(env, Mapping) else {name: environ[name] for name in names if name in environ}
