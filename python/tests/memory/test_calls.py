"""What our memories and catalogs record of their calls: pools, retries, catalogs, forks, and the log."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import pickle
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from memory_backend import MemoryBackend
from the_edge_agent.memory import (
    CatalogBackend,
    LTMBackend,
    LTMError,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    SQLiteBackend,
    SQLiteCatalog,
    raising,
)
from the_edge_agent.memory.contract.observed import OF_CATALOGS, OF_MEMORIES
from the_edge_agent.memory.core.calls import CALLS, CallRecorder, note_retry
from the_edge_agent.memory.database.tickets import Tickets


def counts(owner: Any) -> dict[str, int]:
    return {name: calls["count"] for name, calls in owner.stats()["calls"].items()}


@pytest.fixture(params=[SQLiteBackend, SQLAlchemyBackend])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LTMBackend]:
    place = tmp_path / "memory.db"
    with request.param(f"sqlite:///{place}" if request.param is SQLAlchemyBackend else place) as backend:
        yield backend


def test_the_pool_is_counted_and_none_after_close(memory: LTMBackend) -> None:
    memory.store("a", 1)
    pool = memory.stats()["pool"]
    assert pool is not None
    assert (pool["in_use"], pool["idle"], pool["overflow"]) == (0, 1, 0)
    memory.close()
    assert memory.stats()["pool"] is None


def test_a_lazy_memory_has_no_pool_yet(tmp_path: Path) -> None:
    with SQLAlchemyBackend(f"sqlite:///{tmp_path / 'm.db'}", lazy=True) as memory:
        assert memory.stats()["pool"] is None
        assert not (tmp_path / "m.db").exists()


def test_a_thread_that_waits_for_a_connection_is_counted() -> None:
    tickets = Tickets(1)
    ticket = tickets.take(1)
    assert ticket is not None
    thread = threading.Thread(target=lambda: tickets.take(60))
    thread.start()
    while not tickets.waiting():
        pass
    tickets.give_back(ticket)
    thread.join(60)
    assert tickets.waiting() == 0


def test_retries_of_a_call_are_counted_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLiteBackend() as memory:

        def get(key: str) -> None:
            note_retry()

        monkeypatch.setattr(memory, "_get", get)
        memory.retrieve("a")
        memory.retrieve("a")
        memory.count()
        calls = memory.stats()["calls"]
        assert (calls["retrieve"]["retries"], calls["count"]["retries"]) == (2, 0)


def test_a_transaction_that_runs_again_is_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLAlchemyBackend("sqlite://") as memory:
        failures = [OperationalError("", {}, sqlite3.OperationalError("database is locked"))]

        def work(*_: Any) -> int:
            if failures:
                raise failures.pop()
            return 3

        monkeypatch.setattr(memory, "_remove", lambda deletes: memory._database.run(work, write=True))
        assert memory.delete_many(["a"])["deleted_count"] == 3
        calls = memory.stats()["calls"]["delete_many"]
        assert (calls["count"], calls["failed"], calls["retries"]) == (1, 0, 1)


def test_the_catalog_of_a_memory_counts_with_the_memory() -> None:
    with SQLiteBackend(catalog="sqlite") as memory:
        memory.store("a", 1)
        catalog: Any = memory.catalog
        catalog.get_entry("a")
        catalog.get_entry("none")
        assert counts(memory) == {"store": 1, "catalog.get_entry": 2}
        assert memory.stats()["calls"]["catalog.get_entry"]["rows"] == 1
        assert counts(catalog) == counts(memory)


@pytest.mark.parametrize("make", [lambda: SQLiteCatalog(":memory:"), lambda: SQLAlchemyCatalog("sqlite://")])
def test_a_catalog_of_the_caller_counts_for_itself(make: Any) -> None:
    catalog: CatalogBackend = make()
    with SQLiteBackend(catalog=catalog) as memory:
        memory.store("a", 1)
        assert counts(memory) == {"store": 1}
        assert all(name.startswith("catalog.") for name in counts(catalog))
        assert catalog.get_entry("a") is not None
        assert counts(memory) == {"store": 1}
        assert counts(catalog)["catalog.get_entry"] == 1
    catalog.close()  # type: ignore[attr-defined]


def test_the_catalog_of_a_namespace_counts_with_the_memory() -> None:
    with SQLiteBackend(catalog="sqlite") as memory:
        catalog: Any = memory.namespace("a").catalog
        assert catalog.list_entries() == []
        assert counts(memory) == {"catalog.list_entries": 1}


def test_memories_that_raise_count_their_failures() -> None:
    with SQLiteBackend(errors="raise") as memory, raising(SQLiteBackend()) as wrapped:
        for each in (memory, wrapped):
            with pytest.raises(LTMError):
                each.store("", 1)
            assert each.stats()["calls"]["store"]["failed"] == 1


def test_a_forked_child_counts_from_zero(memory: LTMBackend) -> None:
    memory.store("a", 1)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        memory.retrieve("a")
        os.write(writing, repr(counts(memory)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1000).decode() == "{'retrieve': 1}"
    os.close(reading)
    os.close(writing)
    assert counts(memory) == {"store": 1}


def test_a_backend_of_another_package_is_copied_as_before() -> None:
    recorder = CallRecorder()
    recorder.record("store", 1.0, 1, 0, None)
    for copied in (copy.deepcopy(recorder), pickle.loads(pickle.dumps(recorder))):
        assert copied.calls() == {}


def test_a_backend_that_has_called_no_constructor_of_ours_is_recorded() -> None:
    with MemoryBackend() as memory:
        memory.store("a", 1)
        assert counts(memory) == {"store": 1}


def test_the_log_has_a_line_a_call_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, CALLS), SQLiteBackend() as memory:
        memory.namespace("acme").store("customer", "wolpertinger", {"kind": "wolpertinger"})
        memory.store("", 1)
        first, second = caplog.records
    assert first.getMessage().startswith("store succeeded in ")
    assert first.getMessage().endswith(" ms, rows: 1, retries: 0")
    assert "store failed (validation_error) in" in second.getMessage()
    fields: Any = first
    assert (fields.operation, fields.rows, fields.retries, fields.error_type) == ("store", 1, 0, None)
    shown = repr([vars(record) for record in caplog.records])
    assert not any(word in shown for word in ("acme", "customer", "wolpertinger"))


def test_without_debug_the_log_has_no_calls(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), SQLiteBackend() as memory:
        memory.store("a", 1)
    assert caplog.records == []


NOT_RECORDED = {
    "add_listener", "check_match", "check_store", "close", "ddl", "namespace", "remove_listener", "session", "stats",
    "transaction",
}  # fmt: skip
NOT_OF_CATALOGS = {"add_listener", "close", "ddl", "is_on", "remove_listener", "session", "stats"}


@pytest.mark.parametrize(
    ("owner", "recorded", "others"),
    [(SQLAlchemyBackend, OF_MEMORIES, NOT_RECORDED), (SQLAlchemyCatalog, OF_CATALOGS, NOT_OF_CATALOGS)],
)
def test_every_public_method_is_recorded(owner: type, recorded: Mapping[str, Any], others: set[str]) -> None:
    methods = {name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")}
    assert methods - others == recorded.keys()
