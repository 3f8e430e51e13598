"""How a question (``match="any"``) is answered: which entries are candidates, and their order; on every database.

The rules are part of the contract, see docs/search.md. A database reads the newest entries, and the few that have a
word, through a ``Reader``. All reads are of one state, in one transaction. ``answer`` is where a search begins.
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

_MOST: Final = 2**29 - 1  # candidates by one word: one more than are scanned for it is an INTEGER on every database


class Ranked(NamedTuple):
    """One candidate.

    Attributes:
        key: of the entry.
        timestamp: when it was stored.
        score: its rank.
        parts: what each term adds to the score, in the order of the terms; 0.0 for one that it does not have.
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
    """Return the candidates of a question, best first; equal ones newest first, then by key.

    Args:
        reader: of the database.
        query: with ``words``.
        offset: how many results are skipped.
        limit: how many results are wanted.
        has_filter: whether the search has a metadata filter.
    """
    words = query.words or ()
    count_terms, few = Counter(words), min(window_of(words, offset, limit), _MOST)

    def count(rows: Sequence[Row]) -> list[_Counted]:
        return [
            _Counted(row.key, row.timestamp, count_terms(text), text.count(TOKEN_START))
            for row, text in zip(rows, texts_of(reader, rows), strict=True)
        ]

    sample = count(reader.newest((), SAMPLE, filtered=False))
    frequencies = _frequencies(sample, len(words))
    rarities = [rarity(having, len(sample)) for having in frequencies]
    if len(sample) < SAMPLE and not has_filter and not query.terms:  # it is all that there is
        candidates = sample
    else:
        is_common = any(frequency > len(sample) * COMMON for frequency in frequencies)
        candidates = _candidates(reader, query, count, few, has_filter=has_filter, is_common=is_common)
    found = {row.key: row for row in candidates if any(row.counts)}
    return _in_order([_ranked(row, rarities) for row in found.values()])


def _candidates(
    reader: Reader,
    query: Query,
    count: Callable[[Sequence[Row]], list[_Counted]],
    few: int,
    *,
    has_filter: bool,
    is_common: bool,
) -> list[_Counted]:
    """Return the entries of which one may be a result, in any order, some of them twice.

    ``is_common`` tells whether a word seems to be so common that the newest entries must be scanned for it; that is
    cheaper than to look it up first. It makes no difference to what is returned.
    """
    words = query.words or ()
    if not is_common:
        found = [reader.having((*query.terms, word), few) for word in words]
        if all(len(rows) <= few for rows in found):
            return [row for rows in found for row in count(rows)]
    newest = count(reader.newest(query.terms, few * SCANNED, filtered=has_filter))
    if len(newest) < few * SCANNED:  # all that there are
        return newest
    rare = list[list[Row]]()
    for word, frequency in zip(words, _frequencies(newest, len(words)), strict=True):
        if frequency <= few:
            rows = reader.having((*query.terms, word), few)
            rare += [rows] if len(rows) <= few else []
    if not rare and len(words) > 1:  # else entries with all words are among those with the rare one
        rows = reader.having((*query.terms, *words), few)
        rare += [rows] if len(rows) <= few else []
    return [*newest, *(row for rows in rare for row in count(rows))]


def _frequencies(rows: Sequence[_Counted], words: int) -> list[int]:
    return [sum([row.counts[place] > 0 for row in rows]) for place in range(words)]


def _ranked(row: _Counted, rarities: Sequence[float]) -> Ranked:
    parts = parts_of_score(row.counts, row.length, rarities)
    return Ranked(row.key, row.timestamp, round(fsum(parts), 6), parts)


def _in_order(candidates: list[Ranked]) -> list[Ranked]:
    candidates.sort(key=lambda candidate: _sortable(candidate.key))
    candidates.sort(key=lambda candidate: _sortable(candidate.timestamp), reverse=True)  # stable, as the next
    candidates.sort(key=lambda candidate: -candidate.score)
    return candidates


def _sortable(value: Any) -> tuple[int, Any]:
    """Return a key or a time in a form that sorts; a damaged one, which may have any type, comes first."""
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
    known: Mapping[str, Damage],
) -> tuple[list[dict[str, Any]], list[Damage]]:
    """Return the results of a question, best first, and the damaged entries that it came upon.

    Args:
        reader: of the database, in one state.
        query: with ``words``.
        condition: the metadata filter.
        offset: how many results to skip.
        limit: how many to return.
        explain: whether each result has an ``explain`` too.
        checks_skipped: whether those that are skipped are read too, because damage is known of.
        known: entries whose values in the blob storage are damaged, by key; the reader cannot see that.
    """
    checks_skipped = checks_skipped or bool(offset and known)
    candidates = ranked(reader, query, offset=offset, limit=limit, has_filter=condition is not None)
    place, wanted = (0, offset + limit) if checks_skipped else (offset, limit)
    found, damages = _undamaged(reader, candidates, place, wanted, known)
    if damages and offset and not checks_skipped:  # so that the pages fit together
        checks_skipped = True
        found, damages = _undamaged(reader, candidates, 0, offset + limit, known)
    results = []
    for candidate, entry in found[offset if checks_skipped else 0 :]:
        entry["score"] = candidate.score
        if explain:
            entry["explain"] = _explained(query.words or (), candidate.parts)
        results.append(entry)
    # Damaged metadata satisfies no filter.
    return results, [damage for damage in damages if condition is None or damage.what != "metadata"]


def explain_all(found: Result, query: Query, rules: Language) -> Result:
    """Return the results of a search for terms that must all occur, with what each term adds to their scores."""
    terms = [term for term in query.terms if not term.negated]
    needles = positive_needles(terms)
    for entry in found["results"]:
        text = search_text(entry["key"], entry["value"], entry["metadata"], rules)
        parts = parts_of_score(counted(needles, text), text.count(TOKEN_START), [1.0] * len(terms))
        entry["explain"] = _explained(terms, parts)
    return found


def _undamaged(
    reader: Reader, candidates: Sequence[Ranked], place: int, wanted: int, known: Mapping[str, Damage]
) -> tuple[list[tuple[Ranked, dict[str, Any]]], list[Damage]]:
    """Return so many of the candidates from a place on that are not damaged, each with its entry; and the others."""
    found, damages = list[tuple[Ranked, dict[str, Any]]](), list[Damage]()
    while len(found) < wanted and place < len(candidates):
        some = candidates[place : place + wanted - len(found)]
        place += len(some)
        entries = entries_of(reader, [candidate.key for candidate in some])
        for candidate, read in zip(some, entries, strict=True):
            entry = known.get(candidate.key) or read
            if isinstance(entry, Damage):
                damages.append(entry)
            else:
                found.append((candidate, entry))
    return found, damages
