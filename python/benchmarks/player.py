"""What a contender can be asked to do; it leaves out what it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from benchmarks.workload import Entry

Found: TypeAlias = tuple[Any, Any]  # value and metadata
Row: TypeAlias = tuple[str, Any, Any]  # key, value and metadata
Scored: TypeAlias = tuple[str, Any, Any, float]  # key, value, metadata and score


class Player:
    """A memory that is measured. A method that a subclass does not provide is one that it cannot do.

    Constructed with a place: the path of a file, or the URL of a database. Its tables are made then.
    """

    #: Whether filters answer newest first, then by key; otherwise any ten that fit are right.
    is_ordered: ClassVar[bool] = True

    def __init__(self, place: str) -> None:
        """Open it."""
        raise NotImplementedError

    @classmethod
    def can(cls, method: str) -> bool:
        """Return whether it provides a method."""
        return getattr(cls, method) is not getattr(Player, method, None)

    def put(self, entry: Entry) -> int | None:
        """Store an entry durably and return its version, None if it keeps none."""
        raise NotImplementedError

    def get(self, key: str) -> Found | None:
        """Return what is at a key."""
        raise NotImplementedError

    def put_many(self, entries: Sequence[Entry]) -> int:
        """Store entries in one transaction and return how many."""
        raise NotImplementedError

    def retrieve_many(self, keys: Sequence[str]) -> Mapping[str, Found]:
        """Return what is at keys."""
        raise NotImplementedError

    def search(self, word: str) -> list[Scored]:
        """Return the ten entries that rank best for a word, among the newest 1,000 that have it."""
        raise NotImplementedError

    def question(self, question: str) -> list[Scored]:
        """Return the ten entries that rank best for some of the words of a question."""
        raise NotImplementedError

    def filter(self, name: str, value: str) -> list[Row]:
        """Return the ten newest entries whose metadata has a value."""
        raise NotImplementedError

    def list_keys(self, after: str, limit: int) -> list[str]:
        """Return the next keys in order."""
        raise NotImplementedError

    def scan(self) -> Iterator[Row]:
        """Yield all entries by key."""
        raise NotImplementedError

    def delete_many(self, keys: Sequence[str]) -> None:
        """Delete what is at keys; every contender can."""
        raise NotImplementedError

    def track(self, entry: Entry, content_hash: str) -> bool:
        """Note an entry in the catalog and return whether it is new there."""
        raise NotImplementedError

    def snapshot(self) -> str:
        """Keep what the catalog holds and return the snapshot's id."""
        raise NotImplementedError

    def changes(self, snapshot: str) -> list[str]:
        """Return the keys of what has changed in the catalog since a snapshot, with all that is known of them."""
        raise NotImplementedError

    def delete_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot."""
        raise NotImplementedError

    def close(self) -> None:
        """Release everything."""
        raise NotImplementedError
