"""``AsyncMemory``: turns, cancellation and closing. tests/contract/test_async_contract.py has the contract."""

from __future__ import annotations

import gc
import io
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal

from absent import run_python
from async_memories import cancel_this_call, cancel_while_locked, wait_until_none_is_in_use
from databases import Database
from locks import lock_tables
from memory_backend import FiveMethods
from the_edge_agent.memory import LTMError, SQLiteBackend, SQLiteCatalog, export_entries
from the_edge_agent.memory.aio import AsyncMemory
from the_edge_agent.memory.aio.threads import Threads
from the_edge_agent.memory.sql.dialects import for_dialect

on_servers = pytest.mark.targets(server=True, portable=False)

READS: dict[str, Callable[[AsyncMemory], Awaitable[Any]]] = {
    "retrieve": lambda memory: memory.retrieve("k"),
    "retrieve_many": lambda memory: memory.retrieve_many(["k", "l"]),
    "search": lambda memory: memory.search("red fox"),
    "a filter": lambda memory: memory.search(metadata_filter={"n": {"$gt": 3}}),
    "list_keys": lambda memory: memory.list_keys(),
    "iterate_entries": lambda memory: anext_of(memory),
}


async def anext_of(memory: AsyncMemory) -> Any:
    async for entry in memory.iterate_entries():
        return entry
    return None


@pytest.mark.targets(server=True, portable=False, native=True)
class TestCancellationOfNatives:
    def test_a_read_that_waits_for_a_lock_is_stopped(self, database: Database) -> None:
        anyio.run(stop_reads, database)


def drop_idle(pool: Any) -> None:
    pool.dispose()


def invalidate_idle(pool: Any) -> None:
    for entry in pool._idle:
        entry.invalidate()


@on_servers
class TestCancellation:
    def test_a_read_that_waits_for_a_lock_is_stopped(self, database: Database) -> None:
        anyio.run(stop_reads, database)

    @pytest.mark.parametrize("read", ["retrieve", "a filter"])  # a statement, and a transaction
    @pytest.mark.parametrize("close_idle", [drop_idle, invalidate_idle])
    def test_a_read_that_is_connecting_gives_its_place_in_the_pool_back(
        self, database: Database, monkeypatch: pytest.MonkeyPatch, read: str, close_idle: Callable[[Any], None]
    ) -> None:
        may_connect = threading.Event()

        async def main() -> None:
            async with AsyncMemory(database.open(errors="raise")) as memory:
                await memory.store("k", 1)
                engine = await memory.run(lambda backend: backend._engine)
                engines = for_dialect(engine.dialect).engines
                connect = engines.connect
                monkeypatch.setattr(engines, "connect", lambda *args: may_connect.wait(10) and connect(*args))
                close_idle(engine.pool)
                with anyio.move_on_after(0.05) as scope:
                    await READS[read](memory)
                assert scope.cancelled_caught
                may_connect.set()
                await wait_until_none_is_in_use(memory)
                assert (await memory.retrieve("k"))["found"]

        gc.disable()  # the place must not be in a reference cycle
        try:
            anyio.run(main)
        finally:
            gc.enable()

    def test_a_write_is_awaited(self, database: Database) -> None:
        async def main() -> None:
            async with AsyncMemory(database.open(errors="raise")) as memory:
                await memory.store("k", 1)
                with lock_tables(database, "ltm_entries") as lock:
                    await cancel_while_locked(memory, lock, lambda: memory.store("new", 1))
                with lock_tables(database, "ltm_entries") as lock:
                    run = partial(memory.run, lambda backend: backend.store("run", 1))
                    await cancel_while_locked(memory, lock, run)
                assert (await memory.retrieve("run"))["found"]
                assert (await memory.retrieve("new"))["found"]

        anyio.run(main)


