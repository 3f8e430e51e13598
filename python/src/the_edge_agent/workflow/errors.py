"""The errors of workflows: a file that is refused, or a node that failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

_LONGEST_WORD = 100  # characters; a longer word is not treated as a typing mistake


@dataclass(frozen=True)
class Place:
    """The place of a part of an agent: in a file, or in a dict.

    Attributes:
        source: the name of the file, as it was passed to the engine; empty for a dict.
        path: the path within the agent, such as ``nodes[0].with``; empty for the whole agent.
        line: the line, counted from 1; None for a dict.
        column: the column, counted from 1; None for a dict.
    """

    source: str = ""
    path: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Return ``file:line:column``; without a line, the file or the path."""
        if self.line is None:
            return self.source or self.path
        return f"{self.source}:{self.line}:{self.column}"


class WorkflowError(Exception):
    """The base class of every error of a workflow."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        """Make an error with a message of one line.

        Args:
            message: what is wrong and what to do about it.
            place: where the faulty part was written. It comes before the message.
        """
        self.message = one_line(message)
        self.place = place or Place()
        super().__init__(self.message)

    def __str__(self) -> str:
        """Return the place and the message."""
        place = str(self.place)
        return f"{place}: {self.message}" if place else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with all the fields, so that a failure can be passed to another process."""
        return _rebuild, (type(self), dict(self.__dict__))


class WorkflowFileError(WorkflowError, ValueError):
    """An agent file or dict cannot be loaded."""


class NodeError(WorkflowError, RuntimeError):
    """A node failed, and the run has ended.

    Attributes:
        node: the name of the node.
        error_type: the kind of failure: the ``error_type`` of the action that failed, ``template_error``,
            ``budget_error``, or the name of the Python exception.
    """

    def __init__(self, node: str, message: str, *, error_type: str, place: Place | None = None) -> None:
        """Make the error of one node. The message has its place if the node was read from a file."""
        written = place if place is not None and place.line is not None else None  # in a dict the name is enough
        super().__init__(f"node `{node}`: {message}", written)
        self.node = node
        self.error_type = error_type


class ActionError(WorkflowError):
    """An action returned ``success: False``. The node that called it raises this error.

    Attributes:
        result: the dict that the action returned.
        error_type: the ``error_type`` of the result.
    """

    def __init__(self, action: str, result: dict[str, object]) -> None:
        """Make the error for the result of an action."""
        self.result = result
        self.error_type = str(result.get("error_type", "action_error"))
        kind = self.error_type
        if kind == "conflict" and "key" in result:
            kind += f" of the key {result['key']!r}"
        super().__init__(f"`{action}` failed: {result.get('error', 'no reason given')} ({kind})")


def one_line(text: str, limit: int = 600) -> str:
    """Join the lines of ``text``, escape characters that cannot be printed, and cut it after ``limit`` characters."""
    words = " ".join(text.split())
    joined = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in words)
    return joined if len(joined) <= limit else joined[:limit] + "…"


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ``; did you mean `x`?`` with the word of ``words`` most similar to ``word``, or ``""``."""
    match = most_like(word, words, 0.5)
    return f"; did you mean `{match}`?" if match else ""


def most_like(word: str, words: Iterable[str], likeness: float) -> str | None:
    """Return the word of ``words`` most similar to ``word``; None if no likeness (0 to 1) is at least ``likeness``."""
    if len(word) > _LONGEST_WORD:  # comparing takes quadratic time
        return None
    short = [candidate for candidate in words if len(candidate) <= _LONGEST_WORD]
    return next(iter(get_close_matches(word, short, n=1, cutoff=likeness)), None)


def describe(error: BaseException) -> str:
    """Return the type and the message of an exception. This works even if ``str`` of the exception fails."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    try:
        message = str(error)
    except Exception:
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _rebuild(kind: type[WorkflowError], fields: dict[str, object]) -> WorkflowError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    return error
