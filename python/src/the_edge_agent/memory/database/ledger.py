"""The ledger: a catalog kept in step with what is in memory, here or in another database."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from inspect import signature
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.catalog import CatalogBackend, compute_content_hash
from the_edge_agent.memory.contract.config import catalog_options
from the_edge_agent.memory.core.codec import decode
from the_edge_agent.memory.core.damage import Damage, is_key
from the_edge_agent.memory.core.operations import Operation, Store
from the_edge_agent.memory.core.results import LTMError, Result, ok, succeeded

Facts: TypeAlias = Callable[[Sequence[str]], Mapping[str, tuple[datetime | None, str | None] | Damage]]

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

    @property
    def here(self) -> Any:
        """The catalog that the transaction of the entries writes; None without one."""
        return self.catalog if self.is_here else None

    def is_new(self) -> bool:
        """Return whether there is a catalog without entries; one that cannot be read says so when it is written."""
        try:
            return self.catalog is not None and not self.catalog.list_entries(limit=1)
        except LTMError:
            return False

    def record(
        self, memory: LTMBackend, operations: Sequence[Operation], results: Sequence[Result], facts: Facts
    ) -> None:
        """Write down what has been done to the entries.

        Args:
            memory: that has done it.
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

    def record(
        self, memory: LTMBackend, operations: Sequence[Operation], results: Sequence[Result], facts: Facts
    ) -> None:
        """Write down what has been done; see ``Ledger.record``.

        What is written down is what is in memory now: of concurrent writers to one key the last to write the
        catalog is not always the last to have written the memory.
        """
        keys = list(dict.fromkeys(operation.key for operation in operations))
        stored = {operation.key for operation in operations if isinstance(operation, Store)}
        work = _Sync(memory, self._catalog, facts)
        try:
            for start in range(0, len(keys), _PAGE_KEYS):
                work.sync(keys[start : start + _PAGE_KEYS], stored)
        except LTMError as failure:
            raise _unrecorded(failure, results) from None

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
        if isinstance(catalog, type) or not isinstance(catalog, CatalogBackend):
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


def sync(memory: LTMBackend, ledger: Ledger, facts: Facts) -> Result:
    """Make the catalog say what is in memory; what is damaged there stays as it is in the catalog.

    Writers may go on: what has changed meanwhile is looked at again.

    Returns:
        The success dict of ``sync_catalog``.

    Raises:
        LTMError: of the memory or the catalog, or ``validation_error`` without a catalog.
    """
    catalog = ledger.catalog
    if catalog is None:
        raise LTMError("validation_error", "this memory has no catalog")
    work = _Sync(memory, catalog, facts)
    after: str | None = ""
    while after is not None:
        page = succeeded(memory.list_keys(limit=_PAGE_KEYS, after=after or None))
        work.sync(page["keys"])
        after = page["next"]
    changed = catalog.get_changed_entries()
    known = [entry["key"] for entry in changed] + [key for key in getattr(changed, "damaged", ()) if is_key(key)]
    for start in range(0, len(known), _PAGE_KEYS):
        work.sync(known[start : start + _PAGE_KEYS])
    named = {"damaged": sorted(work.damaged)} if work.damaged else {}
    return ok(tracked_count=work.tracked, deleted_count=work.deleted, **named)


class _Sync:
    """Makes a catalog say what is in memory.

    Attributes:
        tracked: how many entries were tracked.
        deleted: how many were deleted.
        damaged: the keys of the entries in memory that are damaged.
    """

    def __init__(self, memory: LTMBackend, catalog: CatalogBackend, facts: Facts) -> None:
        self._memory, self._catalog, self._facts = memory, catalog, facts
        self.tracked = self.deleted = 0
        self.damaged: set[str] = set()

    def sync(self, keys: Sequence[str], stored: Collection[str] = ()) -> None:
        """Bring the catalog in step with the memory at some keys; track ``stored`` ones in any case.

        After each write to the catalog, this reads the memory again. It repeats both until the catalog agrees with the
        memory: so whoever writes last writes the truth.
        """
        waiting = list(keys)
        while waiting:
            entries, known = self._look(waiting)
            waiting = list(entries)
            found, unreadable = _readable(self._catalog.retrieve_batch, waiting)
            wanted = self._wanted(entries, known)
            wrong = [key for key in wanted if key in stored or _differs(wanted[key], found.get(key))]
            gone = [
                key for key in waiting if entries[key] is None and (key in unreadable or found.get(key) is not None)
            ]
            if wrong:
                _track(self._catalog, [wanted[key] for key in wrong])
            self.deleted += sum(self._catalog.delete_entry(key) for key in gone)
            self.tracked, stored = self.tracked + len(wrong), ()
            again, facts_again = self._look([*wrong, *gone])
            before = {key: _state(entries[key], known.get(key)) for key in again}
            waiting = [key for key, entry in again.items() if _state(entry, facts_again.get(key)) != before[key]]

    def _look(self, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the entries at keys, and their facts, without those that are damaged."""
        entries, damaged = _readable(self._memory.retrieve_many, keys)
        known = dict(self._facts(list(entries)))
        damaged += [key for key, facts in known.items() if isinstance(facts, Damage)]
        self.damaged.update(damaged)
        return {key: entry for key, entry in entries.items() if key not in damaged}, known

    def _wanted(self, entries: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the arguments of ``track_entry`` for entries; what nobody could store is damaged."""
        wanted = {}
        for key, entry in entries.items():
            if entry is None:
                continue
            try:
                store = Store.of(key, entry["value"], entry["metadata"], rules=None)
            except LTMError:
                self.damaged.add(key)
                continue
            wanted[key] = entry_of(store, *known.get(key, (None, None)))
        return wanted


def _readable(read: Callable[[list[str]], Result], keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the entries at keys that can be read, None for none, and the keys of the others."""
    damaged: list[str] = []
    while True:
        result = read([key for key in keys if key not in damaged])
        more = [key for key in result.get("damaged", ()) if key in keys and key not in damaged]
        if result["success"] or not more:
            return succeeded(result)["entries"], damaged
        damaged += more


def _track(catalog: CatalogBackend, entries: list[dict[str, Any]]) -> None:
    succeeded(catalog.track_entry(**entries[0]) if len(entries) == 1 else catalog.store_batch(entries))


def _state(entry: Mapping[str, Any] | None, facts: Any) -> Any:
    """Return a text that differs for two states of an entry; a text, because 1 equals 1.0."""
    return None if entry is None else (json.dumps(entry), facts)


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
