"""Real results have exactly the keys that their types declare, with values of these types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from sqlalchemy import text

from the_edge_agent.memory import (
    CatalogBackend,
    LTMBackend,
    LTMTransaction,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
)
from the_edge_agent.memory.contract import result_types

Call: TypeAlias = Callable[[Any], Any]

FAILURE: Final = {"success", "error", "error_type"}
TRACKED: Final = ("a", "hash", None, 1, {"m": 1})

# Calls that succeed, by the method whose annotation is checked. The memory has the entries that `filled` stores.
MEMORY: Final[dict[str, list[Call]]] = {
    "store": [lambda memory: memory.store("new", 1)],
    "retrieve": [
        lambda memory: memory.retrieve("a"),
        lambda memory: memory.retrieve("none"),
        lambda memory: memory.retrieve("b", times=True, refresh_ttl=True),
    ],
    "delete": [lambda memory: memory.delete("a"), lambda memory: memory.delete("none")],
    "search": [
        lambda memory: memory.search("fox"),
        lambda memory: memory.search("fox", explain=True, refresh_ttl=True),
        lambda memory: memory.search(nested=True),
        lambda memory: memory.search("!!!"),
        lambda memory: memory.search("+fox -hen"),
    ],
    "store_many": [lambda memory: memory.store_many([{"key": "a", "value": 1}])],
    "retrieve_many": [
        lambda memory: memory.retrieve_many(["a", "none"]),
        lambda memory: memory.retrieve_many(["a", "b"], times=True),
    ],
    "delete_many": [lambda memory: memory.delete_many(["a", "none"])],
    "delete_all": [lambda memory: memory.delete_all("a")],
    "touch": [lambda memory: memory.touch("b", 60), lambda memory: memory.touch("none")],
    "list_keys": [lambda memory: memory.list_keys(limit=1), lambda memory: memory.list_keys()],
    "entries": [lambda memory: memory.entries(limit=1), lambda memory: memory.entries(nested=True, order="newest")],
    "count": [lambda memory: memory.count()],
    "measure": [lambda memory: memory.measure()],
    "list_namespaces": [lambda memory: memory.list_namespaces()],
    "import_entries": [lambda memory: memory.import_entries(memory.iterate_entries(), "replace")],
    "cleanup_expired": [lambda memory: memory.cleanup_expired()],
    "iterate_entries": [lambda memory: memory.iterate_entries(), lambda memory: memory.iterate_entries(nested=True)],
    "sync_catalog": [lambda memory: memory.sync_catalog()],
    "stats": [lambda memory: memory.stats()],
    "optimize": [lambda memory: memory.optimize()],
    "cleanup_storage": [lambda memory: memory.cleanup_storage()],
}
TRANSACTION: Final[dict[str, list[Call]]] = {
    "store": [lambda memory: memory.transaction().store("a", 1)],
    "delete": [lambda memory: memory.transaction().delete("a")],
    "commit": [lambda memory: memory.transaction().commit(), lambda memory: _queued(memory).commit()],
    "rollback": [lambda memory: _queued(memory).rollback()],
}
CATALOG: Final[dict[str, list[Call]]] = {
    "stats": [lambda catalog: catalog.stats()],
    "track_entry": [lambda catalog: catalog.track_entry(*TRACKED)],
    "get_entry": [lambda catalog: catalog.get_entry("a"), lambda catalog: catalog.get_entry("none")],
    "list_entries": [lambda catalog: catalog.list_entries()],
    "get_changed_entries": [lambda catalog: catalog.get_changed_entries()],
    "store_batch": [
        lambda catalog: catalog.store_batch([{"key": "c", "content_hash": "h", "byte_size": 1}]),
        lambda catalog: catalog.store_batch([{"key": ""}, {"no": "key"}], atomic=False),
    ],
    "retrieve_batch": [lambda catalog: catalog.retrieve_batch(["a", "none"])],
    "cleanup_expired": [lambda catalog: catalog.cleanup_expired()],
    "get_snapshot": [lambda catalog: catalog.get_snapshot(catalog.create_snapshot("s"))],
    "list_snapshots": [lambda catalog: catalog.create_snapshot("s") and catalog.list_snapshots()],
    "get_deleted_entries": [lambda catalog: _deleted(catalog)],
    "iterate_snapshot": [lambda catalog: catalog.iterate_snapshot(catalog.create_snapshot("s"))],
}
FAILURES: Final[dict[str, list[Call]]] = {
    "store": [
        lambda memory: memory.store("a", 1, if_version=7),
        lambda memory: memory.store("", 1),
        lambda memory: memory.namespace("n").store("c", 1, if_version=7),
    ],
    "retrieve": [lambda memory: memory.retrieve("broken"), lambda memory: memory.retrieve("broken", times=True)],
    "delete": [lambda memory: memory.delete("a", if_version=7)],
    "search": [lambda memory: memory.search(limit=0)],
    "store_many": [lambda memory: memory.store_many([{"key": "a"}])],
    "retrieve_many": [lambda memory: memory.retrieve_many(["a", "broken"])],
    "delete_many": [lambda memory: memory.delete_many([""])],
    "delete_all": [lambda memory: memory.delete_all(None)],
    "touch": [lambda memory: memory.touch("a", -1)],
    "list_keys": [lambda memory: memory.list_keys(limit=0)],
    "entries": [lambda memory: memory.entries(order="oldest")],
    "count": [lambda memory: memory.count(5)],
    "measure": [lambda memory: memory.measure(5)],
    "list_namespaces": [lambda memory: memory.list_namespaces(max_depth=0)],
    "import_entries": [
        lambda memory: memory.import_entries([{"key": "a", "value": 1}]),
        lambda memory: memory.import_entries([{"key": ""}]),
    ],
    "cleanup_expired": [lambda memory: memory.cleanup_expired(0)],
    "cleanup_storage": [lambda memory: memory.cleanup_storage(0)],
}
FAILURES_OF_A_TRANSACTION: Final[dict[str, list[Call]]] = {
    "store": [lambda memory: memory.transaction().store("", 1)],
    "delete": [lambda memory: memory.transaction().delete("a", if_version=-1)],
    "commit": [lambda memory: _queued(memory, if_version=7).commit()],
    "rollback": [lambda memory: _ended(memory).rollback()],
}
FAILURES_OF_A_CATALOG: Final[dict[str, list[Call]]] = {
    "track_entry": [lambda catalog: catalog.track_entry("", *TRACKED[1:])],
    "store_batch": [lambda catalog: catalog.store_batch([{"key": ""}])],
    "retrieve_batch": [lambda catalog: catalog.retrieve_batch([""])],
    "cleanup_expired": [lambda catalog: catalog.cleanup_expired(0)],
}


def _queued(memory: LTMBackend, **options: Any) -> LTMTransaction:
    transaction = memory.transaction()
    transaction.store("a", 1, **options)
    transaction.delete("b")
    return transaction


def _deleted(catalog: SQLAlchemyCatalog) -> Any:
    catalog.track_entry(*TRACKED)
    since = catalog.create_snapshot("s")
    catalog.delete_entry("a")
    deleted = catalog.get_deleted_entries(since)
    assert [entry["key"] for entry in deleted] == ["a"]
    return deleted


def _ended(memory: LTMBackend) -> LTMTransaction:
    transaction = memory.transaction()
    transaction.rollback()
    return transaction


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[SQLAlchemyBackend]:
    storage = {"uri": str(tmp_path / "blobs")}
    with SQLAlchemyBackend("sqlite://", catalog="sqlalchemy", storage=storage) as backend:
        backend.store("a", "red fox", {"m": 1})
        backend.store("b", "red fox", ttl=60)
        backend.store("broken", 1)
        backend.namespace("n").store("c", "red hen")
        engine: Any = backend._engine
        with engine.begin() as connection:
            connection.execute(text("UPDATE ltm_entries SET value = '{' WHERE key = 'broken'"))
        yield backend


def calls(table: dict[str, list[Call]]) -> list[Any]:
    return [
        pytest.param(name, call, id=f"{name}-{place}")
        for name, some in table.items()
        for place, call in enumerate(some)
    ]


def check(value: Any, hint: Any) -> None:
    """Check that a value has the type of a hint; a dict of a type has its keys and no others."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if is_typeddict(hint):
        check_keys(value, hint)
        for name, kind in get_type_hints(hint).items():
            if name in value:
                check(value[name], kind)
    elif origin in (Union, UnionType):
        assert any(fits(value, kind) for kind in arguments), (value, hint)
    elif origin is Literal:
        assert value in arguments
    elif origin is list or (inspect.isclass(origin) and issubclass(origin, Iterator)):
        for item in value:
            check(item, arguments[0])
    elif origin is dict:
        for key, item in value.items():
            check(key, arguments[0])
            check(item, arguments[1])
    elif origin is tuple:
        assert isinstance(value, tuple)
        for item in value:
            check(item, arguments[0])
    else:
        assert type(value) is (origin or hint), (value, hint)


