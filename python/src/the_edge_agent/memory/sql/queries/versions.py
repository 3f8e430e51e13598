"""``VersionedStore``: compare-and-swap, a store that replaces only one version of an entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, case, select

from the_edge_agent.memory.core.damage import read_version
from the_edge_agent.memory.core.results import conflict
from the_edge_agent.memory.sql.dialects import Dialect, Upsert
from the_edge_agent.memory.sql.driver.errors import LostRaceError


class VersionedStore:
    """Stores with ``if_version``, in plain SQL for every database."""

    def __init__(self, dialect: Dialect, upsert: Upsert) -> None:
        """Build the statements."""
        columns, visible = upsert.table.c, dialect.times.visible(upsert.table)
        self._upsert = upsert
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
        key: str = row["b_key"]
        existing = connection.execute(self._current, {"b_key": key, "b_now": row["b_now"]}).one_or_none()
        current = read_version(key, existing[0]) if existing and existing[1] else 0
        if version or current:
            raise conflict(key, current)
        if existing is None:
            self._upsert.create(connection, row)
        elif not connection.execute(self._revive, row).rowcount:
            raise LostRaceError
        return 1
