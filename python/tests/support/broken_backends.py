"""Backends with one fault each in a call for single entries, and the rule that must fail on each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, Final, TypeVar

from memory_backend import MemoryBackend
from the_edge_agent.memory import LTMBackend
from the_edge_agent.memory.core import filters
from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.core.results import Result, fail, ok, page_of_keys
from the_edge_agent.testing.model import Entry

FAULTS: Final[dict[type[LTMBackend], str]] = {}
"""Each broken backend, and the name of the test that must fail on it."""

Broken = TypeVar("Broken", bound=type[LTMBackend])


def caught_by(test: str) -> Callable[[Broken], Broken]:
    """Register a broken backend with the test that must fail on it."""

    def register(backend: Broken) -> Broken:
        FAULTS[backend] = test
        return backend

    return register


# --- keys and values -------------------------------------------------------------------------------


class ChangesKeys(MemoryBackend):
    """Confuses some keys, as a database does whose collation is not exact."""

    def changed(self, key: Any) -> Any:
        raise NotImplementedError

    def store(self, key: str, *arguments: Any, **options: Any) -> Result:
        return self._answer(key, super().store(self.changed(key), *arguments, **options))

    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        return super().retrieve(self.changed(key), default, **options)

    def delete(self, key: str, **options: Any) -> Result:
        return self._answer(key, super().delete(self.changed(key), **options))

    def _answer(self, key: str, result: Result) -> Result:
        return {**result, "key": key} if result["success"] else result


@caught_by("test_every_key_is_its_own")
class FoldsTheCaseOfKeys(ChangesKeys):
    def changed(self, key: Any) -> Any:
        return key.lower() if isinstance(key, str) else key


@caught_by("test_ties_of_long_keys_are_in_the_order_of_their_ends")
class SortsByTheBeginningOfKeys(MemoryBackend):
    def search(self, *arguments: Any, **options: Any) -> Result:
        result = super().search(*arguments, **options)
        alike = groupby(result["results"], key=lambda entry: entry["key"][:341])
        return {**result, "results": [entry for _, group in alike for entry in reversed([*group])]}


@caught_by("test_any_text_is_a_key")
class StripsKeys(ChangesKeys):
    def changed(self, key: Any) -> Any:
        return key.rstrip(" ") or key if isinstance(key, str) else key


class ChangesEntries(MemoryBackend):
    """Stores another entry than the one it was given."""

    def changed(self, entry: Entry) -> Entry:
        raise NotImplementedError

    def _put(self, store: Store) -> Result:
        result = super()._put(store)
        row = self._rows[store.key]
        self._rows[store.key] = replace(row, entry=self.changed(row.entry))
        return result


@caught_by("test_numbers_keep_their_type")
class MakesFloatsIntegers(ChangesEntries):
    def changed(self, entry: Entry) -> Entry:
        value = entry.value
        return replace(entry, value=int(value)) if isinstance(value, float) and value.is_integer() else entry


@caught_by("test_a_batch_keeps_values_metadata_and_keys_exactly")
class LosesTheOrderOfKeys(ChangesEntries):
    def changed(self, entry: Entry) -> Entry:
        return replace(entry, value=json.loads(json.dumps(entry.value, sort_keys=True)))


@caught_by("test_metadata_none_and_an_empty_object_stay_different")
class MakesNoMetadataAnEmptyObject(ChangesEntries):
    def changed(self, entry: Entry) -> Entry:
        return replace(entry, metadata=entry.metadata or {})


@caught_by("test_what_is_changed_after_store_is_not_stored")
class KeepsTheObjectThatWasStored(MemoryBackend):
    def store(self, key: str, value: Any, *arguments: Any, **options: Any) -> Result:
        result = super().store(key, value, *arguments, **options)
        row = self._rows[key]
        self._rows[key] = replace(row, entry=replace(row.entry, value=value))
        return result


@caught_by("test_what_is_changed_after_a_read_is_not_stored")
class GivesAwayTheObjectThatIsStored(MemoryBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        result = super().retrieve(key, default, **options)
        return {**result, "value": self._rows[key].entry.value} if result.get("found") else result


@caught_by("test_a_store_after_delete_is_a_create")
class KeepsTheVersionOfWhatWasDeleted(MemoryBackend):
    def delete(self, key: str, **options: Any) -> Result:
        row = self._rows.get(key)
        result = super().delete(key, **options)
        if row is not None:
            self._rows[key] = replace(row, expires=0.0)
        return result

    def _put(self, store: Store) -> Result:
        row = self._rows.get(store.key)
        if row is not None:
            self._rows[store.key] = replace(row, expires=None)
        return super()._put(store)


@caught_by("test_stored_text_is_never_shown_in_an_error")
class ShowsWhatItRefuses(MemoryBackend):
    def store(self, key: str, value: Any, *arguments: Any, **options: Any) -> Result:
        result = super().store(key, value, *arguments, **options)
        return result if result["success"] else {**result, "error": f"{result['error']}: {value!r}"}


# --- search ----------------------------------------------------------------------------------------


@caught_by("test_a_filter_is_applied_before_the_limit")
class FiltersAfterTheLimit(MemoryBackend):
    def search(self, query: Any = None, metadata_filter: Any = None, limit: int = 10, **options: Any) -> Result:
        condition = filters.parse_filter(metadata_filter)
        entries = super().search(query, None, limit, **options)["results"]
        results = [entry for entry in entries if filters.matches(condition, entry["metadata"])]
        return ok(results=results, count=len(results))


@caught_by("test_a_store_replaces_what_search_finds")
class SearchesInTheFirstText(MemoryBackend):
    def _put(self, store: Store) -> Result:
        before = self._row(store.key)
        result = super()._put(store)
        if before is not None:
            object.__setattr__(self._rows[store.key].entry, "indexed", before.entry.indexed)
        return result


@caught_by("test_each_form_of_filter_finds_what_it_must")
class TakesTrueFor1(MemoryBackend):
    def search(self, query: Any = None, metadata_filter: Any = None, *arguments: Any, **options: Any) -> Result:
        if isinstance(metadata_filter, dict):
            metadata_filter = {key: 1 if value is True else value for key, value in metadata_filter.items()}
        return super().search(query, metadata_filter, *arguments, **options)


@caught_by("test_equal_scores_are_newest_first")
class OrdersByKey(ChangesEntries):
    def changed(self, entry: Entry) -> Entry:
        return replace(entry, moment=0)


@caught_by("test_the_score_is_that_of_the_formula")
class RoundsScores(MemoryBackend):
    def search(self, *arguments: Any, **options: Any) -> Result:
        entries = super().search(*arguments, **options)["results"]
        return ok(results=[{**entry, "score": round(entry["score"], 2)} for entry in entries], count=len(entries))


# --- lists of keys ---------------------------------------------------------------------------------


class ListsKeys(MemoryBackend):
    """Makes pages of keys in a wrong way."""

    def listed(self, keys: list[str], limit: int, after: str) -> Result:
        raise NotImplementedError

    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
        return self.listed([key for key, _, _ in self.iterate_all(prefix)], limit, after or "")


@caught_by("test_list_keys_is_in_the_order_of_code_points")
class ListsKeysAsADictionaryDoes(ListsKeys):
    def listed(self, keys: list[str], limit: int, after: str) -> Result:
        ordered = sorted(keys, key=lambda key: (key.casefold(), key))
        return ok(**page_of_keys([key for key in ordered if key > after][: limit + 1], limit))


@caught_by("test_list_keys_is_in_the_order_of_code_points")
class ListsKeysInTheOrderOfUTF16(ListsKeys):
    def listed(self, keys: list[str], limit: int, after: str) -> Result:
        ordered = sorted(keys, key=lambda key: key.encode("utf-16-be"))
        return ok(**page_of_keys([key for key in ordered if key > after][: limit + 1], limit))


@caught_by("test_next_is_none_exactly_when_nothing_follows")
class NamesANextAfterAFullLastPage(ListsKeys):
    def listed(self, keys: list[str], limit: int, after: str) -> Result:
        page = [key for key in keys if key > after][:limit]
        return ok(keys=page, next=page[-1] if len(page) == limit else None)


@caught_by("test_pages_give_every_key_exactly_once")
class NeverNamesTheLastPage(ListsKeys):
    def listed(self, keys: list[str], limit: int, after: str) -> Result:
        page = [key for key in keys if key > after][:limit]
        return ok(keys=page, next=page[-1] if page else after or None)


@caught_by("test_pages_give_every_key_exactly_once")
class GivesTheLastKeyAgain(ListsKeys):
    def listed(self, keys: list[str], limit: int, after: str) -> Result:
        return ok(**page_of_keys([key for key in keys if key >= after][: limit + 1], limit))


@caught_by("test_pages_go_on_after_a_key_that_is_not_there")
class BeginsAnewAfterAKeyThatIsNotThere(ListsKeys):
    def listed(self, keys: list[str], limit: int, after: str) -> Result:
        start = keys.index(after) + 1 if after in keys else 0
        return ok(**page_of_keys(keys[start : start + limit + 1], limit))


@caught_by("test_count_counts_what_begins_with_the_prefix")
class TakesAPrefixForAPattern(MemoryBackend):
    def count(self, prefix: str | None = None, **options: Any) -> Result:
        return super().count((prefix or "").rstrip("%"), **options)


@caught_by("test_count_counts_all_of_many")
class CountsOnePage(MemoryBackend):
    def count(self, prefix: str | None = None, **options: Any) -> Result:
        return ok(count=min(super().count(prefix, **options)["count"], 1000))


# --- retrieve_many ---------------------------------------------------------------------------------


@caught_by("test_retrieve_many_answers_with_each_whole_entry_or_none")
class LeavesOutWhatIsMissing(MemoryBackend):
    def retrieve_many(self, keys: Iterable[str], **options: Any) -> Result:
        result = super().retrieve_many(keys, **options)
        return {**result, "entries": {key: entry for key, entry in result["entries"].items() if entry is not None}}


@caught_by("test_retrieve_many_answers_in_the_order_of_the_keys_each_once")
class AnswersInTheOrderOfTheStore(MemoryBackend):
    def retrieve_many(self, keys: Iterable[str], **options: Any) -> Result:
        result = super().retrieve_many(keys, **options)
        return {**result, "entries": dict(sorted(result["entries"].items()))}


@caught_by("test_retrieve_many_finds_all_of_many")
class TakesNoMoreThan999Keys(MemoryBackend):
    def retrieve_many(self, keys: Iterable[str], **options: Any) -> Result:
        requested = [*keys]
        return (
            super().retrieve_many(requested, **options)
            if len(requested) < 1000
            else fail("query_error", "too many SQL variables")
        )


# --- the end ---------------------------------------------------------------------------------------


@caught_by("test_after_close_every_call_is_a_connection_error")
class AnswersAfterClose(MemoryBackend):
    def count(self, prefix: str | None = None, **options: Any) -> Result:
        return ok(count=len(self._rows)) if self._closed else super().count(prefix, **options)


@caught_by("test_after_close_iterate_all_raises")
class IteratesAfterClose(MemoryBackend):
    def iterate_all(
        self, prefix: str | None = None, **options: Any
    ) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        return iter([]) if self._closed else super().iterate_all(prefix, **options)


@caught_by("test_writing_while_iterating_works")
class IteratesByPlace(MemoryBackend):
    """Continues at an offset among the newest entries, so that a write during the iteration moves the entries."""

    def iterate_all(
        self, prefix: str | None = None, **options: Any
    ) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        for place in range(len(self._rows)):
            entries = super().search(limit=1, offset=place)["results"]
            yield from ((entry["key"], entry["value"], entry["metadata"]) for entry in entries)
