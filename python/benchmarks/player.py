"""The methods that a contender may have; it leaves out those that it cannot support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from benchmarks.workload import Entry

Content: TypeAlias = tuple[Any, Any]  # value and metadata
Row: TypeAlias = tuple[str, Any, Any]  # key, value and metadata
Scored: TypeAlias = tuple[str, Any, Any, float]  # key, value, metadata and score


class Player:
    """A memory that is measured. If a subclass does not override a method, it does not support the operation.

    The argument is a place: the path of a file, or the URL of a database. The constructor creates the tables.
    """

    #: Whether filters return the newest entries first, then by key; otherwise any ten matches are right.
    is_ordered: ClassVar[bool] = True

    def __init__(self, place: str) -> None:
        """Open the place."""
        raise NotImplementedError

    @classmethod
    def can(cls, method: str) -> bool:
        """Return whether the class supports a method."""
        return getattr(cls, method) is not getattr(Player, method, None)

    def put(self, entry: Entry) -> int | None:
        """Store an entry durably and return its version; None if the library has no versions."""
        raise NotImplementedError

    def get(self, key: str) -> Content | None:
        """Return value and metadata of a key, None if it does not exist."""
        raise NotImplementedError

    def put_many(self, entries: Sequence[Entry]) -> int:
        """Store entries in one transaction, and return how many were stored."""
        raise NotImplementedError

    def retrieve_many(self, keys: Sequence[str]) -> Mapping[str, Content]:
        """Return value and metadata of the keys that exist."""
        raise NotImplementedError

    def search(self, word: str) -> list[Scored]:
        """Return the ten entries with the highest scores for a word, among the newest 1,000 that contain it."""
        raise NotImplementedError

    def question(self, question: str) -> list[Scored]:
        """Return the ten entries with the highest scores for the words of a question; an entry may lack some words."""
        raise NotImplementedError

    def filter(self, name: str, value: str) -> list[Row]:
        """Return the ten newest entries whose metadata has this value under this name."""
        raise NotImplementedError

    def list_keys(self, after: str, limit: int) -> list[str]:
        """Return the next keys after a key, in order."""
        raise NotImplementedError

    def scan(self) -> Iterator[Row]:
        """Yield all entries in the order of their keys."""
        raise NotImplementedError

    def delete_many(self, keys: Sequence[str]) -> None:
        """Delete keys; every contender supports this."""
        raise NotImplementedError

    def track(self, entry: Entry, content_hash: str) -> bool:
        """Track an entry in the catalog, and return whether it is new there."""
        raise NotImplementedError

    def snapshot(self) -> str:
        """Create a snapshot of the catalog, and return its id."""
        raise NotImplementedError

    def changes(self, snapshot: str) -> list[str]:
        """Return the keys that have changed in the catalog since a snapshot; their whole records must be read."""
        raise NotImplementedError

    def delete_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all connections."""
        raise NotImplementedError
