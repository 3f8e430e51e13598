"""The common parts of all catalogs: content hashes, entry ids, and the registry of catalogs."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pytest

from the_edge_agent.memory import SQLAlchemyCatalog, SQLiteCatalog
from the_edge_agent.memory.contract.catalog import (
    compute_content_hash,
    create_catalog_backend,
    generate_entry_id,
    get_registered_catalog_backends,
    register_catalog_backend,
)
from the_edge_agent.memory.contract.config import parse_catalog_config

# --- hashes ------------------------------------------------------------------------------------------

HASHED: dict[str, Any] = {
    "text": "the red fox",
    "not ASCII": {"käse": "日本 😀"},
    "order of keys": {"b": 1, "a": {"d": [1, 2.0, None, True], "c": {}}},
    "datetime": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=timezone.utc),
    "objects inside": [Path("a/b"), {"when": datetime(2024, 1, 1)}, {1: "int key"}],
    "NaN": [float("nan"), float("inf")],
    "lone surrogate": "a\ud800",
    "nothing": None,
}


@pytest.mark.parametrize("name", HASHED)
def test_a_content_hash_is_the_sha_256_of_the_sorted_json(name: str) -> None:
    written = json.dumps(HASHED[name], sort_keys=True, default=str)
    assert compute_content_hash(HASHED[name]) == "sha256:" + hashlib.sha256(written.encode()).hexdigest()


def test_known_hashes_and_ids_stay_as_they_are() -> None:
    assert compute_content_hash({"a": 1}) == "sha256:f9d86028c6e0d64e225186f96acb69338b2c59764df79162107f5c4bb34d1310"
    assert compute_content_hash({"b": 1, "a": 2}) == compute_content_hash({"a": 2, "b": 1})
    different: list[Any] = [1, 1.0, True, "1", [1], None, {}, []]
    assert len({*map(compute_content_hash, different)}) == len(different)
    assert generate_entry_id("é") == hashlib.sha256("é".encode()).hexdigest()


# --- the registry ------------------------------------------------------------------------------------


@pytest.fixture
def _registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from the_edge_agent.memory.contract import catalog

    monkeypatch.setattr(catalog._catalogs, "_registered", dict(catalog._catalogs._registered))


@pytest.mark.parametrize("name", ["sqlalchemy", "SQLAlchemy", " SQLALCHEMY "])
def test_a_catalog_is_created_by_name_whatever_its_case(name: str) -> None:
    catalog = create_catalog_backend(name, url="sqlite://")
    assert isinstance(catalog, SQLAlchemyCatalog)
    catalog.close()


@pytest.mark.parametrize("name", ["nonsense", "", None, 7])
def test_an_unknown_name_is_a_value_error_that_lists_the_known_ones(name: Any) -> None:
    with pytest.raises(ValueError, match=r"known: .*sqlalchemy"):
        create_catalog_backend(name, url="sqlite://")


@pytest.mark.usefixtures("_registry_as_it_was")
def test_a_registered_catalog_is_created_by_its_name() -> None:
    register_catalog_backend("Mine", lambda **options: SQLAlchemyCatalog("sqlite://", **options))
    assert {"mine", "sqlalchemy"} <= {*get_registered_catalog_backends()}
    catalog = create_catalog_backend("MINE", lazy=True)
    assert isinstance(catalog, SQLAlchemyCatalog)
    assert catalog._engine is None
    for wrong in ("", " "):
        with pytest.raises(ValueError, match="non-empty"):
            register_catalog_backend(wrong, SQLAlchemyCatalog)


def test_the_module_of_catalogs_has_what_makes_one_of_a_configuration(tmp_path: Path) -> None:
    for config, kind in (
        ({"type": "sqlalchemy", "url": "sqlite://"}, SQLAlchemyCatalog),
        ({"type": "sqlite", "path": ":memory:"}, SQLiteCatalog),
        ({"path": str(tmp_path / "catalog.db")}, SQLiteCatalog),
    ):
        given = dict(config)
        with cast(Any, parse_catalog_config(config)) as catalog:
            assert isinstance(catalog, kind)
        assert config == given
