"""Make calls on a database and on the model, compare the answers, and find a short list of calls that differ."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from the_edge_agent.testing.differential.answers import Comparison
from the_edge_agent.testing.differential.memory_model import MOMENT, MemoryModel
from the_edge_agent.testing.differential.operations import Operation, perform, shown
from the_edge_agent.testing.differential.sequences import Sequence as RandomCalls

_SHORTENING: Final = 60.0  # seconds
_SHOWN: Final = 2_000  # characters of an answer that a report shows


class Openable(Protocol):
    """A place for the calls; see ``Place``."""

    handles: int
    lasts: bool
    language: str

    def opened(self) -> Any:
        """Return a context manager that yields the handles on new, empty tables."""

    def open(self, number: int) -> Any:
        """Return a new memory for the handle with this number, whose memory was closed."""


@dataclass(frozen=True)
class Difference:
    """An answer of the database that differs from that of the model.

    Attributes:
        place: the place in the answer that differs.
        expected: the answer of the model.
        got: the answer of the database.
        calls: the calls that lead to the difference; the last one has the answer.
        is_shortened: whether calls that do not matter were left out.
    """

    place: str
    expected: Any
    got: Any
    calls: Sequence[Operation]
    is_shortened: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        seed: the seed of the random calls.
        operations: how many calls were made.
        difference: the first difference, or None if all answers were the same.
    """

    seed: int
    operations: int
    difference: Difference | None

    def __str__(self) -> str:
        """Return the report for people."""
        difference = self.difference
        if difference is None:
            return f"{self.operations:,} operations, 0 differences, seed {self.seed}"
        how = "these calls lead to it:" if difference.is_shortened else "fewer calls do not repeat it; the last calls:"
        return "\n".join(
            [
                f"a difference at operation {self.operations:,}, seed {self.seed}: {difference.place}",
                how,
                *(f"  {call}" for call in difference.calls[-30:]),
                f"expected: {shown(difference.expected, _SHOWN)}",
                f"got:      {shown(difference.got, _SHOWN)}",
            ]
        )


def run(
    place: Openable,
    *,
    seed: int,
    operations: int | None = None,
    seconds: float | None = None,
    with_catalog: bool = False,
    shortening: float = _SHORTENING,
) -> Outcome:
    """Make random calls until there were enough of them, the time is over, or an answer differs.

    Args:
        place: where to make the calls.
        seed: the seed of the random calls; the same seed makes the same calls.
        operations: how many calls to make; None for no limit.
        seconds: how long to make calls; None for no limit.
        with_catalog: whether to call the catalog too.
        shortening: after a difference, how many seconds to search for fewer calls that lead to it.

    Raises:
        LTMError: the database cannot be used at all.
    """
    end = None if seconds is None else time.monotonic() + seconds
    played: list[Operation] = []
    with _playing(place) as player:
        chance = random.Random(seed)  # noqa: S311 - not for secrets
        calls = RandomCalls(chance, player.model, place.handles, with_catalog=with_catalog, lasts=place.lasts)
        while (operations is None or len(played) < operations) and (end is None or time.monotonic() < end):
            played.append(calls.next())
            difference = player.play(played[-1])
            if difference is not None:
                break
        else:
            return Outcome(seed, len(played), None)
    return Outcome(seed, len(played), _shortened(place, difference, played, time.monotonic() + shortening))


class _Player:
    """Makes the same calls on the model and on the handles. Each handle has a thread of its own."""

    def __init__(self, place: Openable, memories: list[Any], threads: list[ThreadPoolExecutor]) -> None:
        self.model = MemoryModel(place.language)
        self._place, self._memories, self._threads = place, memories, threads
        self._comparison = Comparison()

    def play(self, call: Operation) -> Difference | None:
        expected = self.model.answer(call.name, call.arguments, call.namespace)
        got = self._threads[call.handle].submit(self._perform, call).result()
        where = self._comparison.difference(expected, got)
        if self.model.has_brief:
            time.sleep(MOMENT + 0.001)
            self.model.pass_time()
        return where and Difference(where, expected, got, [call])  # type: ignore[return-value]

    def _perform(self, call: Operation) -> Any:
        memory = self._memories[call.handle]
        if call.name != "after_close":
            return perform(memory, call, self._comparison.snapshots)
        memory.close()
        answers = [memory.retrieve("a"), memory.store("a", 1), memory.search()]
        self._memories[call.handle] = self._place.open(call.handle)
        return answers


@contextmanager
def _playing(place: Openable) -> Iterator[_Player]:
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(place.handles)]
        yield _Player(place, stack.enter_context(place.opened()), threads)


def _replayed(place: Openable, calls: Iterable[Operation]) -> Difference | None:
    """Make the calls on new tables and return the first difference, with the calls up to it; None if there is none."""
    played: list[Operation] = []
    with _playing(place) as player:
        for call in calls:
            played.append(call)
            if (difference := player.play(call)) is not None:
                return Difference(difference.place, difference.expected, difference.got, played, is_shortened=True)
    return None


def _shortened(place: Openable, difference: Difference, calls: list[Operation], end: float) -> Difference:
    """Leave out parts of the calls, large parts first, as long as a difference remains."""
    best = _replayed(place, calls)
    if best is None:
        return Difference(difference.place, difference.expected, difference.got, calls)
    size = len(best.calls) // 2
    while size and time.monotonic() < end:
        start = 0
        while start < len(best.calls) - 1 and time.monotonic() < end:
            fewer = [*best.calls[:start], *best.calls[start + size :]]
            shorter = _replayed(place, fewer) if fewer else None
            if shorter is None:
                start += size
            else:
                best = shorter
        size = min(size, len(best.calls)) // 2
    for place_of_call in range(len(best.calls)):
        best = _with_fewer_items(place, best, place_of_call, end)
    return best


def _with_fewer_items(place: Openable, best: Difference, number: int, end: float) -> Difference:
    """Leave out items of lists in the arguments of one call, as long as a difference remains."""
    for name, items in best.calls[number].arguments.items() if number < len(best.calls) else ():
        remaining = items
        for item in items if isinstance(items, list) else ():
            if time.monotonic() > end or number >= len(best.calls):
                break
            fewer = [each for each in remaining if each is not item]
            call = best.calls[number]
            call = replace(call, arguments={**call.arguments, name: fewer})
            shorter = _replayed(place, [*best.calls[:number], call, *best.calls[number + 1 :]])
            if shorter is not None:
                best, remaining = shorter, fewer
    return best
