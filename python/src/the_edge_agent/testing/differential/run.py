"""Makes calls on a database and in the model, compares the answers, and shortens what leads to a difference."""

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
_SHOWN: Final = 2_000  # characters of an answer


class Openable(Protocol):
    """Where the calls are made; see ``Place``."""

    handles: int
    lasts: bool
    language: str

    def opened(self) -> Any:
        """Give the handles on new, empty tables in a ``with`` block."""

    def open(self, number: int) -> Any:
        """Return a new memory in place of the one of that number, which was closed."""


@dataclass(frozen=True)
class Difference:
    """An answer that is not the model's.

    Attributes:
        place: where in the answer.
        calls: what leads there; the last one has the answer.
        is_shortened: whether calls that do not matter were left out.
    """

    place: str
    expected: Any
    got: Any
    calls: Sequence[Operation]
    is_shortened: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run has found.

    Attributes:
        operations: how many calls were made.
        difference: the first one, None if all answers were the same.
    """

    seed: int
    operations: int
    difference: Difference | None

    def __str__(self) -> str:
        """Report it."""
        found = self.difference
        if found is None:
            return f"{self.operations:,} operations, 0 differences, seed {self.seed}"
        how = "these lead there:" if found.is_shortened else "it was not seen again with fewer; the last ones:"
        return "\n".join(
            [
                f"a difference at operation {self.operations:,}, seed {self.seed}: {found.place}",
                how,
                *(f"  {call}" for call in found.calls[-30:]),
                f"expected: {shown(found.expected, _SHOWN)}",
                f"got:      {shown(found.got, _SHOWN)}",
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
    """Make random calls until a number of them or a time is over, or an answer differs.

    Args:
        place: where.
        seed: of what is drawn; the same seed makes the same calls.
        operations: how many calls.
        seconds: for how long.
        with_catalog: whether calls of the catalog are among them.
        shortening: seconds that the search for fewer calls may take, after a difference.

    Raises:
        LTMError: the database cannot be used at all.
    """
    end = None if seconds is None else time.monotonic() + seconds
    made: list[Operation] = []
    with _playing(place) as player:
        chance = random.Random(seed)  # noqa: S311 - keeps no secret
        calls = RandomCalls(chance, player.model, place.handles, with_catalog=with_catalog, lasts=place.lasts)
        while (operations is None or len(made) < operations) and (end is None or time.monotonic() < end):
            made.append(calls.next())
            found = player.play(made[-1])
            if found is not None:
                break
        else:
            return Outcome(seed, len(made), None)
    return Outcome(seed, len(made), _shortened(place, found, made, time.monotonic() + shortening))


class _Player:
    """Makes the same calls in the model and through the handles, each in a thread of its own."""

    def __init__(self, place: Openable, memories: list[Any], threads: list[ThreadPoolExecutor]) -> None:
        self.model = MemoryModel(place.language)
        self._place, self._memories, self._threads = place, memories, threads
        self._comparison = Comparison()

    def play(self, call: Operation) -> Difference | None:
        expected = self.model.answer(call.name, call.arguments)
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
    """Make calls anew and return the first difference, with the calls up to it."""
    made: list[Operation] = []
    with _playing(place) as player:
        for call in calls:
            made.append(call)
            if (found := player.play(call)) is not None:
                return Difference(found.place, found.expected, found.got, made, is_shortened=True)
    return None


def _shortened(place: Openable, found: Difference, calls: list[Operation], end: float) -> Difference:
    """Leave out parts of the calls, large ones first, as long as there is a difference."""
    best = _replayed(place, calls)
    if best is None:
        return Difference(found.place, found.expected, found.got, calls)
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
    """Leave out items of lists in the arguments of one call."""
    for name, items in best.calls[number].arguments.items() if number < len(best.calls) else ():
        kept = items
        for item in items if isinstance(items, list) else ():
            if time.monotonic() > end or number >= len(best.calls):
                break
            fewer = [each for each in kept if each is not item]
            call = best.calls[number]
            call = replace(call, arguments={**call.arguments, name: fewer})
            shorter = _replayed(place, [*best.calls[:number], call, *best.calls[number + 1 :]])
            if shorter is not None:
                best, kept = shorter, fewer
    return best
