"""What a search must answer, computed in Python: the oracle that every database is compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core import filters
from the_edge_agent.memory.core.languages import language
from the_edge_agent.memory.core.query import parse_query
from the_edge_agent.memory.core.tokens import (
    RANK_WINDOW,
    TOKEN_START,
    Term,
    counted,
    matches,
    positive_needles,
    rarity,
    score,
    search_text,
)
from the_edge_agent.testing.contract import Item, load


@dataclass(frozen=True)
class Entry:
    """One entry; ``moment`` grows with each transaction."""

    key: str
    value: Any
    metadata: dict[str, Any] | None
    moment: int
    language: str = "none"
    indexed: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index the entry."""
        indexed = search_text(self.key, self.value, self.metadata, language(self.language))
        object.__setattr__(self, "indexed", indexed)


class Model:
    """A store in Python, filled together with a real one."""

    def __init__(self, language: str = "none") -> None:
        """Make an empty store of words of a language."""
        self.entries: dict[str, Entry] = {}
        self.language = language
        self._moment = 0

    def load(self, backend: LTMBackend, items: Iterable[Item]) -> None:
        """Store items in a backend and here; they are equally new if the backend has transactions."""
        items = list(items)
        load(backend, items)
        for key, value, metadata in items:
            if "transactions" not in backend.capabilities:
                self._moment += 1
            self.entries[key] = Entry(key, value, metadata, self._moment, self.language)
        self._moment += 1

    def matching(
        self, query: str | None = None, metadata_filter: dict[str, Any] | None = None, prefix: str | None = None
    ) -> list[tuple[Entry, float]]:
        """Return every entry that has every word, with its score, newest first, then by key."""
        asked = parse_query(query, "all", language(self.language))
        found = self._scope(asked.terms, metadata_filter, prefix, nothing=asked.is_empty)
        needles = positive_needles(asked.terms)
        return [(entry, _score(entry.indexed, needles)) for entry in found]

    def _scope(
        self,
        terms: Sequence[Term],
        metadata_filter: dict[str, Any] | None,
        prefix: str | None,
        *,
        nothing: bool = False,
    ) -> list[Entry]:
        """Return the entries that satisfy terms, filter and prefix, newest first, then by key."""
        condition = filters.parse_filter(metadata_filter)
        found = [
            entry
            for entry in self.entries.values()
            if not nothing
            and (not terms or matches(entry.indexed, terms))
            and filters.matches(condition, entry.metadata)
            and entry.key.startswith(prefix or "")
        ]
        return sorted(found, key=lambda entry: (-entry.moment, entry.key))

    def ask(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        prefix: str | None = None,
        offset: int = 0,
    ) -> dict[str, Any]:
        """Return the right answer of ``search`` with ``match="any"``, by the rules of docs/search.md."""
        asked = parse_query(query, "any", language(self.language))
        if asked.words is None:
            found = self._scope(asked.terms, metadata_filter, prefix, nothing=asked.is_empty)
            return page([(entry, 0.0) for entry in found], limit, offset)
        rarities = self.rarities(asked.words, prefix)
        scope, few = self._scope(asked.terms, metadata_filter, prefix), max(1000, offset + limit)
        found = []
        for words in [*([word] for word in asked.words), asked.words]:
            having = [entry for entry in scope if matches(entry.indexed, words)]
            if len(having) > few:
                having = [entry for entry in scope[: 4 * few] if matches(entry.indexed, words)]
            found += having
        candidates = _in_both(scope, found)
        ranked = [(entry, _score_of_any(entry.indexed, rarities)) for entry in candidates]
        ranked.sort(key=lambda scored: -scored[1])
        return _results(ranked[offset : offset + limit])

    def rarities(self, words: Sequence[Term], prefix: str | None = None) -> dict[Term, float]:
        """Return how much each word tells, by the newest 1,000 entries under a prefix."""
        sample = self._scope((), None, prefix)[:1000]
        return {word: rarity(sum(matches(entry.indexed, [word]) for entry in sample), len(sample)) for word in words}

    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        prefix: str | None = None,
        offset: int = 0,
    ) -> dict[str, Any]:
        """Return the right answer of ``search`` with ``match="all"``."""
        return page(self.matching(query, metadata_filter, prefix), limit, offset)


def page(matching: list[tuple[Entry, float]], limit: int, offset: int) -> dict[str, Any]:
    """Return the result of a search that has these matches, which are newest first."""
    ranked = sorted(matching[: max(RANK_WINDOW, offset + limit)], key=lambda scored: -scored[1])
    return _results(ranked[offset : offset + limit])


def _results(ranked: list[tuple[Entry, float]]) -> dict[str, Any]:
    results = [
        {"key": entry.key, "value": entry.value, "metadata": entry.metadata, "score": rank} for entry, rank in ranked
    ]
    return {"success": True, "results": results, "count": len(results)}


def _in_both(scope: list[Entry], found: list[Entry]) -> list[Entry]:
    keys = {entry.key for entry in found}
    return [entry for entry in scope if entry.key in keys]


def _score(indexed: str, needles: list[tuple[str, ...]]) -> float:
    if not needles:
        return 0.0
    return score(counted(needles, indexed), indexed.count(TOKEN_START))


def _score_of_any(indexed: str, rarities: Mapping[Term, float]) -> float:
    return round(math.fsum(_parts(indexed, rarities).values()), 6)


def explained(indexed: str, rarities: Mapping[Term, float]) -> list[dict[str, Any]]:
    """Return the part of the score that each term of the entry adds."""
    parts = _parts(indexed, rarities)
    return [{"term": term.shown, "score": round(part, 6)} for term, part in parts.items() if part]


def _parts(indexed: str, rarities: Mapping[Term, float]) -> dict[Term, float]:
    norm = 1.2 * (0.25 + 0.75 * indexed.count(TOKEN_START) / 100)
    parts = {}
    for word, told in rarities.items():
        count = sum(indexed.count(needle) for needle in word.needles)
        parts[word] = told * (count * 2.2 / (count + norm))
    return parts
