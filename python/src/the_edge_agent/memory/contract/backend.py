"""The contract of long-term memory: LTMBackend, and the registry of backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from inspect import signature
from itertools import islice
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from the_edge_agent.memory.contract.observed import OF_MEMORIES, Observed
from the_edge_agent.memory.contract.registry import Registry
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
    RetrieveManyResult,
    RetrieveResult,
    SearchResult,
    StoreManyResult,
    StoreResult,
    TouchResult,
    WholeEntry,
)
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.damage import TIMES, Damage, Readable, whole_entries
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.namespaces import ROOT, Namespace
from the_edge_agent.memory.core.operations import Delete, Operation, Store, stores_of
from the_edge_agent.memory.core.query import check_explain, check_match
from the_edge_agent.memory.core.results import (
    ENTRY_FIELDS,
    LTMError,
    Result,
    ok,
    outcome_of,
    page_of_keys,
    returns_result,
    succeeded,
)
from the_edge_agent.memory.core.tokens import EXACT
from the_edge_agent.memory.core.validation import (
    MAX_LIMIT,
    NOT_GIVEN,
    TTL,
    check_after,
    check_boolean,
    check_errors,
    check_flag,
    check_keys,
    check_limit,
    check_prefix,
    check_required_prefix,
)

Self = TypeVar("Self", bound="LTMBackend")

DELETED_AT_ONCE: Final = 1_000  # entries that one transaction of ``delete_all`` deletes
IMPORTED_AT_ONCE: Final = 1_000  # entries that one transaction of ``import_entries`` stores


class LTMBackend(Observed, ABC):
    """Long-term memory: entries that outlive the process. An entry is a key, a JSON value and JSON metadata.

    A key is text of 1 to 512 characters. Keys that differ in case, accents or spaces are different keys. A value is any
    JSON value. Metadata is a JSON object or None.

    Most methods return a dict: ``{"success": True, ...}``, or ``{"success": False, "error": str, "error_type": str}``.
    After a failure nothing has changed. Constructors, ``iterate_all``, ``iterate_entries`` and ``transaction`` return
    no dict: they raise ``LTMError``, whose attribute ``result`` is the failure dict.

    Many threads may use one backend at the same time. Each call is one transaction. The program that creates a backend
    must close it.

    The author of a backend writes the five abstract methods. The other methods use these five, so a backend inherits
    them. Some promises need more than the five methods; each of these is a capability. A call that needs a capability
    which the backend does not declare fails with ``validation_error``.

    Attributes:
        capabilities: the capabilities of the backend. ``"transactions"``: it provides ``_apply``; ``transaction``,
            ``store_many`` and ``delete_many`` work, and ``retrieve_many`` sees one state. ``"ttl"``: ``store`` accepts
            ``ttl``, and it provides ``cleanup_expired``. ``"versions"``: ``store`` and ``delete`` obey ``if_version``.
            ``"times"``: ``store`` accepts ``expires_at``, ``retrieve`` and ``retrieve_many`` accept ``times``, results
            of ``search`` have times, and it provides ``entries`` and ``iterate_entries``. ``"touch"``, which needs
            ``"ttl"`` and ``"times"``: it keeps lifetimes, provides ``touch``, and ``retrieve`` and ``search`` accept
            ``refresh_ttl``. ``"match"``: ``search`` accepts ``match="any"`` and ``explain``. ``"index"``: ``store``
            accepts ``index=False``. ``"import"``, which needs ``"times"``: it provides ``import_entries``.
            ``"measure"``: it provides ``measure``.
            ``"namespaces"``: it provides ``namespace`` and ``list_namespaces``, and methods accept ``nested``.
    """

    capabilities: frozenset[str] = frozenset()

    _observed = OF_MEMORIES
    _keeps_words: bool = True  # whether stores make the search text of an entry
    _namespace: Namespace = ROOT  # whose keys the methods take and return
    _default_ttl: timedelta | None = None  # the lifetime of an entry that is stored without ttl and expires_at
    _raises: bool = False  # whether methods raise their failures

    @abstractmethod
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
        """Create or replace the entry at ``key``.

        Args:
            key: 1 to 512 characters, without NUL or lone surrogates.
            value: any JSON value, also None.
            metadata: a JSON object or None. It may be at most 30 levels deep. It must not contain NUL, or integers
                beyond 64 bits.
            ttl: the lifetime in seconds, up to 100 years; None for never. Without ``ttl`` and ``expires_at`` the entry
                has the lifetime that the constructor got, by default none. An expired entry does not exist for any
                call: reads do not return it, and the next store of its key creates a new entry.
            if_version: store only if the entry has this version. 0 means only if there is no entry. None stores in any
                case.
            expires_at: when the entry expires, instead of ``ttl``: a datetime; one without a time zone means UTC. The
                time may be in the past: then the entry is stored and has expired at once.
            index: whether the words of the entry can be searched. If not, a search finds it as an entry without words:
                by its metadata and prefix.

        Returns:
            ``{"success": True, "stored": True, "key": str, "created": bool, "version": int}``. ``created`` is true if
            there was no entry; if many stores race for a new key, exactly one of them gets true. ``version`` starts at
            1 and grows by 1 with each store.
            If the entry has another version than ``if_version``: a failure with the ``error_type`` ``conflict``, the
            ``key``, and the ``version`` of the entry, which is 0 if there is none.
        """

    @abstractmethod
    def retrieve(
        self, key: str, default: Any = None, *, times: bool = False, refresh_ttl: bool = False
    ) -> RetrieveResult:
        """Return the entry at ``key``.

        Args:
            key: the key.
            default: the ``value`` of the result if there is no entry.
            times: whether the result also has ``created_at``, ``updated_at`` and ``expires_at``: datetimes in UTC, or
                None.
            refresh_ttl: whether to renew the lifetime of the entry, as ``touch`` does.

        Returns:
            ``{"success": True, "value": Any, "found": bool, "metadata": dict | None, "version": int | None}``.
            If there is no entry, ``value`` is ``default``, ``found`` is false, and metadata and version are None.
            If the entry is damaged, for example because another program wrote its row: a failure with the
            ``error_type`` ``query_error``, and the key in the list ``damaged``.
        """

    @abstractmethod
    def delete(self, key: str, *, if_version: int | None = None) -> DeleteResult:
        """Delete the entry at ``key``.

        Args:
            key: the key.
            if_version: delete only if the entry has this version; 0 means only if there is no entry. None deletes in
                any case.

        Returns:
            ``{"success": True, "deleted": bool, "key": str}``; ``deleted`` is false if there was no entry.
            If the entry has another version than ``if_version``: a failure as that of ``store``.
        """

    @abstractmethod
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
        """Return the entries that match the query, the filter and the prefix, best first.

        Args:
            query: a question, or words, ``"phrases"`` and ``prefix*``. ``+word`` must occur, ``-word`` must not. None
                or an empty query means no condition on the text.
            match: ``any`` returns entries that have at least one of the words; rare words count more in the ranking.
                ``all`` returns entries that have every word. The default is ``any``. A backend without the
                capability ``"match"`` accepts only ``all``, and it is the default there.
            metadata_filter: keys with the values that they must have, or operators such as ``{"age": {"$gte": 18}}``.
            limit: how many results to return at most, 1 to 10,000.
            prefix: the key must begin with this text.
            offset: how many results to skip.
            explain: whether each result also has ``explain``, a list ``[{"term": str, "score": float}]`` of the terms
                of the query that the entry has, with the part of the score that each adds.
            nested: whether to search the namespaces below too. Each result then has its ``namespace``, a tuple of names
                below this memory's, and the key there. A prefix is not allowed then.
            refresh_ttl: whether to renew the lifetimes of the results, as ``touch`` does.

        Returns:
            ``{"success": True, "results": [{"key", "value", "metadata", "score", "version", "created_at",
            "updated_at", "expires_at"}], "count": int}``. Version and times need the capability ``"times"``. Results
            are in the order of their score; equal scores are ordered by time, newest first, and then by key.
            docs/search.md has the rules. If the query has no words, all scores are 0.0. A search leaves out damaged
            entries; the result then has the keys of those it met in the list ``damaged``.
        """

    @abstractmethod
    def close(self) -> None:
        """Close every connection. Later calls fail with ``connection_error``; closing again does nothing."""

    @returns_result
    def store_many(self, entries: Iterable[Mapping[str, Any]]) -> StoreManyResult:
        """Store many entries in one transaction: all of them or none.

        Args:
            entries: dicts with ``key`` and ``value``. They may also have ``metadata``, ``ttl`` or ``expires_at``, and
                ``index``, as for ``store``. A key that comes twice is stored twice, in the order of the list.

        Returns:
            ``{"success": True, "stored_count": int, "results": [{"key", "created", "version"}]}``, with one result
            for each entry, in the same order.
        """
        self._require("transactions")
        stores = stores_of(entries, **self._of_stores())
        for place, store in enumerate(stores):
            try:
                self._require_all(store)
            except LTMError as failure:
                raise failure.within(f"entries[{place}]") from None
        results = self._apply(stores)
        return ok(
            stored_count=len(results),
            results=[{name: result[name] for name in ("key", "created", "version")} for result in results],
        )

    @returns_result
    def retrieve_many(self, keys: Iterable[str], *, times: bool = False) -> RetrieveManyResult:
        """Return the entries at many keys.

        Args:
            keys: the keys.
            times: as for ``retrieve``.

        Returns:
            ``{"success": True, "entries": {key: {"value", "metadata", "version"} | None}, "found_count": int,
            "missing_count": int}``. ``entries`` has each key once, in the order of the argument, with None for a key
            that has no entry. If entries are damaged: a failure with the ``error_type`` ``query_error`` and their keys
            in the list ``damaged``.
        """
        if check_boolean(times, "times"):
            self._require("times")
        more: dict[str, Any] = {"times": True} if times else {}
        fields = (*ENTRY_FIELDS, *TIMES) if times else ENTRY_FIELDS
        entries: dict[str, dict[str, Any] | Damage | None] = {}
        for key in check_keys(keys):
            result: Result = outcome_of(self.retrieve, key, **more)
            if not result["success"] and key in result.get("damaged", ()):
                entries[key] = Damage(key, "entry", "it cannot be read")
                continue
            succeeded(result)
            entries[key] = {name: result[name] for name in fields} if result["found"] else None
        return ok(**whole_entries(entries))

    @returns_result
    def delete_many(self, keys: Iterable[str]) -> DeletedCountResult:
        """Delete the entries at many keys in one transaction.

        Returns:
            ``{"success": True, "deleted_count": int}``; keys without an entry do not count.
        """
        self._require("transactions")
        results = self._apply([Delete(full_key) for full_key in check_keys(keys, self._namespace.full_key)])
        return ok(deleted_count=sum(result["deleted"] for result in results))

    @returns_result
    def delete_all(self, prefix: str, *, nested: bool = False) -> DeletedCountResult:
        """Delete all entries whose key begins with ``prefix``, up to 1,000 in a transaction.

        This call alone is not one transaction. If it fails, some entries may be gone. It can be called again. Entries
        that are stored meanwhile may remain.

        Args:
            prefix: the beginning of the keys; ``""`` deletes every entry.
            nested: whether to delete the entries of the namespaces below too. The prefix must be ``""`` then.

        Returns:
            ``{"success": True, "deleted_count": int}``. A failure has ``deleted_count`` too.
        """
        begin, deleted = check_required_prefix(prefix), 0
        self._require_nested(nested)
        try:
            while keys := succeeded(self.list_keys(begin, DELETED_AT_ONCE))["keys"]:
                deleted += sum(succeeded(self.delete(key))["deleted"] for key in keys)
        except LTMError as failure:
            raise failure.with_fields(deleted_count=deleted) from None
        return ok(deleted_count=deleted)

    @returns_result
    def touch(self, key: str, ttl: float | None = None) -> TouchResult:
        """Renew the lifetime of an entry. Its value, version and ``updated_at`` stay as they are.

        Args:
            key: the key.
            ttl: the new lifetime in seconds, up to 100 years. None means the lifetime that the entry has. An entry
                without a lifetime then stays as it is: it was stored without ``ttl``, or with ``expires_at``.

        Returns:
            ``{"success": True, "key": str, "found": bool, "expires_at": datetime | None}``: whether there is an entry,
            and when it expires now, in UTC.
        """
        raise self._incapable("touch")

    @returns_result
    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> KeysResult:
        """Return a page of keys, ordered by code point.

        Args:
            prefix: return only keys that begin with this text.
            limit: how many keys to return at most, 1 to 10,000.
            after: return only keys that come after this one. Pass the ``next`` of the page before.

        Returns:
            ``{"success": True, "keys": [str], "next": str | None}``; ``next`` is None on the last page.
        """
        page_size, last = check_limit(limit), check_after(after)
        following = (key for key, _, _ in self.iterate_all(prefix) if key > last)
        return ok(**page_of_keys(list(islice(following, page_size + 1)), page_size))

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
        """Return a page of whole entries.

        Args:
            prefix: return only entries whose key begins with this text.
            limit: how many entries to return at most, 1 to 10,000.
            after: the ``next`` of the page before. With the order ``key`` or ``-key`` it is a key.
            order: ``key`` is the order of the keys by code point, ``-key`` its reverse, and ``newest`` the order of
                ``updated_at``, newest first; entries of one time are in the order of their keys.
            nested: as for ``search``. Keys are then ordered, and ``after`` and ``next`` are written, with their
                namespaces.

        Returns:
            ``{"success": True, "entries": [entry], "next": str | None}``, with entries as ``iterate_entries`` yields
            them; ``next`` is None on the last page. Damaged entries are left out; the result then has their keys in
            the list ``damaged``.
        """
        raise self._incapable("times")

    @returns_result
    def count(self, prefix: str | None = None, *, nested: bool = False) -> CountResult:
        """Count the entries, or those whose key begins with ``prefix``: ``{"success": True, "count": int}``.

        Args:
            prefix: the beginning of the keys.
            nested: whether to count the entries of the namespaces below too. A prefix is not allowed then.
        """
        self._require_nested(nested)
        return ok(count=sum(1 for _ in self.iterate_all(prefix)))

    @returns_result
    def measure(self, prefix: str | None = None, *, nested: bool = False) -> MeasureResult:
        """Return how many entries there are, how large and how old they are. It may read all of them.

        Args:
            prefix: measure only entries whose key begins with this text.
            nested: whether to measure the entries of the namespaces below too. A prefix is not allowed then.

        Returns:
            ``{"success": True, "entries": int, "bytes": int, "oldest": datetime | None, "newest": datetime | None,
            "expired_count": int, "waiting_count": int}``. ``bytes`` is the size in UTF-8 of the keys with their
            namespaces, as the whole memory has them, and of the JSON texts of values and metadata; it is the same on
            every database. ``oldest`` is when the oldest entry was created, and ``newest`` when an entry was last
            stored, in UTC; None without entries. ``expired_count`` is how many expired entries still take space: the
            other numbers leave them out. ``waiting_count`` is how many entries are not yet in the index of words; it is
            above 0 only on MySQL and MariaDB, and many make searches slow until ``optimize`` is called. Damaged entries
            count. If a value is in a blob storage that cannot be read, or a time is damaged: a failure with the
            ``error_type`` ``query_error``.
        """
        raise self._incapable("measure")

    def namespace(self: Self, *names: str) -> Self:
        """Return the part of this memory that is the namespace with these names, below this memory's own.

        The part is a memory too. It takes and returns keys of the namespace alone, and uses the connections of this
        memory: closing it closes nothing. ``cleanup_expired`` of it is that of this memory.

        Args:
            names: each is not empty, and has any characters that a key may have. Without names this memory itself is
                returned, and so the whole memory for a whole memory.

        Raises:
            LTMError: ``validation_error``: a name is bad, or the backend has no capability ``"namespaces"``.
        """
        if not names:
            return self
        raise self._incapable("namespaces")

    @returns_result
    def list_namespaces(
        self,
        prefix: Sequence[str] | None = None,
        suffix: Sequence[str] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> NamespacesResult:
        """Return the namespaces below this memory that have entries, in the order of their full keys.

        Args:
            prefix: the first names that a namespace must have; ``"*"`` stands for any one name.
            suffix: the last names that a namespace must have; ``"*"`` stands for any one name.
            max_depth: cut longer namespaces after so many names, and return each once. ``prefix`` and ``suffix`` are
                compared with all names.
            limit: how many namespaces to return at most, 1 to 10,000.
            offset: how many namespaces to skip.

        Returns:
            ``{"success": True, "namespaces": [tuple[str, ...]], "count": int}``.
        """
        raise self._incapable("namespaces")

    @returns_result
    def import_entries(
        self, entries: Iterable[Mapping[str, Any]], on_conflict: Literal["fail", "skip", "replace"] = "fail"
    ) -> ImportResult:
        """Store copies of entries, with their versions, times and lifetimes, up to 1,000 in a transaction.

        This call is not one transaction. If it fails, the entries of earlier batches are stored.

        Args:
            entries: dicts as ``iterate_entries`` yields them. ``key`` and ``value`` are required. Without ``version``
                it is 1, without ``created_at`` or ``updated_at`` that is the time of the import, without ``expires_at``
                the entry never expires, without ``ttl`` it has no lifetime (with ``ttl`` it must have
                ``expires_at``), without ``index`` its words can be searched. With ``namespace`` the key is one of that
                namespace, below this memory's.
            on_conflict: what to do about a key that has an entry, also one that this call has stored. ``fail`` fails,
                ``skip`` keeps the entry that is there, ``replace`` replaces it.

        Returns:
            ``{"success": True, "imported_count": int, "skipped_count": int, "replaced_count": int}``; each entry counts
            once. A failure has these counts too. On ``fail`` the failure is a ``conflict`` with the ``key`` and the
            ``version`` of the entry that is there; the key is the full one if the entry is in a namespace below.
        """
        raise self._incapable("import")

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> CleanupResult:
        """Remove expired entries from the database. No call returns them any more, but they take space.

        One call removes one batch. Call it again until ``remaining_count`` is 0.

        Args:
            batch_size: how many entries to remove at most, 1 to 10,000.

        Returns:
            ``{"success": True, "deleted_count": int, "remaining_count": int}``.
        """
        raise LTMError("validation_error", f"{type(self).__name__} keeps no lifetimes")

    def iterate_all(self, prefix: str | None = None, *, nested: bool = False) -> Iterator[tuple[Any, ...]]:
        """Yield ``(key, value, metadata)`` of every entry, ordered by key (by code point).

        With ``nested`` it also yields the entries of the namespaces below, in the order of the full keys, as
        ``(key, value, metadata, namespace)``; a prefix is not allowed then.

        The iteration is not one transaction: if an entry changes meanwhile, the old or the new state may be returned.
        Damaged entries are left out. Their keys are logged at the end, and the iterator's attribute ``damaged`` lists
        those left out so far.

        Raises:
            LTMError: at once for a bad prefix; during the iteration if the database fails.
        """
        check_prefix(prefix)
        self._require_nested(nested)
        entries: list[FoundEntry] = []
        damages: dict[str, Damage] = {}
        while True:
            page = succeeded(self.search(prefix=prefix, limit=MAX_LIMIT, offset=len(entries)))
            entries += page["results"]
            damages |= {key: Damage(key, "entry", "it cannot be read") for key in page.get("damaged", ())}
            if page["count"] < MAX_LIMIT:
                break
        entries.sort(key=lambda entry: str(entry["key"]))
        return Readable([*damages.values(), *((entry["key"], entry["value"], entry["metadata"]) for entry in entries)])

    def iterate_entries(self, prefix: str | None = None, *, nested: bool = False) -> Iterator[WholeEntry]:
        """Yield whole entries in key order.

        An entry is ``{"key", "value", "metadata", "version", "created_at", "updated_at", "expires_at", "ttl",
        "index"}``: all that ``import_entries`` needs for a copy. The times are datetimes in UTC. ``expires_at`` is None
        for an entry that never expires. ``ttl`` is the lifetime in seconds, or None. ``index`` is whether its words
        can be searched. With ``nested`` it also yields the entries of the namespaces below, in the order of the full
        keys, and each entry has its ``namespace``. A backend with the capability ``"times"`` must override this method.

        Raises:
            LTMError: as for ``iterate_all``; ``validation_error`` if the backend has no capability ``"times"``.
        """
        check_prefix(prefix)
        self._require("times")
        raise NotImplementedError(f"{type(self).__name__} declares times and provides no iterate_entries")

    def transaction(self) -> LTMTransaction:
        """Return a transaction, which queues stores and deletes until ``commit``.

        Raises:
            LTMError: ``connection_error`` after ``close``; ``validation_error`` if the backend has no capability
                ``"transactions"``.
        """
        self._require("transactions")
        return LTMTransaction(self.check_store, self._apply, self._check_delete, raises=self._raises)

    def check_store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: TTL = NOT_GIVEN,
        if_version: int | None = None,
        expires_at: datetime | None = None,
        index: bool = True,
    ) -> Store:
        """Check and encode the arguments of ``store``. This is for the authors of backends.

        Raises:
            LTMError: ``validation_error``, also for an argument that needs a capability which the backend does not
                declare; ``serialization_error`` if JSON would change the value or the metadata.
        """
        store = Store.of(
            key,
            value,
            metadata,
            ttl=ttl,
            if_version=if_version,
            expires_at=expires_at,
            index=index,
            **self._of_stores(),
        )
        self._require_all(store)
        return store

    def _check_delete(self, key: str, if_version: int | None = None) -> Delete:
        """Check the arguments of ``delete``."""
        delete = Delete.of(key, if_version, namespace=self._namespace)
        if if_version is not None:
            self._require("versions")
        return delete

    def _of_stores(self) -> dict[str, Any]:
        """Return the arguments of ``Store.of`` that are the same for each store of this memory."""
        rules = self._rules if self._keeps_words else None
        return {"rules": rules, "default_ttl": self._default_ttl, "namespace": self._namespace}

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Run operations in one database transaction and return the result dict of each, in the same order.

        A backend with the capability ``"transactions"`` must override this method.

        Raises:
            LTMError: an operation failed; nothing has changed then.
        """
        raise NotImplementedError(f"{type(self).__name__} declares transactions and provides no _apply")

    def check_match(self, match: Any, *, explain: bool = False) -> Literal["any", "all"]:
        """Check the arguments ``match`` and ``explain`` of ``search``; return ``any`` or ``all``. For backend authors.

        Raises:
            LTMError: ``validation_error``; also for ``any`` and ``explain`` without the capability ``"match"``.
        """
        explains = check_explain(explain)
        if "match" in self.capabilities:
            return check_match(match)
        if match not in (None, "all") or explains:
            self._require("match")
        return "all"

    @property
    def namespace_names(self) -> tuple[str, ...]:
        """The names of the namespace that this memory is; empty for a whole memory."""
        return self._namespace.names

    @property
    def language(self) -> str:
        """The language whose stems and stop words the search uses, such as ``english``; ``none`` for exact words."""
        return self._rules().name

    def _rules(self) -> Language:
        """Return the rules of the memory's language."""
        return EXACT

    def _depth(self) -> int:
        return len(self._namespace.names)

    def _require_all(self, store: Store) -> None:
        if store.ttl is not None:
            self._require("ttl")
        if store.expires_at is not None:
            self._require("times")
        if store.if_version is not None:
            self._require("versions")
        if not store.index:
            self._require("index")

    def _require_nested(self, nested: Any) -> None:
        """Check the argument ``nested`` of a method whose implementation here reads one namespace."""
        if check_boolean(nested, "nested"):
            self._require("namespaces")
            raise NotImplementedError(f"{type(self).__name__} declares namespaces and does not override this method")

    def _require(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise self._incapable(capability)

    def _incapable(self, capability: str) -> LTMError:
        message = f"{type(self).__name__} does not have the capability {capability!r}"
        if capability in self.capabilities:
            message = f"{type(self).__name__} declares {capability!r} and does not provide this method"
        return LTMError("validation_error", message)

    def _reported(self, failure: LTMError) -> Result:
        """Return the failure dict of a call that failed, or raise the failure if this memory raises failures."""
        if self._raises:
            raise failure
        return failure.result

    def __enter__(self: Self) -> Self:
        """Return the backend itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the backend."""
        self.close()


BackendFactory: TypeAlias = Callable[..., LTMBackend]
_backends: Final = Registry(
    "LTM backend",
    {
        "postgres": "the_edge_agent.memory.postgres.backend:PostgresBackend",
        "sqlalchemy": "the_edge_agent.memory.sql.backend:SQLAlchemyBackend",
        "sqlite": "the_edge_agent.memory.sqlite.backend:SQLiteBackend",
    },
    "the_edge_agent.ltm_backends",
)
_SEARCH: Final = ("search", "full_text")  # an argument of our constructors, and its name in configurations
_HAVE_SEARCH: Final = ("postgres", "sqlalchemy", "sqlite")  # the backends whose constructor has this argument


def register_backend(name: str, factory: BackendFactory) -> None:
    """Make ``create_ltm_backend(name, ...)`` call ``factory(...)``. Another registration of the name replaces this one.

    A package may instead declare an entry point in the group ``the_edge_agent.ltm_backends``.

    Args:
        name: the name of the backend, case-insensitive.
        factory: a class or function that returns an ``LTMBackend``.

    Raises:
        ValueError: the name is empty or not text.
        TypeError: the factory is not callable.
    """
    _backends.register(name, factory)


def get_registered_backends() -> list[str]:
    """Return the names that ``create_ltm_backend`` knows, sorted."""
    return _backends.names()


def create_ltm_backend(backend_type: str = "sqlalchemy", **options: Any) -> LTMBackend:
    """Return a new backend. The caller must close it.

    Args:
        backend_type: a registered name, case-insensitive.
        options: the arguments of the backend's constructor, such as ``url``. ``full_text`` is another name of
            ``search``. ``errors="raise"`` makes any backend raise its failures, as ``raising`` does.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
        LTMError: the backend could not be created, for example because the database cannot be reached.
        ImportError: an optional dependency is missing; the message names the extra to install.
    """
    factory = find_backend_factory(backend_type, options.get("url"))
    arguments = constructor_options(backend_type, options)
    if "errors" not in arguments or "errors" in signature(factory).parameters:
        return factory(**arguments)
    from the_edge_agent.memory.contract.raising import raising  # it imports this module

    raises = check_errors(arguments.pop("errors")) == "raise"
    backend = factory(**arguments)
    return raising(backend) if raises else backend


def other_names(backend_type: str) -> tuple[str, ...]:
    """Return other names that ``constructor_options`` accepts for arguments of a backend's constructor."""
    return _SEARCH[1:] if backend_type.strip().lower() in _HAVE_SEARCH else ()


def constructor_options(backend_type: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a backend's constructor. The option ``full_text`` becomes the argument ``search``.

    Raises:
        LTMError: ``configuration_error`` if both are there and differ.
    """
    arguments = dict(options)
    if not isinstance(backend_type, str) or not any(name in arguments for name in other_names(backend_type)):
        return arguments
    values = {check_flag(name, arguments.pop(name)) for name in _SEARCH if name in arguments}
    if len(values) > 1:
        raise LTMError("configuration_error", "full_text and search mean the same; give one of them")
    return {**arguments, "search": values.pop()}


def find_backend_factory(name: str, url: Any = None) -> BackendFactory:
    """Return the class or function that is registered under a name.

    Args:
        name: the name of the backend, case-insensitive.
        url: the URL that the backend will connect to; only the message of an ImportError uses it.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
        ImportError: an optional dependency is missing; the message names the extra that the URL needs.
    """
    return _backends.find(name, url)
