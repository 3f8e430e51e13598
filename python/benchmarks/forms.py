"""How much is measured: the short form for development, the full one for the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Form:
    """How much one run measures.

    Attributes:
        name: the name in the results.
        size: how many entries each contender has.
        seconds: how long one measurement takes.
        repetitions: how often each measurement is repeated; the result is the median.
        starts: how often each start-up is repeated.
        peak_entries: how many entries the put_many stores whose RAM is measured.
        growth: the sizes of the growth curve; empty for no curve.
        growth_seconds: how long one measurement of the growth curve takes.
    """

    name: str
    size: int
    seconds: float
    repetitions: int
    starts: int
    peak_entries: int
    growth: tuple[int, ...]
    growth_seconds: float = 0.3


FULL: Final = Form("full", 10_000, 0.5, 5, 11, 10_000, (10_000, 100_000, 1_000_000))
SHORT: Final = Form("short", 1_000, 0.08, 3, 3, 1_000, ())
