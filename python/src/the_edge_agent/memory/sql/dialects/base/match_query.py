"""What a search asks of a dialect (``MatchQuery``), and parts of the statements that find the matches."""

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
#: The name of what a look-up returns besides if it has left something out: fewer rows than wanted are no answer then.
IS_PARTIAL: Final = "b_is_partial"
SKIPPED: BindParameter[int] = bindparam("b_skipped", type_=Integer())
#: StepLimits to ``b_rows`` and ``b_skipped`` too.
SQLStep: TypeAlias = Step[Select[Any]]


@dataclass(frozen=True)
class MatchQuery:
    """What a dialect makes the statements of a search from.

    Attributes:
        entries: the table.
        columns: the columns that each row has, the key first.
        terms: of the query.
        conditions: SQL conditions that an entry has not expired and satisfies the filter.
        bounds: how many conditions of ``bound_range`` the prefix needs: 0 without a prefix, else 1 or 2.
        group_sizes: how many objects each group of ``core.filters.index_lookups`` has. It is empty if no index can
            help with the filter.
    """

    entries: Table
    columns: Sequence[ColumnElement[Any]]
    terms: Sequence[Term]
    conditions: Sequence[ColumnElement[bool]]
    bounds: int
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
        found = select(*(columns or self.columns)).where(*self.conditions, *self.prefix(key), *where)
        return found.order_by(*self.order).limit(ROWS).offset(SKIPPED)

    def prefix(self, key: ColumnElement[str] | None = None) -> list[ColumnElement[bool]]:
        """Return the conditions that the key, or an expression for it, has the prefix."""
        return bound_range(self.entries.c.key if key is None else key)[: self.bounds]


def are_many(found: CTE, few: int | ColumnElement[int]) -> ScalarSelect[bool]:
    """Return the condition that there are more than few rows."""
    return select(func.count() > few).select_from(found).scalar_subquery()


def in_order(rows: Select[Any], unless: ScalarSelect[bool]) -> Select[Any]:
    """Return rows, whose first column is the key and the last one ``written_at``, in their order, or one row of nulls.

    Args:
        rows: none if there are too many.
        unless: the condition that there are too many.
    """
    nothing = [null().label(f"nothing{place}") for place in range(len(rows.selected_columns))]
    both = union_all(rows, select(*nothing).where(unless)).subquery("both")
    *columns, timestamp = list(both.c)
    return select(*columns).order_by(timestamp.desc(), columns[0])


def bound_range(key: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """Return the conditions of a range of keys, to be bound to its two ends."""
    return [key >= bindparam("b_from", type_=key.type), key < bindparam("b_to", type_=key.type)]
