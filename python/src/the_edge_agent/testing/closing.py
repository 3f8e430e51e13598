"""The rules of close: once is enough, and afterwards every call says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from the_edge_agent.memory.base import LTMBackend
from the_edge_agent.memory.results import LTMError
from the_edge_agent.testing.contract import ContractBase, OpenBackend, assert_failure, assert_success

CALLS: Final[dict[str, Callable[[LTMBackend], dict[str, Any]]]] = {
    "store": lambda backend: backend.store("k", 1),
    "retrieve": lambda backend: backend.retrieve("k"),
    "delete": lambda backend: backend.delete("k"),
    "search": lambda backend: backend.search(),
    "search for words": lambda backend: backend.search("fox", {"a": 1}, prefix="k"),
    "search for nothing": lambda backend: backend.search("!!!"),
}


class ClosingRules(ContractBase):
    """The end of a backend."""

    def test_after_close_every_call_is_a_connection_error(self, backend: LTMBackend) -> None:
        for call in CALLS.values():
            assert_success(call(backend))
        backend.close()
        for call in [*CALLS.values()] * 2:
            assert_failure(call(backend), "connection_error")

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
