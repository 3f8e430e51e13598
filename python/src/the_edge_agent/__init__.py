"""Agents in YAML with a long-term memory on any SQL database."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from the_edge_agent.workflow import NodeError, WorkflowError, WorkflowFileError, YAMLEngine

    __version__: str

__all__ = ["NodeError", "WorkflowError", "WorkflowFileError", "YAMLEngine", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `import the_edge_agent.memory` pays neither for YAML nor for Jinja2.
    if name == "__version__":
        return import_module("importlib.metadata").version("the-edge-agent")
    if name in __all__:
        return getattr(import_module("the_edge_agent.workflow"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
