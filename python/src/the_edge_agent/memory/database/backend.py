"""What memories on a database share: every public method, which checks its arguments, and hooks for what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.damage import (
    Damage,
    Facts,
    Readable,
    damaged,
    entry_result,
    search_result,
    whole_entries,
)
from the_edge_agent.memory.core.filters import Node, parse_filter
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.operations import Delete, Operation, Store
from the_edge_agent.memory.core.query import check_explain, check_match, check_query, parse_query
from the_edge_agent.memory.core.results import LTMError, Result, ok, page_of_keys, returns_result, succeeded
from the_edge_agent.memory.core.showing import repr_of
from the_edge_agent.memory.core.tokens import EXACT, Term
from the_edge_agent.memory.core.validation import (
    check_after,
    check_batch_size,
    check_key,
    check_keys,
    check_limit,
    check_offset,
    check_prefix,
)
from the_edge_agent.memory.database.ledger import Ledger, open_ledger, sync
from the_edge_agent.memory.database.questions import answer, explain_all
from the_edge_agent.memory.database.search_plan import Reader

Answer = TypeVar("Answer")
Find: TypeAlias = Callable[[dict[str, Damage]], tuple[list[Any], Sequence[Damage]]]

MOST_SYNCED: Final = 10_000  # entries that a new catalog is told of at the start: one or two seconds


class DatabaseBackend(LTMBackend):
    """What a memory on a database shares with others; the subclass sets ``_database`` and ``_ledger``."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"transactions", "ttl", "versions", "times", "match"})  # type: ignore[misc]

    _is_syncing = False  # or has been: whether sync_catalog was called
    _knows_damage = False  # whether a search came upon a damaged entry
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
        expires_at: datetime | None = None,
    ) -> Result:
        """Create or replace the entry at ``key``; see ``LTMBackend.store``."""
        store = self.check_store(key, value, metadata, ttl=ttl, if_version=if_version, expires_at=expires_at)
        return self._apply([store])[0]

    @returns_result
    def delete(self, key: str) -> Result:
        """Delete the entry at ``key``; see ``LTMBackend.delete``."""
        return self._apply([Delete.of(key)])[0]

    @returns_result
    def retrieve(self, key: str, default: Any = None) -> Result:
        """Return the entry at ``key``; see ``LTMBackend.retrieve``."""
        entry = self._get(check_key(key))
        if entry is None:
            return ok(value=default, found=False, metadata=None, version=None)
        return entry_result(entry)

    @returns_result
    def retrieve_many(self, keys: Iterable[str]) -> Result:
        """Return the entries at many keys, of one state; see ``LTMBackend.retrieve_many``."""
        return whole_entries(self._get_many(check_keys(keys)))

    @returns_result
    def delete_many(self, keys: Iterable[str]) -> Result:
        """Delete the entries at many keys; see ``LTMBackend.delete_many``."""
        deletes = [*map(Delete, check_keys(keys))]
        result = ok(deleted_count=self._remove(deletes))
        self._record(deletes, [result])
        return result

    @returns_result
    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
        """Return a page of the keys; see ``LTMBackend.list_keys``."""
        prefix, limit, last = check_prefix(prefix), check_limit(limit), check_after(after)
        return page_of_keys([*islice(self._keys(prefix, last, limit + 1), limit + 1)], limit)

    @returns_result
    def count(self, prefix: str | None = None) -> Result:
        """Return how many entries there are; see ``LTMBackend.count``."""
        return ok(count=self._count(check_prefix(prefix)))

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        """Remove expired entries; see ``LTMBackend.cleanup_expired``."""
        deleted, remaining = self._remove_expired(check_batch_size(batch_size))
        return ok(deleted_count=deleted, remaining_count=remaining)

    @returns_result
    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        match: Literal["any", "all"] | None = None,
        prefix: str | None = None,
        offset: int = 0,
        explain: bool = False,
    ) -> Result:
        """Return the entries that match, best first; see ``LTMBackend.search``."""
        with self._one_call():
            text, way = check_query(query), check_match(match)
            condition, prefix = parse_filter(metadata_filter), check_prefix(prefix)
            limit, offset, explains = check_limit(limit), check_offset(offset), check_explain(explain)
            asked = parse_query(text, way, self._rules() if text is not None and self._keeps_words else EXACT)
            self._require_words(text)
            if asked.is_empty:
                self._database.start()
                return search_result([])
            if asked.words is None:
                found = self._search(asked.terms, condition, prefix, offset, limit)
                return explain_all(found, asked, self._rules()) if explains else found
            answered = partial(
                answer,
                query=asked,
                condition=condition,
                offset=offset,
                limit=limit,
                explain=explains,
                checks_skipped=bool(offset) and self._knows_damage,
            )
            found = self._finished(lambda known: self._answer(partial(answered, known=known), condition, prefix))
            self._knows_damage = self._knows_damage or "damaged" in found
            return found

    def iterate_all(self, prefix: str | None = None) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        """Yield ``(key, value, metadata)`` in key order; see ``LTMBackend.iterate_all``.

        Memory stays constant; no connection is held between yields.
        """
        prefix = check_prefix(prefix)
        self._database.start()
        return Readable(self._iterate(prefix))

    def iterate_entries(self, prefix: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield whole entries in key order; see ``LTMBackend.iterate_entries``.

        Memory stays constant; no connection is held between yields.
        """
        prefix = check_prefix(prefix)
        self._database.start()
        return Readable(self._iterate_entries(prefix))

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
            were wrong or missing, and how many had no entry in memory any more. ``damaged`` has the keys of entries
            in memory that are damaged, if there are any: the catalog stays as it is there.
        """
        self._is_syncing = True  # the start need not do it
        return sync(self, self._ledger, self._facts)

    def _open_ledger(self, catalog: Any, defaults: Mapping[str, Any]) -> None:
        """Open the catalog, if there is one; at the start a new one learns what is in memory."""
        self._ledger = open_ledger(catalog, self._database, defaults)
        if self._ledger.catalog is not None:
            self._database.on_start = self._fill_ledger

    def _fill_ledger(self) -> None:
        """Sync a catalog that is empty, unless the memory is empty too.

        Raises:
            LTMError: ``configuration_error``: there are so many entries that it would take long.
        """
        if self._is_syncing or not self._ledger.is_new():
            return
        count = succeeded(self.count())["count"]
        if count > MOST_SYNCED and self._ledger.is_new():  # others may have filled it meanwhile
            raise LTMError(
                "configuration_error",
                f"the catalog is new, and the memory has {count:,} entries that it does not know; tell it once, "
                "which takes a while: `tea memory sync FILE` with the agent's file, or in Python open the memory with "
                "lazy=True and call sync_catalog()",
            )
        if count:
            succeeded(self.sync_catalog())

    def __repr__(self) -> str:
        """Name the database, without what may be secret."""
        return repr_of(self)

    def _rules(self) -> Language:
        """Return the rules of the language of the table's words, which is known from the start on."""
        if self._database.language is None and self._keeps_words:
            self._database.start()
        return self._database.language or EXACT

    def _one_call(self) -> AbstractContextManager[Any]:
        """Return a context in which the Python code of a search ends at the timeout too."""
        return nullcontext()

    def _get(self, key: str) -> dict[str, Any] | Damage | None:
        """Return ``{"value", "metadata", "version"}`` of the entry at a key, None if there is none."""
        raise NotImplementedError

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, dict[str, Any] | Damage | None]:
        """Return the same of many keys, of one state, in the order of the keys."""
        raise NotImplementedError

    def _keys(self, prefix: str, after: str, limit: int) -> Iterable[str]:
        """Return the first keys after a key, in order: at least so many, if there are so many."""
        raise NotImplementedError

    def _count(self, prefix: str) -> int:
        """Return how many entries there are."""
        raise NotImplementedError

    def _remove(self, deletes: Sequence[Delete]) -> int:
        """Delete entries in one transaction, with a ledger in the same database; return how many there were."""
        raise NotImplementedError

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        """Remove so many expired entries at most; return how many were removed, and how many are left."""
        raise NotImplementedError

    def _search(self, terms: Sequence[Term], condition: Node | None, prefix: str, offset: int, limit: int) -> Result:
        """Return the result of a search other than a question: the entries that satisfy every term, best first."""
        raise NotImplementedError

    def _finished(self, find: Find) -> Result:
        """Return the result of a search of which ``find`` returns the entries and the damages.

        ``find`` gets a dict of entries, by key, whose value in the blob storage turned out to be damaged.
        """
        return search_result(*find({}))

    def _answer(self, answer: Callable[[Reader], Answer], condition: Node | None, prefix: str) -> Answer:
        """Call ``answer`` with a ``Reader`` in a transaction that sees one state, and return its result.

        It is called again if the transaction must be run again.
        """
        raise NotImplementedError

    def _require_words(self, query: str | None) -> None:
        """Refuse a query with something in it where no words are kept; after all checks of the arguments.

        Raises:
            LTMError: ``configuration_error``.
        """
        if query is None or self._keeps_words:
            return
        self._database.start()  # after the end, and on a table of the other kind, that is the failure
        raise LTMError(
            "configuration_error",
            "this memory keeps no full-text index, so that no words can be searched; copy it into a table or database "
            "that is opened with search=True (full_text: true): store_many there what iterate_entries yields here",
        )

    def _iterate(self, prefix: str) -> Iterator[tuple[str, Any, dict[str, Any] | None] | Damage]:
        """Yield ``(key, value, metadata)`` of the keys with a prefix, in order; hold no connection between yields."""
        raise NotImplementedError

    def _iterate_entries(self, prefix: str) -> Iterator[dict[str, Any] | Damage]:
        """Yield the same as ``iterate_entries`` does."""
        raise NotImplementedError

    def _are_whole(self, results: Sequence[Any], offset: int) -> bool:
        """Return whether a search needs no second look, for which everything that may be a result is read.

        Entries that a search skips are not read. So that its pages fit together, it reads them all from the time on
        when this memory came upon damage.
        """
        if Damage in map(type, results):
            self._knows_damage = True
            return False
        return not (offset and self._knows_damage)

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        try:
            results = self._write(operations)
        except LTMError as error:
            failure = error
        else:
            self._record(operations, results)
            return results
        raise self._explained(failure, operations)

    def _write(self, operations: Sequence[Operation]) -> list[Result]:
        """Run operations in one database transaction; return the result dict of each, in order."""
        raise NotImplementedError

    def _explained(self, failure: LTMError, operations: Sequence[Operation]) -> LTMError:
        """Return the failure of a write: it names the entries whose version is damaged, which no store counts up."""
        if failure.error_type not in ("validation_error", "query_error") or "damaged" in failure.result:
            return failure
        try:
            found = self._facts([*dict.fromkeys(each.key for each in operations if isinstance(each, Store))])
        except LTMError:
            return failure
        damages = [each for each in found.values() if isinstance(each, Damage) and each.what == "version"]
        return damaged(damages) if damages else failure

    def _record(self, operations: Sequence[Operation], results: Sequence[Result]) -> None:
        self._ledger.record(self, operations, results, self._facts)

    def _facts(self, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        """Return when the entries at keys expire, and the pointers to their values in a blob storage."""
        raise NotImplementedError
