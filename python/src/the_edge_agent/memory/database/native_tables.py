"""The tables of the native memories and catalogs, which SQLite and PostgreSQL have but for their types and indexes.

They are the tables of ``SQLAlchemyBackend`` on that database: each class opens the other's data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Final

from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.database.layouts import (
    LANGUAGE_OF,
    SCHEMA_VERSION,
    check_kind,
    check_language_of,
    check_layouts,
    has_namespaced,
    missing_columns,
    setting_of_language,
    stale_setting,
)

ENTRIES: Final = "ltm_entries"
VERSION: Final = "ltm_schema_version"
NO_TABLES: Final = "the tables do not exist or are of an earlier version, and create_tables is false"

_OF_ENTRIES: Final = (
    "CREATE TABLE IF NOT EXISTS ltm_entries (key {key} NOT NULL, value {text} NOT NULL, metadata {text}, "
    "{words}version BIGINT NOT NULL, write_id VARCHAR(36), storage_uri VARCHAR(200), "
    "expires_at {time}, created_at {time} NOT NULL, updated_at {time} NOT NULL, lifetime BIGINT, is_indexed SMALLINT, "
    "{more})",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_expires_at ON ltm_entries (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_updated_at ON ltm_entries (updated_at DESC, key)",
)
_OTHERS: Final = (
    "CREATE TABLE IF NOT EXISTS ltm_catalog (id VARCHAR(64) NOT NULL, key {key} NOT NULL, "
    "content_hash VARCHAR(200) NOT NULL, storage_uri {text}, byte_size BIGINT, inlined_value {text}, metadata {text}, "
    "metadata_hash VARCHAR(200), expires_at {time}, created_at {time} NOT NULL, updated_at {time} NOT NULL, "
    "version BIGINT NOT NULL, {more}PRIMARY KEY (id))",
    "CREATE INDEX IF NOT EXISTS ix_ltm_catalog_key ON ltm_catalog (key)",
    "CREATE TABLE IF NOT EXISTS ltm_snapshots (id VARCHAR(36) NOT NULL, name {text} NOT NULL, "
    "entry_count BIGINT NOT NULL, total_bytes BIGINT NOT NULL, created_at {time} NOT NULL, PRIMARY KEY (id))",
    "CREATE TABLE IF NOT EXISTS ltm_snapshot_entries (snapshot_id VARCHAR(36) NOT NULL, "
    "entry_id VARCHAR(64) NOT NULL, key {key} NOT NULL, content_hash VARCHAR(200) NOT NULL, "
    "metadata_hash VARCHAR(200), byte_size BIGINT, expires_at {time}, PRIMARY KEY (snapshot_id, entry_id))",
    "CREATE TABLE IF NOT EXISTS ltm_settings (table_name VARCHAR(100) NOT NULL, name VARCHAR(100) NOT NULL, "
    "value {text} NOT NULL, PRIMARY KEY (table_name, name))",
    "CREATE TABLE IF NOT EXISTS ltm_schema_version (id INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (id))",
)
_WORDS: Final = "search_text {text} NOT NULL, "
# Their values are names and numbers of ours. ON CONFLICT: another class may have made the same row.
_SETTING: Final = "SELECT value FROM ltm_settings WHERE table_name = '{}' AND name = '{}'".format(*LANGUAGE_OF)
_SET: Final = "INSERT INTO ltm_settings (table_name, name, value) VALUES ('{}', '{}', '{}') ON CONFLICT DO NOTHING"
_SET_VERSION: Final = (
    f"INSERT INTO ltm_schema_version (id, version) VALUES (1, {SCHEMA_VERSION}) "
    "ON CONFLICT (id) DO UPDATE SET version = excluded.version"
)
_KEYS_OF_NAMESPACES: Final = "SELECT key FROM ltm_entries WHERE key >= '@' AND key < 'A'"  # and others with an @
_RESET: Final = "UPDATE ltm_settings SET value = '{{}}' WHERE table_name = '{}' AND name = '{}'".format(*LANGUAGE_OF)


class NativeTables:
    """Checks and creates the tables. A subclass has the SQL of one database.

    The argument ``connection`` is one of the driver. ``search`` is whether the entries' table keeps words. None:
    the table may be missing, and may be of either kind.

    Attributes:
        types: of the columns: ``key``, ``text`` and ``time``.
        of_catalog: the definitions of further columns of the catalog.
    """

    types: ClassVar[Mapping[str, str]]
    of_catalog: ClassVar[str] = ""

    def is_ready(self, connection: Any, search: bool | None) -> bool:
        """Return whether the tables exist.

        Raises:
            LTMError: ``configuration_error`` for a database that is not ours to use, or for entries of the other kind.
        """
        raise NotImplementedError

    def columns_of(self, connection: Any, name: str) -> Collection[str]:
        """Return the names of a table's columns; none if the table does not exist."""
        raise NotImplementedError

    def more_columns(self, search: bool | None) -> Mapping[str, Collection[str]]:
        """Return the names of further columns that tables must have, by table."""
        return {}

    def of_entries(self, *, search: bool) -> str:
        """Return the definitions of what follows the columns that the entries have on every database."""
        raise NotImplementedError

    def indexes(self, connection: Any, *, search: bool | None) -> Iterable[str]:
        """Return the statements that create what else there is, once the tables are there."""
        raise NotImplementedError

    def language_of(self, connection: Any, requested: str | None) -> Language:
        """Return the rules of the language of the entries, which keep words; see ``check_language_of``."""
        row = connection.execute(_SETTING).fetchone() if self.columns_of(connection, "ltm_settings") else None
        return check_language_of(ENTRIES, requested, None if row is None else str(row[0]))

    def check_layouts(self, connection: Any, search: bool | None) -> None:
        """Refuse tables of another application, and entries of the other kind; see ``layouts.check_layouts``."""
        check_layouts(partial(self.columns_of, connection), self.more_columns(search), search=search)

    def create(self, connection: Any, search: bool | None, language: str | None) -> None:
        """Create what is missing, in a transaction of the caller's.

        Args:
            connection: in the transaction.
            search: see the class.
            language: of the words of a new table; None for English.

        Raises:
            LTMError: ``configuration_error`` for a table of another layout, or for entries of the other kind.
        """
        if self.is_ready(connection, search):  # another process was quicker
            return
        self.check_layouts(connection, search)  # another class may be half way
        is_new = not self.columns_of(connection, ENTRIES)
        if search is not None:
            words = _WORDS.format(**self.types) if search else ""
            more = self.of_entries(search=search)
            for statement in _OF_ENTRIES:
                connection.execute(statement.format(**self.types, words=words, more=more))
            check_kind(ENTRIES, self.columns_of(connection, ENTRIES), search=search)  # others do not wait for our lock
        for statement in _OTHERS:
            connection.execute(statement.format(**self.types, more=self.of_catalog))
        for statement in self.indexes(connection, search=search):
            connection.execute(statement)
        if search and is_new:
            connection.execute(_SET.format(*LANGUAGE_OF, setting_of_language(language)))
        elif search:
            self.language_of(connection, language)
        if search is not None and not is_new:
            self._upgrade(connection, search=search)
        connection.execute(_SET_VERSION)

    def _upgrade(self, connection: Any, *, search: bool) -> None:
        """Bring the entries' table to the present version; see ``layouts.STEPS``."""
        missing = missing_columns(self.columns_of(connection, ENTRIES))
        for name, kind in missing.items():
            connection.execute(f"ALTER TABLE ltm_entries ADD COLUMN {name} {kind}")
        if missing and search and has_namespaced(row[0] for row in connection.execute(_KEYS_OF_NAMESPACES)):
            setting = connection.execute(_SETTING).fetchone()[0]
            connection.execute(_RESET.format(stale_setting(setting)))
