"""``Threads`` runs the calls of one memory in worker threads: so many at a time, and each can be cancelled."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from anyio import CancelScope, get_cancelled_exc_class

from the_edge_agent.memory.core.cancelling import Cancellation
from the_edge_agent.memory.core.results import LTMError

Answer = TypeVar("Answer")


class Threads:
    """Runs calls in worker threads. One event loop uses it.

    A call that waits for its turn has no thread. A cancelled call that only reads is stopped. Any other call is awaited
    to its end, and only then the cancellation goes on.

    A worker takes the next waiting call itself, and wakes the event loop once for all calls that have ended meanwhile.
    With a hop of anyio for each call, which the event loop must begin and end, 200 tasks on a server had a quarter of
    the throughput.
    """

    def __init__(self, most: int, seconds: float) -> None:
        """Start no thread yet.

        Args:
            most: how many calls may run at a time.
            seconds: how long a call may wait for its turn.
        """
        self._most, self._seconds = most, seconds
        self._workers = self._new_workers()
        self._unfinished = 0
        self._ended: deque[_Call[Any]] = deque()
        self._is_waking = False
        self._wake: Callable[[Callable[[], object]], object] | None = None

    async def run(self, work: Callable[..., Answer], *args: Any, only_reads: bool = False, **options: Any) -> Answer:
        """Return what ``work(*args, **options)`` returns, or raise what it raises.

        Args:
            work: the function.
            args: its arguments.
            only_reads: whether it only reads, so that it may be stopped.
            options: its arguments by name.

        Raises:
            LTMError: ``connection_timeout`` if the call waited too long for its turn.
        """
        call = _Call(partial(work, *args, **options), self._end, only_reads=only_reads)
        if self._wake is None:
            self._wake = _waker()
        self._workers.submit(call)
        self._unfinished += 1
        try:
            if self._unfinished <= self._most:
                await call.is_over.wait()
            else:
                await self._wait_for_turn(call)
        except get_cancelled_exc_class():
            await _until_over(call)
            raise
        finally:
            self._unfinished -= 1
        return call.answer()

    def close(self) -> None:
        """Let the threads end. A later call, which fails because the memory is closed, starts one again."""
        self._workers.shutdown(wait=False)
        self._workers = self._new_workers()

    def _new_workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._most, thread_name_prefix="the-edge-agent async")

    async def _wait_for_turn(self, call: _Call[Any]) -> None:
        with anyio.move_on_after(self._seconds):
            await call.is_over.wait()
            return
        if call.take():
            message = f"the call waited {self._seconds:g} seconds for its turn; raise pool_size or pool_timeout"
            raise LTMError("connection_timeout", message)
        await call.is_over.wait()

    def _end(self, call: _Call[Any]) -> None:
        """Tell the event loop that a call has ended. A worker thread calls this."""
        self._ended.append(call)
        if not self._is_waking:
            self._is_waking = True
            assert self._wake is not None
            self._wake(self._tell)

    def _tell(self) -> None:
        self._is_waking = False  # first, so that a call that ends from now on wakes again
        while self._ended:
            self._ended.popleft().is_over.set()


class _Call(Generic[Answer]):
    """One call, which one worker thread runs, unless it is taken back before.

    Attributes:
        is_over: set by the event loop when the thread has ended the call.
    """

    def __init__(self, work: Callable[[], Answer], end: Callable[[_Call[Any]], object], *, only_reads: bool) -> None:
        self._work, self._end = work, end
        self._cancellation = Cancellation(only_reads=only_reads)
        self._permit = [True]  # its ``pop`` succeeds once
        self._answers: list[Answer] = []
        self._error: BaseException | None = None
        self.is_over = anyio.Event()

    def __call__(self) -> None:
        """Run the call. A worker thread calls this."""
        if not self.take():
            return
        try:
            with self._cancellation.active():
                self._answers.append(self._work())
        except BaseException as error:
            self._error = error
        finally:
            self._end(self)

    def take(self) -> bool:
        """Take the right to run the call. Return whether nobody had it before."""
        try:
            return self._permit.pop()
        except IndexError:
            return False

    def cancel(self) -> None:
        """Stop the work, if it only reads."""
        self._cancellation.request()

    def answer(self) -> Answer:
        """Return the answer, or raise the error of the work."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # otherwise the traceback would hold the frame, and the frame the error
        return self._answers.pop()


async def _until_over(call: _Call[Any]) -> None:
    """Cancel a call. If a thread runs it, wait for its end."""
    if call.take():
        return
    call.cancel()
    with CancelScope(shield=True):
        while not call.is_over.is_set():
            try:
                await call.is_over.wait()
            except get_cancelled_exc_class():  # asyncio cancels a task again in spite of the shield
                continue


def _waker() -> Callable[[Callable[[], object]], object]:
    """Return the function of the running event loop that takes functions from other threads."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        wake: Callable[[Callable[[], object]], object] = trio.lowlevel.current_trio_token().run_sync_soon
        return wake
    return asyncio.get_running_loop().call_soon_threadsafe
