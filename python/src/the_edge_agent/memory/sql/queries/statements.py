"""``Statements``: all statements for one database, built on first use, and writes that also update the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.tracking import Tracked, changes_of
from the_edge_agent.memory.core.operations import Import, OnConflict, Operation
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.database.writes import Write
from the_edge_agent.memory.sql.queries.catalog import Catalog
from the_edge_agent.memory.sql.queries.entries import Entries
from the_edge_agent.memory.sql.queries.stems import Stems
from the_edge_agent.memory.sql.schema.create import Schema


class Statements:
    """The statements of one database, for entries and for the catalog.

    With ``ledger``, a write to the entries also writes to the catalog, in the same transaction.
    """

    def __init__(self, schema: Schema) -> None:
        """Keep the tables. The statements are built later."""
        self.schema = schema
        # Not cached_property: before Python 3.12 it has a lock, which a forked child may inherit locked.
        self._entries: Entries | None = None
        self._stems: Stems | None = None
        self._catalog: Catalog | None = None

    @property
    def entries(self) -> Entries:
        """The statements for entries."""
        if self._entries is None:
            self._entries = Entries(self.schema)
        return self._entries

    @property
    def stems(self) -> Stems:
        """The statements for search texts, if the table stores words."""
        if self._stems is None:
            self._stems = Stems(self.schema)
        return self._stems

    @property
    def catalog(self) -> Catalog:
        """The statements for the catalog and its snapshots."""
        if self._catalog is None:
            self._catalog = Catalog(self.schema)
        return self._catalog

    def clock(self, connection: Connection, statements: int = 1) -> datetime | None:
        """Return the time to bind in a transaction that has so many ``statements``."""
        return self.schema.dialect.times.clock(connection, statements=statements)

    def keep_blobs(self, connection: Connection) -> None:
        """Keep other processes from removing blobs until the transaction ends."""
        self.schema.dialect.transactions.lock_row(connection, self.schema.tables.schema_version, exclusive=False)

    def remove_orphans(
        self, connection: Connection, pointers: Sequence[str], limit: int, remove: Callable[[str], None]
    ) -> tuple[int, int]:
        """Remove blobs that no entry points to, while no transaction can store a pointer.

        Returns:
            How many such blobs there were, and how many of them were removed.
        """
        self.schema.dialect.transactions.lock_row(connection, self.schema.tables.schema_version, exclusive=True)
        used = self.entries.pointed_to(connection, pointers)
        orphans = [pointer for pointer in pointers if pointer not in used]
        for pointer in orphans[:limit]:
            remove(pointer)
        return len(orphans), len(orphans[:limit])

    def apply(
        self, connection: Connection, operations: Sequence[Operation], write: Write | None, *, ledger: bool
    ) -> list[Result]:
        """Run stores and deletes as one write. Return their results in the order of the operations.

        Raises:
            LTMError: ``conflict``.
        """
        now = self.clock(connection, len(operations) * (2 if ledger else 1))
        results = self.entries.apply(connection, operations, now, write)
        if ledger:
            deleted, tracked = changes_of(operations)
            self.catalog.delete(connection, _ids(deleted), now)
            self.catalog.track(connection, tracked, now)
        return results

    def delete_many(self, connection: Connection, keys: Sequence[str], *, ledger: bool) -> int:
        """Delete the entries at keys and return how many there were."""
        now = self.clock(connection, 2)
        deleted = self.entries.delete_many(connection, keys, now)
        if ledger:
            self.catalog.delete(connection, _ids(keys), now)
        return deleted

    def touch(
        self, connection: Connection, keys: Sequence[str], lifetime: timedelta | None, *, ledger: bool
    ) -> dict[str, datetime | None]:
        """Renew the lifetimes of entries. Return when each entry that exists expires then; see ``Entries.touch``."""
        now = self.clock(connection, 2 + len(keys))
        expiries, renewed = self.entries.touch(connection, keys, lifetime, now)
        if ledger:
            self.catalog.renew(connection, renewed, now)
        return expiries

    def import_many(
        self,
        connection: Connection,
        imports: Sequence[Import],
        on_conflict: OnConflict,
        write: Write | None,
        *,
        ledger: bool,
    ) -> set[str]:
        """Store entries of different keys, sorted by key. Return the keys that had an entry.

        Raises:
            LTMError: ``conflict``.
        """
        now = self.clock(connection, 3)
        existing = self.entries.import_many(connection, imports, on_conflict, now, write)
        if ledger:
            stored = [each for each in imports if on_conflict == "replace" or each.key not in existing]
            self.catalog.track(connection, [Tracked.of_import(each) for each in stored], now)
        return existing

    def cleanup_expired(self, connection: Connection, batch_size: int, *, ledger: bool) -> tuple[list[str], int, int]:
        """Remove some expired entries; return their keys, how many were removed, and how many remain."""
        now = self.clock(connection, 3)
        keys, deleted, remaining = self.entries.cleanup_expired(connection, batch_size, now)
        if ledger:
            self.catalog.forget(connection, _ids(keys), now)
        return keys, deleted, remaining


def _ids(keys: Sequence[str]) -> list[str]:
    return [generate_entry_id(key) for key in sorted(keys)]
