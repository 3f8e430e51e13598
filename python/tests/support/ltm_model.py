"""The model with which the state machine compares databases: a memory in a dict, which returns the right answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from the_edge_agent.memory.core.results import Result
from the_edge_agent.testing.model import Entry, Model

Call: TypeAlias = tuple[str, dict[str, Any]]
"""One operation of a transaction: ``("store", {"key": ..., "value": ...})`` or ``("delete", {"key": ...})``."""


@dataclass(frozen=True)
class Row:
    """An entry of the model. An expired one stays until it is cleaned up."""

    entry: Entry
    version: int
    mortal: bool
    expired: bool = False


class ConflictError(Exception):
    """The ``if_version`` is not the version of the entry; ``args`` are the key and the version that the entry has."""


class LTMModel:
    """A memory whose methods take valid arguments of ``LTMBackend``, and return what a backend must return.

    A failure has no text here, only its type and its further fields.
    """

    def __init__(self) -> None:
        """Create an empty memory."""
        self._rows: dict[str, Row] = {}
        self._moment = 0

    @property
    def has_mortals(self) -> bool:
        """Whether an entry has a lifetime that has not ended."""
        return any(row.mortal and not row.expired for row in self._rows.values())

    @property
    def has_expired(self) -> bool:
        """Whether an entry has expired and is not cleaned up yet."""
        return any(row.expired for row in self._rows.values())

    def version(self, key: str) -> int:
        """Return the version of an entry, 0 if there is none."""
        row = self._rows.get(key)
        return row.version if row is not None and not row.expired else 0

    def time_passes(self) -> None:
        """Let every entry that has a lifetime expire."""
        self._rows = {key: replace(row, expired=row.mortal) for key, row in self._rows.items()}

    def store(self, key: str, value: Any, metadata: dict[str, Any] | None = None, **options: Any) -> Result:
        return self._alone("store", key=key, value=value, metadata=metadata, **options)

    def delete(self, key: str) -> Result:
        return self._alone("delete", key=key)

    def retrieve(self, key: str, default: Any = None) -> Result:
        if not self.version(key):
            return {"success": True, "value": default, "found": False, "metadata": None, "version": None}
        row = self._rows[key]
        fields = {"value": row.entry.value, "found": True, "metadata": row.entry.metadata, "version": row.version}
        return {"success": True, **fields}

    def search(
        self, query: str | None = None, metadata_filter: Any = None, limit: int = 10, match: str = "any", **options: Any
    ) -> Result:
        oracle = Model()
        oracle.entries = {row.entry.key: row.entry for row in self._alive()}
        return (oracle.ask if match == "any" else oracle.search)(query, metadata_filter, limit, **options)

    def store_many(self, entries: Iterable[Mapping[str, Any]]) -> Result:
        results = self.commit([("store", dict(entry)) for entry in entries])["results"]
        shown = [{name: result[name] for name in ("key", "created", "version")} for result in results]
        return {"success": True, "stored_count": len(shown), "results": shown}

    def retrieve_many(self, keys: Iterable[str]) -> Result:
        by_key = {key: self.retrieve(key) for key in keys}
        entries = {
            key: {name: result[name] for name in ("value", "metadata", "version")} if result["found"] else None
            for key, result in by_key.items()
        }
        there = sum(result["found"] for result in by_key.values())
        return {"success": True, "entries": entries, "found_count": there, "missing_count": len(by_key) - there}

    def delete_many(self, keys: Iterable[str]) -> Result:
        results = self.commit([("delete", {"key": key}) for key in set(keys)])["results"]
        return {"success": True, "deleted_count": sum(result["deleted"] for result in results)}

    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
        keys = [row.entry.key for row in self._alive(prefix) if row.entry.key > (after or "")]
        return {"success": True, "keys": keys[:limit], "next": keys[limit - 1] if len(keys) > limit else None}

    def count(self, prefix: str | None = None) -> Result:
        return {"success": True, "count": sum(1 for _ in self._alive(prefix))}

    def iterate_all(self, prefix: str | None = None) -> list[Any]:
        return [(row.entry.key, row.entry.value, row.entry.metadata) for row in self._alive(prefix)]

    def cleanup_expired(self, batch_size: int = 100) -> Result:
        expired = [key for key, row in self._rows.items() if row.expired]
        for key in expired[:batch_size]:  # a database may choose others, but no call shows which ones
            del self._rows[key]
        deleted = min(batch_size, len(expired))
        return {"success": True, "deleted_count": deleted, "remaining_count": len(expired) - deleted}

    def commit(self, calls: Sequence[Call]) -> Result:
        """Run all operations of a transaction, or none; entries that are stored together are equally new."""
        before = dict(self._rows)
        self._moment += 1
        results: list[Result] = []
        try:
            for name, arguments in calls:
                results.append(self._store(**arguments) if name == "store" else self._delete(**arguments))
        except ConflictError as conflict:
            self._rows = before
            key, version = conflict.args
            return {"success": False, "error_type": "conflict", "key": key, "version": version}
        return {"success": True, "operations": len(calls), "results": results}

    def _alone(self, name: str, **arguments: Any) -> Result:
        result = self.commit([(name, arguments)])
        only: Result = result["results"][0] if result["success"] else result
        return only

    def _store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        ttl: float | None = None,
        if_version: int | None = None,
    ) -> Result:
        version = self.version(key)
        if if_version not in (None, version):
            raise ConflictError(key, version)
        self._rows[key] = Row(Entry(key, value, metadata, self._moment), version + 1, mortal=ttl is not None)
        return {"success": True, "stored": True, "key": key, "created": version == 0, "version": version + 1}

    def _delete(self, key: str) -> Result:
        deleted = self.version(key) > 0
        if deleted:
            del self._rows[key]
        return {"success": True, "deleted": deleted, "key": key}

    def _alive(self, prefix: str | None = None) -> Iterator[Row]:
        rows = (self._rows[key] for key in sorted(self._rows))
        return (row for row in rows if not row.expired and row.entry.key.startswith(prefix or ""))
