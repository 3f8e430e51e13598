"""``FTSConditions``: words on SQLite, by an FTS5 table, which also helps with filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    Table,
    TableClause,
    Text,
    UnaryExpression,
    bindparam,
    column,
    func,
    literal_column,
    not_,
    select,
    table,
    text,
    type_coerce,
)
from sqlalchemy.sql.operators import custom_op

from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.database.search_plan import SCANNED, Step, StepLimits, ladder
from the_edge_agent.memory.sql.dialects.base.match_query import ROWS, MatchQuery, SQLStep, in_order, is_over_limit
from the_edge_agent.memory.sql.dialects.base.search import WORDS, IndexedTextConditions
from the_edge_agent.memory.sqlite.index import METADATA_QUERY, lookups_json, term_query

_MOST: Final[ColumnElement[int]] = func.max(bindparam("b_most", type_=Integer()), ROWS)
_NEWEST: Final[ColumnElement[int]] = func.max(bindparam("b_newest", type_=Integer()), ROWS * SCANNED)
_FILTER_QUERY: Final[ColumnElement[str]] = (
    text(f"SELECT {METADATA_QUERY.format(parameter='b_filter')}").columns(column("query", Text)).scalar_subquery()
)


class FTSConditions(IndexedTextConditions):
    """Looks up words of search texts and of metadata in the FTS5 table."""

    def __init__(self, entries: Table, *, has_metadata_words: bool) -> None:
        """Make conditions for one table."""
        super().__init__(entries)
        self._has_metadata_words = has_metadata_words

    def index_condition(self, index_query: BindParameter[str]) -> ColumnElement[bool]:
        """Return the condition that an entry matches an FTS5 query."""
        return self.table.c.id.in_(self._row_ids(index_query))

    def index_query(self, terms: Sequence[Term]) -> str:
        """Return the FTS5 query: every token of these terms must occur."""
        return " AND ".join(map(term_query, terms))

    def lookup_parameters(self, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return the parameter by which the FTS5 table looks up a metadata filter."""
        return {"b_filter": lookups_json(groups)} if groups else {}

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps: look up and sort the matches or, if too many, read the newest entries."""
        if not has_words(newest.terms) and not (newest.group_sizes and self._has_metadata_words):
            return self._scans(newest) if newest.range_condition_count else super().steps(newest)
        row_ids = self._row_ids(self._query(newest))
        sorted_matches, every = (
            self._sorted_matches(newest, row_ids),
            self._chosen(newest, row_ids).order_by(*newest.order),
        )
        steps = ladder(
            "sqlite",
            [lambda limits: Step(sorted_matches, {"b_most": limits.matches})],
            self._among_newest(newest),
            lambda: Step(every),
        )
        return [*steps]

    def _scans(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps without an index: read the newest entries, or sort all entries with the prefix."""
        number, like_conditions = self.table.c.id, self.like_conditions(newest.terms)
        every = select(*newest.columns).where(number.in_(newest.rows(number, where=like_conditions)))
        return [*ladder("sqlite", [], self._among_newest(newest), lambda: Step(every.order_by(*newest.order)))]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the step that reads the index first. Its rows come one by one, so the step can end early."""
        if not has_words(newest.terms):
            return super().having(newest)
        index, query = self._index(), self._query(newest)
        where = [
            *newest.conditions,
            *newest.in_range(_unindexed(self.table.c.key)),
            *self.recheck_conditions(newest.terms),
        ]
        rows = select(*newest.columns).join_from(index, self.table, self.table.c.id == _unindexed(index.c.rowid))
        return [Step(rows.where(literal_column(index.name).op("MATCH")(query), *where).limit(ROWS))]

    def _query(self, newest: MatchQuery) -> ColumnElement[str]:
        """Return the FTS5 query of a search, which has words or a filter that the index can look up."""
        parts: list[ColumnElement[str]] = [WORDS] if has_words(newest.terms) else []
        if newest.group_sizes and self._has_metadata_words:
            parts.append(_FILTER_QUERY)
        return parts[0] if len(parts) == 1 else parts[0] + literal_column("' AND '") + parts[1]

    def _index(self) -> TableClause:
        return table(f"{self.table.name}_fts", column("rowid", Integer))

    def _row_ids(self, query: ColumnElement[str]) -> Select[tuple[int]]:
        index = self._index()
        return select(index.c.rowid).where(literal_column(index.name).op("MATCH")(query))

    def _sorted_matches(self, newest: MatchQuery, row_ids: Select[tuple[int]]) -> Select[Any]:
        """Return the statement for the sorted matches. If the index finds too many, it returns one row of nulls."""
        some = row_ids.limit(_MOST + 1).cte("matches")
        many = is_over_limit(some, _MOST)
        rows = self._chosen(newest, select(some.c.rowid).where(not_(many)))
        return in_order(rows.add_columns(type_coerce(self.table.c.updated_at, Text()).label("written_at")), many)

    def _among_newest(self, newest: MatchQuery) -> Callable[[StepLimits], SQLStep]:
        """Return a function from limits to the step that reads the matches among the newest entries."""
        ages, time = self.table.alias("ages").c, self.table.c.updated_at
        oldest = select(ages.updated_at).order_by(ages.updated_at.desc(), ages.key).limit(1).offset(_NEWEST)
        is_recent = time >= func.coalesce(oldest.scalar_subquery(), literal_column("''"))
        # Otherwise SQLite would seek by the prefix, and sort all entries that have it.
        rows = newest.rows(where=[is_recent, *self.like_conditions(newest.terms)], key=_unindexed(self.table.c.key))
        return lambda limits: Step(rows, {"b_newest": limits.newest}, is_partial=True)

    def _chosen(self, newest: MatchQuery, row_ids: Select[tuple[int]]) -> Select[Any]:
        """Return the statement for the newest of the rows that the index finds. Only the inner query sorts."""
        number = self.table.c.id
        chosen = newest.rows(number, where=[number.in_(row_ids), *self.recheck_conditions(newest.terms)])
        return select(*newest.columns).where(number.in_(chosen))


def _unindexed(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the expression with a plus before it, so that SQLite uses no index for it."""
    return UnaryExpression(expression, operator=custom_op("+"), type_=expression.type)
