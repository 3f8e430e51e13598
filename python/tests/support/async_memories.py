"""Asynchronous objects behind the ordinary contract: each call runs its coroutine on another thread's event loop."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any

import anyio
from anyio import CancelScope
from anyio.from_thread import BlockingPortal
from sqlalchemy import Connection

from the_edge_agent.memory import CallEvent
from the_edge_agent.memory.aio import AsyncCatalog, AsyncItems, AsyncMemory
from the_edge_agent.memory.core import cancelling


class Blocking:
    """Has the methods of an asynchronous object, which wait for its coroutines. Other attributes are the backend's."""

    def __init__(self, portal: BlockingPortal, wrapped: Any, backend: Any) -> None:
        self._portal, self._wrapped, self._backend = portal, wrapped, backend

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped if hasattr(self._wrapped, name) else self._backend, name)
        return partial(self._call, value) if callable(value) else value

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            return self._portal.call(partial(method, *args, **options))
        result = method(*args, **options)
        if isinstance(result, AsyncItems):
            return Items(self._portal, result)
        if isinstance(result, AsyncMemory):
            return self if result is self._wrapped else Blocking(self._portal, result, result.backend)
        if hasattr(result, "__aenter__"):
            self._portal.call(result.__aenter__)
            return Blocking(self._portal, result, self._backend)
        return result

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal.call(self._wrapped.__aexit__, kind, error, trace)


class Items(Iterator[Any]):
    """An asynchronous iteration, read by ``next``.

    It reads the first item at once, because an ordinary one checks its arguments at once.
    """

    def __init__(self, portal: BlockingPortal, items: AsyncItems[Any]) -> None:
        self._portal, self._items = portal, items
        self._all: Iterator[Any] = chain(self._read(), self._rest())

    @property
    def damaged(self) -> Any:
        return self._items.damaged

    def __next__(self) -> Any:
        return next(self._all)

    def close(self) -> None:
        self._all = iter(())

    def _read(self) -> list[Any]:
        async def read() -> list[Any]:
            async for item in self._items:
                return [item]
            return []

        return self._portal.call(read)

    def _rest(self) -> Iterator[Any]:
        while item := self._read():
            yield from item


def cancel_this_call(portal: BlockingPortal, scope: CancelScope) -> None:
    """Cancel the task for which this worker thread runs a call, and wait until the thread knows of it."""
    portal.call(scope.cancel)
    cancellation = cancelling.current()
    while cancellation is not None and not cancellation.is_requested:
        time.sleep(0.001)


async def wait_until_none_is_in_use(wrapper: AsyncMemory | AsyncCatalog) -> None:
    """Wait until the pool has all connections back: a cancelled call may leave a thread that is still connecting."""
    end = time.monotonic() + 5
    while (pool := wrapper.stats()["pool"]) is not None and pool["in_use"]:
        assert time.monotonic() < end, pool
        await anyio.sleep(0.01)


async def cancel_while_locked(
    wrapper: AsyncMemory | AsyncCatalog, lock: Connection, write: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    """Cancel a write that waits for a lock, and check that it goes on until the lock is free."""
    begun, is_free = Begun(), threading.Event()
    wrapper.add_listener(begun)

    def free() -> None:
        is_free.set()
        lock.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        while not begun.is_set():
            await anyio.sleep(0.01)
        timer = threading.Timer(0.15, free)
        timer.start()
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert is_free.is_set()
    timer.join()
    wrapper.remove_listener(begun)


class Begun(threading.Event):
    """An event that a listener sets when a call begins in its thread."""

    def call_started(self, event: CallEvent) -> None:
        self.set()

    def call_ended(self, event: CallEvent) -> None:
        pass
