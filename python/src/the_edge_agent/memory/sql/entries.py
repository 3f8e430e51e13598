"""What a backend does with the entries' table on one connection; statements are built once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Integer, Text, bindparam, select, type_coerce

from the_edge_agent.memory.base import Operation, Store
from the_edge_agent.memory.results import Result, ok
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.search import Search, Searcher, key_range


class Entries:
    """Reads and writes of the entries' table of one engine."""

    def __init__(self, dialect: Dialect) -> None:
        """Build the statements."""
        self._dialect = dialect
        self._searcher = Searcher(dialect)
        columns = dialect.entries.c
        self._key = columns.key
        value, metadata = type_coerce(columns.value, Text()), type_coerce(columns.metadata, Text())
        self._retrieve = select(value, metadata, columns.version).where(columns.key == bindparam("b_key"))
        self._page = (
            select(columns.key, value, metadata)
            .where(columns.key > bindparam("b_after"))
            .order_by(columns.key)
            .limit(bindparam("b_rows", type_=Integer()))
        )

    def apply(self, connection: Connection, operations: Sequence[Operation]) -> list[Result]:
        """Run stores and deletes; return the result of each, in their order.

        Rows are locked in the order of their keys, so that concurrent transactions do not deadlock; per key
        the order of the operations stays.
        """
        now = self._dialect.clock(connection, statements=len(operations))
        results: dict[int, Result] = {}
        for place in sorted(range(len(operations)), key=lambda place: operations[place].key):
            operation = operations[place]
            if isinstance(operation, Store):
                version = self._dialect.upsert(connection, self._dialect.row(operation, now))
                results[place] = ok(stored=True, key=operation.key, created=version == 1, version=version)
            else:
                results[place] = ok(deleted=self._dialect.delete(connection, operation.key), key=operation.key)
        return [results[place] for place in range(len(operations))]

    def retrieve(self, connection: Connection, key: str) -> Sequence[Any] | None:
        """Return ``(value, metadata, version)`` of a key as text, None if there is none."""
        return connection.execute(self._retrieve, {"b_key": key}).first()

    def page(self, connection: Connection, prefix: str, after: str, rows: int) -> Sequence[Sequence[Any]]:
        """Return ``(key, value, metadata)`` as text of the next keys above ``after``, in order."""
        statement = self._page.where(*key_range(self._key, prefix)) if prefix else self._page
        return connection.execute(statement, {"b_after": after, "b_rows": rows}).all()

    def search(self, connection: Connection, search: Search) -> list[dict[str, Any]]:
        """Return ``[{"key", "value", "metadata", "score"}]``, best first."""
        return self._searcher.search(connection, search)
