"""The growth curve: measures the operations while one memory grows, which all contenders of a database share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.arena import fill, tell
from benchmarks.contenders import Contender
from benchmarks.forms import Form
from benchmarks.operations import READS, TITLES, WRITES, Operation
from benchmarks.places import maintain, new_place
from benchmarks.player import Player
from benchmarks.timing import interleaved, medians, run_slice
from benchmarks.workload import Workload

OPERATIONS = (*READS, *WRITES)
_REPETITIONS = 3


def curve(
    form: Form, contenders: Sequence[Contender], folder: Path, names: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Return the rates by operation and contender, at each size of the form.

    Args:
        form: the form with the sizes.
        contenders: the contenders of one database. Ours creates the tables, and the bare driver uses the same tables.
        folder: the folder for files.
        names: the names of the operations to measure.
    """
    sharing = [each for each in contenders if each.kind in ("bare", "ours")]
    operations = [each for each in OPERATIONS if each.name in names]
    curves: dict[str, dict[str, list[float]]] = {
        each.name: {contender.name: [] for contender in sharing if contender.load().can(each.method)}
        for each in operations
    }
    with ExitStack() as stack:
        place = stack.enter_context(new_place(sharing[0].database, folder))
        players: dict[Contender, Player] = {}
        for each in sorted(sharing, key=lambda each: each.kind != "ours"):
            players[each] = each.load()(place)
            stack.callback(players[each].close)
        first = 0
        for size in form.growth:
            workload = Workload(size)
            tell(f"{sharing[0].database}: growing to {size:,} entries")
            fill(players[sharing[0]], workload, first)
            maintain(sharing[0].database, place)
            first = size
            for operation in operations:
                rates = _rates(players, operation, workload, form.growth_seconds)
                for each, rate in rates.items():
                    curves[operation.name][each.name].append(rate)
                shown = ", ".join(f"{each.name} {rate:,.1f}" for each, rate in rates.items())
                tell(f"{size:,}: {TITLES[operation.name]}: {shown}")
    return curves


def _rates(
    players: Mapping[Contender, Player], operation: Operation, workload: Workload, seconds: float
) -> dict[Contender, float]:
    def measure(each: Contender, repetition: int) -> tuple[float, float]:
        done = run_slice(players[each], operation, workload, seconds, repetition)
        return done.rate, done.seconds

    able = [each for each, player in players.items() if player.can(operation.method)]
    return medians(interleaved(able, measure, _REPETITIONS, seconds))
