"""The registry of actions: their names, the check of their arguments, and the call of an action."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from the_edge_agent.memory import NOT_GIVEN, LTMBackend, LTMError
from the_edge_agent.workflow.actions import llm_shell
from the_edge_agent.workflow.actions.absent import why_absent
from the_edge_agent.workflow.actions.catalog import CATALOG_ACTIONS
from the_edge_agent.workflow.actions.files import FILE_ACTIONS
from the_edge_agent.workflow.actions.json_text import JSON_ACTIONS
from the_edge_agent.workflow.actions.llm import PROVIDER, Models, llm_actions
from the_edge_agent.workflow.actions.ltm import LTM_ACTIONS
from the_edge_agent.workflow.actions.run_memory import run_memory_actions
from the_edge_agent.workflow.actions.web import Web, http_actions
from the_edge_agent.workflow.errors import ActionError, most_like, nearest
from the_edge_agent.workflow.logs import logged

Action: TypeAlias = Callable[..., Any]
"""A function that is called as ``action(state, **arguments)``.

A result with ``success: False`` is a failure, and so is an LTMError. A coroutine function is awaited on the event loop
of the program that runs the agent.
"""

AWAITER: Final[ContextVar[Callable[[Awaitable[Any]], Any] | None]] = ContextVar(
    "what waits for an action", default=None
)
"""The function that waits until an event loop has awaited the result of an action; None without an event loop."""

STOPPER: Final[ContextVar[Callable[[], AbstractContextManager[object]]]] = ContextVar(
    "lets an action be stopped", default=nullcontext
)
"""The function that returns what surrounds an action that only reads, so that it is stopped with its task."""

_ONLY_READS: Final = "only_reads"  # an attribute of built-in actions
_READS: Final = frozenset(
    {
        *("ltm.retrieve", "ltm.retrieve_many", "ltm.search", "ltm.list", "ltm.entries", "ltm.count", "ltm.measure"),
        *("ltm.list_namespaces", "catalog.get", "catalog.list", "catalog.snapshots", "catalog.changes"),
    }
)
_ALIAS = "actions."
_SEPARATOR = re.compile(r"[._]")
_REMOVES = frozenset({"clean", "cleanup", "clear", "delete", "drop", "erase", "forget", "purge", "remove"})
_LIKENESS = 0.6  # least likeness of two names of actions, without their namespaces
_FOR_TRUSTED_FILES = frozenset({"file.read", "file.write", "http.get", "http.post", "llm.call", "llm.chat"})
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def build_registry(
    memory: Callable[[], LTMBackend],
    web: Web,
    *,
    allow_code: bool,
    llm: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    on_chunk: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Action]:
    """Return the built-in actions by name. Each has two names, such as ``ltm.store`` and ``actions.ltm_store``.

    Those of the memory and the catalog take ``namespace`` too: a list of names. They then use this namespace.

    Args:
        memory: a function that returns the backend; it is called when an action needs the backend. If it raises
            LTMError or ImportError, the action returns a failure.
        web: the HTTP client.
        allow_code: whether files may use the actions that reach files and the network.
        llm: the settings of the host for language models. With them all files may ask models.
        env: the environment variables that may be read; None for all.
        on_chunk: gets an event for each part of an answer that is streamed.
    """
    registry: dict[str, Action] = {}
    actions: dict[str, Action] = {
        name: _with_memory(function, memory) for name, function in {**LTM_ACTIONS, **CATALOG_ACTIONS}.items()
    }
    actions |= {**run_memory_actions(), **JSON_ACTIONS}
    if allow_code:
        actions |= {**FILE_ACTIONS, **http_actions(web)}
        llm_shell.register_actions(actions, None)
    if allow_code or llm is not None:
        actions |= llm_actions(Models(web, registry, llm, env, on_chunk, allow_code))
    for name in _READS:
        setattr(actions[name], _ONLY_READS, True)
    registry.update({**actions, **{alias(name): action for name, action in actions.items()}})
    return registry


def alias(name: str) -> str:
    """Return the second name of an action: ``actions.ltm_store`` for ``ltm.store``."""
    return _ALIAS + name.replace(".", "_")


def nearest_action(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean `x`?`` with the most similar action of the same namespace, or ``""``.

    For an action that is not here on purpose it is the reason instead. An action that removes something is never
    suggested, because somebody might just try it.
    """
    if why := _why_not_here(name):
        return why
    namespace, word = _split(name)
    candidates: dict[str, str] = {}
    for action in names:
        place, action_word = _split(action)
        has_same_form = action.startswith(_ALIAS) == name.startswith(_ALIAS)
        if place == namespace and (action_word not in candidates or has_same_form):
            candidates[action_word] = action
    match = most_like(word, candidates, _LIKENESS)
    return "" if match is None or _REMOVES & {*_SEPARATOR.split(match)} else f"; did you mean `{candidates[match]}`?"


def known_actions(name: str, names: Iterable[str]) -> str:
    """Return ``; there are ...`` with the actions of the same namespace, or with all namespaces if there are none."""
    full_names = sorted({full_name for full_name in names if not full_name.startswith((_ALIAS, PROVIDER))})
    namespace = _split(name)[0]
    shown = [f"`{full_name}`" for full_name in full_names if namespace and _split(full_name)[0] == namespace]
    groups = dict.fromkeys(f"`{_split(full_name)[0]}.*`" for full_name in full_names)
    return f"; there are {', '.join(shown or groups)}"


def _why_not_here(name: str) -> str:
    full_name = _SEPARATOR.sub(".", name.removeprefix(_ALIAS), count=1)
    if full_name in _FOR_TRUSTED_FILES:
        return ": a file that may not run code can't use it"
    return why_absent(full_name)


