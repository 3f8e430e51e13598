"""The store of one entry as one statement that commits by itself, recognised later if nobody told how it ended."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, cast

from sqlalchemy import Connection, Engine, Table, bindparam, select, type_coerce

from the_edge_agent.memory.operations import Store
from the_edge_agent.memory.results import LostDatabaseError, LTMError
from the_edge_agent.memory.sql.deadlines import Deadline
from the_edge_agent.memory.sql.dialects import Dialect, Upsert
from the_edge_agent.memory.sql.prepared import Prepared, Query
from the_edge_agent.memory.sql.rows import entry_parameters
from the_edge_agent.memory.sql.transactions import run_alone, run_transaction

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

    @property
    def is_possible(self) -> bool:
        """Whether one statement is enough here, and commits by itself."""
        return self._upsert.single is not None and self._dialect.commits_alone

    def store(self, engine: Engine, store: Store, deadline: Deadline) -> int:
        """Store an entry and return its version.

        Args:
            engine: of our own.
            store: the entry.
            deadline: of the call, which began before.

        Raises:
            LTMError: nothing has changed then, unless its result says ``unknown: True``.
        """
        row = entry_parameters(self._dialect, store, self._dialect.clock())
        if self._dialect.socket_drivers:  # a file has no connection to lose
            row["b_write_id"] = str(uuid.uuid4())
        query = Query(cast(Prepared, self._upsert.single), row)
        try:
            return self._upsert.version_of(run_alone(engine, self._dialect, query, deadline, write=True), row)
        except LostDatabaseError:
            raise
        except LTMError as failure:
            if "unknown" not in failure.result or deadline.expired:
                raise
            unknown = failure
        try:
            return run_transaction(
                engine, self._dialect, lambda connection: self._again(connection, row, deadline), deadline, write=True
            )
        except LTMError:
            raise unknown from None

    def _again(self, connection: Connection, row: Mapping[str, Any], deadline: Deadline) -> int:
        """Return the version that a statement has given to the entry, or run it: its end was not told.

        Raises:
            LTMError: another store has written the entry since; what became of this one cannot be known.
        """
        result = connection.execute(self._found, {"b_key": row["b_key"], "b_now": self._dialect.clock()})
        elapsed, found = deadline.elapsed(), result.one_or_none()
        if found is not None and found.write_id == row["b_write_id"]:
            return int(found.version)
        if found is not None and found.now - found.updated_at <= elapsed:  # longer than the truth by the way back
            raise LTMError("connection_error", _REPLACED)
        return self._upsert.one(connection, row)
