"""The tables of one SQLite database."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Final

from the_edge_agent.memory.database.layouts import SCHEMA_VERSION, check_kind, check_version, missing_columns
from the_edge_agent.memory.database.native_tables import ENTRIES, VERSION, NativeTables
from the_edge_agent.memory.sqlite.index import definitions

_HAS_VERSION: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'ltm_schema_version'"


class SQLiteTables(NativeTables):
    """The tables in SQLite; the entries have a number, by which the full-text index knows them."""

    types: ClassVar = {"key": "VARCHAR(512)", "text": "TEXT", "time": "DATETIME"}

    def is_ready(self, connection: Any, search: bool | None) -> bool:
        """Return whether the tables exist. Refuse entries of the other kind."""
        has_version = self._has_version(connection)
        if not has_version or search is None:
            return has_version
        columns = self.columns_of(connection, ENTRIES)
        check_kind(ENTRIES, columns, search=search)
        return bool(columns) and not missing_columns(columns)

    def columns_of(self, connection: Any, name: str) -> Collection[str]:
        """Return the names of a table's columns; none if the table does not exist."""
        return [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]

    def of_entries(self, *, search: bool) -> str:
        """Add the number."""
        return "id INTEGER NOT NULL, PRIMARY KEY (id), UNIQUE (key)"

    def indexes(self, connection: Any, *, search: bool | None) -> Iterable[str]:
        """Return the full-text index with its triggers, where this SQLite has one."""
        if not search or not _has_fts5(connection):
            return []
        return definitions(ENTRIES, has_json=_has_json(connection))

    def _has_version(self, connection: Any) -> bool:
        """Return whether the version table has this release's version. Refuse a version that we do not know."""
        if connection.execute(_HAS_VERSION).fetchone() is None:
            return False
        try:
            row = connection.execute("SELECT version FROM ltm_schema_version").fetchone()
        except sqlite3.OperationalError:
            self.check_layouts(connection, None)  # it may be another's table
            raise
        if row is None or row[0] is None:
            return False
        return check_version(VERSION, row[0]) == SCHEMA_VERSION


def _has_fts5(connection: Any) -> bool:
    return ("ENABLE_FTS5",) in connection.execute("PRAGMA compile_options").fetchall()


def _has_json(connection: Any) -> bool:
    try:
        connection.execute("SELECT json_valid(value) FROM json_tree('[]')").fetchall()
    except sqlite3.OperationalError:
        return False
    return True
