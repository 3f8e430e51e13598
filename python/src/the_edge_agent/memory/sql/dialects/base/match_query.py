"""``MatchQuery``, from which a dialect builds the statements of a search, and helpers to build these statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    CTE,
    BindParameter,
    Column,
    ColumnElement,
    FromClause,
    Integer,
    ScalarSelect,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.sql.visitors import replacement_traverse

from the_edge_agent.memory.core.namespaces import ESCAPES, KeyRange
from the_edge_agent.memory.core.tokens import Term
from the_edge_agent.memory.database.search_plan import RANGE_LIMIT, Step

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
        range_condition_count: how many conditions of ``range_conditions`` the range of keys needs: 0 for all keys, else
            1 or 2.
        group_sizes: how many objects each group of ``core.filters.index_lookups`` has. It is empty if no index can
            help with the filter.
    """

    entries: Table
    columns: Sequence[ColumnElement[Any]]
    terms: Sequence[Term]
    conditions: Sequence[ColumnElement[bool]]
    range_condition_count: int
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
        """Return the statement for the newest rows that satisfy ``conditions`` and ``where`` and are in the range.

        Args:
            columns: what each row has, in place of ``self.columns``.
            where: more conditions, usually those of the terms.
            key: the expression that is compared with the range, in place of the column ``key``.
        """
        statement = select(*(columns or self.columns)).where(*self.conditions, *self.in_range(key), *where)
        return statement.order_by(*self.order).limit(ROWS).offset(SKIPPED)

    def in_range(self, key: ColumnElement[str] | None = None) -> list[ColumnElement[bool]]:
        """Return the conditions that the key, or an expression for it, is in the range."""
        return range_conditions(self.entries.c.key if key is None else key)[: self.range_condition_count]


def by_range(newest: MatchQuery, where: Sequence[ColumnElement[bool]]) -> SQLStep:
    """Return the step that reads the matches among the keys of the range, if these are not too many.

    A subquery with a limit makes every planner look the range up in the index of keys. Without it, a planner may read
    all entries in the order of time instead, and find few of the range among them.

    Args:
        newest: the search.
        where: the conditions of the terms.
    """
    is_over = is_range_over_limit(newest)
    ranged = select(newest.entries).where(*newest.in_range(), not_(is_over))
    entries = ranged.limit(literal_column(str(RANGE_LIMIT))).subquery("ranged")
    order = entries.c.updated_at.desc(), entries.c.key
    columns = read_from(entries, newest.entries, with_timestamp(newest))
    rows = select(*columns).where(*read_from(entries, newest.entries, [*newest.conditions, *where])).order_by(*order)
    return Step(in_order(select(*rows.limit(ROWS).offset(SKIPPED).subquery("matches").c), is_over))


def is_range_over_limit(newest: MatchQuery) -> ScalarSelect[bool]:
    """Return the condition that the range has too many keys for the step ``by_range``."""
    some: ColumnElement[int] = literal_column(str(RANGE_LIMIT + 1))
    return is_over_limit(select(newest.entries.c.key).where(*newest.in_range()).limit(some).cte("part"), RANGE_LIMIT)


def with_timestamp(newest: MatchQuery) -> list[ColumnElement[Any]]:
    """Return the columns of the search, and the time of an entry as the column by which ``in_order`` sorts."""
    return [*newest.columns, type_coerce(newest.entries.c.updated_at, Text()).label("written_at")]


def read_from(rows: FromClause, table: Table, expressions: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """Return the expressions with the columns of these rows in place of those of the table."""

    def replaced(element: Any, **_: Any) -> Any:
        is_of_table = isinstance(element, Column) and element.table is table
        return rows.c[element.name] if is_of_table else None

    return [replacement_traverse(expression, {}, replaced) for expression in expressions]


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


def is_namespaced(
    key: ColumnElement[str],
    position: Callable[[ColumnElement[str], str], ColumnElement[int]],
    beginning: Callable[[ColumnElement[str], ColumnElement[int]], ColumnElement[str]],
) -> ColumnElement[bool]:
    """Return the condition that a full key which begins with ``@`` has a namespace, as ``split_key`` decides.

    It is a CASE: most keys need only its first parts, and PostgreSQL does not take it for a condition that few keys
    satisfy.

    Args:
        key: the full key.
        position: returns the place of the first occurrence of a text in another; 0 if there is none.
        beginning: returns so many characters of a text, from its beginning.
    """

    def lacks(text: ColumnElement[str], parts: Sequence[str]) -> ColumnElement[bool]:
        return and_(*(position(text, part) == 0 for part in parts))

    names = beginning(key, position(key, "."))
    plain = reduce(lambda text, escape: func.replace(text, escape, "-", type_=key.type), ESCAPES, names)
    is_right = case((and_(lacks(names, ("//", "/.")), lacks(plain, ("%",))), 1), else_=0)
    return case(
        (or_(lacks(key, (".",)), names == key, key.like("@/%"), key.like("@.%")), 0),  # no dot, no key, no first name
        (lacks(key, ("%", "//", "/.")), 1),
        else_=is_right,
    ) == literal_column("1")


def range_conditions(key: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """Return the two conditions of a range of keys: from ``b_from``, and below ``b_to``."""
    return [key >= bindparam("b_from", type_=key.type), key < bindparam("b_to", type_=key.type)]


def conditions_of(key: ColumnElement[str], keys: KeyRange) -> list[ColumnElement[bool]]:
    """Return the conditions that a range of keys needs, without the one for keys of namespaces."""
    begins, ends = range_conditions(key)
    if keys.is_open:
        begins = key > bindparam("b_from", type_=key.type)
    return [begins] * bool(keys.start) + [ends] * (keys.end is not None)
