"""Writes (stores and deletes) after their arguments were checked and encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias, TypeGuard

from the_edge_agent.memory.core.codec import encode_metadata, encode_value
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.tokens import EXACT, search_text
from the_edge_agent.memory.core.validation import check_expiry, check_if_version, check_items, check_key, check_ttl

Rules: TypeAlias = Callable[[], Language]

_FIELDS: Final = ("key", "value", "metadata", "ttl", "expires_at")  # what an entry of store_many may have


def exact() -> Language:
    """Return the language rules for exact words: no stems, no stop words."""
    return EXACT


@dataclass(frozen=True, slots=True)
class Store:
    """A checked and encoded ``store``, ready for the database.

    Attributes:
        key: the key.
        value: the value as JSON text.
        metadata: the metadata as JSON text, or None.
        search_text: the search text of the entry, or None for a memory without search.
        ttl: how long the entry lives, or None for ever.
        if_version: the version that the entry must have: 0 means that it must not exist, None allows any.
        pointer: where the value is in the blob storage, or None if the value is in the database.
        expires_at: when the entry expires, in UTC. At most one of ``ttl`` and ``expires_at`` is set.
    """

    key: str
    value: str
    metadata: str | None
    search_text: str | None
    ttl: timedelta | None = None
    if_version: int | None = None
    pointer: str | None = None
    expires_at: datetime | None = None

    @property
    def stored_value(self) -> str:
        """The text for the value column: ``null`` if the value is in the blob storage."""
        return self.value if self.pointer is None else "null"

    @classmethod
    def of(
        cls,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: float | None = None,
        if_version: int | None = None,
        expires_at: datetime | None = None,
        rules: Rules | None = exact,
    ) -> Store:
        """Check and encode the arguments of ``store``.

        ``rules`` is a function that returns the language rules; it is called after all checks. It is None for a memory
        without search.

        Raises:
            LTMError: ``validation_error`` or ``serialization_error``.
        """
        checked = check_key(key)
        lifetime, version, end = check_ttl(ttl), check_if_version(if_version), check_expiry(expires_at)
        if lifetime is not None and end is not None:
            raise LTMError("validation_error", "ttl and expires_at both say when the entry ends; give one of them")
        encoded, encoded_metadata = encode_value(value), encode_metadata(metadata)
        tokens = None if rules is None else search_text(checked, value, metadata, rules())
        return cls(checked, encoded, encoded_metadata, tokens, lifetime, version, expires_at=end)


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


def is_unconditional(operation: Operation) -> TypeGuard[Store]:
    """Return whether this is a store without ``if_version``. Many of these can run as one statement."""
    return isinstance(operation, Store) and operation.if_version is None


def ends_by_itself(operation: Operation) -> bool:
    """Return whether this is a store with ``expires_at``.

    That time may have passed already. The entry is then gone, and the next store of the key creates it again.
    """
    return isinstance(operation, Store) and operation.expires_at is not None


def stores_of(entries: Iterable[Mapping[str, Any]], *, rules: Rules | None = exact) -> list[Store]:
    """Check and encode the argument of ``store_many``; ``rules`` is as in ``Store.of``.

    Raises:
        LTMError: ``validation_error`` or ``serialization_error``; it names the first bad entry by its place.
    """
    items = enumerate(check_items(entries, "entries"))
    return [_store_of(entry, f"entries[{place}]", rules) for place, entry in items]


def _store_of(entry: Any, place: str, rules: Rules | None) -> Store:
    if not isinstance(entry, Mapping):
        raise LTMError("validation_error", f"{place} must be a dict, not {type(entry).__name__}")
    if not {"key", "value"} <= entry.keys() <= {*_FIELDS}:
        message = f"{place} must have key and value, may have metadata and ttl or expires_at, and no more"
        raise LTMError("validation_error", message)
    try:
        return Store.of(**entry, rules=rules)
    except LTMError as failure:
        raise failure.within(place) from None
