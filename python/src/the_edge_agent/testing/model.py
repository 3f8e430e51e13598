"""A model of a memory in Python. It computes the right answers of searches, and every database is compared with it."""

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
    """One entry.

    Attributes:
        key: the full key.
        moment: a number that grows with each transaction.
        index: whether the words can be searched.
        indexed: the search text.
    """

    key: str
    value: Any
    metadata: dict[str, Any] | None
    moment: int
    language: str = "none"
    index: bool = True
    indexed: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the search text."""
        indexed = search_text(self.key, self.value, self.metadata, language(self.language)) if self.index else ""
        object.__setattr__(self, "indexed", indexed)


class Model:
    """A store in Python that is filled together with a real one."""

    def __init__(self, language: str = "none") -> None:
        """Make an empty store for a language."""
        self.entries: dict[str, Entry] = {}
        self.language = language
        self._moment = 0

    def load(self, backend: LTMBackend, items: Iterable[Item]) -> None:
        """Store items in a backend and in the model. If the backend has transactions, all items get the same time."""
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
        """Return the entries that have every word, with their scores, newest first, then by key."""
        parsed = parse_query(query, "all", language(self.language))
        entries = self._scope(parsed.terms, metadata_filter, prefix, nothing=parsed.is_empty)
        needles = positive_needles(parsed.terms)
        return [(entry, _score(entry.indexed, needles)) for entry in entries]

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
        entries = [
            entry
            for entry in self.entries.values()
            if not nothing
            and (not terms or matches(entry.indexed, terms))
            and filters.matches(condition, entry.metadata)
            and entry.key.startswith(prefix or "")
        ]
        return sorted(entries, key=lambda entry: (-entry.moment, entry.key))

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
        parsed = parse_query(query, "any", language(self.language))
        if parsed.words is None:
            entries = self._scope(parsed.terms, metadata_filter, prefix, nothing=parsed.is_empty)
            return page([(entry, 0.0) for entry in entries], limit, offset)
        rarities = self.rarities(parsed.words, prefix)
        scope, window = self._scope(parsed.terms, metadata_filter, prefix), max(1000, offset + limit)
        entries = []
        for words in [*([word] for word in parsed.words), parsed.words]:
            having = [entry for entry in scope if matches(entry.indexed, words)]
            if len(having) > window:
                having = [entry for entry in scope[: 4 * window] if matches(entry.indexed, words)]
            entries += having
        candidates = _in_both(scope, entries)
        ranked = [(entry, _score_of_any(entry.indexed, rarities)) for entry in candidates]
        ranked.sort(key=lambda scored: -scored[1])
        return _results(ranked[offset : offset + limit])

    def rarities(self, words: Sequence[Term], prefix: str | None = None) -> dict[Term, float]:
        """Return the weight of each word, from the newest 1,000 entries with a prefix."""
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
    """Return the result of a search with these matches, which must be newest first."""
    ranked = sorted(matching[: max(RANK_WINDOW, offset + limit)], key=lambda scored: -scored[1])
    return _results(ranked[offset : offset + limit])


def _results(ranked: list[tuple[Entry, float]]) -> dict[str, Any]:
    results = [
        {"key": entry.key, "value": entry.value, "metadata": entry.metadata, "score": rank} for entry, rank in ranked
    ]
    return {"success": True, "results": results, "count": len(results)}


def _in_both(scope: list[Entry], entries: list[Entry]) -> list[Entry]:
    keys = {entry.key for entry in entries}
    return [entry for entry in scope if entry.key in keys]


def _score(indexed: str, needles: list[tuple[str, ...]]) -> float:
    if not needles:
        return 0.0
    return score(counted(needles, indexed), indexed.count(TOKEN_START))


def _score_of_any(indexed: str, rarities: Mapping[Term, float]) -> float:
    return round(math.fsum(_parts(indexed, rarities).values()), 6)


def explained(indexed: str, rarities: Mapping[Term, float]) -> list[dict[str, Any]]:
    """Return for each term that the entry has the part of the score that it adds."""
    parts = _parts(indexed, rarities)
    return [{"term": term.shown, "score": round(part, 6)} for term, part in parts.items() if part]


def _parts(indexed: str, rarities: Mapping[Term, float]) -> dict[Term, float]:
    norm = 1.2 * (0.25 + 0.75 * indexed.count(TOKEN_START) / 100)
    parts = {}
    for word, weight in rarities.items():
        count = sum(indexed.count(needle) for needle in word.needles)
        parts[word] = weight * (count * 2.2 / (count + norm))
    return parts
