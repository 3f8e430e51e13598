"""``JSONEachConditions``: metadata filters on SQLite, by json_each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, case, func, literal_column, select
from sqlalchemy import exists as sql_exists

from the_edge_agent.memory.core.filters import Path
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions, Kind, NotInSQLError, Test

MAX_FILTER_LEVELS: Final = 5  # with a few more levels, SQLite's parser has no stack left
_TYPES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "null": ("null",),
    "boolean": ("true", "false"),
    "integer": ("integer",),
    "double": ("real",),
    "string": ("text",),
    "array": ("array",),
    "object": ("object",),
}


class JSONEachConditions(FilterConditions):
    """Filters that go down a path with one json_each for each level."""

    takes_placeholders = True
    numbers = (("integer", "double"),)

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Return whether there is a value of one of these kinds that passes the test."""
        if len(path) > MAX_FILTER_LEVELS:
            raise NotInSQLError
        metadata = self.table.c.metadata
        readable = case((func.json_valid(metadata), metadata))  # invalid JSON would stop the statement
        return _at(readable, path, kinds, test)


def _at(parent: ColumnElement[Any], path: Path, kinds: Sequence[Kind], test: Test | None) -> ColumnElement[bool]:
    each = func.json_each(parent).table_valued("key", "type", "atom", "value").alias(f"level{len(path)}")
    conditions = [each.c.key == path[0]]
    if len(path) > 1:
        conditions += [each.c.type == "object", _at(each.c.value, path[1:], kinds, test)]
    else:
        conditions.append(each.c.type.in_([name for kind in kinds for name in _TYPES[kind]]))
        if test is not None:
            conditions.append(test(each.c.atom))
    return sql_exists(select(literal_column("1")).select_from(each).where(*conditions))
