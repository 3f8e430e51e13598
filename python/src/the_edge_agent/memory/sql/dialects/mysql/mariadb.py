"""The dialect of MariaDB: as MySQL's, but with RETURNING, another collation, and JSON as plain text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, case, func, null
from sqlalchemy.dialects.mysql import Insert, insert

from the_edge_agent.memory.core.filters import Path
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions, Kind, NotInSQLError, Test
from the_edge_agent.memory.sql.dialects.base.upsert import Upsert, UpsertReturning
from the_edge_agent.memory.sql.dialects.mysql.dialect import MySQLDialect
from the_edge_agent.memory.sql.dialects.mysql.features import MySQLFeatures, exact_text
from the_edge_agent.memory.sql.dialects.mysql.filters import JSONConditions, json_path
from the_edge_agent.memory.sql.dialects.mysql.queries import MySQLQueries

_EXACT: Final = "utf8mb4_nopad_bin"


class MariaDBQueries(MySQLQueries):
    """SQL parts of statements for MariaDB."""

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return an upsert that stores rows in one statement."""
        return OnDuplicateKeyReturning(table, row)

    def filters(self, table: Table) -> FilterConditions:
        """Return filter conditions by MariaDB's JSON functions."""
        if not self.features.has_json:
            return FilterConditions(table)
        return JSONTextConditions(table, self.features.exact_collation)


class MariaDBDialect(MySQLDialect):
    """MariaDB 10.5 or later."""

    features = MySQLFeatures(product="MariaDB", exact_collation=_EXACT, key_type=exact_text(_EXACT))
    queries_class = MariaDBQueries


class OnDuplicateKeyReturning(UpsertReturning):
    """INSERT ... ON DUPLICATE KEY UPDATE ... RETURNING."""

    def statement(self) -> Insert:
        """Return the insert statement, which becomes an update if the key exists."""
        statement = insert(self.table).values(self.row)
        return statement.on_duplicate_key_update(self.changes(statement.inserted))


class JSONTextConditions(JSONConditions):
    """Filters by JSON_EXTRACT on MariaDB, where JSON is plain text."""

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Let Python decide about keys that begin with a minus: MariaDB's JSON paths never find them."""
        if any(key.startswith("-") for key in path):
            raise NotInSQLError
        return super().at(path, kinds, test)

    def readable(self, path: Path) -> ColumnElement[Any]:
        """Return the metadata in an expression that is different for each path. A number makes it different.

        JSON_VALID never returns that number. MariaDB's optimiser compares expressions as text, by the session's
        collation. It would see a condition on the key ``a`` and the opposite condition on the key ``A`` as a
        contradiction.
        """
        metadata = self.table.c.metadata
        number = 2 + int.from_bytes(hashlib.sha256(json_path(path).encode()).digest()[:7], "big")
        return case({1: metadata, number: null()}, value=func.json_valid(metadata))

    def has_kind(self, value: ColumnElement[Any], kinds: Sequence[Kind]) -> ColumnElement[bool]:
        """Return the condition. Integers and doubles differ by their text, because JSON_TYPE calls 1e22 an integer."""
        numbers = [kind for kind in kinds if kind in ("integer", "double")]
        if len(numbers) != 1:
            return super().has_kind(value, kinds)
        is_number = func.json_type(value).in_(["INTEGER", "DOUBLE"])
        has_fraction = value.regexp_match("[.eE]")
        return and_(is_number, has_fraction if numbers == ["double"] else ~has_fraction)

    def native(self, value: ColumnElement[Any], kind: Kind) -> ColumnElement[Any]:
        """Return a JSON value of one kind as an SQL value. A cast of the text ``true`` would give 0."""
        return case((value == "true", 1), else_=0) if kind == "boolean" else super().native(value, kind)
