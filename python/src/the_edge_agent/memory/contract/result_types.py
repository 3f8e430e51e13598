"""The types of the dicts that memories, transactions and catalogs return, so that editors and type checkers know them.

A type has the keys of a success, and those that a failure may have. A failure has ``success``, ``error`` and
``error_type``, and of the other keys only those that its method documents. Keys that are not in each success are
optional, such as ``damaged``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict

from the_edge_agent.memory.core.results import ErrorType


class _Success(TypedDict):
    success: bool


class AnyResult(_Success, total=False):
    """What every result may have.

    Attributes:
        error: the message of a failure.
        error_type: the kind of a failure.
        unknown: whether a call that failed may have changed the memory after all.
        damaged: the keys of damaged entries.
    """

    error: str
    error_type: ErrorType
    unknown: bool
    damaged: list[str]


class _Version(TypedDict, total=False):
    version: int  # of a failure: the version of the entry, on a conflict


class _Conflict(_Version, total=False):
    key: str


class _Renewed(TypedDict, total=False):
    touched_count: int  # of a catalog_error: how many lifetimes were renewed


class _Times(TypedDict):
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class _TimesIfAsked(TypedDict, total=False):
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class _TimesOrNone(TypedDict, total=False):
    created_at: datetime | None  # None if there is no entry
    updated_at: datetime | None
    expires_at: datetime | None


class _NamespaceIfNested(TypedDict, total=False):
    namespace: tuple[str, ...]


# --- memories --------------------------------------------------------------------------------------


class StoreResult(AnyResult):
    """The result of ``store``."""

    stored: bool
    key: str
    created: bool
    version: int


class RetrieveResult(AnyResult, _TimesOrNone, _Renewed):
    """The result of ``retrieve``; with ``times`` also the times."""

    value: Any
    found: bool
    metadata: dict[str, Any] | None
    version: int | None


class DeleteResult(AnyResult, _Version):
    """The result of ``delete``."""

    deleted: bool
    key: str


class ExplainedTerm(TypedDict):
    """A term of the query, and the part of the score that it adds."""

    term: str
    score: float


class _ExplainIfAsked(TypedDict, total=False):
    explain: list[ExplainedTerm]


class FoundEntry(_Times, _ExplainIfAsked, _NamespaceIfNested):
    """An entry that ``search`` has found. A memory without the capability ``times`` gives no version and times."""

    key: str
    value: Any
    metadata: dict[str, Any] | None
    score: float
    version: int


class SearchResult(AnyResult, _Renewed):
    """The result of ``search``."""

    results: list[FoundEntry]
    count: int


class StoredEntry(TypedDict):
    """What ``store_many`` did with one entry."""

    key: str
    created: bool
    version: int


class StoreManyResult(AnyResult):
    """The result of ``store_many``."""

    stored_count: int
    results: list[StoredEntry]


class RetrievedEntry(_TimesIfAsked):
    """An entry in the result of ``retrieve_many``; with ``times`` also the times."""

    value: Any
    metadata: dict[str, Any] | None
    version: int


class RetrieveManyResult(AnyResult):
    """The result of ``retrieve_many``."""

    entries: dict[str, RetrievedEntry | None]
    found_count: int
    missing_count: int


class DeletedCountResult(AnyResult):
    """The result of ``delete_many`` and ``delete_all``."""

    deleted_count: int


class TouchResult(AnyResult, _Renewed):
    """The result of ``touch``."""

    key: str
    found: bool
    expires_at: datetime | None


class KeysResult(AnyResult):
    """The result of ``list_keys``."""

    keys: list[str]
    next: str | None


class WholeEntry(_Times, _NamespaceIfNested):
    """An entry that ``iterate_entries`` yields and ``entries`` returns, with all that ``import_entries`` needs."""

    key: str
    value: Any
    metadata: dict[str, Any] | None
    version: int
    ttl: float | None
    index: bool


class EntriesResult(AnyResult):
    """The result of ``entries``."""

    entries: list[WholeEntry]
    next: str | None


class CountResult(AnyResult):
    """The result of ``count``."""

    count: int


class MeasureResult(AnyResult):
    """The result of ``measure``."""

    entries: int
    bytes: int
    oldest: datetime | None
    newest: datetime | None
    expired_count: int
    waiting_count: int


class NamespacesResult(AnyResult):
    """The result of ``list_namespaces``."""

    namespaces: list[tuple[str, ...]]
    count: int


class ImportResult(AnyResult, _Conflict):
    """The result of ``import_entries``."""

    imported_count: int
    skipped_count: int
    replaced_count: int


class ExportResult(AnyResult):
    """The result of ``export_entries``."""

    entries: int
    sha256: str


class MoveResult(AnyResult):
    """The result of ``import_file`` and ``copy_entries``."""

    imported_count: int
    replaced_count: int
    unchanged_count: int
    skipped_count: int
    expired_count: int


class BackupResult(AnyResult):
    """The result of ``back_up``."""

    snapshot_id: str
    entries: int
    deleted_count: int
    snapshot_count: int
    sha256: str


class RestoreResult(MoveResult):
    """The result of ``restore``."""

    deleted_count: int
    snapshot_count: int


class CleanupResult(AnyResult):
    """The result of ``cleanup_expired``, also of a catalog, and of ``cleanup_storage``."""

    deleted_count: int
    remaining_count: int


class SyncResult(AnyResult):
    """The result of ``sync_catalog``."""

    tracked_count: int
    deleted_count: int


class OptimizeResult(AnyResult):
    """The result of ``optimize``."""

    stemmed: int
    blocks: int
    entries: int


# --- statistics ------------------------------------------------------------------------------------


class PoolState(TypedDict):
    """The connections of a memory or catalog, in the result of ``stats``."""

    size: int | None
    in_use: int
    idle: int
    overflow: int
    waiting: int | None


class CallStats(TypedDict):
    """The calls of one operation, in the result of ``stats``."""

    count: int
    failed: int
    retries: int
    rows: int
    seconds: float
    slowest_seconds: float


class SlowCall(TypedDict):
    """One of the slowest calls, in the result of ``stats``."""

    operation: str
    seconds: float
    at: datetime


class StatsResult(AnyResult):
    """The result of ``stats``."""

    pool: PoolState | None
    calls: dict[str, CallStats]
    slowest: list[SlowCall]
    since: datetime


# --- transactions ----------------------------------------------------------------------------------


class QueuedResult(AnyResult):
    """The result of ``store`` and ``delete`` of a transaction."""

    queued: bool


class CommitResult(AnyResult, _Conflict):
    """The result of ``commit``."""

    operations: int
    results: list[StoreResult | DeleteResult]


class RollbackResult(AnyResult):
    """The result of ``rollback``."""

    discarded: int


# --- catalogs --------------------------------------------------------------------------------------


class TrackResult(AnyResult):
    """The result of ``track_entry``."""

    entry_id: str
    created: bool


class TrackedEntry(TypedDict):
    """An entry of a catalog."""

    id: str
    key: str
    content_hash: str
    storage_uri: str | None
    byte_size: int | None
    inlined_value: Any
    metadata: dict[str, Any] | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class RefusedEntry(TypedDict):
    """An entry that ``store_batch`` has refused."""

    key: Any
    error: str
    error_type: ErrorType


class TrackManyResult(AnyResult):
    """The result of ``store_batch``."""

    stored_count: int
    failed_count: int
    errors: list[RefusedEntry]


class TrackedEntriesResult(AnyResult):
    """The result of ``retrieve_batch``."""

    entries: dict[str, TrackedEntry | None]
    found_count: int
    missing_count: int


class Snapshot(TypedDict):
    """A snapshot of a catalog, without its entries."""

    id: str
    name: str
    entry_count: int
    total_bytes: int
    created_at: datetime


class RecordedEntry(TypedDict):
    """An entry of a snapshot, as the snapshot has recorded it."""

    id: str
    key: str
    content_hash: str
    metadata_hash: str | None
    byte_size: int | None
    expires_at: datetime | None


class DeletedEntry(TypedDict):
    """An entry of a snapshot that was deleted since, as it was in the snapshot."""

    id: str
    key: str
    content_hash: str
    byte_size: int | None
    expires_at: datetime | None
