"""Metadata filters as SQL. All conditions use one hook, ``at``, which each dialect writes.

Databases compare integers with doubles inexactly, and each in a different way. So each number is compared twice:
integers with an integer and doubles with a double. Python computes these two limits exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from sqlalchemy import ColumnElement, Table, Text, and_, bindparam, false, func, not_, or_, true
from sqlalchemy.types import NullType

from the_edge_agent.memory.core.codec import INT64_MAX, INT64_MIN, encode_value
from the_edge_agent.memory.core.filters import (
    COMPARISONS,
    And,
    Compare,
    Equals,
    Exists,
    IsObject,
    Node,
    Not,
    Or,
    Path,
    Placeholder,
)

Kind: TypeAlias = Literal["null", "boolean", "integer", "double", "string", "array", "object"]
Test: TypeAlias = Callable[[ColumnElement[Any]], ColumnElement[bool]]

NOT_NULL: tuple[Kind, ...] = ("boolean", "integer", "double", "string", "array", "object")
ANY: tuple[Kind, ...] = ("null", *NOT_NULL)
MAX_CONDITIONS = 200  # of one filter; Python decides longer ones: compiling takes time, and SQLite limits the depth
MAX_DEPTH = 20  # Python decides deeper filters: SQLite's parser fails at 33 nested negations


class NotInSQLError(Exception):
    """The dialect cannot express a condition exactly, so Python must decide the filter."""


class FilterConditions:
    """Turns the tree of a metadata filter into SQL that is true or false, never NULL."""

    #: Whether ``equals`` takes a ``Placeholder`` for a value; ``placeholder_parameters`` returns its parameters. Then
    #: the database needs INSTR, unless the dialect replaces ``equals``.
    takes_placeholders: ClassVar[bool] = False
    #: The kinds of numbers. They are in one group if the database compares integers with doubles exactly.
    numbers: ClassVar[Sequence[Sequence[Kind]]] = (("integer",), ("double",))

    def __init__(self, table: Table) -> None:
        """Make conditions for one table that stores metadata."""
        self.table = table

    def placeholder_parameters(self, place: int, path: Path, value: int | str) -> dict[str, Any]:
        """Return the parameters for the placeholder of a value at ``path``. A string also needs its JSON text."""
        written = {_written_name(place): encode_value(value)} if isinstance(value, str) else {}
        return {placeholder_name(place): value, **written}

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Return whether the metadata has a value of one of these kinds at ``path`` that passes ``test``.

        If there is a test, there is only one kind. The test gets the value as an SQL value of that kind: true is 1, and
        strings compare by code point.

        Raises:
            NotInSQLError: this database cannot express the condition exactly.
        """
        raise NotInSQLError

    def condition(self, node: Node) -> ColumnElement[bool] | None:
        """Return a metadata filter as an SQL condition, or None if Python must decide it."""
        if _size(node) > MAX_CONDITIONS or _depth(node) > MAX_DEPTH:
            return None
        try:
            return self._condition(node)
        except NotInSQLError:
            return None

    def _condition(self, node: Node) -> ColumnElement[bool]:
        match node:
            case And(conditions):
                return and_(true(), *map(self._condition, conditions))
            case Or(conditions):
                return or_(false(), *map(self._condition, conditions))
            case Not(condition):
                return not_(self._condition(condition))
            case Equals(path, values):
                return self.equals(path, values)
            case Compare(path, op, value):
                return self.compare(path, op, value)
            case Exists(path):
                return self.at(path, ANY)
            case IsObject(path):
                return self.at(path, ("object",))

    def equals(self, path: Path, values: Sequence[Any]) -> ColumnElement[bool]:
        """Return whether the value at ``path`` is one of ``values``; None stands for null or missing."""
        numbers = [value for value in values if is_number(value)]
        by_kind: list[tuple[Kind, list[Any]]] = [
            ("boolean", [int(value) for value in values if isinstance(value, bool)]),
            ("integer", [int(value) for value in numbers if value == int(value) and _is_int64(int(value))]),
            ("double", [float(value) for value in numbers if float(value) == value]),
            ("string", [value for value in values if isinstance(value, str)]),
        ]
        conditions = [self.at(path, (kind,), is_in(typed)) for kind, typed in by_kind if typed]
        if any(value is None for value in values):
            conditions.append(not_(self.at(path, NOT_NULL)))
        conditions += [self.equals_whole(path, value) for value in values if isinstance(value, (list, dict))]
        return or_(false(), *conditions, *self._equal_placeholders(path, values))

    def _equal_placeholders(self, path: Path, values: Sequence[Any]) -> Iterator[ColumnElement[bool]]:
        placeholders = [value for value in values if isinstance(value, Placeholder)]
        if texts := [placeholder for placeholder in placeholders if placeholder.is_text]:
            yield and_(self._mentions(texts), self.at(path, ("string",), is_placeholder_value(texts)))
        if numbers := [placeholder for placeholder in placeholders if not placeholder.is_text]:
            yield from (self.at(path, kinds, is_placeholder_value(numbers)) for kinds in self.numbers)

    def _mentions(self, placeholders: Sequence[Placeholder]) -> ColumnElement[bool]:
        """Search the JSON text for the strings as they are written in JSON.

        That is three times as fast as JSON functions.
        """
        written = [bindparam(_written_name(placeholder.place), type_=Text()) for placeholder in placeholders]
        return or_(*(func.instr(self.table.c.metadata, text) > 0 for text in written))

    def equals_whole(self, path: Path, value: list[Any] | dict[str, Any]) -> ColumnElement[bool]:
        """Return whether the value at ``path`` equals a whole list or object.

        Raises:
            NotInSQLError: this database cannot express the condition exactly.
        """
        raise NotInSQLError

    def compare(self, path: Path, op: str, value: int | float | str) -> ColumnElement[bool]:
        """Return whether the number or string at ``path`` compares with ``value`` as ``op`` says."""
        if isinstance(value, str):
            return self.at(path, ("string",), is_ordered(op, value))
        return or_(
            self.at(path, ("integer",), is_ordered(*integer_comparison(op, value))),
            self.at(path, ("double",), is_ordered(*double_comparison(op, value))),
        )


