"""The ledger: a catalog that is kept in step with a memory, in the same database or in another one."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from inspect import signature
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.catalog import CatalogBackend, compute_content_hash
from the_edge_agent.memory.contract.config import catalog_options
from the_edge_agent.memory.contract.result_types import SyncResult
from the_edge_agent.memory.core.cancelling import checkpoint
from the_edge_agent.memory.core.codec import decode
from the_edge_agent.memory.core.damage import Damage, is_key
from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.core.results import LTMError, Result, ok, outcome_of, succeeded

Facts: TypeAlias = Callable[[Sequence[str]], Mapping[str, tuple[datetime | None, str | None] | Damage]]

_PAGE_KEYS: Final = 500
_ENTRY: Final = ("key", "content_hash", "storage_uri", "byte_size", "metadata", "expires_at")


class Ledger:
    """A catalog that the transaction of the entries writes too, or no catalog at all.

    Attributes:
        catalog: the catalog, or None.
        is_here: whether the transaction that writes the entries writes the catalog too.
    """

    def __init__(self, catalog: CatalogBackend | None = None) -> None:
        """Make the ledger. A catalog must be on the database of the entries."""
        self.catalog = catalog
        self.is_here = catalog is not None

    @property
    def here(self) -> Any:
        """The catalog that the transaction of the entries writes; None without one."""
        return self.catalog if self.is_here else None

    def is_new(self) -> bool:
        """Return whether there is a catalog without entries. False if it cannot be read; the next write will fail."""
        try:
            return self.catalog is not None and not self.catalog.list_entries(limit=1)
        except LTMError:
            return False

    def record(
        self,
        memory: LTMBackend,
        keys: Sequence[str],
        stored: Collection[str],
        results: Sequence[Result],
        facts: Facts,
    ) -> None:
        """Write changes of the memory into the catalog. Here it does nothing: the transaction has done it.

        Args:
            memory: the whole memory that has changed.
            keys: the keys of the entries that may have changed, each once.
            stored: those that were stored: their entries of the catalog are written even if they do not differ.
            results: the results of the call.
            facts: takes keys and returns ``(expires_at, pointer)``, or the damage, of each entry.

        Raises:
            LTMError: ``catalog_error`` with the results of the call, which has changed the memory.
        """

    def close(self) -> None:
        """Close the catalog if this object opened it."""


class LedgerElsewhere(Ledger):
    """A catalog on another database, or of another kind. It is written after the entries; ``sync`` repairs gaps."""

    def __init__(self, catalog: CatalogBackend, *, owned: bool) -> None:
        """Make the ledger. If ``owned``, ``close`` closes the catalog too."""
        super().__init__(catalog)
        self._catalog, self._owned = catalog, owned
        self.is_here = False

    def record(
        self,
        memory: LTMBackend,
        keys: Sequence[str],
        stored: Collection[str],
        results: Sequence[Result],
        facts: Facts,
    ) -> None:
        """Write changes of the memory into the catalog; see ``Ledger.record``.

        This reads the present entries and writes those: if two threads store one key, the last one to write the
        catalog may not be the last one that wrote the memory.
        """
        work = _Sync(memory, self._catalog, facts)
        try:
            for start in range(0, len(keys), _PAGE_KEYS):
                work.sync(keys[start : start + _PAGE_KEYS], stored)
        except LTMError as failure:
            raise _unrecorded(failure, results) from None

    def close(self) -> None:
        """Close the catalog if this object opened it."""
        close = getattr(self._catalog, "close", None)
        if self._owned and close is not None:
            close()


def open_ledger(catalog: Any, database: Any, defaults: Mapping[str, Any]) -> Ledger:
    """Return the ledger of a memory.

    Args:
        catalog: None, the name of a catalog, a mapping of its type and options, or a catalog that the caller made.
        database: the database of the entries.
        defaults: options of the memory; the catalog gets those that its constructor has too.

    Raises:
        LTMError: ``configuration_error``, or any failure of the catalog's constructor.
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
    parameters = signature(factory).parameters
    inherited = {name: value for name, value in defaults.items() if name in parameters}
    try:
        here = None if beside is None else beside(database, options)
        if here is not None:
            return Ledger(here)
        return LedgerElsewhere(factory(**{**inherited, **options}), owned=True)
    except LTMError as error:
        failure = error.within("catalog")
    raise failure


