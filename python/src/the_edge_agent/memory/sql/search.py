"""Search on one connection: candidates from SQL, newest first; the rank from Python."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    null,
    or_,
    select,
    type_coerce,
)

from the_edge_agent.memory.damage import Damage, Lost, is_key, may_fit, undamaged
from the_edge_agent.memory.filters import Node, alternatives, slotted
from the_edge_agent.memory.sql.batches import BATCH_ITEMS
from the_edge_agent.memory.sql.deadlines import in_time
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.dialects.newest import Newest, Step, bound_range
from the_edge_agent.memory.sql.errors import LostRaceError
from the_edge_agent.memory.sql.prepared import Prepared, Query
from the_edge_agent.memory.sql.rows import entry_of
from the_edge_agent.memory.text import RANK_WINDOW, Term, has_words, rank, score
from the_edge_agent.memory.validation import end_of_prefix

PAGE_ROWS = 500  # rows that Python filters at a time
_SHORT = 10_000  # characters of a value or search text that comes with every match that is ranked
_MOST_ROWS = 2**31 - 1  # which is an INTEGER on every database
_KEPT_QUERIES = 500  # compiled, by what they ask

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Search:
    """A checked search.

    Attributes:
        terms: of the query; none for no text condition.
        metadata_filter: None for no condition.
        prefix: of the keys; empty for all.
        limit: results at most.
        offset: results to skip.
    """

    terms: Sequence[Term]
    metadata_filter: Node | None
    prefix: str
    limit: int
    offset: int

    @property
    def ranked(self) -> bool:
        """Whether there is a word to look for; otherwise every score is 0.0."""
        return has_words(self.terms)

    @property
    def window(self) -> int:
        """How many of the newest matches may be among the results."""
        wanted = min(self.offset + self.limit, _MOST_ROWS)
        return max(RANK_WINDOW, wanted) if self.ranked else wanted


class Attempt(NamedTuple):
    """A statement for the newest matches, which may not be able to tell.

    Attributes:
        query: the statement.
        step: what it is.
        wanted: how many rows it was asked for.
    """

    query: Query
    step: Step
    wanted: int

    def is_answered_by(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Return whether the rows are what was asked for."""
        return is_answer(self.step, rows, self.wanted)


