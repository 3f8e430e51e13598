"""Writes (stores and deletes) after their arguments were checked and encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, TypeGuard

from the_edge_agent.memory.core.codec import encode_metadata, encode_value
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.namespaces import ROOT, Namespace
from the_edge_agent.memory.core.results import LTMError, already_there
from the_edge_agent.memory.core.tokens import EXACT, search_text
from the_edge_agent.memory.core.validation import (
    NOT_GIVEN,
    TTL,
    check_boolean,
    check_expiry,
    check_if_version,
    check_items,
    check_ttl,
    check_version,
)

Rules: TypeAlias = Callable[[], Language]

_FIELDS: Final = frozenset({"key", "value", "metadata", "ttl", "expires_at", "index"})  # of an entry of store_many
_IMPORTED: Final = _FIELDS | {"version", "created_at", "updated_at", "namespace"}  # of an entry of import_entries


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
        ttl: the lifetime, which ``touch`` renews; None if the entry has none.
        if_version: the version that the entry must have: 0 means that it must not exist, None allows any.
        pointer: where the value is in the blob storage, or None if the value is in the database.
        expires_at: when the entry expires, in UTC. None means ``ttl`` after the store, or never without ``ttl``.
        index: whether the words of the entry can be searched. If not, ``search_text`` is empty.
    """

    key: str
    value: str
    metadata: str | None
    search_text: str | None
    ttl: timedelta | None = None
    if_version: int | None = None
    pointer: str | None = None
    expires_at: datetime | None = None
    index: bool = True

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
        ttl: TTL = NOT_GIVEN,
        if_version: int | None = None,
        expires_at: datetime | None = None,
        index: bool = True,
        rules: Rules | None = exact,
        default_ttl: timedelta | None = None,
        namespace: Namespace = ROOT,
    ) -> Store:
        """Check and encode the arguments of ``store``.

        Args:
            key: the key in the namespace.
            value: any JSON value.
            metadata: a JSON object or None.
            ttl: seconds; None for never; ``NOT_GIVEN`` for ``default_ttl``.
            if_version: see the class.
            expires_at: any datetime or None.
            index: see the class.
            rules: returns the language rules; it is called after all checks. None for a memory without search.
            default_ttl: the lifetime of an entry that says nothing about its end.
            namespace: the namespace of the key. The store has the full key.

        Raises:
            LTMError: ``validation_error`` or ``serialization_error``.
        """
        checked = namespace.full_key(key)
        version, end, is_indexed = check_if_version(if_version), check_expiry(expires_at), check_boolean(index, "index")
        lifetime = check_ttl(ttl) if ttl is not NOT_GIVEN else default_ttl if end is None else None
        if lifetime is not None and end is not None:
            raise LTMError("validation_error", "ttl and expires_at both say when the entry ends; give one of them")
        encoded, encoded_metadata = encode_value(value), encode_metadata(metadata)
        tokens = _tokens(checked, value, metadata, rules, is_indexed=is_indexed)
        return cls(checked, encoded, encoded_metadata, tokens, lifetime, version, None, end, is_indexed)


@dataclass(frozen=True, slots=True)
class Delete:
    """A checked ``delete``.

    Attributes:
        key: the key.
        if_version: the version that the entry must have: 0 means that it must not exist, None allows any.
    """

    key: str
    if_version: int | None = None

    @classmethod
    def of(cls, key: str, if_version: int | None = None, *, namespace: Namespace = ROOT) -> Delete:
        """Check the arguments of ``delete``. The result has the full key of ``key`` in the namespace.

        Raises:
            LTMError: ``validation_error``.
        """
        return cls(namespace.full_key(key), check_if_version(if_version))


Operation: TypeAlias = Store | Delete
OnConflict: TypeAlias = Literal["fail", "skip", "replace"]


