"""``Threads`` runs the calls of one memory in worker threads: so many at a time, and each can be cancelled."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, Generic, TypeVar

from anyio import get_cancelled_exc_class

from the_edge_agent.memory.aio.loops import Ending, EventLoop
from the_edge_agent.memory.core.cancelling import Cancellation
from the_edge_agent.memory.core.results import LTMError

Answer = TypeVar("Answer")

_FEW: Final = 8  # workers that do not delay the event loop, if their calls are short
_DELAY: Final = 0.01  # seconds that the computing of all workers may delay the event loop
_PART: Final = 0.5  # of the workers that could compute all the time; the event loop needs the rest
_LATEST: Final = 50  # calls
_LONG: Final = 0.2  # seconds after which a call does not count as a worker
_PERIOD: Final = 0.1  # seconds between two looks for long calls, while a call waits


class Threads:
    """Runs calls in worker threads, for the tasks of any event loop.

    A call that waits for its turn has no thread. A cancelled call that only reads is stopped. Any other call is awaited
    to its end, and only then the cancellation goes on.

    A worker takes the next waiting call itself, and wakes the event loop once for all calls that have ended meanwhile.
    With a hop of anyio for each call, which the event loop must begin and end, 200 tasks on a server had a quarter of
    the throughput.

    Python runs one thread at a time, and each worker that computes keeps the event loop waiting. So there are few
    workers while calls compute long, as they do with large values, and more than a few only if calls wait for the
    database most of the time, as they do if it is far away.
    """

    def __init__(self, most: int, seconds: float) -> None:
        """Start no thread yet.

        Args:
            most: how many calls may run at a time.
            seconds: how long a call may wait for its turn.
        """
        self._most, self._seconds = most, seconds
        self._pool = self._new_pool()
        self._loop: EventLoop | None = None
        self._lock = threading.Lock()  # of the waiting calls, and of the number of workers
        self._waiting: deque[_Call[Any]] = deque()  # in the order in which their time is over
        self._workers = 0
        self._running: set[_Call[Any]] = set()
        self._long = 0  # running calls that are long
        self._unfinished = 0
        self._is_closing = self._is_closed = False
        self._idle: list[tuple[EventLoop, Ending]] = []  # told when no call is unfinished
        self._closed: list[tuple[EventLoop, Ending]] = []  # told when ``close`` has ended
        self._useful_workers = min(most, _FEW)
        self._taken = self._computed = 0.0  # seconds of the latest calls, on average

    async def run(self, work: Callable[..., Answer], *args: Any, only_reads: bool = False, **options: Any) -> Answer:
        """Return what ``work(*args, **options)`` returns, or raise what it raises. It has the context of the task.

        Args:
            work: the function.
            args: its arguments.
            only_reads: whether it only reads, so that it may be stopped.
            options: its arguments by name.

        Raises:
            LTMError: ``connection_timeout`` if the call waited too long for its turn.
        """
        self._loop = loop = EventLoop.running(self._loop)
        in_context = partial(copy_context().run, work, *args, **options)
        call = _Call(in_context, loop, Cancellation(only_reads=only_reads), time.monotonic() + self._seconds)
        while not self._queue(call):
            await self._until_closed(loop)  # then the work says itself that the memory is closed
        if not self._add_worker():
            self._time(loop)
        try:
            await loop.wait(call.ending)
        except get_cancelled_exc_class():
            if not self._give_up(call):
                call.cancellation.request()
                await loop.wait_in_spite_of_cancellation(call.ending)
            raise
        return call.answer()

    async def close(self, close: Callable[[], object]) -> None:
        """Wait for the calls that have begun, then call ``close`` in a thread, also in a cancelled task.

        Calls that come meanwhile begin after ``close`` has ended. Closing again does nothing.
        """
        loop, idle = EventLoop.running(self._loop), Ending()
        with self._lock:
            is_first, self._is_closing = not self._is_closing, True
            if is_first:
                self._idle.append((loop, idle))
        if not is_first:
            await self._until_closed(loop)
            return
        self._finish(0)
        await loop.wait_in_spite_of_cancellation(idle)
        call = _Call(close, loop, Cancellation(only_reads=False), math.inf)
        self._pool.submit(call.run)
        await loop.wait_in_spite_of_cancellation(call.ending)
        self._pool.shutdown(wait=False)
        self._pool = self._new_pool()
        with self._lock:
            self._is_closed = True
        for other_loop, ending in self._closed:  # nobody adds to them any more
            other_loop.tell(ending)
        call.answer()

    async def _until_closed(self, loop: EventLoop) -> None:
        ending = Ending()
        with self._lock:
            if self._is_closed:
                return
            self._closed.append((loop, ending))
        await loop.wait(ending)

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._most, thread_name_prefix="the-edge-agent async")

    def _queue(self, call: _Call[Any]) -> bool:
        """Let a call wait for its turn, unless the memory is being closed. Return whether it waits."""
        with self._lock:
            if self._is_closing and not self._is_closed:
                return False
            self._unfinished += 1
            self._waiting.append(call)
            return True

    def _finish(self, count: int) -> None:
        """Note that calls have ended. Any thread may call this."""
        with self._lock:
            self._unfinished -= count
            if self._unfinished:
                return
            told, self._idle = self._idle, []
        for loop, ending in told:
            loop.tell(ending)

    def _add_worker(self) -> bool:
        """Start a worker if a call waits and another worker is useful. Return whether it was started."""
        with self._lock:
            is_useful = self._workers < self._most and self._workers - self._long < self._useful_workers
            if not self._waiting or not is_useful:
                return False
            self._workers += 1
        self._pool.submit(self._work)
        return True

    def _work(self) -> None:
        """Run waiting calls until there are none. A worker thread calls this."""
        while True:
            with self._lock:
                if not self._waiting or self._workers - self._long > self._useful_workers:
                    self._workers -= 1
                    return
                call = self._waiting.popleft()
                call.is_waiting = False
                self._running.add(call)
                call.begin = time.monotonic()
            computed_before = time.thread_time()
            call.run()
            self._finish(1)
            self._learn(call, time.thread_time() - computed_before)
            self._add_worker()

    def _learn(self, call: _Call[Any], computing: float) -> None:
        """Find out how many workers are useful, from the latest calls. A long one says nothing about the others."""
        with self._lock:
            self._running.remove(call)
            if call.is_long:
                self._long -= 1
                return
            self._taken += (time.monotonic() - call.begin - self._taken) / _LATEST
            self._computed += (computing - self._computed) / _LATEST
            computing = max(self._computed, 1e-6)
            harmless = min(_FEW, int(_DELAY / computing))
            self._useful_workers = min(self._most, max(2, harmless, int(_PART * self._taken / computing)))

    def _give_up(self, call: _Call[Any]) -> bool:
        """Take a call back. Return whether it was still waiting."""
        with self._lock:
            if not call.is_waiting:
                return False
            self._waiting.remove(call)
        self._finish(1)
        return True

    def _time(self, loop: EventLoop) -> None:
        """Let an event loop look after the waiting calls. One timer serves all of them."""
        with self._lock:
            if loop.is_timing or not self._waiting:
                return
            loop.is_timing = True
            seconds = min(_PERIOD, self._waiting[0].end - time.monotonic())
        loop.call_later(max(0.0, seconds), partial(self._look, loop))

    def _look(self, loop: EventLoop) -> None:
        """End the calls that have waited too long. Add a worker if long calls occupy the others."""
        late = []
        with self._lock:
            loop.is_timing = False
            now = time.monotonic()
            while self._waiting and self._waiting[0].end <= now:
                call = self._waiting.popleft()
                call.is_waiting = False
                late.append(call)
            for call in self._running:
                if not call.is_long and now - call.begin > _LONG:
                    call.is_long = True
                    self._long += 1
        message = f"the call waited {self._seconds:g} seconds for its turn; raise pool_size or pool_timeout"
        for call in late:
            call.fail(LTMError("connection_timeout", message))
        self._finish(len(late))
        while self._add_worker():
            pass
        self._time(loop)


class _Call(Generic[Answer]):
    """One call, which one worker thread runs, unless it is taken back before.

    Attributes:
        loop: the event loop of the task that waits for it.
        ending: its end.
        cancellation: ends it early, if it only reads.
        end: when its time to wait for a turn is over, by ``time.monotonic``.
        is_waiting: whether it waits for its turn.
        begin: when it began to run, by ``time.monotonic``.
        is_long: whether it has run for long.
    """

    def __init__(self, work: Callable[[], Answer], loop: EventLoop, cancellation: Cancellation, end: float) -> None:
        self._work = work
        self._answers: list[Answer] = []
        self._error: BaseException | None = None
        self.loop, self.cancellation, self.end = loop, cancellation, end
        self.ending = Ending()
        self.is_waiting, self.is_long, self.begin = True, False, 0.0

    def run(self) -> None:
        """Run the call. A worker thread calls this."""
        try:
            with self.cancellation.active():
                self._answers.append(self._work())
        except BaseException as error:
            self._error = error
        finally:
            self.loop.tell(self.ending)

    def fail(self, error: Exception) -> None:
        """End the call, which has not begun."""
        self._error = error
        self.loop.tell(self.ending)

    def answer(self) -> Answer:
        """Return the answer, or raise the error of the work."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # otherwise the traceback would hold the frame, and the frame the error
        return self._answers.pop()