def check_keys(value: Any, hint: Any) -> None:
    required, every = hint.__required_keys__, hint.__required_keys__ | hint.__optional_keys__
    if value.get("success") is False:
        assert value.keys() >= FAILURE
    else:
        assert value.keys() >= required, (value, hint)
        assert not value.keys() & {"error", "error_type"} or hint is result_types.RefusedEntry
    assert value.keys() <= every, (value, hint)


def fits(value: Any, hint: Any) -> bool:
    with suppress(AssertionError, AttributeError):
        check(value, hint)
        return True
    return False


def result_of(owner: type, name: str) -> Any:
    return get_type_hints(getattr(owner, name))["return"]


@pytest.mark.parametrize(("name", "call"), calls(MEMORY))
def test_results_of_a_memory(memory: SQLAlchemyBackend, name: str, call: Call) -> None:
    result = call(memory)
    assert not isinstance(result, dict) or result["success"], result
    check(result, result_of(SQLAlchemyBackend, name))


@pytest.mark.parametrize(("name", "call"), calls(TRANSACTION))
def test_results_of_a_transaction(memory: SQLAlchemyBackend, name: str, call: Call) -> None:
    result = call(memory)
    assert result["success"], result
    check(result, result_of(LTMTransaction, name))


@pytest.mark.parametrize("part", [(), ("n",)], ids=["whole", "namespace"])
@pytest.mark.parametrize(("name", "call"), calls(CATALOG))
def test_results_of_a_catalog(memory: SQLAlchemyBackend, part: tuple[str, ...], name: str, call: Call) -> None:
    check(call(memory.namespace(*part).catalog), result_of(SQLAlchemyCatalog, name))


