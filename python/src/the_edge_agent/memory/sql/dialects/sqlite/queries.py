"""``SQLiteQueries``: SQL parts from which the statements for SQLite are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Integer, LargeBinary, Table, cast, func
from sqlalchemy.dialects.sqlite import insert

from the_edge_agent.memory.sql.dialects.base import Queries
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions
from the_edge_agent.memory.sql.dialects.base.search import TextConditions
from the_edge_agent.memory.sql.dialects.base.upsert import OnConflict, Upsert
from the_edge_agent.memory.sql.dialects.sqlite.features import SQLiteFeatures
from the_edge_agent.memory.sql.dialects.sqlite.filters import JSONEachConditions
from the_edge_agent.memory.sql.dialects.sqlite.search import FTSConditions


class SQLiteQueries(Queries):
    """SQL parts of statements for SQLite."""

    features: SQLiteFeatures

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return an upsert that stores rows in one statement."""
        return OnConflict(table, row, insert)

    def byte_size(self, column: ColumnElement[Any]) -> ColumnElement[int] | None:
        """Return how many bytes a text has. ``octet_length`` needs SQLite 3.43."""
        return func.length(cast(column, LargeBinary), type_=Integer())

    def filters(self, table: Table) -> FilterConditions:
        """Return filter conditions by json_each, or the portable ones if this SQLite has no JSON functions."""
        return JSONEachConditions(table) if self.features.has_json else super().filters(table)

    def texts(self, entries: Table) -> TextConditions:
        """Return the conditions for words: by FTS5 or, if this SQLite has no FTS5, by LIKE."""
        if not self.features.has_text_index:
            return super().texts(entries)
        return FTSConditions(entries, has_metadata_words=self.features.has_metadata_words)
