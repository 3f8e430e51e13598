"""``AsyncCatalog``: cancellation, iteration and closing. tests/contract/test_async_contract.py has the contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal

from async_memories import cancel_this_call, cancel_while_locked, wait_until_none_is_in_use
from databases import Database
from locks import lock_tables
from memory_backend import FiveMethods
from memory_catalog import NineMethods
from the_edge_agent.memory import LTMError, SQLAlchemyCatalog, SQLiteBackend, SQLiteCatalog, raising
from the_edge_agent.memory.aio import AsyncCatalog, AsyncMemory

TABLES = ("ltm_catalog", "ltm_snapshots", "ltm_snapshot_entries")
TRACKED: Any = ("h1", None, 1, None)  # the arguments of ``track_entry`` after the key
READS: dict[str, Callable[[AsyncCatalog, str], Awaitable[Any]]] = {
    "get_entry": lambda catalog, _: catalog.get_entry("k"),
    "list_entries": lambda catalog, _: catalog.list_entries("k"),
    "a filter": lambda catalog, _: catalog.list_entries(None, {"n": {"$gt": 3}}),
    "retrieve_batch": lambda catalog, _: catalog.retrieve_batch(["k", "l"]),
    "all entries": lambda catalog, _: catalog.get_changed_entries(),
    "get_changed_entries": lambda catalog, snapshot: catalog.get_changed_entries(snapshot),
    "get_deleted_entries": lambda catalog, snapshot: catalog.get_deleted_entries(snapshot),
    "get_snapshot": lambda catalog, snapshot: catalog.get_snapshot(snapshot),
    "list_snapshots": lambda catalog, _: catalog.list_snapshots(),
    "iterate_snapshot": lambda catalog, snapshot: all_of(catalog, snapshot),
}
WRITES: list[Callable[[AsyncCatalog, str], Coroutine[Any, Any, Any]]] = [
    lambda catalog, _: catalog.track_entry("new", *TRACKED),
    lambda catalog, _: catalog.store_batch([{"key": "more", "content_hash": "h1", "byte_size": 1}]),
    lambda catalog, _: catalog.delete_entry("k"),
    lambda catalog, _: catalog.create_snapshot("second"),
    lambda catalog, snapshot: catalog.delete_snapshot(snapshot),
    lambda catalog, _: catalog.cleanup_expired(),
]


async def all_of(catalog: AsyncCatalog, snapshot_id: str) -> list[Any]:
    return [entry async for entry in catalog.iterate_snapshot(snapshot_id)]


async def state_of(catalog: AsyncCatalog) -> Any:
    entries = await catalog.get_changed_entries()
    return [entry["key"] for entry in entries], [each["name"] for each in await catalog.list_snapshots()]


class Cancellation:
    """What is cancelled while another client has locked the tables."""

    def test_a_read_is_stopped(self, database: Database) -> None:
        async def main() -> None:
            async with AsyncCatalog(database.open_catalog()) as catalog:
                await catalog.track_entry("k", "h1", None, 1, {"n": 5})
                snapshot = await catalog.create_snapshot("first")
                with lock_tables(database, *TABLES):
                    for name, read in READS.items():
                        began = time.monotonic()
                        with anyio.move_on_after(0.05) as scope:
                            await read(catalog, snapshot)
                        assert (name, scope.cancelled_caught, time.monotonic() - began < 1.05) == (name, True, True)
                await wait_until_none_is_in_use(catalog)
                assert len(await all_of(catalog, snapshot)) == 1

        anyio.run(main)

    def test_a_write_is_awaited(self, database: Database) -> None:
        async def main() -> None:
            async with AsyncCatalog(database.open_catalog()) as catalog:
                await catalog.track_entry("k", *TRACKED)
                snapshot = await catalog.create_snapshot("first")
                for write in WRITES:
                    with lock_tables(database, *TABLES) as lock:
                        await cancel_while_locked(catalog, lock, partial(write, catalog, snapshot))
                assert await state_of(catalog) == (["more", "new"], ["second"])

        anyio.run(main)


@pytest.mark.targets(server=True, portable=False)
class TestCancellation(Cancellation):
    """Through SQLAlchemy."""


@pytest.mark.targets(server=True, portable=False, native=True)
class TestCancellationOfNatives(Cancellation):
    """Without SQLAlchemy."""


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
class TestEventLoops:
    def test_a_snapshot_is_copied_to_another_catalog(self, kind: str) -> None:
        async def main() -> None:
            async with AsyncCatalog(SQLiteCatalog(":memory:")) as catalog, AsyncCatalog(url="sqlite://") as copy:
                await catalog.store_batch({"key": f"k{n}", "content_hash": "h", "byte_size": n} for n in range(300))
                snapshot_id = await catalog.create_snapshot("first")
                snapshot, entries = await catalog.get_snapshot(snapshot_id), await all_of(catalog, snapshot_id)
                assert snapshot is not None
                assert await copy.import_snapshot(snapshot, entries) is True
                assert await copy.import_snapshot(snapshot, entries) is False
                assert len(entries) == 300
                assert (await all_of(copy, snapshot_id), await copy.get_snapshot(snapshot_id)) == (entries, snapshot)

        anyio.run(main, backend=kind)

    def test_a_catalog_of_another_package_is_awaited(self, kind: str) -> None:
        async def main() -> None:
            is_free = threading.Event()
            async with AsyncCatalog(Waiting(is_free)) as catalog:
                threading.Timer(0.15, is_free.set).start()
                with anyio.move_on_after(0.05) as scope:
                    await catalog.get_entry("k")
                assert (is_free.is_set(), scope.cancelled_caught) == (True, True)

        anyio.run(main, backend=kind)


class Waiting(NineMethods):
    """A catalog of another package, whose reads wait."""

    def __init__(self, is_free: threading.Event) -> None:
        super().__init__()
        self._is_free = is_free

    def get_entry(self, key: str) -> Any:
        self._is_free.wait(30)
        return super().get_entry(key)


def test_a_cancelled_import_of_a_snapshot_ends_between_two_transactions_and_can_be_repeated(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncCatalog(catalog_type="sqlite", path=tmp_path / "catalog.db") as catalog:
            await catalog.store_batch({"key": f"k{n}", "content_hash": "h", "byte_size": 1} for n in range(3_000))
            snapshot_id = await catalog.create_snapshot("first")
            snapshot, entries = await catalog.get_snapshot(snapshot_id), await all_of(catalog, snapshot_id)
            assert snapshot is not None
            async with AsyncCatalog(catalog_type="sqlite", path=tmp_path / "copy.db") as copy:
                passed: list[Any] = []

                def watched() -> Iterator[Any]:
                    for entry in entries:
                        if not passed:
                            cancel_this_call(portal, scope)
                        passed.append(entry)
                        yield entry

                async with BlockingPortal() as portal:
                    with anyio.CancelScope() as scope:
                        await copy.import_snapshot(snapshot, watched())
                assert len(passed) == 1_000
                assert await copy.list_snapshots() == []
                assert await copy.import_snapshot(snapshot, entries) is True
                assert await all_of(copy, snapshot_id) == entries

    anyio.run(main)


def test_the_fill_of_a_new_catalog_is_not_stopped(tmp_path: Path) -> None:
    with SQLiteBackend(tmp_path / "memory.db") as memory:
        memory.store_many({"key": f"k{n:04}", "value": n} for n in range(2_000))

    async def main() -> None:
        path = tmp_path / "memory.db"
        async with AsyncMemory(backend_type="sqlite", path=path, catalog="sqlite", lazy=True) as memory:
            with anyio.move_on_after(0.05) as scope:
                await memory.retrieve("k0000")
            assert scope.cancelled_caught
            assert memory.catalog is not None
            assert len(await memory.catalog.get_changed_entries()) == 2_000

    anyio.run(main)


def test_a_memory_has_its_catalog_and_a_namespace_has_its_part() -> None:
    async def main() -> None:
        async with AsyncMemory(backend_type="sqlite", catalog="sqlite") as memory:
            ada = memory.namespace("ada")
            await ada.store("fox", "red")
            assert memory.catalog is not None
            assert ada.catalog is not None
            assert ada.catalog._threads is memory._threads
            assert [entry["key"] for entry in await ada.catalog.list_entries()] == ["fox"]
            assert [entry["key"] for entry in await memory.catalog.list_entries()] == ["@ada.fox"]
            assert not hasattr(ada.catalog, "import_snapshot")
            await memory.catalog.close()
            assert (await ada.retrieve("fox"))["found"]
            assert await ada.catalog.get_entry("fox") is not None
        async with AsyncMemory(backend_type="sqlite") as memory:
            assert memory.catalog is None
        async with AsyncMemory(FiveMethods()) as memory:
            assert memory.catalog is None

    anyio.run(main)


def test_failures_are_raised_by_a_catalog_that_raises() -> None:
    async def main() -> None:
        async with AsyncCatalog(raising(SQLiteCatalog(":memory:"))) as catalog:
            with pytest.raises(LTMError, match="key"):
                await catalog.track_entry("", *TRACKED)
        async with AsyncMemory(backend_type="sqlite", catalog="sqlite", errors="raise") as memory:
            assert memory.catalog is not None
            with pytest.raises(LTMError, match="key"):
                await memory.catalog.track_entry("", *TRACKED)
        async with AsyncCatalog(url="sqlite://") as catalog:
            assert (await catalog.track_entry("", *TRACKED))["error_type"] == "validation_error"
            with pytest.raises(LTMError, match="key"):
                await catalog.get_entry("")

    anyio.run(main)


def test_without_a_turn_a_call_fails_as_the_others_of_its_method() -> None:
    async def main() -> None:
        is_free = threading.Event()
        catalog = AsyncCatalog(Waiting(is_free), max_concurrency=1, pool_timeout=0.05)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(catalog.get_entry, "k")
            await anyio.sleep(0.02)
            assert (await catalog.track_entry("k", *TRACKED))["error_type"] == "connection_timeout"
            with pytest.raises(LTMError, match="turn"):
                await catalog.delete_entry("k")
            is_free.set()
        await catalog.close()

    anyio.run(main)


def test_what_a_catalog_does_not_have_its_coroutines_lack_too() -> None:
    async def main() -> None:
        async with AsyncCatalog(NineMethods()) as nine, AsyncCatalog(SQLiteCatalog(":memory:")) as ours:
            names = [name for name in dir(AsyncCatalog) if not name.startswith("_")]
            missing = {name for name in names if not hasattr(nine, name)}
            assert missing == {
                *("get_snapshot", "list_snapshots", "delete_snapshot", "get_deleted_entries"),
                *("iterate_snapshot", "import_snapshot", "stats", "add_listener", "remove_listener"),
            }
            assert all(hasattr(ours, name) for name in names)
            with pytest.raises(AttributeError, match="'NineMethods' object has no attribute 'list_snapshots'"):
                await nine.list_snapshots()

    anyio.run(main)


def test_a_catalog_or_its_options_are_needed() -> None:
    with pytest.raises(TypeError, match="AsyncCatalog takes"):
        AsyncCatalog()
    with SQLiteCatalog(":memory:") as catalog, pytest.raises(TypeError, match="AsyncCatalog takes"):
        AsyncCatalog(catalog, url="sqlite://")


def test_as_many_calls_run_at_a_time_as_the_pool_has_connections() -> None:
    catalog = SQLAlchemyCatalog("postgresql://localhost/x", pool_size=2, max_overflow=1, lazy=True)
    assert AsyncCatalog(catalog)._threads._most == 3
    assert AsyncCatalog(catalog, max_concurrency=7)._threads._most == 7
    assert AsyncCatalog(NineMethods())._threads._most == 10
