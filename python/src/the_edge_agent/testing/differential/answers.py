"""What the model answers, with marks where an answer can be bounded only, and how an answer is compared with it."""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final
from uuid import UUID

_TOLERANCE: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class Exact:
    """A JSON value that must come back exactly: types, order of keys and signs of zeros too."""

    value: Any


@dataclass(frozen=True)
class InOrder:
    """A dict with its keys in this order."""

    entries: dict[str, Any]


@dataclass(frozen=True)
class Moment:
    """When the write of that number was done: the same wherever it is told, and later for a later write."""

    write: int


@dataclass(frozen=True)
class Lifetime:
    """When what the write of that number stored expires."""

    write: int
    seconds: float


@dataclass(frozen=True)
class SnapshotId:
    """The id of the snapshot that was made as the one of this number."""

    number: int


@dataclass(frozen=True)
class Message:
    """A message that begins so, and says more."""

    begins: str


@dataclass(frozen=True)
class Failure:
    """A refusal with this ``error_type`` and, besides the message, exactly these fields.

    Attributes:
        begins: how the message must begin.
    """

    error_type: str
    fields: dict[str, Any] = field(default_factory=dict)
    begins: str = ""


def is_failure(answer: Any) -> bool:
    """Return whether the model refuses the call."""
    return isinstance(answer, Failure)


class Times:
    """The times that were told for the writes so far."""

    def __init__(self) -> None:
        """Know none."""
        self._writes: list[int] = []
        self._told: dict[int, datetime] = {}

    def problem(self, write: int, told: Any) -> str | None:
        """Keep the time of a write; return what is wrong with it."""
        if not isinstance(told, datetime) or told.utcoffset() != timedelta(0):
            return "it is no datetime in UTC"
        if write in self._told:
            return None if self._told[write] == told else f"it was {self._told[write]} before"
        place = bisect_left(self._writes, write)
        if place and self._told[self._writes[place - 1]] > told:
            return f"a write before was at {self._told[self._writes[place - 1]]}"
        if place < len(self._writes) and self._told[self._writes[place]] < told:
            return f"a write after it was at {self._told[self._writes[place]]}"
        insort(self._writes, write)
        self._told[write] = told
        return None

    def end_problem(self, lifetime: Lifetime, told: Any) -> str | None:
        """Return the problem with an expiry time."""
        if not isinstance(told, datetime) or told.utcoffset() != timedelta(0):
            return "it is no datetime in UTC"
        known = self._told.get(lifetime.write)
        end = (known or datetime.now(timezone.utc)) + timedelta(seconds=lifetime.seconds)
        if known is not None and abs(told - end) > _TOLERANCE:
            return f"it must be about {end}"
        return None


class Comparison:
    """Compares answers with those of the model, over one run."""

    def __init__(self) -> None:
        """Know no times and no snapshots."""
        self.times = Times()
        self.snapshots: dict[int, str] = {}

    def difference(self, expected: Any, got: Any, place: str = "the answer") -> str | None:
        """Return where an answer differs, None if it does not."""
        if isinstance(expected, Failure):
            return self._failure(expected, got, place)
        if isinstance(expected, Exact):
            same = _written(expected.value) == _written(got)
            return None if same else f"{place} differs"
        if isinstance(expected, InOrder):
            is_right = isinstance(got, dict) and [*got] == [*expected.entries]
            return self._dict(expected.entries, got, place) if is_right else f"{place} has other keys or another order"
        if isinstance(expected, Moment):
            problem = self.times.problem(expected.write, got)
            return problem and f"{place}: {problem}"
        if isinstance(expected, Lifetime):
            problem = self.times.end_problem(expected, got)
            return problem and f"{place}: {problem}"
        if isinstance(expected, Message):
            is_right = isinstance(got, str) and got.startswith(expected.begins) and got != expected.begins
            return None if is_right else f"{place} differs"
        if isinstance(expected, SnapshotId):
            return self._snapshot(expected.number, got, place)
        if isinstance(expected, dict):
            return self._dict(expected, got, place)
        if isinstance(expected, (list, tuple)):
            return self._list(list(expected), got, place)
        if type(expected) is not type(got) or expected != got:
            return f"{place} differs"
        return None

    def _failure(self, expected: Failure, got: Any, place: str) -> str | None:
        if not isinstance(got, dict) or got.get("success") is not False:
            return f"{place} is no failure"
        message, kind = Message(expected.begins), expected.error_type
        return self._dict({"success": False, "error": message, "error_type": kind, **expected.fields}, got, place)

    def _snapshot(self, number: int, got: Any, place: str) -> str | None:
        if number in self.snapshots:
            return None if got == self.snapshots[number] else f"{place} is not {self.snapshots[number]}"
        try:
            is_new = str(UUID(got)) == got and got not in self.snapshots.values()
        except (ValueError, AttributeError, TypeError):
            is_new = False
        if not is_new:
            return f"{place} is no new UUID of 36 characters"
        self.snapshots[number] = got
        return None

    def _dict(self, expected: dict[str, Any], got: Any, place: str) -> str | None:
        if type(got) is not dict:
            return f"{place} is no dict"
        if got.keys() != expected.keys():
            return f"{place} has other keys"
        found = (self.difference(value, got[name], f"{place}[{name!r:.80}]") for name, value in expected.items())
        return next(filter(None, found), None)

    def _list(self, expected: list[Any], got: Any, place: str) -> str | None:
        if not isinstance(got, list) or len(got) != len(expected):
            return f"{place} is no list of {len(expected)}"
        found = (self.difference(wanted, got[i], f"{place}[{i}]") for i, wanted in enumerate(expected))
        return next(filter(None, found), None)


def _written(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return f"not JSON: {type(value).__name__}"
