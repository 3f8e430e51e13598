"""Words on PostgreSQL, by a tsvector of the search text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Column,
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
from the_edge_agent.memory.postgres.index import looked_up
from the_edge_agent.memory.sql.dialects.base.match_query import ROWS, SKIPPED, MatchQuery, SQLStep, are_many, in_order
from the_edge_agent.memory.sql.dialects.base.search import IndexedTextConditions
from the_edge_agent.memory.sql.dialects.postgresql.features import IS_WHOLE, PostgreSQLFeatures

_SIMPLE: Final[ColumnElement[Any]] = literal_column("'simple'::regconfig")


class VectorConditions(IndexedTextConditions):
    """Words looked up in the tsvector."""

    def __init__(self, entries: Table, features: PostgreSQLFeatures) -> None:
        """Make the conditions of one table."""
        super().__init__(entries)
        self._features = features

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps for the newest matches.

        For a filter that the JSONB index can help with, and no words, there is a ladder: fetch and sort what the filter
        finds if that is not much, else look for enough among the newest entries. All else is one statement.
        """
        (every,) = super().steps(newest)
        if not newest.group_sizes or has_words(newest.terms) or "metadata_json" not in self.table.c:
            return [every]
        return [*ladder("postgresql", [partial(self._few, newest)], partial(self._among_newest, newest), lambda: every)]

    def _few(self, newest: MatchQuery, bound: StepLimits) -> SQLStep:
        """Return the step that looks up the matches, at most as many as ``bound.matches``.

        For more it returns a row of nulls. With a large bound it sorts keys and times alone, and fetches rows later.
        """
        limit, entries = bound.matches, self.table
        timestamp = type_coerce(entries.c.updated_at, Text()).label("written_at")  # sorted by, and not looked at
        columns = newest.columns if bound.is_small else [entries.c.key]
        found = (
            select(*columns, timestamp).where(*self._where(newest)).limit(literal_column(str(limit + 1))).cte("found")
        )
        many, key = are_many(found, limit), next(iter(found.c))
        chosen = select(*found.c).where(not_(many)).order_by(found.c.written_at.desc(), key)
        rows = select(*(places := chosen.limit(ROWS).offset(SKIPPED).subquery("chosen")).c)
        if not bound.is_small:
            rows = select(*newest.columns, places.c.written_at).join_from(
                entries, places, entries.c.key == places.c.key
            )
        return Step(in_order(rows, many))

    def _among_newest(self, newest: MatchQuery, bound: StepLimits) -> SQLStep:
        """Return the step that looks at the newest entries alone. A limit in a subquery keeps the planner to these."""
        latest: ColumnElement[int] = literal_column(str(bound.newest), Integer())
        entries = select(self.table).order_by(*newest.order).limit(latest).subquery("newest")

        def moved(element: Any, **_: Any) -> Any:
            is_ours = isinstance(element, Column) and element.table is self.table
            return entries.c[element.name] if is_ours else None

        columns, where = (
            [replacement_traverse(each, {}, moved) for each in parts] for parts in (newest.columns, self._where(newest))
        )
        order = entries.c.updated_at.desc(), entries.c.key
        rows = select(*columns).where(*where).order_by(*order).limit(ROWS).offset(SKIPPED)
        return Step(rows, is_partial=True, limit=bound.newest)

    def _where(self, newest: MatchQuery) -> list[ColumnElement[bool]]:
        return [*newest.conditions, *newest.prefix(), *self.exact(newest.terms)]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the step that finds rows that match. With ``hides_words`` a subquery hides words from the planner."""

        def hidden(element: Any, **_: Any) -> Any:
            is_asked = isinstance(element, FunctionElement) and getattr(element, "name", None) == "to_tsquery"
            return select(element).scalar_subquery() if is_asked else None

        steps = super().having(newest)
        if not self._features.hides_words:
            return steps
        statements: list[Any] = [replacement_traverse(step.statement, {}, hidden) for step in steps]
        return [replace(step, statement=statement) for step, statement in zip(steps, statements, strict=True)]

    def indexed(self, words: BindParameter[str]) -> ColumnElement[bool]:
        """Return the condition that the tsvector has all words of a query."""
        found = self.table.c.search_vector.bool_op("@@")(func.to_tsquery(_SIMPLE, words))
        return found if self._features.keeps_settings else found & IS_WHOLE

    def words(self, terms: Sequence[Term]) -> str:
        """Return the query for the index, which asks for every token of these terms."""
        return " & ".join(map(looked_up, terms))
