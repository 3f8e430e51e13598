"""The plan of a search: what it reads, the steps by which a database finds that, and the limits of all steps.

A search wants the newest entries that match, or a few that have a word. An index of words or of metadata does not
give its matches in the order of time, and the index of times does not know what matches. So there are four kinds of
steps. First a database looks up the matches in the index and sorts them, but only if they are at most as many as a
bound. If they are more, it looks for enough matches among the newest entries. Then it tries both steps again with a
higher bound. At last it reads all that match. Each database writes the SQL of its steps. This module decides in which
order they are tried, and what counts as an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from the_edge_agent.memory.core.damage import Damage, is_key, read_entry
from the_edge_agent.memory.core.tokens import RANK_WINDOW, Term, has_words, positive_needles, rank

Item = TypeVar("Item")
Statement = TypeVar("Statement")
Rows: TypeAlias = Sequence[Sequence[Any]]


class Bound(NamedTuple):
    """How far a search goes before it tries something else.

    On SQLite both grow with the page: to as many matches as are wanted, and ``SCANNED`` times as many entries.

    Attributes:
        matches: how many are looked up at most.
        newest: how many of the newest entries are looked at.
    """

    matches: int
    newest: int

    @property
    def is_small(self) -> bool:
        """Whether the rows of so many matches are sorted whole; of more, times and keys are sorted, then rows read."""
        return self.matches <= SORTED_WHOLE


#: Of each family, in turn until one suffices. Each costs about as much as all before it.
BOUNDS: Final[dict[str, tuple[Bound, ...]]] = {
    "sqlite": (Bound(300, 4_000), Bound(20_000, 40_000)),
    "postgresql": (Bound(200, 2_000), Bound(20_000, 40_000)),
    "mysql": (Bound(500, 4_000), Bound(20_000, 40_000)),
}
SORTED_WHOLE: Final = 1_000  # matches that are sorted with all that is wanted of them; of more, only times and keys are
SCANNED: Final = 4  # times as many of the newest entries are looked at as matches are wanted
SAMPLE: Final = 1_000  # of the newest entries, from which it is taken how much a word tells
COMMON: Final = 0.2  # of the sample have a word that seems to be too common to be looked up
SHORT: Final = 10_000  # characters of a value or search text that comes with its row; a longer one is asked for by key
MOST_ROWS: Final = 2**31 - 1  # that are asked for: an INTEGER on every database
LONG_TEXTS: Final = 50  # that are asked for at a time

# Words in rows of blocks (MySQL, MariaDB): how many entries are fetched by their numbers, and may be without a number.
FEW_BLOCKS: Final = 1  # with so many, reading all entries is quicker than looking words up
LEAST_LOOKED_UP: Final = 4_000  # matches for the newest ones, in place of the first bound
LATEST: Final = 2_002  # for a word, in the latest blocks: twice as many as prove that many entries have it
MOST_UNNUMBERED: Final = 4_000  # entries without a number while the latest blocks are looked at

# Conditions of a filter that an index is asked for; with so many a filter is selective enough, and it decides.
GROUPS: Final[Mapping[str, int]] = {"sqlite": 8, "mysql": 3}
MENTIONED: Final = 20  # strings of a filter that a scan of SQLite looks for; it takes 1,000 conditions


@dataclass(slots=True)  # not frozen, which would take longer to make
class Step(Generic[Statement]):
    """A statement that may answer a search.

    If the statement finds too many matches, it returns one row of nulls in place of them.

    Attributes:
        statement: in the language of the database.
        bounds: its own parameters, by name. All steps of a search have other parameters in common.
        is_partial: whether the statement does not see all matches. If so, fewer rows than wanted are no answer.
        limit: how many of the newest matches the statement can return. It cannot answer a page beyond these.
        look_up: makes more parameters for these terms, by statements of its own, on a connection in a transaction that
            sees one state. It returns None if the step would find too much. None if the step needs no look-up.
    """

    statement: Statement
    bounds: Mapping[str, int] = field(default_factory=dict)
    is_partial: bool = False
    limit: int | None = None
    look_up: Callable[[Any, Sequence[Term]], Mapping[str, Any] | None] | None = None

    def is_answered_by(self, rows: Rows, wanted: int) -> bool:
        """Return whether these rows answer a search for ``wanted`` rows.

        Rows of a partial step do if there are enough of them. Rows of another step do, unless the first one has no
        key, which is the sign for too many matches.
        """
        if self.is_partial:
            return len(rows) == wanted
        return not rows or rows[0][0] is not None


def ladder(
    family: str,
    look_ups: Sequence[Callable[[Bound], Step[Statement]]],
    newest: Callable[[Bound], Step[Statement]],
    every: Callable[[], Step[Statement]],
) -> Iterator[Step[Statement]]:
    """Yield the steps for the newest matches, to be tried in turn.

    Args:
        family: the key of ``BOUNDS``; ``mysql`` for MariaDB too.
        look_ups: functions that make, for a bound, a step that fetches and sorts the matches if they are few; empty if
            no index helps.
        newest: makes, for a bound, the step that looks for enough matches among the newest entries.
        every: makes the step that reads all matches.
    """
    for bound in BOUNDS[family] if look_ups else BOUNDS[family][-1:]:
        yield from (look_up(bound) for look_up in look_ups)
        yield newest(bound)
    yield every()


def first_answer(
    steps: Iterable[Step[Statement]], read: Callable[[Step[Statement]], Rows | None], wanted: int
) -> Rows | None:
    """Return the rows of the first step that is answered by them; None if none is.

    Args:
        steps: to be tried in turn.
        read: runs a step and returns its rows; None if it would find too much.
        wanted: how many rows.
    """
    for step in steps:
        if step.is_partial and step.limit is not None and step.limit < wanted:
            continue  # it cannot return so many rows
        rows = read(step)
        if rows is not None and step.is_answered_by(rows, wanted):
            return rows
    return None


class Row(NamedTuple):
    """One entry that a database has read.

    Attributes:
        key: its key.
        timestamp: when it was stored, in whatever type the database sorts by.
        text: its search text; None if it is longer than ``SHORT``.
    """

    key: str
    timestamp: Any
    text: str | None


class Reader(Protocol):
    """What a database reads for one search: entries that have not expired, under its prefix. All is of one state."""

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Row]:
        """Return the newest entries that satisfy terms, and with ``filtered`` the filter; newest first, then by key."""
        ...

    def having(self, terms: Sequence[Term], limit: int) -> list[Row]:
        """Return entries that satisfy terms and the filter, in any order: all, or one more than ``limit`` of them."""
        ...

    def in_time(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield rows until the time of the call is over."""
        ...

    def texts(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the search texts of entries, by their keys."""
        ...

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return ``{"key", "value", "metadata", "score"}`` of entries, in this order."""
        ...


def window_of(terms: Sequence[Term], offset: int, limit: int) -> int:
    """Return how many of the newest entries that match may be among the results."""
    return min(max(RANK_WINDOW, offset + limit) if has_words(terms) else offset + limit, MOST_ROWS)


def is_far_page(terms: Sequence[Term], offset: int, limit: int) -> bool:
    """Return whether a page is so late that most entries that are ranked for it are not among its results."""
    return has_words(terms) and window_of(terms, offset, limit) - limit > RANK_WINDOW


def texts_of(reader: Reader, rows: Sequence[Row]) -> Iterable[str]:
    """Return the search texts of rows, until the time of the call is over; long ones are read some at a time."""
    if None not in map(itemgetter(2), rows):
        return map(itemgetter(2), reader.in_time(rows))
    return _with_long_texts(reader, rows)


def _with_long_texts(reader: Reader, rows: Sequence[Row]) -> Iterator[str]:
    for start in range(0, len(rows), LONG_TEXTS):
        some = rows[start : start + LONG_TEXTS]
        texts = reader.texts([row.key for row in some if row.text is None])
        for row in reader.in_time(some):
            yield texts[row.key] if row.text is None else row.text


def best(
    rows: Sequence[Item], texts: Iterable[str], terms: Sequence[Term], offset: int, limit: int
) -> list[tuple[float, Item]]:
    """Return the scores and rows of results, best first; without words all scores are 0.0.

    Args:
        rows: of what satisfies the terms, newest first, then by key.
        texts: their search texts.
        terms: of the query.
        offset: how many results to skip.
        limit: how many to return.
    """
    if not has_words(terms):
        return [(0.0, row) for row in rows[offset : offset + limit]]
    needles = positive_needles(terms)
    ranked = [(rank(needles, text), row) for text, row in zip(texts, rows, strict=True)]
    ranked.sort(key=lambda found: -found[0])  # stable: equal scores stay newest first, then by key
    return ranked[offset : offset + limit]


def all_matching(reader: Reader, terms: Sequence[Term], offset: int, limit: int) -> list[dict[str, Any] | Damage]:
    """Return ``{"key", "value", "metadata", "score"}`` of what satisfies all terms and the filter, best first.

    Args:
        reader: of the database, in one state.
        terms: of the query; without words, the newest come first.
        offset: how many results to skip.
        limit: how many to return.
    """
    rows = reader.newest(terms, window_of(terms, offset, limit), filtered=True)
    chosen = best(rows, texts_of(reader, rows), terms, offset, limit)
    entries = entries_of(reader, [row.key for _, row in chosen])
    for (score, _), entry in zip(chosen, entries, strict=True):
        if not isinstance(entry, Damage):
            entry["score"] = score
    return entries


def entries_of(reader: Reader, keys: Sequence[Any]) -> list[dict[str, Any] | Damage]:
    """Return the entries of rows, in their order; a damaged key, which cannot be asked for, is damage."""
    found = iter(reader.entries([key for key in keys if is_key(key)]))
    return [next(found) if is_key(key) else read_entry(key, "null", None) for key in keys]
