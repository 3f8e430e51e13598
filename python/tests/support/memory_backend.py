"""Backends in RAM, to test the contract kit: one with only the five methods, and one with every capability."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar, Literal

from the_edge_agent.memory import LTMBackend, LTMError, LTMTransaction
from the_edge_agent.memory.core.codec import decode
from the_edge_agent.memory.core.operations import Delete, Operation, Store
from the_edge_agent.memory.core.query import parse_query
from the_edge_agent.memory.core.results import Result, conflict, ok, returns_result
from the_edge_agent.memory.core.validation import check_batch_size, check_key, check_limit, check_offset, check_prefix
from the_edge_agent.testing.model import Entry, Model, explained


@dataclass(frozen=True)
class Row:
    """A stored entry; ``expires`` is a time of the monotonic clock."""

    entry: Entry
    version: int
    expires: float | None = None
    ends: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


def fresh(value: Any) -> Any:
    """Return a copy of a JSON value. Unlike ``copy.deepcopy``, this also works for very deep values."""
    return json.loads(json.dumps(value))


def _whole(row: Row) -> dict[str, Any]:
    entry = {"key": row.entry.key, "value": fresh(row.entry.value), "metadata": fresh(row.entry.metadata)}
    times = {"created_at": row.created_at, "updated_at": row.updated_at, "expires_at": row.ends}
    return {**entry, "version": row.version, **times}


class FiveMethods(LTMBackend):
    """The five methods that a third party must write, with a dict; all other methods are those of the base class."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._moment = 0
        self._now, self._time = 0.0, datetime.now(timezone.utc)
        self._turn = threading.RLock()
        self._closed = False

    @returns_result
    def store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: float | None = None,
        if_version: int | None = None,
        expires_at: datetime | None = None,
    ) -> Result:
        store = self.check_store(key, value, metadata, ttl=ttl, if_version=if_version, expires_at=expires_at)
        with self._open():
            self._moment += 1
            return self._put(store)

    @returns_result
    def retrieve(self, key: str, default: Any = None) -> Result:
        check_key(key)
        with self._open():
            row = self._row(key)
            if row is None:
                return ok(value=default, found=False, metadata=None, version=None)
            return ok(value=fresh(row.entry.value), found=True, metadata=fresh(row.entry.metadata), version=row.version)

    @returns_result
    def delete(self, key: str) -> Result:
        delete = Delete.of(key)
        with self._open():
            return self._remove(delete)

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
    ) -> Result:
        way = self.check_match(match, explain=explain)
        limit, prefix, offset = check_limit(limit), check_prefix(prefix), check_offset(offset)
        with self._open():
            model = Model()
            model.entries = {key: row.entry for key, row in self._rows.items() if self._lives(row)}
            search = model.search if way == "all" else model.ask
            result = search(query, metadata_filter, limit, prefix=prefix, offset=offset)
            results = [fresh(entry) for entry in result["results"]]
            if explain:
                parsed = parse_query(query, way)
                terms = [term for term in parsed.terms if not term.negated]
                weights = dict.fromkeys(terms, 1.0) if parsed.words is None else model.rarities(parsed.words, prefix)
                results = [
                    {**entry, "explain": explained(model.entries[entry["key"]].indexed, weights)} for entry in results
                ]
            return ok(results=results, count=result["count"])

    def close(self) -> None:
        self._closed = True

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Take the lock and read the clocks, so that a whole call uses one time."""
        with self._turn:
            if self._closed:
                raise LTMError("connection_error", "this backend is closed")
            self._now, self._time = time.monotonic(), datetime.now(timezone.utc)
            yield

    def _lives(self, row: Row) -> bool:
        return row.expires is None or self._now < row.expires

    def _row(self, key: str) -> Row | None:
        row = self._rows.get(key)
        return row if row is not None and self._lives(row) else None

    def _put(self, store: Store) -> Result:
        row = self._row(store.key)
        version = row.version if row else 0
        if store.if_version not in (None, version):
            raise conflict(store.key, version)
        metadata = None if store.metadata is None else decode(store.metadata)
        entry = Entry(store.key, decode(store.value), metadata, self._moment)
        now = self._time
        ends = store.expires_at if store.ttl is None else now + store.ttl
        expires = None if ends is None else self._now + (ends - now).total_seconds()
        self._rows[store.key] = Row(entry, version + 1, expires, ends, row.created_at if row else now, now)
        return ok(stored=True, key=store.key, created=version == 0, version=version + 1)

    def _remove(self, delete: Delete) -> Result:
        there = self._row(delete.key) is not None
        if there:
            del self._rows[delete.key]
        return ok(deleted=there, key=delete.key)


class MemoryBackend(FiveMethods):
    """A backend with every capability, with a dict."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"transactions", "ttl", "versions", "times", "match"})  # type: ignore[misc]

    def transaction(self) -> LTMTransaction:
        with self._open():
            return super().transaction()

    def iterate_entries(self, prefix: str | None = None) -> Iterator[dict[str, Any]]:
        beginning = check_prefix(prefix)
        with self._open():
            rows = [(key, row) for key, row in sorted(self._rows.items()) if self._lives(row)]
        return iter([_whole(row) for key, row in rows if key.startswith(beginning)])

    @returns_result
    def retrieve_many(self, keys: Iterable[str]) -> Result:
        with self._open():  # so that all reads see one state
            return super().retrieve_many(keys)

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        size = check_batch_size(batch_size)
        with self._open():
            expired = [key for key, row in self._rows.items() if not self._lives(row)]
            expired.sort(key=lambda key: (self._rows[key].expires, key))
            for key in expired[:size]:
                del self._rows[key]
            return ok(deleted_count=len(expired[:size]), remaining_count=len(expired[size:]))

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        with self._open():
            before = dict(self._rows)
            self._moment += 1
            try:
                return [self._put(each) if isinstance(each, Store) else self._remove(each) for each in operations]
            except LTMError:
                self._rows = before
                raise
