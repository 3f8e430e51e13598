"""Time slices: how many units a second one contender does, and medians of interleaved repetitions."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Final, TypeVar

from benchmarks.operations import Operation
from benchmarks.player import Player
from benchmarks.workload import Workload

PLACES: Final = 1_000_000  # of one repetition: each contender is asked the same in it
_LONG_ENOUGH: Final = 0.01  # seconds of a chunk, beside which two looks at the clock are nothing
_MOST: Final = 256  # calls in a chunk, so that what is prepared for them stays small
_PATIENCE: Final = 4  # slices that one repetition may take before the others are left out

Who = TypeVar("Who")


@dataclass
class Slice:
    """What was done in a time slice.

    Attributes:
        units: how many were done.
        seconds: how long that took.
        arguments: of each call, for whoever cleans up.
        answers: of each call.
    """

    units: int = 0
    seconds: float = 0.0
    arguments: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.seconds


def run_slice(
    player: Player, operation: Operation, workload: Workload, seconds: float, repetition: int = 0, given: Any = None
) -> Slice:
    """Do one operation again and again until a time is over, and undo it.

    Args:
        player: who does it.
        operation: what is done.
        workload: with which data.
        seconds: of calls; what prepares and undoes them does not count.
        repetition: decides which entries are asked for.
        given: the argument of all calls, where the operation has been set up.
    """
    done, place, size = Slice(), repetition * PLACES, 1
    gc.collect()
    while done.seconds < seconds:
        if operation.set_up:
            arguments = [given] * size
        else:
            arguments = [operation.prepare(workload, place + offset) for offset in range(size)]
        call, answers = operation.call, []
        start = perf_counter()
        for argument in arguments:
            answers.append(call(player, argument))
        taken = perf_counter() - start
        done.seconds += taken
        done.units += sum(map(operation.units, answers))
        place += size
        if operation.clean:
            done.arguments += arguments
            done.answers += answers
        if taken < _LONG_ENOUGH:
            size = min(2 * size, _MOST)
    if operation.clean:
        operation.clean(player, done.arguments, done.answers)
    return done


def interleaved(
    who: Sequence[Who], measure: Callable[[Who, int], tuple[float, float]], repetitions: int, seconds: float
) -> dict[Who, list[float]]:
    """Measure all in turn, again and again, each time beginning with another.

    Args:
        who: is measured.
        measure: gets who and the number of the repetition; returns a rate and the seconds that it took.
        repetitions: how many times; once for whoever needs far longer than asked.
        seconds: that one measurement is meant to take.

    Returns:
        The rates of each.
    """
    rates: dict[Who, list[float]] = {each: [] for each in who}
    are_slow: set[Who] = set()
    for repetition in range(repetitions):
        shift = repetition % len(who) if who else 0
        for each in (*who[shift:], *who[:shift]):
            if each in are_slow:
                continue
            rate, taken = measure(each, repetition)
            rates[each].append(rate)
            if taken > _PATIENCE * seconds:
                are_slow.add(each)
    return rates


def medians(rates: Mapping[Who, Sequence[float]]) -> dict[Who, float]:
    """Return the median of each one's rates."""
    return {each: median(found) for each, found in rates.items() if found}


def ratios(rates: Mapping[Who, float], base: Who) -> dict[Who, float]:
    """Return each rate as a part of the base's; nothing where the base has none."""
    reference = rates.get(base)
    return {each: rate / reference for each, rate in rates.items()} if reference else {}
