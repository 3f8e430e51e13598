"""The ``memory.*`` actions: values that live as long as the run. All nodes and branches of the run share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from the_edge_agent.workflow.actions.failures import (
    FailureError,
    checked_seconds,
    checked_text,
    returning_failures,
)
from the_edge_agent.workflow.errors import describe
from the_edge_agent.workflow.runs import Values, current_run

DEFAULT = "default"  # the namespace of a call without one


def run_memory_actions() -> dict[str, Callable[..., Any]]:
    """Return the actions by name. Calls outside of a run, from a program, have values of their own."""
    outside = Values()

    def values() -> Values:
        run = current_run()
        return outside if run is None else run.values

    def store(
        state: dict[str, Any], key: str, value: Any, ttl: float | None = None, namespace: str = DEFAULT
    ) -> dict[str, Any]:
        """Keep a value until the run ends, or for ``ttl`` seconds."""
        place = checked_text(namespace, "namespace"), checked_text(key, "key")
        seconds = None if ttl is None else checked_seconds(ttl, "ttl")
        try:
            values().set(*place, value, seconds)
        except Exception as error:
            raise FailureError("validation_error", f"the value can't be copied: {describe(error)}") from error
        return {"success": True, "stored": True, "key": key, "namespace": namespace}

    def retrieve(state: dict[str, Any], key: str, default: Any = None, namespace: str = DEFAULT) -> dict[str, Any]:
        """Read a value. If there is none, the value is ``default``."""
        value, found = values().get(checked_text(namespace, "namespace"), checked_text(key, "key"), default)
        return {"success": True, "value": value, "found": found, "key": key}

    def delete(state: dict[str, Any], key: str, namespace: str = DEFAULT) -> dict[str, Any]:
        """Delete a value. It is no failure if there is none."""
        deleted = values().delete(checked_text(namespace, "namespace"), checked_text(key, "key"))
        return {"success": True, "deleted": deleted, "key": key}

    actions: dict[str, Callable[..., Any]] = {
        "memory.store": store,
        "memory.retrieve": retrieve,
        "memory.delete": delete,
    }
    return {name: returning_failures(action) for name, action in actions.items()}
