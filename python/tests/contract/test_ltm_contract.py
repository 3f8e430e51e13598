"""The LTM contract on every database, with its own dialect class and with the portable one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from databases import Database
from memory_backend import FiveMethods, MemoryBackend
from run_length import of_this_run
from the_edge_agent.testing import LTMContract
from the_edge_agent.testing.contract import OpenBackend, assert_failure, contents, load

# Fixtures of the rules that a backend leaves out, and why.
ENDS_WITH_ITS_BACKEND: Final = {"reopen": "a store in memory ends with the backend that opened it"}
CAPABILITIES: Final = (
    *("transactional", "expiring", "touching", "versioned", "timed", "matching", "indexing", "importing"),
    "namespaced",
)


class OnADatabase(LTMContract):
    """The contract on one of our targets."""

    @pytest.fixture
    def open_backend(self, database: Database) -> OpenBackend:
        return database.open


class OnSQLAlchemy(OnADatabase):
    """The contract through SQLAlchemy; each test must give its connections back."""

    examples = of_this_run(25, 150)  # by the oracle's time; the references make the full number

    @pytest.fixture(autouse=True)
    def no_connection_is_kept(self, backend: Any) -> Iterator[None]:
        yield
        if backend._engine is not None:
            assert backend._engine.pool.checkedout() == 0

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


@pytest.mark.targets(portable=False)
class TestDatabases(OnSQLAlchemy):
    """Stores that outlive a backend and are shared by processes."""


@pytest.mark.targets(portable=True)
class TestPortable(OnSQLAlchemy):
    """Nothing but portable SQL, on each database."""

    examples = of_this_run(10, 100)


class TestMemory(OnSQLAlchemy):
    """Stores in the memory of one backend."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = ENDS_WITH_ITS_BACKEND


@pytest.mark.targets(other=True)
class TestOthers(OnSQLAlchemy):
    """Memories on other databases and through other drivers than those that all our tests run on."""

    examples = of_this_run(10, 30)


@pytest.mark.targets(other=True, native=True)
class TestOtherNative(OnADatabase):
    """The references by way of a pooler."""

    examples = of_this_run(10, 30)


@pytest.mark.targets(native=True)
class TestNative(OnADatabase):
    """The references, which do without SQLAlchemy."""


@pytest.mark.targets(native=True)
class TestNativeMemory(OnADatabase):
    """The reference in memory."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = ENDS_WITH_ITS_BACKEND


class TestThirdParty(LTMContract):
    """The suite on a backend of five methods: what it does not declare is left out."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = {
        **ENDS_WITH_ITS_BACKEND,
        **dict.fromkeys(CAPABILITIES, "a capability that is not declared"),
    }

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        return FiveMethods


class TestReference(LTMContract):
    """The suite on a backend in plain Python that declares all there is."""

    leaves_out_slow = True  # in the short form: this backend is slow, and databases show these rules
    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = ENDS_WITH_ITS_BACKEND

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        return MemoryBackend
