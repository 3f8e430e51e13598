"""The result dicts of memory methods, and the exception for a failure where a method returns no dict."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from traceback import clear_frames
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, cast, get_args

Result: TypeAlias = Any  # a result dict of any type of results
Typed = TypeVar("Typed", bound=Mapping[str, Any])  # a type of results, such as StoreResult

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


def ok(**fields: Any) -> Typed:  # type: ignore[type-var]
    """Return a success dict: ``{"success": True, **fields}``. It has the type of results that its place expects."""
    return cast(Typed, {"success": True, **fields})


def conflict(key: str, version: int) -> LTMError:
    """Return the failure of a store whose ``if_version`` differs from ``version``, which is 0 if there is no entry."""
    return LTMError("conflict", f"the entry has version {version}, not the one required", key=key, version=version)


def already_there(key: str, version: int) -> LTMError:
    """Return the failure of an import whose key has an entry with this version."""
    return LTMError(
        "conflict", f"there is an entry with this key already, of version {version}", key=key, version=version
    )


def found_entries(entries: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """Return the success dict of ``retrieve_many``."""
    missing = sum(entry is None for entry in entries.values())
    return {"success": True, "entries": entries, "found_count": len(entries) - missing, "missing_count": missing}


def stored(key: str, version: int) -> Result:
    """Return the success dict of ``store``; version 1 means that the store created the entry."""
    return ok(stored=True, key=key, created=version == 1, version=version)


def scored(key: str, entry: dict[str, Any], score: float) -> dict[str, Any]:
    """Return a result of ``search`` for an entry that has no key yet. This changes ``entry``."""
    return {"key": key, "value": entry.pop("value"), "metadata": entry.pop("metadata"), "score": score, **entry}


def page_of_keys(keys: list[str], limit: int) -> dict[str, Any]:
    """Return the fields of the success dict of ``list_keys``.

    ``keys`` has up to ``limit`` + 1 keys; the extra one means "more".
    """
    return {"keys": keys[:limit], "next": keys[limit - 1] if len(keys) > limit else None}


def fail(error_type: ErrorType, error: str, **fields: Any) -> dict[str, Any]:
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
        self.result: dict[str, Any] = fail(error_type, error, **fields)

    @property
    def error_type(self) -> str:
        """The kind of failure, as in the failure dict."""
        return str(self.result["error_type"])

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> LTMError:
        """Return the exception that carries a failure dict."""
        fields = {name: value for name, value in result.items() if name not in ("success", "error", "error_type")}
        return cls(result["error_type"], result["error"], **fields)

    def with_fields(self, **fields: Any) -> LTMError:
        """Return the same failure with further fields in its result."""
        return LTMError.of({**self.result, **fields})

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


def outcome_of(call: Callable[..., Typed], *args: Any, **kwargs: Any) -> Typed:
    """Call a method of a memory or catalog; return its result dict, also if it raises its failures."""
    try:
        return call(*args, **kwargs)
    except LTMError as failure:
        return cast(Typed, failure.result)


def succeeded(result: Typed) -> Typed:
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


def returns_result(method: Callable[Arguments, Typed]) -> Callable[Arguments, Typed]:
    """Turn an ``LTMError`` raised inside ``method`` into its failure dict.

    An object may have a method ``_reported`` that takes the error, and returns another dict or raises. An interrupt
    (``KeyboardInterrupt``, or an exception that another thread raises in this one) is noted and goes on.
    """

    @functools.wraps(method)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Typed:
        try:
            return method(*args, **kwargs)
        except LTMError as failure:
            return cast(Typed, reported(args[0], failure))
        except Exception:
            raise
        except BaseException as interrupt:
            interrupts.note(interrupt)
            raise

    call.without_report = method  # type: ignore[attr-defined]
    return call


def reported(owner: Any, failure: LTMError) -> Any:
    """Return the failure dict of a method of ``owner``, or raise the failure if ``owner`` raises its failures."""
    report = getattr(owner, "_reported", None)
    return failure.result if report is None else report(failure)
