"""``raising``: makes any memory or catalog raise its failures instead of returning them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.results import LTMError

Wrapped = TypeVar("Wrapped", bound="LTMBackend | CatalogBackend")

_WRAPPED: Final = (LTMBackend, LTMTransaction, CatalogBackend)
_UNEXPLAINED: Final = {"error_type": "query_error", "error": "the call failed and gave no reason"}


def raising(backend: Wrapped) -> Wrapped:
    """Return a memory, or a catalog, that raises ``LTMError`` where ``backend`` returns a failure dict.

    It has every method and attribute of ``backend`` and is an instance of the same class. Its namespaces, transactions
    and catalog raise too. It uses the connections of ``backend``: closing one of the two closes both. Many threads may
    use it if they may use ``backend``. Our own memories need no wrapper: their constructors take ``errors="raise"``.

    Args:
        backend: any memory or catalog, also one of another package. A memory that ``raising`` returned is returned as
            it is.

    Raises:
        TypeError: ``backend`` is neither a memory nor a catalog.

    Examples:
        >>> from the_edge_agent.memory import LTMError, SQLiteBackend, raising
        >>> with raising(SQLiteBackend()) as memory:
        ...     try:
        ...         memory.store("", "no key")
        ...     except LTMError as failure:
        ...         print(failure.error_type, "-", failure)
        validation_error - key must not be empty
    """
    if isinstance(backend, type) or not isinstance(backend, (LTMBackend, CatalogBackend)):
        raise TypeError(f"raising() takes a memory or a catalog, not {backend!r:.80}")
    wrapper: Wrapped = _raising(backend)
    return wrapper


def _raising(wrapped: Any) -> Any:
    return wrapped if type(wrapped) is _Raising else _Raising(wrapped)


class _Raising:
    """Forwards everything to a memory, transaction or catalog, and raises the failures that its methods return.

    Private names are forwarded as they are.
    """

    __slots__ = ("__weakref__", "__wrapped__")

    def __init__(self, wrapped: Any) -> None:
        object.__setattr__(self, "__wrapped__", wrapped)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # so that isinstance() is true for the classes of the wrapped object
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.__wrapped__, name)
        if name.startswith("_"):
            return value
        return self._method(value) if callable(value) and not isinstance(value, type) else self._checked(value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __dir__(self) -> list[str]:
        return dir(self.__wrapped__)

    def __repr__(self) -> str:
        return f"raising({self.__wrapped__!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _raising, (self.__wrapped__,)

    def __enter__(self) -> Any:
        return self._checked(self.__wrapped__.__enter__())

    def __exit__(self, *error: Any) -> Any:
        return self.__wrapped__.__exit__(*error)

    def _method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._checked(method(*args, **kwargs))

        return call

    def _checked(self, value: Any) -> Any:
        """Return the value of a method. If it is a failure dict, raise it."""
        if isinstance(value, dict):
            if value.get("success") is False:
                raise LTMError.of({**_UNEXPLAINED, **value})
            return value
        if value is self.__wrapped__:
            return self
        return _raising(value) if isinstance(value, _WRAPPED) else value
