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
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    select,
    type_coerce,
)

from the_edge_agent.memory.codec import decode
from the_edge_agent.memory.filters import Node, matches
from the_edge_agent.memory.sql.batches import BATCH_ITEMS
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.errors import LostRaceError
from the_edge_agent.memory.sql.prepared import Prepared, Query
from the_edge_agent.memory.sql.rows import value_of
from the_edge_agent.memory.text import RANK_WINDOW, Term, rank, score
from the_edge_agent.memory.validation import end_of_prefix

PAGE_ROWS = 500  # rows that Python filters at a time
_SHORT = 10_000  # characters of a value or search text that comes with every match that is ranked
_KEPT_QUERIES = 500  # compiled, by what they ask
_NOT_KEPT: Any = object()

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
        return any(not term.negated for term in self.terms)

    @property
    def shape(self) -> object:
        """What a statement depends on: equal where only its parameters differ."""
        terms = tuple((term.negated, len(term.tokens) > 1) for term in self.terms)
        return terms, repr(self.metadata_filter)  # by its text, because 1, 1.0 and True are equal


class Searcher:
    """Runs searches over the entries' table of one dialect."""

    def __init__(self, dialect: Dialect, entries: Table) -> None:
        """Build the parts that every search shares."""
        self._dialect = dialect
        self._filters, self._texts = dialect.filters(entries), dialect.texts(entries)
        self._visible = dialect.visible(entries)
        columns = entries.c
        self._key, self._updated_at = columns.key, columns.updated_at
        self._value, self._metadata = (
            type_coerce(columns.value, Text()),
            type_coerce(columns.metadata, Text()),
        )
        self._newest_first = (columns.updated_at.desc(), columns.key)
        self._version = columns.version
        self._search_text = type_coerce(columns.search_text, Text())
        self._queries: dict[Any, Prepared | None] = {}
        self._pointer = columns.storage_uri
        self._by_key = select(
            columns.key, self._value, self._metadata, self._pointer, columns.updated_at, columns.version
        ).where(columns.key.in_(bindparam("keys", expanding=True)))

    def query(self, search: Search) -> Query | None:
        """Return the one statement that finds what ``results_of`` makes results of; None where Python filters."""
        bounds = prefix_bounds(search.prefix)
        shape = (search.shape, len(bounds))
        prepared = self._queries.get(shape, _NOT_KEPT)
        if prepared is _NOT_KEPT:
            if len(self._queries) >= _KEPT_QUERIES:
                self._queries.clear()
            prepared = self._queries[shape] = self._prepared(search, len(bounds))
        if prepared is None:
            return None
        rows = max(RANK_WINDOW, search.offset + search.limit) if search.ranked else search.limit
        limits = {"b_rows": rows} if search.ranked else {"b_rows": rows, "b_skipped": search.offset}
        words = self._texts.parameters(search.terms)
        return Query(prepared, {**words, **bounds, **limits, "b_now": self._dialect.clock()})

    def _prepared(self, search: Search, bounds: int) -> Prepared | None:
        where = [self._visible, *bound_range(self._key)[:bounds]]
        if search.terms:
            where.append(self._texts.matches(search.terms))
        if search.metadata_filter is not None:
            condition = self._filters.condition(search.metadata_filter)
            if condition is None:
                return None
            where.append(condition)
        columns = [self._key, self._value, self._metadata, self._pointer]
        if search.ranked:
            columns[1] = _if_short(self._value)
            columns.append(_if_short(self._search_text))
        statement = (
            select(*columns).where(*where).order_by(*self._newest_first).limit(bindparam("b_rows", type_=Integer()))
        )
        return Prepared(statement if search.ranked else statement.offset(bindparam("b_skipped", type_=Integer())))

    def search(self, connection: Connection, search: Search) -> list[dict[str, Any]]:
        """Return what ``query`` cannot: ``[{"key", "value", "metadata", "score"}]``, best first, of one state."""
        condition = None if search.metadata_filter is None else self._filters.condition(search.metadata_filter)
        in_python = None if condition is not None else search.metadata_filter
        now: Parameters = {"b_now": self._dialect.clock(connection, statements=1 if in_python is None else 2)}
        bounds = prefix_bounds(search.prefix)
        now |= {**self._texts.parameters(search.terms), **bounds}
        where = [self._visible, *bound_range(self._key)[: len(bounds)]]
        if search.terms:
            where.append(self._texts.matches(search.terms))
        if condition is not None:
            where.append(condition)
        scored = self._candidates(connection, search, where, in_python, now)
        scored.sort(key=lambda found: -found.score)  # stable: equal scores stay newest first, then by key
        return self._entries(connection, scored[search.offset : search.offset + search.limit])

    def _candidates(
        self,
        connection: Connection,
        search: Search,
        where: list[ColumnElement[bool]],
        in_python: Node | None,
        now: Parameters,
    ) -> list[_Candidate]:
        """Return the newest matches, newest first, then by key."""
        wanted = search.offset + search.limit
        columns: list[ColumnElement[Any]] = [self._key, self._updated_at, self._version]
        if search.ranked:
            wanted = max(RANK_WINDOW, wanted)
            needles = [term.needle for term in search.terms if not term.negated]
            columns += [self._texts.token_count(), *map(self._texts.occurrences, needles)]
        counts = slice(4, len(columns))
        if in_python is not None:
            columns.append(self._metadata)
        statement = select(*columns).where(*where).order_by(*self._newest_first)
        rows = self._filtered(connection, statement, in_python, wanted, now)
        return [
            _Candidate(row[0], row[1], row[2], score(row[counts], row[3]) if search.ranked else 0.0) for row in rows
        ]

    def _filtered(
        self, connection: Connection, statement: Select[Any], condition: Node | None, wanted: int, now: Parameters
    ) -> Sequence[Sequence[Any]]:
        """Return the first rows; those whose metadata, their last column, satisfies a condition left to Python."""
        if condition is None:
            return connection.execute(statement.limit(wanted), now).all()
        with closing(self._rows(connection, statement, now)) as rows:
            fitting = (row for row in rows if matches(condition, row[-1] and decode(row[-1])))
            return list(islice(fitting, wanted))

    def _rows(
        self, connection: Connection, statement: Select[Any], now: Parameters
    ) -> Generator[Sequence[Any], None, None]:
        """Yield all rows of one state: page by page if the transaction keeps it, else out of one statement."""
        if not self._dialect.keeps_one_state:
            with connection.execute(statement, now, execution_options={"yield_per": PAGE_ROWS}) as result:
                yield from result
            return
        page = statement.limit(PAGE_ROWS)
        while True:
            rows = connection.execute(page, now).all()
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            key, moment = rows[-1][0], rows[-1][1]
            older = or_(self._updated_at < moment, and_(self._updated_at == moment, self._key > key))
            page = statement.where(older).limit(PAGE_ROWS)

    def _entries(self, connection: Connection, chosen: Sequence[_Candidate]) -> list[dict[str, Any]]:
        rows: dict[str, Sequence[Any]] = {}
        for start in range(0, len(chosen), BATCH_ITEMS):
            keys = [candidate.key for candidate in chosen[start : start + BATCH_ITEMS]]
            rows |= {row[0]: row for row in connection.execute(self._by_key, {"keys": keys})}
        for candidate in chosen:
            row = rows.get(candidate.key)
            if row is None or (row[4], row[5]) != (candidate.updated_at, candidate.version):
                raise LostRaceError  # rewritten since it was ranked, on a database that does not keep one state
        return [_entry(rows[candidate.key], candidate.score) for candidate in chosen]


