"""The contract of long-term memory: LTMBackend, and the registry of backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from the_edge_agent.memory.contract.registry import Registry
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.damage import Damage, Readable, whole_entries
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.operations import Delete, Operation, Store, stores_of
from the_edge_agent.memory.core.query import check_explain, check_match
from the_edge_agent.memory.core.results import (
    ENTRY_FIELDS,
    LTMError,
    Result,
    fail,
    ok,
    page_of_keys,
    returns_result,
    succeeded,
)
from the_edge_agent.memory.core.tokens import EXACT
from the_edge_agent.memory.core.validation import (
    MAX_LIMIT,
    check_after,
    check_flag,
    check_keys,
    check_limit,
    check_prefix,
)

Self = TypeVar("Self", bound="LTMBackend")


class LTMBackend(ABC):
    """Long-term memory: entries of a key, a JSON value and JSON metadata that outlive the process.

    Keys are text of 1 to 512 characters, exact in case, accents and spaces. Values are any JSON value.
    Metadata is a JSON object or None. Methods return a dict: ``{"success": True, ...}``, or
    ``{"success": False, "error": str, "error_type": str}`` and nothing has changed. What returns no dict
    (constructors, ``iterate_all``, ``transaction``) raises ``LTMError``, whose ``result`` is that dict.

    A backend may be used by many threads at once; each call is one transaction. Whoever creates a backend
    closes it. Third parties write the five abstract methods, and have all others by them; a promise that the
    five cannot keep is a capability: what a backend does not declare is refused as ``validation_error``.

    Attributes:
        capabilities: what the backend promises beyond the five methods: ``"transactions"`` (it provides
            ``_apply``, and so has ``transaction``, ``store_many`` and ``delete_many``, and a ``retrieve_many``
            that sees one state), ``"ttl"`` (``store``
            keeps lifetimes, it provides ``cleanup_expired``), ``"versions"`` (``store`` obeys ``if_version``),
            ``"times"`` (``store`` keeps ``expires_at``, it provides ``iterate_entries``), ``"match"`` (``search``
            knows ``match`` and ``explain``).
    """

    capabilities: frozenset[str] = frozenset()

    _keeps_words: bool = True  # whether the search tokens of an entry are made

    @abstractmethod
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
        """Create or replace the entry at ``key``.

        Args:
            key: 1 to 512 characters, without NUL or lone surrogates.
            value: any JSON value, None included.
            metadata: a JSON object or None, at most 30 levels deep, without NUL, integers within 64 bits.
            ttl: seconds until the entry expires, up to 100 years; None for never. An expired entry is as if
                it were not there: for every read at once, and for the next store, which creates it anew.
            if_version: store only over this version; 0 only if there is no entry; None in any case.
            expires_at: when the entry expires, in place of ``ttl``: a datetime, a naive one means UTC. One in the
                past is kept too: the entry is stored, and has expired at once.

        Returns:
            ``{"success": True, "stored": True, "key": str, "created": bool, "version": int}``: ``created``
            is true exactly once per key under any race, ``version`` starts at 1 and grows by 1 per store.
            If ``if_version`` does not hold, a failure with ``error_type`` ``conflict``, the ``key`` and the
            ``version`` that the entry has, 0 if there is none.
        """

    @abstractmethod
    def retrieve(self, key: str, default: Any = None) -> Result:
        """Return the entry at ``key``.

        Returns:
            ``{"success": True, "value": Any, "found": bool, "metadata": dict | None, "version": int | None}``;
            when there is none, ``value`` is ``default``, ``found`` false, metadata and version None.
            An entry that is damaged, because somebody else wrote its row, is a ``query_error`` with its key in
            ``damaged``.
        """

    @abstractmethod
    def delete(self, key: str) -> Result:
        """Delete the entry at ``key``.

        Returns:
            ``{"success": True, "deleted": bool, "key": str}``; ``deleted`` is false when there was none.
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
    ) -> Result:
        """Return the entries that match all of the conditions given, best first.

        Args:
            query: a question or words, ``"phrases"`` and ``prefix*``; ``+word`` must occur, ``-word`` must not. None or
                empty for no text condition.
            match: ``any``: an entry that has some of the words is found, and ranked by how much they tell. ``all``:
                every word must occur. ``any`` unless given; a backend without the capability ``"match"`` knows
                only ``all``.
            metadata_filter: equality by key, or operators such as ``{"age": {"$gte": 18}}``.
            limit: 1 to 10,000.
            prefix: what the key begins with.
            offset: how many of the results to skip.
            explain: whether each result has an ``explain`` too: ``[{"term": str, "score": float}]``, the terms of the
                query that the entry has, and what each adds to the score.

        Returns:
            ``{"success": True, "results": [{"key", "value", "metadata", "score"}], "count": int}``, ordered
            by score, then newest, then key; docs/search.md has the rules. Without words to look for
            scores are 0.0. What is damaged is no result: the search goes on without it,
            and if it came upon such entries, their keys are in ``damaged``.
        """

    @abstractmethod
    def close(self) -> None:
        """Release every connection. Idempotent; afterwards every call is a ``connection_error``."""

    @returns_result
    def store_many(self, entries: Iterable[Mapping[str, Any]]) -> Result:
        """Store many entries in one transaction, all or nothing.

        Args:
            entries: dicts with ``key`` and ``value``, and where wanted ``metadata`` and ``ttl`` or
                ``expires_at``, as for ``store``. A key that comes twice is stored twice, in this order.

        Returns:
            ``{"success": True, "stored_count": int, "results": [{"key", "created", "version"}]}``, one result
            for each entry, in order.
        """
        self._require("transactions")
        stores = stores_of(entries, rules=self._rules if self._keeps_words else None)
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
    def retrieve_many(self, keys: Iterable[str]) -> Result:
        """Return the entries at many keys.

        Returns:
            ``{"success": True, "entries": {key: {"value", "metadata", "version"} | None}, "found_count": int,
            "missing_count": int}``, each key once, in the order given; None where there is no entry. Where some
            are damaged, a ``query_error`` with their keys in ``damaged``.
        """
        entries: dict[str, dict[str, Any] | Damage | None] = {}
        for key in check_keys(keys):
            found = self.retrieve(key)
            if not found["success"] and key in found.get("damaged", ()):
                entries[key] = Damage(key, "entry", "it cannot be read")
                continue
            succeeded(found)
            entries[key] = {name: found[name] for name in ENTRY_FIELDS} if found["found"] else None
        return whole_entries(entries)

    @returns_result
    def delete_many(self, keys: Iterable[str]) -> Result:
        """Delete the entries at many keys in one transaction.

        Returns:
            ``{"success": True, "deleted_count": int}``: how many there were.
        """
        self._require("transactions")
        results = self._apply([Delete(key) for key in check_keys(keys)])
        return ok(deleted_count=sum(result["deleted"] for result in results))

    @returns_result
    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
        """Return a page of the keys in code-point order.

        Args:
            prefix: what the keys begin with.
            limit: 1 to 10,000.
            after: return keys above this one only: the ``next`` of the page before.

        Returns:
            ``{"success": True, "keys": [str], "next": str | None}``; ``next`` is None on the last page.
        """
        wanted, last = check_limit(limit), check_after(after)
        above = (key for key, _, _ in self.iterate_all(prefix) if key > last)
        return page_of_keys(list(islice(above, wanted + 1)), wanted)

    @returns_result
    def count(self, prefix: str | None = None) -> Result:
        """Return ``{"success": True, "count": int}``: how many entries there are, or begin with ``prefix``."""
        return ok(count=sum(1 for _ in self.iterate_all(prefix)))

    def cleanup_expired(self, batch_size: int = 100) -> Result:
        """Remove expired entries, which no call sees any more, from the store; repeat while some remain.

        Args:
            batch_size: how many to remove in this call, 1 to 10,000.

        Returns:
            ``{"success": True, "deleted_count": int, "remaining_count": int}``.
        """
        return fail("validation_error", f"{type(self).__name__} keeps no lifetimes")

    def iterate_all(self, prefix: str | None = None) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        """Yield ``(key, value, metadata)`` of every entry in key order (by code point).

        Entries are as they are when they are read; one that changes meanwhile may be seen before or after. What is
        damaged is left out, and named in the log; the iterator has the keys so far in its attribute ``damaged``.

        Raises:
            LTMError: at once for a bad prefix, later if the database fails.
        """
        check_prefix(prefix)
        found: list[dict[str, Any]] = []
        damages: dict[str, Damage] = {}
        while True:
            page = succeeded(self.search(prefix=prefix, limit=MAX_LIMIT, offset=len(found)))
            found += page["results"]
            damages |= {key: Damage(key, "entry", "it cannot be read") for key in page.get("damaged", ())}
            if page["count"] < MAX_LIMIT:
                break
        found.sort(key=lambda entry: str(entry["key"]))
        return Readable([*damages.values(), *((entry["key"], entry["value"], entry["metadata"]) for entry in found)])

    def iterate_entries(self, prefix: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield ``{"key", "value", "metadata", "version", "created_at", "updated_at", "expires_at"}`` in key order.

        As ``iterate_all``, with all that a copy needs; the times are datetimes in UTC, ``expires_at`` may be None.
        To be provided with the capability ``"times"``.

        Raises:
            LTMError: as for ``iterate_all``; ``validation_error`` if the backend has no capability ``"times"``.
        """
        check_prefix(prefix)
        self._require("times")
        raise NotImplementedError(f"{type(self).__name__} declares times and provides no iterate_entries")

    def transaction(self) -> LTMTransaction:
        """Return a transaction that queues stores and deletes until ``commit``.

        Raises:
            LTMError: ``connection_error`` after close, ``validation_error`` if the backend has no
                capability ``"transactions"``.
        """
        self._require("transactions")
        return LTMTransaction(self.check_store, self._apply)

    def check_store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: float | None = None,
        if_version: int | None = None,
        expires_at: datetime | None = None,
    ) -> Store:
        """Check and encode the arguments of ``store``; for the authors of backends.

        Raises:
            LTMError: ``validation_error``, also for an argument that needs a capability which the backend
                does not declare, or ``serialization_error``.
        """
        rules = self._rules if self._keeps_words else None
        store = Store.of(key, value, metadata, ttl=ttl, if_version=if_version, expires_at=expires_at, rules=rules)
        self._require_all(store)
        return store

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Run operations in one database transaction; return the result dict of each, in order.

        To be provided with the capability ``"transactions"``.

        Raises:
            LTMError: nothing has changed then.
        """
        raise NotImplementedError(f"{type(self).__name__} declares transactions and provides no _apply")

    def check_match(self, match: Any, *, explain: bool = False) -> Literal["any", "all"]:
        """Check these arguments of ``search`` and return the way to match; for the authors of backends.

        Raises:
            LTMError: ``validation_error``, also for ``any`` and ``explain`` without the capability ``"match"``.
        """
        explains = check_explain(explain)
        if "match" in self.capabilities:
            return check_match(match)
        if match not in (None, "all") or explains:
            self._require("match")
        return "all"

    @property
    def language(self) -> str:
        """The language of the words that are searched, ``none`` for exact words."""
        return self._rules().name

    def _rules(self) -> Language:
        """Return the rules of the language of the words that are kept."""
        return EXACT

    def _require_all(self, store: Store) -> None:
        if store.ttl is not None:
            self._require("ttl")
        if store.expires_at is not None:
            self._require("times")
        if store.if_version is not None:
            self._require("versions")

    def _require(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise LTMError("validation_error", f"{type(self).__name__} does not have the capability {capability!r}")

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
_SEARCH: Final = ("search", "full_text")  # the argument of our constructors, and its name in configurations
_SEARCHING: Final = ("postgres", "sqlalchemy", "sqlite")  # the backends that take it


def register_backend(name: str, factory: BackendFactory) -> None:
    """Make ``create_ltm_backend(name, ...)`` call ``factory(...)``; a later registration replaces it.

    Third parties may instead declare an entry point in the group ``the_edge_agent.ltm_backends``.

    Args:
        name: case-insensitive.
        factory: a class or function that returns an ``LTMBackend``.
    """
    _backends.register(name, factory)


def get_registered_backends() -> list[str]:
    """Return the names that ``create_ltm_backend`` knows, sorted."""
    return _backends.names()


def create_ltm_backend(backend_type: str = "sqlalchemy", **options: Any) -> LTMBackend:
    """Return a new backend; the caller closes it.

    Args:
        backend_type: a registered name, case-insensitive.
        options: the arguments of the backend's constructor, such as ``url``; ``full_text`` for ``search``, too.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        LTMError: the backend could not be built.
        ImportError: its optional dependency is missing; the message names the extra to install.
    """
    factory = find_backend_factory(backend_type, options.get("url"))
    return factory(**constructor_options(backend_type, options))


def other_names(backend_type: str) -> tuple[str, ...]:
    """Return the names that ``constructor_options`` takes for arguments of a backend's constructor."""
    return _SEARCH[1:] if backend_type.strip().lower() in _SEARCHING else ()


def constructor_options(backend_type: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a backend's constructor: ``full_text`` is called ``search`` there.

    Raises:
        LTMError: ``configuration_error`` for two that differ.
    """
    found = dict(options)
    if not isinstance(backend_type, str) or not any(name in found for name in other_names(backend_type)):
        return found
    values = {check_flag(name, found.pop(name)) for name in _SEARCH if name in found}
    if len(values) > 1:
        raise LTMError("configuration_error", "full_text and search mean the same; give one of them")
    return {**found, "search": values.pop()}


def find_backend_factory(name: str, url: Any = None) -> BackendFactory:
    """Return the registered class or function of a name, which is to serve a URL.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        ImportError: its optional dependency is missing; the message names the extra that the URL needs.
    """
    return _backends.find(name, url)
