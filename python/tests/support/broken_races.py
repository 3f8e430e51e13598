"""Backends with one fault each that only shows when threads run at the same time, and the rule that must fail on each.

Each backend makes its fault show once: a thread waits inside the fault until another thread has done what causes the
wrong result. So the rule always sees the fault, however the operating system schedules the threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from broken_backends import caught_by
from memory_backend import MemoryBackend, Row
from the_edge_agent.memory.core.operations import Operation, Store, stores_of
from the_edge_agent.memory.core.results import LTMError, Result, ok, returns_result
from the_edge_agent.memory.core.validation import check_batch_size

PATIENCE = 20.0  # seconds to wait for another thread; they pass only if no other thread comes


def alone() -> bool:
    """Return whether this is the thread of the test itself, which never waits for another thread."""
    return threading.current_thread() is threading.main_thread()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)


class Meeting:
    """Makes the first two threads that join it with the same subject wait for each other."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._both = threading.Barrier(2)
        self._subject: str | None = None
        self._places = 2

    def join(self, subject: str) -> None:
        with self._turn:
            self._subject = self._subject or subject
            if alone() or subject != self._subject or not self._places:
                return
            self._places -= 1
        self._both.wait(PATIENCE)


class ReadsBeforeItWrites(MemoryBackend):
    """Reads an entry in one turn, and writes it in a later turn, so that it overwrites what came between."""

    def __init__(self) -> None:
        super().__init__()
        self._meeting = Meeting()

    def races(self, store: Store) -> bool:
        raise NotImplementedError

    @returns_result
    def store(self, *arguments: Any, **options: Any) -> Result:
        store = self.check_store(*arguments, **options)
        with self._open():
            read, races = self._rows.get(store.key), self.races(store)
        if races and not alone():
            self._meeting.join(store.key)
        with self._open():
            if races:
                self._rows.pop(store.key, None)
                self._rows |= {store.key: read} if read else {}
            self._moment += 1
            return self._put(store)


@caught_by("test_threads_create_each_key_once_and_lose_no_store")
class LosesStores(ReadsBeforeItWrites):
    def races(self, store: Store) -> bool:
        return store.if_version is None


@caught_by("test_threads_that_count_up_lose_nothing")
class LosesUpdates(ReadsBeforeItWrites):
    def races(self, store: Store) -> bool:
        return bool(store.if_version)


@caught_by("test_of_threads_that_store_what_is_absent_one_wins")
class CreatesForTwo(ReadsBeforeItWrites):
    def races(self, store: Store) -> bool:
        return store.if_version == 0


@caught_by("test_threads_that_store_over_expired_entries_create_each_once")
class CreatesTwiceOverWhatHasExpired(ReadsBeforeItWrites):
    def races(self, store: Store) -> bool:
        row = self._rows.get(store.key)
        return row is not None and not self._lives(row)


class IsSeenHalfway(MemoryBackend):
    """Interrupts a write until a search has seen the unfinished state."""

    def __init__(self) -> None:
        super().__init__()
        self._searches = 0
        self._was_seen = False

    def search(self, *arguments: Any, **options: Any) -> Result:
        with self._turn:
            self._searches += 1
            return super().search(*arguments, **options)

    def be_seen(self, searches: int) -> None:
        if not self._was_seen and not alone():
            self._was_seen = True
            wait_for(lambda: self._searches > searches)

    def one_by_one(self, operations: Iterable[Operation]) -> list[Result]:
        results = []
        self._moment += 1
        for operation in operations:
            with self._open():
                results.append(self._put(operation) if isinstance(operation, Store) else self._remove(operation))
                searches = self._searches
            self.be_seen(searches)
        return results


@caught_by("test_no_reader_sees_half_a_transaction")
class ShowsHalfATransaction(IsSeenHalfway):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        return self.one_by_one(operations)


@caught_by("test_no_reader_sees_half_a_batch")
class ShowsHalfABatch(IsSeenHalfway):
    def store_many(self, entries: Iterable[Mapping[str, Any]]) -> Result:
        results = self.one_by_one(stores_of(entries))
        return ok(stored_count=len(results), results=results)