def placeholder_name(place: int) -> str:
    """Return the name of the parameter for the placeholder at a place."""
    return f"b_placeholder{place}"


def _written_name(place: int) -> str:
    return f"b_written{place}"


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def integer_comparison(op: str, value: int | float) -> tuple[str, int]:
    """Return an operator and a limit that have the same result as ``op value`` for every 64-bit integer."""
    limit = math.floor(value) if op in ("$gt", "$lte") else math.ceil(value)
    if limit > INT64_MAX:
        return ("$gt" if op in ("$gt", "$gte") else "$lte"), INT64_MAX
    if limit < INT64_MIN:
        return ("$lt" if op in ("$lt", "$lte") else "$gte"), INT64_MIN
    return op, limit


def double_comparison(op: str, value: int | float) -> tuple[str, float]:
    """Return an operator and a limit that have the same result as ``op value`` for every double."""
    limit = float(value)
    if limit > value and op in ("$gt", "$lte"):
        limit = math.nextafter(limit, -math.inf)
    elif limit < value and op in ("$gte", "$lt"):
        limit = math.nextafter(limit, math.inf)
    return op, limit


def _is_int64(number: int) -> bool:
    return INT64_MIN <= number <= INT64_MAX


def is_in(values: list[Any]) -> Test:
    """Return the test that a value is one of these."""
    return lambda value: value.in_(values)


def is_placeholder_value(placeholders: Sequence[Placeholder]) -> Test:
    return is_in([bindparam(placeholder_name(placeholder.place), type_=NullType()) for placeholder in placeholders])


def is_ordered(op: str, limit: Any) -> Test:
    """Return the test that a value compares with ``limit`` as ``op`` says."""
    return lambda value: COMPARISONS[op](value, limit)  # type: ignore[return-value]


def _size(node: Node) -> int:
    match node:
        case And(conditions) | Or(conditions):
            return 1 + sum(map(_size, conditions))
        case Not(condition):
            return 1 + _size(condition)
        case Equals(path, values):
            return len(path) + len(values)
        case _:
            return len(node.path)


def _depth(node: Node) -> int:
    match node:
        case And(conditions) | Or(conditions):
            return 1 + max(map(_depth, conditions), default=0)
        case Not(condition):
            return 1 + _depth(condition)
        case _:
            return 1
