"""Backends with one fault each in their namespaces, and the rule that must fail on each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from broken_backends import caught_by
from memory_backend import Contains, MemoryBackend
from the_edge_agent.memory import LTMTransaction
from the_edge_agent.memory.core.namespaces import Namespace
from the_edge_agent.memory.core.operations import Delete, Operation, Store
from the_edge_agent.memory.core.results import Result, conflict, ok
from the_edge_agent.memory.core.tokens import search_text
from the_edge_agent.testing.full_keys import place_of
from the_edge_agent.testing.model import Model

Self = TypeVar("Self", bound=MemoryBackend)

ISOLATED = "test_no_entry_is_ever_seen_from_another_namespace"


class HasOtherRanges(MemoryBackend):
    """Returns another range of keys for a namespace."""

    def range_of(self, begin: str, nested: bool) -> Contains:
        raise NotImplementedError

    def _range(self, prefix: str | None = None, nested: bool = False) -> Contains:
        right = super()._range(prefix, nested)
        return self.range_of(prefix or "", nested) if self._namespace.head else right


@caught_by(ISOLATED)
class SeesTheNamespacesBelow(HasOtherRanges):
    def range_of(self, begin: str, nested: bool) -> Contains:
        return lambda key: place_of(key)[0][: len(self._namespace.names)] == self._namespace.names


@caught_by(ISOLATED)
class TakesEveryKeyOfTheRangeForOneBelow(HasOtherRanges):
    """Takes the key ``@a//b.c`` of no namespace for one of a namespace below ``a``."""

    def range_of(self, begin: str, nested: bool) -> Contains:
        head = self._namespace.head
        heads = (head, f"{head[:-1]}/") if nested else (head + begin,)
        return lambda key: key.startswith(heads) and key != head


@caught_by("test_a_prefix_never_reaches_into_namespaces_below")
class ComparesAPrefixWithoutTheFullStop(HasOtherRanges):
    def range_of(self, begin: str, nested: bool) -> Contains:
        own, head = self._namespace.names, self._namespace.head

        def contains(key: str) -> bool:
            names, in_namespace = place_of(key)
            is_in = names[: len(own)] == own if nested or begin else names == own
            return is_in and (key.startswith(head[:-1] + begin) or in_namespace.startswith(begin))

        return contains


@caught_by("test_nested_results_have_the_namespace_below_this_one")
class SearchesOneNamespaceOnly(MemoryBackend):
    def search(self, *arguments: Any, nested: bool = False, **options: Any) -> Result:
        result = super().search(*arguments, **options)
        for entry in result["results"] if nested else ():
            entry["namespace"] = ()
        return result


class HasOtherHeads(MemoryBackend):
    """Begins full keys with another text."""

    def head_of(self, names: tuple[str, ...]) -> str:
        raise NotImplementedError

    def namespace(self: Self, *names: str) -> Self:
        part = super().namespace(*names)
        if names:
            part._namespace = replace(part._namespace, head=self.head_of(part._namespace.names))  # type: ignore[attr-defined]
        return part


@caught_by(ISOLATED)
class EscapesNothing(HasOtherHeads):
    def head_of(self, names: tuple[str, ...]) -> str:
        return f"@{'/'.join(names)}."


@caught_by("test_the_whole_memory_has_full_keys")
class EscapesInSmallLetters(HasOtherHeads):
    def head_of(self, names: tuple[str, ...]) -> str:
        return Namespace.of(names).head.replace("%2E", "%2e").replace("%2F", "%2f")


@caught_by("test_a_ranking_uses_the_statistics_of_the_namespace")
class RanksByTheWholeMemory(MemoryBackend):
    def _searched(self, query: Any, *arguments: Any, **options: Any) -> Result:
        result = super()._searched(query, *arguments, **options)
        everything = Model()
        everything.entries = {row.entry.key: row.entry for row in self._living(lambda key: True)}
        scores = {entry["key"]: entry["score"] for entry in everything.ask(query, limit=10_000)["results"]}
        for entry in result["results"]:
            entry["score"] = scores.get(entry["key"], entry["score"])
        return result


@caught_by("test_the_names_are_no_words_of_an_entry")
class SearchesTheNames(MemoryBackend):
    def _put(self, store: Store) -> Result:
        result = super()._put(store)
        entry = self._rows[store.key].entry
        names = search_text(store.key.replace("@", " "), entry.value, entry.metadata)
        object.__setattr__(entry, "indexed", names)
        return result


@caught_by("test_a_conflict_names_the_key_in_the_namespace")
class NamesTheFullKeyOfAConflict(MemoryBackend):
    def _check_version(self, operation: Operation, version: int) -> None:
        if operation.if_version not in (None, version):
            raise conflict(operation.key, version)


@caught_by("test_a_transaction_of_a_namespace_has_its_keys")
class TransactsInTheWholeMemory(MemoryBackend):
    def transaction(self) -> LTMTransaction:
        return LTMTransaction(Store.of, self._apply, Delete.of)


