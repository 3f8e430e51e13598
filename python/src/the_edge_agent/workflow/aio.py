"""``AsyncEvents``: a run of an agent for asynchronous programs. Its nodes run in worker threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

try:
    import anyio
except ImportError as error:
    raise ImportError(
        '`ainvoke` and `astream` need anyio; install it with: pip install "the-edge-agent[async]"'
    ) from error

from anyio import CapacityLimiter, from_thread, get_cancelled_exc_class, to_thread
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import RunVar

from the_edge_agent.memory import Cancellation
from the_edge_agent.memory.aio.loops import Ending, EventLoop
from the_edge_agent.workflow.actions.registry import AWAITER, STOPPER

Answer = TypeVar("Answer")
Event = dict[str, Any]

_MOST: Final = 40  # nodes of one event loop that run at a time; as many as the threads that anyio shares out

# A run inside of an action of another run has a limit of its own. Otherwise 40 nodes that each wait for such a run
# would wait for ever.
_limiters: Final[RunVar[list[CapacityLimiter]]] = RunVar("the_edge_agent.workflow.limiters")
_depth: Final[ContextVar[int]] = ContextVar("how many runs this code is inside of", default=0)


class AsyncEvents(AsyncIterator[Event]):
    """The events of one run: what ``CompiledGraph.ainvoke`` and ``astream`` return. The run goes on as they are read.

    Between two events nothing runs and no thread is held, so the reader may leave at any time. If a node fails, or the
    task is cancelled, the run has ended. One event loop uses it; if several tasks read it, they take turns.
    """

    def __init__(
        self, begin: Callable[[], Iterator[Event]], *, with_states: bool, limiter: CapacityLimiter | None
    ) -> None:
        """Run nothing yet. Programs call ``ainvoke`` or ``astream`` instead.

        Args:
            begin: returns the iterator of all events. It is called in a worker thread.
            with_states: whether to return the states after each node; otherwise only the other events.
            limiter: limits how many nodes run at a time; None for the limit of the event loop.
        """
        self._begin, self._with_states, self._limiter = begin, with_states, limiter
        self._events: Iterator[Event] | None = None
        self._is_over = self._is_closed = False
        self._turn = anyio.Lock(fast_acquire=True)

    def __aiter__(self) -> AsyncEvents:
        """Return the run itself."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            NodeError: a node failed.
            WorkflowError: the input is not a dict whose keys are text, or cannot be copied.
        """
        async with self._turn:
            while not (self._is_over or self._is_closed):
                self._is_over = True  # if this fails or is cancelled
                event = await _Hop(self._next).run(self._limiter)
                if event is None:
                    break
                self._is_over = False
                if self._with_states or event["type"] != "state":
                    return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the run after the node that is under way. Closing again does nothing."""
        self._is_closed = True
        async with self._turn:
            self._events = None

    def _next(self) -> Event | None:
        """Run the next node. A worker thread calls this."""
        if self._events is None:
            self._events = self._begin()
        return next(self._events, None)


class _Hop(Generic[Answer]):
    """One function that runs in a worker thread. It is awaited to its end, also by a cancelled task.

    ``to_thread.run_sync`` alone does not do this: a task of asyncio that ``Task.cancel`` cancels leaves the thread
    behind. So the task waits for the thread itself.
    """

    def __init__(self, work: Callable[[], Answer]) -> None:
        self._work = work
        self._cancellation = Cancellation(only_reads=True)
        self._permit = [True]  # its ``pop`` succeeds once
        self._answers: list[Answer] = []
        self._error: BaseException | None = None
        self._ending, self._loop = Ending(), EventLoop.running(None)

    async def run(self, limiter: CapacityLimiter | None) -> Answer:
        """Return what the function returns, or raise what it raises."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._carry, limiter or _limiter())
            try:
                await self._loop.wait(self._ending)
            except get_cancelled_exc_class():
                self._cancellation.request()
                tasks.cancel_scope.cancel()  # ends an asynchronous action, and the wait for a thread
                if not self._take():
                    await self._loop.wait_in_spite_of_cancellation(self._ending)
                raise
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # otherwise the traceback would hold this object, and this object the error
        return self._answers.pop()

    async def _carry(self, limiter: CapacityLimiter) -> None:
        await to_thread.run_sync(self._run, limiter=limiter)

    def _run(self) -> None:
        """Call the function, in the copy of the caller's context that each thread gets."""
        if not self._take():
            return
        _depth.set(_depth.get() + 1)
        AWAITER.set(_wait_for)
        STOPPER.set(self._cancellation.active)
        try:
            self._answers.append(self._work())
        except BaseException as error:
            self._error = error
        finally:
            self._loop.tell(self._ending)

    def _take(self) -> bool:
        """Take the right to decide whether the function runs. Return whether nobody had it before."""
        try:
            return self._permit.pop()
        except IndexError:
            return False


def _limiter() -> CapacityLimiter:
    """Return the limiter of this event loop for runs that are inside of as many others as this code."""
    limiters = _limiters.get(None)
    if limiters is None:
        limiters = []
        _limiters.set(limiters)
    depth = _depth.get()
    while len(limiters) <= depth:
        limiters.append(CapacityLimiter(_MOST))
    return limiters[depth]


def _wait_for(answer: Awaitable[Any]) -> Any:
    """Wait in a worker thread until the event loop has awaited what an asynchronous action returned."""
    return from_thread.run(_awaited, answer)


async def _awaited(answer: Awaitable[Any]) -> Any:
    AWAITER.set(None)  # nothing may wait on the event loop itself
    return await answer


async def serve_threads(begin: Callable[[Callable[[], object], Callable[[], object]], object], threads: int) -> None:
    """Begin threads and wait until all have ended. Meanwhile asynchronous actions in them are awaited here.

    Args:
        begin: begins the threads. It takes a function that each of them calls first, in its context, and one that is
            called when a thread has ended.
        threads: their number.
    """
    left = [None] * threads  # its ``pop`` is atomic
    async with BlockingPortal() as portal:

        def wait_for(answer: Awaitable[Any]) -> Any:
            return portal.call(_awaited, answer)

        def end() -> None:
            left.pop()
            if not left:
                with suppress(RuntimeError):  # this task was cancelled, and the portal is closed
                    portal.start_task_soon(portal.stop)

        def prepare() -> None:
            AWAITER.set(wait_for)
            STOPPER.set(nullcontext)  # a cancellation ends the calls of one thread only, so reads are awaited

        begin(prepare, end)
        await portal.sleep_until_stopped()
