"""Let a module offer names that another module defines, and import that module only when a name is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(home: str, module: str, *names: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` for ``module``: it imports ``home`` when a program first uses one of ``names``."""

    def find(name: str) -> Any:
        if name in names:
            return getattr(import_module(home), name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
