"""The store of one entry as one statement that commits by itself, recognised later if nobody told how it ended."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, select, type_coerce

from the_edge_agent.memory.operations import Store
from the_edge_agent.memory.results import LTMError
from the_edge_agent.memory.sql.dialects import Dialect, Upsert
from the_edge_agent.memory.sql.prepared import Outcome, Query
from the_edge_agent.memory.sql.rows import entry_parameters

_REPLACED: Final = "the connection was lost during the store, and another one has written the entry since"


class SingleStore:
    """Stores one entry, whatever is there.

    The row keeps the ``write_id`` of the statement. When the connection was lost, a look at the row tells whether the
    statement was run: a row that was not written since the call began is as it was before.
    """

    def __init__(self, dialect: Dialect, entries: Table, upsert: Upsert) -> None:
        """Build the statement that looks at the row, and waits for who is writing it."""
        self._dialect, self._upsert = dialect, upsert
        columns = entries.c
        now = type_coerce(dialect.now, columns.updated_at.type).label("now")
        found = select(columns.version, columns.write_id, columns.updated_at, now)
        self._found = found.where(columns.key == bindparam("b_key")).with_for_update()

    def query(self, store: Store) -> Query | None:
        """Return the statement that stores; None where it takes several, or does not commit by itself."""
        if self._upsert.single is None or not self._dialect.commits_alone:
            return None
        row = entry_parameters(self._dialect, store, self._dialect.clock())
        return Query(self._upsert.single, {**row, "b_write_id": str(uuid.uuid4())})

    def version(self, outcome: Outcome, row: Mapping[str, Any]) -> int:
        """Return the version of the entry after the statement, run with these parameters."""
        return self._upsert.version_of(outcome, row)

    def again(self, connection: Connection, row: Mapping[str, Any], elapsed: Callable[[], timedelta]) -> int:
        """Return the version that a statement has given to the entry, or run it: its end was not told.

        Args:
            connection: in a transaction.
            row: the parameters of the statement.
            elapsed: returns the time since before it was sent.

        Raises:
            LTMError: another store has written the entry since; what became of this one cannot be known.
        """
        found = connection.execute(self._found, {"b_key": row["b_key"], "b_now": self._dialect.clock()}).one_or_none()
        if found is not None and found.write_id == row["b_write_id"]:
            return int(found.version)
        if found is not None and found.now - found.updated_at <= elapsed():
            raise LTMError("connection_error", _REPLACED)
        return self._upsert.one(connection, row)
