"""What a search must answer, computed in Python: the oracle that every database is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from the_edge_agent.memory import filters
from the_edge_agent.memory.base import LTMBackend
from the_edge_agent.memory.text import RANK_WINDOW, TOKEN_START, matches, parse_query, score, search_text
from the_edge_agent.testing.contract import Item, load


@dataclass(frozen=True)
class Entry:
    """One entry; ``moment`` grows with each transaction."""

    key: str
    value: Any
    metadata: dict[str, Any] | None
    moment: int
    indexed: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index the entry."""
        object.__setattr__(self, "indexed", search_text(self.key, self.value, self.metadata))


class Model:
    """A store in Python, filled together with a real one."""

    def __init__(self) -> None:
        """Make an empty store."""
        self.entries: dict[str, Entry] = {}
        self._moment = 0

    def load(self, backend: LTMBackend, items: Iterable[Item]) -> None:
        """Store items in a backend and here; they are equally new if the backend has transactions."""
        items = list(items)
        load(backend, items)
        for key, value, metadata in items:
            if "transactions" not in backend.capabilities:
                self._moment += 1
            self.entries[key] = Entry(key, value, metadata, self._moment)
        self._moment += 1

    def matching(
        self, query: str | None = None, metadata_filter: dict[str, Any] | None = None, prefix: str | None = None
    ) -> list[tuple[Entry, float]]:
        """Return every match with its score, newest first, then by key."""
        terms, condition = parse_query(query), filters.parse_filter(metadata_filter)
        found = [
            entry
            for entry in self.entries.values()
            if (terms is None or matches(entry.indexed, terms))
            and filters.matches(condition, entry.metadata)
            and entry.key.startswith(prefix or "")
        ]
        found.sort(key=lambda entry: (-entry.moment, entry.key))
        needles = [term.needle for term in terms or () if not term.negated]
        return [(entry, _score(entry.indexed, needles)) for entry in found]

    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        prefix: str | None = None,
        offset: int = 0,
    ) -> dict[str, Any]:
        """Return what a backend's ``search`` must return."""
        return page(self.matching(query, metadata_filter, prefix), limit, offset)


def page(matching: list[tuple[Entry, float]], limit: int, offset: int) -> dict[str, Any]:
    """Return the result of a search that has these matches, which are newest first."""
    ranked = sorted(matching[: max(RANK_WINDOW, offset + limit)], key=lambda scored: -scored[1])
    results = [
        {"key": entry.key, "value": entry.value, "metadata": entry.metadata, "score": rank}
        for entry, rank in ranked[offset : offset + limit]
    ]
    return {"success": True, "results": results, "count": len(results)}


def _score(indexed: str, needles: list[str]) -> float:
    if not needles:
        return 0.0
    return score([indexed.count(needle) for needle in needles], indexed.count(TOKEN_START))
