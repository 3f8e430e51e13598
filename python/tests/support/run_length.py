"""How long this run of the tests is, and the seed of all that it generates: the one place that tests ask.

``make test LONG=1`` makes more generated cases and takes the longer forms. Each day has its own seed, so that each day
tests other cases; ``make test SEED=20260131`` repeats a day's. Both reach the tests as variables of the environment.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Final, TypeVar

_T = TypeVar("_T")
_LONG: Final = "TEA_TEST_LONG"
_SEED: Final = "TEA_TEST_SEED"

#: Whether the long forms were asked for.
LONG: Final = os.environ.get(_LONG, "").lower() not in ("", "0", "false")
#: Of all generated data that is not the same in each run.
SEED: Final = int(os.environ.get(_SEED) or f"{datetime.now(timezone.utc):%Y%m%d}")
os.environ[_SEED] = str(SEED)  # processes that are started from here have the same, after midnight too


def of_this_run(short: _T, long: _T) -> _T:
    """Return the value for a run of this length."""
    return long if LONG else short


def of_this_day(cases: Iterable[_T], count: int) -> list[_T]:
    """Return so many of the cases, others each day, and all of them in the long form."""
    found = list(cases)
    return found if LONG or len(found) <= count else random.Random(SEED).sample(found, count)


def described() -> str:
    """Return the line that says how to repeat this run."""
    return f"seed {SEED} ({_SEED}={SEED} repeats it), {of_this_run('short', 'long')} run ({_LONG}=1: the long forms)"
