"""The event loop that runs, asyncio's or trio's, and how threads reach its tasks."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from anyio import CancelScope, get_cancelled_exc_class


class Ending:
    """The end of a call, for which a task waits. Threads tell it by ``EventLoop.tell``."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self.has_come = False
        self.waiter: Any = None  # what the task sleeps on


class EventLoop(ABC):
    """An event loop, with the calls that have ended in other threads.

    It has the parts of asyncio and trio themselves. The events and timers of anyio cost three times as much per call,
    which all threads feel, because Python runs one thread at a time.
    """

    def __init__(self) -> None:
        """Belong to the event loop that runs now."""
        self.is_timing = False
        self._ended: deque[Ending] = deque()
        self._is_waking = False

    @staticmethod
    def running(last: EventLoop | None) -> EventLoop:
        """Return the event loop that runs this task: ``last``, or a new object if it is another one."""
        trio = sys.modules.get("trio")
        if trio is not None:
            with suppress(RuntimeError):  # trio does not run
                token = trio.lowlevel.current_trio_token()
                return last if last is not None and last.itself is token else _Trio(token, trio)
        loop = asyncio.get_running_loop()
        return last if last is not None and last.itself is loop else _Asyncio(loop)

    def tell(self, ending: Ending) -> None:
        """Let the task that waits for an ending go on. Any thread may call this.

        The loop is woken once for all endings that come until it runs.
        """
        self._ended.append(ending)
        if not self._is_waking:
            self._is_waking = True
            self._wake(self._tell)

    async def wait(self, ending: Ending) -> None:
        """Wait for an ending. It may be awaited again after a cancellation."""
        while not ending.has_come:
            await self._sleep(ending)

    async def wait_in_spite_of_cancellation(self, ending: Ending) -> None:
        """Wait for an ending, also in a cancelled task."""
        with CancelScope(shield=True):
            while not ending.has_come:
                try:
                    await self._sleep(ending)
                except get_cancelled_exc_class():  # asyncio cancels a task again in spite of the shield
                    continue

    def _tell(self) -> None:
        self._is_waking = False  # first, so that an ending that comes from now on wakes again
        while self._ended:
            ending = self._ended.popleft()
            ending.has_come = True
            self._rouse(ending)

    itself: Any

    @abstractmethod
    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function in the loop after some seconds."""

    @abstractmethod
    def _wake(self, function: Callable[[], None]) -> None:
        """Call a function in the loop soon; any thread may call this."""

    @abstractmethod
    async def _sleep(self, ending: Ending) -> None:
        """Sleep until ``_rouse``."""

    @abstractmethod
    def _rouse(self, ending: Ending) -> None:
        """Wake the task that sleeps, if there is one."""


class _Asyncio(EventLoop):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.itself = loop

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self.itself.call_later(seconds, function)

    def _wake(self, function: Callable[[], None]) -> None:
        self.itself.call_soon_threadsafe(function)

    async def _sleep(self, ending: Ending) -> None:
        ending.waiter = self.itself.create_future()
        await ending.waiter

    def _rouse(self, ending: Ending) -> None:
        if ending.waiter is not None and not ending.waiter.done():
            ending.waiter.set_result(None)


class _Trio(EventLoop):
    def __init__(self, token: Any, trio: Any) -> None:
        super().__init__()
        self.itself, self._trio = token, trio

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        async def wait() -> None:
            await self._trio.sleep(seconds)
            function()

        self._trio.lowlevel.spawn_system_task(wait)

    def _wake(self, function: Callable[[], None]) -> None:
        self.itself.run_sync_soon(function)

    async def _sleep(self, ending: Ending) -> None:
        ending.waiter = self._trio.Event()
        await ending.waiter.wait()

    def _rouse(self, ending: Ending) -> None:
        if ending.waiter is not None:
            ending.waiter.set()
