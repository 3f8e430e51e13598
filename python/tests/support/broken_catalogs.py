"""Catalogs with one fault each, and the rule of the contract that must fail on each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from broken_races import wait_for
from memory_catalog import MemoryCatalog, Row, checked
from the_edge_agent.memory import LTMError
from the_edge_agent.memory.core.results import Result, ok, returns_result

Broken = TypeVar("Broken", bound=type[MemoryCatalog])

CATALOG_FAULTS: Final[dict[type[MemoryCatalog], str]] = {}


def caught_by(test: str) -> Callable[[Broken], Broken]:
    """Register a broken catalog with the test that must fail on it."""

    def register(broken: Broken) -> Broken:
        CATALOG_FAULTS[broken] = test
        return broken

    return register


@caught_by("test_a_second_track_creates_nothing")
class AlwaysCreates(MemoryCatalog):
    def _put(self, row: Row, now: datetime) -> bool:
        super()._put(row, now)
        return True


@caught_by("test_created_at_stays_and_updated_at_moves")
class ForgetsWhenItWasCreated(MemoryCatalog):
    def _put(self, row: Row, now: datetime) -> bool:
        created = super()._put(row, now)
        self._rows[row["key"]]["created_at"] = now
        return created


@caught_by("test_a_track_over_an_expired_entry_is_a_create")
class RemembersTheExpired(MemoryCatalog):
    def _put(self, row: Row, now: datetime) -> bool:
        was_there = row["key"] in self._rows
        super()._put(row, now)
        return not was_there


@caught_by("test_every_key_is_its_own")
class TrimsKeys(MemoryCatalog):
    def get_entry(self, key: str) -> Row | None:
        return super().get_entry(key) or (super().get_entry(key.strip()) if key.strip() else None)

    def _put(self, row: Row, now: datetime) -> bool:
        return super()._put({**row, "key": row["key"].rstrip(" ") or " "}, now)


@caught_by("test_inlined_values_come_back_as_they_were")
class LosesFalseValues(MemoryCatalog):
    def _put(self, row: Row, now: datetime) -> bool:
        return super()._put({**row, "inlined_value": row["inlined_value"] or None}, now)


@caught_by("test_metadata_none_and_an_empty_object_stay_different")
class LosesEmptyMetadata(MemoryCatalog):
    def _put(self, row: Row, now: datetime) -> bool:
        return super()._put({**row, "metadata": row["metadata"] or None}, now)


@caught_by("test_an_expiry_is_the_same_moment_in_utc")
class KeepsMilliseconds(MemoryCatalog):
    def _put(self, row: Row, now: datetime) -> bool:
        end = row["expires_at"]
        return super()._put({**row, "expires_at": end and end.replace(microsecond=end.microsecond // 1000 * 1000)}, now)


@caught_by("test_filters_and_prefixes_work_before_the_limit")
class LimitsBeforeItFilters(MemoryCatalog):
    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[Row]:
        entries = super().list_entries(prefix, metadata_filter, limit)
        first = {row["key"] for row in super().list_entries(prefix, None, 500)}
        return [row for row in entries if row["key"] in first]


@caught_by("test_long_keys_are_in_the_order_of_their_ends")
class SortsByTheBeginningOfKeys(MemoryCatalog):
    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[Row]:
        entries = super().list_entries(prefix, metadata_filter, 10_000)
        entries.reverse()
        return sorted(entries, key=lambda row: str(row["key"])[:341])[:limit]


@caught_by("test_one_bad_entry_and_an_atomic_batch_stores_nothing")
class StoresUntilTheBadEntry(MemoryCatalog):
    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        entries = list(entries) if not isinstance(entries, (str, bytes, Mapping)) else entries
        result = super().store_batch(entries, atomic)
        if result["success"] is False and len(entries) > 1:
            super().store_batch(entries[:1])
        return result


@caught_by("test_of_a_batch_that_is_not_atomic_only_the_bad_entry_is_missing")
class StopsAtTheBadEntry(MemoryCatalog):
    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        return super().store_batch(entries, True)


@caught_by("test_a_key_that_comes_twice_is_stored_twice_and_the_last_stays")
class KeepsTheFirstOfTwo(MemoryCatalog):
    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        entries = list(entries)
        result = super().store_batch(entries, atomic)
        if result["success"]:
            super().store_batch(entries[::-1], atomic)
        return result


@caught_by("test_what_expires_within_a_batch_is_created_anew_by_it")
class WritesOnlyTheLastOfAKey(MemoryCatalog):
    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        before = self._living()
        result = super().store_batch(entries, atomic)
        for key, row in before.items():
            self._rows[key]["created_at"] = row["created_at"]
        return result


@caught_by("test_an_unknown_snapshot_is_an_error")
class TakesAnUnknownSnapshotForNone(MemoryCatalog):
    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[Row]:
        try:
            return super().get_changed_entries(since_snapshot_id)
        except LTMError:
            return super().get_changed_entries()


@caught_by("test_what_has_expired_is_in_no_snapshot")
class KeepsTheExpiredInSnapshots(MemoryCatalog):
    def create_snapshot(self, name: str) -> str:
        snapshot_id = super().create_snapshot(name)
        self._snapshots[snapshot_id][0]["entry_count"] = len(self._rows)
        return snapshot_id


@caught_by("test_hash_metadata_and_expiry_are_what_changes")
class SeesHashesOnly(MemoryCatalog):
    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[Row]:
        entries = super().get_changed_entries(since_snapshot_id)
        before = {} if since_snapshot_id is None else self._holds(since_snapshot_id)
        return [
            row
            for row in entries
            if row["key"] not in before or before[row["key"]]["content_hash"] != row["content_hash"]
        ]


@caught_by("test_deleted_and_created_again_as_it_was_is_no_change")
class ComparesTimes(MemoryCatalog):
    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[Row]:
        before = {} if since_snapshot_id is None else self._holds(since_snapshot_id)
        rows = super().get_changed_entries()
        return [
            row for row in rows if row["key"] not in before or before[row["key"]]["updated_at"] != row["updated_at"]
        ]


@caught_by("test_what_has_expired_counts_as_deleted_cleaned_up_or_not")
class TellsDeletionsOnlyAfterCleanup(MemoryCatalog):
    def get_deleted_entries(self, since_snapshot_id: str) -> list[Row]:
        return [row for row in super().get_deleted_entries(since_snapshot_id) if row["key"] not in self._rows]


@caught_by("test_an_expired_entry_is_gone_for_every_read_at_once")
class ShowsTheExpiredInBatches(MemoryCatalog):
    @returns_result
    def retrieve_batch(self, keys: Iterable[str]) -> Result:
        keys = list(keys)
        result = super().retrieve_batch(keys)
        for key in keys:
            row = self._rows.get(key)
            if row and row["expires_at"] and self._now() < row["expires_at"] + timedelta(seconds=0.1):
                result["entries"][key] = row
        return {**result, "found_count": sum(row is not None for row in result["entries"].values())}


@caught_by("test_cleanup_deletes_in_batches_and_tells_what_remains")
class CountsWhatItLeaves(MemoryCatalog):
    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        result = super().cleanup_expired(batch_size)
        return {**result, "remaining_count": 0} if result["success"] else result


@caught_by("test_stored_text_is_never_shown_in_an_error")
class ShowsWhatItRefuses(MemoryCatalog):
    @returns_result
    def track_entry(self, key: str, *arguments: Any, **options: Any) -> Result:
        result = super().track_entry(key, *arguments, **options)
        return result if result["success"] else {**result, "error": f"{result['error']}: {arguments} {options}"}


@caught_by("test_any_sequence_of_calls_tells_the_changes_of_the_oracle")
class TakesOneForOneAndAFraction(MemoryCatalog):
    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[Row]:
        before = {} if since_snapshot_id is None else self._holds(since_snapshot_id)
        fields = ("content_hash", "metadata", "expires_at")  # 1 == 1.0 == True
        entries = super().get_changed_entries(since_snapshot_id)
        return [
            row
            for row in entries
            if row["key"] not in before or any(before[row["key"]][name] != row[name] for name in fields)
        ]


class MeetsAnother(MemoryCatalog):
    """Makes two threads wait for each other once, so that the fault shows."""

    def __init__(self) -> None:
        super().__init__()
        self._both = threading.Barrier(2)
        self._places = 2

    def meet(self) -> None:
        with self._turn:
            if threading.current_thread() is threading.main_thread() or not self._places:
                return
            self._places -= 1
        self._both.wait(20)


@caught_by("test_threads_create_each_key_once")
class LooksBeforeItTracks(MeetsAnother):
    @returns_result
    def track_entry(self, key: str, *arguments: Any, **options: Any) -> Result:
        row = checked(key, *arguments, **options)
        with self._open():
            created = key not in self._living()
        if key == "k00":
            self.meet()
        with self._open():
            self._put(row, self._now())
        return ok(entry_id=row["id"], created=created)


@caught_by("test_a_snapshot_holds_batches_whole_or_not_at_all")
class StoresBatchesOneByOne(MemoryCatalog):
    _met = False

    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        entries = list(entries)
        for entry in entries:
            super().store_batch([entry])
            if threading.current_thread() is not threading.main_thread() and not self._met:
                self._met = True
                wait_for(partial(self._has_more_than, len(self._snapshots)))
        return ok(stored_count=len(entries), failed_count=0, errors=[])

    def _has_more_than(self, snapshots: int) -> bool:
        return len(self._snapshots) > snapshots


@caught_by("test_after_close_every_other_call_raises_a_connection_error")
class ListsAfterTheEnd(MemoryCatalog):
    def list_snapshots(self) -> list[Row]:
        return [dict(facts) for facts, _ in reversed(self._snapshots.values())]