@caught_by("test_delete_all_reaches_only_the_namespace")
class DeletesTheNamespacesBelow(MemoryBackend):
    def delete_all(self, prefix: str, *, nested: bool = False) -> Result:
        return super().delete_all(prefix, nested=nested or (prefix == "" and bool(self._namespace.head)))


@caught_by("test_a_prefix_does_not_go_with_nested")
class IgnoresThePrefixOfNestedCounts(MemoryBackend):
    def count(self, prefix: str | None = None, *, nested: bool = False) -> Result:
        return super().count(None if nested else prefix, nested=nested)


@caught_by("test_a_full_key_has_at_most_512_characters")
class LooksForKeysThatAreTooLong(MemoryBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        result = super().retrieve(key, default, **options)
        if self._namespace.head and not result["success"]:
            return ok(value=default, found=False, metadata=None, version=None)
        return result


@caught_by("test_closing_a_namespace_closes_nothing")
class ClosesTheMemoryWithANamespace(MemoryBackend):
    def close(self) -> None:
        self._shared.is_closed = True


@caught_by("test_closing_the_memory_closes_its_namespaces")
class AnswersInANamespaceAfterClose(MemoryBackend):
    def count(self, prefix: str | None = None, *, nested: bool = False) -> Result:
        closed = self._closed and bool(self._namespace.head)
        return ok(count=len(self._rows)) if closed else super().count(prefix, nested=nested)


@caught_by("test_cleanup_of_a_namespace_is_that_of_the_whole_memory")
class CleansUpTheNamespaceOnly(MemoryBackend):
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        others = {key: row for key, row in self._rows.items() if not self._range(nested=True)(key)}
        for key in others:
            del self._rows[key]
        result = super().cleanup_expired(batch_size)
        self._rows.update(others)
        return result


# --- lists of namespaces ---------------------------------------------------------------------------


@caught_by("test_list_namespaces_answers_with_tuples_in_the_order_of_full_keys")
class OrdersNamespacesByTheirNames(MemoryBackend):
    def list_namespaces(self, *arguments: Any, **options: Any) -> Result:
        result = super().list_namespaces(*arguments, **options)
        return {**result, "namespaces": sorted(result["namespaces"])} if result["success"] else result


@caught_by("test_conditions_hold_for_all_names")
class CutsNamesBeforeItCompares(MemoryBackend):
    def list_namespaces(
        self, prefix: Any = None, suffix: Any = None, max_depth: int | None = None, *arguments: Any, **options: Any
    ) -> Result:
        if max_depth is None or suffix is None:
            return super().list_namespaces(prefix, suffix, max_depth, *arguments, **options)
        cut = super().list_namespaces(prefix, None, max_depth, *arguments, **options)["namespaces"]
        found = [names for names in cut if names[-len(suffix) :] == tuple(suffix)]
        return ok(namespaces=found, count=len(found))


@caught_by("test_conditions_hold_for_all_names")
class TakesAStarForAName(MemoryBackend):
    def list_namespaces(self, prefix: Any = None, *arguments: Any, **options: Any) -> Result:
        result = super().list_namespaces(prefix, *arguments, **options)
        if not isinstance(prefix, (list, tuple)) or not result["success"]:
            return result
        found = [names for names in result["namespaces"] if "*" not in prefix or names[: len(prefix)] == tuple(prefix)]
        return ok(namespaces=found, count=len(found))


@caught_by("test_limit_and_offset_count_namespaces")
class CutsNamespacesAfterTheLimit(MemoryBackend):
    def list_namespaces(
        self, prefix: Any = None, suffix: Any = None, max_depth: int | None = None, *arguments: Any, **options: Any
    ) -> Result:
        result = super().list_namespaces(prefix, suffix, None, *arguments, **options)
        if max_depth is None or not result["success"]:
            return result
        found = [*dict.fromkeys(names[:max_depth] for names in result["namespaces"])]
        return ok(namespaces=found, count=len(found))


@caught_by("test_keys_of_no_namespace_are_not_listed")
class ListsWhatLooksLikeANamespace(MemoryBackend):
    def list_namespaces(self, *arguments: Any, **options: Any) -> Result:
        result = super().list_namespaces(*arguments, **options)
        if arguments or options or self._namespace.head:
            return result
        heads = {key[1:].partition(".")[0] for key in self._rows if key.startswith("@") and "." in key}
        namespaces = sorted(tuple(head.split("/")) for head in heads)
        return ok(namespaces=namespaces, count=len(namespaces))


@caught_by("test_expired_entries_do_not_count_for_a_namespace")
class ListsNamespacesOfWhatHasExpired(MemoryBackend):
    def list_namespaces(self, *arguments: Any, **options: Any) -> Result:
        rows = dict(self._rows)
        self._rows.update({key: replace(row, expires=None) for key, row in rows.items()})
        result = super().list_namespaces(*arguments, **options)
        self._rows.update(rows)
        return result
