"""``AsyncWrapper``: what ``AsyncMemory`` and ``AsyncCatalog`` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from types import MethodType, TracebackType
from typing import Any, Final, Generic, TypeVar

from the_edge_agent.memory.aio.threads import Threads
from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.contract.raising import raising
from the_edge_agent.memory.contract.result_types import StatsResult
from the_edge_agent.memory.core.calls import CallListener
from the_edge_agent.memory.core.results import LTMError

Answer = TypeVar("Answer")
Method = TypeVar("Method", bound=Callable[..., Any])
Self = TypeVar("Self", bound="AsyncWrapper[Any]")
Wrapped = TypeVar("Wrapped", bound="LTMBackend | CatalogBackend")

_SECONDS: Final = 10.0  # that a call waits for its turn
_MOST: Final = 10  # calls that run at a time, for an object without a pool


class _IfThere:
    """A method that looks for the method of the wrapped object with its name, and is missing if that is."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __get__(self, wrapper: AsyncWrapper[Any] | None, kind: type | None = None) -> Any:
        if wrapper is None:
            return self._method
        getattr(wrapper._wrapped, self._method.__name__)  # raises AttributeError
        return MethodType(self._method, wrapper)


def if_there(method: Method) -> Method:
    """Decorate a method that an ``AsyncWrapper`` has only if the wrapped object has it."""
    return _IfThere(method)  # type: ignore[return-value]


class AsyncWrapper(Generic[Wrapped]):
    """Calls the methods of a memory or a catalog in worker threads. The constructor of a subclass calls ``_open``."""

    _wrapped: Wrapped
    _threads: Threads
    _raises: bool
    _connects = False
    _owns_threads = True

    def _open(
        self,
        wrapped: Wrapped | None,
        create: Callable[..., Wrapped],
        options: Mapping[str, Any],
        max_concurrency: int | None,
        pool_timeout: float | None,
    ) -> None:
        """Wrap an object, or a lazy one that ``create`` makes of the options."""
        name = type(self).__name__
        if isinstance(wrapped, str):
            raise TypeError(f"{name} takes an object to wrap; for a database write {name}(url=...)")
        if (wrapped is None) == (not options):
            raise TypeError(f"{name} takes an object to wrap, or the options of one, such as url=")
        if wrapped is None:
            wrapped = create(**{"lazy": True, **options})
            self._connects = "lazy" not in options
        most = getattr(wrapped, "_most_at_once", _MOST) if max_concurrency is None else max_concurrency
        self._wrap(wrapped, Threads(most, _SECONDS if pool_timeout is None else pool_timeout))

    def _wrap(self, wrapped: Wrapped, threads: Threads) -> None:
        self._raises = getattr(wrapped, "_raises", False) or raising(wrapped) is wrapped
        self._wrapped, self._threads = wrapped, threads

    @property
    def backend(self) -> Wrapped:
        """The memory or catalog that this object wraps, for threads."""
        return self._wrapped

    async def run(self, function: Callable[..., Answer], *args: Any, **options: Any) -> Answer:
        """Return ``function(self.backend, *args, **options)``, which runs in a worker thread.

        This is for functions that take a memory or a catalog, such as ``export_entries``, and for methods that are not
        part of the contract, such as ``sync_catalog``. The function is awaited to its end, also by a cancelled task. A
        call of many transactions in it, such as ``import_entries`` or ``sync_catalog``, then fails after its present
        transaction.

        Args:
            function: an ordinary function, not a coroutine. It uses the memory or catalog as any thread does.
            args: its arguments after the memory or catalog.
            options: its arguments by name.

        Raises:
            LTMError: ``connection_timeout`` if the call waited too long for its turn.
            TypeError: the function is a coroutine function.
            Exception: what the function raises.
        """
        if iscoroutinefunction(function):
            raise TypeError("run takes an ordinary function, which gets the memory or catalog for threads")
        return await self._threads.run(function, self._wrapped, *args, **options)

    @if_there
    def stats(self) -> StatsResult:
        """Return what the calls have done; see ``LTMBackend.stats``. It waits for nothing."""
        result: StatsResult = self._ours.stats()
        return result

    @if_there
    def add_listener(self, listener: CallListener) -> None:
        """Tell a listener about each call, in the thread of the call; see ``LTMBackend.add_listener``."""
        self._ours.add_listener(listener)

    @if_there
    def remove_listener(self, listener: CallListener) -> None:
        """Tell a listener about no further call."""
        self._ours.remove_listener(listener)

    async def close(self) -> None:
        """Wait for the calls that have begun, and close the memory or catalog. Later calls fail.

        A cancelled task does all of this too. Closing again does nothing.
        """
        close: Callable[[], None] = getattr(self._wrapped, "close", lambda: None)
        if self._owns_threads:
            await self._threads.close(close)
        else:  # a namespace, or the catalog of a memory
            await self._threads.run(close)

    async def __aenter__(self: Self) -> Self:
        """Connect, if this object has made the memory or catalog of its options, and return the object itself.

        With the option ``lazy=True`` the first call connects.

        Raises:
            LTMError: the database cannot be used; everything is closed.
        """
        connect: Callable[[], None] | None = getattr(self._wrapped, "_connect", None)
        if self._connects and connect is not None:
            try:
                await self._threads.run(connect)
            except BaseException:
                await self.close()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the memory or catalog."""
        await self.close()

    def __repr__(self) -> str:
        """Name the memory or catalog, without anything secret."""
        return f"{type(self).__name__}({self._wrapped!r})"

    @property
    def _ours(self) -> Any:
        """The wrapped object, for methods that not every memory or catalog has."""
        return self._wrapped

    async def _call(
        self, method: Callable[..., Answer], *args: Any, only_reads: bool = False, **options: Any
    ) -> Answer:
        """Call a method that returns its failures, unless the wrapped object raises them."""
        try:
            return await self._threads.run(method, *args, only_reads=only_reads, **options)
        except LTMError as failure:
            if self._raises:
                raise
            return failure.result  # type: ignore[return-value]  # what the method would have returned
