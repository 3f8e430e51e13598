"""The chart of the page: our operations per second as fractions of the bare driver's, with the goals."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks import goals
from benchmarks.contenders import BARE, CONTENDERS
from benchmarks.markdown import NAMES
from benchmarks.operations import TITLES
from benchmarks.results import Results
from benchmarks.timing import ratios

_OURS: Final = tuple(dict.fromkeys(each.name for each in CONTENDERS if each.kind == "ours"))
_PALETTE: Final = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#a463f2", "#9c6b4e")
_COLORS: Final = dict(zip(_OURS, _PALETTE, strict=False))
_HEIGHT: Final = 0.36  # the height of a bar; the distance between two operations is 1


def draw(results: Results, path: Path) -> None:
    """Write the chart as SVG, or in the format of the file's ending."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.rcParams |= {
        "svg.hashsalt": "the-edge-agent",
        "svg.fonttype": "none",
    }  # reproducible
    figure_of: Any = import_module("matplotlib.figure").Figure
    figure = figure_of(figsize=(3.4 * len(results.rates) + 1.6, 7), layout="constrained")
    grid = figure.subplots(1, len(results.rates), sharey=True, squeeze=False)[0]
    for axes, (database, rates) in zip(grid, results.rates.items(), strict=True):
        _draw_database(axes, database, rates)
    labels = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle("Operations per second as parts of the bare driver's")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_database(axes: Any, database: str, rates: Mapping[str, Mapping[str, float]]) -> None:
    ratios_by_operation = [ratios(by_name, BARE) for by_name in rates.values()]
    names = [name for name in _COLORS if any(name in by_name for by_name in ratios_by_operation)]
    axes.axvline(1, color="gray", linewidth=0.8)
    for offset, name in enumerate(names):
        bars = [(row, by_name[name]) for row, by_name in enumerate(ratios_by_operation) if name in by_name]
        rows = [row + (offset - (len(names) - 1) / 2) * _HEIGHT for row, _ in bars]
        axes.barh(rows, [value for _, value in bars], _HEIGHT, label=name, color=_COLORS[name], zorder=2)
    database_goals = [(row, goal) for row, name in enumerate(rates) if (goal := goals.ratio(database, name))]
    places = ([goal for _, goal in database_goals], [row for row, _ in database_goals])
    axes.plot(*places, "k|", markersize=16, markeredgewidth=1.5, label="goal", zorder=3)
    axes.set_yticks(range(len(rates)), [TITLES[name] for name in rates])
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.set_title(NAMES[database])