def sync(memory: LTMBackend, ledger: Ledger, facts: Facts) -> SyncResult:
    """Make the catalog agree with the memory. For a damaged entry the catalog is not changed.

    Other threads may write meanwhile: an entry that changes is read again.

    Returns:
        The success dict of ``sync_catalog``.

    Raises:
        LTMError: a failure of the memory or the catalog; ``validation_error`` if there is no catalog.
    """
    catalog = ledger.catalog
    if catalog is None:
        raise LTMError("validation_error", "this memory has no catalog")
    work = _Sync(memory, catalog, facts)
    after: str | None = ""
    while after is not None:
        page = succeeded(memory.list_keys(limit=_PAGE_KEYS, after=after or None))
        work.sync(page["keys"])
        checkpoint()
        after = page["next"]
    changed = catalog.get_changed_entries()
    tracked = [entry["key"] for entry in changed] + [key for key in getattr(changed, "damaged", ()) if is_key(key)]
    for start in range(0, len(tracked), _PAGE_KEYS):
        work.sync(tracked[start : start + _PAGE_KEYS])
        checkpoint()
    damaged = {"damaged": sorted(work.damaged)} if work.damaged else {}
    return ok(tracked_count=work.tracked, deleted_count=work.deleted, **damaged)


class _Sync:
    """Makes a catalog agree with a memory.

    Attributes:
        tracked: how many entries were tracked.
        deleted: how many entries of the catalog were deleted.
        damaged: the keys of damaged entries in the memory.
    """

    def __init__(self, memory: LTMBackend, catalog: CatalogBackend, facts: Facts) -> None:
        self._memory, self._catalog, self._facts = memory, catalog, facts
        self.tracked = self.deleted = 0
        self.damaged: set[str] = set()

    def sync(self, keys: Sequence[str], stored: Collection[str] = ()) -> None:
        """Make the catalog agree with the memory at these keys; track those in ``stored`` in any case.

        After each write to the catalog, this reads the memory again, and repeats both until they agree. So if several
        threads do this, the last one to write has written the present state.
        """
        waiting = list(keys)
        while waiting:
            entries, facts = self._read(waiting)
            waiting = list(entries)
            tracked, unreadable = _readable(self._catalog.retrieve_batch, waiting)
            expected = self._expected(entries, facts)
            wrong = [key for key in expected if key in stored or _differs(expected[key], tracked.get(key))]
            gone = [
                key for key in waiting if entries[key] is None and (key in unreadable or tracked.get(key) is not None)
            ]
            if wrong:
                _track(self._catalog, [expected[key] for key in wrong])
            self.deleted += sum(self._catalog.delete_entry(key) for key in gone)
            self.tracked, stored = self.tracked + len(wrong), ()
            again, facts_again = self._read([*wrong, *gone])
            before = {key: _state(entries[key], facts.get(key)) for key in again}
            waiting = [key for key, entry in again.items() if _state(entry, facts_again.get(key)) != before[key]]

    def _read(self, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the entries of the memory at keys, and their facts, without damaged entries."""
        entries, damaged = _readable(self._memory.retrieve_many, keys)
        facts = dict(self._facts(list(entries)))
        damaged += [key for key, of_key in facts.items() if isinstance(of_key, Damage)]
        self.damaged.update(damaged)
        return {key: entry for key, entry in entries.items() if key not in damaged}, facts

    def _expected(self, entries: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return for each entry of the memory the arguments of ``track_entry``.

        An entry that no store would accept is damaged and is left out.
        """
        expected = {}
        for key, entry in entries.items():
            if entry is None:
                continue
            try:
                store = Store.of(key, entry["value"], entry["metadata"], rules=None)
            except LTMError:
                self.damaged.add(key)
                continue
            expected[key] = entry_of(store, *facts.get(key, (None, None)))
        return expected


def _readable(read: Callable[[list[str]], Result], keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the entries at keys that can be read (None for a missing one), and the keys of damaged entries."""
    damaged: list[str] = []
    while True:
        result = outcome_of(read, [key for key in keys if key not in damaged])
        more = [key for key in result.get("damaged", ()) if key in keys and key not in damaged]
        if result["success"] or not more:
            return succeeded(result)["entries"], damaged
        damaged += more


def _track(catalog: CatalogBackend, entries: list[dict[str, Any]]) -> None:
    succeeded(catalog.track_entry(**entries[0]) if len(entries) == 1 else catalog.store_batch(entries))


def _state(entry: Mapping[str, Any] | None, facts: Any) -> Any:
    """Return a value that differs for different states of an entry. It has JSON text, because 1 equals 1.0."""
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


def _differs(expected: Mapping[str, Any], tracked: Mapping[str, Any] | None) -> bool:
    """Return whether the entry of the catalog is missing or differs from the expected one."""
    if tracked is None:
        return True
    same = all(expected[name] == tracked[name] for name in _ENTRY if name != "metadata")
    return not same or compute_content_hash(expected["metadata"]) != compute_content_hash(tracked["metadata"])


def _unrecorded(failure: LTMError, results: Sequence[Result]) -> LTMError:
    done = dict(results[0]) if len(results) == 1 else {"results": list(results)}
    done.pop("success", None)
    message = f"the memory has changed, but the catalog was not updated: {failure}; repair it with sync_catalog()"
    return LTMError("catalog_error", message, **done)
