"""The model with which the state machine compares databases: the backend in RAM, where time passes when it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

from memory_backend import EPOCH, MemoryBackend

Call: TypeAlias = tuple[str, dict[str, Any]]
"""One operation of a transaction: ``("store", {"key": ..., "value": ...})`` or ``("delete", {"key": ...})``."""


class LTMModel(MemoryBackend):
    """A memory in RAM. Its entries expire when ``time_passes`` is called; their lifetimes last longer than any test."""

    @property
    def has_mortals(self) -> bool:
        """Whether an entry expires that has not expired yet."""
        with self._open():
            return any(row.expires is not None and self._lives(row) for row in self._rows.values())

    @property
    def has_expired(self) -> bool:
        """Whether an entry has expired and is not cleaned up yet."""
        with self._open():
            return not all(map(self._lives, self._rows.values()))

    def version(self, key: str) -> int:
        """Return the version of an entry, 0 if there is none."""
        return self.retrieve(key)["version"] or 0

    def time_passes(self) -> None:
        """Let every entry that expires expire now."""
        for key, row in self._rows.items():
            if row.expires is not None:
                self._rows[key] = replace(row, expires=0.0, ends=EPOCH)
