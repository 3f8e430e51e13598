"""The contract of long-term memory: LTMBackend, LTMTransaction, and the registry of backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from the_edge_agent.memory.codec import encode_metadata, encode_value
from the_edge_agent.memory.results import LTMError, Result, ok, returns_result
from the_edge_agent.memory.text import search_text
from the_edge_agent.memory.validation import MAX_LIMIT, check_key, check_prefix

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Self = TypeVar("Self", bound="LTMBackend")


@dataclass(frozen=True, slots=True)
class Store:
    """A checked and encoded ``store``, ready for the database.

    Attributes:
        key: the key.
        value: the value as JSON text.
        metadata: the metadata as JSON text, or None.
        search_text: the search tokens of the entry.
    """

    key: str
    value: str
    metadata: str | None
    search_text: str

    @classmethod
    def of(cls, key: str, value: Any, metadata: dict[str, Any] | None) -> Store:
        """Check and encode the arguments of ``store``.

        Raises:
            LTMError: ``validation_error`` or ``serialization_error``.
        """
        checked = check_key(key)
        encoded, encoded_metadata = encode_value(value), encode_metadata(metadata)
        return cls(checked, encoded, encoded_metadata, search_text(checked, value, metadata))


@dataclass(frozen=True, slots=True)
class Delete:
    """A checked ``delete``."""

    key: str

    @classmethod
    def of(cls, key: str) -> Delete:
        """Check the argument of ``delete``.

        Raises:
            LTMError: ``validation_error``.
        """
        return cls(check_key(key))


Operation: TypeAlias = Store | Delete


class LTMBackend(ABC):
    """Long-term memory: entries of a key, a JSON value and JSON metadata that outlive the process.

    Keys are text of 1 to 512 characters, exact in case, accents and spaces. Values are any JSON value.
    Metadata is a JSON object or None. Methods return a dict: ``{"success": True, ...}``, or
    ``{"success": False, "error": str, "error_type": str}`` and nothing has changed. What returns no dict
    (constructors, ``iterate_all``, ``transaction``) raises ``LTMError``, whose ``result`` is that dict.

    A backend may be used by many threads at once; each call is one transaction. Whoever creates a backend
    closes it. Third parties write the five abstract methods; a method whose promise these cannot keep is
    refused unless the backend declares the capability and provides it.

    Attributes:
        capabilities: what the backend does beyond the abstract methods: ``"transactions"``.
    """

    capabilities: frozenset[str] = frozenset()

    @abstractmethod
    def store(self, key: str, value: Any, metadata: dict[str, Any] | None = None) -> Result:
        """Create or replace the entry at ``key``.

        Args:
            key: 1 to 512 characters, without NUL or lone surrogates.
            value: any JSON value, None included.
            metadata: a JSON object or None, at most 30 levels deep, without NUL, integers within 64 bits.

        Returns:
            ``{"success": True, "stored": True, "key": str, "created": bool, "version": int}``: ``created``
            is true exactly once per key under any race, ``version`` starts at 1 and grows by 1 per store.
        """

    @abstractmethod
    def retrieve(self, key: str, default: Any = None) -> Result:
        """Return the entry at ``key``.

        Returns:
            ``{"success": True, "value": Any, "found": bool, "metadata": dict | None, "version": int | None}``;
            when there is none, ``value`` is ``default``, ``found`` false, metadata and version None.
        """

    @abstractmethod
    def delete(self, key: str) -> Result:
        """Delete the entry at ``key``.

        Returns:
            ``{"success": True, "deleted": bool, "key": str}``; ``deleted`` is false when there was none.
        """

    @abstractmethod
    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        prefix: str | None = None,
        offset: int = 0,
    ) -> Result:
        """Return the entries that match all of the conditions given, best first.

        Args:
            query: words, ``"phrases"``, ``prefix*`` and ``-negations``, all of which must hold; None or
                empty for no text condition.
            metadata_filter: equality by key, or operators such as ``{"age": {"$gte": 18}}``.
            limit: 1 to 10,000.
            prefix: what the key begins with.
            offset: how many of the results to skip.

        Returns:
            ``{"success": True, "results": [{"key", "value", "metadata", "score"}], "count": int}``, ordered
            by score, then newest, then key. Scores rank the newest max(1,000, offset + limit) matches;
            without words to look for they are 0.0.
        """

    @abstractmethod
    def close(self) -> None:
        """Release every connection. Idempotent; afterwards every call is a ``connection_error``."""

    def iterate_all(self, prefix: str | None = None) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        """Yield ``(key, value, metadata)`` of every entry in key order (by code point).

        Entries are as they are when they are read; one that changes meanwhile may be seen before or after.

        Raises:
            LTMError: at once for a bad prefix, later if the database fails.
        """
        check_prefix(prefix)
        found: list[dict[str, Any]] = []
        while True:
            page = self.search(prefix=prefix, limit=MAX_LIMIT, offset=len(found))
            if not page["success"]:
                raise LTMError(page["error_type"], page["error"])
            found += page["results"]
            if page["count"] < MAX_LIMIT:
                break
        found.sort(key=lambda entry: str(entry["key"]))
        return iter([(entry["key"], entry["value"], entry["metadata"]) for entry in found])

    def transaction(self) -> LTMTransaction:
        """Return a transaction that queues stores and deletes until ``commit``.

        Raises:
            LTMError: ``connection_error`` after close, ``validation_error`` if the backend has no
                capability ``"transactions"``.
        """
        if "transactions" not in self.capabilities:
            raise LTMError("validation_error", f"{type(self).__name__} has no atomic transactions")
        return LTMTransaction(self._apply)

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Run queued operations in one database transaction; return the result dict of each.

        Raises:
            LTMError: nothing has changed then.
        """
        raise LTMError("validation_error", f"{type(self).__name__} has no atomic transactions")

    def __enter__(self: Self) -> Self:
        """Return the backend itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the backend."""
        self.close()


