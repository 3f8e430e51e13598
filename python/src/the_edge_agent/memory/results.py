"""The dicts that memory methods return, and the exception that carries a failure where no dict can."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeAlias, get_args

Result: TypeAlias = dict[str, Any]

ErrorType: TypeAlias = Literal[
    "validation_error",
    "serialization_error",
    "connection_error",
    "connection_timeout",
    "auth_failed",
    "lock_timeout",
    "query_error",
    "conflict",
    "dependency_missing",
    "catalog_error",
    "configuration_error",
]
ERROR_TYPES: frozenset[str] = frozenset(get_args(ErrorType))


def ok(**fields: Any) -> Result:
    """Return a success dict: ``{"success": True, **fields}``."""
    return {"success": True, **fields}


def fail(error_type: ErrorType, error: str, **fields: Any) -> Result:
    """Return a failure dict: ``{"success": False, "error": str, "error_type": str, **fields}``."""
    return {"success": False, "error": error, "error_type": error_type, **fields}


class LTMError(Exception):
    """A failed memory call, raised where a method returns no dict (constructors, ``iterate_all``).

    Attributes:
        result: the failure dict, ``{"success": False, "error": str, "error_type": str}``.
        error_type: the same ``error_type``, one of ``ERROR_TYPES``.
    """

    def __init__(self, error_type: ErrorType, error: str, **fields: Any) -> None:
        """Make the exception of a failure dict with these fields."""
        super().__init__(error)
        self.result: Result = fail(error_type, error, **fields)

    @property
    def error_type(self) -> str:
        """The kind of failure, as in the failure dict."""
        return str(self.result["error_type"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the whole result, so that a failure crosses process boundaries intact."""
        return _rebuild, (dict(self.result),)


def _rebuild(result: Result) -> LTMError:
    fields = {k: v for k, v in result.items() if k not in ("success", "error", "error_type")}
    return LTMError(result["error_type"], result["error"], **fields)


Arguments = ParamSpec("Arguments")


def returns_result(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Turn an ``LTMError`` raised inside ``method`` into its failure dict."""

    @functools.wraps(method)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return method(*args, **kwargs)
        except LTMError as failure:
            return failure.result

    return call
