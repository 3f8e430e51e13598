"""Time slices: how many units per second one contender does, and medians of interleaved repetitions."""

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

PLACES: Final = 1_000_000  # the numbers of one repetition's calls, so that each contender gets the same arguments
_LONG_ENOUGH: Final = 0.01  # seconds of a chunk; compared with that, reading the clock twice takes no time
_MOST: Final = 256  # the largest number of calls in a chunk, which limits the RAM of their arguments
_PATIENCE: Final = 4  # if a repetition takes more than this many time slices, the contender's others are left out

Who = TypeVar("Who")


@dataclass
class Slice:
    """The calls of a time slice.

    Attributes:
        units: how many units were done.
        seconds: how long the calls took.
        arguments: the argument of each call, for the clean-up.
        answers: the answer of each call, for the clean-up.
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
    player: Player, operation: Operation, workload: Workload, seconds: float, repetition: int = 0, argument: Any = None
) -> Slice:
    """Repeat one operation until a time is over, and undo it.

    Args:
        player: the player that is called.
        operation: the operation.
        workload: the data.
        seconds: how long the calls take in total; the time to prepare and undo them does not count.
        repetition: the number of the repetition; it decides which entries the calls use.
        argument: the argument of all calls, if the operation has a ``set_up``.
    """
    done, place, size = Slice(), repetition * PLACES, 1
    gc.collect()
    while done.seconds < seconds:
        if operation.set_up:
            arguments = [argument] * size
        else:
            arguments = [operation.prepare(workload, place + offset) for offset in range(size)]
        call, answers = operation.call, []
        start = perf_counter()
        for each in arguments:
            answers.append(call(player, each))
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
    """Measure all contenders in turn, several times; each repetition begins with another contender.

    Args:
        who: the contenders.
        measure: a function of a contender and the number of the repetition; returns a rate and the seconds it took.
        repetitions: how many times each is measured; only once if it takes far longer than ``seconds``.
        seconds: how long one measurement should take.

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
    """Return the median of the rates of each contender."""
    return {each: median(its_rates) for each, its_rates in rates.items() if its_rates}


def ratios(rates: Mapping[Who, float], base: Who) -> dict[Who, float]:
    """Return each rate as a fraction of the base's rate; an empty dict if the base has none."""
    reference = rates.get(base)
    return {each: rate / reference for each, rate in rates.items()} if reference else {}
