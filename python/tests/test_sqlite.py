"""The native SQLite classes: the contracts, and what is particular to them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from the_edge_agent.memory import SQLiteBackend, SQLiteCatalog
from the_edge_agent.testing import CatalogContract, LTMContract
from the_edge_agent.testing.catalog_base import OpenCatalog
from the_edge_agent.testing.contract import OpenBackend


class TestFile(LTMContract):
    """The contract of memories on a file."""

    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return partial(SQLiteBackend, tmp_path / "ltm.db")


class TestMemory(LTMContract):
    """The contract of memories on a database in memory."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out = ("reopen",)

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        return SQLiteBackend


class TestCatalogFile(CatalogContract):
    """The contract of catalogs on a file."""

    @pytest.fixture
    def open_catalog(self, tmp_path: Path) -> OpenCatalog:
        return partial(SQLiteCatalog, tmp_path / "ltm.db")


class TestCatalogMemory(CatalogContract):
    """The contract of catalogs on a database in memory."""

    shared_by_processes: ClassVar[bool] = False
    leaves_out = ("reopen_catalog",)

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        return partial(SQLiteCatalog, ":memory:")
