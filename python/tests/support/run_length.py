"""The length of this run of the tests, and the seed of all generated data.

``make test LONG=1`` makes more generated cases and runs the long forms of tests. Each day has its own seed, so that
each day tests other cases; ``make test SEED=20260131`` repeats the cases of a day. Both are passed to the tests as
environment variables.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Final, TypeVar

_T = TypeVar("_T")
_LONG: Final = "TEA_TEST_LONG"
_SEED: Final = "TEA_TEST_SEED"

#: Whether this is a run of the long forms.
LONG: Final = os.environ.get(_LONG, "").lower() not in ("", "0", "false")
#: The seed of all generated data that is not the same in each run.
SEED: Final = int(os.environ.get(_SEED) or f"{datetime.now(timezone.utc):%Y%m%d}")
os.environ[_SEED] = str(SEED)  # processes that this one starts have the same seed, even after midnight


def of_this_run(short: _T, long: _T) -> _T:
    """Return ``long`` in a run of the long forms, ``short`` otherwise."""
    return long if LONG else short


def of_this_day(cases: Iterable[_T], count: int) -> list[_T]:
    """Return ``count`` of the cases, other ones each day; in a run of the long forms return all of them."""
    all_cases = list(cases)
    return all_cases if LONG or len(all_cases) <= count else random.Random(SEED).sample(all_cases, count)


def in_turn(cases: Sequence[_T], count: int) -> list[_T]:
    """Return ``count`` of the cases, the next ones each day; in a run of the long forms return all of them."""
    return [*cases] if LONG else [cases[(SEED * count + place) % len(cases)] for place in range(count)]


def described() -> str:
    """Return a line that says how to repeat this run."""
    return f"seed {SEED} ({_SEED}={SEED} repeats it), {of_this_run('short', 'long')} run ({_LONG}=1: the long forms)"