class Searcher:
    """Runs searches over the entries' table of one dialect."""

    def __init__(self, dialect: Dialect, entries: Table) -> None:
        """Build the parts that every search shares."""
        self._dialect = dialect
        self._filters, self._texts = dialect.filters(entries), dialect.texts(entries)
        self._table, self._visible = entries, dialect.visible(entries)
        columns = entries.c
        self._key, self._updated_at = columns.key, columns.updated_at
        self._value, self._metadata = (
            type_coerce(columns.value, Text()),
            type_coerce(columns.metadata, Text()),
        )
        self._newest_first = (columns.updated_at.desc(), columns.key)
        self._version = columns.version
        self._search_text = type_coerce(columns.get("search_text", null()), Text())  # null: no words are searched
        self._queries: dict[Any, list[tuple[Step, Prepared]]] = {}
        self._pointer = columns.storage_uri
        self._by_key = select(
            columns.key, self._value, self._metadata, self._pointer, columns.updated_at, columns.version
        ).where(columns.key.in_(bindparam("keys", expanding=True)))

    def attempts(self, search: Search) -> list[Attempt]:
        """Return statements to be tried in turn for what ``results_of`` makes results of.

        None where Python filters, and of late pages of what is ranked: too many values would come with them.
        """
        if search.ranked and search.window - search.limit > RANK_WINDOW:
            return []
        asked = self._asked(search)
        kept = self._queries.get(asked.shape)
        if kept is None:
            if len(self._queries) >= _KEPT_QUERIES:
                self._queries.clear()
            columns = [self._key, self._value, self._metadata, self._pointer]
            if search.ranked:
                columns[1] = self._if_short(self._value)
                columns.append(self._if_short(self._search_text))
            steps = self._steps(search, asked, columns)
            if steps is None:  # not remembered: such a filter may be long
                return []
            kept = self._queries[asked.shape] = [(step, Prepared(step.statement)) for step in steps]
        rows, skipped = (search.window, 0) if search.ranked else (search.limit, search.offset)
        parameters = {**asked.parameters, "b_rows": rows, "b_skipped": skipped, "b_now": self._dialect.clock()}
        places = self._texts.alone([step for step, _ in kept], search.terms)
        return [
            Attempt(Query(prepared, {**parameters, **step.bounds}), step, rows)
            for step, prepared in map(kept.__getitem__, places)
            if step.most is None or skipped < step.most
        ]

    def _asked(self, search: Search) -> _Asked:
        node, filled = slotted(search.metadata_filter) if self._filters.takes_slots else (search.metadata_filter, [])
        groups, bounds = alternatives(search.metadata_filter), prefix_bounds(search.prefix)
        wanted = tuple(map(len, groups))
        parameters = {**self._texts.parameters(search.terms), **self._texts.wanted(groups), **bounds}
        for place, (path, value) in enumerate(filled):
            parameters |= self._filters.bound(place, path, value)
        terms = tuple((term.negated, len(term.tokens) > 1) for term in search.terms)
        shape = (terms, repr(node), wanted, len(bounds))  # repr: 1, 1.0 and True are equal
        return _Asked(node, wanted, parameters, shape)

    def _steps(self, search: Search, asked: _Asked, columns: Sequence[ColumnElement[Any]]) -> list[Step] | None:
        """Return the query that selects the newest matches; None where Python filters."""
        conditions = [self._visible]
        if asked.node is not None:
            condition = self._filters.condition(asked.node)
            if condition is None:
                return None
            conditions.append(condition)
        bounds = len(prefix_bounds(search.prefix))
        return self._texts.steps(Newest(self._table, columns, search.terms, conditions, bounds, asked.wanted))

    def _if_short(self, column: ColumnElement[str]) -> ColumnElement[str]:
        return case((self._dialect.size(column) <= _SHORT, column), else_=null())

    def search(self, connection: Connection, search: Search) -> list[dict[str, Any] | Damage]:
        """Return what no attempt can: ``[{"key", "value", "metadata", "score"}]``, best first, of one state."""
        scored = self._candidates(connection, search)
        scored.sort(key=lambda found: -found.score)  # stable: equal scores stay newest first, then by key
        return self._entries(connection, scored[search.offset : search.offset + search.limit])

    def _candidates(self, connection: Connection, search: Search, *, counted: bool = False) -> list[_Candidate]:
        """Return the newest matches, newest first, then by key.

        Args:
            connection: in a transaction.
            search: that is asked for.
            counted: whether SQL counts the words; otherwise the texts come, if they are short, which is quicker.
        """
        columns: list[ColumnElement[Any]] = [self._key, self._updated_at, self._version]
        needles = [term.needle for term in search.terms if not term.negated]
        counted = counted or search.window - search.limit > RANK_WINDOW
        if needles and counted:
            columns += [self._texts.token_count(), *map(self._texts.occurrences, needles)]
        elif needles:
            columns.append(self._if_short(self._search_text))
        found, asked = slice(3, len(columns)), self._asked(search)
        steps = self._steps(search, asked, columns)
        now = self._dialect.clock(connection, statements=2 if steps is None else 1)
        parameters = {**asked.parameters, "b_rows": search.window, "b_skipped": 0, "b_now": now}
        if steps is None:
            rows = self._filtered(connection, search, columns, parameters)
        else:
            rows = _first_answer(connection, steps, search.terms, parameters)
        if needles and not counted and any(row[3] is None for row in rows):
            return self._candidates(connection, search, counted=True)

        def score_of(words: Sequence[Any]) -> float:
            if not needles:
                return 0.0
            return score(words[1:], words[0]) if counted else rank(needles, words[0])

        return [_Candidate(row[0], row[1], row[2], score_of(row[found])) for row in in_time(rows)]

    def _filtered(
        self, connection: Connection, search: Search, columns: Sequence[ColumnElement[Any]], parameters: Parameters
    ) -> Sequence[Sequence[Any]]:
        """Return the first rows whose metadata, their last column, satisfies a filter that is left to Python."""
        prefix = bound_range(self._key)[: len(prefix_bounds(search.prefix))]
        where = [self._visible, *prefix, *self._texts.matches(search.terms)]
        statement = select(*columns, self._metadata).where(*where).order_by(*self._newest_first)
        with closing(self._rows(connection, statement, parameters)) as rows:
            condition = search.metadata_filter
            fitting = (row for row in in_time(rows) if condition is None or may_fit(condition, row[-1]))
            return list(islice(fitting, search.window))

    def undamaged(
        self, connection: Connection, search: Search, lost: Lost, *, filters: bool
    ) -> tuple[list[dict[str, Any]], list[Damage]]:
        """Return the results of a search that came upon damage, of one state, and what was damaged.

        Args:
            connection: in a transaction.
            search: that is asked for.
            lost: as ``undamaged`` takes it.
            filters: whether the database can decide a filter of its own, which then saves Python much.
        """
        asked = self._asked(search)
        prefix = bound_range(self._key)[: len(prefix_bounds(search.prefix))]
        where = [self._visible, *prefix, *self._texts.matches(search.terms)]
        condition = self._filters.condition(asked.node) if filters and asked.node is not None else None
        if condition is not None:
            where.append(condition)
        words = self._search_text if search.ranked else null()
        columns = (self._key, self._updated_at, self._value, self._metadata, words, self._pointer)
        statement = select(*columns).where(*where).order_by(*self._newest_first)
        parameters = {**asked.parameters, "b_now": self._dialect.clock(connection, statements=2)}
        terms, most = search.terms, search.limit
        with closing(self._rows(connection, statement, parameters)) as rows:
            read = ((row[0], *row[2:]) for row in in_time(rows))
            found, damages = undamaged(read, terms, search.metadata_filter, search.offset, most, lost)
        entries = [_entry(row, score) for score, row in found]
        return [entry for entry in entries if not isinstance(entry, Damage)], damages

    def _rows(
        self, connection: Connection, statement: Select[Any], now: Parameters
    ) -> Generator[Sequence[Any], None, None]:
        """Yield all rows of one state: page by page if the transaction keeps it, else out of one statement."""
        if not self._dialect.keeps_one_state:
            with connection.execute(statement, now, execution_options={"yield_per": PAGE_ROWS}) as result:
                yield from result
            return
        page, last = statement.limit(PAGE_ROWS), bindparam("b_last", type_=self._key.type)
        # In SQL, because Python may not have the time of an entry that is damaged.
        moment = select(self._updated_at).where(self._key == last).correlate(None).scalar_subquery()
        is_older = or_(self._updated_at < moment, and_(self._updated_at == moment, self._key > last))
        older = page.where(is_older)
        while True:
            rows = connection.execute(page, now).all()
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            now = {**now, "b_last": rows[-1][0]}
            page = older

    def _entries(self, connection: Connection, chosen: Sequence[_Candidate]) -> list[dict[str, Any] | Damage]:
        rows: dict[str, Sequence[Any]] = {}
        for start in range(0, len(chosen), BATCH_ITEMS):
            keys = [candidate.key for candidate in chosen[start : start + BATCH_ITEMS]]
            rows |= {row[0]: row for row in connection.execute(self._by_key, {"keys": keys})}
        for candidate in chosen:
            row = rows.get(candidate.key)
            if row is None and not is_key(candidate.key):  # which cannot be asked for
                rows[candidate.key] = (candidate.key, *[None] * 5)
            elif row is None or (row[4], row[5]) != (candidate.updated_at, candidate.version):
                raise LostRaceError  # rewritten since it was ranked, on a database that does not keep one state
        return [_entry(rows[candidate.key], candidate.score) for candidate in chosen]


