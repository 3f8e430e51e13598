"""The rules of ``stats`` and of listeners: what a backend says about its own calls."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.calls import CallEvent
from the_edge_agent.testing.contract import ContractBase, assert_failure, assert_success
from the_edge_agent.testing.workers import run_in_threads

NUMBERS: Final = {"count", "failed", "retries", "rows", "seconds", "slowest_seconds"}
WORD: Final = "wolpertinger"  # no word of ours


def counts(backend: LTMBackend) -> dict[str, int]:
    """Return how often each operation was called."""
    return {name: calls["count"] for name, calls in assert_success(backend.stats())["calls"].items()}


class Listener:
    """Keeps the events of calls."""

    def __init__(self) -> None:
        """Begin with none."""
        self.started: list[str] = []
        self.events: list[CallEvent] = []

    def call_started(self, event: CallEvent) -> None:
        """Keep the name of the operation."""
        self.started.append(event.operation)

    def call_ended(self, event: CallEvent) -> None:
        """Keep the event."""
        self.events.append(event)


class BrokenListener(Listener):
    """Fails at each event."""

    def call_started(self, event: CallEvent) -> None:
        """Fail."""
        raise ValueError("this listener fails")

    def call_ended(self, event: CallEvent) -> None:
        """Fail."""
        raise ValueError("this listener fails")


class StatsRules(ContractBase):
    """Statistics and listeners."""

    def test_stats_count_the_calls_of_each_operation(self, backend: LTMBackend) -> None:
        before = Counter(counts(backend))
        backend.store("a", 1)
        backend.store("b", 1)
        backend.retrieve("a")
        backend.search()
        assert Counter(counts(backend)) - before == {"store": 2, "retrieve": 1, "search": 1}

    def test_stats_have_times_and_rows(self, backend: LTMBackend) -> None:
        backend.store("a", 1)
        backend.store("b", 1)
        backend.retrieve("a")
        backend.retrieve("none")
        stats = assert_success(backend.stats())
        assert stats.keys() == {"success", "pool", "calls", "slowest", "since"}
        calls: dict[str, Any] = {**stats["calls"]}
        assert calls["store"].keys() == NUMBERS
        assert (calls["store"]["rows"], calls["retrieve"]["rows"]) == (2, 1)
        assert 0 < calls["store"]["slowest_seconds"] <= calls["store"]["seconds"] < 60
        assert abs(stats["since"] - datetime.now(timezone.utc)) < timedelta(minutes=10)
        seconds = [call["seconds"] for call in stats["slowest"]]
        assert seconds == sorted(seconds, reverse=True)
        assert {call["operation"] for call in stats["slowest"]} == calls.keys()
        assert all(stats["since"] <= call["at"] for call in stats["slowest"])

    def test_stats_have_at_most_ten_slow_calls(self, backend: LTMBackend) -> None:
        for number in range(12):
            backend.store(f"{number}", 1)
        assert len(backend.stats()["slowest"]) == 10

    def test_stats_count_failures(self, backend: LTMBackend) -> None:
        backend.store("", 1)
        backend.store("a", 1)
        calls = backend.stats()["calls"]["store"]
        assert (calls["count"], calls["failed"], calls["rows"]) == (2, 1, 1)

    def test_a_call_inside_a_call_does_not_count(self, backend: LTMBackend) -> None:
        backend.store("a", 1)
        before = Counter(counts(backend))
        backend.delete_all("")
        backend.count()
        backend.list_keys()
        backend.retrieve_many(["a"])
        expected = {"delete_all": 1, "count": 1, "list_keys": 1, "retrieve_many": 1}
        assert Counter(counts(backend)) - before == expected

    def test_an_iteration_is_one_call_with_its_rows(self, backend: LTMBackend) -> None:
        backend.store("a", 1)
        backend.store("b", 1)
        unread = backend.iterate_all()
        for _ in backend.iterate_all():
            backend.retrieve("a")  # the program makes this call, not the iteration
        del unread
        calls = backend.stats()["calls"]
        assert (calls["iterate_all"]["count"], calls["iterate_all"]["rows"]) == (1, 2)
        assert calls["retrieve"]["count"] == 2

    def test_an_iteration_that_is_left_early_counts_its_rows_so_far(self, backend: LTMBackend) -> None:
        backend.store("a", 1)
        backend.store("b", 1)
        items = backend.iterate_all()
        next(items)
        del items
        assert backend.stats()["calls"]["iterate_all"]["rows"] == 1

    def test_a_commit_is_one_call(self, transactional: LTMBackend) -> None:
        with transactional.transaction() as transaction:
            transaction.store("a", 1)
            transaction.store("b", 1)
        with transactional.transaction() as transaction:
            transaction.rollback()
        calls = transactional.stats()["calls"]
        assert calls.keys() == {"transaction"}
        assert (calls["transaction"]["count"], calls["transaction"]["rows"]) == (1, 2)

    def test_namespaces_and_the_whole_memory_count_together(self, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("a")
        part.store("k", 1)
        namespaced.store("k", 1)
        part.namespace("b").store("k", 1)
        assert counts(namespaced) == counts(part) == {"store": 3}

    def test_stats_of_a_closed_memory_go_on(self, backend: LTMBackend) -> None:
        backend.store("a", 1)
        backend.close()
        assert_failure(backend.store("a", 1), "connection_error")
        calls = assert_success(backend.stats())["calls"]["store"]
        assert (calls["count"], calls["failed"]) == (2, 1)
        assert backend.stats()["pool"] is None

    def test_threads_lose_no_call(self, backend: LTMBackend) -> None:
        def read(times: int) -> None:
            for _ in range(times):
                backend.retrieve("a")

        run_in_threads(read, [(25,)] * 4)
        assert counts(backend) == {"retrieve": 100}

    def test_stats_show_nothing_that_was_stored(self, backend: LTMBackend) -> None:
        backend.store(WORD, WORD, {WORD: WORD})
        backend.search(WORD)
        backend.store("", WORD)
        assert WORD not in repr(backend.stats())

    def test_a_listener_gets_each_call_until_it_is_removed(self, backend: LTMBackend) -> None:
        listener = Listener()
        backend.add_listener(listener)
        backend.add_listener(listener)
        backend.store(WORD, WORD)
        backend.store("", 1)
        [*backend.iterate_all()]
        backend.remove_listener(listener)
        backend.remove_listener(listener)
        backend.store("a", 1)
        assert listener.started == ["store", "store", "iterate_all"]
        first, second, third = listener.events
        assert (first.operation, first.rows, first.error_type, first.depth) == ("store", 1, None, 0)
        assert (second.rows, second.error_type) == (0, "validation_error")
        assert (third.rows, third.is_iteration) == (1, True)
        assert WORD not in repr(listener.events)
        assert all(event.seconds > 0 and event.started_at.tzinfo is timezone.utc for event in listener.events)

    def test_a_listener_that_fails_changes_no_call(self, backend: LTMBackend, caplog: pytest.LogCaptureFixture) -> None:
        sound = Listener()
        backend.add_listener(BrokenListener())
        backend.add_listener(sound)
        assert_success(backend.store("a", 1))
        assert backend.retrieve("a")["value"] == 1
        assert [event.operation for event in sound.events] == ["store", "retrieve"]
        assert caplog.text.count("a listener of calls has failed") == 1

    def test_a_listener_may_call_the_memory(self, backend: LTMBackend) -> None:
        class Writer(Listener):
            def call_ended(self, event: CallEvent) -> None:
                backend.store(event.operation, 1)

        backend.add_listener(Writer())
        backend.count()
        assert backend.retrieve("count")["found"]
        assert "store" not in counts(backend)
