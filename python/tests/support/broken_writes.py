"""Backends with one fault each in a batch, a transaction or a version, and the rule that must fail on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from broken_backends import caught_by
from memory_backend import FiveMethods, MemoryBackend
from the_edge_agent.memory import LTMError, LTMTransaction
from the_edge_agent.memory.core.operations import Operation, Store
from the_edge_agent.memory.core.results import Result, conflict, ok

Answer = TypeVar("Answer")
Items = Iterator[tuple[str, Any, dict[str, Any] | None]]

# --- batches ---------------------------------------------------------------------------------------


@caught_by("test_a_bad_entry_is_named_and_nothing_is_stored")
class StoresABatchUpToTheBadEntry(MemoryBackend):
    def store_many(self, entries: Iterable[Mapping[str, Any]]) -> Result:
        listed = [*entries]
        result = super().store_many(listed)
        if not result["success"]:
            super().store_many(listed[:3])
        return result


@caught_by("test_a_batch_answers_for_each_entry_in_order")
class StoresABatchInTheOrderOfKeys(MemoryBackend):
    def store_many(self, entries: Iterable[Mapping[str, Any]]) -> Result:
        return super().store_many(sorted(entries, key=lambda entry: str(entry["key"])))


@caught_by("test_a_key_that_comes_twice_is_stored_twice_in_that_order")
class StoresOnlyTheLastOfEqualKeys(MemoryBackend):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        last = {operation.key: operation for operation in operations}
        results = {result["key"]: result for result in super()._apply([*last.values()])}
        return [results[operation.key] for operation in operations]


@caught_by("test_a_batch_is_equally_new_and_ordered_by_key")
class MakesEachEntryOfABatchNewer(MemoryBackend):
    def _put(self, store: Store) -> Result:
        self._moment += 1
        return super()._put(store)


@caught_by("test_delete_many_counts_a_key_that_comes_twice_once")
class CountsKeysAndNotEntries(MemoryBackend):
    def delete_many(self, keys: Iterable[str]) -> Result:
        requested, there = [*keys], {key for key, _, _ in self.iterate_all()}
        super().delete_many(requested)
        return ok(deleted_count=sum(key in there for key in requested))


@caught_by("test_delete_many_refuses_a_bad_key_by_its_place_and_deletes_nothing")
class DeletesUpToTheBadKey(MemoryBackend):
    def delete_many(self, keys: Iterable[str]) -> Result:
        requested = [*keys]
        result = super().delete_many(requested)
        if not result["success"]:
            super().delete_many(requested[:2])
        return result


# --- transactions ----------------------------------------------------------------------------------


@caught_by("test_a_conflict_fails_the_whole_commit")
class KeepsWhatCameBeforeTheConflict(MemoryBackend):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        with self._open():
            self._moment += 1
            return [self._put(each) if isinstance(each, Store) else self._remove(each) for each in operations]


class ForgivingTransaction(LTMTransaction):
    def _enqueue(self, make: Callable[[], Operation]) -> Result:
        try:
            return super()._enqueue(make)
        finally:
            self._state = "open" if self._state == "refused" else self._state


@caught_by("test_after_a_refused_entry_it_can_only_roll_back")
class CommitsWithoutTheRefusedEntry(MemoryBackend):
    def transaction(self) -> LTMTransaction:
        super().transaction()
        return ForgivingTransaction(self.check_store, self._apply)


@caught_by("test_nothing_is_seen_before_commit")
class StoresBeforeTheCommit(MemoryBackend):
    def transaction(self) -> LTMTransaction:
        super().transaction()
        return LTMTransaction(self._store_at_once, self._apply)

    def _store_at_once(self, key: str, value: Any, *arguments: Any, **options: Any) -> Store:
        store = self.check_store(key, value, *arguments, **options)
        self.store(key, value, *arguments, **options)
        return store


@caught_by("test_each_key_sees_its_operations_in_their_order")
class DeletesFirst(MemoryBackend):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        order = sorted(range(len(operations)), key=lambda place: isinstance(operations[place], Store))
        results = dict(zip(order, super()._apply([operations[place] for place in order]), strict=True))
        return [results[place] for place in range(len(operations))]


@caught_by("test_a_transaction_compares_with_what_its_operations_have_made")
class ComparesWithWhatWasThereBefore(MemoryBackend):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        with self._open():
            for operation in operations:
                row = self._row(operation.key)
                required = operation.if_version if isinstance(operation, Store) else None
                if required not in (None, row.version if row else 0):
                    raise conflict(operation.key, row.version if row else 0)
            return super()._apply([replace(o, if_version=None) if isinstance(o, Store) else o for o in operations])


# --- versions --------------------------------------------------------------------------------------


@caught_by("test_a_backend_without_versions_says_so")
class IgnoresVersions(FiveMethods):
    def store(self, key: str, value: Any, metadata: Any = None, **options: Any) -> Result:
        return super().store(key, value, metadata, **{**options, "if_version": None})


@caught_by("test_a_store_over_any_other_version_is_a_conflict")
class TakesVersion0ForAny(MemoryBackend):
    def _put(self, store: Store) -> Result:
        return super()._put(replace(store, if_version=store.if_version or None))


@caught_by("test_a_store_over_a_version_of_a_missing_entry_is_a_conflict")
class CreatesOverAnyVersion(MemoryBackend):
    def _put(self, store: Store) -> Result:
        return super()._put(store if self._row(store.key) else replace(store, if_version=None))


@caught_by("test_a_store_over_any_other_version_is_a_conflict")
class TakesANewerVersionForTheSame(MemoryBackend):
    def _put(self, store: Store) -> Result:
        row = self._row(store.key)
        older = row is not None and (store.if_version or 0) > row.version
        return super()._put(replace(store, if_version=None) if older else store)


@caught_by("test_a_store_over_any_other_version_is_a_conflict")
class NamesTheVersionThatWasAskedFor(MemoryBackend):
    def _put(self, store: Store) -> Result:
        try:
            return super()._put(store)
        except LTMError:
            raise conflict(store.key, store.if_version or 0) from None


@caught_by("test_a_conflict_changes_nothing")
class MakesAnEntryNewerByAConflict(MemoryBackend):
    def _put(self, store: Store) -> Result:
        row = self._row(store.key)
        try:
            return super()._put(store)
        except LTMError:
            if row is not None:
                self._rows[store.key] = replace(row, entry=replace(row.entry, moment=self._moment))
            raise
