"""Searches through SQLAlchemy: SQL finds candidates, newest first, and Python ranks them.

``Searcher.steps`` returns the statements of a search whose terms must all occur. ``SQLReader`` reads for a question.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from operator import itemgetter
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

from the_edge_agent.memory.core.damage import TIMES, Damage, Lost, may_fit, undamaged
from the_edge_agent.memory.core.filters import Node, index_lookups, parameterize
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.results import scored
from the_edge_agent.memory.core.tokens import Term, has_words, terms_of_prefix
from the_edge_agent.memory.database.search_plan import (
    SHORT,
    Row,
    Rows,
    Step,
    best,
    first_answer,
    is_far_page,
    window_of,
)
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.dialects.base.match_query import (
    IS_PARTIAL,
    MatchQuery,
    SQLStep,
    conditions_of,
    is_namespaced,
)
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.driver.errors import LostRaceError
from the_edge_agent.memory.sql.driver.prepared import BoundQuery, Prepared
from the_edge_agent.memory.sql.queries.batches import BATCH_ITEMS
from the_edge_agent.memory.sql.schema.rows import entry_of, time_of

PAGE_ROWS = 500  # rows that Python filters at a time
_CACHED_QUERIES = 500  # compiled statements, by the shape of the search

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Search:
    """A checked search.

    Attributes:
        terms: the terms of the query; empty if there is no query.
        metadata_filter: the filter; None if there is none.
        keys: the range of the keys.
        limit: the highest number of results.
        offset: how many results to skip.
    """

    terms: Sequence[Term]
    metadata_filter: Node | None
    keys: KeyRange
    limit: int
    offset: int

    @property
    def ranked(self) -> bool:
        """Whether the query has words. If not, every score is 0.0."""
        return has_words(self.terms)

    @property
    def window(self) -> int:
        """How many of the newest matches may be among the results."""
        return window_of(self.terms, self.offset, self.limit)

    @property
    def rows(self) -> int:
        """How many rows a single statement must return. In a ranked search, ``offset`` is applied later."""
        return self.window if self.ranked else self.limit


class Searcher:
    """Runs searches over the entries' table of one dialect."""

    def __init__(self, dialect: Dialect, entries: Table) -> None:
        """Build the SQL parts that all searches share."""
        self._dialect = dialect
        self._filters, self._texts = dialect.queries.filters(entries), dialect.queries.texts(entries)
        self._table, self._visible = entries, dialect.times.visible(entries)
        columns = entries.c
        self._key, self._updated_at = columns.key, columns.updated_at
        self._moment = dialect.times.sortable(columns.updated_at)
        self._value, self._metadata = (
            type_coerce(columns.value, Text()),
            type_coerce(columns.metadata, Text()),
        )
        self._newest_first = (columns.updated_at.desc(), columns.key)
        self._version = columns.version
        self._facts = (columns.storage_uri, columns.version, *(columns[name] for name in TIMES))
        self._search_text = type_coerce(columns.get("search_text", null()), Text())  # null if the table stores no words
        self._queries: dict[Any, list[tuple[SQLStep, Prepared]]] = {}
        whole = select(columns.key, self._value, self._metadata, *self._facts, self._moment)
        self._by_key = whole.where(columns.key.in_(bindparam("keys", expanding=True)))
        self._namespaced = is_namespaced(columns.key, dialect.queries.position, dialect.queries.beginning)
        texts = select(columns.key, self._search_text)
        self._texts_by_key = texts.where(columns.key.in_(bindparam("keys", expanding=True)))

    def steps(self, search: Search) -> list[Step[BoundQuery]]:
        """Return candidate statements, cheapest first. Run them until one answers; pass its rows to ``results_of``.

        The list is empty if Python must decide the filter. It is also empty for a far page of a ranked search, because
        each statement would return too many values.
        """
        if is_far_page(search.terms, search.offset, search.limit):
            return []
        parsed = self._parsed(search)
        cached = self._queries.get(parsed.shape)
        if cached is None:
            if len(self._queries) >= _CACHED_QUERIES:
                self._queries.clear()
            columns = [self._key, self._value, self._metadata, *self._facts]
            if search.ranked:
                columns[1] = self._if_short(self._value)
                columns.append(self._if_short(self._search_text))
            steps = self._steps(search, parsed, columns)
            if steps is None:  # not cached, because such a filter may be long
                return []
            cached = self._queries[parsed.shape] = [(step, Prepared(step.statement)) for step in steps]
        skipped = 0 if search.ranked else search.offset
        parameters = {
            **parsed.parameters,
            "b_rows": search.rows,
            "b_skipped": skipped,
            "b_now": self._dialect.times.clock(),
        }
        of_range = 1 if search.keys.has_limits else 0
        others = self._texts.tried_first([step for step, _ in cached[of_range:]], search.terms)
        places = [*range(of_range), *(place + of_range for place in others)]
        return [
            Step(BoundQuery(prepared, {**parameters, **step.parameters}), is_partial=step.is_partial, limit=step.limit)
            for step, prepared in map(cached.__getitem__, places)
            if step.limit is None or skipped < step.limit
        ]

    def _parsed(self, search: Search) -> _ParsedSearch:
        node, filled = (
            parameterize(search.metadata_filter) if self._filters.takes_placeholders else (search.metadata_filter, [])
        )
        groups, range_values = index_lookups(search.metadata_filter), range_parameters(search.keys)
        group_sizes = tuple(map(len, groups))
        parameters = {**self._texts.parameters(search.terms), **self._texts.lookup_parameters(groups), **range_values}
        for place, (path, value) in enumerate(filled):
            parameters |= self._filters.placeholder_parameters(place, path, value)
        terms = tuple((term.negated, term.is_told_by_index, len(term.variants)) for term in search.terms)
        shape = (
            terms,
            repr(node),
            group_sizes,
            len(range_values),
            search.keys.is_nested,
        )  # repr: 1, 1.0 and True are equal
        return _ParsedSearch(node, group_sizes, parameters, shape)

    def _steps(
        self, search: Search, parsed: _ParsedSearch, columns: Sequence[ColumnElement[Any]]
    ) -> list[SQLStep] | None:
        """Return the steps for the newest matches, or None if Python must decide the filter."""
        newest = self._newest(search, parsed, columns)
        return None if newest is None else self._steps_of(newest)

    def _steps_of(self, newest: MatchQuery) -> list[SQLStep]:
        steps = self._texts.steps(newest)
        if not newest.range_condition_count:
            return steps
        return [self._texts.by_range(newest), *steps]

    def _newest(
        self, search: Search, parsed: _ParsedSearch, columns: Sequence[ColumnElement[Any]]
    ) -> MatchQuery | None:
        """Return the ``MatchQuery`` for the dialect, or None if Python must decide the filter."""
        conditions = [self._visible]
        if parsed.node is not None:
            condition = self._filters.condition(parsed.node)
            if condition is None:
                return None
            conditions.append(condition)
        if search.keys.is_nested:
            conditions.append(self._namespaced)
        condition_count = len(range_parameters(search.keys))
        return MatchQuery(self._table, columns, search.terms, conditions, condition_count, parsed.group_sizes)

    def _if_short(self, column: ColumnElement[str]) -> ColumnElement[str]:
        return case((self._dialect.queries.size(column) <= SHORT, column), else_=null())

    def reads(
        self,
        connection: Connection,
        condition: Node | None,
        keys: KeyRange,
        rules: Language,
        deadline: Deadline,
        *,
        filters: bool = True,
    ) -> SQLReader:
        """Return the object that reads for a question.

        Args:
            connection: a connection in a transaction that sees one state.
            condition: the metadata filter.
            keys: the range of the keys.
            rules: the rules of the language.
            deadline: when the call ends.
            filters: whether the database may decide the filter.
        """
        return SQLReader(self, connection, condition, keys, rules, deadline, filters=filters)

    def rows_of(
        self,
        connection: Connection,
        search: Search,
        kind: str,
        now: Any,
        deadline: Deadline,
        *,
        also: Sequence[Term] = (),
        filters: bool = True,
    ) -> Sequence[Sequence[Any]]:
        """Return rows of ``(key, updated_at, version, search text)``; the text is None if it is long.

        Args:
            connection: a connection in a transaction.
            search: the search; its ``limit`` is the number of rows to return.
            kind: ``newest`` for the newest matches, ``having`` for any matches.
            now: what the method ``now`` returned.
            deadline: when the call ends.
            also: more terms that every match has. With them a text index returns fewer candidates.
            filters: whether the database may decide the filter.
        """
        parsed = self._parsed(search)
        columns = [self._key, self._moment, self._version, self._if_short(self._search_text)]
        parameters = {**parsed.parameters, **self._texts.parameters(search.terms, also)}
        parameters |= {"b_rows": search.limit, "b_skipped": 0, "b_now": now}
        shape = (kind, parsed.shape)
        cached = self._queries.get(shape) if filters else None
        if cached is None:
            newest = self._newest(search, parsed, columns) if filters else None
            if newest is None:
                return self._filtered(connection, search, columns, parameters, deadline)
            steps = self._steps_of(newest) if kind == "newest" else self._texts.having(newest)
            if len(self._queries) >= _CACHED_QUERIES:
                self._queries.clear()
            cached = self._queries[shape] = [(step, Prepared(step.statement)) for step in steps]
        prepared_of = {id(step): prepared for step, prepared in cached}

        def read(step: SQLStep) -> Rows | None:
            if step.look_up is None:
                return prepared_of[id(step)].run(connection, {**parameters, **step.parameters}).rows
            lookup = step.look_up(connection, search.terms)
            if lookup is None:
                return None
            rows = connection.execute(step.statement, {**parameters, **step.parameters, **lookup}).all()
            return None if IS_PARTIAL in lookup and len(rows) < search.limit else rows

        rows = first_answer([step for step, _ in cached], read, search.limit)
        assert rows is not None  # the last step always answers
        return rows

    def now(self, connection: Connection) -> Any:
        """Return the time to bind in all statements of a question."""
        return self._dialect.times.clock(connection, statements=2)

    def _filtered(
        self,
        connection: Connection,
        search: Search,
        columns: Sequence[ColumnElement[Any]],
        parameters: Parameters,
        deadline: Deadline,
    ) -> Sequence[Sequence[Any]]:
        """Return the first rows that satisfy a filter that Python decides. The metadata is the last column."""
        where = [self._visible, *self._in_range(search.keys), *self._texts.term_conditions(search.terms)]
        statement = select(*columns, self._metadata).where(*where).order_by(*self._newest_first)
        with closing(self._rows(connection, statement, parameters)) as rows:
            condition = search.metadata_filter
            fitting = (row for row in deadline.in_time(rows) if condition is None or may_fit(condition, row[-1]))
            return list(islice(fitting, search.limit))

    def _in_range(self, keys: KeyRange) -> list[ColumnElement[bool]]:
        """Return the conditions that the key is in a range."""
        conditions = conditions_of(self._key, keys)
        return [*conditions, self._namespaced] if keys.is_nested else conditions

    def undamaged(
        self, connection: Connection, search: Search, lost: Lost, deadline: Deadline, *, filters: bool
    ) -> tuple[list[dict[str, Any]], list[Damage]]:
        """Return the undamaged results of a search that found damage, and the damage. Both are of one state.

        Args:
            connection: a connection in a transaction.
            search: the search.
            lost: as ``core.damage.undamaged`` takes it.
            deadline: when the call ends.
            filters: whether the database may decide the filter, which saves much work in Python.
        """
        parsed = self._parsed(search)
        where = [self._visible, *self._in_range(search.keys), *self._texts.term_conditions(search.terms)]
        condition = self._filters.condition(parsed.node) if filters and parsed.node is not None else None
        if condition is not None:
            where.append(condition)
        words = self._search_text if search.ranked else null()
        columns = (self._key, self._value, self._metadata, words, *self._facts)
        statement = select(*columns).where(*where).order_by(*self._newest_first)
        parameters = {**parsed.parameters, "b_now": self._dialect.times.clock(connection, statements=2)}
        terms, limit = search.terms, search.limit
        with closing(self._rows(connection, statement, parameters)) as rows:
            read = deadline.in_time(rows)
            scored, damages = undamaged(read, terms, search.metadata_filter, search.offset, limit, lost, time_of)
        entries = [_entry(row, score) for score, row in scored]
        return [entry for entry in entries if not isinstance(entry, Damage)], damages

    def _rows(
        self, connection: Connection, statement: Select[Any], now: Parameters
    ) -> Generator[Sequence[Any], None, None]:
        """Yield all rows of one state: in pages if the transaction sees one state, else from one statement."""
        if not self._dialect.features.has_snapshot_reads:
            with connection.execute(statement, now, execution_options={"yield_per": PAGE_ROWS}) as result:
                yield from result
            return
        page, last = statement.limit(PAGE_ROWS), bindparam("b_last", type_=self._key.type)
        # In SQL, because Python may not be able to read the time of a damaged entry.
        timestamp = select(self._updated_at).where(self._key == last).correlate(None).scalar_subquery()
        is_older = or_(self._updated_at < timestamp, and_(self._updated_at == timestamp, self._key > last))
        older = page.where(is_older)
        while True:
            rows = connection.execute(page, now).all()
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            now = {**now, "b_last": rows[-1][0]}
            page = older

    def texts(self, connection: Connection, keys: Sequence[str]) -> dict[str, str]:
        """Return the search texts of entries.

        Raises:
            LostRaceError: an entry is gone, on a database whose transactions do not see one state.
        """
        texts = {row[0]: row[1] for row in connection.execute(self._texts_by_key, {"keys": keys})}
        if len(texts) < len(keys):
            raise LostRaceError
        return texts

    def entries(
        self, connection: Connection, times_and_versions: Mapping[str, tuple[datetime, int]]
    ) -> list[dict[str, Any] | Damage]:
        """Return the result for each entry, or its damage, in the order of the mapping.

        Args:
            connection: a connection in the transaction that read the mapping.
            times_and_versions: for each key the time and the version that the transaction read before.

        Raises:
            LostRaceError: an entry has changed since it was read, on a database whose transactions do not see one
                state.
        """
        rows: dict[str, Sequence[Any]] = {}
        keys = [*times_and_versions]
        for start in range(0, len(keys), BATCH_ITEMS):
            batch = connection.execute(self._by_key, {"keys": keys[start : start + BATCH_ITEMS]})
            rows |= {row[0]: row for row in batch}
        if any(key not in rows or (rows[key][8], rows[key][4]) != read for key, read in times_and_versions.items()):
            raise LostRaceError
        return [_entry(rows[key], 0.0) for key in keys]


