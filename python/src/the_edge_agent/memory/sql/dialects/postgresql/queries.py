"""``PostgreSQLQueries``: SQL parts from which the statements for PostgreSQL are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Integer, Table, Text, bindparam, cast, func
from sqlalchemy.dialects.postgresql import JSONB, insert

from the_edge_agent.memory.postgres.shared_sql import json_copy
from the_edge_agent.memory.sql.dialects.base import Queries
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions
from the_edge_agent.memory.sql.dialects.base.search import TextConditions
from the_edge_agent.memory.sql.dialects.base.upsert import OnConflict, Upsert
from the_edge_agent.memory.sql.dialects.postgresql.features import PostgreSQLFeatures
from the_edge_agent.memory.sql.dialects.postgresql.filters import JSONBConditions
from the_edge_agent.memory.sql.dialects.postgresql.search import VectorConditions


class PostgreSQLQueries(Queries):
    """SQL parts of statements for PostgreSQL."""

    features: PostgreSQLFeatures

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return an upsert that stores rows in one statement."""
        return OnConflict(table, row, insert)

    def metadata_columns(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the columns that store metadata. The JSONB copy is bound as text, and the server converts it."""
        if "metadata_json" not in table.c:
            return super().metadata_columns(table)
        copy = cast(bindparam("b_metadata_json", type_=Text()), JSONB)
        return {**super().metadata_columns(table), "metadata_json": copy}

    def metadata_parameters(self, metadata: str | None) -> dict[str, Any]:
        """Return the values for these columns. The JSONB copy has the form that JSONB compares exactly."""
        return {**super().metadata_parameters(metadata), "b_metadata_json": json_copy(metadata)}

    def size(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """Return the length in bytes, which PostgreSQL stores. To count characters it would decompress the text."""
        return func.octet_length(column, type_=Integer())

    def byte_size(self, column: ColumnElement[Any]) -> ColumnElement[int] | None:
        """Return how many bytes a text has; a database must be in UTF-8."""
        return func.octet_length(column, type_=Integer())

    def filters(self, table: Table) -> FilterConditions:
        """Return filter conditions on the JSONB copy."""
        if "metadata_json" not in table.c:
            return super().filters(table)
        return JSONBConditions(table, self.features)

    def texts(self, entries: Table) -> TextConditions:
        """Return the conditions for words: by the tsvector or, without it, by LIKE."""
        return VectorConditions(entries, self.features) if self.features.has_text_index else super().texts(entries)
