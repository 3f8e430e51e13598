"""Backends in RAM, to test the contract kit: one with only the five methods, and one with every capability."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from the_edge_agent.memory import LTMBackend, LTMError, LTMTransaction
from the_edge_agent.memory.core.codec import decode, encode_value
from the_edge_agent.memory.core.namespaces import ROOT, Namespace
from the_edge_agent.memory.core.operations import Delete, Import, Operation, Store, imports_of
from the_edge_agent.memory.core.pages import check_after_place, check_order, place_of
from the_edge_agent.memory.core.query import parse_query
from the_edge_agent.memory.core.results import Result, already_there, conflict, ok, page_of_keys, returns_result
from the_edge_agent.memory.core.validation import (
    NOT_GIVEN,
    TTL,
    check_after,
    check_batch_size,
    check_boolean,
    check_errors,
    check_iterable,
    check_key,
    check_limit,
    check_offset,
    check_on_conflict,
    check_prefix,
    check_required_prefix,
    check_ttl,
)
from the_edge_agent.testing import full_keys
from the_edge_agent.testing.model import Entry, Model, explained

Self = TypeVar("Self", bound="MemoryBackend")
Contains: TypeAlias = Callable[[str], bool]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)
_BATCH: Final = 1_000  # entries in one transaction of delete_all and import_entries


@dataclass(frozen=True)
class Row:
    """A stored entry. The key and the moment of ``entry`` are the full key and ``updated_at`` in microseconds.

    Attributes:
        expires: when the entry expires, by the monotonic clock.
        ends: when the entry expires, in UTC.
        ttl: the lifetime, which ``touch`` renews.
    """

    entry: Entry
    version: int
    created_at: datetime
    expires: float | None = None
    ends: datetime | None = None
    ttl: timedelta | None = None

    @property
    def updated_at(self) -> datetime:
        return EPOCH + self.entry.moment * _MICROSECOND

    @property
    def times(self) -> dict[str, Any]:
        return {"created_at": self.created_at, "updated_at": self.updated_at, "expires_at": self.ends}


@dataclass
class Shared:
    """The state that a memory and its namespaces share: the time of the last write in microseconds, and the end."""

    moment: int = 0
    is_closed: bool = False


def fresh(value: Any) -> Any:
    """Return a copy of a JSON value. Unlike ``copy.deepcopy``, this also works for very deep values."""
    return json.loads(json.dumps(value))


class FiveMethods(LTMBackend):
    """The five methods that a third party must write, with a dict; all other methods are those of the base class.

    It declares no capability, so the methods take no arguments that need one.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}  # by full key
        self._shared = Shared()
        self._now, self._time = 0.0, datetime.now(timezone.utc)
        self._turn = threading.RLock()

    @returns_result
    def store(  # type: ignore[override]
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: TTL = None,
        if_version: int | None = None,
        expires_at: datetime | None = None,
    ) -> Result:
        store = self.check_store(key, value, metadata, ttl=ttl, if_version=if_version, expires_at=expires_at)
        return self._store_alone(store)

    @returns_result
    def retrieve(self, key: str, default: Any = None) -> Result:  # type: ignore[override]
        return self._retrieved(check_key(key), default)

    @returns_result
    def delete(self, key: str) -> Result:  # type: ignore[override]
        return self._delete_alone(Delete.of(key))

    @returns_result
    def search(  # type: ignore[override]
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        match: Literal["any", "all"] | None = None,
        prefix: str | None = None,
        offset: int = 0,
        explain: bool = False,
    ) -> Result:
        begin = check_prefix(prefix)
        with self._open():
            return self._searched(
                query, metadata_filter, limit, match, lambda key: key.startswith(begin), offset, explain=explain
            )

    def close(self) -> None:
        self._shared.is_closed = True

    @property
    def _closed(self) -> bool:
        return self._shared.is_closed

    @property
    def _moment(self) -> int:
        """When the last write was, in microseconds since 1970. Each write adds at least 1."""
        return self._shared.moment

    @_moment.setter
    def _moment(self, moment: int) -> None:
        self._shared.moment = moment

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Take the lock and read the clocks, so that a whole call uses one time."""
        with self._turn:
            if self._closed:
                raise LTMError("connection_error", "this backend is closed")
            self._now, self._time = time.monotonic(), datetime.now(timezone.utc)
            self._moment = max(self._moment, (self._time - EPOCH) // _MICROSECOND)
            yield

    def _lives(self, row: Row) -> bool:
        return row.expires is None or self._now < row.expires

    def _row(self, key: str) -> Row | None:
        row = self._rows.get(key)
        return row if row is not None and self._lives(row) else None

    def _living(self, contains: Contains) -> list[Row]:
        """Return the rows whose full keys are in a range, in the order of the keys."""
        return [row for key, row in sorted(self._rows.items()) if self._lives(row) and contains(key)]

    def _own(self, full_key: str) -> str:
        """Return how this memory names an entry: by its key here, or by the full key if it is in another namespace."""
        names, key = full_keys.place_of(full_key)
        return key if self._namespace.head and names == self._namespace.names else full_key

    def _store_alone(self, store: Store) -> Result:
        with self._open():
            self._moment += 1
            return self._put(store)

    def _retrieved(self, full_key: str, default: Any) -> Result:
        with self._open():
            row = self._row(full_key)
            if row is None:
                return ok(value=default, found=False, metadata=None, version=None)
            return ok(value=fresh(row.entry.value), found=True, metadata=fresh(row.entry.metadata), version=row.version)

    def _searched(
        self,
        query: str | None,
        metadata_filter: dict[str, Any] | None,
        limit: int,
        match: Literal["any", "all"] | None,
        contains: Contains,
        offset: int,
        *,
        explain: bool,
    ) -> Result:
        """Return the result of a search in a range, with full keys."""
        way = self.check_match(match, explain=explain)
        limit, offset = check_limit(limit), check_offset(offset)
        entries = Model()
        entries.entries = {row.entry.key: row.entry for row in self._living(contains)}
        result = (entries.search if way == "all" else entries.ask)(query, metadata_filter, limit, offset=offset)
        results = [fresh(entry) for entry in result["results"]]
        if explain:
            parsed = parse_query(query, way)
            terms = [term for term in parsed.terms if not term.negated]
            weights = dict.fromkeys(terms, 1.0) if parsed.words is None else entries.rarities(parsed.words)
            for entry in results:
                entry["explain"] = explained(entries.entries[entry["key"]].indexed, weights)
        return ok(results=results, count=result["count"])

    def _put(self, store: Store) -> Result:
        row = self._row(store.key)
        version = row.version if row else 0
        self._check_version(store, version)
        metadata = None if store.metadata is None else decode(store.metadata)
        entry = Entry(store.key, decode(store.value), metadata, self._moment, index=store.index)
        now = EPOCH + self._moment * _MICROSECOND
        ends = store.expires_at if store.ttl is None else now + store.ttl
        self._keep(Row(entry, version + 1, row.created_at if row else now, ttl=store.ttl), ends)
        return ok(stored=True, key=self._own(store.key), created=version == 0, version=version + 1)

    def _keep(self, row: Row, ends: datetime | None) -> None:
        expires = None if ends is None else self._now + (ends - self._time).total_seconds()
        self._rows[row.entry.key] = replace(row, ends=ends, expires=expires)

    def _remove(self, delete: Delete) -> Result:
        row = self._row(delete.key)
        self._check_version(delete, row.version if row else 0)
        if row is not None:
            del self._rows[delete.key]
        return ok(deleted=row is not None, key=self._own(delete.key))

    def _delete_alone(self, delete: Delete) -> Result:
        with self._open():
            return self._remove(delete)

    def _check_version(self, operation: Operation, version: int) -> None:
        if operation.if_version not in (None, version):
            raise conflict(self._own(operation.key), version)


class MemoryBackend(FiveMethods):
    """A backend with every capability, with a dict."""

    capabilities: ClassVar[frozenset[str]] = frozenset(  # type: ignore[misc]
        {"transactions", "ttl", "touch", "versions", "times", "match", "index", "import", "measure", "namespaces"}
    )

    def __init__(self, ttl: float | None = None, errors: str = "return") -> None:
        super().__init__()
        self._default_ttl, self._raises = check_ttl(ttl), check_errors(errors) == "raise"

    @returns_result
    def store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: TTL = NOT_GIVEN,
        if_version: int | None = None,
        expires_at: datetime | None = None,
        index: bool = True,
    ) -> Result:
        options = {"ttl": ttl, "if_version": if_version, "expires_at": expires_at, "index": index}
        return self._store_alone(self.check_store(key, value, metadata, **options))  # type: ignore[arg-type]

    @returns_result
    def retrieve(self, key: str, default: Any = None, *, times: bool = False, refresh_ttl: bool = False) -> Result:
        full_key = self._namespace.full_key(key)
        is_shown, is_renewed = check_boolean(times, "times"), check_boolean(refresh_ttl, "refresh_ttl")
        with self._open():
            row = self._row(full_key)
            if row is not None and is_renewed:
                row = self._renew(row, None)
            unknown = {"created_at": None, "updated_at": None, "expires_at": None}
            return self._retrieved(full_key, default) | ((row.times if row else unknown) if is_shown else {})

    @returns_result
    def delete(self, key: str, *, if_version: int | None = None) -> Result:
        return self._delete_alone(self._check_delete(key, if_version))

    @returns_result
    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        match: Literal["any", "all"] | None = None,
        prefix: str | None = None,
        offset: int = 0,
        explain: bool = False,
        nested: bool = False,
        refresh_ttl: bool = False,
    ) -> Result:
        contains, is_renewed = self._range(prefix, nested), check_boolean(refresh_ttl, "refresh_ttl")
        with self._open():
            result = self._searched(query, metadata_filter, limit, match, contains, offset, explain=explain)
            for entry in result["results"]:
                row = self._rows[entry["key"]]
                if is_renewed:
                    row = self._renew(row, None)
                entry |= {"version": row.version, **row.times, **self._place(row, nested)}
            return result

    def transaction(self) -> LTMTransaction:
        with self._open():
            return super().transaction()

    @returns_result
    def retrieve_many(self, keys: Iterable[str], *, times: bool = False) -> Result:
        more = {"times": times} if times is not False else {}
        with self._open():  # so that all reads see one state
            return super().retrieve_many(keys, **more)

    @returns_result
    def delete_all(self, prefix: str, *, nested: bool = False) -> Result:
        contains, deleted = self._range(check_required_prefix(prefix), nested), 0
        while True:
            try:
                with self._open():
                    batch = self._living(contains)[:_BATCH]
                    for row in batch:
                        del self._rows[row.entry.key]
            except LTMError as failure:
                raise failure.with_fields(deleted_count=deleted) from None
            deleted += len(batch)
            if len(batch) < _BATCH:
                return ok(deleted_count=deleted)

    @returns_result
    def touch(self, key: str, ttl: float | None = None) -> Result:
        full_key, lifetime = self._namespace.full_key(key), check_ttl(ttl)
        with self._open():
            row = self._row(full_key)
            renewed = row and self._renew(row, lifetime)
            return ok(key=key, found=renewed is not None, expires_at=renewed.ends if renewed else None)

    @returns_result
    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
        contains, size, last = self._range(prefix), check_limit(limit), self._namespace.after(check_after(after))
        with self._open():
            keys = [self._own(row.entry.key) for row in self._living(contains) if row.entry.key > last]
            return ok(**page_of_keys(keys[: size + 1], size))

    @returns_result
    def entries(
        self,
        prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
        order: Literal["key", "-key", "newest"] = "key",
        *,
        nested: bool = False,
    ) -> Result:
        contains, size, way = self._range(prefix, nested), check_limit(limit), check_order(order)
        shown_in = ROOT if nested else self._namespace  # whose keys are in after and next
        last = place_of(check_after_place(after), way, shown_in)
        with self._open():
            rows = self._living(contains)
            if way == "newest":
                rows.sort(key=lambda row: -row.entry.moment)
                start = (last.timestamp or datetime.max.replace(tzinfo=timezone.utc)) - EPOCH
                least = (-(start // _MICROSECOND), last.key)
                rows = [row for row in rows if (-row.entry.moment, row.entry.key) > least]
            elif way == "key":
                rows = [row for row in rows if row.entry.key > last.key]
            else:
                rows = [row for row in reversed(rows) if not last.key or row.entry.key < last.key]
            end = self._text_of(rows[size - 1], way, shown_in) if len(rows) > size else None
            return ok(entries=[self._whole(row, nested) for row in rows[:size]], next=end)

    def _text_of(self, row: Row, order: str, shown_in: Namespace) -> str:
        """Return the text for the place after a row, as ``place_of`` reads it."""
        key = row.entry.key[len(shown_in.head) :]
        time = row.updated_at.replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{time} {key}" if order == "newest" else key

    @returns_result
    def count(self, prefix: str | None = None, *, nested: bool = False) -> Result:
        contains = self._range(prefix, nested)
        with self._open():
            return ok(count=len(self._living(contains)))

    @returns_result
    def measure(self, prefix: str | None = None, *, nested: bool = False) -> Result:
        contains = self._range(prefix, nested)
        with self._open():
            rows = self._living(contains)
            return ok(
                entries=len(rows),
                bytes=sum(self.bytes_of(row) for row in rows),
                oldest=min((row.created_at for row in rows), default=None),
                newest=max((row.updated_at for row in rows), default=None),
                expired_count=sum(contains(key) and not self._lives(row) for key, row in self._rows.items()),
                waiting_count=0,
            )

    def bytes_of(self, row: Row) -> int:
        """Return how many bytes an entry has."""
        metadata = row.entry.metadata
        texts = [row.entry.key, encode_value(row.entry.value), "" if metadata is None else encode_value(metadata)]
        return sum(len(text.encode()) for text in texts)

    def iterate_all(self, prefix: str | None = None, *, nested: bool = False) -> Iterator[tuple[Any, ...]]:
        if nested is False:
            return super().iterate_all(prefix)
        items = self.iterate_entries(prefix, nested=nested)
        return iter([(item["key"], item["value"], item["metadata"], item["namespace"]) for item in items])

    def iterate_entries(self, prefix: str | None = None, *, nested: bool = False) -> Iterator[Any]:
        contains = self._range(prefix, nested)
        with self._open():
            return iter([self._whole(row, nested) for row in self._living(contains)])

    @returns_result
    def import_entries(
        self, entries: Iterable[Mapping[str, Any]], on_conflict: Literal["fail", "skip", "replace"] = "fail"
    ) -> Result:
        way, items = check_on_conflict(on_conflict), iter(check_iterable(entries, "entries"))
        counts = {"imported_count": 0, "skipped_count": 0, "replaced_count": 0}
        place = 0
        with self._open():
            pass  # fails after close, also if there are no entries
        try:
            while batch := [*islice(items, _BATCH)]:
                imports = imports_of(batch, place, rules=self._rules, namespace=self._namespace)
                with self._all_or_nothing():
                    outcomes = self._import(imports, way)
                for outcome in outcomes:
                    counts[f"{outcome}_count"] += 1
                place += len(batch)
        except LTMError as failure:
            raise failure.with_fields(**counts) from None
        return ok(**counts)

    def _import(self, imports: Sequence[Import], on_conflict: str) -> list[str]:
        """Store copies, and return for each whether it was ``imported``, ``skipped`` or ``replaced``."""
        outcomes, before = [], set[str]()
        for each in imports:
            if on_conflict == "fail" and each.key in before:  # whether it has expired or not
                raise already_there(self._own(each.key), self._rows[each.key].version)
            before.add(each.key)
            row = self._row(each.key)
            if row is not None and on_conflict == "fail":
                raise already_there(self._own(each.key), row.version)
            if row is None or on_conflict == "replace":
                self._put_copy(each)
            outcomes.append("imported" if row is None else "skipped" if on_conflict == "skip" else "replaced")
        return outcomes

    def _put_copy(self, copied: Import) -> None:
        store, now = copied.store, EPOCH + self._moment * _MICROSECOND
        metadata = None if store.metadata is None else decode(store.metadata)
        moment = ((copied.updated_at or now) - EPOCH) // _MICROSECOND
        entry = Entry(store.key, decode(store.value), metadata, moment, index=store.index)
        self._keep(Row(entry, copied.version, copied.created_at or now, ttl=store.ttl), store.expires_at)

    def namespace(self: Self, *names: str) -> Self:
        if not names:
            return self
        part = copy(self)
        part._namespace = self._namespace.below(names)
        return part

    @returns_result
    def list_namespaces(
        self,
        prefix: Sequence[str] | None = None,
        suffix: Sequence[str] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Result:
        first, last = _names(prefix, "prefix"), _names(suffix, "suffix")
        if max_depth is not None and (type(max_depth) is not int or max_depth < 1):
            raise LTMError("validation_error", "max_depth must be an integer of at least 1, or None")
        size, start = check_limit(limit), check_offset(offset)
        depth = len(self._namespace.names)
        with self._open():
            rows = self._living(self._range(nested=True))
        found: dict[tuple[str, ...], None] = {}
        for row in rows:
            names = full_keys.place_of(row.entry.key)[0][depth:]
            if names and _begins(names, first) and _begins(names[::-1], last[::-1]):
                found[names[:max_depth]] = None
        namespaces = [*found][start : start + size]
        return ok(namespaces=namespaces, count=len(namespaces))

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        size = check_batch_size(batch_size)
        with self._open():
            expired = [key for key, row in self._rows.items() if not self._lives(row)]
            expired.sort(key=lambda key: (self._rows[key].expires, key))
            for key in expired[:size]:
                del self._rows[key]
            return ok(deleted_count=len(expired[:size]), remaining_count=len(expired[size:]))

    def close(self) -> None:
        if not self._namespace.head:
            super().close()

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        with self._all_or_nothing():
            return [self._put(each) if isinstance(each, Store) else self._remove(each) for each in operations]

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Begin a transaction that stores. If the block fails, nothing has changed."""
        with self._open():
            before = dict(self._rows)
            self._moment += 1
            try:
                yield
            except LTMError:
                self._rows.clear()
                self._rows.update(before)
                raise

    def _renew(self, row: Row, ttl: timedelta | None) -> Row:
        lifetime = row.ttl if ttl is None else ttl
        if lifetime is not None:
            self._keep(replace(row, ttl=lifetime), self._time + lifetime)
        return self._rows[row.entry.key]

    def _range(self, prefix: str | None = None, nested: bool = False) -> Contains:
        """Check the arguments, and return a function that returns whether a full key is in the range."""
        self._namespace.key_range(prefix, nested=check_boolean(nested, "nested"))
        own, begin = self._namespace.names, prefix or ""
        if not own:
            return lambda full_key: full_key.startswith(begin)

        def contains(full_key: str) -> bool:
            names, key = full_keys.place_of(full_key)
            return names[: len(own)] == own if nested else names == own and key.startswith(begin)

        return contains

    def _whole(self, row: Row, nested: bool) -> dict[str, Any]:
        entry = {"value": fresh(row.entry.value), "metadata": fresh(row.entry.metadata), "version": row.version}
        ttl = None if row.ttl is None else row.ttl / timedelta(seconds=1)
        whole = {"key": "", **entry, **row.times, "ttl": ttl, "index": row.entry.index}
        return {**whole, **self._place(row, nested)}

    def _place(self, row: Row, nested: bool) -> dict[str, Any]:
        """Return the key by which this memory shows a row, and with ``nested`` its namespace."""
        if not nested:
            return {"key": self._own(row.entry.key)}
        names, key = full_keys.place_of(row.entry.key)
        return {"key": key, "namespace": names[len(self._namespace.names) :]}


def _names(names: Any, what: str) -> tuple[str, ...]:
    """Check an argument of ``list_namespaces``."""
    if names is not None and not isinstance(names, (list, tuple)):
        raise LTMError("validation_error", f"{what} must be a tuple of names")
    try:
        return Namespace.of(names or ()).names
    except LTMError as failure:
        raise failure.within(what) from None


def _begins(names: Sequence[str], begin: Sequence[str]) -> bool:
    return len(begin) <= len(names) and all(wanted in ("*", name) for wanted, name in zip(begin, names, strict=False))
