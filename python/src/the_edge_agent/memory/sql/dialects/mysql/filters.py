"""``JSONConditions``: metadata filters on MySQL, by JSON functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Double, Table, Text, case, cast, false, func

from the_edge_agent.memory.core.filters import Path
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions, Kind, Test

_TYPES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "null": ("NULL",),
    "boolean": ("BOOLEAN",),
    "integer": ("INTEGER", "UNSIGNED INTEGER"),
    "double": ("DOUBLE", "DECIMAL"),
    "string": ("STRING",),
    "array": ("ARRAY",),
    "object": ("OBJECT",),
}


class JSONConditions(FilterConditions):
    """Filters by JSON_EXTRACT, which check the type of the value first."""

    takes_placeholders = True

    def __init__(self, table: Table, exact_collation: str) -> None:
        """Make conditions for one table. Strings compare by this collation."""
        super().__init__(table)
        self._exact_collation = exact_collation

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Return the condition. It checks the type first, because a cast of another type would warn or fail."""
        value = func.json_extract(self.readable(path), json_path(path), type_=Text())
        is_kind = func.coalesce(self.has_kind(value, kinds), false())
        return is_kind if test is None else case((is_kind, test(self.native(value, kinds[0]))), else_=false())

    def readable(self, path: Path) -> ColumnElement[Any]:
        """Return the metadata, or NULL if it is not valid JSON, because invalid JSON would stop the statement."""
        metadata = self.table.c.metadata
        return case((func.json_valid(metadata), metadata))

    def has_kind(self, value: ColumnElement[Any], kinds: Sequence[Kind]) -> ColumnElement[bool]:
        """Return whether a JSON value has one of these kinds; NULL if there is no value."""
        return func.json_type(value).in_([name for kind in kinds for name in _TYPES[kind]])

    def native(self, value: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        """Return a JSON value of one kind as an SQL value that compares exactly."""
        if kind == "string":
            return func.json_unquote(value, type_=Text()).collate(self._exact_collation)
        return cast(value, Double() if kind == "double" else BigInteger())


def json_path(path: Path) -> str:
    """Return a JSON path of these keys. Quotes make every key literal."""
    return "$" + "".join("." + json.dumps(key, ensure_ascii=False) for key in path)
