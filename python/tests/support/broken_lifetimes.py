"""Backends with one fault each in how entries expire, and the rule that must fail on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any, TypeVar

from broken_backends import caught_by
from memory_backend import FiveMethods, MemoryBackend, Row
from the_edge_agent.memory import LTMError, LTMTransaction
from the_edge_agent.memory.core.operations import Delete, Operation, Store
from the_edge_agent.memory.core.results import Result, conflict, ok

Answer = TypeVar("Answer")
Items = Iterator[tuple[str, Any, dict[str, Any] | None]]

# --- lifetimes: one method returns expired entries -------------------------------------------------

VANISHES = "test_an_entry_lives_its_time_and_vanishes_from_every_read_at_once"


class ShowsExpired(MemoryBackend):
    """One of the reads treats expired entries as if they existed."""

    _blind = False

    def _lives(self, row: Row) -> bool:
        return self._blind or super()._lives(row)

    def _seeing_all(self, read: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        with self._turn:
            self._blind = True
            try:
                return read(*arguments, **options)
            finally:
                self._blind = False


@caught_by(VANISHES)
class RetrieveShowsExpired(ShowsExpired):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        return self._seeing_all(super().retrieve, key, default, **options)

    def retrieve_many(self, keys: Iterable[str], **options: Any) -> Result:
        living = self.list_keys()["keys"]
        result = super().retrieve_many(keys, **options)
        return {**result, "entries": {key: each if key in living else None for key, each in result["entries"].items()}}


@caught_by(VANISHES)
class SearchShowsExpired(ShowsExpired):
    _listing = False

    def search(self, *arguments: Any, **options: Any) -> Result:
        return (
            super().search(*arguments, **options)
            if self._listing
            else self._seeing_all(super().search, *arguments, **options)
        )

    def iterate_all(self, prefix: str | None = None, **options: Any) -> Items:
        with self._turn:
            self._listing = True
            try:
                return super().iterate_all(prefix, **options)
            finally:
                self._listing = False


@caught_by(VANISHES)
class ListKeysShowsExpired(ShowsExpired):
    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
        return self._seeing_all(super().list_keys, prefix, limit, after)


@caught_by(VANISHES)
class CountShowsExpired(ShowsExpired):
    def count(self, prefix: str | None = None, **options: Any) -> Result:
        return self._seeing_all(super().count, prefix, **options)


@caught_by(VANISHES)
class IterateAllShowsExpired(ShowsExpired):
    _listing = False

    def iterate_all(self, prefix: str | None = None, **options: Any) -> Items:
        return (
            super().iterate_all(prefix, **options)
            if self._listing
            else self._seeing_all(super().iterate_all, prefix, **options)
        )

    def list_keys(self, *arguments: Any, **options: Any) -> Result:
        return self._listed(super().list_keys, *arguments, **options)

    def count(self, prefix: str | None = None, **options: Any) -> Result:
        return self._listed(super().count, prefix, **options)

    def _listed(self, read: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        with self._turn:
            self._listing = True
            try:
                return read(*arguments, **options)
            finally:
                self._listing = False


@caught_by(VANISHES)
class RetrieveManyShowsExpired(ShowsExpired):
    def retrieve_many(self, keys: Iterable[str], **options: Any) -> Result:
        return self._seeing_all(super().retrieve_many, keys, **options)


# --- lifetimes: the rest ---------------------------------------------------------------------------


class ChangesLifetimes(MemoryBackend):
    """Gives entries another lifetime than the requested one."""

    def changed(self, ttl: timedelta | None, before: Row | None) -> timedelta | None:
        raise NotImplementedError

    def _put(self, store: Store) -> Result:
        return super()._put(replace(store, ttl=self.changed(store.ttl, self._row(store.key))))


@caught_by(VANISHES)
class KeepsEntriesForEver(ChangesLifetimes):
    def changed(self, ttl: timedelta | None, before: Row | None) -> timedelta | None:
        return None


@caught_by(VANISHES)
class RoundsLifetimesUp(ChangesLifetimes):
    def changed(self, ttl: timedelta | None, before: Row | None) -> timedelta | None:
        return ttl and timedelta(seconds=math.ceil(ttl.total_seconds()))


@caught_by(VANISHES)
class RoundsLifetimesDown(ChangesLifetimes):
    def changed(self, ttl: timedelta | None, before: Row | None) -> timedelta | None:
        return ttl and timedelta(seconds=math.floor(ttl.total_seconds()))


@caught_by("test_a_store_without_ttl_removes_the_lifetime")
class KeepsTheOldLifetime(ChangesLifetimes):
    def changed(self, ttl: timedelta | None, before: Row | None) -> timedelta | None:
        old = before and before.expires
        return timedelta(seconds=old - self._now) if ttl is None and old else ttl


@caught_by("test_a_store_with_a_ttl_replaces_the_lifetime")
class KeepsTheFirstLifetime(ChangesLifetimes):
    def changed(self, ttl: timedelta | None, before: Row | None) -> timedelta | None:
        old = before and before.expires
        return timedelta(seconds=old - self._now) if ttl is not None and old else ttl


@caught_by("test_lifetimes_go_from_parts_of_a_second_to_100_years")
class HasNoDateBeyond2038(MemoryBackend):
    def store(self, key: str, value: Any, metadata: Any = None, **options: Any) -> Result:
        if isinstance(ttl := options.get("ttl"), (int, float)) and 10**9 < ttl < 10**10:
            return LTMError("query_error", "out of range").result
        return super().store(key, value, metadata, **options)


@caught_by("test_a_lifetime_begins_with_the_commit")
class BeginsALifetimeWhenItIsQueued(MemoryBackend):
    def __init__(self) -> None:
        super().__init__()
        self._queued: dict[Store, float] = {}

    def transaction(self) -> LTMTransaction:
        super().transaction()
        return LTMTransaction(self._queue, self._apply)

    def _queue(self, *arguments: Any, **options: Any) -> Store:
        with self._open():
            store = self.check_store(*arguments, **options)
            self._queued[store] = self._now
            return store

    def _put(self, store: Store) -> Result:
        result = super()._put(store)
        row, queued = self._rows[store.key], self._queued.get(store)
        if row.expires is not None and queued is not None:
            self._rows[store.key] = replace(row, expires=row.expires - self._now + queued)
        return result


@caught_by("test_a_store_over_an_expired_entry_is_a_create")
class GoesOnWithTheVersionOfWhatHasExpired(MemoryBackend):
    def _put(self, store: Store) -> Result:
        row = self._rows.get(store.key)
        result = super()._put(store)
        if row is None or row.version < result["version"]:
            return result
        self._rows[store.key] = replace(self._rows[store.key], version=row.version + 1)
        return {**result, "version": row.version + 1}


@caught_by("test_a_delete_of_an_expired_entry_finds_none")
class DeletesWhatHasExpired(MemoryBackend):
    def _remove(self, delete: Delete) -> Result:
        return ok(deleted=self._rows.pop(delete.key, None) is not None, key=delete.key)


@caught_by("test_an_expired_entry_has_no_version")
class ComparesWithTheVersionOfWhatHasExpired(MemoryBackend):
    def _put(self, store: Store) -> Result:
        row = self._rows.get(store.key)
        if row is not None and store.if_version not in (None, row.version):
            raise conflict(store.key, row.version)
        return super()._put(replace(store, if_version=None) if row else store)


@caught_by("test_expired_entries_take_no_place_on_a_page")
class HidesWhatHasExpiredAfterTheLimit(ShowsExpired):
    def search(self, *arguments: Any, **options: Any) -> Result:
        results = self._seeing_all(super().search, *arguments, **options)["results"]
        living = [entry for entry in results if self._lives(self._rows[entry["key"]])]
        return ok(results=living, count=len(living))


@caught_by("test_bad_lifetimes_are_refused")
class TakesNoTimeForEver(MemoryBackend):
    def store(self, key: str, value: Any, metadata: Any = None, **options: Any) -> Result:
        return super().store(key, value, metadata, **{**options, "ttl": options.get("ttl") or None})


@caught_by("test_a_backend_without_lifetimes_says_so")
class IgnoresLifetimes(FiveMethods):
    def store(self, key: str, value: Any, metadata: Any = None, **options: Any) -> Result:
        return super().store(key, value, metadata, **{**options, "ttl": None})


# --- times -----------------------------------------------------------------------------------------


@caught_by("test_an_entry_ends_exactly_when_it_is_told_to")
class EndsInWholeSeconds(MemoryBackend):
    def _put(self, store: Store) -> Result:
        end = store.expires_at
        return super()._put(replace(store, expires_at=None if end is None else end.replace(microsecond=0)))


@caught_by("test_a_moment_in_the_past_stores_an_entry_that_has_expired_at_once")
class TakesAMomentInThePastForNone(MemoryBackend):
    def _put(self, store: Store) -> Result:
        end = store.expires_at
        return super()._put(replace(store, expires_at=end if end and end > datetime.now(timezone.utc) else None))


@caught_by("test_what_has_expired_within_a_batch_is_created_anew")
class StoresOnlyTheLastOfABatch(MemoryBackend):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        lasting = [replace(each, expires_at=None) for each in operations[:-1] if isinstance(each, Store)]
        return super()._apply([*lasting, *operations[-1:]])


@caught_by("test_iterate_entries_yields_all_that_a_copy_needs")
class ForgetsWhenAnEntryWasCreated(MemoryBackend):
    def iterate_entries(self, prefix: str | None = None, **options: Any) -> Iterator[Any]:
        return iter(
            [{**entry, "created_at": entry["updated_at"]} for entry in super().iterate_entries(prefix, **options)]
        )


@caught_by("test_iterate_entries_goes_through_many_in_the_order_of_keys")
class YieldsThePagesOnly(MemoryBackend):
    def iterate_entries(self, prefix: str | None = None, **options: Any) -> Iterator[Any]:
        return islice(super().iterate_entries(prefix, **options), 1_000)


@caught_by("test_what_is_no_moment_or_one_too_many_is_refused")
class TakesALifetimeAndAMoment(MemoryBackend):
    def store(self, key: str, value: Any, metadata: Any = None, **options: Any) -> Result:
        both = None not in (options.get("ttl"), options.get("expires_at"))
        return super().store(key, value, metadata, **{**options, **({"ttl": None} if both else {})})


@caught_by("test_a_bad_prefix_of_entries_is_refused_at_once")
class ChecksAPrefixOfEntriesLate(MemoryBackend):
    def iterate_entries(self, prefix: str | None = None, **options: Any) -> Iterator[Any]:
        yield from super().iterate_entries(prefix, **options)


@caught_by("test_a_backend_without_times_says_so")
class IteratesWithoutTimes(FiveMethods):
    def iterate_entries(self, prefix: str | None = None, **options: Any) -> Iterator[Any]:
        return iter([])


# --- cleanup ---------------------------------------------------------------------------------------


@caught_by("test_cleanup_touches_no_living_entry")
class CleansUpAllThatIsMortal(MemoryBackend):
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        result = super().cleanup_expired(batch_size)
        for key in [key for key, row in self._rows.items() if row.expires and self._lives(row)]:
            del self._rows[key]
        return result


@caught_by("test_cleanup_deletes_in_batches_and_tells_what_remains")
class ForgetsWhatRemains(MemoryBackend):
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        return {**super().cleanup_expired(batch_size), "remaining_count": 0}


@caught_by("test_cleanup_deletes_100_at_once_unless_told")
class CleansUpAllAtOnce(MemoryBackend):
    def cleanup_expired(self, batch_size: int = 10_000) -> Result:
        return super().cleanup_expired(batch_size)
