"""The rules of close: closing twice is allowed, and later calls fail with connection_error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.testing.contract import ContractBase, OpenBackend, assert_failure, assert_success, find

CALLS: Final[dict[str, Callable[[LTMBackend], Any]]] = {
    "store": lambda backend: backend.store("k", 1),
    "retrieve": lambda backend: backend.retrieve("k"),
    "delete": lambda backend: backend.delete("k"),
    "search": lambda backend: find(backend),
    "search for words": lambda backend: find(backend, "fox", {"a": 1}, prefix="k"),
    "search for nothing": lambda backend: find(backend, "!!!"),
    "retrieve_many": lambda backend: backend.retrieve_many(["k", "other"]),
    "list_keys": lambda backend: backend.list_keys(),
    "list_keys with everything": lambda backend: backend.list_keys("k", 1, "a"),
    "count": lambda backend: backend.count(),
    "count with a prefix": lambda backend: backend.count("k"),
}
BATCHES: Final[dict[str, Callable[[LTMBackend], Any]]] = {
    "store_many": lambda backend: backend.store_many([{"key": "k", "value": 1}]),
    "store_many of nothing": lambda backend: backend.store_many([]),
    "delete_many": lambda backend: backend.delete_many(["k"]),
    "delete_many of nothing": lambda backend: backend.delete_many([]),
}


class ClosingRules(ContractBase):
    """Closing a backend."""

    def test_after_close_every_call_is_a_connection_error(self, backend: LTMBackend) -> None:
        assert_closed_to(CALLS, backend)

    def test_after_close_batches_are_a_connection_error(self, transactional: LTMBackend) -> None:
        assert_closed_to(BATCHES, transactional)

    def test_after_close_lifetimes_are_a_connection_error(self, expiring: LTMBackend) -> None:
        store, clean_up = (lambda backend: backend.store("k", 1, ttl=60)), (lambda backend: backend.cleanup_expired())
        assert_closed_to({"store": store, "cleanup_expired": clean_up}, expiring)

    def test_after_close_if_version_is_a_connection_error(self, versioned: LTMBackend) -> None:
        assert_closed_to({"store": lambda backend: backend.store("k", 1, if_version=0)}, versioned)

    def test_after_close_touch_and_times_are_a_connection_error(self, touching: LTMBackend, timed: LTMBackend) -> None:
        calls: dict[str, Callable[[LTMBackend], Any]] = {
            "touch": lambda backend: backend.touch("k"),
            "touch with ttl": lambda backend: backend.touch("k", 60),
            "retrieve and refresh": lambda backend: backend.retrieve("k", refresh_ttl=True),
            "search and refresh": lambda backend: backend.search(refresh_ttl=True),
            "retrieve with times": lambda backend: backend.retrieve("k", times=True),
            "retrieve_many with times": lambda backend: backend.retrieve_many(["k"], times=True),
            "entries": lambda backend: backend.entries(),
            "newest entries": lambda backend: backend.entries(order="newest"),
        }
        assert_closed_to(calls, touching)
        with pytest.raises(LTMError) as raised:
            list(timed.iterate_entries())
        assert_failure(raised.value.result, "connection_error")

    def test_after_close_imports_fail_and_have_counts(self, importing: LTMBackend) -> None:
        importing.close()
        for entries in ([{"key": "k", "value": 1}], []):
            result: Any = importing.import_entries(entries)
            counts = {name: result.pop(name, 0) for name in ("imported_count", "skipped_count", "replaced_count")}
            assert set(counts.values()) == {0}
            assert_failure(result, "connection_error")

    def test_after_close_namespaces_are_a_connection_error(self, namespaced: LTMBackend) -> None:
        calls: dict[str, Callable[[LTMBackend], Any]] = {
            "list_namespaces": lambda backend: backend.list_namespaces(),
            "count": lambda backend: backend.count(nested=True),
            "search": lambda backend: backend.search(nested=True),
            "store": lambda backend: backend.namespace("a").store("k", 1),
        }
        assert_closed_to(calls, namespaced)

    def test_after_close_iterate_all_raises(self, backend: LTMBackend) -> None:
        backend.close()
        for prefix in (None, "k"):
            with pytest.raises(LTMError) as raised:
                list(backend.iterate_all(prefix))
            assert_failure(raised.value.result, "connection_error")

    def test_after_close_transaction_raises(self, transactional: LTMBackend) -> None:
        transactional.close()
        with pytest.raises(LTMError) as raised:
            transactional.transaction()
        assert_failure(raised.value.result, "connection_error")

    def test_close_is_idempotent(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        for _ in range(3):
            backend.close()
        assert_failure(backend.retrieve("k"), "connection_error")

    def test_an_unused_backend_closes(self, open_backend: OpenBackend) -> None:
        backend = open_backend()
        backend.close()
        assert_failure(backend.retrieve("k"), "connection_error")

    def test_leaving_with_closes(self, open_backend: OpenBackend) -> None:
        with open_backend() as backend:
            assert_success(backend.store("k", 1))
        assert_failure(backend.retrieve("k"), "connection_error")

    def test_leaving_with_by_an_exception_closes_and_keeps_the_exception(self, open_backend: OpenBackend) -> None:
        with pytest.raises(KeyError, match="mine"), open_backend() as backend:
            raise KeyError("mine")
        assert_failure(backend.retrieve("k"), "connection_error")

    def test_with_gives_the_backend_itself(self, open_backend: OpenBackend) -> None:
        backend = open_backend()
        with backend as entered:
            assert entered is backend

    def test_to_close_one_backend_leaves_another_open(self, reopen: OpenBackend) -> None:
        with reopen() as first:
            with reopen() as second:
                assert_success(second.store("k", 1))
            assert first.retrieve("k")["value"] == 1


def assert_closed_to(calls: Mapping[str, Callable[[LTMBackend], Any]], backend: LTMBackend) -> None:
    """Check that calls succeed before close and fail after it, also when repeated; name the calls that do not."""
    for call in calls.values():
        assert_success(call(backend))
    backend.close()
    for _ in range(2):
        answers = {name: call(backend) for name, call in calls.items()}
        assert {name: answer for name, answer in answers.items() if answer["success"]} == {}
        for answer in answers.values():
            assert_failure(answer, "connection_error")
