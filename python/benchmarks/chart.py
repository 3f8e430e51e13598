"""The chart of the page: our operations per second as parts of the bare driver's, with the goals."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks import goals
from benchmarks.contenders import BARE, CONTENDERS
from benchmarks.operations import TITLES
from benchmarks.results import Results
from benchmarks.timing import ratios

_OURS: Final = tuple(dict.fromkeys(each.name for each in CONTENDERS if each.kind == "ours"))
_COLORS: Final = ("#4269d0", "#efb118", "#3ca951")
_HEIGHT: Final = 0.24  # of a bar, in units of one operation


def draw(results: Results, path: Path) -> None:
    """Write the chart as SVG, or as what the name of the file says."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "the-edge-agent"  # the same numbers make the same file
    figure_of: Any = import_module("matplotlib.figure").Figure
    count = max(1, len(results.rates))
    figure = figure_of(figsize=(4.5 * count, 7), layout="constrained")
    for place, (database, rates) in enumerate(results.rates.items(), start=1):
        axes = figure.add_subplot(1, count, place)
        operations = [*rates]
        for offset, name in enumerate(_OURS):
            found = {operation: ratios(rates[operation], BARE).get(name) for operation in operations}
            there = [(row, value) for row, value in enumerate(found.values()) if value is not None]
            if there:
                rows = [row + (offset - 1) * _HEIGHT for row, _ in there]
                axes.barh(rows, [value for _, value in there], _HEIGHT, label=name, color=_COLORS[offset])
        wanted = [(row, goal) for row, name in enumerate(operations) if (goal := goals.ratio(database, name))]
        axes.plot([goal for _, goal in wanted], [row for row, _ in wanted], "k|", markersize=14, label="goal")
        axes.axvline(1, color="gray", linewidth=0.8)
        axes.set_yticks(range(len(operations)), [TITLES[name] for name in operations])
        axes.invert_yaxis()
        axes.set_title(f"{database}: ratio to the bare driver")
        axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
