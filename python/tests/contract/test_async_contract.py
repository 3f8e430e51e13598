"""The LTM contract through ``AsyncMemory``, on asyncio and trio: its coroutines do what the methods do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from async_memories import Blocking
from the_edge_agent.memory import LTMBackend, SQLAlchemyBackend
from the_edge_agent.memory.aio import AsyncMemory, AsyncTransaction
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.testing import LTMContract
from the_edge_agent.testing.contract import OpenBackend

# Methods of the contract that are the same in both, or are for the authors of backends.
_NO_COROUTINES = (
    *("namespace", "iterate_all", "iterate_entries", "transaction"),
    *("stats", "add_listener", "remove_listener"),
)
_FOR_AUTHORS = ("check_store", "check_match", "language")


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def portal(request: pytest.FixtureRequest) -> Iterator[BlockingPortal]:
    with start_blocking_portal(backend=request.param) as portal:
        yield portal


class TestAsync(LTMContract):
    """The suite on coroutines."""

    examples = 5
    leaves_out_slow = True  # a database shows these rules
    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = {"reopen": "the portal cannot be sent to another process"}

    # What these rules look at is the wrapped memory's: threads of callers, and the items of its iterator.
    test_a_listener_may_call_the_memory: ClassVar[Any] = None
    test_an_iteration_that_is_left_early_counts_its_rows_so_far: ClassVar[Any] = None
    test_an_iteration_is_one_call_with_its_rows: ClassVar[Any] = None

    @pytest.fixture
    def open_backend(self, portal: BlockingPortal, tmp_path: Path) -> OpenBackend:
        def opened() -> Any:
            memory = SQLAlchemyBackend(f"sqlite:///{tmp_path}/memory.db", language="none")
            return Blocking(portal, portal.call(AsyncMemory, memory), memory)

        return opened


def parameters(method: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(
    "name",
    [name for name, _ in inspect.getmembers(LTMBackend) if not name.startswith("_") and name not in _FOR_AUTHORS],
)
def test_each_method_of_the_contract_is_there_with_its_arguments(name: str) -> None:
    theirs, ours = inspect.getattr_static(LTMBackend, name), inspect.getattr_static(AsyncMemory, name)
    if not inspect.isfunction(theirs):
        assert isinstance(ours, property)
        return
    assert parameters(ours) == parameters(theirs)
    assert inspect.iscoroutinefunction(ours) is (name not in _NO_COROUTINES)


@pytest.mark.parametrize("name", ["store", "delete", "commit", "rollback"])
def test_each_method_of_a_transaction_is_there_with_its_arguments(name: str) -> None:
    assert parameters(getattr(AsyncTransaction, name)) == parameters(getattr(LTMTransaction, name))