@pytest.mark.parametrize(("name", "call"), calls(FAILURES))
def test_failures_of_a_memory(memory: SQLAlchemyBackend, name: str, call: Call) -> None:
    result = call(memory)
    assert result["success"] is False
    check(result, result_of(SQLAlchemyBackend, name))


@pytest.mark.parametrize(("name", "call"), calls(FAILURES_OF_A_TRANSACTION))
def test_failures_of_a_transaction(memory: SQLAlchemyBackend, name: str, call: Call) -> None:
    result = call(memory)
    assert result["success"] is False
    check(result, result_of(LTMTransaction, name))


@pytest.mark.parametrize(("name", "call"), calls(FAILURES_OF_A_CATALOG))
def test_failures_of_a_catalog(memory: SQLAlchemyBackend, name: str, call: Call) -> None:
    result = call(memory.catalog)
    assert result["success"] is False
    check(result, result_of(SQLAlchemyCatalog, name))


@pytest.mark.parametrize(
    ("owner", "table"),
    [(SQLAlchemyBackend, MEMORY), (LTMTransaction, TRANSACTION), (SQLAlchemyCatalog, CATALOG)],
)
def test_every_method_with_a_typed_result_is_checked(owner: type, table: dict[str, list[Call]]) -> None:
    public = [name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")]
    typed = {name for name in public if _has_type(result_of(owner, name))}
    assert typed == set(table)


@pytest.mark.parametrize("owner", [LTMBackend, LTMTransaction, CatalogBackend])
def test_no_method_of_a_contract_returns_a_plain_dict(owner: type) -> None:
    for name, method in inspect.getmembers(owner, inspect.isfunction):
        if not name.startswith("_"):
            assert "dict[str, Any]" not in str(inspect.signature(method).return_annotation), name


def test_every_type_is_exported() -> None:
    import the_edge_agent.memory as package

    names = {name for name, kind in vars(result_types).items() if is_typeddict(kind) and not name.startswith("_")}
    assert names <= set(package.__all__)
    assert all(getattr(package, name) is getattr(result_types, name) for name in names)


def _has_type(hint: Any) -> bool:
    return is_typeddict(hint) or any(map(_has_type, get_args(hint)))
