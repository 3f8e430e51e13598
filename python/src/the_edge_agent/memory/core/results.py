"""The dicts that memory methods return, and the exception that carries a failure where no dict can."""

from __future__ import annotations

import functools
from collections.abc import Callable
from traceback import clear_frames
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
ENTRY_FIELDS = ("value", "metadata", "version")  # of an entry in the result of retrieve_many
FILE_DAMAGED = "the file is damaged"  # how a failure begins that a damaged file is the reason of
ERROR_TYPES: frozenset[str] = frozenset(get_args(ErrorType))


def ok(**fields: Any) -> Result:
    """Return a success dict: ``{"success": True, **fields}``."""
    return {"success": True, **fields}


def conflict(key: str, version: int) -> LTMError:
    """Return the failure of an ``if_version`` that does not hold: the entry has ``version``, 0 if it is not there."""
    return LTMError("conflict", f"the entry has version {version}, not the one required", key=key, version=version)


def found_entries(entries: dict[str, dict[str, Any] | None]) -> Result:
    """Return the success dict of ``retrieve_many``."""
    missing = sum(entry is None for entry in entries.values())
    return ok(entries=entries, found_count=len(entries) - missing, missing_count=missing)


def stored(key: str, version: int) -> Result:
    """Return the success dict of ``store``: an entry of version 1 was created."""
    return ok(stored=True, key=key, created=version == 1, version=version)


def page_of_keys(keys: list[str], limit: int) -> Result:
    """Return the success dict of ``list_keys`` from up to ``limit`` + 1 keys: one too many tells that more follow."""
    return ok(keys=keys[:limit], next=keys[limit - 1] if len(keys) > limit else None)


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

    @classmethod
    def of(cls, result: Result) -> LTMError:
        """Return the exception of a failure dict."""
        fields = {name: value for name, value in result.items() if name not in ("success", "error", "error_type")}
        return cls(result["error_type"], result["error"], **fields)

    def within(self, place: str) -> LTMError:
        """Return the same failure with a message that begins with ``place``."""
        return LTMError.of({**self.result, "error": f"{place}: {self}"})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the whole result, so that a failure crosses process boundaries intact."""
        return LTMError.of, (dict(self.result),)


class LostDatabaseError(LTMError):
    """The database that is open was taken away: what is open must be closed, and opened anew by a later call."""


def succeeded(result: Result) -> Result:
    """Return the result of a call that succeeded.

    Raises:
        LTMError: it is a failure.
    """
    if not result["success"]:
        raise LTMError.of(result)
    return result


Arguments = ParamSpec("Arguments")


def returns_result(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Turn an ``LTMError`` raised inside ``method`` into its failure dict.

    An interrupt (``KeyboardInterrupt``, or what another thread raises in this one) may strike between a ``with`` and
    its block. The generator behind the ``with`` then waits, with its lock, for as long as somebody keeps the traceback.
    So the frames below this one are cleared, which closes it.
    """

    @functools.wraps(method)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return method(*args, **kwargs)
        except LTMError as failure:
            return failure.result
        except Exception:
            raise
        except BaseException as interrupt:
            clear_frames(interrupt.__traceback__)
            raise

    return call
