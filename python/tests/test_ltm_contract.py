"""The LTM contract on every database, with its own dialect class and with the portable one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from databases import Database
from the_edge_agent.memory import LTMBackend, LTMError
from the_edge_agent.memory.base import Delete, Store
from the_edge_agent.memory.codec import decode
from the_edge_agent.memory.results import Result, ok, returns_result
from the_edge_agent.memory.validation import check_key, check_limit, check_offset, check_prefix
from the_edge_agent.testing import LTMContract
from the_edge_agent.testing.contract import OpenBackend, assert_failure, contents, load
from the_edge_agent.testing.model import Entry, Model


class OnADatabase(LTMContract):
    """The contract on one of our targets; each test must give its connections back."""

    @pytest.fixture
    def open_backend(self, database: Database) -> OpenBackend:
        return database.open

    @pytest.fixture(autouse=True)
    def no_connection_is_kept(self, backend: LTMBackend) -> Iterator[None]:
        yield
        engine = getattr(backend, "_engine", None)
        if engine is not None:
            assert engine.pool.checkedout() == 0

    @pytest.mark.parametrize("failing", [1, 2, 3, 7])
    def test_a_statement_that_fails_in_the_middle_leaves_nothing_behind(self, backend: Any, failing: int) -> None:
        load(backend, [("b", 1, {"n": 1}), ("c", 1, None)])
        before = contents(backend)
        writes = 0

        def fail(*arguments: Any) -> None:
            nonlocal writes
            writes += arguments[2].lstrip().startswith(("INSERT", "UPDATE", "DELETE"))
            if writes == failing:
                raise OperationalError("", {}, Exception("the test cuts in"))

        transaction = backend.transaction()
        for key in ("d", "c", "b", "a"):
            transaction.store(key, 2)
            transaction.delete(key)
        event.listen(backend._engine, "before_cursor_execute", fail)
        assert_failure(transaction.commit(), "query_error")
        event.remove(backend._engine, "before_cursor_execute", fail)
        assert contents(backend) == before


class TestDatabases(OnADatabase):
    """Stores that outlive a backend and are shared by processes."""


class TestMemory(OnADatabase):
    """Stores in the memory of one backend."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out = ("reopen",)


def fresh(value: Any) -> Any:
    """Return a copy of a JSON value; unlike ``copy.deepcopy`` also of a very deep one."""
    return json.loads(json.dumps(value))


class ThirdPartyBackend(LTMBackend):
    """The five methods that a third party has to write, over a dict; all else is the base class's."""

    def __init__(self) -> None:
        self._model = Model()
        self._versions: dict[str, int] = {}
        self._closed = False
        self._turn = threading.RLock()

    @returns_result
    def store(self, key: str, value: Any, metadata: dict[str, Any] | None = None) -> Result:
        with self._open():
            entry = Store.of(key, value, metadata)
            version = self._versions[key] = self._versions.get(key, 0) + 1
            self._model.entries[key] = Entry(key, decode(entry.value), fresh(metadata), time.monotonic_ns())
            return ok(stored=True, key=key, created=version == 1, version=version)

    @returns_result
    def retrieve(self, key: str, default: Any = None) -> Result:
        with self._open():
            entry = self._model.entries.get(check_key(key))
            if entry is None:
                return ok(value=default, found=False, metadata=None, version=None)
            found = {"value": fresh(entry.value), "metadata": fresh(entry.metadata)}
            return ok(**found, found=True, version=self._versions[key])

    @returns_result
    def delete(self, key: str) -> Result:
        with self._open():
            deleted = self._model.entries.pop(Delete.of(key).key, None) is not None
            self._versions.pop(key, None)
            return ok(deleted=deleted, key=key)

    @returns_result
    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        prefix: str | None = None,
        offset: int = 0,
    ) -> Result:
        with self._open():
            limit, prefix, offset = check_limit(limit), check_prefix(prefix), check_offset(offset)
            found = self._model.search(query, metadata_filter, limit, prefix=prefix, offset=offset)
            return ok(results=[fresh(entry) for entry in found["results"]], count=found["count"])

    def close(self) -> None:
        self._closed = True

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._turn:
            if self._closed:
                raise LTMError("connection_error", "this backend is closed")
            yield


class TestThirdParty(LTMContract):
    """The suite on a backend of five methods: what it does not declare is left out."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out = ("reopen", "transactional")

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        return ThirdPartyBackend
