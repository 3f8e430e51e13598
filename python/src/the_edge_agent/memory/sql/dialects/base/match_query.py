"""``MatchQuery``, from which a dialect builds the statements of a search, and helpers to build these statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    Integer,
    ScalarSelect,
    Select,
    Table,
    bindparam,
    func,
    null,
    select,
    union_all,
)

from the_edge_agent.memory.core.tokens import Term
from the_edge_agent.memory.database.search_plan import Step

ROWS: BindParameter[int] = bindparam("b_rows", type_=Integer())
#: A look-up adds this parameter if it left out some entries. Then fewer rows than the search needs are no answer.
IS_PARTIAL: Final = "b_is_partial"
SKIPPED: BindParameter[int] = bindparam("b_skipped", type_=Integer())
#: A step whose statement also has the parameters ``b_rows`` and ``b_skipped``.
SQLStep: TypeAlias = Step[Select[Any]]


@dataclass(frozen=True)
class MatchQuery:
    """A search, as a dialect needs it to build statements.

    Attributes:
        entries: the table.
        columns: the columns that each row has, the key first.
        terms: the terms of the query.
        conditions: SQL conditions that an entry has not expired and satisfies the filter.
        prefix_condition_count: how many conditions of ``range_conditions`` the prefix needs: 0 without a prefix, else 1
            or 2.
        group_sizes: how many objects each group of ``core.filters.index_lookups`` has. It is empty if no index can
            help with the filter.
    """

    entries: Table
    columns: Sequence[ColumnElement[Any]]
    terms: Sequence[Term]
    conditions: Sequence[ColumnElement[bool]]
    prefix_condition_count: int
    group_sizes: Sequence[int]

    @property
    def order(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """The order of the rows."""
        return self.entries.c.updated_at.desc(), self.entries.c.key

    def rows(
        self,
        *columns: ColumnElement[Any],
        where: Sequence[ColumnElement[bool]],
        key: ColumnElement[str] | None = None,
    ) -> Select[Any]:
        """Return the statement for the newest rows that satisfy ``conditions``, the prefix, and ``where``.

        Args:
            columns: what each row has, in place of ``self.columns``.
            where: more conditions, usually those of the terms.
            key: the expression that is compared with the prefix, in place of the column ``key``.
        """
        statement = select(*(columns or self.columns)).where(*self.conditions, *self.prefix(key), *where)
        return statement.order_by(*self.order).limit(ROWS).offset(SKIPPED)

    def prefix(self, key: ColumnElement[str] | None = None) -> list[ColumnElement[bool]]:
        """Return the conditions that the key, or an expression for it, has the prefix."""
        return range_conditions(self.entries.c.key if key is None else key)[: self.prefix_condition_count]


def is_over_limit(matches: CTE, limit: int | ColumnElement[int]) -> ScalarSelect[bool]:
    """Return the condition that there are more rows than the limit."""
    return select(func.count() > limit).select_from(matches).scalar_subquery()


def in_order(rows: Select[Any], unless: ScalarSelect[bool]) -> Select[Any]:
    """Return the rows sorted, newest first, or one row of nulls if there are too many matches.

    Args:
        rows: the rows; no row if there are too many matches. The first column is the key, the last is ``written_at``.
        unless: the condition that there are too many matches.
    """
    nothing = [null().label(f"nothing{place}") for place in range(len(rows.selected_columns))]
    both = union_all(rows, select(*nothing).where(unless)).subquery("both")
    *columns, timestamp = list(both.c)
    return select(*columns).order_by(timestamp.desc(), columns[0])


def range_conditions(key: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """Return the two conditions of a range of keys: from ``b_from``, and below ``b_to``."""
    return [key >= bindparam("b_from", type_=key.type), key < bindparam("b_to", type_=key.type)]
