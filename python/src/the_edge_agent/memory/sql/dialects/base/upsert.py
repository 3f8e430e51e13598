"""Upserts: a store creates a row, or replaces the row with the same key and increases its version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    case,
    cast,
    exc,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.dml import Insert

from the_edge_agent.memory.sql.driver.errors import LostRaceError, breaks_constraint
from the_edge_agent.memory.sql.driver.prepared import Outcome, Prepared

Incoming: TypeAlias = Mapping[str, Any] | ReadOnlyColumnCollection[str, Any]
Changes: TypeAlias = list[tuple[str, Any]]

_COMPUTED = ("version", "expires_at", "created_at", "updated_at")
_WRITE_ID = "write_id"
_HIGHEST = 2**63 - 1


class Upsert:
    """The portable upsert: an update and, if it changed no row, an insert.

    A row may stand for several stores of one key; the parameter ``b_count`` says how many. The version increases by
    that number. A new row has that number as its version, which shows that the row was created and not updated. An
    expired row counts as absent. A row that already has this ``write_id`` was written by the same store, whose reply
    was lost: its version does not change.
    """

    #: The statement that stores one row; None if the database needs two.
    single: Prepared | None = None

    def __init__(self, table: Table, row: Mapping[str, Any]) -> None:
        """Build the statements.

        Args:
            table: a table with the columns version, expires_at, created_at and updated_at.
            row: its bound columns; the first is the primary key.
        """
        self.table, self.row = table, row
        self.name, identity = next(iter(row.items()))
        self.identity = table.c[self.name]
        self.parameter: str = identity.key
        has_key = self.identity == bindparam(self.parameter)
        changes = [(table.c[name], value) for name, value in self.changes(row)]
        self.update_statement = update(table).where(has_key).ordered_values(*changes)
        self.insert_statement = insert(table).values(row)
        self._version = select(table.c.version).where(has_key)

    def changes(self, incoming: Incoming) -> Changes:
        """Return the assignments for a row that exists. If it has expired, it gets the values of a new row.

        MySQL assigns from left to right and then reads the new values. So expressions that read ``expires_at`` come
        first.
        """
        columns = self.table.c
        is_over = columns.expires_at <= incoming["updated_at"]
        # IS NOT NULL, because psycopg2 writes "= NULL" and PostgreSQL's transform_null_equals makes that true for NULL.
        is_same = []
        if _WRITE_ID in self.row:
            mine = and_(columns[_WRITE_ID].is_not(None), columns[_WRITE_ID] == incoming[_WRITE_ID])
            is_same.append((mine, columns.version))
        version, timestamp = incoming["version"], incoming["updated_at"]
        written = [name for name in self.row if name != self.name and name not in _COMPUTED]
        return [
            ("version", case((is_over, version), *is_same, else_=self.next_version(version))),
            ("created_at", case((is_over, timestamp), else_=columns.created_at)),
            *((name, incoming[name]) for name in written),
            ("expires_at", incoming["expires_at"]),
            ("updated_at", timestamp),
        ]

    def next_version(self, count: Any) -> ColumnElement[Any]:
        """Return the version after ``count`` more stores.

        It is NULL, which the table refuses, if the stored version is not a positive integer or would be too high.

        SQLite can store a fraction in the column, and would count on from it.
        """
        version = self.table.c.version
        is_one = and_(
            version >= literal_column("1"),
            version <= literal_column(str(_HIGHEST)) - count,
            cast(version, BigInteger) == version,
        )
        return case((is_one, version + count))

    def one(self, connection: Connection, row: Mapping[str, Any]) -> int:
        """Store a row and return its version."""
        if self.single is not None:
            return self.version_of(self.single.run(connection, row), row)
        if connection.execute(self.update_statement, row).rowcount:
            version: int = connection.execute(self._version, {self.parameter: row[self.parameter]}).scalar_one()
            return version
        self.create(connection, row)
        count: int = row["b_count"]
        return count

    def version_of(self, outcome: Outcome, row: Mapping[str, Any]) -> int:
        """Return the version that the statement ``single`` gave to a row."""
        raise NotImplementedError

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store rows of different keys, sorted by key, and return the version of each key."""
        return {row[self.parameter]: self.one(connection, row) for row in rows}

    def create(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Insert a new row.

        Raises:
            LostRaceError: another transaction has created the row meanwhile.
        """
        insert_new(connection, self.insert_statement, row)


def insert_new(
    connection: Connection, statement: Insert, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> None:
    """Insert one or more rows whose keys have no row yet.

    Raises:
        LostRaceError: another transaction has created one of the rows meanwhile.
    """
    try:
        connection.execute(statement, rows)
    except exc.DBAPIError as error:
        if breaks_constraint(error):
            raise LostRaceError from None
        raise


class UpsertReturning(Upsert):
    """The upsert as one statement, for databases with INSERT ... RETURNING."""

    def __init__(self, table: Table, row: Mapping[str, Any]) -> None:
        """Build the statements."""
        super().__init__(table, row)
        statement = self.statement()
        self.single = Prepared(statement.returning(table.c.version))
        self._many = statement.returning(self.identity, table.c.version)

    def statement(self) -> Insert:
        """Return the insert statement, which becomes an update if the key exists."""
        raise NotImplementedError

    def version_of(self, outcome: Outcome, row: Mapping[str, Any]) -> int:
        """Return the version that the statement returned."""
        version: int = outcome.rows[0][0]
        return version

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store rows of different keys, sorted by key, and return the version of each key."""
        if not connection.dialect.use_insertmanyvalues:  # a caller's engine may switch it off
            return super().many(connection, rows)
        return {row[0]: row[1] for row in connection.execute(self._many, rows)}


class OnConflict(UpsertReturning):
    """INSERT ... ON CONFLICT DO UPDATE. SQLAlchemy has an ``insert`` function with it for each of several dialects."""

    def __init__(self, table: Table, row: Mapping[str, Any], insert: Callable[[Table], Any]) -> None:
        """Build the statements."""
        self._insert = insert
        super().__init__(table, row)

    def statement(self) -> Insert:
        """Return the insert statement, which becomes an update if the key exists."""
        statement = self._insert(self.table).values(self.row)
        changes = dict(self.changes(statement.excluded))
        upsert: Insert = statement.on_conflict_do_update(index_elements=[self.identity], set_=changes)
        return upsert
