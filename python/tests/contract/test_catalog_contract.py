"""The contract of a catalog on every database, with its own dialect class and with the portable one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from databases import Database
from memory_catalog import MemoryCatalog, NineMethods
from run_length import of_this_run
from the_edge_agent.testing import CatalogContract
from the_edge_agent.testing.catalog_base import OpenCatalog, contents, entry_of, result_of, track_all
from the_edge_agent.testing.contract import assert_failure

# Fixtures of the rules that a catalog leaves out, and why.
ENDS_WITH_ITS_OBJECT: Final = {"reopen_catalog": "a catalog in memory ends with the object that opened it"}


class OnADatabase(CatalogContract):
    """The contract on one of our targets."""

    @pytest.fixture
    def open_catalog(self, database: Database) -> OpenCatalog:
        return database.open_catalog


class OnSQLAlchemy(OnADatabase):
    """The contract through SQLAlchemy; each test must give its connections back."""

    @pytest.fixture(autouse=True)
    def no_connection_is_kept(self, catalog: Any) -> Iterator[None]:
        yield
        if catalog._engine is not None:
            assert catalog._engine.pool.checkedout() == 0

    @pytest.mark.parametrize("failing", [1, 2])
    def test_a_statement_that_fails_in_the_middle_leaves_nothing_behind(self, catalog: Any, failing: int) -> None:
        track_all(catalog, map(entry_of, "bc"))
        before, writes = contents(catalog), 0

        def fail(*arguments: Any) -> None:
            nonlocal writes
            writes += arguments[2].lstrip().startswith(("INSERT", "UPDATE", "DELETE"))
            if writes == failing:
                raise OperationalError("", {}, Exception("the test cuts in"))

        def cut(call: Any) -> Any:
            nonlocal writes
            writes = 0
            event.listen(catalog._engine, "before_cursor_execute", fail)
            answer = result_of(call)
            event.remove(catalog._engine, "before_cursor_execute", fail)
            return answer

        assert_failure(cut(lambda: catalog.create_snapshot("half")), "query_error")
        stored = cut(lambda: catalog.store_batch(entry_of(key, metadata={"x": "x" * 9000}) for key in KEYS))
        if failing <= writes:  # where one statement is enough nothing was cut
            assert_failure(stored["answer"], "query_error")
            assert contents(catalog) == before
        assert catalog.list_snapshots() == []


KEYS = ("d", "c", "b", "a")


@pytest.mark.targets(portable=False)
class TestDatabases(OnSQLAlchemy):
    """Catalogs that outlive what opened them and are shared by processes."""


@pytest.mark.targets(portable=True, server=False)
class TestPortable(OnSQLAlchemy):
    """Portable SQL, on one database: the contract of memories runs it on all."""

    not_on_the_others = "the portable SQL of catalogs is tested on SQLite, that of memories on every database"


class TestMemory(OnSQLAlchemy):
    """Catalogs in memory."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = ENDS_WITH_ITS_OBJECT


@pytest.mark.targets(other=True)
class TestOthers(OnSQLAlchemy):
    """Catalogs on other databases and through other drivers than those that all our tests run on."""

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
    leaves_out: ClassVar[Mapping[str, str]] = ENDS_WITH_ITS_OBJECT


class TestThirdParty(CatalogContract):
    """The suite on a catalog of nine methods: what it does not have is left out."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = {
        **ENDS_WITH_ITS_OBJECT,
        **dict.fromkeys(("with_snapshots", "with_deletions", "closable"), "methods that it does not have"),
    }

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        return NineMethods


class TestReference(CatalogContract):
    """The suite on a catalog in memory that has everything."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out: ClassVar[Mapping[str, str]] = ENDS_WITH_ITS_OBJECT

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        return MemoryCatalog
