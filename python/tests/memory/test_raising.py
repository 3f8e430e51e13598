"""Memories and catalogs that raise their failures: ``raising``, and the option ``errors`` of constructors and files."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import pytest
from typer.testing import CliRunner

from memory_backend import FiveMethods, MemoryBackend
from memory_catalog import MemoryCatalog, NineMethods
from the_edge_agent import NodeError, YAMLEngine
from the_edge_agent.cli.app import app
from the_edge_agent.memory import (
    CatalogBackend,
    LTMBackend,
    LTMError,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    SQLiteBackend,
    SQLiteCatalog,
    create_ltm_backend,
    parse_ltm_config,
    raising,
    register_backend,
)
from the_edge_agent.memory.contract import backend as registry
from the_edge_agent.memory.core.results import Result

Make: TypeAlias = Callable[[], Any]

RAISING: Final[dict[str, Make]] = {
    "a third party's five methods": lambda: raising(FiveMethods()),
    "a third party's every method": lambda: raising(MemoryBackend()),
    "the wrapped SQLiteBackend": lambda: raising(SQLiteBackend(catalog="sqlite")),
    "the wrapped SQLAlchemyBackend": lambda: raising(SQLAlchemyBackend("sqlite://", catalog="sqlalchemy")),
    "SQLiteBackend itself": lambda: SQLiteBackend(catalog="sqlite", errors="raise"),
    "SQLAlchemyBackend itself": lambda: SQLAlchemyBackend("sqlite://", catalog="sqlalchemy", errors="raise"),
}
CATALOGS: Final[dict[str, tuple[Make, Callable[[Any], Any]]]] = {  # what must be closed, and its catalog
    "a third party's catalog": (lambda: raising(MemoryCatalog()), lambda catalog: catalog),
    "SQLiteCatalog": (lambda: SQLiteCatalog(":memory:"), raising),
    "SQLAlchemyCatalog": (lambda: SQLAlchemyCatalog("sqlite://"), raising),
    "of a wrapped memory": (lambda: SQLiteBackend(catalog="sqlite"), lambda memory: raising(memory).catalog),
    "of a memory that raises": (RAISING["SQLiteBackend itself"], lambda memory: memory.catalog),
    "of a namespace": (RAISING["SQLiteBackend itself"], lambda memory: memory.namespace("a").catalog),
}
# Calls that fail on every memory, also on one that lacks the capability.
BAD_CALLS: dict[str, Callable[[Any], Any]] = {
    "store": lambda memory: memory.store("", 1),
    "retrieve": lambda memory: memory.retrieve(5),
    "delete": lambda memory: memory.delete(""),
    "search": lambda memory: memory.search(limit=0),
    "store_many": lambda memory: memory.store_many([{}]),
    "retrieve_many": lambda memory: memory.retrieve_many("abc"),
    "delete_many": lambda memory: memory.delete_many([""]),
    "delete_all": lambda memory: memory.delete_all(None),
    "touch": lambda memory: memory.touch("", 1),
    "list_keys": lambda memory: memory.list_keys(limit=0),
    "entries": lambda memory: memory.entries(limit=0),
    "count": lambda memory: memory.count(5),
    "list_namespaces": lambda memory: memory.list_namespaces(limit=0),
    "import_entries": lambda memory: memory.import_entries([{}]),
    "cleanup_expired": lambda memory: memory.cleanup_expired(0),
    "namespace": lambda memory: memory.namespace(""),
    "iterate_all": lambda memory: memory.iterate_all(5),
    "iterate_entries": lambda memory: memory.iterate_entries(5),
}


@pytest.fixture(params=[*RAISING.values()], ids=[*RAISING])
def memory(request: pytest.FixtureRequest) -> Iterator[LTMBackend]:
    with request.param() as backend:
        yield backend


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._backends, "_registered", {})
    register_backend("theirs", FiveMethods)


def failure_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> LTMError:
    with pytest.raises(LTMError) as caught:
        call(*args, **kwargs)
    assert caught.value.result["success"] is False
    assert str(caught.value) == caught.value.result["error"]
    return caught.value


class TestMemories:
    @pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS.keys())
    def test_every_method_raises_its_failure(self, memory: LTMBackend, call: Callable[[Any], Any]) -> None:
        assert failure_of(call, memory).error_type == "validation_error"

    def test_a_success_is_the_same_dict(self, memory: LTMBackend) -> None:
        stored = {"success": True, "stored": True, "key": "a", "created": True, "version": 1}
        assert memory.store("a", {"success": False}) == stored
        assert memory.retrieve("a")["value"] == {"success": False}
        assert [key for key, _, _ in memory.iterate_all()] == ["a"]

    def test_it_is_a_memory_of_the_same_class(self) -> None:
        ours = MemoryBackend()
        memory = raising(ours)
        assert isinstance(memory, MemoryBackend)
        assert memory.capabilities == ours.capabilities
        assert inspect.signature(memory.store) == inspect.signature(ours.store)
        assert set(dir(ours)) <= set(dir(memory))
        assert repr(memory) == f"raising({ours!r})"

    def test_wrapping_twice_wraps_once(self) -> None:
        memory = raising(MemoryBackend())
        assert raising(memory) is memory
        assert memory.namespace() is memory
        with memory as same:
            assert same is memory

    def test_a_copy_raises_too_and_is_of_the_same_memory(self) -> None:
        memory = raising(MemoryBackend())
        memory.store("a", 1)
        twin = copy.copy(memory)
        assert twin.retrieve("a")["found"]
        failure_of(twin.store, "", 1)

    def test_attributes_of_the_class_are_forwarded(self) -> None:
        with raising(SQLAlchemyBackend("sqlite://", catalog="sqlalchemy")) as memory:
            assert (memory.dialect, memory.language) == ("sqlite", "english")
            assert isinstance(memory.entry_class, type)
            assert memory.optimize()["success"] is memory.sync_catalog()["success"] is True
            assert failure_of(memory.cleanup_storage, 0).error_type == "validation_error"
        assert failure_of(memory.count).error_type == "connection_error"

    def test_attributes_can_be_set(self) -> None:
        ours: Any = MemoryBackend()
        raising(ours).note = "written on the memory itself"
        assert ours.note

    @pytest.mark.parametrize("wrong", [None, 5, "memory", MemoryBackend, {}])
    def test_only_memories_and_catalogs_can_be_wrapped(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="memory or a catalog"):
            raising(wrong)

    def test_a_failure_that_lacks_its_reason_is_raised_too(self) -> None:
        class Careless(FiveMethods):
            def delete(self, key: str, **_: Any) -> Result:
                return {"success": False, "because": "it is careless"}

        failure = failure_of(raising(Careless()).delete, "a")
        assert (failure.error_type, failure.result["because"]) == ("query_error", "it is careless")

    def test_fields_of_a_failure_are_kept(self) -> None:
        memory = raising(MemoryBackend())
        memory.store("a", 1)
        failure = failure_of(memory.store, "a", 2, if_version=0)
        assert failure.result == MemoryBackend().store("a", 1, if_version=1) | {
            "error": "the entry has version 1, not the one required",
            "version": 1,
        }


@pytest.mark.parametrize("make", [*RAISING.values()][1:], ids=[*RAISING][1:])
class TestTransactions:
    def test_a_bad_entry_raises_at_once_and_nothing_is_stored(self, make: Make) -> None:
        with make() as memory:
            with suppress(LTMError), memory.transaction() as transaction:
                transaction.store("a", 1)
                failure = failure_of(transaction.store, "", 2)
                raise failure
            assert memory.count()["count"] == 0

    def test_a_commit_raises(self, make: Make) -> None:
        with make() as memory:
            transaction = memory.transaction()
            transaction.store("a", 1, if_version=4)
            assert failure_of(transaction.commit).error_type == "conflict"
            assert failure_of(transaction.rollback).error_type == "validation_error"

    def test_a_block_commits(self, make: Make) -> None:
        with make() as memory:
            with memory.transaction() as transaction:
                assert transaction.store("a", 1) == {"success": True, "queued": True}
            assert memory.retrieve("a")["value"] == 1


@pytest.mark.parametrize("make", [*RAISING.values()][2:], ids=[*RAISING][2:])
class TestNamespaces:
    def test_a_namespace_raises_too_with_the_key_in_the_namespace(self, make: Make) -> None:
        with make() as memory:
            part = memory.namespace("users", "ada")
            part.store("a", 1)
            failure = failure_of(part.store, "a", 2, if_version=0)
            assert (failure.error_type, failure.result["key"]) == ("conflict", "a")
            assert failure_of(part.namespace("b").transaction().delete, "").error_type == "validation_error"


class TestCatalogs:
    @pytest.fixture(params=[*CATALOGS.values()], ids=[*CATALOGS])
    def catalog(self, request: pytest.FixtureRequest) -> Iterator[Any]:
        make, catalog_of = request.param
        with closing(make()) as owner:
            yield catalog_of(owner)

    def test_a_catalog_raises(self, catalog: Any) -> None:
        is_catalog = isinstance(catalog, CatalogBackend)
        assert is_catalog
        for call in (
            lambda: catalog.track_entry("", "hash", None, None, None),
            lambda: catalog.store_batch([{"key": ""}]),
            lambda: catalog.retrieve_batch("abc"),
            lambda: catalog.cleanup_expired(0),
            lambda: catalog.get_entry(""),
            lambda: catalog.create_snapshot(5),
        ):
            assert failure_of(call).error_type == "validation_error"

    def test_what_succeeds_is_returned(self, catalog: Any) -> None:
        assert catalog.track_entry("a", "hash", None, 3, {"success": False})["created"] is True
        assert catalog.get_entry("a")["metadata"] == {"success": False}
        assert catalog.get_entry("b") is None
        assert len(catalog.create_snapshot("now")) == 36
        assert [entry["key"] for entry in catalog.list_entries()] == ["a"]


def test_a_memory_may_get_a_catalog_that_raises() -> None:
    catalog = raising(NineMethods())
    with SQLiteBackend(catalog=catalog) as memory:
        assert memory.store("a", 1)["success"] is True
        assert memory.namespace("b").store("c", 1)["success"] is True
        assert memory.sync_catalog()["success"] is True
        part = memory.namespace("b").catalog
        assert part is not None
        assert part.store_batch([{"key": "c"}])["success"] is False
    assert [entry["key"] for entry in catalog.list_entries()] == ["@b.c", "a"]


@pytest.mark.parametrize(
    ("memory_class", "catalog_class"), [(SQLAlchemyBackend, SQLAlchemyCatalog), (SQLiteBackend, SQLiteCatalog)]
)
def test_a_catalog_that_raises_may_be_in_the_same_database(
    memory_class: Any, catalog_class: Any, tmp_path: Path
) -> None:
    path = str(tmp_path / "m.db")
    place = path if memory_class is SQLiteBackend else f"sqlite:///{path}"
    with raising(catalog_class(place)) as catalog, memory_class(place, catalog=catalog) as memory:
        assert memory.store("a", 1)["success"] is True
        assert memory.delete("b")["success"] is True
        assert [entry["key"] for entry in catalog.list_entries()] == ["a"]
        failure_of(memory.catalog.retrieve_batch, "abc")


def test_the_command_that_syncs_works_with_a_memory_that_raises(tmp_path: Path) -> None:
    agent = tmp_path / "agent.yaml"
    url = f"sqlite:///{tmp_path}/m.db"
    agent.write_text(f"settings: {{ltm: {{url: '{url}', catalog: sqlalchemy, errors: raise}}}}\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["memory", "sync", "--json", str(agent)])
    assert json.loads(done.stdout) == {"success": True, "tracked_count": 0, "deleted_count": 0}


@pytest.mark.usefixtures("_registered")
class TestOptions:
    @pytest.mark.parametrize(
        ("name", "options"),
        [("sqlite", {}), ("sqlalchemy", {"url": "sqlite://"}), ("theirs", {})],
    )
    def test_every_registered_backend_takes_the_option(self, name: str, options: dict[str, Any]) -> None:
        with create_ltm_backend(name, errors="raise", **options) as memory:
            assert failure_of(memory.store, "", 1).error_type == "validation_error"
        with create_ltm_backend(name, errors="return", **options) as memory:
            assert memory.store("", 1)["success"] is False
        with parse_ltm_config({"ltm": {"backend": name, "errors": "raise", **options}}) as memory:
            failure_of(memory.store, "", 1)
        with parse_ltm_config({"ltm_backend": name, "ltm_errors": "raise", "ltm": options}) as memory:
            failure_of(memory.store, "", 1)

    @pytest.mark.parametrize("wrong", ["Raise", "", None, True, 1, ["raise"]])
    @pytest.mark.parametrize(
        ("name", "options"),
        [("sqlite", {}), ("sqlalchemy", {"url": "sqlite://"}), ("theirs", {})],
    )
    def test_a_bad_option_is_refused(self, name: str, options: dict[str, Any], wrong: Any) -> None:
        assert failure_of(create_ltm_backend, name, errors=wrong, **options).error_type == "configuration_error"
        failure = failure_of(parse_ltm_config, {"ltm": {"backend": name, "errors": wrong, **options}})
        assert str(failure).startswith("settings.ltm.errors must be")

    def test_a_lifetime_in_a_file_is_the_default(self) -> None:
        with parse_ltm_config({"ltm": {"backend": "sqlite", "ttl": 60}}) as memory:
            memory.store("a", 1)
            memory.store("b", 1, ttl=None)
            assert [entry["ttl"] for entry in memory.iterate_entries()] == [60.0, None]
        failure = failure_of(parse_ltm_config, {"ltm": {"backend": "sqlite", "ttl": -1}})
        assert str(failure).startswith("settings.ltm.ttl must be")


class TestWorkflows:
    NODE: ClassVar[dict[str, Any]] = {"name": "a", "uses": "ltm.store", "with": {"key": "", "value": 1}}
    CODE: ClassVar[dict[str, Any]] = {
        "name": "a",
        "run": "try:\n    actions.ltm_store('k', 1, if_version=3)\n"
        "except Exception as error:\n    why = [type(error).__name__, error.error_type, error.result]\n",
    }

    @pytest.mark.parametrize("errors", ["return", "raise"])
    def test_an_action_fails_in_the_same_way(self, errors: str) -> None:
        with YAMLEngine(ltm_backend_type="sqlite", ltm_config={"errors": errors}) as engine:
            with pytest.raises(NodeError, match="failed: key must not be empty") as caught:
                list(engine.load_from_dict({"nodes": [self.NODE]}).invoke())
            assert caught.value.error_type == "validation_error"
            [final] = engine.load_from_dict({"nodes": [self.CODE]}).invoke()
            name, kind, result = final["state"]["why"]
            assert (name, kind, result["version"]) == ("ActionError", "conflict", 0)

    def test_a_memory_of_the_host_may_raise(self) -> None:
        with raising(MemoryBackend()) as memory, YAMLEngine(ltm_backend=memory) as engine:
            agent = engine.load_from_dict({"nodes": [self.NODE]})
            with pytest.raises(NodeError, match="key must not be empty"):
                list(agent.invoke())

    @pytest.mark.parametrize("wrap", [raising, lambda memory: memory], ids=["raises", "returns"])
    def test_so_does_an_action_of_the_host(self, wrap: Callable[[LTMBackend], LTMBackend]) -> None:
        with wrap(MemoryBackend()) as memory, YAMLEngine() as engine:
            engine.actions_registry["my.store"] = lambda state: memory.store("k", 1, if_version=3)
            uses = {"name": "a", "uses": "my.store"}
            code = self.CODE["run"].replace("ltm_store('k', 1, if_version=3)", "my_store()")
            with pytest.raises(NodeError, match=r"`my\.store` failed: the entry has version 0") as caught:
                list(engine.load_from_dict({"nodes": [uses]}).invoke())
            assert caught.value.error_type == "conflict"
            [final] = engine.load_from_dict({"nodes": [{"name": "a", "run": code}]}).invoke()
        assert final["state"]["why"][:2] == ["ActionError", "conflict"]

    def test_the_catalog_of_a_memory_that_raises_has_its_actions(self, tmp_path: Path) -> None:
        settings = {
            "ltm": {"backend": "sqlite", "path": str(tmp_path / "m.db"), "catalog": "sqlite", "errors": "raise"}
        }
        nodes = [{"name": "a", "uses": "catalog.list"}, {"name": "b", "uses": "catalog.get", "with": {"key": ""}}]
        with YAMLEngine() as engine:
            [final] = engine.load_from_dict({"settings": settings, "nodes": nodes[:1]}).invoke()
            assert final["state"]["count"] == 0
            with pytest.raises(NodeError, match="key must not be empty"):
                list(engine.load_from_dict({"settings": settings, "nodes": nodes[1:]}).invoke())