@dataclass(frozen=True, slots=True)
class Import:
    """A checked entry of ``import_entries``.

    Attributes:
        store: the entry. Its ``ttl`` is the lifetime, and its ``expires_at`` alone says when the entry expires.
        version: the version that the entry gets.
        created_at: when the entry was created, in UTC; None for the time of the import.
        updated_at: when the entry was last stored, in UTC; None for the time of the import.
    """

    store: Store
    version: int
    created_at: datetime | None
    updated_at: datetime | None

    @property
    def key(self) -> str:
        """The full key."""
        return self.store.key

    @classmethod
    def of(cls, entry: Any, *, rules: Rules | None, namespace: Namespace) -> Import:
        """Check and encode one entry, a dict as ``iterate_entries`` yields it.

        Raises:
            LTMError: ``validation_error`` or ``serialization_error``.
        """
        if not isinstance(entry, Mapping):
            raise LTMError("validation_error", f"it must be a dict, not {type(entry).__name__}")
        if not {"key", "value"} <= entry.keys() <= _IMPORTED:
            unknown = sorted(map(repr, entry.keys() - _IMPORTED))
            known = ", ".join(sorted(_IMPORTED - {"key", "value"}))
            raise LTMError(
                "validation_error",
                f"it must have key and value; it may have {known}{', and has ' * bool(unknown)}{', '.join(unknown)}",
            )
        names = entry.get("namespace", ())
        if not isinstance(names, (list, tuple)):
            raise LTMError("validation_error", f"namespace must be a tuple of names, not {type(names).__name__}")
        place = namespace.below(names) if names else namespace
        key, value, metadata = place.full_key(entry["key"]), entry["value"], entry.get("metadata")
        lifetime, end = check_ttl(entry.get("ttl")), check_expiry(entry.get("expires_at"))
        if lifetime is not None and end is None:
            raise LTMError("validation_error", "an entry with ttl must have expires_at, the time at which it expires")
        is_indexed = check_boolean(entry.get("index", True), "index")
        version = check_version(entry.get("version", 1))
        times = [check_expiry(entry.get(name), name) for name in ("created_at", "updated_at")]
        encoded, encoded_metadata = encode_value(value), encode_metadata(metadata)
        tokens = _tokens(key, value, metadata, rules, is_indexed=is_indexed)
        store = Store(key, encoded, encoded_metadata, tokens, lifetime, None, None, end, is_indexed)
        return cls(store, version, *times)


def is_unconditional(operation: Operation) -> TypeGuard[Store]:
    """Return whether this is a store without ``if_version``. Many of these can run as one statement."""
    return isinstance(operation, Store) and operation.if_version is None


def ends_by_itself(operation: Operation) -> bool:
    """Return whether this is a store with ``expires_at``.

    That time may have passed already. The entry is then gone, and the next store of the key creates it again.
    """
    return isinstance(operation, Store) and operation.expires_at is not None


def stores_of(
    entries: Iterable[Mapping[str, Any]],
    *,
    rules: Rules | None = exact,
    default_ttl: timedelta | None = None,
    namespace: Namespace = ROOT,
) -> list[Store]:
    """Check and encode the argument of ``store_many``; the other arguments are those of ``Store.of``.

    Raises:
        LTMError: ``validation_error`` or ``serialization_error``; it names the first bad entry by its place.
    """
    more = {"rules": rules, "default_ttl": default_ttl, "namespace": namespace}
    items = enumerate(check_items(entries, "entries"))
    return [_store_of(entry, f"entries[{place}]", more) for place, entry in items]


def _store_of(entry: Any, place: str, more: Mapping[str, Any]) -> Store:
    if not isinstance(entry, Mapping):
        raise LTMError("validation_error", f"{place} must be a dict, not {type(entry).__name__}")
    if not {"key", "value"} <= entry.keys() <= _FIELDS:
        message = f"{place} must have key and value, may have metadata, ttl or expires_at, and index, and no more"
        raise LTMError("validation_error", message)
    try:
        return Store.of(**entry, **more)
    except LTMError as failure:
        raise failure.within(place) from None


def imports_of(entries: Sequence[Any], first: int, *, rules: Rules | None, namespace: Namespace) -> list[Import]:
    """Check and encode a batch of the argument of ``import_entries``.

    Args:
        entries: the entries.
        first: the place of the first one in the whole argument.
        rules: as for ``Store.of``.
        namespace: the namespace of the memory. An entry may have a ``namespace`` below it.

    Raises:
        LTMError: ``validation_error`` or ``serialization_error``; it names the first bad entry by its place.
    """
    checked = []
    for place, entry in enumerate(entries, start=first):
        try:
            checked.append(Import.of(entry, rules=rules, namespace=namespace))
        except LTMError as failure:
            raise failure.within(f"entries[{place}]") from None
    return checked


def check_different(imports: Iterable[Import]) -> None:
    """Refuse a key that comes twice.

    Raises:
        LTMError: ``conflict``.
    """
    versions: dict[str, int] = {}
    for each in imports:
        if each.key in versions:
            raise already_there(each.key, versions[each.key])
        versions[each.key] = each.version


def runs_of(imports: Iterable[Import]) -> Iterator[dict[str, Import]]:
    """Yield the imports in their order, by key. A key that comes again begins the next dict."""
    run: dict[str, Import] = {}
    for each in imports:
        if each.key in run:
            yield run
            run = {}
        run[each.key] = each
    if run:
        yield run


def _tokens(key: str, value: Any, metadata: Any, rules: Rules | None, *, is_indexed: bool) -> str | None:
    if rules is None:
        return None
    return search_text(key, value, metadata, rules()) if is_indexed else ""
