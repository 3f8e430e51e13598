"""``MySQLSchema``: how the tables are defined and created on MySQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, TextClause, bindparam, inspect, text
from sqlalchemy.dialects.mysql import BIGINT, INTEGER
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ColumnCollectionConstraint, CreateTable, ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.sql.dialects.base import PYTHON_INSTEAD, DialectSchema
from the_edge_agent.memory.sql.dialects.base.probing import accepts
from the_edge_agent.memory.sql.dialects.mysql.features import MySQLFeatures
from the_edge_agent.memory.sql.dialects.mysql.metadata_hashes import METADATA_HASHES, TOO_MANY
from the_edge_agent.memory.sql.dialects.mysql.words import INDEX, NUMBER, words_table

_JSON_TRIAL: Final = """SELECT JSON_TYPE(JSON_EXTRACT('["a"]', '$[0]')), JSON_UNQUOTE(JSON_EXTRACT('["a"]', '$[0]'))"""
_COLUMNS: Final = text(
    "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = :name"
)
_ENGINES: Final = text(
    "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN :names"
).bindparams(bindparam("names", expanding=True))
_LIKE_INSTEAD: Final = "no table of words: words are searched with LIKE"


class MySQLSchema(DialectSchema):
    """Our tables on MySQL."""

    features: MySQLFeatures

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Check whether the server has JSON functions, and whether the entries have a table of words.

        Raises:
            LTMError: ``configuration_error`` if the URL names no database.
        """
        if connection.dialect.default_schema_name is None:
            raise LTMError("configuration_error", "the url names no database; write its name after the host: host/NAME")
        features = self.features
        features.has_json = accepts(connection, _JSON_TRIAL)
        columns = set(connection.scalars(_COLUMNS, {"name": entries.name}))
        is_new = not columns >= set(entries.c.keys())
        keeps_words = "search_text" in entries.c
        words = words_table(entries.name)  # if only the entries' table was copied, there is none
        features.has_text_index = keeps_words and (is_new or inspect(connection).has_table(words.name))
        features.fall_back(
            {PYTHON_INSTEAD: not features.has_json, _LIKE_INSTEAD: keeps_words and not features.has_text_index}
        )

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add the columns for metadata hashes and the number. Define all indexes inside CREATE TABLE."""
        _add_metadata_hashes(entries)
        if "search_text" in entries.c:
            _add_number(entries)
        for table in (entries, catalog):
            _define_indexes_inline(table)

    def check_tables(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Refuse another storage engine than InnoDB, because transactions would not work."""
        names = [table.name for table in (*tables, *self.search_tables(tables[0]))]
        rows = connection.execute(_ENGINES, {"names": names}).all()
        quote = connection.dialect.identifier_preparer.quote
        for name, engine in rows:
            if engine not in (None, "InnoDB"):  # None: a view
                raise LTMError(
                    "configuration_error",
                    f"the table {name} has the storage engine {engine}, whose transactions do not work as ours need; "
                    f"run: ALTER TABLE {quote(name)} ENGINE=InnoDB, ROW_FORMAT=DYNAMIC",
                )

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Return the statements.

        The table of words is first, because the entries' table must never exist without it.
        """
        statements = super().definitions(entries, *others)
        words = [CreateTable(table, if_not_exists=True) for table in self.search_tables(entries)]
        return [*words, *statements]

    def search_tables(self, entries: Table) -> list[Table]:
        """Return the table of words."""
        if not self.features.has_text_index:
            return []
        words = words_table(entries.name)
        words.kwargs.update(self.features.table_options)
        return [words]

    @contextmanager
    def exclusively(self, connection: Connection, name: str) -> Iterator[None]:
        """Hold a named lock of the server, because DDL ends the transaction on MySQL, and so would end a table lock."""
        lock = {"name": f"the-edge-agent {name}"[:64]}
        connection.execute(text("SELECT GET_LOCK(:name, 30)"), lock)
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)

    def max_entry_bytes(self, connection: Connection) -> int | None:
        """Return the size of the largest packet that the server accepts."""
        return int(connection.scalar(text("SELECT @@max_allowed_packet")) or 0) or None


def _add_metadata_hashes(entries: Table) -> None:
    """Add the columns for metadata hashes, and their indexes, to the entries' table."""
    for name in METADATA_HASHES:
        default = str(TOO_MANY) if name == METADATA_HASHES[0] else None  # for rows of other programs
        entries.append_column(Column(name, INTEGER(unsigned=True), server_default=default))
        entries.append_constraint(_InlineIndex(entries.c[name], name=f"ix_{entries.name}_{name}"))


def _add_number(entries: Table) -> None:
    """Add the column for the number, by which words are looked up, and its index."""
    entries.append_column(Column(NUMBER, BIGINT))
    entries.append_constraint(_InlineIndex(entries.c[NUMBER], name=INDEX))


def _define_indexes_inline(table: Table) -> None:
    """Move the indexes of a table into its CREATE TABLE."""
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        table.append_constraint(_InlineIndex(*index.columns, name=str(index.name), order=index.expressions))
    table.indexes.clear()


class _InlineIndex(ColumnCollectionConstraint):
    """An index within CREATE TABLE.

    To create so many indexes one by one would be slow. Also, CREATE INDEX has no IF NOT EXISTS. When two members of a
    Group Replication created the same index at the same time, each failed to replay the other's statement and left the
    group.
    """

    def __init__(self, *columns: Column[Any], name: str, order: Sequence[Any] = ()) -> None:
        """Index columns; ``order`` may have descending columns."""
        super().__init__(*columns, name=name)
        self.order = order or columns


@compiles(_InlineIndex)
def _define(index: _InlineIndex, compiler: DDLCompiler, **_: Any) -> str:
    order = [compiler.sql_compiler.process(each, include_table=False) for each in index.order]
    return f"INDEX {compiler.preparer.quote(str(index.name))} ({', '.join(order)})"
