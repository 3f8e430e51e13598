"""Answers of the model, and how the answers of a memory are compared with them.

Some parts of an answer, such as times and ids, cannot be predicted. Marks stand for them, such as ``Moment``.
"""

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
    """A JSON value that must be exactly equal, including types, the order of keys and the signs of zeros."""

    value: Any


@dataclass(frozen=True)
class InOrder:
    """A dict whose keys must be in this order."""

    entries: dict[str, Any]


@dataclass(frozen=True)
class Moment:
    """The time of the write with this number. It must be the same in all answers, and grow with the number."""

    write: int


@dataclass(frozen=True)
class Lifetime:
    """The expiry of an entry that the write with this number stored with a lifetime of ``seconds``."""

    write: int
    seconds: float


@dataclass(frozen=True)
class SnapshotId:
    """The id of the snapshot with this number."""

    number: int


@dataclass(frozen=True)
class Message:
    """A message that begins with this text and goes on."""

    begins: str


@dataclass(frozen=True)
class Failure:
    """A failure with this ``error_type``, a message, and exactly these further fields.

    Attributes:
        error_type: the type of the failure.
        fields: the further fields of the failure dict.
        begins: the beginning of the message.
    """

    error_type: str
    fields: dict[str, Any] = field(default_factory=dict)
    begins: str = ""


def is_failure(answer: Any) -> bool:
    """Return whether the model refuses the call."""
    return isinstance(answer, Failure)


class Times:
    """The times of writes in the answers so far."""

    def __init__(self) -> None:
        """Start without any time."""
        self._writes: list[int] = []
        self._times: dict[int, datetime] = {}

    def problem(self, write: int, time: Any) -> str | None:
        """Check the time of a write and remember it; return what is wrong with it, or None."""
        if not isinstance(time, datetime) or time.utcoffset() != timedelta(0):
            return "it is no datetime in UTC"
        if write in self._times:
            return None if self._times[write] == time else f"it was {self._times[write]} before"
        place = bisect_left(self._writes, write)
        if place and self._times[self._writes[place - 1]] > time:
            return f"an earlier write was at {self._times[self._writes[place - 1]]}"
        if place < len(self._writes) and self._times[self._writes[place]] < time:
            return f"a later write was at {self._times[self._writes[place]]}"
        insort(self._writes, write)
        self._times[write] = time
        return None

    def end_problem(self, lifetime: Lifetime, time: Any) -> str | None:
        """Check the expiry of an entry; return what is wrong with it, or None."""
        if not isinstance(time, datetime) or time.utcoffset() != timedelta(0):
            return "it is no datetime in UTC"
        write_time = self._times.get(lifetime.write)
        end = (write_time or datetime.now(timezone.utc)) + timedelta(seconds=lifetime.seconds)
        if write_time is not None and abs(time - end) > _TOLERANCE:
            return f"it must be about {end}"
        return None


class Comparison:
    """Compares the answers of one run with those of the model. It remembers times and snapshot ids."""

    def __init__(self) -> None:
        """Start without times and snapshots."""
        self.times = Times()
        self.snapshots: dict[int, str] = {}

    def difference(self, expected: Any, got: Any, place: str = "the answer") -> str | None:
        """Return the place where an answer differs from the expected one, or None if it does not."""
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
        if isinstance(expected, tuple):
            return None if got == expected and isinstance(got, tuple) else f"{place} differs"
        if isinstance(expected, list):
            return self._list(expected, got, place)
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
        differences = (self.difference(value, got[name], f"{place}[{name!r:.80}]") for name, value in expected.items())
        return next(filter(None, differences), None)

    def _list(self, expected: list[Any], got: Any, place: str) -> str | None:
        if not isinstance(got, list) or len(got) != len(expected):
            return f"{place} is no list of {len(expected)}"
        differences = (self.difference(value, got[i], f"{place}[{i}]") for i, value in enumerate(expected))
        return next(filter(None, differences), None)


def _written(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return f"not JSON: {type(value).__name__}"
