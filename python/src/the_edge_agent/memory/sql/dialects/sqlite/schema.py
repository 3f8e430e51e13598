"""``SQLiteSchema``: how the tables are defined and created on SQLite."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    TextClause,
    UniqueConstraint,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.sql.dialects.base import LIKE_INSTEAD, PYTHON_INSTEAD, DialectSchema
from the_edge_agent.memory.sql.dialects.base.probing import accepts
from the_edge_agent.memory.sql.dialects.sqlite.connection import FILE, file_of, path_of
from the_edge_agent.memory.sql.dialects.sqlite.features import SQLiteFeatures
from the_edge_agent.memory.sql.driver.errors import classify
from the_edge_agent.memory.sqlite.index import definitions
from the_edge_agent.memory.sqlite.settings import why_unusable

_FTS_TRIAL: Final = ("CREATE VIRTUAL TABLE temp.tea_trial USING fts5(text, tokenize='ascii', detail='none')",)
_JSON_TRIAL: Final = (
    "SELECT each.key, each.type, each.atom, each.value, json_valid(tree.value) "
    "FROM json_each('[1]') AS each, json_tree('[1]') AS tree"
)


class SQLiteSchema(DialectSchema):
    """Our tables on SQLite."""

    features: SQLiteFeatures

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Refuse settings that change results. Then find out what the tables and this SQLite have.

        Raises:
            LTMError: ``configuration_error`` for such settings, or for an index that this SQLite cannot update.
        """
        driver_connection = connection.connection.driver_connection
        callers = None if FILE in connection.get_execution_options() else file_of(connection)  # before the first read
        problem = why_unusable(driver_connection, is_file=path_of(connection.engine.url) is not None)
        if problem is not None:
            raise LTMError("configuration_error", problem)
        if callers is not None:
            callers.opened(driver_connection)
        self.features.file = connection.get_execution_options().get(FILE, callers)
        self._probe_features(connection, entries)

    def _probe_features(self, connection: Connection, entries: Table) -> None:
        """Check for json_each, and for the full-text index of an existing table or for FTS5 to create one."""
        features = self.features
        has_fts5, features.has_json = accepts(connection, *_FTS_TRIAL), accepts(connection, _JSON_TRIAL)
        index = _columns(connection, f"{entries.name}_fts")
        has_words = "metadata" in index
        for lacks, needs in (
            (index and not has_fts5, "FTS5"),
            (has_words and not features.has_json, "JSON functions"),
        ):
            if lacks:
                message = f"the database has a full-text index that needs {needs}, which this SQLite lacks"
                raise LTMError("configuration_error", f"{message}; stores could not update the index")
        keeps_text = "search_text" in entries.c
        will_have_index = (
            keeps_text and not index and has_fts5 and "search_text" not in _columns(connection, entries.name)
        )
        features.has_text_index = keeps_text and (bool(index) or will_have_index)
        features.has_metadata_words = has_words or (will_have_index and features.has_json)
        missing = {
            LIKE_INSTEAD: keeps_text and not features.has_text_index,
            PYTHON_INSTEAD: not features.has_json,
        }
        features.fall_back(missing)

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add a row number that never changes, because the full-text index refers to rows by number."""
        entries.c.key.primary_key = False
        entries.append_column(Column("id", Integer, primary_key=True))
        entries.append_constraint(PrimaryKeyConstraint("id"))
        entries.append_constraint(UniqueConstraint("key"))

    def set_up(self, connection: Connection) -> None:
        """Switch the file to WAL mode, unless it is read-only. The file stays in that mode."""
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        except DBAPIError as error:
            if not classify(error).denied:
                raise

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Return the statements, with the full-text index and the triggers that update it."""
        statements = super().definitions(entries, *others)
        if self.features.has_text_index:
            statements += map(text, definitions(entries.name, has_json=self.features.has_metadata_words))
        return statements

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create the missing tables.

        First check again, because another process may have created the table meanwhile.
        """
        # Not by ``probe``: its check of the settings would end the transaction that creates the tables.
        self._probe_features(connection, tables[0])
        super().create(connection, *tables)

    def search_tables(self, entries: Table) -> list[Table]:
        """Return the full-text index.

        SQLite drops its internal tables with it, and the triggers with the entries' table.
        """
        return [Table(f"{entries.name}_fts", MetaData())] if self.features.has_text_index else []


def _columns(connection: Connection, name: str) -> set[str]:
    inspector = inspect(connection)
    return {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else set()
