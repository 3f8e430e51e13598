"""Backends with one fault each in their statistics, and the rule that must fail on each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from broken_backends import caught_by
from memory_backend import MemoryBackend
from the_edge_agent.memory import CallListener
from the_edge_agent.memory.core.calls import CallRecorder
from the_edge_agent.memory.core.results import Result


@caught_by("test_stats_count_the_calls_of_each_operation")
class ForgetsSearches(MemoryBackend):
    def stats(self) -> Result:
        stats = super().stats()
        stats["calls"].pop("search", None)
        return stats


@caught_by("test_stats_have_times_and_rows")
class ShowsSlowCallsInAnyOrder(MemoryBackend):
    def stats(self) -> Result:
        stats = super().stats()
        stats["slowest"].sort(key=lambda call: call["seconds"])
        return stats


@caught_by("test_stats_have_at_most_ten_slow_calls")
class RepeatsTheSlowestCall(MemoryBackend):
    def stats(self) -> Result:
        stats = super().stats()
        stats["slowest"] += stats["slowest"][:1]
        return stats


@caught_by("test_stats_count_failures")
class CountsNoFailures(MemoryBackend):
    def stats(self) -> Result:
        stats = super().stats()
        for calls in stats["calls"].values():
            calls["failed"] = 0
        return stats


@caught_by("test_a_call_inside_a_call_does_not_count")
class CountsWhatACallCalls(MemoryBackend):
    def count(self, prefix: str | None = None, *, nested: bool = False) -> Result:
        self._recorder, recorder = CallRecorder(), self._recorder
        result = super().count(prefix, nested=nested)
        assert recorder is not None
        self._recorder = recorder
        recorder.record("retrieve", 0.1, 1, 0, None)
        return result


@caught_by("test_an_iteration_is_one_call_with_its_rows")
class CountsAnIterationWhenItIsMade(MemoryBackend):
    def iterate_all(self, prefix: str | None = None, *, nested: bool = False) -> Iterator[tuple[Any, ...]]:
        items = super().iterate_all(prefix, nested=nested)
        assert self._recorder is not None
        self._recorder.record("iterate_all", 0.1, 0, 0, None)
        return items


@caught_by("test_namespaces_and_the_whole_memory_count_together")
class CountsEachNamespaceAlone(MemoryBackend):
    def stats(self) -> Result:
        stats = super().stats()
        if not self.namespace_names:
            stats["calls"]["store"]["count"] -= 1
        return stats


@caught_by("test_stats_of_a_closed_memory_go_on")
class HasNoStatsAfterClose(MemoryBackend):
    def close(self) -> None:
        super().close()
        self._recorder = CallRecorder()


@caught_by("test_stats_show_nothing_that_was_stored")
class ShowsTheLastKey(MemoryBackend):
    def stats(self) -> Result:
        keys = [key for key, _, _ in super().iterate_all()]
        return {**super().stats(), "keys": keys}


@caught_by("test_a_listener_gets_each_call_until_it_is_removed")
class KeepsListeners(MemoryBackend):
    def remove_listener(self, listener: CallListener) -> None:
        pass


@caught_by("test_a_commit_is_one_call")
class CountsAMadeTransaction(MemoryBackend):
    def _apply(self, operations: Any) -> Any:
        assert self._recorder is not None
        self._recorder.record("store_many", 0.1, 1, 0, None)
        return super()._apply(operations)
