"""The ledger: a catalog kept in step with what is in memory, here or in another database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from inspect import signature
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.base import LTMBackend
from the_edge_agent.memory.catalog import CatalogBackend, compute_content_hash
from the_edge_agent.memory.codec import decode
from the_edge_agent.memory.config import catalog_options
from the_edge_agent.memory.operations import Delete, Operation, Store
from the_edge_agent.memory.results import LTMError, Result, succeeded

Facts: TypeAlias = Callable[[Sequence[str]], Mapping[str, tuple[datetime | None, str | None]]]

_PAGE_KEYS: Final = 500
_ENTRY: Final = ("key", "content_hash", "storage_uri", "byte_size", "metadata", "expires_at")


class Ledger:
    """No catalog, or one that is written together with the entries: in the same transaction.

    Attributes:
        catalog: the catalog, if there is one.
        is_here: whether the transaction that writes the entries writes the catalog too.
    """

    def __init__(self, catalog: CatalogBackend | None = None) -> None:
        """Make the ledger; a catalog must be on the database of the entries."""
        self.catalog = catalog
        self.is_here = catalog is not None

    def record(self, operations: Sequence[Operation], results: Sequence[Result], facts: Facts) -> None:
        """Write down what has been done to the entries.

        Args:
            operations: the stores and deletes.
            results: of each.
            facts: tells when keys expire, and the pointers to their values.

        Raises:
            LTMError: ``catalog_error`` with the results, which stand.
        """

    def close(self) -> None:
        """Close a catalog of our own."""


class LedgerElsewhere(Ledger):
    """A catalog of another database or kind, written after the entries; ``sync`` repairs what was missed."""

    def __init__(self, catalog: CatalogBackend, *, owned: bool) -> None:
        """Make the ledger; an owned catalog is closed with it."""
        super().__init__(catalog)
        self._catalog, self._owned = catalog, owned
        self.is_here = False

    def record(self, operations: Sequence[Operation], results: Sequence[Result], facts: Facts) -> None:
        """Write down what has been done; see ``Ledger.record``."""
        last = {operation.key: operation for operation in operations}
        stores = [operation for operation in last.values() if isinstance(operation, Store)]
        try:
            self.forget({operation.key for operation in operations if isinstance(operation, Delete)})
            mortal = [store.key for store in stores if store.ttl is not None]
            ends = facts(mortal) if mortal else {}
            self.track([entry_of(store, *ends.get(store.key, (None, store.pointer))) for store in stores])
        except LTMError as failure:
            raise _unrecorded(failure, results) from None

    def forget(self, keys: set[str]) -> None:
        """Delete the catalog's entries of keys.

        Raises:
            LTMError: the catalog's own.
        """
        for key in sorted(keys):
            self._catalog.delete_entry(key)

    def track(self, entries: list[dict[str, Any]]) -> None:
        """Track entries.

        Raises:
            LTMError: the catalog's own.
        """
        if not entries:
            return
        result = self._catalog.track_entry(**entries[0]) if len(entries) == 1 else self._catalog.store_batch(entries)
        succeeded(result)

    def close(self) -> None:
        """Close a catalog of our own."""
        close = getattr(self._catalog, "close", None)
        if self._owned and close is not None:
            close()


def open_ledger(catalog: Any, database: Any, defaults: Mapping[str, Any]) -> Ledger:
    """Return the ledger of a memory.

    Args:
        catalog: None, the name of a catalog, a mapping of its type and options, or a catalog of the caller's.
        database: of the entries.
        defaults: options of the memory that the catalog takes over.

    Raises:
        LTMError: ``configuration_error``, or what the catalog's constructor raises.
    """
    if catalog is None:
        return Ledger()
    if not isinstance(catalog, (str, Mapping)):
        if not isinstance(catalog, CatalogBackend):
            raise LTMError("configuration_error", "catalog must be the name of a catalog, a mapping, or a catalog")
        is_on = getattr(catalog, "is_on", None)
        is_here = is_on is not None and is_on(database)
        return Ledger(catalog) if is_here else LedgerElsewhere(catalog, owned=False)
    factory, options = catalog_options(catalog)
    beside = getattr(factory, "beside", None)
    taken = signature(factory).parameters
    inherited = {name: value for name, value in defaults.items() if name in taken}
    try:
        here = None if beside is None else beside(database, options)
        if here is not None:
            return Ledger(here)
        return LedgerElsewhere(factory(**{**inherited, **options}), owned=True)
    except LTMError as error:
        failure = error.within("catalog")
    raise failure


def sync(memory: LTMBackend, ledger: Ledger, facts: Facts) -> tuple[int, int]:
    """Make the catalog say what is in memory; return how many entries were wrong or missing, and how many too many.

    Writers may go on: what has changed meanwhile is looked at again.

    Raises:
        LTMError: of the memory or the catalog, or ``validation_error`` without a catalog.
    """
    catalog = ledger.catalog
    if catalog is None:
        raise LTMError("validation_error", "this memory has no catalog")
    tracked = deleted = 0
    after: str | None = ""
    while after is not None:
        page = succeeded(memory.list_keys(limit=_PAGE_KEYS, after=after or None))
        tracked, after = tracked + _sync_keys(memory, catalog, facts, page["keys"]), page["next"]
    known = [entry["key"] for entry in catalog.get_changed_entries()]
    for start in range(0, len(known), _PAGE_KEYS):
        keys = known[start : start + _PAGE_KEYS]
        found = succeeded(memory.retrieve_many(keys))["entries"]
        for key in (key for key in keys if found[key] is None):
            deleted += catalog.delete_entry(key)
            _sync_keys(memory, catalog, facts, [key])  # in case it was stored just now
    return tracked, deleted


def _sync_keys(memory: LTMBackend, catalog: CatalogBackend, facts: Facts, keys: Sequence[str]) -> int:
    tracked, waiting = 0, list(keys)
    while waiting:
        entries = succeeded(memory.retrieve_many(waiting))["entries"]
        found, known = succeeded(catalog.retrieve_batch(waiting))["entries"], facts(waiting)
        there = {key: entry for key, entry in entries.items() if entry is not None}
        wanted = {
            key: entry_of(Store.of(key, entry["value"], entry["metadata"]), *known.get(key, (None, None)))
            for key, entry in there.items()
        }
        wrong = [key for key in wanted if _differs(wanted[key], found[key])]
        if wrong:
            succeeded(catalog.store_batch([wanted[key] for key in wrong]))
        tracked += len(wrong)
        again = succeeded(memory.retrieve_many(wrong))["entries"]
        waiting = [key for key in wrong if (again[key] or {}).get("version") != there[key]["version"]]
        for key in waiting:
            if again[key] is None:
                catalog.delete_entry(key)
    return tracked


def entry_of(store: Store, expires_at: datetime | None, pointer: str | None) -> dict[str, Any]:
    """Return the arguments of ``track_entry`` for a store."""
    return {
        "key": store.key,
        "content_hash": compute_content_hash(decode(store.value)),
        "storage_uri": pointer,
        "byte_size": len(store.value.encode()),
        "metadata": None if store.metadata is None else decode(store.metadata),
        "expires_at": expires_at,
    }


def _differs(entry: Mapping[str, Any], found: Mapping[str, Any] | None) -> bool:
    """Return whether the catalog says something else of an entry, or nothing."""
    if found is None:
        return True
    same = all(entry[name] == found[name] for name in _ENTRY if name != "metadata")
    return not same or compute_content_hash(entry["metadata"]) != compute_content_hash(found["metadata"])


def _unrecorded(failure: LTMError, results: Sequence[Result]) -> LTMError:
    done = dict(results[0]) if len(results) == 1 else {"results": list(results)}
    done.pop("success", None)
    message = f"the memory has changed, and the catalog does not say so: {failure}; repair it with sync_catalog()"
    return LTMError("catalog_error", message, **done)