class SQLReader:
    """Reads for a question on one connection, see ``Reader``. All its reads use the same time for expiry."""

    def __init__(
        self,
        searcher: Searcher,
        connection: Connection,
        condition: Node | None,
        keys: KeyRange,
        rules: Language,
        deadline: Deadline,
        *,
        filters: bool,
    ) -> None:
        self._searcher, self._connection, self._deadline = searcher, connection, deadline
        self._condition, self._keys, self._filters = condition, keys, filters
        self._prefix_terms = terms_of_prefix(keys.prefix, rules)
        self._read: dict[str, tuple[Any, int]] = {}
        self._now = searcher.now(connection)

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Row]:
        """Return the newest entries, see ``Reader.newest``."""
        search = Search(terms, self._condition if filtered else None, self._keys, limit, 0)
        return self._rows(search, "newest")

    def having(self, terms: Sequence[Term], limit: int) -> list[Row]:
        """Return entries that satisfy terms, see ``Reader.having``."""
        return self._rows(Search(terms, self._condition, self._keys, limit + 1, 0), "having", self._prefix_terms)

    def in_time(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows, and fail when the time of the call is over."""
        return self._deadline.in_time(rows)

    def texts(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the search texts of entries."""
        return self._searcher.texts(self._connection, keys)

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return entries, see ``Reader.entries``."""
        return self._searcher.entries(self._connection, {key: self._read[key] for key in keys})

    def _rows(self, search: Search, kind: str, also: Sequence[Term] = ()) -> list[Row]:
        rows = self._searcher.rows_of(
            self._connection, search, kind, self._now, self._deadline, also=also, filters=self._filters
        )
        self._read |= {row[0]: (row[1], row[2]) for row in rows}
        return [Row(row[0], row[1], row[3]) for row in rows]


class _ParsedSearch(NamedTuple):
    """A search, split into the part that decides the SQL and the values of its parameters.

    Attributes:
        node: the filter, with placeholders if the dialect takes them.
        group_sizes: how many objects each group of ``index_lookups`` has.
        parameters: the values of the bound parameters.
        shape: the key of the statements in the cache. Everything that changes their SQL must be in it.
    """

    node: Node | None
    group_sizes: Sequence[int]
    parameters: Parameters
    shape: object


def results_of(
    search: Search, rows: Sequence[Sequence[Any]], deadline: Deadline
) -> list[dict[str, Any] | Damage] | None:
    """Return the results from the rows of a step of ``Searcher.steps``.

    Return None if a row lacks its value or search text because that is too long. Then it must be read by its key.
    """
    if not search.ranked:
        return [_entry(row, 0.0) for row in rows]
    if any(row[8] is None for row in rows):
        return None
    chosen = best(rows, map(itemgetter(8), deadline.in_time(rows)), search.terms, search.offset, search.limit)
    if any(row[1] is None for _, row in chosen):
        return None
    return [_entry(row, score) for score, row in chosen]


def range_parameters(keys: KeyRange) -> dict[str, str]:
    """Return the parameters of ``range_conditions`` for a range of keys.

    There is one for each condition that the range needs.
    """
    return ({"b_from": keys.start} if keys.start else {}) | ({"b_to": keys.end} if keys.end is not None else {})


def _entry(row: Sequence[Any], score: float) -> dict[str, Any] | Damage:
    """Return the result of a row, or its damage.

    The row begins with ``(key, value, metadata, pointer, version, created_at, updated_at, expires_at)``.
    """
    entry = entry_of(*row[:8])
    return entry if isinstance(entry, Damage) else scored(row[0], entry, score)
