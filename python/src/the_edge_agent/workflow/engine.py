"""The engine: it loads agents and holds the long-term memory that they share."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from os import PathLike, environ, fspath
from threading import RLock
from types import TracebackType
from typing import Any

from the_edge_agent.memory import LTMBackend, LTMError, create_ltm_backend, parse_ltm_config
from the_edge_agent.workflow.absent import check_absent_parts
from the_edge_agent.workflow.actions.registry import Action, build_registry
from the_edge_agent.workflow.errors import WorkflowFileError
from the_edge_agent.workflow.graph import CompiledGraph
from the_edge_agent.workflow.loader import load_agent
from the_edge_agent.workflow.model import Agent
from the_edge_agent.workflow.reading import Document, from_dict, read_file


class YAMLEngine:
    """Loads agents from YAML and gives them a long-term memory.

    The memory is the ``ltm_backend`` that was given, which no file replaces; else what the last loaded file with
    ``settings.ltm`` configures there; else what was configured here; else an SQLite database in the process's
    memory, made when it is first used. The engine closes the backends that it made; an ``ltm_backend`` that was
    given is its owner's to close.

    A file is trusted like a program unless ``allow_code`` is False. Then it has what is given here and nothing
    else: this memory, these environment variables, and no files.

    An engine may be used from several threads. It is a context manager; leaving it closes it.

    Example:
        >>> from the_edge_agent import YAMLEngine
        >>> with YAMLEngine() as engine:
        ...     hello = {"name": "hello", "run": "greeting = 'Hello ' + state['who']"}
        ...     for event in engine.load_from_dict({"nodes": [hello]}).invoke({"who": "Ana"}):
        ...         print(event["state"]["greeting"])
        Hello Ana

    Attributes:
        actions_registry: the actions by name, called as ``action(state, **arguments)``. What is added here
            can be used by the files that are loaded afterwards.
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
        **absent: Any,
    ) -> None:
        """Make an engine.

        Args:
            enable_ltm: False makes every ``ltm.*`` action fail and leaves ``settings.ltm`` alone.
            ltm_backend: a memory to use; the engine never closes it. Files with ``settings.ltm`` are refused.
            ltm_path: a file for an SQLite memory.
            ltm_backend_type: the kind of memory for ``ltm_path`` and ``ltm_config``, "sqlalchemy" by default.
            ltm_config: what a file would say under ``settings.ltm``, without ``backend``.
            allow_code: False refuses files with ``run`` nodes or ``settings.ltm``, and bounds what one run may do.
            env: the environment variables that files may read: their names, or a mapping of names to values. None
                means all of them; with ``allow_code=False``, none.
            actions_registry: actions of the host, by name, besides or in place of the built-in ones.
            absent: words of parts that this engine does not have, such as ``enable_graph`` and ``lua_enabled``, for
                programs that switch these parts off.

        Raises:
            LTMError: the memory can't be made.
            TypeError: an unknown word; ``env`` is a text, or has a name or value that is none.
            ValueError: more than one of ``ltm_backend``, ``ltm_path`` and ``ltm_config``, or a backend and a
                type; a word that switches on a part that there is not.
        """
        check_absent_parts(absent, inspect.signature(YAMLEngine).parameters)
        if sum(given is not None for given in (ltm_backend, ltm_path, ltm_config)) > 1:
            raise ValueError("give one of ltm_backend, ltm_path and ltm_config")
        if ltm_backend is not None and ltm_backend_type is not None:
            raise ValueError("ltm_backend_type goes with ltm_path or ltm_config, not with ltm_backend")
        self._enable_ltm = enable_ltm
        self._allow_code = allow_code
        self._env = _readable(env) if env is not None or allow_code else {}
        self._is_given = ltm_backend is not None
        self._lock = RLock()
        self._closed = False
        self._ltm_backend: LTMBackend | None = ltm_backend
        self._owns_backend = False
        if enable_ltm and any(given is not None for given in (ltm_path, ltm_config, ltm_backend_type)):
            config = {"path": fspath(ltm_path)} if ltm_path is not None else dict(ltm_config or {})
            self._ltm_backend = parse_ltm_config({"ltm": {"backend": ltm_backend_type or "sqlalchemy", **config}})
            self._owns_backend = True
        self.actions_registry: dict[str, Action] = {**build_registry(self._memory), **(actions_registry or {})}

    @property
    def ltm_backend(self) -> LTMBackend | None:
        """The memory in use, made now if need be; None when it is not enabled."""
        return self._memory() if self._enable_ltm else None

    def load_from_file(self, path: str | PathLike[str]) -> CompiledGraph:
        """Load an agent from a YAML file.

        Raises:
            WorkflowFileError: the file can't be read, is not a valid agent, or its memory can't be made. The
                engine is then as it was before.
        """
        return self._load(read_file(path))

    def load_from_dict(self, config: Mapping[str, Any]) -> CompiledGraph:
        """Load an agent from a dict with the contents of an agent file; it is copied.

        Raises:
            WorkflowFileError: as for ``load_from_file``.
        """
        return self._load(from_dict(config))

    def close(self) -> None:
        """Close the memory that the engine made; afterwards ``ltm.*`` actions fail. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self._replace_backend(None)

    def __enter__(self) -> YAMLEngine:
        """Return the engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close()

    def _load(self, document: Document) -> CompiledGraph:
        agent = load_agent(document, self.actions_registry, allow_code=self._allow_code, env=self._env)
        if agent.ltm is not None and self._enable_ltm:
            self._configure(agent)
        return CompiledGraph(agent, self.actions_registry)

    def _configure(self, agent: Agent) -> None:
        with self._lock:
            if self._closed:
                raise WorkflowFileError("the engine is closed", agent.ltm_place)
            if self._is_given:
                message = "`settings.ltm` can't replace the memory that the host gives: leave it out"
                raise WorkflowFileError(message, agent.ltm_place if agent.ltm_place.line is not None else None)
            try:
                backend = parse_ltm_config(agent.ltm or {}, self._env)
            except (LTMError, ImportError, ValueError) as error:
                message = str(error)
                if not message.startswith("settings."):  # those messages of the memory name the key themselves
                    message = f"settings.ltm: {message}"
                in_file = agent.ltm_place.line is not None
                raise WorkflowFileError(message, agent.ltm_place if in_file else None) from error
            self._replace_backend(backend)  # only now: a configuration that fails leaves the old memory in place

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
    """Return the environment variables that files may read, None for all."""
    if env is None:
        return None
    if isinstance(env, str):
        raise TypeError("env must be a mapping or a list of names, not one text")
    names = list(env)
    values = list(env.values()) if isinstance(env, Mapping) else []
    if not all(isinstance(text, str) for text in (*names, *values)):
        raise TypeError("the names and values of env must be text")
    return dict(env) if isinstance(env, Mapping) else {name: environ[name] for name in names if name in environ}
