"""The plan of a search: which statements (steps) a database tries, in which order, and how much each may read.

A search needs the newest matches, or some entries that have a word. An index of words or of metadata does not return
its matches in the order of time, and the index of times does not know which entries match. So a search tries steps:

1. Look up the keys of the search's range, and the matches in the index, and sort them, but only if there are at most
   as many as a limit.
2. If there are more, look for enough matches among the newest entries.
3. Do both again with higher limits.
4. Read all matches.

Each database writes the SQL of its steps. This module has the order of the steps, and decides whether the rows of a
step answer the search.
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


class StepLimits(NamedTuple):
    """How much one step may read before the search tries the next step.

    On SQLite a large page raises both limits: to the number of matches that the search needs, and to ``SCANNED`` times
    as many entries.

    Attributes:
        matches: how many matches are looked up in the index at most.
        newest: how many of the newest entries are searched.
    """

    matches: int
    newest: int

    @property
    def is_small(self) -> bool:
        """Whether whole rows are sorted. With more matches only times and keys are sorted, and rows are read later."""
        return self.matches <= SORTED_WHOLE


#: The limits of each family, in the order in which they are tried. A step costs about as much as all steps before it.
STEP_LIMITS: Final[dict[str, tuple[StepLimits, ...]]] = {
    "sqlite": (StepLimits(300, 4_000), StepLimits(20_000, 40_000)),
    "postgresql": (StepLimits(200, 2_000), StepLimits(20_000, 40_000)),
    "mysql": (StepLimits(500, 4_000), StepLimits(20_000, 40_000)),
}
RANGE_LIMIT: Final = 2_000  # through SQLAlchemy, a range of up to so many keys is read whole, before any other step
SORTED_WHOLE: Final = 1_000  # up to this many matches are sorted as whole rows; of more only times and keys
SCANNED: Final = 4  # a scan reads this many times as many of the newest entries as the search needs matches
SAMPLE: Final = 1_000  # the newest entries, which tell how common each word is
COMMON: Final = 0.2  # a word in more than this part of the sample is too common to be looked up
SHORT: Final = 10_000  # characters; a longer value or search text is not read with its row, but later, by key
MOST_ROWS: Final = 2**31 - 1  # the highest LIMIT of a statement: an INTEGER on every database
LONG_TEXTS: Final = 50  # long search texts that one statement reads

# On MySQL and MariaDB an index in a table of ours gives the numbers of entries with a word, in blocks.
ALL_BLOCKS: Final = 1  # with so many blocks or fewer, reading all entries is faster than looking words up
LEAST_LOOKED_UP: Final = 4_000  # matches to look up for the newest ones, if the first limit is lower
LATEST: Final = 2_002  # entries read from the latest blocks of a word: twice the 1,001 that show that it has over 1,000
MOST_UNNUMBERED: Final = 4_000  # entries without a number; with more, the latest blocks are not used

# How many index lookups of a filter the index answers. These are selective enough; Python or SQL checks the rest.
GROUPS: Final[Mapping[str, int]] = {"sqlite": 8, "mysql": 3}
MENTIONED: Final = 20  # keys and values of a filter that a scan on SQLite looks for; SQLite allows 1,000 conditions


@dataclass(slots=True)  # not frozen, which would take longer to make
class Step(Generic[Statement]):
    """A statement that may answer a search.

    If there are too many matches, the statement returns one row of nulls.

    Attributes:
        statement: the statement, as the driver or SQLAlchemy takes it.
        parameters: the parameters of this step, by name. Other parameters are common to all steps of a search.
        is_partial: whether the statement may miss matches. If so, its rows are an answer only if there are enough.
        limit: how many of the newest matches the statement can return. It cannot answer a page beyond these.
        look_up: a function that runs statements of its own to make further parameters. It gets a connection, in a
            transaction that sees one state, and the terms. It returns None if there are too many matches. ``look_up``
            is None if the step needs no further parameters.
    """

    statement: Statement
    parameters: Mapping[str, int] = field(default_factory=dict)
    is_partial: bool = False
    limit: int | None = None
    look_up: Callable[[Any, Sequence[Term]], Mapping[str, Any] | None] | None = None

    def is_answered_by(self, rows: Rows, needed: int) -> bool:
        """Return whether these rows of the step answer a search that needs ``needed`` rows.

        The rows of a partial step are an answer if there are enough of them. The rows of another step are an answer,
        unless the first one has no key, which means that there are too many matches.
        """
        if self.is_partial:
            return len(rows) == needed
        return not rows or rows[0][0] is not None


def ladder(
    family: str,
    look_ups: Sequence[Callable[[StepLimits], Step[Statement]]],
    newest: Callable[[StepLimits], Step[Statement]] | None,
    every: Callable[[], Step[Statement]],
) -> Iterator[Step[Statement]]:
    """Yield the steps that find the newest matches, cheapest first. The search runs them until one answers.

    Args:
        family: a key of ``STEP_LIMITS``; ``mysql`` for MariaDB too.
        look_ups: functions that take limits and return a step, which looks up the matches in an index and sorts them
            if there are not too many; empty if no index helps.
        newest: takes limits and returns the step that looks for enough matches among the newest entries; None for a
            search without such a step.
        every: returns the step that reads all matches.
    """
    for limits in STEP_LIMITS[family] if look_ups else STEP_LIMITS[family][-1:]:
        yield from (look_up(limits) for look_up in look_ups)
        if newest is not None:
            yield newest(limits)
    yield every()


def first_answer(
    steps: Iterable[Step[Statement]], read: Callable[[Step[Statement]], Rows | None], needed: int
) -> Rows | None:
    """Run steps until one answers the search, and return its rows; return None if no step answers.

    Args:
        steps: the steps, in the order in which to run them.
        read: runs a step and returns its rows, or None if there are too many matches.
        needed: how many rows the search needs.
    """
    for step in steps:
        if step.is_partial and step.limit is not None and step.limit < needed:
            continue  # this step cannot return enough rows
        rows = read(step)
        if rows is not None and step.is_answered_by(rows, needed):
            return rows
    return None


class Row(NamedTuple):
    """One entry as a ``Reader`` returns it.

    Attributes:
        key: the key.
        timestamp: when the entry was stored, in the type that the driver returns.
        text: the search text; None if it is longer than ``SHORT``.
    """

    key: str
    timestamp: Any
    text: str | None


class Reader(Protocol):
    """Reads entries for one search: those that have not expired and whose key has the prefix.

    All methods see the same state of the database.
    """

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Row]:
        """Return the newest entries that satisfy the terms and, if ``filtered``, the filter.

        Returns:
            Up to ``limit`` entries, newest first; entries of one time are in the order of their keys.
        """
        ...

    def having(self, terms: Sequence[Term], limit: int) -> list[Row]:
        """Return the entries that satisfy the terms and the filter, in any order, but at most ``limit`` + 1 of them."""
        ...

    def in_time(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows, and fail when the time of the call is over."""
        ...

    def texts(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the search texts of entries by key."""
        ...

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return the results of a search, or the damage, at these keys, in their order. All scores are 0.0."""
        ...


def window_of(terms: Sequence[Term], offset: int, limit: int) -> int:
    """Return how many of the newest matches a search must read: with words, all that are ranked."""
    return min(max(RANK_WINDOW, offset + limit) if has_words(terms) else offset + limit, MOST_ROWS)


def is_far_page(terms: Sequence[Term], offset: int, limit: int) -> bool:
    """Return whether a page is so far down that a search ranks many more entries than the page shows."""
    return has_words(terms) and window_of(terms, offset, limit) - limit > RANK_WINDOW


def texts_of(reader: Reader, rows: Sequence[Row]) -> Iterable[str]:
    """Return the search texts of rows; long ones are read later, ``LONG_TEXTS`` at a time, within the call's time."""
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
    """Return the scores and rows of the results, best first. Without words all scores are 0.0.

    Args:
        rows: rows of the matches, newest first, then by key.
        texts: the search text of each row.
        terms: the terms of the query.
        offset: how many results to skip.
        limit: how many results to return.
    """
    if not has_words(terms):
        return [(0.0, row) for row in rows[offset : offset + limit]]
    needles = positive_needles(terms)
    ranked = [(rank(needles, text), row) for text, row in zip(texts, rows, strict=True)]
    ranked.sort(key=lambda pair: -pair[0])  # stable: equal scores stay newest first, then by key
    return ranked[offset : offset + limit]


def all_matching(reader: Reader, terms: Sequence[Term], offset: int, limit: int) -> list[dict[str, Any] | Damage]:
    """Return the results of a search: the entries that satisfy all terms and the filter, or their damage.

    Args:
        reader: reads the entries, all from one state of the database.
        terms: the terms of the query. Results are best first; without words, newest first.
        offset: how many results to skip.
        limit: how many results to return.
    """
    rows = reader.newest(terms, window_of(terms, offset, limit), filtered=True)
    chosen = best(rows, texts_of(reader, rows), terms, offset, limit)
    entries = entries_of(reader, [row.key for _, row in chosen])
    for (score, _), entry in zip(chosen, entries, strict=True):
        if not isinstance(entry, Damage):
            entry["score"] = score
    return entries


def entries_of(reader: Reader, keys: Sequence[Any]) -> list[dict[str, Any] | Damage]:
    """Return the entries at these keys, in the same order. A damaged key cannot be queried: it becomes a ``Damage``."""
    entries = iter(reader.entries([key for key in keys if is_key(key)]))
    return [next(entries) if is_key(key) else read_entry(key, "null", None) for key in keys]
