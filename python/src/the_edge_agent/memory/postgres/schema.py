"""The tables of one PostgreSQL database: made once, by one process at a time."""

from __future__ import annotations

from typing import Any, Final

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.layouts import (
    LANGUAGE_OF,
    SCHEMA_VERSION,
    another_layout,
    check_kind,
    check_language_of,
    check_layouts,
    check_version,
    kept_language,
)

# The tables of SQLAlchemyBackend on PostgreSQL: each class opens the other's data.
_ENTRIES: Final = (
    'CREATE TABLE IF NOT EXISTS ltm_entries (key VARCHAR(512) COLLATE "C" NOT NULL, value VARCHAR NOT NULL, '
    "metadata VARCHAR, {words}version BIGINT NOT NULL, write_id VARCHAR(36), "
    "storage_uri VARCHAR(200), expires_at TIMESTAMPTZ, created_at TIMESTAMPTZ NOT NULL, "
    "updated_at TIMESTAMPTZ NOT NULL, {index}metadata_json JSONB NOT NULL, PRIMARY KEY (key))",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_expires_at ON ltm_entries (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_metadata_json ON ltm_entries USING gin (metadata_json jsonb_path_ops)",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_updated_at ON ltm_entries (updated_at DESC, key)",
)
_WORDS: Final = "search_text VARCHAR NOT NULL, "
_INDEX: Final = "search_vector TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, search_text)) STORED, "
_FULL_TEXT: Final = (
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_search_vector ON ltm_entries USING gin (search_vector)",
)
_TABLES: Final = (
    'CREATE TABLE IF NOT EXISTS ltm_catalog (id VARCHAR(64) NOT NULL, key VARCHAR(512) COLLATE "C" NOT NULL, '
    "content_hash VARCHAR(200) NOT NULL, storage_uri VARCHAR, byte_size BIGINT, inlined_value VARCHAR, "
    "metadata VARCHAR, metadata_hash VARCHAR(200), expires_at TIMESTAMPTZ, created_at TIMESTAMPTZ NOT NULL, "
    "updated_at TIMESTAMPTZ NOT NULL, version BIGINT NOT NULL, metadata_json JSONB NOT NULL, PRIMARY KEY (id))",
    "CREATE INDEX IF NOT EXISTS ix_ltm_catalog_key ON ltm_catalog (key)",
    "CREATE INDEX IF NOT EXISTS ix_ltm_catalog_metadata_json ON ltm_catalog USING gin (metadata_json jsonb_path_ops)",
    "CREATE TABLE IF NOT EXISTS ltm_snapshots (id VARCHAR(36) NOT NULL, name VARCHAR NOT NULL, "
    "entry_count BIGINT NOT NULL, total_bytes BIGINT NOT NULL, created_at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id))",
    "CREATE TABLE IF NOT EXISTS ltm_snapshot_entries (snapshot_id VARCHAR(36) NOT NULL, "
    'entry_id VARCHAR(64) NOT NULL, key VARCHAR(512) COLLATE "C" NOT NULL, content_hash VARCHAR(200) NOT NULL, '
    "metadata_hash VARCHAR(200), byte_size BIGINT, expires_at TIMESTAMPTZ, PRIMARY KEY (snapshot_id, entry_id))",
    "CREATE TABLE IF NOT EXISTS ltm_settings (table_name VARCHAR(100) NOT NULL, name VARCHAR(100) NOT NULL, "
    "value VARCHAR NOT NULL, PRIMARY KEY (table_name, name))",
    "CREATE TABLE IF NOT EXISTS ltm_schema_version (id INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (id))",
)
_MORE_COLUMNS: Final = ("metadata_json",)  # of the entries and of the catalog
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
_HAS_SETTINGS: Final = "SELECT to_regclass('ltm_settings') IS NOT NULL"
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('the-edge-agent schema'))"


def is_ready(connection: Any, search: bool | None) -> bool:
    """Return whether the tables are there.

    Args:
        connection: to look with.
        search: whether the entries' table keeps words; None needs no such table and takes what is there.

    Raises:
        LTMError: ``configuration_error`` for a database that another release has made, or one in which text
            would be lost, or of a table that is another's, or for entries of the other kind.
    """
    encoding, columns, of_entries = connection.execute(_STATE).fetchone()
    if encoding != "UTF8":
        raise LTMError("configuration_error", f"the encoding of the database must be UTF8, not {encoding}")
    if columns and not {"id", "version"}.issubset(columns):
        raise another_layout("ltm_schema_version")
    row = columns and connection.execute("SELECT version FROM ltm_schema_version").fetchone()
    if row:
        check_version("ltm_schema_version", row[0])
    check_kind("ltm_entries", of_entries or (), search=search)
    return bool(row) and (search is None or bool(of_entries))


def kept_language_in(connection: Any) -> str | None:
    """Return the language setting of the entries' table, see ``layouts.kept_language``; None if there is none."""
    if not connection.execute(_HAS_SETTINGS).fetchone()[0]:
        return None
    setting = "SELECT value FROM ltm_settings WHERE table_name = %s AND name = %s"
    row = connection.execute(setting, LANGUAGE_OF).fetchone()
    return row and str(row[0])


def create_tables(connection: Any, search: bool | None, language: str | None) -> None:
    """Create what is missing, in a transaction of the caller's.

    Args:
        connection: in the transaction.
        search: as of ``is_ready``.
        language: of the words of a new table; None for English.

    Raises:
        LTMError: ``configuration_error`` for a table of another layout, or for entries of the other kind.
    """
    connection.execute(_ONE_AT_A_TIME)
    if is_ready(connection, search):  # another process was quicker
        return

    def columns_of(name: str) -> list[str]:
        return [row[0] for row in connection.execute(_COLUMNS_OF, (name,))]

    of_entries = (*_MORE_COLUMNS, "search_vector") if search else _MORE_COLUMNS
    check_layouts(columns_of, {"ltm_entries": of_entries, "ltm_catalog": _MORE_COLUMNS}, search=search)
    is_new = not columns_of("ltm_entries")
    if search is not None:
        for statement in _ENTRIES:
            connection.execute(statement.format(words=_WORDS if search else "", index=_INDEX if search else ""))
        check_kind("ltm_entries", columns_of("ltm_entries"), search=search)  # others do not wait for our lock
    for statement in (*(_FULL_TEXT if search else ()), *_TABLES):
        connection.execute(statement)
    if search and is_new:
        setting = "INSERT INTO ltm_settings (table_name, name, value) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
        connection.execute(setting, (*LANGUAGE_OF, kept_language(language)))
    elif search:
        check_language_of("ltm_entries", language, kept_language_in(connection))
    version = "INSERT INTO ltm_schema_version (id, version) VALUES (1, %s) ON CONFLICT DO NOTHING"
    connection.execute(version, (SCHEMA_VERSION,))
