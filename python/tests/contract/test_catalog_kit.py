"""The contract suite of catalogs finds faults: each broken catalog fails the rule that is named for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from test_contract_kit import RECORDER, Outcome, fails_by_assertion, run_pytest

from broken_catalogs import CATALOG_FAULTS
from memory_catalog import MemoryCatalog
from the_edge_agent.testing import CatalogContract
from the_edge_agent.testing.catalog_base import OpenCatalog

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

SUITE = """
from test_catalog_kit import suites

globals().update(suites())
"""


class OfOneClass(CatalogContract):
    """The suite on the catalog in memory that a subclass names."""

    shared_by_processes: ClassVar[bool] = False
    catalog_class: ClassVar[type[MemoryCatalog]]

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        return self.catalog_class


def suites() -> dict[str, type[CatalogContract]]:
    """Return a contract class for each broken catalog with its one rule."""
    found = {}
    for catalog, test in CATALOG_FAULTS.items():
        unwanted = {name: None for name in dir(CatalogContract) if name.startswith("test_") and name != test}
        name = f"Test{catalog.__name__}"
        found[name] = type(name, (OfOneClass,), {**unwanted, "catalog_class": catalog})
    return found


def test_each_broken_catalog_fails_the_rule_that_is_named_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_suites.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text(RECORDER)
    run_pytest(tmp_path, expected=1)
    found: dict[str, list[Outcome]] = {}
    for line in (tmp_path / "outcomes").read_text().splitlines():
        suite, *outcome = json.loads(line)
        found.setdefault(suite, []).append(tuple(outcome))
    wrong = {
        catalog.__name__: found.get(f"Test{catalog.__name__}")
        for catalog, test in CATALOG_FAULTS.items()
        if not fails_by_assertion(found.get(f"Test{catalog.__name__}", []), test)
    }
    assert wrong == {}


def test_every_part_of_the_contract_has_a_fault() -> None:
    parts = {cls.__name__ for test in CATALOG_FAULTS.values() for cls in CatalogContract.__mro__ if test in vars(cls)}
    rules = {cls.__name__ for cls in CatalogContract.__bases__}
    assert rules - parts == set()
