"""What memories on a database share: checked writes in one transaction, the ledger, and the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar

from the_edge_agent.memory.base import LTMBackend
from the_edge_agent.memory.catalog import CatalogBackend
from the_edge_agent.memory.ledger import Ledger, sync
from the_edge_agent.memory.operations import Delete, Operation
from the_edge_agent.memory.results import LTMError, Result, ok, returns_result
from the_edge_agent.memory.showing import repr_of
from the_edge_agent.memory.transaction import LTMTransaction
from the_edge_agent.memory.validation import check_prefix


class DatabaseBackend(LTMBackend):
    """What a memory on a database shares with others; the subclass sets ``_database`` and ``_ledger``."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"transactions", "ttl", "versions"})  # type: ignore[misc]

    _database: Any
    _ledger: Ledger

    @returns_result
    def store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: float | None = None,
        if_version: int | None = None,
    ) -> Result:
        """Create or replace the entry at ``key``; see ``LTMBackend.store``."""
        return self._apply([self.check_store(key, value, metadata, ttl=ttl, if_version=if_version)])[0]

    @returns_result
    def delete(self, key: str) -> Result:
        """Delete the entry at ``key``; see ``LTMBackend.delete``."""
        return self._apply([Delete.of(key)])[0]

    def iterate_all(self, prefix: str | None = None) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        """Yield ``(key, value, metadata)`` in key order; see ``LTMBackend.iterate_all``.

        Memory stays constant; no connection is held between yields.
        """
        beginning = check_prefix(prefix)
        self._database.start()
        return self._iterate(beginning)

    def transaction(self) -> LTMTransaction:
        """Return a transaction that queues until ``commit``; see ``LTMBackend.transaction``."""
        self._database.start()
        return super().transaction()

    def close(self) -> None:
        """Close every connection, and the catalog unless it is the caller's; idempotent."""
        self._database.close()
        self._ledger.close()

    @property
    def catalog(self) -> CatalogBackend | None:
        """The catalog that keeps the ledger, for its snapshots and changes; None without one."""
        return self._ledger.catalog

    @returns_result
    def sync_catalog(self) -> Result:
        """Make the catalog say what is in memory, after a ``catalog_error`` or when it is new.

        Returns:
            ``{"success": True, "tracked_count": int, "deleted_count": int}``: how many entries of the catalog
            were wrong or missing, and how many had no entry in memory any more.
        """
        tracked, deleted = sync(self, self._ledger, self._facts)
        return ok(tracked_count=tracked, deleted_count=deleted)

    def __repr__(self) -> str:
        """Name the database, without what may be secret."""
        return repr_of(self)

    def _require_words(self, terms: Sequence[Any] | None) -> None:
        """Refuse a query with something in it where no words are kept; after all checks of the arguments.

        Raises:
            LTMError: ``configuration_error``.
        """
        if terms is None or self._keeps_words:
            return
        self._database.start()  # after the end, and on a table of the other kind, that is the failure
        raise LTMError(
            "configuration_error",
            "this memory keeps no full-text index, so that no words can be searched; copy it into a table or database "
            "that is opened with search=True (full_text: true): store_many there what iterate_all yields here",
        )

    def _iterate(self, prefix: str) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        """Yield ``(key, value, metadata)`` of the keys with a prefix, in order; hold no connection between yields."""
        raise NotImplementedError

    def _record(self, operations: Sequence[Operation], results: Sequence[Result]) -> None:
        self._ledger.record(self, operations, results, self._facts)

    def _facts(self, keys: Sequence[str]) -> dict[str, tuple[datetime | None, str | None]]:
        """Return when the entries at keys expire, and the pointers to their values in a blob storage."""
        raise NotImplementedError
