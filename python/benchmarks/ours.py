"""Our backends as contenders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from benchmarks.player import Content, Player, Row, Scored
from benchmarks.workload import Entry
from the_edge_agent.memory import LTMBackend
from the_edge_agent.memory.core.results import Result, succeeded


class Ours(Player):
    """A backend, and the catalog of the same database, which is opened when it is needed."""

    backend_name: ClassVar[str]
    catalog_name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, place: str) -> None:
        """Open the backend."""
        import the_edge_agent.memory as memory

        self._backend: LTMBackend = getattr(memory, self.backend_name)(place, **self.options)
        self._open_catalog: Callable[[], Any] = lambda: getattr(memory, self.catalog_name)(place)
        self._catalog: Any = None
        self._lock = threading.Lock()

    def put(self, entry: Entry) -> int:
        """See the base class."""
        version: int = succeeded(self._backend.store(entry.key, entry.value, entry.metadata))["version"]
        return version

    def get(self, key: str) -> Content | None:
        """See the base class."""
        result = succeeded(self._backend.retrieve(key))
        return (result["value"], result["metadata"]) if result["found"] else None

    def put_many(self, entries: Sequence[Entry]) -> int:
        """See the base class."""
        stores = [{"key": entry.key, "value": entry.value, "metadata": entry.metadata} for entry in entries]
        count: int = succeeded(self._backend.store_many(stores))["stored_count"]
        return count

    def retrieve_many(self, keys: Sequence[str]) -> Mapping[str, Content]:
        """See the base class."""
        entries = succeeded(self._backend.retrieve_many(keys))["entries"]
        return {key: (entry["value"], entry["metadata"]) for key, entry in entries.items() if entry}

    def search(self, word: str) -> list[Scored]:
        """See the base class."""
        return _scored(self._backend.search(word, match="all"))

    def question(self, question: str) -> list[Scored]:
        """See the base class."""
        return _scored(self._backend.search(question))

    def filter(self, name: str, value: str) -> list[Row]:
        """See the base class."""
        results = succeeded(self._backend.search(metadata_filter={name: value}))["results"]
        return [(entry["key"], entry["value"], entry["metadata"]) for entry in results]

    def list_keys(self, after: str, limit: int) -> list[str]:
        """See the base class."""
        keys: list[str] = succeeded(self._backend.list_keys(limit=limit, after=after))["keys"]
        return keys

    def scan(self) -> Iterator[Row]:
        """See the base class."""
        return self._backend.iterate_all()

    def delete_many(self, keys: Sequence[str]) -> None:
        """See the base class."""
        succeeded(self._backend.delete_many(keys))

    def track(self, entry: Entry, content_hash: str) -> bool:
        """See the base class."""
        size, catalog = len(entry.value["text"]), self._of_catalog()
        created: bool = succeeded(catalog.track_entry(entry.key, content_hash, None, size, entry.metadata))["created"]
        return created

    def snapshot(self) -> str:
        """See the base class."""
        snapshot: str = self._of_catalog().create_snapshot("benchmark")
        return snapshot

    def changes(self, snapshot: str) -> list[str]:
        """See the base class."""
        return [entry["key"] for entry in self._of_catalog().get_changed_entries(snapshot)]

    def delete_snapshot(self, snapshot: str) -> None:
        """See the base class."""
        self._of_catalog().delete_snapshot(snapshot)

    def close(self) -> None:
        """See the base class."""
        self._backend.close()
        if self._catalog is not None:
            self._catalog.close()

    def _of_catalog(self) -> Any:
        if self._catalog is None:
            with self._lock:
                self._catalog = self._catalog or self._open_catalog()
        return self._catalog


def _scored(result: Result) -> list[Scored]:
    return [(entry["key"], entry["value"], entry["metadata"], entry["score"]) for entry in succeeded(result)["results"]]


class OursOnSQLAlchemy(Ours):
    """``SQLAlchemyBackend`` on any database, with the default options."""

    backend_name, catalog_name = "SQLAlchemyBackend", "SQLAlchemyCatalog"

    def __init__(self, place: str) -> None:
        """Open a URL, or the path of an SQLite file."""
        super().__init__(place if "://" in place else f"sqlite:///{place}")


class OursOnSQLite(Ours):
    """``SQLiteBackend``, with the default options."""

    backend_name, catalog_name = "SQLiteBackend", "SQLiteCatalog"


class OursOnPostgres(Ours):
    """``PostgresBackend``, with the default options."""

    backend_name, catalog_name = "PostgresBackend", "PostgresCatalog"

    def __init__(self, place: str) -> None:
        """Open a URL, without the name of the driver that SQLAlchemy needs."""
        super().__init__(place.replace("+psycopg://", "://"))


class WithoutSearch(Ours):
    """A backend without a text index; the benchmarks do not search it for words."""

    options: ClassVar[Mapping[str, Any]] = {"search": False}
    search, question = Player.search, Player.question


class OursOnSQLAlchemyWithoutSearch(WithoutSearch, OursOnSQLAlchemy):
    """``SQLAlchemyBackend`` without a text index."""


class OursOnSQLiteWithoutSearch(WithoutSearch, OursOnSQLite):
    """``SQLiteBackend`` without a text index."""


class OursOnPostgresWithoutSearch(WithoutSearch, OursOnPostgres):
    """``PostgresBackend`` without a text index."""
