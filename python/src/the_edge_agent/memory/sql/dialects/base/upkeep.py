"""Work that follows stores."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import Connection

Run: TypeAlias = Callable[[Callable[[Connection], Any]], Any]  # runs work in one transaction that writes


class Upkeep(ABC):
    """Work that follows stores, in transactions of its own: each time that so many entries were stored."""

    every: ClassVar[int]

    def __init__(self) -> None:
        """Begin at random, so that processes that store a few entries each do it as often as one that stores many."""
        self._left = random.randint(1, self.every)  # noqa: S311 - keeps no secret

    def is_due(self, stores: int) -> bool:
        """Count stores, and return whether it is time."""
        self._left -= stores
        if self._left > 0:
            return False
        self._left = self.every
        return True

    @abstractmethod
    def some(self, run: Run) -> None:
        """Do what has come up, but no more than a store may take.

        Raises:
            LTMError: some of it is left for another time.
        """

    @abstractmethod
    def all(self, run: Run) -> tuple[int, int]:
        """Do all of it; return how many blocks were made, and for how many entries.

        Raises:
            LTMError: some of it is left.
        """
