"""``VersionedWrites``: compare-and-swap, stores and deletes that change only one version of an entry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, delete, select

from the_edge_agent.memory.core.damage import read_version
from the_edge_agent.memory.core.results import conflict
from the_edge_agent.memory.sql.dialects import Dialect, Upsert
from the_edge_agent.memory.sql.driver.errors import LostRaceError


class VersionedWrites:
    """Stores and deletes with ``if_version``, in plain SQL for every database."""

    def __init__(self, dialect: Dialect, upsert: Upsert) -> None:
        """Build the statements."""
        columns, visible = upsert.table.c, dialect.times.visible(upsert.table)
        self._upsert = upsert
        is_current = and_(upsert.identity == bindparam("b_key"), columns.version == bindparam("b_version"), visible)
        self._delete = delete(upsert.table).where(is_current)
        self._replace = upsert.update_statement.where(columns.version == bindparam("b_version"), visible)
        self._revive = upsert.update_statement.where(dialect.times.expired(upsert.table))
        self._current = select(columns.version, case((visible, 1), else_=0)).where(columns.key == bindparam("b_key"))

    def store(self, connection: Connection, row: Mapping[str, Any], version: int) -> int:
        """Store if the entry has this version (0: if there is no entry), and return the new version.

        Raises:
            LTMError: ``conflict``.
            LostRaceError: another store was faster.
        """
        if version and connection.execute(self._replace, {**row, "b_version": version}).rowcount:
            return version + 1
        exists = self._require(connection, row["b_key"], version, row["b_now"])
        if not exists:
            self._upsert.create(connection, row)
        elif not connection.execute(self._revive, row).rowcount:
            raise LostRaceError
        return 1

    def delete(self, connection: Connection, key: str, version: int, now: datetime | None) -> bool:
        """Delete an entry if it has this version (0: if there is no entry). Return whether there was an entry.

        Raises:
            LTMError: ``conflict``.
        """
        if version and connection.execute(self._delete, {"b_key": key, "b_version": version, "b_now": now}).rowcount:
            return True
        self._require(connection, key, version, now)
        return False

    def _require(self, connection: Connection, key: str, version: int, now: datetime | None) -> bool:
        """Check, after a statement found no entry with ``version``, that there should be none.

        Returns:
            Whether there is an expired row.

        Raises:
            LTMError: ``conflict``.
        """
        existing = connection.execute(self._current, {"b_key": key, "b_now": now}).one_or_none()
        current = read_version(key, existing[0]) if existing and existing[1] else 0
        if version or current:
            raise conflict(key, current)
        return existing is not None