@caught_by("test_no_reader_misses_an_entry_that_is_overwritten")
class DeletesBeforeItStores(IsSeenHalfway):
    @returns_result
    def store(self, *arguments: Any, **options: Any) -> Result:
        store = self.check_store(*arguments, **options)
        with self._open():
            before: Row | None = self._rows.pop(store.key, None)
            searches = self._searches
        self.be_seen(searches)
        with self._open():
            self._rows |= {store.key: before} if before else {}
            self._moment += 1
            return self._put(store)


@caught_by("test_no_reader_sees_half_a_batch")
class ReadsEachOfManyInATurnOfItsOwn(MemoryBackend):
    def __init__(self) -> None:
        super().__init__()
        self._between = threading.Event()
        self._applied = 0

    def retrieve_many(self, keys: Iterable[str], **options: Any) -> Result:
        first, *others = keys
        one = super().retrieve_many([first], **options)
        if not self._between.is_set() and not alone():
            applied = self._applied
            self._between.set()
            wait_for(lambda: self._applied >= applied + 3)
        other = super().retrieve_many(others, **options)
        counts = {name: one[name] + other[name] for name in ("found_count", "missing_count")}
        return ok(entries={**one["entries"], **other["entries"]}, **counts)

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        if not alone():
            self._between.wait(PATIENCE)
            self._applied += 1
        return super()._apply(operations)


@caught_by("test_transactions_of_threads_all_succeed")
class GivesUpWhenAnotherCommits(MemoryBackend):
    def __init__(self) -> None:
        super().__init__()
        self._committing = threading.Lock()
        self._has_given_up = threading.Event()

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        if not self._committing.acquire(blocking=False):
            self._has_given_up.set()
            raise LTMError("lock_timeout", "deadlock found")
        try:
            if not alone():
                self._has_given_up.wait(PATIENCE)
            return super()._apply(operations)
        finally:
            self._committing.release()


class CleansUpWhatItHasRead(MemoryBackend):
    """Looks for expired entries in one turn, and deletes these keys in a later turn."""

    def between(self, keys: list[str]) -> None:
        raise NotImplementedError

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        size = check_batch_size(batch_size)
        with self._open():
            expired = [key for key, row in self._rows.items() if not self._lives(row)]
        self.between(expired[:size])
        with self._open():
            for key in expired[:size]:
                self._rows.pop(key, None)
            return ok(deleted_count=len(expired[:size]), remaining_count=len(expired[size:]))


@caught_by("test_cleanup_deletes_nothing_that_threads_store_meanwhile")
class CleansUpWhatWasStoredMeanwhile(CleansUpWhatItHasRead):
    def __init__(self) -> None:
        super().__init__()
        self._has_read = threading.Event()

    def between(self, keys: list[str]) -> None:
        if not self._has_read.is_set() and not alone():
            self._has_read.set()
            wait_for(lambda: all(self.retrieve(key)["found"] for key in keys))

    def store(self, *arguments: Any, **options: Any) -> Result:
        if not alone():
            self._has_read.wait(PATIENCE)
        return super().store(*arguments, **options)


@caught_by("test_threads_that_clean_up_delete_each_entry_once")
class CountsWhatAnotherHasCleanedUp(CleansUpWhatItHasRead):
    def __init__(self) -> None:
        super().__init__()
        self._meeting = Meeting()

    def between(self, keys: list[str]) -> None:
        self._meeting.join("cleanup")


@caught_by("test_of_threads_that_delete_one_version_one_succeeds")
class DeletesForTwo(MemoryBackend):
    """Compares the version in one turn, and deletes in a later turn."""

    def __init__(self) -> None:
        super().__init__()
        self._meeting = Meeting()

    @returns_result
    def delete(self, key: str, *, if_version: int | None = None) -> Result:
        delete = self._check_delete(key, if_version)
        with self._open():
            row = self._row(key)
            self._check_version(delete, row.version if row else 0)
        self._meeting.join(key)
        with self._open():
            self._rows.pop(key, None)
            return ok(deleted=True, key=key)
