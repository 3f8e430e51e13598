"""How an action of this package fails: it raises ``FailureError``, which becomes a result with ``success: False``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from the_edge_agent.memory import LTMError


class FailureError(Exception):
    """A failed action.

    Attributes:
        result: the result dict, with ``success``, ``error`` and ``error_type``.
    """

    def __init__(self, error_type: str, error: str, **fields: Any) -> None:
        """Make the exception, with a result dict that has these fields."""
        super().__init__(error)
        self.result: dict[str, Any] = {"success": False, "error": error, "error_type": error_type, **fields}


def returning_failures(action: Callable[..., Any]) -> Callable[..., Any]:
    """Return the action; instead of raising ``FailureError`` or ``LTMError`` it returns the result dict."""

    @functools.wraps(action)
    def wrapped(*args: Any, **arguments: Any) -> Any:
        try:
            return action(*args, **arguments)
        except (FailureError, LTMError) as failure:
            return dict(failure.result)

    return wrapped


def checked_text(value: Any, name: str) -> str:
    """Return an argument that must be text and not empty. Raises ``FailureError``."""
    if not isinstance(value, str):
        raise FailureError("validation_error", f"{name} must be text, not {type(value).__name__}")
    if not value:
        raise FailureError("validation_error", f"{name} must not be empty")
    return value


def checked_seconds(value: Any, name: str) -> float:
    """Return an argument that must be a number of seconds, from a millisecond to a day. Raises ``FailureError``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0.001 <= value <= 86_400:
        raise FailureError("validation_error", f"{name} must be a number of seconds, from 0.001 to 86400")
    return float(value)
