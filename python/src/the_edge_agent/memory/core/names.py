"""Names that programs import from a module other than the one that has them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def found_in(home: str, module: str, *names: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module: it loads ``home`` when one of ``names`` is first asked for."""

    def find(name: str) -> Any:
        if name in names:
            return getattr(import_module(home), name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
