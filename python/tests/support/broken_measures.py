"""Backends with one fault each in how they measure, and the rule that must fail on each."""

from __future__ import annotations

import json
from typing import Any

from broken_backends import caught_by
from memory_backend import MemoryBackend, Row
from the_edge_agent.memory.core.results import Result


@caught_by("test_bytes_are_those_of_keys_and_json_texts")
class CountsCharacters(MemoryBackend):
    def bytes_of(self, row: Row) -> int:
        entry = row.entry
        return sum(len(json.dumps(part)) for part in (entry.key, entry.value, entry.metadata) if part is not None)


@caught_by("test_expired_entries_count_only_as_expired")
class MeasuresExpired(MemoryBackend):
    def measure(self, prefix: str | None = None, *, nested: bool = False) -> Result:
        result: dict[str, Any] = dict(super().measure(prefix, nested=nested))
        return {**result, "entries": result["entries"] + result["expired_count"]}


@caught_by("test_a_namespace_measures_its_own_entries_with_their_full_keys")
class MeasuresShortKeys(MemoryBackend):
    def bytes_of(self, row: Row) -> int:
        return super().bytes_of(row) - len(self._namespace.head)


@caught_by("test_oldest_and_newest_are_the_times_of_entries")
class TakesTheFirstStoreForTheNewest(MemoryBackend):
    def measure(self, prefix: str | None = None, *, nested: bool = False) -> Result:
        result: dict[str, Any] = dict(super().measure(prefix, nested=nested))
        return {**result, "newest": result["oldest"]}