def _split(name: str) -> tuple[str, str]:
    """Return the namespace of an action and the rest of its name: ``ltm`` and ``store_many``."""
    *namespace, word = _SEPARATOR.split(name.removeprefix(_ALIAS), maxsplit=1)
    return "".join(namespace), word.replace(".", "_")


def check_arguments(action: Action, names: list[str]) -> tuple[str, str] | None:
    """Check the names of the arguments that a node passes, before anything runs.

    Returns:
        None if they are right; otherwise the name of the argument (empty if one is missing) and the fault.
    """
    try:
        parameters = list(inspect.signature(action).parameters.values())[1:]  # without the state
    except (TypeError, ValueError):  # a callable without a signature
        return None
    accepted = [parameter.name for parameter in parameters if parameter.kind in _NAMED]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        for name in names:
            if name not in accepted:
                hint = nearest(name, accepted) or f"; it takes {', '.join(f'`{word}`' for word in accepted) or 'none'}"
                return name, f"has no argument `{name}`{hint}"
    for parameter in parameters:
        if parameter.kind in _NAMED and parameter.default is parameter.empty and parameter.name not in names:
            return "", f"needs the argument `{parameter.name}`"
    return None


def call_action(
    registry: Mapping[str, Action], name: str, state: dict[str, Any], /, *args: Any, **arguments: Any
) -> Any:
    """Call an action for a node.

    Raises:
        ActionError: the action is unknown, returned ``success: False`` or raised LTMError, as a memory may do; or it is
            asynchronous, and there is no event loop.
    """
    action = registry.get(name)
    if action is None:
        raise ActionError(name, {"error": "there is no such action", "error_type": "configuration_error"})
    with logged("action", name):
        try:
            result = action(state, *args, **arguments)
            if inspect.isawaitable(result):
                result = awaited(name, result)
        except LTMError as failure:
            result = failure.result
        if isinstance(result, dict) and result.get("success") is False:
            raise ActionError(name, result)
        return result


def stoppable(
    registry: Mapping[str, Action], name: str, arguments: Mapping[str, Any]
) -> AbstractContextManager[object]:
    """Return what must surround the call of an action, so that it is stopped with its task if it only reads."""
    only_reads = getattr(registry.get(name), _ONLY_READS, False) and not arguments.get("refresh_ttl")
    return STOPPER.get()() if only_reads else nullcontext()


def awaited(name: str, answer: Awaitable[Any]) -> Any:
    """Return what an event loop gets when it awaits ``answer`` for the action or node ``name``.

    Raises:
        ActionError: there is no event loop.
    """
    wait_for = AWAITER.get()
    if wait_for is not None:
        return wait_for(answer)
    if inspect.iscoroutine(answer):
        answer.close()  # otherwise Python warns that nobody awaited it
    message = "it is asynchronous: run the agent with `ainvoke` or `astream`"
    raise ActionError(name, {"error": message, "error_type": "configuration_error"})


class Actions:
    """The object ``actions`` in ``run`` code, as in ``actions.ltm_store(key=..., value=...)``."""

    def __init__(self, registry: Mapping[str, Action], state: dict[str, Any]) -> None:
        """Offer the actions of ``registry``, which get ``state`` as their first argument."""
        self._registry = registry
        self._state = state

    def __getattr__(self, name: str) -> Action:
        """Return the action with this name, written with underscores. The action raises ActionError if it fails."""
        if name.startswith("_"):
            raise AttributeError(name)
        names: dict[str, str] = {}
        for full_name in self._registry:
            names.setdefault(full_name.removeprefix(_ALIAS).replace(".", "_"), full_name)
        if name not in names:
            raise AttributeError(f"there is no action `{name}`{nearest_action(name, names)}")

        def call(*args: Any, **arguments: Any) -> Any:
            return call_action(self._registry, names[name], self._state, *args, **arguments)

        return call


def _with_memory(function: Callable[..., Mapping[str, Any]], memory: Callable[[], LTMBackend]) -> Action:
    parameters = list(inspect.signature(function).parameters.values())[1:]  # without the memory
    state_parameter = inspect.Parameter("state", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    namespace_parameter = inspect.Parameter("namespace", inspect.Parameter.KEYWORD_ONLY, default=NOT_GIVEN)
    signature = inspect.Signature([state_parameter, *parameters, namespace_parameter])

    def action(state: dict[str, Any], *args: Any, namespace: Any = NOT_GIVEN, **arguments: Any) -> dict[str, Any]:
        signature.bind(state, *args, **arguments)  # raises TypeError for wrong arguments, before the memory is opened
        try:
            names = None if namespace is NOT_GIVEN else _checked_names(namespace)
            whole = memory()
            return dict(function(whole if names is None else whole.namespace(*names), *args, **arguments))
        except LTMError as failure:
            return dict(failure.result)
        except ImportError as failure:
            return {"success": False, "error": str(failure), "error_type": "dependency_missing"}

    action.__doc__ = function.__doc__
    action.__name__ = action.__qualname__ = function.__name__
    action.__signature__ = signature  # type: ignore[attr-defined]
    return action


def _checked_names(namespace: Any) -> Sequence[str]:
    """Return the names of a namespace.

    Raises:
        LTMError: ``validation_error``. A value that is missing in the state must not mean the whole memory.
    """
    if not isinstance(namespace, (list, tuple)) or not namespace:
        shown = "an empty list" if namespace in ([], ()) else type(namespace).__name__
        message = f"namespace must be a list of at least one name, not {shown}; leave it out for the whole memory"
        raise LTMError("validation_error", message)
    for place, name in enumerate(namespace):
        if not isinstance(name, str):
            raise LTMError("validation_error", f"namespace[{place}] must be text, not {type(name).__name__}")
        if not name:
            raise LTMError("validation_error", f"namespace[{place}] must not be empty")
    return namespace
