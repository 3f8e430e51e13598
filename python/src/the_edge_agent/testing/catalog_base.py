"""What every part of the catalog's contract builds on: its fixtures, its usual entries, its exact comparisons."""

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
Entry: TypeAlias = dict[str, Any]
Whole = TypeVar("Whole", bound="FullCatalog")

PAST: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)  # what is tracked with it has expired at once
FUTURE: Final = datetime(2999, 12, 31, 23, 59, 59, 123456, tzinfo=timezone.utc)
FIELDS: Final = frozenset(
    {"id", "key", "content_hash", "storage_uri", "byte_size", "inlined_value", "metadata", "expires_at"}
    | {"created_at", "updated_at"}
)


class FullCatalog(CatalogBackend, Protocol):
    """A catalog with what the protocol leaves open; what a catalog lacks of it is skipped."""

    def get_snapshot(self, snapshot_id: str) -> Entry | None:
        """Return ``{"id", "name", "entry_count", "total_bytes", "created_at"}``, None if there is none."""
        ...

    def list_snapshots(self) -> list[Entry]:
        """Return all snapshots, newest first."""
        ...

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot and return whether it was there."""
        ...

    def get_deleted_entries(self, since_snapshot_id: str) -> list[Entry]:
        """Return the entries of a snapshot that the catalog no longer has."""
        ...

    def close(self) -> None:
        """End it; idempotent."""
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
        shared_by_processes: whether each call of ``open_catalog`` opens the same catalog again, in this and in
            other processes; false for one in memory.
        seed: of all generated data; a failure names it.
    """

    shared_by_processes: ClassVar[bool] = True
    seed: ClassVar[int] = 1

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        """To be overridden: a picklable callable without arguments that opens the initially empty catalog."""
        raise NotImplementedError("a subclass of CatalogContract must have a fixture open_catalog")

    @pytest.fixture
    def catalog(self, open_catalog: OpenCatalog) -> Iterator[CatalogBackend]:
        """An open catalog that is empty."""
        with opened(open_catalog) as catalog:
            yield catalog

    @pytest.fixture
    def with_snapshots(self, catalog: CatalogBackend) -> FullCatalog:
        """The catalog, where snapshots can be looked at and deleted."""
        return _if_it_has(catalog, "get_snapshot", "list_snapshots", "delete_snapshot")

    @pytest.fixture
    def with_deletions(self, catalog: CatalogBackend) -> FullCatalog:
        """The catalog, where it tells what was deleted since a snapshot."""
        return _if_it_has(catalog, "get_deleted_entries")

    @pytest.fixture
    def closable(self, catalog: CatalogBackend) -> FullCatalog:
        """The catalog, where it can be closed and be used with ``with``."""
        return _if_it_has(catalog, "close", "__enter__", "__exit__")

    @pytest.fixture
    def reopen_catalog(self, open_catalog: OpenCatalog) -> OpenCatalog:
        """The opener, where it opens the same catalog again."""
        if not self.shared_by_processes:
            pytest.skip("the catalog ends with the object that opened it")
        return open_catalog


def _if_it_has(catalog: CatalogBackend, *names: str) -> FullCatalog:
    if missing := [name for name in names if not hasattr(catalog, name)]:
        pytest.skip(f"the catalog has no {', '.join(missing)}")
    return cast(FullCatalog, catalog)


@contextmanager
def opened(open_catalog: OpenCatalog) -> Iterator[CatalogBackend]:
    """Open a catalog, and close it at the end if that is something it knows."""
    catalog = open_catalog()
    try:
        yield catalog
    finally:
        getattr(catalog, "close", lambda: None)()


def entry_of(key: Any, **fields: Any) -> Entry:
    """Return the arguments of ``track_entry`` for a key, with what a test does not care about."""
    usual = {"content_hash": f"sha256:{0:064}", "storage_uri": None, "byte_size": 1, "metadata": None}
    return {"key": key, **usual, **fields}


def track(catalog: CatalogBackend, key: str, **fields: Any) -> Result:
    """Track an entry and return the result, which must be a success."""
    return assert_success(catalog.track_entry(**entry_of(key, **fields)))


def track_all(catalog: CatalogBackend, entries: Iterable[Entry]) -> None:
    """Track entries in one batch."""
    entries = [*entries]
    expected = {"success": True, "stored_count": len(entries), "failed_count": 0, "errors": []}
    assert_same(catalog.store_batch(entries), expected)


def found(catalog: CatalogBackend, key: str) -> Entry:
    """Return the entry of a key, which must be there and have every field."""
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
    """Return the moment that is so many seconds ahead."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def contents(catalog: CatalogBackend) -> list[str]:
    """Return every entry as a text that differs wherever two entries do, times included."""
    return [json.dumps(entry, sort_keys=True, default=repr) for entry in catalog.get_changed_entries()]


def result_of(call: Callable[[], Any]) -> Result:
    """Return the failure dict that a call raises, or its answer in a success dict."""
    try:
        return {"success": True, "answer": call()}
    except LTMError as failure:
        return failure.result


def assert_raises(call: Callable[[], Any], error_type: str) -> None:
    """Check that a call raises an ``LTMError`` of this type."""
    assert_failure(result_of(call), error_type)