async def stop_reads(database: Database) -> None:
    async with AsyncMemory(database.open(errors="raise")) as memory:
        await memory.store("k", "red fox", {"n": 5})
        with lock_tables(database, "ltm_entries"):
            for name, read in READS.items():
                began = time.monotonic()
                with anyio.move_on_after(0.05) as scope:
                    await read(memory)
                assert (name, scope.cancelled_caught, time.monotonic() - began < 1.05) == (name, True, True)
        await wait_until_none_is_in_use(memory)
        assert (await memory.search("red fox"))["count"] == 1


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
class TestEventLoops:
    def test_a_statement_of_sqlite_is_interrupted(self, kind: str) -> None:
        async def main() -> None:
            async with AsyncMemory(SQLiteBackend(errors="raise")) as memory:
                await memory.store_many({"key": f"k{n}", "value": 1, "metadata": {"n": n}} for n in range(3000))
                backend: Any = memory.backend

                def endless() -> None:
                    with backend._database.transaction() as connection:
                        connection.execute(
                            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
                        )

                began = time.monotonic()
                with anyio.move_on_after(0.05):
                    await memory._threads.run(endless, only_reads=True)
                assert time.monotonic() - began < 1.05
                assert (await memory.count())["count"] == 3000

        anyio.run(main, backend=kind)

    def test_many_waiting_calls_have_few_threads(self, kind: str) -> None:
        async def main() -> None:
            async with AsyncMemory(SQLiteBackend(errors="raise"), max_concurrency=3) as memory:
                before = threading.active_count()

                async def store(number: int) -> None:
                    await memory.store(f"k{number}", number)

                async with anyio.create_task_group() as tasks:
                    for number in range(1000):
                        tasks.start_soon(store, number)
                assert threading.active_count() - before <= 3
                assert (await memory.count())["count"] == 1000

        anyio.run(main, backend=kind)

    def test_waiting_for_a_turn_ends_at_the_pool_timeout(self, kind: str) -> None:
        async def main() -> None:
            is_free = threading.Event()
            memory = AsyncMemory(Waiting(is_free), max_concurrency=1, pool_timeout=0.1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(memory.retrieve, "k")
                await anyio.sleep(0.05)
                result = await memory.retrieve("k")
                assert (result["success"], result["error_type"]) == (False, "connection_timeout")
                is_free.set()
            await memory.close()

        anyio.run(main, backend=kind)

    def test_a_memory_of_another_package_is_awaited(self, kind: str) -> None:
        async def main() -> None:
            is_free = threading.Event()
            memory = AsyncMemory(Waiting(is_free))
            threading.Timer(0.3, is_free.set).start()
            with anyio.move_on_after(0.05) as scope:
                await memory.retrieve("k")
            assert is_free.is_set()
            assert scope.cancelled_caught
            await memory.close()

        anyio.run(main, backend=kind)

    def test_a_function_that_runs_is_awaited(self, kind: str) -> None:
        async def main() -> None:
            is_free = threading.Event()
            async with AsyncMemory(SQLiteBackend()) as memory:
                threading.Timer(0.15, is_free.set).start()
                with anyio.move_on_after(0.05) as scope:
                    await memory.run(lambda backend: is_free.wait(30) and backend.store("k", 1))
                assert scope.cancelled_caught
                assert (await memory.retrieve("k"))["found"]

        anyio.run(main, backend=kind)

    def test_a_call_that_has_no_turn_yet_is_given_up(self, kind: str) -> None:
        async def main() -> None:
            is_free = threading.Event()
            memory = AsyncMemory(Waiting(is_free), max_concurrency=1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(memory.retrieve, "k")
                await anyio.sleep(0.05)
                with anyio.move_on_after(0.05):
                    await memory.store("given up", 1)
                is_free.set()
            assert not (await memory.retrieve("given up"))["found"]
            await memory.close()

        anyio.run(main, backend=kind)


class Waiting(FiveMethods):
    """A memory of another package, whose reads wait."""

    def __init__(self, is_free: threading.Event) -> None:
        super().__init__()
        self._is_free = is_free

    def retrieve(self, *args: Any, **options: Any) -> Any:
        self._is_free.wait(30)
        return super().retrieve(*args, **options)


def test_several_event_loops_may_use_one_memory_one_after_another() -> None:
    memory = AsyncMemory(backend_type="sqlite", errors="raise")
    for kind in ("asyncio", "trio", "asyncio"):
        anyio.run(memory.store, "k", kind, backend=kind)
    anyio.run(memory.close)


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_close_awaits_the_calls_that_have_begun_and_refuses_others(kind: str) -> None:
    async def main() -> None:
        memory = AsyncMemory(backend_type="sqlite", errors="raise")
        done, has_begun = [], threading.Event()

        def slow(backend: Any) -> None:
            has_begun.set()
            time.sleep(0.1)
            done.append(backend.store("k", 1)["success"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(memory.run, slow)
            while not has_begun.is_set():
                await anyio.sleep(0.001)
            with anyio.CancelScope() as scope:
                scope.cancel()  # a cancelled task closes too
                await memory.close()
            assert done == [True]
        with pytest.raises(LTMError, match="closed") as failure:
            await memory.retrieve("k")
        assert failure.value.error_type == "connection_error"
        await memory.close()

    anyio.run(main, backend=kind)


def test_async_with_connects_unless_it_is_lazy() -> None:
    async def enter(**options: Any) -> None:
        async with AsyncMemory(url="sqlite:////nowhere/memory.db", **options):
            pass

    with pytest.raises(LTMError):
        anyio.run(enter)
    anyio.run(partial(enter, lazy=True))


def test_run_refuses_a_coroutine_function() -> None:
    async def upkeep(backend: Any) -> None: ...

    async def main() -> None:
        function: Any = upkeep
        async with AsyncMemory(backend_type="sqlite") as memory:
            with pytest.raises(TypeError, match="ordinary function"):
                await memory.run(function)

    anyio.run(main)


def test_an_iteration_may_be_closed() -> None:
    async def main() -> list[Any]:
        async with AsyncMemory(backend_type="sqlite") as memory:
            await memory.store("a", 1)
            await memory.store("b", 2)
            async with aclosing(memory.iterate_entries()) as entries:
                first = [entry["key"] async for entry in entries if entry["key"] == "a"]
            return [*first, *[entry async for entry in entries]]

    assert anyio.run(main) == ["a"]


def test_a_call_has_the_context_of_its_task() -> None:
    user: ContextVar[str] = ContextVar("user")

    async def main() -> None:
        async with AsyncMemory(backend_type="sqlite") as memory:
            user.set("Ada")
            assert await memory.run(lambda _: user.get()) == "Ada"

    anyio.run(main)


def test_calls_that_compute_have_few_workers_and_calls_that_wait_have_many() -> None:
    async def workers(work: Callable[[], object]) -> int:
        threads = Threads(20, seconds=10.0)
        names = set()

        def named() -> None:
            names.add(threading.get_ident())
            work()

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(threads.run, named)
        await threads.close(lambda: None)
        return len(names)

    assert anyio.run(workers, lambda: time.sleep(0.01)) > 10
    assert anyio.run(workers, lambda: sum(range(200_000))) <= 8


def test_long_calls_leave_turns_to_others() -> None:
    async def main() -> None:
        threads, are_free = Threads(10, seconds=5.0), threading.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(threads.run, lambda: sum(range(400_000)))  # few workers remain
        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(threads.run, lambda: are_free.wait(30))
            await anyio.sleep(0.01)
            with anyio.fail_after(4):
                await threads.run(lambda: None)
            are_free.set()
        await threads.close(lambda: None)

    anyio.run(main)


def test_delete_all_ends_between_two_transactions(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncMemory(url=f"sqlite:///{tmp_path}/memory.db", errors="raise") as memory:
            await memory.store_many({"key": f"k{n:05}", "value": n} for n in range(20_000))
            with anyio.move_on_after(0.05):
                await memory.delete_all("")
            assert (await memory.count())["count"] % 1000 == 0

    anyio.run(main)


def test_an_iteration_that_was_cancelled_does_not_seem_to_be_complete() -> None:
    async def main() -> None:
        async with AsyncMemory(backend_type="sqlite", errors="raise") as memory:
            await memory.store("k", 1)
            items = memory.iterate_entries()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(items)
            with pytest.raises(LTMError, match="cancelled"):
                await anext(items)

    anyio.run(main)


def test_run_calls_a_function_with_the_memory_in_a_thread() -> None:
    async def main() -> None:
        async with AsyncMemory(backend_type="sqlite", errors="raise") as memory:
            ada = memory.namespace("ada")
            await ada.store("fox", "red")
            file = io.BytesIO()
            assert (await ada.run(export_entries, file, nested=True))["entries"] == 1
            assert b'"fox"' in file.getvalue()
            assert await memory.run(lambda backend: backend) is memory.backend
            assert await memory.run(lambda _: threading.current_thread()) is not threading.current_thread()
            with pytest.raises(ZeroDivisionError):
                await memory.run(lambda _: 1 / 0)

    anyio.run(main)


def test_sync_catalog_ends_between_two_transactions() -> None:
    async def main() -> None:
        catalog = SQLiteCatalog(":memory:")
        async with AsyncMemory(SQLiteBackend(catalog=catalog)) as memory, BlockingPortal() as portal:
            await memory.store_many({"key": f"k{n:04}", "value": n} for n in range(2_000))
            for entry in catalog.get_changed_entries():
                catalog.delete_entry(entry["key"])
            with anyio.CancelScope() as scope:

                def sync(backend: Any) -> None:
                    cancel_this_call(portal, scope)
                    backend.sync_catalog()

                await memory.run(sync)
            assert len(catalog.get_changed_entries()) == 500
            assert (await memory.run(lambda backend: backend.sync_catalog()))["tracked_count"] == 1_500
        catalog.close()

    anyio.run(main)


def test_a_memory_or_its_options_are_needed() -> None:
    with pytest.raises(TypeError):
        AsyncMemory()
    with SQLiteBackend() as memory, pytest.raises(TypeError):
        AsyncMemory(memory, url="sqlite://")
    text: Any = "sqlite://"
    with pytest.raises(TypeError, match="url="):
        AsyncMemory(text)


def test_failures_are_raised_by_a_memory_that_raises() -> None:
    async def main() -> None:
        async with AsyncMemory(backend_type="sqlite", errors="raise") as memory:
            with pytest.raises(LTMError, match="key"):
                await memory.store("", 1)
        async with AsyncMemory(backend_type="sqlite") as memory:
            assert (await memory.store("", 1))["error_type"] == "validation_error"

    anyio.run(main)


def test_without_anyio_the_import_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['anyio'] = None\n"
        "try: import the_edge_agent.memory.aio\nexcept ImportError as error: print(error)"
    )
    assert 'pip install "the-edge-agent[async]"' in run_python(code)
