"""What statements are made of: the portable way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Integer, Table, bindparam, func

from the_edge_agent.memory.sql.dialects.base.features import Part
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions
from the_edge_agent.memory.sql.dialects.base.search import TextConditions
from the_edge_agent.memory.sql.dialects.base.upkeep import Upkeep
from the_edge_agent.memory.sql.dialects.base.upsert import Upsert


class Queries(Part):
    """What statements that write and search are made of."""

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return the upsert that stores rows of these bound columns, which begin with the primary key."""
        return Upsert(table, row)

    def metadata_columns(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the bound columns of a table that keep metadata."""
        return {"metadata": bindparam("b_metadata", type_=self.features.text_type)}

    def metadata_parameters(self, metadata: str | None) -> dict[str, Any]:
        """Return the parameters of ``metadata_columns`` for a JSON text."""
        return {"b_metadata": metadata}

    def unindexed(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the columns of the entries' table to reset when an entry's words change, with their new values."""
        return {}

    def size(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return how long a text is, in characters or in bytes, whichever is quicker."""
        return func.length(column, type_=Integer())

    def filters(self, table: Table) -> FilterConditions:
        """Return the compiler that turns metadata filters into SQL conditions on a table."""
        return FilterConditions(table)

    def texts(self, entries: Table) -> TextConditions:
        """Return the object that turns queries into SQL conditions on the entries' table.

        A database with a text index returns a subclass of ``IndexedTextConditions``.
        """
        return TextConditions(entries)

    def upkeep(self, entries: Table) -> Upkeep | None:
        """Return the work that follows stores, None where there is none."""
        return None
