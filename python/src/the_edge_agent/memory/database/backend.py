"""The base class of memories on a database: public methods, which check their arguments, and hooks for subclasses."""

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
    check_flag,
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

MOST_SYNCED: Final = 10_000  # entries; to write so many into a new catalog at the start takes one or two seconds


class DatabaseBackend(LTMBackend):
    """Has every public method of a memory on a database. A subclass sets ``_database`` and ``_ledger``."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"transactions", "ttl", "versions", "times", "match"})  # type: ignore[misc]

    _is_syncing = False  # whether sync_catalog was called; it stays true
    _knows_damage = False  # whether a search has met a damaged entry; it stays true
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
            parsed = parse_query(text, way, self._rules() if text is not None and self._keeps_words else EXACT)
            self._require_words(text)
            if parsed.is_empty:
                self._database.start()
                return search_result([])
            if parsed.words is None:
                result = self._search(parsed.terms, condition, prefix, offset, limit)
                return explain_all(result, parsed, self._rules()) if explains else result
            answered = partial(
                answer,
                query=parsed,
                condition=condition,
                offset=offset,
                limit=limit,
                explain=explains,
                checks_skipped=bool(offset) and self._knows_damage,
            )
            result = self._finished(
                lambda damaged_values: self._answer(partial(answered, damaged_values=damaged_values), condition, prefix)
            )
            self._knows_damage = self._knows_damage or "damaged" in result
            return result

    def iterate_all(self, prefix: str | None = None) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        """Yield ``(key, value, metadata)`` in key order; see ``LTMBackend.iterate_all``.

        Entries are read page by page. No connection is held between two yields.
        """
        prefix = check_prefix(prefix)
        self._database.start()
        return Readable(self._iterate(prefix))

    def iterate_entries(self, prefix: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield whole entries in key order; see ``LTMBackend.iterate_entries``.

        Entries are read page by page. No connection is held between two yields.
        """
        prefix = check_prefix(prefix)
        self._database.start()
        return Readable(self._iterate_entries(prefix))

    def transaction(self) -> LTMTransaction:
        """Return a transaction that queues until ``commit``; see ``LTMBackend.transaction``."""
        self._database.start()
        return super().transaction()

    def close(self) -> None:
        """Close every connection, and the catalog unless the caller made it. Closing again does nothing."""
        self._database.close()
        self._ledger.close()

    @property
    def catalog(self) -> CatalogBackend | None:
        """The catalog of this memory, for its snapshots and changes; None if there is none."""
        return self._ledger.catalog

    @returns_result
    def sync_catalog(self) -> Result:
        """Make the catalog agree with the memory, after a ``catalog_error`` or for a new catalog.

        Returns:
            ``{"success": True, "tracked_count": int, "deleted_count": int}``. ``tracked_count`` is how many entries of
            the catalog were wrong or missing; ``deleted_count`` is how many had no entry in the memory any more. If
            entries of the memory are damaged, ``damaged`` has their keys; the catalog is not changed there.
        """
        self._is_syncing = True  # so that the start does not sync too
        return sync(self, self._ledger, self._facts)

    def _open_ledger(self, catalog: Any, defaults: Mapping[str, Any]) -> None:
        """Open the catalog, if there is one. If it is empty, the start fills it with the entries of the memory."""
        self._ledger = open_ledger(catalog, self._database, defaults)
        if self._ledger.catalog is not None:
            self._database.on_start = self._fill_ledger

    def _open(self, catalog: Any, defaults: Mapping[str, Any], lazy: bool) -> None:
        """Open the catalog, if there is one, and start the database unless ``lazy``; close both if that fails.

        Args:
            catalog: the argument ``catalog`` of the memory.
            defaults: of the options of a catalog that is opened here, without ``lazy``.
            lazy: connect at the first call.
        """
        is_lazy = check_flag("lazy", lazy)
        self._open_ledger(catalog, {**defaults, "lazy": is_lazy})
        try:
            if not is_lazy:
                self._database.start()
        except BaseException:
            self.close()
            raise

    def _fill_ledger(self) -> None:
        """Sync an empty catalog, unless the memory is empty too.

        Raises:
            LTMError: ``configuration_error`` if the memory has so many entries that this would take long.
        """
        if self._is_syncing or not self._ledger.is_new():
            return
        count = succeeded(self.count())["count"]
        if count > MOST_SYNCED and self._ledger.is_new():  # others may have filled it meanwhile
            raise LTMError(
                "configuration_error",
                f"the catalog is new, and the memory has {count:,} entries that are not in it; sync it once, which "
                "takes a while: `tea memory sync FILE` with the agent's file, or in Python open the memory with "
                "lazy=True and call sync_catalog()",
            )
        if count:
            succeeded(self.sync_catalog())

    def __repr__(self) -> str:
        """Name the database, without anything secret."""
        return repr_of(self)

    def _rules(self) -> Language:
        """Return the language rules of the table. The start reads the language from the database."""
        if self._database.language is None and self._keeps_words:
            self._database.start()
        return self._database.language or EXACT

    def _one_call(self) -> AbstractContextManager[Any]:
        """Return a context manager that ends the Python code of a search at the timeout too."""
        return nullcontext()

    def _get(self, key: str) -> dict[str, Any] | Damage | None:
        """Return ``{"value", "metadata", "version"}`` of the entry at a key, or its damage; None if there is none."""
        raise NotImplementedError

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, dict[str, Any] | Damage | None]:
        """Return the values of ``_get`` for many keys, in the order of the keys; all reads see one state."""
        raise NotImplementedError

    def _keys(self, prefix: str, after: str, limit: int) -> Iterable[str]:
        """Return the first ``limit`` keys after a key, in order. Returning more is allowed."""
        raise NotImplementedError

    def _count(self, prefix: str) -> int:
        """Return how many entries have a key with this prefix."""
        raise NotImplementedError

    def _remove(self, deletes: Sequence[Delete]) -> int:
        """Delete entries, and their entries in a ledger of the same database, in one transaction.

        Returns:
            How many entries there were.
        """
        raise NotImplementedError

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        """Remove up to ``limit`` expired entries; return how many were removed, and how many are left."""
        raise NotImplementedError

    def _search(self, terms: Sequence[Term], condition: Node | None, prefix: str, offset: int, limit: int) -> Result:
        """Return the result of a search that is not a question: the entries that satisfy every term, best first."""
        raise NotImplementedError

    def _finished(self, find: Find) -> Result:
        """Run ``find``, which returns the entries and the damage of a search, and return the result dict.

        The argument of ``find`` is a dict with the damage of values in the blob storage, by key. A memory with a blob
        storage runs ``find`` again when it meets more of these.
        """
        return search_result(*find({}))

    def _answer(self, answer: Callable[[Reader], Answer], condition: Node | None, prefix: str) -> Answer:
        """Call ``answer`` with a ``Reader`` in a transaction that sees one state, and return its result.

        If the transaction must be repeated, ``answer`` is called again.
        """
        raise NotImplementedError

    def _require_words(self, query: str | None) -> None:
        """Refuse a query with words if this memory has no search. Call this after all checks of the arguments.

        Raises:
            LTMError: ``configuration_error``.
        """
        if query is None or self._keeps_words:
            return
        self._database.start()  # a closed memory, or a table made with search, is reported first
        raise LTMError(
            "configuration_error",
            "this memory keeps no full-text index, so that no words can be searched; copy it into a table or database "
            "that is opened with search=True (full_text: true): store_many there what iterate_entries yields here",
        )

    def _iterate(self, prefix: str) -> Iterator[tuple[str, Any, dict[str, Any] | None] | Damage]:
        """Yield ``(key, value, metadata)``, or the damage, of the keys with a prefix, in order.

        Hold no connection between two yields.
        """
        raise NotImplementedError

    def _iterate_entries(self, prefix: str) -> Iterator[dict[str, Any] | Damage]:
        """Yield the entries that ``iterate_entries`` yields, and the damage of others, in key order."""
        raise NotImplementedError

    def _are_whole(self, results: Sequence[Any], offset: int) -> bool:
        """Return whether the results are complete. If not, the search must run again and read every possible result.

        They are not complete if one is damaged. They may not be if the page has an offset and this memory has met
        damage before: a search does not read the entries it skips, and damaged ones among them must not count.
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
        """Return a better failure if a write failed because of a damaged version, which no store can increase."""
        if failure.error_type not in ("validation_error", "query_error") or "damaged" in failure.result:
            return failure
        try:
            facts = self._facts([*dict.fromkeys(each.key for each in operations if isinstance(each, Store))])
        except LTMError:
            return failure
        damages = [each for each in facts.values() if isinstance(each, Damage) and each.what == "version"]
        return damaged(damages) if damages else failure

    def _record(self, operations: Sequence[Operation], results: Sequence[Result]) -> None:
        self._ledger.record(self, operations, results, self._facts)

    def _facts(self, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        """Return ``(expires_at, pointer)``, or the damage, of the entries at keys.

        ``pointer`` is where the blob storage has the value; None if the value is in the database.
        """
        raise NotImplementedError
