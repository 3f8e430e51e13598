"""Asynchronous objects behind the ordinary contract: each call runs its coroutine on another thread's event loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any

from anyio.from_thread import BlockingPortal

from the_edge_agent.memory.aio import AsyncItems, AsyncMemory


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
