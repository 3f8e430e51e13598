"""Agents in YAML with a long-term memory on any SQL database."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from the_edge_agent.memory import (
        LongTermMemoryBackend,
        LTMBackend,
        PostgresBackend,
        SQLAlchemyBackend,
        SQLiteBackend,
        create_ltm_backend,
        expand_env_vars,
        get_registered_backends,
        parse_backend_config,
        register_backend,
    )
    from the_edge_agent.workflow import (
        END,
        START,
        NodeError,
        StateGraph,
        WorkflowError,
        WorkflowFileError,
        YAMLEngine,
    )

    __version__: str

_WORKFLOW_NAMES = ("END", "START", "NodeError", "StateGraph", "WorkflowError", "WorkflowFileError", "YAMLEngine")
__all__ = [
    "END",
    "START",
    "LTMBackend",
    "LongTermMemoryBackend",
    "NodeError",
    "PostgresBackend",
    "SQLAlchemyBackend",
    "SQLiteBackend",
    "StateGraph",
    "WorkflowError",
    "WorkflowFileError",
    "YAMLEngine",
    "__version__",
    "create_ltm_backend",
    "expand_env_vars",
    "get_registered_backends",
    "parse_backend_config",
    "register_backend",
]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import the_edge_agent.memory` does not load YAML and Jinja2.
    if name == "__version__":
        return import_module("importlib.metadata").version("the-edge-agent")
    if name in __all__:
        part = "workflow" if name in _WORKFLOW_NAMES else "memory"
        return getattr(import_module(f"the_edge_agent.{part}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
