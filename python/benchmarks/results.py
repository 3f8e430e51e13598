"""The results of a run, which are stored as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Results:
    """The results of one run.

    Attributes:
        form: the name of the form, short or full.
        facts: facts about the machine, the versions and the measurement.
        rates: the median of units per second, by database, operation and contender.
        growth: the rates at each size, in the order of ``sizes``, by database, operation and contender.
        sizes: the sizes of the growth curve.
        starts: milliseconds, by database, start-up and step.
        peaks: MiB of RAM beyond the state after the imports and a first get, by database, operation and contender.
    """

    form: str
    facts: dict[str, str]
    rates: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    growth: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    starts: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    peaks: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write a file."""
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Read a file that ``Results.write`` has written."""
    return Results(**json.loads(path.read_text(encoding="utf-8")))


def _rounded(value: Any) -> Any:
    """Round numbers to four digits, because further digits are noise."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
