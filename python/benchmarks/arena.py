"""Opens the contenders on one database, fills them with the same entries, compares their answers, and measures them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks.agreement import check
from benchmarks.contenders import Contender
from benchmarks.forms import Form
from benchmarks.operations import ALONE, TITLES, Operation, fill_catalog
from benchmarks.places import maintain, new_place
from benchmarks.player import Player
from benchmarks.timing import interleaved, medians, run_slice
from benchmarks.together import Processes, by_threads
from benchmarks.workload import Workload

_BEGIN: Final = perf_counter()


class Arena:
    """Contenders, each with its own place and its own player."""

    def __init__(self, form: Form, places: dict[Contender, str], players: dict[Contender, Player]) -> None:
        """Set up the arena; use ``opened`` to create one."""
        self.places = places
        self._form, self._players, self._workload = form, players, Workload(form.size)
        self._has_catalogs = False

    def fill(self) -> None:
        """Store the same entries in all contenders, in the same batches, and check that their answers agree.

        Raises:
            DisagreementError: two contenders answer differently.
        """
        for contender, player in self._players.items():
            tell(f"{contender.title}: {self._workload.size:,} entries")
            fill(player, self._workload)
            maintain(contender.database, self.places[contender])
        count = check({each.name: player for each, player in self._players.items()}, self._workload)
        tell(f"{count} answers agree")

    def rates(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return the median rates by operation and contender."""
        by_operation: dict[str, dict[str, float]] = {}
        for name in names:
            if rates := self._rates(name):
                by_operation[name] = rates
        return by_operation

    def _rates(self, name: str) -> dict[str, float]:
        method = next((each.method for each in ALONE if each.name == name), "put")
        able = [each for each, player in self._players.items() if player.can(method)]
        with ExitStack() as stack:
            measure = self._measure(name, able, stack)
            rates = medians(interleaved(able, measure, self._form.repetitions, self._form.seconds))
        shown = ", ".join(f"{each.name} {rate:,.0f}" for each, rate in rates.items())
        tell(f"{TITLES[name]}: {shown}")
        return {each.name: rate for each, rate in rates.items()}

    def _measure(
        self, name: str, able: Sequence[Contender], stack: ExitStack
    ) -> Callable[[Contender, int], tuple[float, float]]:
        """Prepare an operation, and return the function that measures it."""
        seconds, workload = self._form.seconds, self._workload
        if name == "mixed_threads":
            return _timed(lambda each, _: by_threads(self._players[each], workload, seconds))
        if name == "mixed_processes":
            processes = {each: Processes(each, self.places[each], workload.size) for each in able}
            for workers in processes.values():
                stack.callback(workers.close)
            return _timed(lambda each, _: processes[each].rate(seconds))
        operation = next(each for each in ALONE if each.name == name)
        if operation.method in ("track", "snapshot", "changes"):
            self._fill_catalogs(able)
        arguments = {each: operation.set_up(self._players[each], workload) for each in able} if operation.set_up else {}
        self._warm_up(operation, able)
        return _timed(
            lambda each, repetition: (
                run_slice(self._players[each], operation, workload, seconds, repetition, arguments.get(each)).rate
            )
        )

    def _warm_up(self, operation: Operation, able: Sequence[Contender]) -> None:
        """Run the operation once, so that statements are compiled and pages are read before the first repetition."""
        if not operation.set_up and not operation.clean:
            for each in able:
                operation.call(self._players[each], operation.prepare(self._workload, 0))

    def _fill_catalogs(self, able: Sequence[Contender]) -> None:
        if not self._has_catalogs:
            for each in able:
                fill_catalog(self._players[each], self._workload)
            self._has_catalogs = True


def _timed(rate: Callable[[Contender, int], float]) -> Callable[[Contender, int], tuple[float, float]]:
    def measure(contender: Contender, repetition: int) -> tuple[float, float]:
        start = perf_counter()
        units_per_second = rate(contender, repetition)
        return units_per_second, perf_counter() - start

    return measure


@contextmanager
def opened(form: Form, contenders: Sequence[Contender], folder: Path) -> Iterator[Arena]:
    """Open contenders of one database in new places, and remove the places at the end."""
    with ExitStack() as stack:
        places = {each: stack.enter_context(new_place(each.database, folder)) for each in contenders}
        players: dict[Contender, Player] = {}
        for each in contenders:
            players[each] = each.load()(places[each])
            stack.callback(players[each].close)
        yield Arena(form, places, players)


def fill(player: Player, workload: Workload, first: int = 0) -> None:
    """Store all entries of a workload, beginning with the number ``first``."""
    for batch in workload.batches(first):
        player.put_many([workload.entry(number) for number in batch])


def tell(text: str) -> None:
    """Print a line about the progress, with the seconds since the start."""
    print(f"{perf_counter() - _BEGIN:6.0f} s  {text}", file=sys.stderr, flush=True)
