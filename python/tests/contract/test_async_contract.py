"""The contract through ``AsyncMemory`` and ``AsyncCatalog``: their coroutines do what the methods do.

The whole contract runs on asyncio. What can differ between event loops runs on trio too; tests/memory/test_async.py and
test_async_catalog.py have more of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from async_memories import Blocking
from the_edge_agent.memory import LTMBackend, SQLiteBackend, SQLiteCatalog
from the_edge_agent.memory.aio import AsyncCatalog, AsyncMemory, AsyncTransaction
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.database.catalog import DatabaseCatalog
from the_edge_agent.testing import CatalogContract, LTMContract
from the_edge_agent.testing.catalog_base import CatalogBase, OpenCatalog
from the_edge_agent.testing.catalog_closing import CatalogClosingRules
from the_edge_agent.testing.closing import ClosingRules
from the_edge_agent.testing.contract import ContractBase, OpenBackend
from the_edge_agent.testing.iteration import IterationRules
from the_edge_agent.testing.transactions import TransactionRules

# Methods that are no coroutines, and those for the authors of memories and catalogs, which are not there.
_NO_COROUTINES: Final = (
    *("namespace", "iterate_all", "iterate_entries", "iterate_snapshot", "transaction"),
    *("stats", "add_listener", "remove_listener"),
)
_FOR_AUTHORS: Final = ("check_store", "check_match", "language", "beside", "is_on")
_NOT_OPENED_AGAIN: Final = dict.fromkeys(("reopen", "reopen_catalog"), "it ends with the object that opened it")


@pytest.fixture(scope="class")
def portal(request: pytest.FixtureRequest) -> Iterator[BlockingPortal]:
    with start_blocking_portal(backend=request.cls.event_loop) as portal:
        yield portal


class OfMemories(ContractBase):
    """Opens an ``AsyncMemory``."""

    event_loop: ClassVar[str] = "asyncio"
    leaves_out_slow = True  # a database shows these rules
    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = _NOT_OPENED_AGAIN

    @pytest.fixture
    def open_backend(self, portal: BlockingPortal) -> OpenBackend:
        def opened() -> Any:
            memory = SQLiteBackend(language="none")
            return Blocking(portal, portal.call(AsyncMemory, memory), memory)

        return opened


class OfCatalogs(CatalogBase):
    """Opens an ``AsyncCatalog``."""

    event_loop: ClassVar[str] = "asyncio"
    leaves_out_slow = True
    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = _NOT_OPENED_AGAIN

    @pytest.fixture
    def open_catalog(self, portal: BlockingPortal) -> OpenCatalog:
        def opened() -> Any:
            catalog = SQLiteCatalog(":memory:")
            return Blocking(portal, portal.call(AsyncCatalog, catalog), catalog)

        return opened


class TestMemory(OfMemories, LTMContract):
    """All rules of memories."""

    examples = 5

    # What these rules look at is the wrapped memory's: threads of callers, the items of its iterator, its ranking.
    test_a_listener_may_call_the_memory: ClassVar[Any] = None
    test_an_iteration_that_is_left_early_counts_its_rows_so_far: ClassVar[Any] = None
    test_an_iteration_is_one_call_with_its_rows: ClassVar[Any] = None
    test_questions_of_more_matches_than_candidates: ClassVar[Any] = None


class TestMemoryOnTrio(OfMemories, IterationRules, TransactionRules, ClosingRules):
    """The rules of memories that can differ between event loops."""

    event_loop: ClassVar[str] = "trio"


class TestCatalog(OfCatalogs, CatalogContract):
    """All rules of catalogs."""

    test_it_is_a_catalog: ClassVar[Any] = None  # ``Blocking`` has no methods of its own


class TestCatalogOnTrio(OfCatalogs, CatalogClosingRules):
    """The rules of catalogs that can differ between event loops."""

    event_loop: ClassVar[str] = "trio"


def parameters(method: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]


def of_contract(sync: type, asynchronous: type) -> list[tuple[type, type, str]]:
    """Return both classes with the name of each public method and property of the first."""
    names = [name for name, _ in inspect.getmembers(sync) if not name.startswith("_") and name not in _FOR_AUTHORS]
    return [(sync, asynchronous, name) for name in names]


@pytest.mark.parametrize(
    ("sync", "asynchronous", "name"),
    [*of_contract(LTMBackend, AsyncMemory), *of_contract(DatabaseCatalog, AsyncCatalog)],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_each_method_of_the_contract_is_there_with_its_arguments(sync: type, asynchronous: type, name: str) -> None:
    theirs = inspect.getattr_static(sync, name)
    if not inspect.isfunction(theirs):
        assert isinstance(inspect.getattr_static(asynchronous, name), property)
        return
    ours = getattr(asynchronous, name)
    assert parameters(ours) == parameters(theirs)
    assert inspect.iscoroutinefunction(ours) is (name not in _NO_COROUTINES)


@pytest.mark.parametrize("name", ["store", "delete", "commit", "rollback"])
def test_each_method_of_a_transaction_is_there_with_its_arguments(name: str) -> None:
    assert parameters(getattr(AsyncTransaction, name)) == parameters(getattr(LTMTransaction, name))
