"""Other libraries that store entries; each is measured with the operations that it has.

None of them has a text index, versions, or metadata beside the value, so the metadata is stored in the value. All write
as durably as they can: those on SQLite use WAL, and a put has written to the file when it returns.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from benchmarks.player import Content, Player, Row
from benchmarks.workload import Entry

_NAMESPACE: Final = ("benchmark",)
_TEN: Final = 10


class LangGraphStore(Player):
    """The common code of LangGraph's stores on SQLite and on PostgreSQL."""

    is_ordered = False
    _store: Any

    def put(self, entry: Entry) -> None:
        """See the base class."""
        self._store.put(_NAMESPACE, entry.key, _together(entry))

    def get(self, key: str) -> Content | None:
        """See the base class."""
        item = self._store.get(_NAMESPACE, key)
        return item and _apart(item.value)

    def put_many(self, entries: Sequence[Entry]) -> int:
        """See the base class."""
        return len(self._store.batch([self._put_op(_NAMESPACE, entry.key, _together(entry)) for entry in entries]))

    def retrieve_many(self, keys: Sequence[str]) -> Mapping[str, Content]:
        """See the base class."""
        items = self._store.batch([self._get_op(_NAMESPACE, key) for key in keys])
        return {item.key: _apart(item.value) for item in items if item}

    def filter(self, name: str, value: str) -> list[Row]:
        """See the base class."""
        items = self._store.search(_NAMESPACE, filter={name: value}, limit=_TEN)
        return [(item.key, *_apart(item.value)) for item in items]

    def delete_many(self, keys: Sequence[str]) -> None:
        """See the base class."""
        self._store.batch([self._put_op(_NAMESPACE, key, None) for key in keys])

    def _load(self) -> None:
        base = import_module("langgraph.store.base")
        self._put_op, self._get_op = base.PutOp, base.GetOp


class LangGraphSQLite(LangGraphStore):
    """LangGraph's ``SqliteStore`` on one connection, which threads use in turn."""

    def __init__(self, place: str) -> None:
        """Open a file."""
        self._load()
        self._connection = sqlite3.connect(place, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._store = import_module("langgraph.store.sqlite").SqliteStore(self._connection)
        self._store.setup()

    def close(self) -> None:
        """See the base class."""
        self._connection.close()


class LangGraphPostgres(LangGraphStore):
    """LangGraph's ``PostgresStore`` on psycopg's pool."""

    def __init__(self, place: str) -> None:
        """Open a URL."""
        self._load()
        url = place.replace("+psycopg://", "://")
        kwargs = {"autocommit": True, "row_factory": import_module("psycopg.rows").dict_row}
        pool = import_module("psycopg_pool").ConnectionPool
        self._pool = pool(url, kwargs=kwargs, min_size=1, max_size=10, open=True)
        self._store = import_module("langgraph.store.postgres").PostgresStore(self._pool)
        self._store.setup()

    def close(self) -> None:
        """See the base class."""
        self._pool.close()


class DiskCache(Player):
    """diskcache's ``Cache``, with options so that it evicts nothing."""

    def __init__(self, place: str) -> None:
        """Open a folder."""
        self._cache = import_module("diskcache").Cache(place, eviction_policy="none", size_limit=2**40)

    def put(self, entry: Entry) -> None:
        """See the base class."""
        self._cache.set(entry.key, _together(entry), retry=True)

    def get(self, key: str) -> Content | None:
        """See the base class."""
        value = self._cache.get(key, retry=True)
        return value and _apart(value)

    def put_many(self, entries: Sequence[Entry]) -> int:
        """See the base class."""
        with self._cache.transact(retry=True):
            return sum(self._cache.set(entry.key, _together(entry)) for entry in entries)

    def scan(self) -> Iterator[Row]:
        """See the base class."""
        return ((key, *_apart(self._cache[key])) for key in self._cache.iterkeys())

    def delete_many(self, keys: Sequence[str]) -> None:
        """See the base class."""
        with self._cache.transact(retry=True):
            for key in keys:
                self._cache.delete(key)

    def close(self) -> None:
        """See the base class."""
        self._cache.close()


class SqliteDict(Player):
    """sqlitedict's ``SqliteDict`` with JSON for values, in WAL; it sets ``synchronous=OFF`` itself."""

    def __init__(self, place: str) -> None:
        """Open a file."""
        open_dict = import_module("sqlitedict").SqliteDict
        self._dict = open_dict(place, journal_mode="WAL", encode=json.dumps, decode=json.loads)

    def put(self, entry: Entry) -> None:
        """See the base class."""
        self._dict[entry.key] = _together(entry)
        self._dict.commit()

    def get(self, key: str) -> Content | None:
        """See the base class."""
        value = self._dict.get(key)
        return value and _apart(value)

    def put_many(self, entries: Sequence[Entry]) -> int:
        """See the base class."""
        self._dict.update({entry.key: _together(entry) for entry in entries})
        self._dict.commit()
        return len(entries)

    def scan(self) -> Iterator[Row]:
        """See the base class."""
        return ((key, *_apart(value)) for key, value in self._dict.items())

    def delete_many(self, keys: Sequence[str]) -> None:
        """See the base class."""
        for key in keys:
            self._dict.pop(key, None)
        self._dict.commit()

    def close(self) -> None:
        """See the base class."""
        self._dict.close()


def _together(entry: Entry) -> dict[str, Any]:
    return {"value": entry.value, **entry.metadata}


def _apart(stored: Mapping[str, Any]) -> Content:
    return stored["value"], {name: value for name, value in stored.items() if name != "value"}
