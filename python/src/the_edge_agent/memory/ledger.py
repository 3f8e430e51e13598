"""The ledger: a catalog kept in step with what is in memory, here or in another database."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from inspect import signature
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.base import LTMBackend
from the_edge_agent.memory.catalog import CatalogBackend, compute_content_hash
from the_edge_agent.memory.codec import decode
from the_edge_agent.memory.config import catalog_options
from the_edge_agent.memory.operations import Operation, Store
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
        try:
            for start in range(0, len(keys), _PAGE_KEYS):
                _sync_keys(memory, self._catalog, facts, keys[start : start + _PAGE_KEYS], stored)
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
        changes = _sync_keys(memory, catalog, facts, page["keys"])
        tracked, deleted, after = tracked + changes[0], deleted + changes[1], page["next"]
    known = [entry["key"] for entry in catalog.get_changed_entries()]
    for start in range(0, len(known), _PAGE_KEYS):
        changes = _sync_keys(memory, catalog, facts, known[start : start + _PAGE_KEYS])
        tracked, deleted = tracked + changes[0], deleted + changes[1]
    return tracked, deleted


def _sync_keys(
    memory: LTMBackend, catalog: CatalogBackend, facts: Facts, keys: Sequence[str], stored: Collection[str] = ()
) -> tuple[int, int]:
    """Make the catalog say what is in memory at some keys; track ``stored`` ones in any case.

    After each write to the catalog the memory is looked at again, until what was written is what is there: so
    whoever writes last writes the truth.

    Returns:
        How many entries were tracked, and how many deleted.
    """
    tracked = deleted = 0
    waiting = list(keys)
    while waiting:
        entries, known = succeeded(memory.retrieve_many(waiting))["entries"], facts(waiting)
        found = succeeded(catalog.retrieve_batch(waiting))["entries"]
        wanted = {
            key: entry_of(Store.of(key, entry["value"], entry["metadata"], words=False), *known.get(key, (None, None)))
            for key, entry in entries.items()
            if entry is not None
        }
        wrong = [key for key in wanted if key in stored or _differs(wanted[key], found[key])]
        gone = [key for key in waiting if key not in wanted and found[key] is not None]
        if wrong:
            _track(catalog, [wanted[key] for key in wrong])
        deleted += sum(catalog.delete_entry(key) for key in gone)
        tracked, stored = tracked + len(wrong), ()
        again, facts_again = succeeded(memory.retrieve_many([*wrong, *gone]))["entries"], facts([*wrong, *gone])
        before = {key: _state(entries[key], known.get(key)) for key in again}
        waiting = [key for key, entry in again.items() if _state(entry, facts_again.get(key)) != before[key]]
    return tracked, deleted


def _track(catalog: CatalogBackend, entries: list[dict[str, Any]]) -> None:
    succeeded(catalog.track_entry(**entries[0]) if len(entries) == 1 else catalog.store_batch(entries))


def _state(entry: Mapping[str, Any] | None, facts: Any) -> Any:
    """Return what tells two states of an entry apart; its text, because 1 equals 1.0."""
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
