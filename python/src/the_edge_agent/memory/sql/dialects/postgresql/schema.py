"""``PostgreSQLSchema``: how the tables are defined and created on PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from sqlalchemy import Column, Computed, Connection, Index, Table, func, select, text
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.poolers import PREPARES
from the_edge_agent.memory.postgres.shared_sql import VECTOR
from the_edge_agent.memory.sql.dialects.base import LIKE_INSTEAD, PYTHON_INSTEAD, SECONDS, DialectSchema
from the_edge_agent.memory.sql.dialects.base.probing import accepts
from the_edge_agent.memory.sql.dialects.postgresql.connection import wrong_encoding
from the_edge_agent.memory.sql.dialects.postgresql.features import PostgreSQLFeatures

_VECTOR_TRIAL: Final = (
    f"CREATE TEMPORARY TABLE tea_trial (search_text TEXT, trial TSVECTOR GENERATED ALWAYS AS ({VECTOR}) STORED)",
    "CREATE INDEX tea_trial_index ON tea_trial USING gin (trial)",
    "SELECT 1 FROM tea_trial WHERE trial @@ to_tsquery('simple'::regconfig, 'a & b:*')",
)
_JSONB_TRIAL: Final = (
    "CREATE TEMPORARY TABLE tea_trial (trial JSONB)",
    """SELECT 1 FROM tea_trial WHERE trial @> '{"a": 1}' AND jsonb_typeof(trial -> 'a') = 'number'""",
)
_GIN_TRIAL: Final = ("CREATE INDEX tea_trial_index ON tea_trial USING gin (trial jsonb_path_ops)",)
_COLUMNS: Final = text(
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped"
)


class PostgreSQLSchema(DialectSchema):
    """Our tables on PostgreSQL."""

    features: PostgreSQLFeatures

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Check whether existing tables have the columns of this dialect, or whether the server can create them.

        Refuse encodings in which text would be lost, and prepared statements behind a pooler.

        Raises:
            LTMError: ``configuration_error``.
        """
        features = self.features
        settings = ("server_encoding", "client_encoding", "gin_fuzzy_search_limit")
        statement = select(*map(func.current_setting, settings), func.pg_backend_pid())
        row: Any = connection.execute(statement).one()
        server, client, limit, process = row
        if (server, client) != ("UTF8", "UTF8"):
            raise LTMError("configuration_error", wrong_encoding(server, client))
        driver_connection: Any = connection.connection.driver_connection
        is_direct = process == driver_connection.info.backend_pid
        features.keeps_settings = is_direct and limit == "0"
        is_own_engine = SECONDS in connection.get_execution_options()
        if not is_direct and not is_own_engine and getattr(driver_connection, "prepare_threshold", None) is not None:
            raise LTMError("configuration_error", PREPARES)
        has_entries, has_catalog = _columns(connection, entries), _columns(connection, catalog)
        has_words = "search_text" in entries.c
        if "search_text" in has_entries:
            features.has_text_index = has_words and "search_vector" in has_entries
        else:
            features.has_text_index = has_words and accepts(connection, *_VECTOR_TRIAL)
        without_json = set()
        for table, has in ((entries, has_entries), (catalog, has_catalog)):
            is_there = "metadata" in has and "version" in has
            if not ("metadata_json" in has if is_there else accepts(connection, *_JSONB_TRIAL)):
                without_json.add(table.name)
            if not is_there:
                features.has_gin = accepts(connection, *_JSONB_TRIAL, *_GIN_TRIAL)
        features.without_json, features.has_json = without_json, not without_json
        missing = {LIKE_INSTEAD: has_words and not features.has_text_index, PYTHON_INSTEAD: bool(without_json)}
        features.fall_back(missing)

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add the text index, and the copy of the metadata that filters use."""
        if self.features.has_text_index:
            entries.append_column(Column("search_vector", TSVECTOR, Computed(VECTOR, persisted=True)))
            Index(f"ix_{entries.name}_search_vector", entries.c.search_vector, postgresql_using="gin")
        for table in (entries, catalog):
            if table.name in self.features.without_json:
                continue
            table.append_column(Column("metadata_json", JSONB, nullable=False))
            if not self.features.has_gin:
                continue
            Index(
                f"ix_{table.name}_metadata_json",
                table.c.metadata_json,
                postgresql_using="gin",
                postgresql_ops={"metadata_json": "jsonb_path_ops"},
            )

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Lock the table until the transaction ends."""
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(f"LOCK TABLE {quoted} IN ACCESS EXCLUSIVE MODE")
        return nullcontext()


def _columns(connection: Connection, table: Table) -> set[str]:
    name = connection.dialect.identifier_preparer.format_table(table)
    return set(connection.scalars(_COLUMNS, {"name": name}))
