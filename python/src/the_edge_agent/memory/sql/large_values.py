"""``LargeValues``: stores large values in blob storage before a row points to them, and fetches them after a read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from the_edge_agent.memory.core.codec import UnreadableError, decode
from the_edge_agent.memory.core.damage import Damage, Lost, not_here
from the_edge_agent.memory.core.operations import Operation, Store
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.blobs import BlobStorage, DamagedBlobError
from the_edge_agent.memory.database.native_rows import values_elsewhere
from the_edge_agent.memory.sql.database import Database
from the_edge_agent.memory.sql.queries.statements import Statements
from the_edge_agent.memory.sql.schema.rows import Pointer, entry_of

Rows = TypeVar("Rows")

_ATTEMPTS: Final = 3  # to read an entry that other processes keep replacing
_PAGE_BLOBS: Final = 1_000  # blobs that one transaction looks up


class LargeValues:
    """The values of one memory that may be in a blob storage.

    Transactions that store pointers and transactions that remove blobs exclude each other. So no row ever points to a
    removed blob.
    """

    def __init__(self, storage: BlobStorage | None, database: Database) -> None:
        """Without a storage, every value stays in the database."""
        self._storage, self._database = storage, database

    def place(self, store: Store) -> Store:
        """Put the value of a store into the storage if it is large, and point to it."""
        storage = self._storage
        if storage is None or storage.holds_inline(store.value):
            return store
        return replace(store, pointer=storage.put(store.value))

    def keep(self, connection: Connection, sql: Statements, operations: Sequence[Operation]) -> None:
        """Make sure that all blobs of these operations exist when the transaction commits, and afterwards."""
        pointing = [each for each in operations if isinstance(each, Store) and each.pointer is not None]
        if self._storage is not None and pointing:
            sql.keep_blobs(connection)
            for store in pointing:  # writes a blob again if a cleanup has just removed it
                self._storage.put(store.value, look_inside=False)

    def whole(self, key: str, entry: dict[str, Any] | Damage) -> dict[str, Any] | Damage:
        """Return the entry of a key with its value, fetched from the storage if necessary, or the damage of the value.

        Raises:
            LTMError: the storage cannot be read.
        """
        if isinstance(entry, Damage) or not isinstance(entry["value"], Pointer):
            return entry
        if self._storage is None:
            return not_here(key)
        try:
            return {**entry, "value": decode(self._storage.get(entry["value"]))}
        except (DamagedBlobError, UnreadableError) as error:
            return Damage(key, "value", str(error))

    def size(self, pointer: str, count: int) -> int:
        """Return how many bytes a value in the storage has.

        Args:
            pointer: where it is.
            count: how many values are in the storage; a message says so.

        Raises:
            LTMError: ``query_error``: there is no storage, or the value is missing or cannot be read.
        """
        if self._storage is None:
            raise values_elsewhere(count)
        try:
            return self._storage.size(pointer)
        except DamagedBlobError as error:
            problem = LTMError("query_error", f"a value {error}")
        raise problem

    def lost(self, known_damages: dict[str, Damage]) -> Lost:
        """Return a function from a key to the damage of its value in the storage, or to None if no damage is known."""
        return not_here if self._storage is None else known_damages.get

    def read(
        self,
        find: Callable[[], Rows],
        resolve: Callable[[Rows], Mapping[str, dict[str, Any] | Damage | None]],
    ) -> tuple[Rows, Mapping[str, dict[str, Any] | Damage | None]]:
        """Find rows and fetch their values. Repeat this if an entry was replaced and its value removed in between.

        Raises:
            LTMError: the database or the storage cannot be read.
        """
        attempts = 1 if self._storage is None else _ATTEMPTS
        while True:
            rows = find()
            entries = resolve(rows)
            attempts -= 1
            if not attempts or Damage not in map(type, entries.values()):
                return rows, entries

    def entry(self, key: str, row: Callable[[str], Sequence[Any] | None]) -> dict[str, Any] | Damage | None:
        """Return the entry at a key. Read its row again if it was replaced and its value removed in between.

        Args:
            key: the key.
            row: a function that returns the columns that ``entry_of`` takes, or None if there is no entry.

        Raises:
            LTMError: the database or the storage cannot be read.
        """
        attempts = 1 if self._storage is None else _ATTEMPTS
        while True:
            columns = row(key)
            if columns is None:
                return None
            entry = self.whole(key, entry_of(*columns))
            attempts -= 1
            if not attempts or not isinstance(entry, Damage):
                return entry

    def clean(self, limit: int) -> tuple[int, int]:
        """Remove up to ``limit`` blobs that nothing points to; return how many, and how many remain.

        Raises:
            LTMError: ``validation_error`` without a storage.
        """
        storage = self._storage
        if storage is None:
            raise LTMError("validation_error", "this memory has no storage")
        orphans = deleted = 0
        pointers = storage.older_than(storage.grace_period)
        while page := list(islice(pointers, _PAGE_BLOBS)):
            work = partial(_remove_orphans, storage, page, limit - deleted)
            rows, removed = self._database.run(work, write=True)
            orphans, deleted = orphans + rows, deleted + removed
        return deleted, orphans - deleted


def _remove_orphans(
    storage: BlobStorage, pointers: list[str], limit: int, connection: Connection, sql: Statements
) -> tuple[int, int]:
    return sql.remove_orphans(connection, pointers, limit, storage.delete)
