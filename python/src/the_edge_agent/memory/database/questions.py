"""Answer questions (``match="any"``) on every database: choose the candidates, rank them, read the results.

The rules are part of the contract, see docs/search.md. A ``Reader`` reads the newest entries, and the entries that
have a word, from the database. All reads run in one transaction and see one state. A search calls ``answer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import fsum
from typing import Any, Final, NamedTuple

from the_edge_agent.memory.core.damage import Damage
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.query import Query
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.core.tokens import (
    TOKEN_START,
    Counter,
    Term,
    counted,
    parts_of_score,
    positive_needles,
    rarity,
    search_text,
)
from the_edge_agent.memory.database.search_plan import (
    COMMON,
    SAMPLE,
    SCANNED,
    Reader,
    Row,
    entries_of,
    texts_of,
    window_of,
)

_MAX_WINDOW: Final = 2**29 - 1  # candidates for one word; this times ``SCANNED`` is an INTEGER on every database


class Ranked(NamedTuple):
    """One candidate with its score.

    Attributes:
        key: the key of the entry.
        timestamp: when the entry was stored.
        score: the score of the entry; higher is better.
        parts: what each term adds to the score, in the order of the terms; 0.0 for a term that the entry does not have.
    """

    key: str
    timestamp: Any
    score: float
    parts: Sequence[float]


class _Counted(NamedTuple):
    key: str
    timestamp: Any
    counts: list[int]
    length: int


def ranked(reader: Reader, query: Query, *, offset: int, limit: int, has_filter: bool) -> list[Ranked]:
    """Return the candidates of a question, best first; equal scores newest first, then by key.

    Args:
        reader: reads entries from the database.
        query: a query that has ``words``.
        offset: how many results to skip.
        limit: how many results to return.
        has_filter: whether the search has a metadata filter.
    """
    words = query.words or ()
    count_terms, window = Counter(words), min(window_of(words, offset, limit), _MAX_WINDOW)

    def count(rows: Sequence[Row]) -> list[_Counted]:
        return [
            _Counted(row.key, row.timestamp, count_terms(text), text.count(TOKEN_START))
            for row, text in zip(rows, texts_of(reader, rows), strict=True)
        ]

    sample = count(reader.newest((), SAMPLE, filtered=False))
    frequencies = _frequencies(sample, len(words))
    rarities = [rarity(having, len(sample)) for having in frequencies]
    if len(sample) < SAMPLE:  # the sample has all entries
        has_conditions = has_filter or query.terms
        candidates = count(reader.newest(query.terms, SAMPLE, filtered=has_filter)) if has_conditions else sample
    else:
        is_common = any(frequency > len(sample) * COMMON for frequency in frequencies)
        candidates = _candidates(reader, query, count, window, has_filter=has_filter, is_common=is_common)
    matches = {row.key: row for row in candidates if any(row.counts)}
    return _in_order([_ranked(row, rarities) for row in matches.values()])


def _candidates(
    reader: Reader,
    query: Query,
    count: Callable[[Sequence[Row]], list[_Counted]],
    window: int,
    *,
    has_filter: bool,
    is_common: bool,
) -> list[_Counted]:
    """Return the entries that may be among the results, in any order, some of them twice.

    If ``is_common``, a word is probably so common that the newest entries must be scanned anyway; then this scans them
    first, without looking the words up. It makes no difference to the results.
    """
    words = query.words or ()
    if not is_common:
        rows_by_word = [reader.having((*query.terms, word), window) for word in words]
        if all(len(rows) <= window for rows in rows_by_word):
            return [row for rows in rows_by_word for row in count(rows)]
    newest = count(reader.newest(query.terms, window * SCANNED, filtered=has_filter))
    if len(newest) < window * SCANNED:  # these are all entries
        return newest
    rare = list[list[Row]]()
    for word, frequency in zip(words, _frequencies(newest, len(words)), strict=True):
        if frequency <= window:
            rows = reader.having((*query.terms, word), window)
            rare += [rows] if len(rows) <= window else []
    if not rare and len(words) > 1:  # with a rare word, the entries that have all words are already among its entries
        rows = reader.having((*query.terms, *words), window)
        rare += [rows] if len(rows) <= window else []
    return [*newest, *(row for rows in rare for row in count(rows))]


def _frequencies(rows: Sequence[_Counted], words: int) -> list[int]:
    return [sum([row.counts[place] > 0 for row in rows]) for place in range(words)]


def _ranked(row: _Counted, rarities: Sequence[float]) -> Ranked:
    parts = parts_of_score(row.counts, row.length, rarities)
    return Ranked(row.key, row.timestamp, round(fsum(parts), 6), parts)


def _in_order(candidates: list[Ranked]) -> list[Ranked]:
    candidates.sort(key=lambda candidate: _sortable(candidate.key))
    candidates.sort(key=lambda candidate: _sortable(candidate.timestamp), reverse=True)  # both sorts are stable
    candidates.sort(key=lambda candidate: -candidate.score)
    return candidates


def _sortable(value: Any) -> tuple[int, Any]:
    """Return a sort key for a key or a time. A damaged one may have any type; it comes first."""
    if isinstance(value, datetime):
        return 2, value
    return (1, value) if isinstance(value, str) else (0, 0)


def _explained(terms: Sequence[Term], parts: Sequence[float]) -> list[dict[str, Any]]:
    return [{"term": term.shown, "score": round(part, 6)} for term, part in zip(terms, parts, strict=True) if part]


def answer(
    reader: Reader,
    query: Query,
    condition: Node | None,
    *,
    offset: int,
    limit: int,
    explain: bool,
    checks_skipped: bool,
    damaged_values: Mapping[str, Damage],
) -> tuple[list[dict[str, Any]], list[Damage]]:
    """Return the results of a question, best first, and the damaged entries that it met.

    Args:
        reader: reads entries from one state of the database.
        query: a query that has ``words``.
        condition: the metadata filter.
        offset: how many results to skip.
        limit: how many results to return.
        explain: whether each result also has ``explain``.
        checks_skipped: whether to read the skipped entries too, because the memory is known to have damage.
        damaged_values: the damage of values in the blob storage, by key; the reader does not see it.
    """
    checks_skipped = checks_skipped or bool(offset and damaged_values)
    candidates = ranked(reader, query, offset=offset, limit=limit, has_filter=condition is not None)
    place, count = (0, offset + limit) if checks_skipped else (offset, limit)
    entries, damages = _undamaged(reader, candidates, place, count, damaged_values)
    if damages and offset and not checks_skipped:  # earlier pages leave damage out, so this one must count without it
        checks_skipped = True
        entries, damages = _undamaged(reader, candidates, 0, offset + limit, damaged_values)
    results = []
    for candidate, entry in entries[offset if checks_skipped else 0 :]:
        entry["score"] = candidate.score
        if explain:
            entry["explain"] = _explained(query.words or (), candidate.parts)
        results.append(entry)
    # Damaged metadata satisfies no filter, so it is not reported.
    return results, [damage for damage in damages if condition is None or damage.what != "metadata"]


def explain_all(result: Result, query: Query, rules: Language) -> Result:
    """Add ``explain`` to each result of a search with ``match="all"``, and return ``result``."""
    terms = [term for term in query.terms if not term.negated]
    needles = positive_needles(terms)
    for entry in result["results"]:
        text = search_text(entry["key"], entry["value"], entry["metadata"], rules)
        parts = parts_of_score(counted(needles, text), text.count(TOKEN_START), [1.0] * len(terms))
        entry["explain"] = _explained(terms, parts)
    return result


def _undamaged(
    reader: Reader, candidates: Sequence[Ranked], place: int, count: int, damaged_values: Mapping[str, Damage]
) -> tuple[list[tuple[Ranked, dict[str, Any]]], list[Damage]]:
    """Return ``count`` undamaged candidates from ``place`` on, each with its entry, and the damage met before them."""
    undamaged, damages = list[tuple[Ranked, dict[str, Any]]](), list[Damage]()
    while len(undamaged) < count and place < len(candidates):
        batch = candidates[place : place + count - len(undamaged)]
        place += len(batch)
        entries = entries_of(reader, [candidate.key for candidate in batch])
        for candidate, read in zip(batch, entries, strict=True):
            entry = damaged_values.get(candidate.key) or read
            if isinstance(entry, Damage):
                damages.append(entry)
            else:
                undamaged.append((candidate, entry))
    return undamaged, damages
