"""``VectorConditions``: words on PostgreSQL, by a tsvector of the search text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Table,
    Text,
    func,
    literal_column,
    not_,
    select,
    type_coerce,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import replacement_traverse

from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.database.search_plan import Step, StepLimits, ladder
from the_edge_agent.memory.postgres.shared_sql import term_query
from the_edge_agent.memory.sql.dialects.base.match_query import (
    ROWS,
    SKIPPED,
    MatchQuery,
    SQLStep,
    in_order,
    is_over_limit,
    read_from,
)
from the_edge_agent.memory.sql.dialects.base.search import IndexedTextConditions
from the_edge_agent.memory.sql.dialects.postgresql.features import IS_WHOLE, PostgreSQLFeatures

_SIMPLE: Final[ColumnElement[Any]] = literal_column("'simple'::regconfig")


class VectorConditions(IndexedTextConditions):
    """Looks up words in the tsvector."""

    def __init__(self, entries: Table, features: PostgreSQLFeatures) -> None:
        """Make conditions for one table."""
        super().__init__(entries)
        self._features = features

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps for the newest matches.

        A filter without words, if the JSONB index can help, has a ladder: look up the matches and sort them if there
        are not too many, else look for enough matches among the newest entries. All other searches are one statement.
        """
        (every,) = super().steps(newest)
        if not newest.group_sizes or has_words(newest.terms) or "metadata_json" not in self.table.c:
            return [every]
        return [
            *ladder(
                "postgresql", [partial(self._by_filter, newest)], partial(self._among_newest, newest), lambda: every
            )
        ]

    def _by_filter(self, newest: MatchQuery, limits: StepLimits) -> SQLStep:
        """Return the step that looks up at most ``limits.matches`` matches and sorts them.

        If there are more, it returns a row of nulls. If the limit is high, it sorts only keys and times and then
        fetches the rows.
        """
        limit, entries = limits.matches, self.table
        timestamp = type_coerce(entries.c.updated_at, Text()).label("written_at")  # only for sorting
        columns = newest.columns if limits.is_small else [entries.c.key]
        matches = (
            select(*columns, timestamp).where(*self._where(newest)).limit(literal_column(str(limit + 1))).cte("matches")
        )
        many, key = is_over_limit(matches, limit), next(iter(matches.c))
        chosen = select(*matches.c).where(not_(many)).order_by(matches.c.written_at.desc(), key)
        rows = select(*(places := chosen.limit(ROWS).offset(SKIPPED).subquery("chosen")).c)
        if not limits.is_small:
            rows = select(*newest.columns, places.c.written_at).join_from(
                entries, places, entries.c.key == places.c.key
            )
        return Step(in_order(rows, many))

    def _among_newest(self, newest: MatchQuery, limits: StepLimits) -> SQLStep:
        """Return the step that reads only the newest entries. A subquery with a limit makes the planner do that."""
        latest: ColumnElement[int] = literal_column(str(limits.newest), Integer())
        entries = select(self.table).order_by(*newest.order).limit(latest).subquery("newest")
        columns, where = (read_from(entries, self.table, each) for each in (newest.columns, self._where(newest)))
        order = entries.c.updated_at.desc(), entries.c.key
        rows = select(*columns).where(*where).order_by(*order).limit(ROWS).offset(SKIPPED)
        return Step(rows, is_partial=True, limit=limits.newest)

    def _where(self, newest: MatchQuery) -> list[ColumnElement[bool]]:
        return [*newest.conditions, *newest.in_range(), *self.like_conditions(newest.terms)]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the step that finds some matches. With ``hides_words`` a subquery hides the words from the planner."""

        def hidden(element: Any, **_: Any) -> Any:
            is_word_query = isinstance(element, FunctionElement) and getattr(element, "name", None) == "to_tsquery"
            return select(element).scalar_subquery() if is_word_query else None

        steps = super().having(newest)
        if not self._features.hides_words:
            return steps
        statements: list[Any] = [replacement_traverse(step.statement, {}, hidden) for step in steps]
        return [replace(step, statement=statement) for step, statement in zip(steps, statements, strict=True)]

    def index_condition(self, index_query: BindParameter[str]) -> ColumnElement[bool]:
        """Return the condition that the tsvector has all words of a query."""
        condition = self.table.c.search_vector.bool_op("@@")(func.to_tsquery(_SIMPLE, index_query))
        return condition if self._features.keeps_settings else condition & IS_WHOLE

    def index_query(self, terms: Sequence[Term]) -> str:
        """Return the tsquery: every token of these terms must occur."""
        return " & ".join(map(term_query, terms))
