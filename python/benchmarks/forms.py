"""How much is measured: the short form for development, the full one for the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Form:
    """One extent of a run.

    Attributes:
        name: as the results say.
        size: entries of each contender.
        seconds: of one measurement.
        repetitions: of each measurement; the median counts.
        starts: repetitions of each start-up.
        peak_entries: of the put_many whose memory is measured.
        growth: the sizes of the growth curve; none for no curve.
        growth_seconds: of one measurement of it.
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
