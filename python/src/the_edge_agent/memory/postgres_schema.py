"""The tables of one PostgreSQL database: made once, by one process at a time."""

from __future__ import annotations

from typing import Any, Final

from the_edge_agent.memory.layouts import another_layout, check_layouts
from the_edge_agent.memory.results import LTMError

SCHEMA_VERSION: Final = 1

# The tables of SQLAlchemyBackend on PostgreSQL: each class opens the other's data.
_TABLES: Final = (
    'CREATE TABLE IF NOT EXISTS ltm_entries (key VARCHAR(512) COLLATE "C" NOT NULL, value VARCHAR NOT NULL, '
    "metadata VARCHAR, search_text VARCHAR NOT NULL, version BIGINT NOT NULL, write_id VARCHAR(36), "
    "storage_uri VARCHAR(200), expires_at TIMESTAMPTZ, created_at TIMESTAMPTZ NOT NULL, "
    "updated_at TIMESTAMPTZ NOT NULL, search_vector TSVECTOR GENERATED ALWAYS AS "
    "(to_tsvector('simple'::regconfig, search_text)) STORED, metadata_json JSONB NOT NULL, PRIMARY KEY (key))",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_expires_at ON ltm_entries (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_metadata_json ON ltm_entries USING gin (metadata_json jsonb_path_ops)",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_search_vector ON ltm_entries USING gin (search_vector)",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_updated_at ON ltm_entries (updated_at DESC, key)",
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
    "CREATE TABLE IF NOT EXISTS ltm_schema_version (id INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (id))",
)
_MORE_COLUMNS: Final = {"ltm_entries": ("search_vector", "metadata_json"), "ltm_catalog": ("metadata_json",)}
_COLUMNS_OF: Final = (
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
)
_STATE: Final = """
    SELECT current_setting('server_encoding'), array_agg(attname::text)
    FROM pg_attribute WHERE attrelid = to_regclass('ltm_schema_version') AND attnum > 0 AND NOT attisdropped"""
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('the-edge-agent schema'))"


def is_ready(connection: Any) -> bool:
    """Return whether the tables are there.

    Raises:
        LTMError: ``configuration_error`` for a database that a later release has written, or one in which text
            would be lost, or of a table that is another's.
    """
    encoding, columns = connection.execute(_STATE).fetchone()
    if encoding != "UTF8":
        raise LTMError("configuration_error", f"the encoding of the database must be UTF8, not {encoding}")
    if columns and not {"id", "version"}.issubset(columns):
        raise another_layout("ltm_schema_version")
    row = columns and connection.execute("SELECT version FROM ltm_schema_version").fetchone()
    if row and not isinstance(row[0], int):
        raise another_layout("ltm_schema_version")
    if row and row[0] > SCHEMA_VERSION:
        raise LTMError(
            "configuration_error",
            f"the database has schema version {row[0]}; this release knows {SCHEMA_VERSION}. Upgrade the-edge-agent",
        )
    return bool(row)


def create_tables(connection: Any) -> None:
    """Create what is missing, in a transaction of the caller's.

    Raises:
        LTMError: ``configuration_error`` for a table of another layout.
    """
    connection.execute(_ONE_AT_A_TIME)
    if is_ready(connection):  # another process was quicker
        return
    check_layouts(lambda name: [row[0] for row in connection.execute(_COLUMNS_OF, (name,))], _MORE_COLUMNS)
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO ltm_schema_version (id, version) VALUES (1, %s)", (SCHEMA_VERSION,))
