"""One call of a method: make it on a memory, and write it for a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from the_edge_agent.memory import LTMError
from the_edge_agent.testing.differential.answers import SnapshotId

_NO_SNAPSHOT: Final = str(UUID(int=0))
_SHOWN: Final = 200  # characters of an argument that a report shows


class _LeftError(Exception):
    """Raised to leave a ``with`` block early."""


@dataclass(frozen=True)
class Operation:
    """A call of a method with its arguments, on a namespace of one of the handles."""

    name: str
    arguments: dict[str, Any]
    handle: int = 0
    namespace: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write the call as Python code, with long arguments cut."""
        arguments = ", ".join(f"{name}={shown(value)}" for name, value in self.arguments.items())
        part = f".namespace({', '.join(map(repr, self.namespace))})" if self.namespace else ""
        return f"memory{self.handle or ''}{part}.{self.name}({arguments})"


def perform(memory: Any, operation: Operation, snapshots: dict[int, str]) -> Any:
    """Make the call and return its answer. If it raises an ``LTMError``, return the ``result`` of the error.

    Args:
        memory: the memory on which to call.
        operation: the call.
        snapshots: the ids of the snapshots that were created, by number.
    """
    arguments: dict[str, Any] = {
        name: snapshots.get(value.number, _NO_SNAPSHOT) if isinstance(value, SnapshotId) else value
        for name, value in operation.arguments.items()
    }
    try:
        if operation.namespace:
            memory = memory.namespace(*operation.namespace)
        if operation.name == "pages":
            return _pages(memory, **arguments)
        if operation.name == "transaction":
            return _transaction(memory, **arguments)
        if operation.name == "iterate_all":
            return [[*entry] for entry in memory.iterate_all(**arguments)]
        if operation.name == "iterate_entries":
            return [*memory.iterate_entries(**arguments)]
        owner, _, method = operation.name.rpartition(".")
        positional = [arguments.pop("snapshot")] if "snapshot" in arguments else []
        return getattr(memory.catalog if owner else memory, method)(*positional, **arguments)
    except LTMError as failure:
        return failure.result
    except Exception as error:  # any other exception is a difference
        return f"{type(error).__name__} was raised: {error}"


def _pages(memory: Any, **arguments: Any) -> Any:
    """Return the entries of all pages, as lists; or the failure of the first page."""
    pages: list[Any] = []
    after = None
    while not pages or after is not None:
        page = memory.entries(after=after, **arguments)
        if not page["success"]:
            return page
        pages.append(page["entries"])
        after = page["next"]
    return pages


def _transaction(memory: Any, calls: list[tuple[str, dict[str, Any]]], end: str) -> list[Any]:
    transaction = memory.transaction()
    answers: list[Any] = []

    def call_all() -> None:
        answers.extend(getattr(transaction, name)(**arguments) for name, arguments in calls)

    if end in ("with", "raise"):
        answers.append(_left(transaction, call_all, end))
    else:
        call_all()
        answers.append(transaction.rollback() if end == "rollback" else transaction.commit())
        if end == "commit" and not answers[-1]["success"] and not all(each["success"] for each in answers[:-1]):
            answers.append(transaction.rollback())
    return [*answers, transaction.commit()]


def _left(transaction: Any, call_all: Callable[[], None], end: str) -> Any:
    """Return None, or the result of the LTMError that was raised at the end of a transaction's block."""
    try:
        with transaction:
            call_all()
            if end == "raise":
                raise _LeftError
    except _LeftError:
        pass
    except LTMError as failure:
        return failure.result
    return None


def shown(value: Any, most: int = _SHOWN) -> str:
    """Write a value as Python code, with its end cut off if it is long."""
    try:
        text = repr(value)
    except ValueError:
        return f"<a {type(value).__name__} with an integer of more than 4,300 digits>"
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
