"""The fixtures, usual entries and exact comparisons that every part of the catalog's contract uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, Final, Protocol, TypeAlias, TypeVar, cast

import pytest

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.core.results import LTMError, Result
from the_edge_agent.testing.contract import assert_failure, assert_same, assert_success

OpenCatalog: TypeAlias = Callable[[], CatalogBackend]
Entry: TypeAlias = Any  # an entry of a catalog, of any type
Whole = TypeVar("Whole", bound="FullCatalog")

PAST: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)  # an entry with this expiry has expired at once
FUTURE: Final = datetime(2999, 12, 31, 23, 59, 59, 123456, tzinfo=timezone.utc)
FIELDS: Final = frozenset(
    {"id", "key", "content_hash", "storage_uri", "byte_size", "inlined_value", "metadata", "expires_at"}
    | {"created_at", "updated_at"}
)


class FullCatalog(CatalogBackend, Protocol):
    """A catalog with methods beyond the protocol. Rules for those that a catalog does not have are skipped."""

    def get_snapshot(self, snapshot_id: str) -> Entry | None:
        """Return ``{"id", "name", "entry_count", "total_bytes", "created_at"}``, or None if there is no snapshot."""
        ...

    def list_snapshots(self) -> list[Entry]:
        """Return all snapshots, newest first."""
        ...

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot and return whether there was one."""
        ...

    def get_deleted_entries(self, since_snapshot_id: str) -> list[Entry]:
        """Return the entries of a snapshot that were deleted or have expired since."""
        ...

    def close(self) -> None:
        """Close the catalog. Closing it again does nothing."""
        ...

    def __enter__(self: Whole) -> Whole:
        """Return the catalog itself."""
        ...

    def __exit__(self, *error: Any) -> None:
        """Close the catalog."""
        ...


class CatalogBase:
    """The fixtures of the catalog's contract.

    Attributes:
        shared_by_processes: whether each call of ``open_catalog`` opens the same catalog again, in this process and in
            others. False for a catalog in RAM.
        seed: the seed of all generated data. The message of a failure names it.
    """

    shared_by_processes: ClassVar[bool] = True
    seed: ClassVar[int] = 1

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        """Return a picklable function without arguments that opens the catalog, empty at first. Override this."""
        raise NotImplementedError("a subclass of CatalogContract must have a fixture open_catalog")

    @pytest.fixture
    def catalog(self, open_catalog: OpenCatalog) -> Iterator[CatalogBackend]:
        """Return an open, empty catalog."""
        with opened(open_catalog) as catalog:
            yield catalog

    @pytest.fixture
    def with_snapshots(self, catalog: CatalogBackend) -> FullCatalog:
        """Return the catalog; skip the test if it cannot list and delete snapshots."""
        return _if_it_has(catalog, "get_snapshot", "list_snapshots", "delete_snapshot")

    @pytest.fixture
    def with_deletions(self, catalog: CatalogBackend) -> FullCatalog:
        """Return the catalog; skip the test if it has no ``get_deleted_entries``."""
        return _if_it_has(catalog, "get_deleted_entries")

    @pytest.fixture
    def closable(self, catalog: CatalogBackend) -> FullCatalog:
        """Return the catalog; skip the test if it cannot be closed or used with ``with``."""
        return _if_it_has(catalog, "close", "__enter__", "__exit__")

    @pytest.fixture
    def reopen_catalog(self, open_catalog: OpenCatalog) -> OpenCatalog:
        """Return ``open_catalog``; skip the test if it cannot open the same catalog again."""
        if not self.shared_by_processes:
            pytest.skip("the catalog ends with the object that opened it")
        return open_catalog


def _if_it_has(catalog: CatalogBackend, *names: str) -> FullCatalog:
    if missing := [name for name in names if not hasattr(catalog, name)]:
        pytest.skip(f"the catalog has no {', '.join(missing)}")
    return cast(FullCatalog, catalog)


@contextmanager
def opened(open_catalog: OpenCatalog) -> Iterator[CatalogBackend]:
    """Open a catalog, and close it at the end if it has a ``close``."""
    catalog = open_catalog()
    try:
        yield catalog
    finally:
        getattr(catalog, "close", lambda: None)()


def entry_of(key: Any, **fields: Any) -> Entry:
    """Return the arguments of ``track_entry`` for a key, with defaults for those that a test does not name."""
    usual = {"content_hash": f"sha256:{0:064}", "storage_uri": None, "byte_size": 1, "metadata": None}
    return {"key": key, **usual, **fields}


def track(catalog: CatalogBackend, key: str, **fields: Any) -> Result:
    """Track an entry, check that this succeeds, and return the result."""
    return assert_success(catalog.track_entry(**entry_of(key, **fields)))


def track_all(catalog: CatalogBackend, entries: Iterable[Entry]) -> None:
    """Track entries in one batch."""
    entries = [*entries]
    expected = {"success": True, "stored_count": len(entries), "failed_count": 0, "errors": []}
    assert_same(catalog.store_batch(entries), expected)


def entry_at(catalog: CatalogBackend, key: str) -> Entry:
    """Return the entry of a key, and check that it exists and has every field."""
    entry = catalog.get_entry(key)
    assert entry is not None, ascii(key)
    assert entry.keys() == FIELDS
    return entry


def id_of(key: str) -> str:
    """Return the id that the entry of a key must have."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def keys(entries: Iterable[Entry]) -> list[str]:
    """Return the keys of entries, in order."""
    return [entry["key"] for entry in entries]


def in_seconds(seconds: float) -> datetime:
    """Return the time that many seconds from now."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def contents(catalog: CatalogBackend) -> list[str]:
    """Return every entry as text that differs if two entries differ in anything, times included."""
    return [json.dumps(entry, sort_keys=True, default=repr) for entry in catalog.get_changed_entries()]


def result_of(call: Callable[[], Any]) -> Result:
    """Return a result dict: the failure dict that a call raises, or a success dict with its answer."""
    try:
        return {"success": True, "answer": call()}
    except LTMError as failure:
        return failure.result


def assert_raises(call: Callable[[], Any], error_type: str) -> None:
    """Check that a call raises an ``LTMError`` of this type."""
    assert_failure(result_of(call), error_type)
