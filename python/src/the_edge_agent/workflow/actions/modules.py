"""Actions of third parties: modules, files and entry points with a function ``register_actions(registry, engine)``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from the_edge_agent.workflow.errors import WorkflowError, describe, one_line

GROUP: Final = "the_edge_agent.actions"  # the group of entry points

_LONGEST: Final = 300  # characters of what a module says about its failure


class ActionsModuleError(WorkflowError):
    """A module with actions cannot be loaded, or its ``register_actions`` has failed."""


def register_installed(registry: dict[str, Callable[..., Any]], engine: Any) -> None:
    """Add the actions of installed packages, which have an entry point in the group ``the_edge_agent.actions``.

    It names a module with ``register_actions``, or this function itself.

    Raises:
        ActionsModuleError: one cannot be loaded, has failed, or would replace an action that is there.
    """
    for point in _installed():
        name = f"entry point `{point.name}` ({point.value})"
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:
            raise _failed(name, error) from error
        added: dict[str, Callable[..., Any]] = {}
        _register(name, loaded, added, engine)
        for action in added:
            if action in registry:
                raise ActionsModuleError(f"{name} has an action `{action}`, and there is one already")
        registry.update(added)


def register_module(
    module: str | PathLike[str] | ModuleType, registry: dict[str, Callable[..., Any]], engine: Any
) -> None:
    """Add the actions of a module, or replace those that are there.

    Args:
        module: a module, the name of one such as ``my_package.actions``, or a file that ends with ``.py``.
        registry: the actions by name.
        engine: the engine, which ``register_actions`` gets.

    Raises:
        ActionsModuleError: the module cannot be loaded, has no ``register_actions``, or this function has failed.
    """
    if isinstance(module, ModuleType):
        _register(f"actions module `{module.__name__}`", module, registry, engine)
        return
    text = fspath(module)
    name = f"actions module `{text}`"
    is_file = text.endswith(".py") or not isinstance(module, str)
    try:
        loaded = _from_file(Path(text)) if is_file else importlib.import_module(text)
    except ModuleNotFoundError as error:
        file = f"{text.replace('.', '/')}.py"
        hint = f"; write `{file}` for the file" if not is_file and Path(file).is_file() else ""
        raise ActionsModuleError(f"{name}: {one_line(str(error), _LONGEST)}{hint}") from error
    except FileNotFoundError as error:
        what = "there is no such file" if is_file and not Path(text).exists() else one_line(describe(error), _LONGEST)
        raise ActionsModuleError(f"{name}: {what}") from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error
    _register(name, loaded, registry, engine)


def _register(name: str, loaded: Any, registry: dict[str, Callable[..., Any]], engine: Any) -> None:
    register = getattr(loaded, "register_actions", None) if isinstance(loaded, ModuleType) else loaded
    if not callable(register):
        raise ActionsModuleError(f"{name} has no function `register_actions(registry, engine)`")
    try:
        register(registry, engine)
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error
    for action, function in registry.items():
        if not isinstance(action, str) or not callable(function):
            raise ActionsModuleError(f"{name} registered {action!r}, which is no name with a function")


def _failed(name: str, error: BaseException) -> ActionsModuleError:
    return ActionsModuleError(f"{name}: {one_line(describe(error), _LONGEST)}")


def _from_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that two files of one name do not meet."""
    file = path.resolve(strict=True)
    name = f"tea_actions_{file.stem}_{sha256(str(file).encode()).hexdigest()[:12]}"
    loader = SourceFileLoader(name, str(file))  # named here, because the name of the file may end with anything
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(file)))
    module.__file__ = str(file)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    return module


@cache
def _installed() -> Iterable[EntryPoint]:
    """Return the entry points. Looking for them reads the metadata of every package, so it is done once."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
