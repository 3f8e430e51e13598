"""The portable part ``Queries``: SQL parts from which statements are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Integer, Table, bindparam, func

from the_edge_agent.memory.sql.dialects.base.features import Part
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions
from the_edge_agent.memory.sql.dialects.base.position import position_by
from the_edge_agent.memory.sql.dialects.base.search import TextConditions
from the_edge_agent.memory.sql.dialects.base.upkeep import Upkeep
from the_edge_agent.memory.sql.dialects.base.upsert import Upsert


class Queries(Part):
    """SQL parts from which the statements for writes and searches are built."""

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return the upsert for rows with these bound columns. The first column is the primary key."""
        return Upsert(table, row)

    def metadata_columns(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the columns that store metadata, with their bound parameters."""
        return {"metadata": bindparam("b_metadata", type_=self.features.text_type)}

    def metadata_parameters(self, metadata: str | None) -> dict[str, Any]:
        """Return the values for the parameters of ``metadata_columns``, from metadata as JSON text."""
        return {"b_metadata": metadata}

    def unindexed(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the columns of the entries' table to reset when an entry's words change, with their new values."""
        return {}

    def position(self, text: ColumnElement[str], part: str) -> ColumnElement[int]:
        """Return the place of the first occurrence of ``part`` in a text, from 1 on; 0 if there is none."""
        return position_by(self.features.position, text, part)

    def beginning(self, text: ColumnElement[str], count: ColumnElement[int]) -> ColumnElement[str]:
        """Return so many characters of a text, from its beginning."""
        return func.substr(text, 1, count, type_=text.type)

    def size(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return how long a text is, in characters or in bytes, whichever is faster."""
        return func.length(column, type_=Integer())

    def byte_size(self, column: ColumnElement[Any]) -> ColumnElement[int] | None:
        """Return how many bytes a text has in UTF-8. None if no function is known; then Python counts them."""
        return None

    def is_waiting(self, entries: Table) -> ColumnElement[bool] | None:
        """Return the condition that an entry is not yet in the index of words; None if the index is never late."""
        return None

    def filters(self, table: Table) -> FilterConditions:
        """Return the compiler that turns metadata filters into SQL conditions on a table."""
        return FilterConditions(table)

    def texts(self, entries: Table) -> TextConditions:
        """Return the object that turns queries into SQL conditions on the entries' table.

        A database with a text index returns a subclass of ``IndexedTextConditions``.
        """
        return TextConditions(entries)

    def upkeep(self, entries: Table) -> Upkeep | None:
        """Return the maintenance work to do after stores, or None if the database needs no maintenance."""
        return None
