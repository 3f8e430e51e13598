"""Words on SQLite, through SQLAlchemy: by an FTS5 table, which helps with filters too."""

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
from the_edge_agent.memory.sql.dialects.base.match_query import ROWS, MatchQuery, SQLStep, are_many, in_order
from the_edge_agent.memory.sql.dialects.base.search import WORDS, IndexedTextConditions
from the_edge_agent.memory.sqlite.index import METADATA_QUERY, looked_up, lookups_json

_FEW: Final[ColumnElement[int]] = func.max(bindparam("b_few", type_=Integer()), ROWS)
_NEWEST: Final[ColumnElement[int]] = func.max(bindparam("b_newest", type_=Integer()), ROWS * SCANNED)
_ASKED: Final[ColumnElement[str]] = (
    text(f"SELECT {METADATA_QUERY.format(parameter='b_wanted')}").columns(column("asked", Text)).scalar_subquery()
)


class FTSConditions(IndexedTextConditions):
    """Words, of texts and of metadata, looked up in the FTS5 table."""

    def __init__(self, entries: Table, *, has_metadata_words: bool) -> None:
        """Make the conditions of one table."""
        super().__init__(entries)
        self._has_metadata_words = has_metadata_words

    def indexed(self, words: BindParameter[str]) -> ColumnElement[bool]:
        """Return the condition that the FTS5 table finds an entry by a query."""
        return self.table.c.id.in_(self._found(words))

    def words(self, terms: Sequence[Term]) -> str:
        """Return the query for the index, which asks for every token of these terms."""
        return " AND ".join(map(looked_up, terms))

    def lookup_parameters(self, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return the parameter by which the FTS5 table looks up a metadata filter."""
        return {"b_wanted": lookups_json(groups)} if groups else {}

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Fetch and sort the matches if they are few; else look for enough of them among the newest entries."""
        if not has_words(newest.terms) and not (newest.group_sizes and self._has_metadata_words):
            return self._scans(newest) if newest.bounds else super().steps(newest)
        found = self._found(self._asked(newest))
        few, every = self._few(newest, found), self._chosen(newest, found).order_by(*newest.order)
        steps = ladder(
            "sqlite",
            [lambda bound: Step(few, {"b_few": bound.matches})],
            self._among_newest(newest),
            lambda: Step(every),
        )
        return [*steps]

    def _scans(self, newest: MatchQuery) -> list[SQLStep]:
        """Look for enough that have the prefix among the newest entries; else sort all that have it by their times."""
        number, exact = self.table.c.id, self.exact(newest.terms)
        every = select(*newest.columns).where(number.in_(newest.rows(number, where=exact)))
        return [*ladder("sqlite", [], self._among_newest(newest), lambda: Step(every.order_by(*newest.order)))]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Begin with the index, whose rows come one by one, so that it can end after a few."""
        if not has_words(newest.terms):
            return super().having(newest)
        index, asked = self._index(), self._asked(newest)
        where = [*newest.conditions, *newest.prefix(_unindexed(self.table.c.key)), *self.unsure(newest.terms)]
        rows = select(*newest.columns).join_from(index, self.table, self.table.c.id == _unindexed(index.c.rowid))
        return [Step(rows.where(literal_column(index.name).op("MATCH")(asked), *where).limit(ROWS))]

    def _asked(self, newest: MatchQuery) -> ColumnElement[str]:
        """Return the query for the full-text index; the terms must give one."""
        asked: list[ColumnElement[str]] = [WORDS] if has_words(newest.terms) else []
        if newest.group_sizes and self._has_metadata_words:
            asked.append(_ASKED)
        return asked[0] if len(asked) == 1 else asked[0] + literal_column("' AND '") + asked[1]

    def _index(self) -> TableClause:
        return table(f"{self.table.name}_fts", column("rowid", Integer))

    def _found(self, asked: ColumnElement[str]) -> Select[tuple[int]]:
        index = self._index()
        return select(index.c.rowid).where(literal_column(index.name).op("MATCH")(asked))

    def _few(self, newest: MatchQuery, found: Select[tuple[int]]) -> Select[Any]:
        """Return the rows; if the index finds too many, none but one of nulls."""
        some = found.limit(_FEW + 1).cte("found")
        many = are_many(some, _FEW)
        rows = self._chosen(newest, select(some.c.rowid).where(not_(many)))
        return in_order(rows.add_columns(type_coerce(self.table.c.updated_at, Text()).label("written_at")), many)

    def _among_newest(self, newest: MatchQuery) -> Callable[[StepLimits], SQLStep]:
        """Return a function that makes, for a bound, the step that reads matches among the newest entries."""
        ages, time = self.table.alias("ages").c, self.table.c.updated_at
        oldest = select(ages.updated_at).order_by(ages.updated_at.desc(), ages.key).limit(1).offset(_NEWEST)
        is_far_page = time >= func.coalesce(oldest.scalar_subquery(), literal_column("''"))
        # SQLite would seek by the prefix, and sort all that have it.
        rows = newest.rows(where=[is_far_page, *self.exact(newest.terms)], key=_unindexed(self.table.c.key))
        return lambda bound: Step(rows, {"b_newest": bound.newest}, is_partial=True)

    def _chosen(self, newest: MatchQuery, found: Select[tuple[int]]) -> Select[Any]:
        """Return the rows of what the index finds, without an order: they are sorted before they are fetched."""
        number = self.table.c.id
        chosen = newest.rows(number, where=[number.in_(found), *self.unsure(newest.terms)])
        return select(*newest.columns).where(number.in_(chosen))


def _unindexed(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the same with a plus before it, so that SQLite uses no index for it."""
    return UnaryExpression(expression, operator=custom_op("+"), type_=expression.type)
