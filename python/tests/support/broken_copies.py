"""Backends with one fault each in pages of entries, in touch, index or imports, and the rule that must fail on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from broken_backends import caught_by
from memory_backend import EPOCH, Contains, MemoryBackend, Row
from the_edge_agent.memory.core.operations import Delete, Import, Store
from the_edge_agent.memory.core.results import Result, ok

# --- times and pages -------------------------------------------------------------------------------


@caught_by("test_times_are_in_utc_and_a_store_keeps_the_first")
class CreatesWithEachStore(MemoryBackend):
    def _put(self, store: Store) -> Result:
        result = super()._put(store)
        row = self._rows[store.key]
        self._rows[store.key] = replace(row, created_at=row.updated_at)
        return result


@caught_by("test_times_are_in_utc_and_a_store_keeps_the_first")
class GivesTimesWithoutAZone(MemoryBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        result = super().retrieve(key, default, **options)
        if not result.get("found") or "created_at" not in result:
            return result
        return {**result, "created_at": result["created_at"].replace(tzinfo=None)}


@caught_by("test_search_answers_with_version_and_times")
class SearchesWithoutTimes(MemoryBackend):
    def search(self, *arguments: Any, **options: Any) -> Result:
        result = super().search(*arguments, **options)
        for entry in result.get("results", ()):
            del entry["created_at"]
        return result


@caught_by("test_a_missing_entry_has_no_times")
class LeavesOutTheTimesOfAMissingEntry(MemoryBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        result = super().retrieve(key, default, **options)
        return result if result.get("found") else super().retrieve(key, default)


@caught_by("test_whole_entries_tell_the_lifetime_and_the_index")
class TellsWholeSeconds(MemoryBackend):
    def _whole(self, row: Row, nested: bool) -> dict[str, Any]:
        entry = super()._whole(row, nested)
        return {**entry, "ttl": entry["ttl"] and float(int(entry["ttl"]))}


class HasOtherPages(MemoryBackend):
    """Returns the entries of pages in another order, or goes on at another place."""

    def entries(
        self,
        prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
        order: Any = "key",
        *,
        nested: bool = False,
    ) -> Result:
        return self.page(prefix, limit, after, order, nested)

    def page(self, prefix: Any, limit: Any, after: Any, order: Any, nested: Any) -> Result:
        return super().entries(prefix, limit, after, order, nested=nested)


@caught_by("test_pages_of_each_order_give_every_entry_once")
class OrdersTiesOfTheNewestBackwards(HasOtherPages):
    def _living(self, contains: Contains) -> list[Row]:
        rows = super()._living(contains)
        return rows[::-1] if self._is_newest else rows

    _is_newest = False

    def page(self, prefix: Any, limit: Any, after: Any, order: Any, nested: Any) -> Result:
        self._is_newest = order == "newest"
        try:
            return super().page(prefix, limit, after, order, nested)
        finally:
            self._is_newest = False


@caught_by("test_pages_of_each_order_give_every_entry_once")
class GoesOnAfterTheTimeAlone(HasOtherPages):
    """Skips the entries that have the same time as the last one of the page before."""

    def page(self, prefix: Any, limit: Any, after: Any, order: Any, nested: Any) -> Result:
        if order == "newest" and isinstance(after, str) and " " in after:
            after = f"{after.partition(' ')[0]} \U0010ffff"
        return super().page(prefix, limit, after, order, nested)


@caught_by("test_pages_go_on_while_entries_change")
class GoesOnAtAPlace(HasOtherPages):
    """Goes on after so many entries as the pages before had."""

    def page(self, prefix: Any, limit: Any, after: Any, order: Any, nested: Any) -> Result:
        start = int(after.partition("#")[2]) if isinstance(after, str) and "#" in after else None
        if order == "-key" or (after and start is None):
            return super().page(prefix, limit, after, order, nested)
        result = super().page(prefix, 10_000, None, order, nested)
        entries = result["entries"][start or 0 :]
        following = f"#{(start or 0) + limit}" if len(entries) > limit else None
        return ok(entries=entries[:limit], next=following)


@caught_by("test_in_the_order_of_keys_after_is_any_key")
class BeginsWithTheKeyAfter(HasOtherPages):
    def page(self, prefix: Any, limit: Any, after: Any, order: Any, nested: Any) -> Result:
        result = super().page(prefix, limit, after, order, nested)
        first = super().page(after, 1, None, "key", nested)["entries"] if order == "-key" and after else []
        return {**result, "entries": [*(each for each in first if each["key"] == after), *result["entries"]]}


# --- deletes ---------------------------------------------------------------------------------------


@caught_by("test_a_delete_of_any_other_version_is_a_conflict")
class DeletesAnyVersion(MemoryBackend):
    def _remove(self, delete: Delete) -> Result:
        return super()._remove(replace(delete, if_version=None))


@caught_by("test_a_delete_of_a_missing_entry_compares_with_0")
class DeletesAnyVersionOfAMissingEntry(MemoryBackend):
    def _remove(self, delete: Delete) -> Result:
        return super()._remove(delete if self._row(delete.key) else replace(delete, if_version=None))


@caught_by("test_delete_all_deletes_more_than_a_thousand")
class DeletesAThousand(MemoryBackend):
    def delete_all(self, prefix: str, *, nested: bool = False) -> Result:
        if self.count(prefix or "")["count"] <= 1_000:
            return super().delete_all(prefix, nested=nested)
        return self.delete_many(self.list_keys(prefix, 1_000)["keys"])


@caught_by("test_delete_all_needs_a_prefix")
class TakesNoPrefixForEveryEntry(MemoryBackend):
    def delete_all(self, prefix: str, *, nested: bool = False) -> Result:
        return super().delete_all("" if prefix is None else prefix, nested=nested)


# --- touch and refresh_ttl -------------------------------------------------------------------------


@caught_by("test_touch_changes_nothing_but_the_lifetime")
class MakesAVersionWithATouch(MemoryBackend):
    def _renew(self, row: Row, ttl: timedelta | None) -> Row:
        return super()._renew(replace(row, version=row.version + 1), ttl)


@caught_by("test_touch_changes_nothing_but_the_lifetime")
class UpdatesWithATouch(MemoryBackend):
    def _renew(self, row: Row, ttl: timedelta | None) -> Row:
        self._moment += 1
        return super()._renew(replace(row, entry=replace(row.entry, moment=self._moment)), ttl)


@caught_by("test_touch_without_ttl_renews_the_lifetime_that_the_entry_has")
class ForgetsTheLifetimeOfATouch(MemoryBackend):
    def _renew(self, row: Row, ttl: timedelta | None) -> Row:
        renewed = replace(super()._renew(row, ttl), ttl=row.ttl)
        self._rows[row.entry.key] = renewed
        return renewed


@caught_by("test_touch_without_ttl_leaves_an_entry_without_lifetime_as_it_is")
class MakesATouchedEntryLiveForEver(MemoryBackend):
    def _renew(self, row: Row, ttl: timedelta | None) -> Row:
        renewed = super()._renew(row, ttl)
        if ttl is None and row.ttl is None:
            renewed = self._rows[row.entry.key] = replace(row, ends=None, expires=None)
        return renewed


@caught_by("test_touch_of_a_missing_entry_finds_none")
class RevivesWhatHasExpired(MemoryBackend):
    def touch(self, key: str, ttl: float | None = None) -> Result:
        row = self._rows.get(key)
        if row is not None:
            self._rows[key] = replace(row, expires=None)
        return super().touch(key, ttl)


@caught_by("test_retrieve_renews_the_lifetime_if_told")
class RenewsWithEachRead(MemoryBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        return super().retrieve(key, default, **{**options, "refresh_ttl": True})


@caught_by("test_retrieve_renews_the_lifetime_if_told")
class TellsTheEndBeforeItIsRenewed(MemoryBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        before = super().retrieve(key, default, **{**options, "refresh_ttl": False})
        super().retrieve(key, default, **options)
        return before


@caught_by("test_search_renews_the_lifetimes_of_its_results_alone")
class RenewsWhatMatches(MemoryBackend):
    def search(self, query: Any = None, metadata_filter: Any = None, limit: int = 10, **options: Any) -> Result:
        if options.get("refresh_ttl") is True:
            super().search(query, metadata_filter, 10_000, **options)
        return super().search(query, metadata_filter, limit, **options)


# --- index -----------------------------------------------------------------------------------------


@caught_by("test_words_that_are_not_indexed_are_not_found")
class IndexesEveryEntry(MemoryBackend):
    def _put(self, store: Store) -> Result:
        return super()._put(replace(store, index=True))


@caught_by("test_an_entry_without_words_is_found_by_metadata_and_prefix")
class HidesEntriesWithoutWords(MemoryBackend):
    def _searched(self, *arguments: Any, **options: Any) -> Result:
        result = super()._searched(*arguments, **options)
        results = [entry for entry in result["results"] if self._rows[entry["key"]].entry.index]
        return ok(results=results, count=len(results))


@caught_by("test_the_last_store_decides_whether_words_are_indexed")
class KeepsTheFirstIndex(MemoryBackend):
    def _put(self, store: Store) -> Result:
        row = self._row(store.key)
        return super()._put(replace(store, index=row.entry.index if row else store.index))


# --- imports ---------------------------------------------------------------------------------------

KEPT = "test_a_copy_keeps_everything"


class ChangesCopies(MemoryBackend):
    """Stores another copy than the entry it was given."""

    def changed(self, row: Row) -> Row:
        raise NotImplementedError

    def _put_copy(self, copied: Import) -> None:
        super()._put_copy(copied)
        self._rows[copied.key] = self.changed(self._rows[copied.key])


@caught_by(KEPT)
class ForgetsWhenACopyWasCreated(ChangesCopies):
    def changed(self, row: Row) -> Row:
        return replace(row, created_at=row.updated_at)


@caught_by(KEPT)
class ForgetsWhenACopyWasUpdated(ChangesCopies):
    def changed(self, row: Row) -> Row:
        return replace(row, entry=replace(row.entry, moment=self._moment))


@caught_by(KEPT)
class BeginsTheVersionsOfCopies(ChangesCopies):
    def changed(self, row: Row) -> Row:
        return replace(row, version=1)


@caught_by("test_the_lifetime_of_a_copy_is_renewed")
class ForgetsTheLifetimeOfACopy(ChangesCopies):
    def changed(self, row: Row) -> Row:
        return replace(row, ttl=None)


@caught_by("test_each_part_is_kept_alone")
class IndexesEveryCopy(ChangesCopies):
    def changed(self, row: Row) -> Row:
        return replace(row, entry=replace(row.entry, index=True))


@caught_by("test_newest_first_goes_by_the_time_of_a_copy")
class TakesCopiesForTheNewest(MemoryBackend):
    def _living(self, contains: Contains) -> list[Row]:
        rows = super()._living(contains)
        copied = max((row.entry.moment for row in rows), default=0) + 1
        is_copied = [row.entry.moment < 1_700_000_000_000_000 for row in rows]
        return [
            replace(row, entry=replace(row.entry, moment=copied)) if is_old else row
            for row, is_old in zip(rows, is_copied, strict=True)
        ]


@caught_by("test_skip_keeps_the_entry_that_is_there")
class ReplacesWhatItSkips(MemoryBackend):
    def _import(self, imports: Sequence[Import], on_conflict: str) -> list[str]:
        outcomes = super()._import(imports, "replace" if on_conflict == "skip" else on_conflict)
        return ["skipped" if outcome == "replaced" and on_conflict == "skip" else outcome for outcome in outcomes]


@caught_by("test_replace_replaces_the_entry_as_a_whole")
class CountsUpWhatItReplaces(MemoryBackend):
    def _import(self, imports: Sequence[Import], on_conflict: str) -> list[str]:
        before = {key: row.version for key, row in self._rows.items()}
        outcomes = super()._import(imports, on_conflict)
        for each, outcome in zip(imports, outcomes, strict=True):
            if outcome == "replaced" and each.key in before:
                self._rows[each.key] = replace(self._rows[each.key], version=before[each.key] + 1)
        return outcomes


@caught_by("test_a_key_that_comes_twice_is_a_conflict_too")
class KeepsTheLastOfEqualCopies(MemoryBackend):
    def _import(self, imports: Sequence[Import], on_conflict: str) -> list[str]:
        last = {each.key: each for each in imports}
        return super()._import([*last.values()], on_conflict)


@caught_by("test_an_expired_entry_is_no_conflict")
class TakesWhatHasExpiredForAConflict(MemoryBackend):
    def _import(self, imports: Sequence[Import], on_conflict: str) -> list[str]:
        for each in imports:
            if (row := self._rows.get(each.key)) is not None:
                self._rows[each.key] = replace(row, expires=None)
        return super()._import(imports, on_conflict)


@caught_by("test_fail_stores_nothing_of_the_batch_and_names_the_entry")
class StoresUpToTheConflict(MemoryBackend):
    def _import(self, imports: Sequence[Import], on_conflict: str) -> list[str]:
        rows = dict(self._rows)
        try:
            return super()._import(imports, on_conflict)
        finally:
            rows |= self._rows
            self._kept = rows

    _kept: Mapping[str, Row] = {}

    def import_entries(self, entries: Iterable[Mapping[str, Any]], on_conflict: Any = "fail") -> Result:
        result = super().import_entries(entries, on_conflict)
        self._rows.update(self._kept)
        return result


@caught_by("test_entries_are_imported_a_thousand_in_a_transaction")
class ImportsAllAtOnce(MemoryBackend):
    def import_entries(self, entries: Iterable[Mapping[str, Any]], on_conflict: Any = "fail") -> Result:
        listed = [*entries]
        before = dict(self._rows)
        result = super().import_entries(listed, on_conflict)
        if not result["success"]:
            self._rows.clear()
            self._rows.update(before)
            result = {**result, "imported_count": 0}
        return result


@caught_by("test_times_are_taken_in_any_zone")
class TakesTimesForLocal(ChangesCopies):
    def changed(self, row: Row) -> Row:
        shifted = row.created_at + timedelta(hours=row.created_at.year - EPOCH.year > 100 and 2)
        return replace(row, created_at=shifted)


@caught_by("test_namespace_places_an_entry_below_this_memory")
class ForgetsTheNamespaceOfACopy(MemoryBackend):
    def import_entries(self, entries: Iterable[Mapping[str, Any]], on_conflict: Any = "fail") -> Result:
        placed = [{name: part for name, part in entry.items() if name != "namespace"} for entry in entries]
        return super().import_entries(placed, on_conflict if len(placed) == 1 else "replace")
