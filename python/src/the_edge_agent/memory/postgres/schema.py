"""``PostgresTables``: checks and creates the tables of one PostgreSQL database, in one process at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, Final

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.layouts import (
    SCHEMA_VERSION,
    another_layout,
    check_kind,
    check_version,
    missing_columns,
)
from the_edge_agent.memory.database.native_tables import ENTRIES, VERSION, NativeTables
from the_edge_agent.memory.postgres.shared_sql import VECTOR

_VECTOR: Final = f"search_vector TSVECTOR GENERATED ALWAYS AS ({VECTOR}) STORED, "
_JSON: Final = "metadata_json JSONB NOT NULL, "
_JSON_INDEX: Final = (
    "CREATE INDEX IF NOT EXISTS ix_{table}_metadata_json ON {table} USING gin (metadata_json jsonb_path_ops)"
)
_VECTOR_INDEX: Final = (
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_search_vector ON ltm_entries USING gin (search_vector)"
)
_COLUMNS_OF: Final = (
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
)
_STATE: Final = """
    SELECT current_setting('server_encoding'),
           array_agg(attname::text) FILTER (WHERE attrelid = to_regclass('ltm_schema_version')),
           array_agg(attname::text) FILTER (WHERE attrelid = to_regclass('ltm_entries'))
    FROM pg_attribute
    WHERE attrelid IN (to_regclass('ltm_schema_version'), to_regclass('ltm_entries'))
      AND attnum > 0 AND NOT attisdropped"""
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('the-edge-agent schema'))"


class PostgresTables(NativeTables):
    """The tables in PostgreSQL, with a tsvector for words and a JSONB copy of the metadata for filters."""

    types: ClassVar = {"key": 'VARCHAR(512) COLLATE "C"', "text": "VARCHAR", "time": "TIMESTAMPTZ"}
    of_catalog = _JSON

    def is_ready(self, connection: Any, search: bool | None) -> bool:
        """Return whether the tables exist. Refuse a database whose encoding would lose text."""
        encoding, columns, of_entries = connection.execute(_STATE).fetchone()
        if encoding != "UTF8":
            raise LTMError("configuration_error", f"the encoding of the database must be UTF8, not {encoding}")
        if columns and not {"id", "version"}.issubset(columns):
            raise another_layout(VERSION)
        row = columns and connection.execute("SELECT version FROM ltm_schema_version").fetchone()
        is_current = bool(row) and check_version(VERSION, row[0]) == SCHEMA_VERSION
        check_kind(ENTRIES, of_entries or (), search=search)
        return is_current and (search is None or (bool(of_entries) and not missing_columns(of_entries)))

    def columns_of(self, connection: Any, name: str) -> Collection[str]:
        """Return the names of a table's columns; empty if the table does not exist."""
        return [row[0] for row in connection.execute(_COLUMNS_OF, (name,))]

    def more_columns(self, search: bool | None) -> Mapping[str, Collection[str]]:
        """Return the columns for the JSONB copies and, if words are stored, for the tsvector."""
        of_entries = ("metadata_json", "search_vector") if search else ("metadata_json",)
        return {ENTRIES: of_entries, "ltm_catalog": ("metadata_json",)}

    def of_entries(self, *, search: bool) -> str:
        """Return the SQL of these columns and of the primary key, for CREATE TABLE."""
        return f"{_VECTOR if search else ''}{_JSON}PRIMARY KEY (key)"

    def indexes(self, connection: Any, *, search: bool | None) -> Iterable[str]:
        """Return the indexes over the tsvector and the JSONB copies."""
        tables = ("ltm_catalog",) if search is None else ("ltm_catalog", ENTRIES)
        of_json = [_JSON_INDEX.format(table=table) for table in tables]
        return [*of_json, _VECTOR_INDEX] if search else of_json

    def create(self, connection: Any, search: bool | None, language: str | None) -> None:
        """Create the missing tables. An advisory lock lets one process at a time do this."""
        connection.execute(_ONE_AT_A_TIME)
        super().create(connection, search, language)
