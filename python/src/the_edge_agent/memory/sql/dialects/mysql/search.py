"""The steps of searches on MySQL and MariaDB.

The index of words is in ``words.py``, the index for filters in ``metadata_hashes.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import islice
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    Table,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    not_,
    or_,
    select,
    union,
)

from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.database.search_plan import (
    ALL_BLOCKS,
    GROUPS,
    LATEST,
    LEAST_LOOKED_UP,
    MOST_UNNUMBERED,
    STEP_LIMITS,
    Step,
    StepLimits,
    ladder,
)
from the_edge_agent.memory.sql.dialects.base.match_query import (
    IS_PARTIAL,
    ROWS,
    SKIPPED,
    MatchQuery,
    SQLStep,
    in_order,
    is_range_over_limit,
    with_timestamp,
)
from the_edge_agent.memory.sql.dialects.base.search import TextConditions
from the_edge_agent.memory.sql.dialects.mysql.metadata_hashes import METADATA_HASHES, TOO_MANY, metadata_hashes
from the_edge_agent.memory.sql.dialects.mysql.words import BLOCK, Places, WordTable, both, count, numbers

_CACHE_SECONDS: Final = 2.0  # seconds for which counts are remembered; they only decide which step runs first
_CACHED_QUERIES: Final = 1_000

LookUp: TypeAlias = Callable[[StepLimits], SQLStep]

_MOST: Final = STEP_LIMITS["mysql"][-1].matches
_SOME: Final[BindParameter[int]] = bindparam("b_some", type_=Integer())
_NEWEST: Final[BindParameter[int]] = bindparam("b_newest", type_=Integer())


class MySQLTextConditions(TextConditions):
    """Words by LIKE. If metadata hashes or the table of words find few entries, only these are read."""

    def __init__(self, entries: Table, words: WordTable | None) -> None:
        """Make conditions for one table. ``words`` is None if there is no table of words."""
        super().__init__(entries)
        self._words = words
        self._small_until = 0.0
        self._common_until: dict[Sequence[Term], float] = {}

    def tried_first(self, steps: Sequence[SQLStep], terms: Sequence[Term]) -> Sequence[int]:
        """Return the step that a recent count makes likely to answer.

        If there were few entries a moment ago, that is the step for all. If many had the words, the step for the
        newest.
        """
        if steps[0].look_up is None:
            return super().tried_first(steps, terms)
        now = time.monotonic()
        if now < self._small_until:
            return [len(steps) - 1]
        if now < self._common_until.get(terms, now):
            return [next(place for place, step in enumerate(steps) if step.is_partial)]
        return []

    def _numbers(self, words: WordTable, limit: int, connection: Connection, terms: Sequence[Term]) -> Any:
        """Return the numbers of entries that may have all terms, or None if these and the unnumbered are too many."""
        blocks = words.blocks(connection)
        now = time.monotonic()
        places = reduce(both, words.places(connection, blocks, [term for term in terms if not term.negated]))
        room = limit - count(places)
        unnumbered = words.unnumbered(connection, max(room, 0) + 1)
        if len(blocks) <= ALL_BLOCKS and unnumbered <= min(room, BLOCK):
            self._small_until = now + _CACHE_SECONDS
        if unnumbered <= room:
            return {"b_numbers": [*numbers(places)]}
        if len(self._common_until) >= _CACHED_QUERIES:
            self._common_until.clear()
        self._common_until[terms] = now + _CACHE_SECONDS
        return None

    def lookup_parameters(self, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return the hashes by which the columns look up a metadata filter. A match has one hash of each group."""
        return {
            _name(place, number): metadata_hash
            for place, group in enumerate(groups[: GROUPS["mysql"]])
            for number, metadata_hash in enumerate(
                metadata_hash for one_of in group for metadata_hash in metadata_hashes(one_of, "")
            )
        }

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps: look up and sort the matches of a group or of words, or read the newest entries."""
        look_ups = [
            self._by_filter(newest, group, size) for group, size in enumerate(newest.group_sizes[: GROUPS["mysql"]])
        ]
        words = self._words if has_words(newest.terms) else None
        if not look_ups and words is None:
            return super().steps(newest)
        if words is not None:
            look_ups.append(self._by_words(newest, words))
        (every,) = super().steps(newest)
        return [*ladder("mysql", look_ups, self._among_newest(newest), lambda: every)]

    def by_range(self, newest: MatchQuery) -> SQLStep:
        """Return the step that reads the matches among the keys of the range.

        The index is named, because MySQL and MariaDB copy the rows of a subquery that has a limit, which takes longer.
        """
        is_over = is_range_over_limit(newest)
        where = [not_(is_over), *self.like_conditions(newest.terms)]
        rows = newest.rows(*with_timestamp(newest), where=where)
        return Step(in_order(rows.with_hint(self.table, "FORCE INDEX (PRIMARY)"), is_over))

    def _by_words(self, newest: MatchQuery, words: WordTable) -> LookUp:
        """Return a function from limits to the step that reads the entries that the table of words finds."""
        rows = newest.rows(where=[words.may_have("b_numbers"), *self.like_conditions(newest.terms)])
        statement = rows.with_hint(self.table, words.hint)

        def step(limits: StepLimits) -> SQLStep:
            limit = max(limits.matches, LEAST_LOOKED_UP)
            return Step(statement, look_up=partial(self._numbers, words, limit))

        return step

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps that look the words up in their table.

        If many entries have them, the latest blocks come first.
        """
        every = super().having(newest)
        words = self._words if has_words(newest.terms) else None
        if words is None:
            return every
        where = [
            words.may_have("b_numbers"),
            *newest.conditions,
            *newest.in_range(),
            *self.like_conditions(newest.terms),
        ]
        rows = select(*newest.columns).where(*where).limit(ROWS).with_hint(self.table, words.hint)
        look_ups = partial(self._latest_numbers, words), partial(self._all_numbers, words)
        return [*(Step(rows, look_up=look_up) for look_up in look_ups), *every]

    def _latest_numbers(self, words: WordTable, connection: Connection, terms: Sequence[Term]) -> Any:
        """Return the numbers of entries that may have all terms.

        If there are many, return only those of the latest blocks.
        """
        places = self._places(words, connection, terms)
        if words.unnumbered(connection, MOST_UNNUMBERED + 1) > MOST_UNNUMBERED:
            return None
        is_partial = {IS_PARTIAL: True} if count(places) > LATEST else {}
        return {"b_numbers": [*islice(numbers(places), LATEST)], **is_partial}

    def _all_numbers(self, words: WordTable, connection: Connection, terms: Sequence[Term]) -> Any:
        places = self._places(words, connection, terms)
        is_much = count(places) + words.unnumbered(connection, _MOST + 1) > _MOST
        return None if is_much else {"b_numbers": [*numbers(places)]}

    def _places(self, words: WordTable, connection: Connection, terms: Sequence[Term]) -> Places:
        positive = [term for term in terms if not term.negated]
        return reduce(both, words.places(connection, words.blocks(connection), positive))

    def _by_filter(self, newest: MatchQuery, group: int, size: int) -> LookUp:
        """Return a function from limits to the step that reads the entries that one group of the filter finds.

        If they are too many, the statement returns one row without a key.
        """
        columns = self.table.c
        hashes = [bindparam(_name(group, number), type_=Integer()) for number in range(size)]
        mark: ColumnElement[int] = literal_column(str(TOO_MANY), Integer())
        lookups = [
            select(columns.key)
            .where(columns[name].in_([*hashes, mark] if name == METADATA_HASHES[0] else hashes))
            .limit(_SOME)
            for name in METADATA_HASHES
        ]
        keys = union(*lookups).subquery("keys")  # with $or, an entry may have several of the hashes
        count, place = func.count().over().label("count"), func.row_number().over().label("place")
        matches = select(keys.c.key, count, place).subquery("matches")
        is_within_limit = matches.c.count < _SOME
        shown: list[ColumnElement[Any]] = [case((is_within_limit, columns.key)).label("key"), *newest.columns[1:]]
        rows = select(*shown).join_from(matches, self.table, columns.key == matches.c.key)
        rows = rows.where(
            or_(is_within_limit, matches.c.place <= SKIPPED + 1),  # separate: the server checks it before the join
            or_(
                not_(is_within_limit), and_(*newest.conditions, *newest.in_range(), *self.like_conditions(newest.terms))
            ),
        )
        statement = rows.order_by(*newest.order).limit(ROWS).offset(SKIPPED)
        return lambda limits: Step(statement, {"b_some": limits.matches + 1}, limit=limits.matches)

    def _among_newest(self, newest: MatchQuery) -> LookUp:
        """Return a function from limits to the step that reads the matches among the newest entries."""
        ages = self.table.alias("ages").c
        oldest = select(ages.updated_at).order_by(ages.updated_at.desc(), ages.key).limit(1).offset(_NEWEST)
        first = func.coalesce(oldest.scalar_subquery(), literal_column("TIMESTAMP'1000-01-01 00:00:00'"))
        rows = newest.rows(where=[self.table.c.updated_at >= first, *self.like_conditions(newest.terms)])
        return lambda limits: Step(rows, {"b_newest": limits.newest}, is_partial=True, limit=limits.newest)


def _name(group: int, number: int) -> str:
    return f"b_hash{group}_{number}"
