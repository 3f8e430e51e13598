"""``MySQLQueries``: SQL parts from which the statements for MySQL are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    Table,
    bindparam,
    case,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.dialects.mysql import Insert, insert
from sqlalchemy.engine import Compiled
from sqlalchemy.sql.visitors import replacement_traverse

from the_edge_agent.memory.core.codec import decode
from the_edge_agent.memory.sql.dialects.base import Queries, Upkeep
from the_edge_agent.memory.sql.dialects.base.filters import FilterConditions
from the_edge_agent.memory.sql.dialects.base.search import TextConditions
from the_edge_agent.memory.sql.dialects.base.upsert import Upsert
from the_edge_agent.memory.sql.dialects.mysql.blocks import WordBlocks
from the_edge_agent.memory.sql.dialects.mysql.features import MySQLFeatures
from the_edge_agent.memory.sql.dialects.mysql.filters import JSONConditions
from the_edge_agent.memory.sql.dialects.mysql.metadata_hashes import (
    METADATA_HASHES,
    metadata_hash_columns,
    metadata_hash_parameters,
)
from the_edge_agent.memory.sql.dialects.mysql.search import MySQLTextConditions
from the_edge_agent.memory.sql.dialects.mysql.words import NUMBER, WordTable
from the_edge_agent.memory.sql.driver.prepared import Outcome, Prepared

# The numbers of rows that one insert may have. They are few, so that few statements are compiled.
_ROWS: Final = (250, 100, 50, 20, 10, 5, 2, 1)


class MySQLQueries(Queries):
    """SQL parts of statements for MySQL."""

    features: MySQLFeatures

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return an upsert that stores rows in one statement."""
        return OnDuplicateKey(table, row)

    def metadata_columns(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the columns that store metadata, with the metadata hashes. The entry loses its number."""
        hashes = metadata_hash_columns() if METADATA_HASHES[0] in table.c else {}
        return {**super().metadata_columns(table), **hashes, **self.unindexed(table)}

    def metadata_parameters(self, metadata: str | None) -> dict[str, Any]:
        """Return the values for these columns, from metadata as JSON text."""
        hashes = metadata_hash_parameters(decode(metadata) if metadata else {})
        return {**super().metadata_parameters(metadata), **hashes}

    def unindexed(self, table: Table) -> dict[str, ColumnElement[Any]]:
        """Return the column for the number, as NULL: the table of words has the earlier words under that number."""
        return {NUMBER: null()} if NUMBER in table.c else {}

    def byte_size(self, column: ColumnElement[Any]) -> ColumnElement[int] | None:
        """Return how many bytes a text has; the columns are in utf8mb4."""
        return func.octet_length(column, type_=Integer())

    def is_waiting(self, entries: Table) -> ColumnElement[bool] | None:
        """Return the condition that an entry has no number, so that searches read it."""
        return entries.c[NUMBER].is_(None) if NUMBER in entries.c else None

    def filters(self, table: Table) -> FilterConditions:
        """Return filter conditions by JSON functions."""
        if not self.features.has_json:
            return super().filters(table)
        return JSONConditions(table, self.features.exact_collation)

    def texts(self, entries: Table) -> TextConditions:
        """Return the conditions for words: LIKE, on the entries that metadata hashes or the table of words find."""
        words = WordTable(entries) if self.features.has_text_index else None
        return MySQLTextConditions(entries, words)

    def upkeep(self, entries: Table) -> Upkeep | None:
        """Return the object that creates blocks of words."""
        return WordBlocks(WordTable(entries)) if self.features.has_text_index else None


class OnDuplicateKey(Upsert):
    """INSERT ... ON DUPLICATE KEY UPDATE, which returns nothing."""

    def __init__(self, table: Table, row: Mapping[str, Any]) -> None:
        """Build the statements."""
        super().__init__(table, row)
        statement = insert(table).values(row)
        (_, version), *others = self.changes(statement.inserted)
        counted = [("version", func.last_insert_id(version)), *others]
        self.single = Prepared(statement.on_duplicate_key_update(counted))
        self._compiled: dict[int, Compiled] = {}
        self._versions = select(self.identity, table.c.version).where(
            self.identity.in_(bindparam("b_keys", expanding=True))
        )

    def next_version(self, count: Any) -> ColumnElement[Any]:
        """Return the version plus ``count``, or NULL if the version is below 1.

        The server refuses NULL, and too large a sum.
        """
        version = self.table.c.version
        return case((version >= literal_column("1"), version + count))

    def version_of(self, outcome: Outcome, row: Mapping[str, Any]) -> int:
        """Return the version, which the update put into LAST_INSERT_ID.

        After an insert that is 0, and the version is the count.
        """
        return outcome.lastrowid or int(row["b_count"])

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store rows in few statements, then read their versions.

        The rows are locked, so no version changes meanwhile.
        """
        start = 0
        for size in _ROWS:
            while len(rows) - start >= size:
                self._store_together(connection, rows[start : start + size])
                start += size
        versions = connection.execute(self._versions, {"b_keys": [row[self.parameter] for row in rows]})
        return {row[0]: row[1] for row in versions}

    def _store_together(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        statement = self._compiled.get(len(rows))
        if statement is None:  # compiled once: SQLAlchemy would compile an insert of many rows each time
            statement = self._compiled[len(rows)] = self._statement(len(rows)).compile(dialect=connection.dialect)
        values = {f"{name}_{number}": value for number, row in enumerate(rows) for name, value in row.items()}
        values["b_now"] = rows[0]["b_now"]
        names = statement.positiontup  # type: ignore[attr-defined]
        parameters = values if names is None else tuple(values[name] for name in names)
        connection.exec_driver_sql(statement.string, parameters)

    def _statement(self, size: int) -> Insert:
        """Return the insert of ``size`` rows. The parameters of each row end with the number of the row."""
        rows = [{name: _numbered(value, number) for name, value in self.row.items()} for number in range(size)]
        statement = insert(self.table).values(rows)
        return statement.on_duplicate_key_update(self.changes(statement.inserted))


def _numbered(value: ColumnElement[Any], number: int) -> ColumnElement[Any]:
    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, BindParameter) and element.key != "b_now":
            return bindparam(f"{element.key}_{number}", type_=element.type)
        return None

    numbered: ColumnElement[Any] = replacement_traverse(value, {}, replace)
    return numbered
