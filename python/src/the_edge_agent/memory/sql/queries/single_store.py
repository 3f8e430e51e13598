"""The store of one entry as one statement that commits by itself."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Engine

from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.database.writes import Write
from the_edge_agent.memory.sql.dialects import Dialect, Upsert
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.driver.prepared import BoundQuery, Prepared
from the_edge_agent.memory.sql.schema.rows import entry_parameters
from the_edge_agent.memory.sql.transactions import run_autocommit


class SingleStore:
    """Stores one entry without a condition."""

    def __init__(self, dialect: Dialect, upsert: Upsert) -> None:
        """Use the single statement of an upsert."""
        self._dialect, self._upsert = dialect, upsert

    @property
    def is_possible(self) -> bool:
        """Whether this database can store an entry by one statement that commits by itself."""
        return self._upsert.single is not None and self._dialect.features.commits_single_statements

    def store(self, engine: Engine, store: Store, deadline: Deadline, write: Write | None) -> int:
        """Store an entry and return its version.

        Args:
            engine: an engine that we made.
            store: the entry to store.
            deadline: the deadline of the call, which has already started.
            write: the write that marks the row, so that it is recognised if the reply is lost. None if no connection
                can be lost.

        Raises:
            LTMError: nothing has changed, unless its result has ``unknown: True``.
        """
        write_id = None if write is None else write.id
        row = entry_parameters(self._dialect, store, self._dialect.times.clock(), write_id=write_id)
        query = BoundQuery(cast(Prepared, self._upsert.single), row)
        return self._upsert.version_of(run_autocommit(engine, self._dialect, query, deadline, write=True), row)
