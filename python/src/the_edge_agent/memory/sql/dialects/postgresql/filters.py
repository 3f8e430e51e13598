"""``JSONBConditions``: metadata filters on PostgreSQL, by a JSONB copy of the metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Numeric, Table, Text, bindparam, case, cast, false, func, literal, literal_column
from sqlalchemy.dialects.postgresql import JSONB

from the_edge_agent.memory.core.codec import comparable_json
from the_edge_agent.memory.core.filters import Node, Path, Placeholder, nested
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions, Kind, Test, is_ordered, placeholder_name
from the_edge_agent.memory.sql.dialects.postgresql.features import IS_WHOLE, PostgreSQLFeatures

_TYPES: Final[Mapping[Kind, str]] = {"integer": "number", "double": "number"}


class JSONBConditions(FilterConditions):
    """Filters over the JSONB copy of the metadata."""

    takes_placeholders = True

    def __init__(self, table: Table, features: PostgreSQLFeatures) -> None:
        """Make conditions for one table that stores metadata."""
        super().__init__(table)
        self._features = features

    def condition(self, node: Node) -> ColumnElement[bool] | None:
        """Return a metadata filter as an SQL condition, or None if Python must decide it."""
        sql = super().condition(node)
        return sql if sql is None or self._features.keeps_settings else sql & IS_WHOLE

    def placeholder_parameters(self, place: int, path: Path, value: int | str) -> dict[str, Any]:
        """Return the parameter with the JSON that the metadata must contain; the JSONB index looks it up."""
        return {placeholder_name(place): comparable_json(nested(path, value))}

    def equals(self, path: Path, values: Sequence[Any]) -> ColumnElement[bool]:
        """Return the condition. The index finds metadata that contains a scalar; null, lists and objects need more."""
        scalars = [value for value in values if isinstance(value, (bool, int, float, str, Placeholder))]
        others = [value for value in values if not isinstance(value, (bool, int, float, str, Placeholder))]
        sql = false() | super().equals(path, others)
        for value in scalars:
            if isinstance(value, Placeholder):
                contained = _as_jsonb(bindparam(placeholder_name(value.place), type_=Text()))
            else:
                contained = _jsonb(nested(path, value))
            sql = sql | self.table.c.metadata_json.contains(contained)
        return sql

    def equals_whole(self, path: Path, value: list[Any] | dict[str, Any]) -> ColumnElement[bool]:
        """Return the condition. JSONB compares numbers by value, and ignores the order of keys."""
        return func.coalesce(self._value(path) == _jsonb(value), false())

    def compare(self, path: Path, op: str, value: int | float | str) -> ColumnElement[bool]:
        """Return the condition. Numbers compare as NUMERIC, which is exact for integers and doubles."""
        if isinstance(value, str):
            return super().compare(path, op, value)
        number = cast(literal(comparable_json(value), Text), Numeric)
        return self.at(path, ("double",), is_ordered(op, number))

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Return the condition. It checks the type first, because a cast of another type would fail."""
        value = self._value(path)
        types = {_TYPES.get(kind, kind) for kind in kinds}
        has_type = func.coalesce(func.jsonb_typeof(value).in_(sorted(types)), false())
        if test is None:
            return has_type
        as_text: ColumnElement[Any] = value.op("#>>", return_type=Text())(literal_column("'{}'"))
        if kinds[0] != "string":
            return case((has_type, test(cast(as_text, Numeric))), else_=false())
        collation = self._features.exact_collation
        exact = as_text.collate(collation) if collation else as_text
        return case((has_type, test(exact)), else_=false())

    def _value(self, path: Path) -> ColumnElement[Any]:
        value: ColumnElement[Any] = self.table.c.metadata_json
        for key in path:
            # With text, `->` never takes an item of an array, unlike `#>`.
            value = value.op("->", return_type=JSONB())(cast(literal(key, Text), Text))
        return value


def _jsonb(value: Any) -> ColumnElement[Any]:
    return _as_jsonb(literal(comparable_json(value), Text))


def _as_jsonb(written: ColumnElement[str]) -> ColumnElement[Any]:
    return cast(cast(written, Text), JSONB)
