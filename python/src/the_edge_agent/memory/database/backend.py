"""The base class of memories on a database: public methods, which check their arguments, and hooks for subclasses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from the_edge_agent.memory.contract.backend import DELETED_AT_ONCE, IMPORTED_AT_ONCE, LTMBackend
from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.contract.namespace_catalog import NamespaceCatalog
from the_edge_agent.memory.contract.observed import Observed, recorder_of
from the_edge_agent.memory.contract.raising import raising
from the_edge_agent.memory.contract.result_types import (
    CleanupResult,
    CountResult,
    DeletedCountResult,
    DeleteResult,
    EntriesResult,
    FoundEntry,
    ImportResult,
    KeysResult,
    MeasureResult,
    NamespacesResult,
    PoolState,
    RetrieveManyResult,
    RetrieveResult,
    SearchResult,
    StoreResult,
    SyncResult,
    TouchResult,
    WholeEntry,
)
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.cancelling import checkpoint, shielded
from the_edge_agent.memory.core.damage import (
    TIMES,
    Damage,
    Facts,
    Readable,
    damaged,
    search_result,
    whole,
    whole_entries,
)
from the_edge_agent.memory.core.filters import Node, parse_filter
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.namespaces import ROOT, KeyRange
from the_edge_agent.memory.core.operations import (
    Delete,
    Import,
    OnConflict,
    Operation,
    Store,
    check_different,
    imports_of,
    runs_of,
)
from the_edge_agent.memory.core.pages import (
    EntryRow,
    Order,
    Place,
    check_after_place,
    check_order,
    end_of_page,
    place_of,
)
from the_edge_agent.memory.core.query import Query, check_explain, check_match, check_query, parse_query
from the_edge_agent.memory.core.results import (
    ENTRY_FIELDS,
    LTMError,
    Result,
    ok,
    page_of_keys,
    returns_result,
    succeeded,
)
from the_edge_agent.memory.core.showing import repr_of
from the_edge_agent.memory.core.tokens import EXACT, Term
from the_edge_agent.memory.core.validation import (
    MAX_VERSION,
    NOT_GIVEN,
    TTL,
    check_after,
    check_batch_size,
    check_boolean,
    check_errors,
    check_flag,
    check_iterable,
    check_keys,
    check_limit,
    check_offset,
    check_on_conflict,
    check_required_prefix,
    check_ttl,
)
from the_edge_agent.memory.database.ledger import Ledger, open_ledger, sync
from the_edge_agent.memory.database.namespaces import NamespaceListing
from the_edge_agent.memory.database.questions import answer, explain_all
from the_edge_agent.memory.database.search_plan import Reader

Answer = TypeVar("Answer")
Item = TypeVar("Item")
Shown = TypeVar("Shown")
Self = TypeVar("Self", bound="DatabaseBackend")
Find: TypeAlias = Callable[[dict[str, Damage]], tuple[list[Any], Sequence[Damage]]]

Measured: TypeAlias = tuple[int, int, Any, Any, int, int]

MOST_SYNCED: Final = 10_000  # entries; to write so many into a new catalog at the start takes one or two seconds


class DatabaseBackend(LTMBackend):
    """Has every public method of a memory on a database. A subclass sets ``_database`` and ``_ledger``."""

    capabilities: ClassVar[frozenset[str]] = frozenset(  # type: ignore[misc]
        {"transactions", "ttl", "touch", "versions", "times", "match", "index", "import", "measure", "namespaces"}
    )

    _fills_catalog = True  # whether the start fills an empty catalog
    _knows_damage = False  # whether a search has met a damaged entry; it stays true
    _root: DatabaseBackend | None = None  # the whole memory, if this is a namespace of it
    _database: Any
    _ledger: Ledger

    @returns_result
    def store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: TTL = NOT_GIVEN,
        if_version: int | None = None,
        expires_at: datetime | None = None,
        index: bool = True,
    ) -> StoreResult:
        """Create or replace the entry at ``key``; see ``LTMBackend.store``."""
        store = self.check_store(
            key, value, metadata, ttl=ttl, if_version=if_version, expires_at=expires_at, index=index
        )
        result: StoreResult = self._apply([store])[0]
        return result

    @returns_result
    def delete(self, key: str, *, if_version: int | None = None) -> DeleteResult:
        """Delete the entry at ``key``; see ``LTMBackend.delete``."""
        result: DeleteResult = self._apply([Delete.of(key, if_version, namespace=self._namespace)])[0]
        return result

    @returns_result
    def retrieve(
        self, key: str, default: Any = None, *, times: bool = False, refresh_ttl: bool = False
    ) -> RetrieveResult:
        """Return the entry at ``key``; see ``LTMBackend.retrieve``."""
        full_key = self._namespace.full_key(key)
        if times is not False or refresh_ttl is not False:
            return self._retrieve_with_times(full_key, default, times, refresh_ttl)
        entry = whole(self._get(full_key))
        if entry is None:
            return ok(value=default, found=False, metadata=None, version=None)
        return ok(found=True, **entry)

    def _retrieve_with_times(self, full_key: str, default: Any, times: bool, refresh_ttl: bool) -> RetrieveResult:
        shown, is_renewed = check_boolean(times, "times"), check_boolean(refresh_ttl, "refresh_ttl")
        entry = whole(self._get(full_key, times=True))
        if entry is None:
            without = dict.fromkeys(TIMES) if shown else {}
            return ok(value=default, found=False, metadata=None, version=None, **without)
        if is_renewed and entry["expires_at"] is not None:
            entry["expires_at"] = self._touched([full_key], None).get(full_key, entry["expires_at"])
        return ok(found=True, **{name: entry[name] for name in (ENTRY_FIELDS + TIMES if shown else ENTRY_FIELDS)})

    @returns_result
    def retrieve_many(self, keys: Iterable[str], *, times: bool = False) -> RetrieveManyResult:
        """Return the entries at many keys, of one state; see ``LTMBackend.retrieve_many``."""
        full_keys = check_keys(keys, self._namespace.full_key)
        result = whole_entries(self._get_many(full_keys, times=check_boolean(times, "times")))
        if self._namespace.head:
            result["entries"] = {self._namespace.key_of(key): entry for key, entry in result["entries"].items()}
        return ok(**result)

    @returns_result
    def touch(self, key: str, ttl: float | None = None) -> TouchResult:
        """Renew the lifetime of an entry; see ``LTMBackend.touch``."""
        full_key, lifetime = self._namespace.full_key(key), check_ttl(ttl)
        expiries = self._touched([full_key], lifetime)
        return ok(key=key, found=full_key in expiries, expires_at=expiries.get(full_key))

    def _touched(self, full_keys: Sequence[str], lifetime: timedelta | None) -> Mapping[str, datetime | None]:
        expiries = self._touch(full_keys, lifetime)
        self._ledger.record(self._whole, [*expiries], (), [ok(touched_count=len(expiries))], self._facts)
        return expiries

    @returns_result
    def delete_many(self, keys: Iterable[str]) -> DeletedCountResult:
        """Delete the entries at many keys; see ``LTMBackend.delete_many``."""
        return ok(deleted_count=self._delete(check_keys(keys, self._namespace.full_key)))

    def _delete(self, full_keys: Sequence[str]) -> int:
        deletes = [*map(Delete, full_keys)]
        deleted = self._remove(deletes)
        self._record(deletes, [ok(deleted_count=deleted)])
        return deleted

    @returns_result
    def delete_all(self, prefix: str, *, nested: bool = False) -> DeletedCountResult:
        """Delete all entries with a prefix, in batches; see ``LTMBackend.delete_all``."""
        keys = self._key_range(check_required_prefix(prefix), nested)
        after, deleted = "", 0
        try:
            while full_keys := [*islice(self._keys(keys, after, DELETED_AT_ONCE), DELETED_AT_ONCE)]:
                deleted += self._delete(full_keys)
                after = full_keys[-1]
                checkpoint()
        except LTMError as failure:
            raise failure.with_fields(deleted_count=deleted) from None
        return ok(deleted_count=deleted)

    @returns_result
    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> KeysResult:
        """Return a page of the keys; see ``LTMBackend.list_keys``."""
        keys, limit, last = self._key_range(prefix), check_limit(limit), self._namespace.after(check_after(after))
        found = islice(self._keys(keys, last, limit + 1), limit + 1)
        return ok(**page_of_keys([*map(self._namespace.key_of, found)], limit))

    @returns_result
    def entries(
        self,
        prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
        order: Literal["key", "-key", "newest"] = "key",
        *,
        nested: bool = False,
    ) -> EntriesResult:
        """Return a page of whole entries; see ``LTMBackend.entries``."""
        keys, limit, order = self._key_range(prefix, nested), check_limit(limit), check_order(order)
        place = place_of(check_after_place(after), order, ROOT if nested else self._namespace)
        rows, is_last = list[EntryRow](), False
        while not is_last and len(rows) <= limit:
            more = self._entry_rows(keys, order, place, len(rows), limit + 1)
            is_last = len(more) <= limit
            rows += more
            if any(row.is_place(order) for row in rows):
                break
        end = end_of_page(rows, limit, order, is_last=is_last)
        last = None if end == len(rows) and is_last else rows[end - 1].text(order, ROOT if nested else self._namespace)
        results, damages = list[dict[str, Any]](), list[Damage]()
        for row in rows[:end]:
            if isinstance(row.entry, Damage):
                damages.append(row.entry)
            elif row.entry is not None:
                results.append(row.entry)
        shown = self._shown(results, nested=nested)
        return ok(entries=shown, next=last, **self._damaged(damages, nested=nested))

    @returns_result
    def count(self, prefix: str | None = None, *, nested: bool = False) -> CountResult:
        """Return how many entries there are; see ``LTMBackend.count``."""
        return ok(count=self._count(self._key_range(prefix, nested)))

    @returns_result
    def measure(self, prefix: str | None = None, *, nested: bool = False) -> MeasureResult:
        """Return how many entries there are, and their size and age; see ``LTMBackend.measure``."""
        entries, size, oldest, newest, expired, waiting = self._measure(self._key_range(prefix, nested))
        times = {"oldest": oldest, "newest": newest}
        for name, time in times.items():
            if entries and not isinstance(time, datetime):
                raise LTMError("query_error", f"the time of the {name} entry is damaged; see `tea memory check --data`")
        return ok(entries=entries, bytes=size, **times, expired_count=expired, waiting_count=waiting)

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> CleanupResult:
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
        nested: bool = False,
        refresh_ttl: bool = False,
    ) -> SearchResult:
        """Return the entries that match, best first; see ``LTMBackend.search``."""
        with self._one_call():
            text, way = check_query(query), check_match(match)
            condition, keys = parse_filter(metadata_filter), self._key_range(prefix, nested)
            is_renewed = check_boolean(refresh_ttl, "refresh_ttl")
            limit, offset, explains = check_limit(limit), check_offset(offset), check_explain(explain)
            parsed = parse_query(text, way, self._rules() if text is not None and self._keeps_words else EXACT)
            self._require_words(text)
            if parsed.is_empty:
                self._database.start()
                return ok(results=[], count=0)
            result: SearchResult
            if parsed.words is None:
                result = self._search(parsed.terms, condition, keys, offset, limit)
                if explains:
                    explain_all(result, parsed, self._rules())
            else:
                result = self._ask(parsed, condition, keys, offset, limit, explains)
            if is_renewed:
                self._renew(result["results"])
            self._shown(result["results"], nested=nested)
            if self._namespace.head and not nested and "damaged" in result:
                result["damaged"] = [*map(self._namespace.key_of, result["damaged"])]
            return result

    def _ask(
        self, parsed: Query, condition: Node | None, keys: KeyRange, offset: int, limit: int, explains: bool
    ) -> Result:
        """Return the result of a question: a query that has ``words``."""
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
            lambda damaged_values: self._answer(partial(answered, damaged_values=damaged_values), condition, keys)
        )
        self._knows_damage = self._knows_damage or "damaged" in result
        return result

    def _renew(self, results: Sequence[FoundEntry]) -> None:
        """Renew the lifetimes of results whose keys are full, and set their ``expires_at``."""
        mortal = {entry["key"]: entry for entry in results if entry["expires_at"] is not None}
        if mortal:
            for full_key, expires_at in self._touched([*mortal], None).items():
                mortal[full_key]["expires_at"] = expires_at

    def iterate_all(self, prefix: str | None = None, *, nested: bool = False) -> Iterator[tuple[Any, ...]]:
        """Yield ``(key, value, metadata)`` in key order; see ``LTMBackend.iterate_all``.

        Entries are read page by page. No connection is held between two yields.
        """
        keys, namespace = self._key_range(prefix, nested), self._namespace
        self._database.start()

        def shown(item: tuple[str, Any, dict[str, Any] | None]) -> tuple[Any, ...]:
            if nested:
                names, key = namespace.place_of(item[0])
                return key, item[1], item[2], names
            return namespace.key_of(item[0]), item[1], item[2]

        return Readable(self._each_shown(self._iterate(keys), shown, nested=nested))

    def iterate_entries(self, prefix: str | None = None, *, nested: bool = False) -> Iterator[WholeEntry]:
        """Yield whole entries in key order; see ``LTMBackend.iterate_entries``.

        Entries are read page by page. No connection is held between two yields.
        """
        keys = self._key_range(prefix, nested)
        self._database.start()
        shown = lambda entry: self._shown([entry], nested=nested)[0]  # noqa: E731
        return Readable(self._each_shown(self._iterate_entries(keys), shown, nested=nested))

    def _each_shown(
        self, items: Iterator[Item | Damage], shown: Callable[[Item], Shown], *, nested: bool
    ) -> Iterator[Any]:
        """Yield the items of an iteration with keys as this memory shows them."""
        if not nested and not self._namespace.head:
            return items
        return (self._of_damage(item, nested=nested) if isinstance(item, Damage) else shown(item) for item in items)

    @returns_result
    def import_entries(
        self, entries: Iterable[Mapping[str, Any]], on_conflict: Literal["fail", "skip", "replace"] = "fail"
    ) -> ImportResult:
        """Store copies of entries; see ``LTMBackend.import_entries``."""
        way, items = check_on_conflict(on_conflict), iter(check_iterable(entries, "entries"))
        counts = {"imported_count": 0, "skipped_count": 0, "replaced_count": 0}
        place = 0
        try:
            self._database.start()  # after close this fails, also if there are no entries
            while batch := [*islice(items, IMPORTED_AT_ONCE)]:
                rules = self._rules if self._keeps_words else None
                imports = imports_of(batch, place, rules=rules, namespace=self._namespace)
                place += len(batch)
                if way == "fail":
                    check_different(imports)
                for of_different_keys in runs_of(imports):
                    self._import_batch(of_different_keys, way, counts)
                    checkpoint()
        except LTMError as failure:
            raise failure.with_fields(**counts) from None
        return ok(**counts)

    def _import_batch(self, imports: Mapping[str, Import], way: OnConflict, counts: dict[str, int]) -> None:
        """Store entries of different keys in one transaction, and count them."""
        existing = self._import([imports[key] for key in sorted(imports)], way)
        stored = [key for key in imports if way == "replace" or key not in existing]
        counts["imported_count"] += len(imports) - len(existing)
        counts["replaced_count" if way == "replace" else "skipped_count"] += len(existing)
        self._ledger.record(self._whole, stored, stored, [ok(**counts)], self._facts)

    def namespace(self: Self, *names: str) -> Self:
        """Return a namespace of this memory; see ``LTMBackend.namespace``."""
        if not names:
            return self
        part = copy(self)
        part._namespace = self._namespace.below(names)
        part._root = self._whole
        return part

    @returns_result
    def list_namespaces(
        self,
        prefix: Sequence[str] | None = None,
        suffix: Sequence[str] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> NamespacesResult:
        """Return namespaces that have entries; see ``LTMBackend.list_namespaces``."""
        listing = NamespaceListing.of(self._namespace, prefix, suffix, max_depth)
        found = listing.page(self._keys, check_offset(offset), check_limit(limit))
        return ok(namespaces=found, count=len(found))

    def transaction(self) -> LTMTransaction:
        """Return a transaction that queues until ``commit``; see ``LTMBackend.transaction``."""
        self._database.start()
        return LTMTransaction(self.check_store, self._apply_relative, self._check_delete, raises=self._raises)

    def _apply_relative(self, operations: Sequence[Operation]) -> list[Result]:
        try:
            return self._apply(operations)
        except LTMError as error:
            failure = self._relative(error)
        raise failure

    def close(self) -> None:
        """Close every connection, and the catalog unless the caller made it. Closing again does nothing.

        Closing a namespace does nothing.
        """
        if self._root is not None:
            return
        self._database.close()
        self._ledger.close()

    @property
    def catalog(self) -> CatalogBackend | None:
        """The catalog of this memory, for its snapshots and changes; None if there is none.

        The catalog of a namespace has the keys of the namespace.
        """
        catalog = self._ledger.catalog
        if catalog is not None and self._namespace.head:
            catalog = NamespaceCatalog(catalog, self._namespace)
        return catalog if catalog is None or not self._raises else raising(catalog)

    @returns_result
    def sync_catalog(self) -> SyncResult:
        """Make the catalog agree with the memory, after a ``catalog_error`` or for a new catalog.

        Returns:
            ``{"success": True, "tracked_count": int, "deleted_count": int}``. ``tracked_count`` is how many entries of
            the catalog were wrong or missing; ``deleted_count`` is how many had no entry in the memory any more. If
            entries of the memory are damaged, ``damaged`` has their keys; the catalog is not changed there.
        """
        whole = self._whole
        self._keep_catalog_as_it_is()  # so that the start does not sync too
        return sync(whole, self._ledger, self._facts)

    def _keep_catalog_as_it_is(self) -> None:
        """From now on, do not fill an empty catalog at the start."""
        self._whole._fills_catalog = False

    @property
    def _whole(self) -> DatabaseBackend:
        """The whole memory: this one, unless this is a namespace."""
        return self if self._root is None else self._root

    def _key_range(self, prefix: str | None, nested: bool = False) -> KeyRange:
        """Check the arguments ``prefix`` and ``nested``; return the range of full keys that they mean."""
        return self._namespace.key_range(prefix, nested=check_boolean(nested, "nested"))

    def _shown(self, entries: list[Any], *, nested: bool) -> list[Any]:
        """Replace the full keys of entries by the keys that this memory shows; return the same list."""
        if nested:
            for entry in entries:
                entry["namespace"], entry["key"] = self._namespace.place_of(entry["key"])
        elif self._namespace.head:
            for entry in entries:
                entry["key"] = self._namespace.key_of(entry["key"])
        return entries

    def _of_damage(self, damage: Damage, *, nested: bool) -> Damage:
        """Return a damage with the key that this memory shows. With ``nested`` it keeps the full key."""
        return damage if nested else replace(damage, key=self._namespace.key_of(damage.key))

    def _damaged(self, damages: Sequence[Damage], *, nested: bool) -> dict[str, list[str]]:
        return {"damaged": [self._of_damage(each, nested=nested).key for each in damages]} if damages else {}

    def _reported(self, failure: LTMError) -> Result:
        return super()._reported(self._relative(failure))

    def _relative(self, failure: LTMError) -> LTMError:
        """Return a failure with the keys that this memory shows, in place of full keys."""
        head, result = self._namespace.head, failure.result
        if not head or not any(name in result for name in ("key", "damaged", "results")):
            return failure
        fields: dict[str, Any] = {"error": str(failure).replace(head, "")}
        if "key" in result:
            fields["key"] = self._own_key(result["key"])
        if "damaged" in result:
            fields["damaged"] = [*map(self._own_key, result["damaged"])]
        if "results" in result:
            fields["results"] = [
                {**each, "key": self._own_key(each["key"])} if "key" in each else each for each in result["results"]
            ]
        return failure.with_fields(**fields)

    def _own_key(self, full_key: str) -> str:
        """Return the key in this namespace; a key of another one, such as one below, stays full."""
        return self._namespace.key_of(full_key) if full_key.startswith(self._namespace.head) else full_key

    def _set_defaults(self, ttl: Any, errors: Any) -> None:
        """Check and keep the arguments ``ttl`` and ``errors`` of the constructor.

        Raises:
            LTMError: ``configuration_error``.
        """
        try:
            self._default_ttl = check_ttl(ttl)
        except LTMError as error:
            failure = LTMError("configuration_error", str(error))
        else:
            self._raises = check_errors(errors) == "raise"
            return
        raise failure

    def _open_ledger(self, catalog: Any, defaults: Mapping[str, Any]) -> None:
        """Open the catalog, if there is one. If it is empty, the start fills it with the entries of the memory."""
        self._ledger = open_ledger(catalog, self._database, defaults)
        if self._ledger.catalog is not None:
            if self._ledger.catalog is not catalog and isinstance(self._ledger.catalog, Observed):
                self._ledger.catalog._recorder = recorder_of(self)  # the memory's own catalog is a part of it
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

    def _connect(self) -> None:
        """Connect now, if the memory is lazy."""
        self._database.start()

    def _fill_ledger(self) -> None:
        """Sync an empty catalog, unless the memory is empty too.

        Raises:
            LTMError: ``configuration_error`` if the memory has so many entries that this would take long.
        """
        with recorder_of(self).unrecorded(), shielded():  # a catalog that is filled in part would not be filled again
            self._fill_new_ledger()

    def _fill_new_ledger(self) -> None:
        if not self._fills_catalog or not self._ledger.is_new():
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
        """Name the database, without anything secret, and the namespace."""
        names = self._namespace.names
        return repr_of(self) + (f".namespace({', '.join(map(repr, names))})" if names else "")

    def _pool_state(self) -> PoolState | None:
        state: PoolState | None = self._database.pool_state()
        return state

    def _target(self) -> tuple[str, str, str]:
        return (*self._database.target(), "ltm_entries")

    @property
    def _most_at_once(self) -> int:
        """How many calls can use a connection at a time."""
        most: int = self._database.most_connections
        return most

    def _rules(self) -> Language:
        """Return the language rules of the table. The start reads the language from the database."""
        if self._database.language is None and self._keeps_words:
            self._database.start()
        return self._database.language or EXACT

    def _one_call(self) -> AbstractContextManager[Any]:
        """Return a context manager that ends the Python code of a search at the timeout too."""
        return nullcontext()

    def _get(self, key: str, *, times: bool = False) -> dict[str, Any] | Damage | None:
        """Return ``{"value", "metadata", "version"}`` of the entry at a key, or its damage; None if there is none.

        With ``times`` the entry also has ``TIMES``. This and all further methods take and return full keys.
        """
        raise NotImplementedError

    def _get_many(self, keys: Sequence[str], *, times: bool = False) -> Mapping[str, dict[str, Any] | Damage | None]:
        """Return the values of ``_get`` for many keys, in the order of the keys; all reads see one state."""
        raise NotImplementedError

    def _keys(self, keys: KeyRange, after: str, limit: int) -> Iterable[str]:
        """Return the first ``limit`` keys of a range after a key, in order. Returning more is allowed."""
        raise NotImplementedError

    def _entry_rows(self, keys: KeyRange, order: Order, place: Place, skip: int, limit: int) -> list[EntryRow]:
        """Return up to ``limit`` rows of a range of keys, in an order.

        Args:
            keys: the range.
            order: ``key``, ``-key`` or ``newest``.
            place: the place after which the rows begin. It has no key for the first rows, and a time only in the order
                ``newest``.
            skip: how many rows to leave out there.
            limit: how many rows to return at most. Fewer rows mean that there are no more.
        """
        raise NotImplementedError

    def _count(self, keys: KeyRange) -> int:
        """Return how many entries are in a range of keys."""
        raise NotImplementedError

    def _measure(self, keys: KeyRange) -> Measured:
        """Return the numbers of ``measure`` for a range of keys. A time that cannot be read may be anything."""
        raise NotImplementedError

    def _touch(self, keys: Sequence[str], lifetime: timedelta | None) -> Mapping[str, datetime | None]:
        """Renew the lifetimes of entries in one transaction, with the ledger of the same database.

        Args:
            keys: different keys.
            lifetime: the new lifetime; None for the lifetime that each entry has. An entry without one stays as it is.

        Returns:
            When each entry that exists expires now; None for never.

        Raises:
            LTMError: ``query_error``, with ``damaged``, if a stored lifetime or time is damaged.
        """
        raise NotImplementedError

    def _import(self, imports: Sequence[Import], on_conflict: OnConflict) -> Collection[str]:
        """Store entries of different keys, sorted by key, in one transaction, with the ledger of the same database.

        Returns:
            The keys that had an entry that has not expired.

        Raises:
            LTMError: ``conflict`` of the first such key, if ``on_conflict`` is ``fail``.
        """
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

    def _search(self, terms: Sequence[Term], condition: Node | None, keys: KeyRange, offset: int, limit: int) -> Result:
        """Return the result of a search that is not a question: the entries that satisfy every term, best first."""
        raise NotImplementedError

    def _finished(self, find: Find) -> Result:
        """Run ``find``, which returns the entries and the damage of a search, and return the result dict.

        The argument of ``find`` is a dict with the damage of values in the blob storage, by key. A memory with a blob
        storage runs ``find`` again when it meets more of these.
        """
        return search_result(*find({}))

    def _answer(self, answer: Callable[[Reader], Answer], condition: Node | None, keys: KeyRange) -> Answer:
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

    def _iterate(self, keys: KeyRange) -> Iterator[tuple[str, Any, dict[str, Any] | None] | Damage]:
        """Yield ``(key, value, metadata)``, or the damage, of a range of keys, in order.

        Hold no connection between two yields.
        """
        raise NotImplementedError

    def _iterate_entries(self, keys: KeyRange) -> Iterator[dict[str, Any] | Damage]:
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
            if self._namespace.head:
                for result in results:
                    result["key"] = self._namespace.key_of(result["key"])
            return results
        raise self._explained(failure, operations)

    def _write(self, operations: Sequence[Operation]) -> list[Result]:
        """Run operations in one database transaction; return the result dict of each, in order."""
        raise NotImplementedError

    def _explained(self, failure: LTMError, operations: Sequence[Operation]) -> LTMError:
        """Return a better failure if a write failed because of a version that no store can increase."""
        if failure.error_type not in ("validation_error", "query_error") or "damaged" in failure.result:
            return failure
        keys = [*dict.fromkeys(each.key for each in operations if isinstance(each, Store))]
        try:
            facts, entries = self._facts(keys), self._get_many(keys)
        except LTMError:
            return failure
        damages = [each for each in facts.values() if isinstance(each, Damage) and each.what == "version"]
        if damages:
            return damaged(damages)
        highest = [key for key, each in entries.items() if isinstance(each, dict) and each["version"] == MAX_VERSION]
        if highest:
            message = "the entry has the highest version, 2^63 - 1; delete it and store it again"
            return LTMError("validation_error", message, key=highest[0])
        return failure

    def _record(self, operations: Sequence[Operation], results: Sequence[Result]) -> None:
        keys = [*dict.fromkeys(operation.key for operation in operations)]
        stored_keys = {operation.key for operation in operations if isinstance(operation, Store)}
        self._ledger.record(self._whole, keys, stored_keys, results, self._facts)

    def _facts(self, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        """Return ``(expires_at, pointer)``, or the damage, of the entries at keys.

        ``pointer`` is where the blob storage has the value; None if the value is in the database.
        """
        raise NotImplementedError
