"""The ``catalog.*`` actions of agents without a catalog, with a smaller one, and with one that changes meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from the_edge_agent import NodeError, YAMLEngine
from the_edge_agent.memory import SQLAlchemyBackend, SQLAlchemyCatalog
from the_edge_agent.memory.contract.result_types import DeletedEntry
from the_edge_agent.workflow.actions.catalog import CATALOG_ACTIONS

ARGUMENTS: dict[str, dict[str, Any]] = {
    "catalog.track": {"key": "k", "value": 1},
    "catalog.get": {"key": "k"},
    "catalog.list": {},
    "catalog.delete": {"key": "k"},
    "catalog.snapshot": {"name": "s"},
    "catalog.snapshots": {},
    "catalog.delete_snapshot": {"snapshot_id": "s"},
    "catalog.changes": {},
    "catalog.sync": {},
    "catalog.cleanup": {},
}


@pytest.mark.parametrize("name", CATALOG_ACTIONS)
def test_each_has_two_names(name: str) -> None:
    with YAMLEngine() as engine:
        registry = engine.actions_registry
        assert registry[name] is registry["actions." + name.replace(".", "_")]


@pytest.mark.parametrize("name", CATALOG_ACTIONS)
@pytest.mark.parametrize("settings", [{}, {"settings": {"ltm": {"url": "sqlite://", "catalog": None}}}])
def test_without_a_catalog_each_says_what_to_write(name: str, settings: dict[str, Any]) -> None:
    agent = {**settings, "nodes": [{"name": "a", "uses": name, "with": ARGUMENTS[name]}]}
    with YAMLEngine() as engine, pytest.raises(NodeError) as caught:
        list(engine.load_from_dict(agent).invoke())
    assert caught.value.error_type == "configuration_error"
    assert "write `catalog: sqlalchemy` under `settings.ltm`" in str(caught.value)


@pytest.mark.parametrize("name", CATALOG_ACTIONS)
def test_in_the_registry_a_failure_is_a_dict(name: str) -> None:
    with YAMLEngine(enable_ltm=False) as engine:
        result = engine.actions_registry[name]({}, **ARGUMENTS[name])
    assert (result["success"], result["error_type"]) == (False, "configuration_error")
    assert "switched off" in result["error"]


@pytest.mark.parametrize("name", CATALOG_ACTIONS)
def test_a_catalog_that_is_closed_is_a_failure(name: str) -> None:
    catalog = SQLAlchemyCatalog("sqlite://")
    with SQLAlchemyBackend("sqlite://", catalog=catalog) as memory, YAMLEngine(ltm_backend=memory) as engine:
        catalog.close()
        result = engine.actions_registry[name]({}, **ARGUMENTS[name])
    assert (result["success"], result["error_type"]) == (False, "connection_error")


class Nine:
    """A catalog of somebody else's: the nine methods of the protocol and no more."""

    def __init__(self, catalog: SQLAlchemyCatalog) -> None:
        for name in (
            *("track_entry", "get_entry", "list_entries", "delete_entry", "get_changed_entries"),
            *("create_snapshot", "store_batch", "retrieve_batch", "cleanup_expired"),
        ):
            setattr(self, name, getattr(catalog, name))


def test_a_catalog_that_does_not_tell_what_was_deleted_says_so() -> None:
    with SQLAlchemyCatalog("sqlite://") as catalog:
        nine: Any = Nine(catalog)
        with SQLAlchemyBackend("sqlite://", catalog=nine) as memory, YAMLEngine(ltm_backend=memory) as engine:
            memory.store("k", 1)
            snapshot = engine.actions_registry["catalog.snapshot"]({}, "s")
            assert (snapshot["success"], snapshot["entry_count"], snapshot["total_bytes"]) == (True, None, None)
            changes = engine.actions_registry["catalog.changes"]
            assert changes({})["changed_count"] == 1
            refused = changes({}, since=snapshot["snapshot_id"])
    assert (refused["success"], refused["error_type"]) == (False, "configuration_error")
    assert "does not tell what was deleted" in refused["error"]


def test_what_goes_between_the_two_questions_is_deleted_and_not_changed() -> None:
    class Busy(SQLAlchemyCatalog):
        def get_deleted_entries(self, since_snapshot_id: str) -> list[DeletedEntry]:
            self.delete_entry("k")
            return super().get_deleted_entries(since_snapshot_id)

    with Busy("sqlite://") as catalog, SQLAlchemyBackend("sqlite://", catalog=catalog) as memory:
        memory.store("k", 1)
        since = catalog.create_snapshot("s")
        memory.store("k", 2)
        with YAMLEngine(ltm_backend=memory) as engine:
            found = engine.actions_registry["catalog.changes"]({}, since)
    assert ([*found["changed"]], [entry["key"] for entry in found["deleted"]]) == ([], ["k"])