class _Candidate(NamedTuple):
    """A match that may be among the results."""

    key: str
    updated_at: datetime
    version: int
    score: float


def results_of(search: Search, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]] | None:
    """Return the results that the rows of ``Searcher.query`` are; None where one is too long to have come with them."""
    if not search.ranked:
        return [_entry(row, 0.0) for row in rows]
    needles = [term.needle for term in search.terms if not term.negated]
    if any(row[4] is None for row in rows):
        return None
    ranked = [(rank(needles, row[4]), row) for row in rows]
    ranked.sort(key=lambda found: -found[0])  # stable: equal scores stay newest first, then by key
    chosen = ranked[search.offset : search.offset + search.limit]
    if any(row[1] is None for _, row in chosen):
        return None
    return [_entry(row, score) for score, row in chosen]


def prefix_bounds(prefix: str) -> dict[str, str]:
    """Return the parameters of ``bound_range`` for a prefix: as many as there are conditions on the key."""
    after = end_of_prefix(prefix)
    return ({"b_from": prefix} if prefix else {}) | ({"b_to": after} if after is not None else {})


def bound_range(key: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """Return the conditions of a range of keys, to be bound to ``prefix_bounds``."""
    return [key >= bindparam("b_from", type_=key.type), key < bindparam("b_to", type_=key.type)]


def _if_short(column: ColumnElement[str]) -> ColumnElement[str]:
    return case((func.length(column, type_=Integer()) <= _SHORT, column), else_=null())


def _entry(row: Sequence[Any], rank: float) -> dict[str, Any]:
    return {
        "key": row[0],
        "value": value_of(row[1], row[3]),
        "metadata": None if row[2] is None else decode(row[2]),
        "score": rank,
    }