class _Asked(NamedTuple):
    """What differs between searches with the same statements, and the shape on which these depend."""

    node: Node | None
    wanted: Sequence[int]
    parameters: Parameters
    shape: object


class _Candidate(NamedTuple):
    """A match that may be among the results."""

    key: str
    updated_at: datetime
    version: int
    score: float


def is_answer(step: Step, rows: Sequence[Sequence[Any]], wanted: int) -> bool:
    """Return whether the rows of a step are those wanted: enough, and none that says that there are too many."""
    if step.is_partial:
        return len(rows) == wanted
    return not rows or rows[0][0] is not None


def _first_answer(
    connection: Connection, steps: Sequence[Step], terms: Sequence[Term], parameters: Parameters
) -> Sequence[Sequence[Any]]:
    rows: Sequence[Sequence[Any]] = ()
    for step in steps:
        found = step.look_up(connection, terms) if step.look_up is not None else {}
        if found is None:
            continue
        rows = connection.execute(step.statement, {**parameters, **step.bounds, **found}).all()
        if is_answer(step, rows, parameters["b_rows"]):
            break
    return rows


def results_of(search: Search, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any] | Damage] | None:
    """Return the results that the rows of an ``Attempt`` are; None where one is too long to have come with them."""
    if not search.ranked:
        return [_entry(row, 0.0) for row in rows]
    needles = [term.needle for term in search.terms if not term.negated]
    if any(row[4] is None for row in rows):
        return None
    ranked = [(rank(needles, row[4]), row) for row in in_time(rows)]
    ranked.sort(key=lambda found: -found[0])  # stable: equal scores stay newest first, then by key
    chosen = ranked[search.offset : search.offset + search.limit]
    if any(row[1] is None for _, row in chosen):
        return None
    return [_entry(row, score) for score, row in chosen]


def prefix_bounds(prefix: str) -> dict[str, str]:
    """Return the parameters of ``bound_range`` for a prefix: as many as there are conditions on the key."""
    after = end_of_prefix(prefix)
    return ({"b_from": prefix} if prefix else {}) | ({"b_to": after} if after is not None else {})


def _entry(row: Sequence[Any], rank: float) -> dict[str, Any] | Damage:
    entry = entry_of(*row[:4])
    if isinstance(entry, Damage):
        return entry
    return {"key": row[0], "value": entry["value"], "metadata": entry["metadata"], "score": rank}
