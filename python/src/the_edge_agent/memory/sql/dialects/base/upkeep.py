"""``Upkeep``: maintenance work that a memory does from time to time after stores."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import Connection

Run: TypeAlias = Callable[[Callable[[Connection], Any]], Any]  # runs a function in one transaction that writes


class Upkeep(ABC):
    """Maintenance work, in transactions of its own. It is due each time that ``every`` entries were stored."""

    every: ClassVar[int]

    def __init__(self) -> None:
        """Start the count at random: then many processes with few stores each do their part of the work."""
        self._left = random.randint(1, self.every)  # noqa: S311 - keeps no secret

    def is_due(self, stores: int) -> bool:
        """Count stores, and return whether the work is due."""
        self._left -= stores
        if self._left > 0:
            return False
        self._left = self.every
        return True

    @abstractmethod
    def some(self, run: Run) -> None:
        """Do some of the work, in no more time than a store may take.

        Raises:
            LTMError: some of the work is left for the next time.
        """

    @abstractmethod
    def all(self, run: Run) -> tuple[int, int]:
        """Do all the work. Return how many blocks were created, and for how many entries.

        Raises:
            LTMError: some of the work is left.
        """
