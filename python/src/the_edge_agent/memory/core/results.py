"""The result dicts of memory methods, and the exception for a failure where a method returns no dict."""

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
ENTRY_FIELDS = ("value", "metadata", "version")  # the fields of an entry in the result of retrieve_many
FILE_DAMAGED = "the file is damaged"  # the first words of every failure that a damaged file causes
ERROR_TYPES: frozenset[str] = frozenset(get_args(ErrorType))


def ok(**fields: Any) -> Result:
    """Return a success dict: ``{"success": True, **fields}``."""
    return {"success": True, **fields}


def conflict(key: str, version: int) -> LTMError:
    """Return the failure of a store whose ``if_version`` differs from ``version``, which is 0 if there is no entry."""
    return LTMError("conflict", f"the entry has version {version}, not the one required", key=key, version=version)


def found_entries(entries: dict[str, dict[str, Any] | None]) -> Result:
    """Return the success dict of ``retrieve_many``."""
    missing = sum(entry is None for entry in entries.values())
    return ok(entries=entries, found_count=len(entries) - missing, missing_count=missing)


def stored(key: str, version: int) -> Result:
    """Return the success dict of ``store``; version 1 means that the store created the entry."""
    return ok(stored=True, key=key, created=version == 1, version=version)


def page_of_keys(keys: list[str], limit: int) -> Result:
    """Return the success dict of ``list_keys``. ``keys`` has up to ``limit`` + 1 keys; the extra one means "more"."""
    return ok(keys=keys[:limit], next=keys[limit - 1] if len(keys) > limit else None)


def fail(error_type: ErrorType, error: str, **fields: Any) -> Result:
    """Return a failure dict: ``{"success": False, "error": str, "error_type": str, **fields}``."""
    return {"success": False, "error": error, "error_type": error_type, **fields}


class LTMError(Exception):
    """A failed call. Constructors, ``iterate_all`` and other calls that return no result dict raise it.

    Attributes:
        result: the failure dict, ``{"success": False, "error": str, "error_type": str}``.
        error_type: the same ``error_type``, one of ``ERROR_TYPES``.
    """

    def __init__(self, error_type: ErrorType, error: str, **fields: Any) -> None:
        """Make the exception, with the failure dict that has these fields."""
        super().__init__(error)
        self.result: Result = fail(error_type, error, **fields)

    @property
    def error_type(self) -> str:
        """The kind of failure, as in the failure dict."""
        return str(self.result["error_type"])

    @classmethod
    def of(cls, result: Result) -> LTMError:
        """Return the exception that carries a failure dict."""
        fields = {name: value for name, value in result.items() if name not in ("success", "error", "error_type")}
        return cls(result["error_type"], result["error"], **fields)

    def within(self, place: str) -> LTMError:
        """Return the same failure with a message that begins with ``place``, such as ``entries[3]``."""
        return LTMError.of({**self.result, "error": f"{place}: {self}"})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the whole result, so that a failure crosses process boundaries intact."""
        return LTMError.of, (dict(self.result),)


class LostDatabaseError(LTMError):
    """The open database is gone, for example because its file was replaced.

    The caller must close its connections; a later call opens new ones.
    """


def succeeded(result: Result) -> Result:
    """Return ``result`` if it is a success.

    Raises:
        LTMError: the result is a failure.
    """
    if not result["success"]:
        raise LTMError.of(result)
    return result


class Interrupts:
    """Counts the interrupts of calls, such as KeyboardInterrupt.

    Attributes:
        count: how many calls of this process were interrupted.
    """

    def __init__(self) -> None:
        """Begin to count."""
        self.count = 0

    def note(self, interrupt: BaseException) -> None:
        """Count an interrupt, and close the generators that it left suspended in the frames below the caller's.

        An interrupt may come between a ``with`` and its block. The generator of the ``with`` then stays suspended and
        holds its lock for as long as the traceback lives. Clearing the frames closes the generator.
        """
        self.count += 1
        clear_frames(interrupt.__traceback__)


interrupts = Interrupts()
Arguments = ParamSpec("Arguments")


def returns_result(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Turn an ``LTMError`` raised inside ``method`` into its failure dict.

    An interrupt (``KeyboardInterrupt``, or an exception that another thread raises in this one) is noted and goes on.
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
            interrupts.note(interrupt)
            raise

    return call