class LTMTransaction:
    """A queue of stores and deletes that become one database transaction on ``commit``.

    As a context manager it commits on leaving, or rolls back when the block raises. No database transaction
    is open while the queue is filled. For use by one thread.
    """

    def __init__(self, apply: Callable[[Sequence[Operation]], list[Result]]) -> None:
        """Make an empty queue that ``apply`` will run; use ``LTMBackend.transaction`` instead."""
        self._apply = apply
        self._queue: list[Operation] = []
        self._state = "open"  # then "refused" after a bad entry; "committed", "failed" or "rolled back"
        self._failure: LTMError | None = None  # what leaving the context manager has to report

    @returns_result
    def store(self, key: str, value: Any, metadata: dict[str, Any] | None = None) -> Result:
        """Check the arguments and queue a store: ``{"success": True, "queued": True}``.

        The value is encoded now: what happens to the object later does not matter.
        """
        return self._enqueue(lambda: Store.of(key, value, metadata))

    @returns_result
    def delete(self, key: str) -> Result:
        """Check the argument and queue a delete: ``{"success": True, "queued": True}``."""
        return self._enqueue(lambda: Delete.of(key))

    @returns_result
    def commit(self) -> Result:
        """Run the queue, all or nothing.

        Returns:
            ``{"success": True, "operations": int, "results": [dict]}``, where the results are those that
            ``store`` and ``delete`` of the backend would have returned, in order.
        """
        self._require_open()
        if self._state == "refused":
            self._failure = LTMError("validation_error", "an entry was refused; this transaction can only roll back")
            raise self._failure
        self._state = "failed"
        try:
            results = self._apply(self._queue) if self._queue else []
        except LTMError as failure:
            self._failure = failure
            raise
        self._state = "committed"
        return ok(operations=len(results), results=results)

    @returns_result
    def rollback(self) -> Result:
        """Discard the queue: ``{"success": True, "discarded": int}``."""
        self._require_open()
        self._state, self._failure = "rolled back", None
        discarded = len(self._queue)
        self._queue.clear()
        return ok(discarded=discarded)

    def __enter__(self) -> LTMTransaction:
        """Return the transaction itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or roll back if the block raised.

        Raises:
            LTMError: the commit failed, here or in the block, or an entry was refused: nothing was stored.
        """
        if kind is not None:
            self.rollback()
            return
        if self._state in ("open", "refused"):
            self.commit()
        if self._failure is not None:
            raise self._failure

    def _enqueue(self, make: Callable[[], Operation]) -> Result:
        self._require_open()
        try:
            self._queue.append(make())
        except LTMError:
            self._state = "refused"
            raise
        return ok(queued=True)

    def _require_open(self) -> None:
        if self._state not in ("open", "refused"):
            raise LTMError("validation_error", f"this transaction has already {_ENDED[self._state]}")


_ENDED = {"committed": "been committed", "failed": "failed to commit", "rolled back": "been rolled back"}

BackendFactory: TypeAlias = Callable[..., LTMBackend]
_BUILT_IN: Final = {"sqlalchemy": "the_edge_agent.memory.sqlalchemy_backend:SQLAlchemyBackend"}
_ENTRY_POINTS: Final = "the_edge_agent.ltm_backends"
_registered: dict[str, BackendFactory] = {}


def _plugins() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # costs as much as the rest of this package

    return entry_points(group=_ENTRY_POINTS)


def register_backend(name: str, factory: BackendFactory) -> None:
    """Make ``create_ltm_backend(name, ...)`` call ``factory(...)``; a later registration replaces it.

    Third parties may instead declare an entry point in the group ``the_edge_agent.ltm_backends``.

    Args:
        name: case-insensitive.
        factory: a class or function that returns an ``LTMBackend``.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError("a backend needs a non-empty name")
    if not callable(factory):
        raise TypeError("a backend's factory must be callable")
    _registered[name.strip().lower()] = factory


def get_registered_backends() -> list[str]:
    """Return the names that ``create_ltm_backend`` knows, sorted."""
    plugins = {plugin.name.lower() for plugin in _plugins()}
    return sorted({*_BUILT_IN, *_registered, *plugins})


def create_ltm_backend(backend_type: str = "sqlalchemy", **options: Any) -> LTMBackend:
    """Return a new backend; the caller closes it.

    Args:
        backend_type: a registered name, case-insensitive.
        options: the arguments of the backend's constructor, such as ``url``.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        LTMError: the backend could not be built.
        ImportError: its optional dependency is missing; the message names the extra to install.
    """
    return find_backend_factory(backend_type)(**options)


def find_backend_factory(name: str) -> BackendFactory:
    """Return the registered class or function of a name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        ImportError: its optional dependency is missing.
    """
    wanted = name.strip().lower() if isinstance(name, str) else ""
    if wanted in _registered:
        return _registered[wanted]
    if wanted in _BUILT_IN:
        module, _, attribute = _BUILT_IN[wanted].partition(":")
        factory: BackendFactory = getattr(import_module(module), attribute)
        return factory
    for plugin in _plugins():
        if plugin.name.lower() == wanted:
            loaded: BackendFactory = plugin.load()
            return loaded
    raise ValueError(f"unknown LTM backend {name!r}; known: {', '.join(get_registered_backends())}")
