"""Upserts: a row is created, or takes the place of the one with its key and counts its version up."""

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

_NOT_WRITTEN = ("version", "expires_at", "created_at", "updated_at")
_WRITE_ID = "write_id"
_HIGHEST = 2**63 - 1


class Upsert:
    """The portable way: an update and then an insert.

    A row's version is how many stores it stands for; the version of a new row is that number again, which is how
    a create is told from an update. A row that has expired is created anew. A row with the same ``write_id`` is what
    this very store has written, in a statement whose end nobody was told of: its version stays.
    """

    #: The statement that stores one row, where one is enough.
    single: Prepared | None = None

    def __init__(self, table: Table, row: Mapping[str, Any]) -> None:
        """Build the statements.

        Args:
            table: with the columns version, expires_at, created_at and updated_at.
            row: its bound columns, the primary key first.
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
        """Return the assignments of a store over an existing row: over an expired one all that a create would.

        MySQL assigns from left to right and sees what it has assigned: so what looks at ``expires_at`` is first.
        """
        columns = self.table.c
        is_over = columns.expires_at <= incoming["updated_at"]
        # Not null: psycopg2 writes "= NULL", which PostgreSQL's transform_null_equals makes true of no write_id at all.
        is_same = []
        if _WRITE_ID in self.row:
            mine = and_(columns[_WRITE_ID].is_not(None), columns[_WRITE_ID] == incoming[_WRITE_ID])
            is_same.append((mine, columns.version))
        version, timestamp = incoming["version"], incoming["updated_at"]
        written = [name for name in self.row if name != self.name and name not in _NOT_WRITTEN]
        return [
            ("version", case((is_over, version), *is_same, else_=self.next_version(version))),
            ("created_at", case((is_over, timestamp), else_=columns.created_at)),
            *((name, incoming[name]) for name in written),
            ("expires_at", incoming["expires_at"]),
            ("updated_at", timestamp),
        ]

    def next_version(self, count: Any) -> ColumnElement[Any]:
        """Return the version after so many stores: none after what is no version, or the highest, which tables refuse.

        SQLite would go on with a fraction, and have one in the first place.
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
        """Return the version that ``single`` has given to a row."""
        raise NotImplementedError

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store rows of different keys, which are in order, and return the version of each key."""
        return {row[self.parameter]: self.one(connection, row) for row in rows}

    def create(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Insert a row that was not there.

        Raises:
            LostRaceError: it is there by now.
        """
        try:
            connection.execute(self.insert_statement, row)
        except exc.DBAPIError as error:
            if breaks_constraint(error):
                raise LostRaceError from None
            raise


class UpsertReturning(Upsert):
    """One statement, where the database has INSERT ... RETURNING."""

    def __init__(self, table: Table, row: Mapping[str, Any]) -> None:
        """Build the statements."""
        super().__init__(table, row)
        statement = self.statement()
        self.single = Prepared(statement.returning(table.c.version))
        self._many = statement.returning(self.identity, table.c.version)

    def statement(self) -> Insert:
        """Return the insert that becomes an update when the key is there."""
        raise NotImplementedError

    def version_of(self, outcome: Outcome, row: Mapping[str, Any]) -> int:
        """Return the version that the database has returned."""
        version: int = outcome.rows[0][0]
        return version

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store rows of different keys, which are in order, and return the version of each key."""
        if not connection.dialect.use_insertmanyvalues:  # a caller's engine without it
            return super().many(connection, rows)
        return {row[0]: row[1] for row in connection.execute(self._many, rows)}


class OnConflict(UpsertReturning):
    """INSERT ... ON CONFLICT DO UPDATE, which SQLAlchemy has for several dialects, with an ``insert`` of each."""

    def __init__(self, table: Table, row: Mapping[str, Any], insert: Callable[[Table], Any]) -> None:
        """Build the statements."""
        self._insert = insert
        super().__init__(table, row)

    def statement(self) -> Insert:
        """Return the insert that becomes an update when the key is there."""
        statement = self._insert(self.table).values(self.row)
        changes = dict(self.changes(statement.excluded))
        upsert: Insert = statement.on_conflict_do_update(index_elements=[self.identity], set_=changes)
        return upsert
