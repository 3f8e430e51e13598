"""How a write is recognised later, when the connection was lost before anybody told whether it was committed.

Each row keeps the ``write_id`` of the write that it comes from. When the reply to the COMMIT of a transaction A is
lost, a look at the rows tells what became of A:

1. A row has A's ``write_id``. Then A was committed, because a transaction is committed as a whole.
2. A would have replaced or deleted a row, and the row comes from a write B that was committed before A began. Then A
   was not committed: it would have written after B. There are two ways to know that B was so early:

   - This memory has written B, and that call had returned when A's call began.
   - B's ``updated_at`` is older than the beginning of A's call, by more than the longest time that a transaction
     takes. ``updated_at`` is the time at which B began. So a row that is only older than A's call proves nothing: B
     may have begun before A, waited for A, and replaced what A wrote.

3. There is no row, and A only stores, whatever is there. Then A is run again. Nearly always it had never arrived; else
   somebody has deleted its entries in that very moment, and they are there again. A store with ``if_version`` is not
   run again.
4. In all other cases nobody can tell, and the answer says ``unknown: True``.

A statement may also arrive late: after its call has ended, and after another store was acknowledged, which it then
overwrites. ``if_version`` rules that out. A condition on the server's time in each statement would do so too, but is
not free: it made a statement of 77 microseconds one of 93 on PostgreSQL, and one of 68 one of 90 on MySQL.

The look waits for those who have locked a row, so it waits for A too, if the server still works on A. When A is run
again it has the same ``write_id``: if the first run is committed after all, the row keeps its version.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from threading import RLock
from typing import Final, NamedTuple, TypeVar

from the_edge_agent.memory.core.operations import Delete, Operation, Store, is_unconditional
from the_edge_agent.memory.core.results import LTMError, Result

Answer = TypeVar("Answer")

_USUAL: Final = 30.0  # seconds: a memory with a shorter timeout may share its table with others that have the default
_OVERRUN: Final = 1.0  # second by which a call may outlast its timeout
_FIRST_PAUSE: Final = 0.02  # seconds between two attempts to reach the database; doubled with each
_LONGEST_PAUSE: Final = 0.5
_REMEMBERED: Final = 256  # writes whose end is not known, before the oldest are forgotten


class Seen(NamedTuple):
    """A row as it was found after a connection was lost.

    Attributes:
        key: of the entry.
        version: of the entry.
        write_id: of the write that it comes from, None if that had none.
        age: the time since its ``updated_at``, by the server's clock; None if that is no time.
        is_expired: whether the entry has expired.
    """

    key: str
    version: int
    write_id: str | None
    age: timedelta | None
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction has written, if it was committed.

    Attributes:
        stored: the keys that it has stored.
        deleted: the keys that it has deleted.
        is_unconditional: whether it only stored, whatever was there.
        of_expired: whether it deleted what had expired, and not what had not.
    """

    stored: Collection[str] = ()
    deleted: Collection[str] = ()
    is_unconditional: bool = False
    of_expired: bool = False

    @classmethod
    def of(cls, operations: Sequence[Operation], results: Sequence[Result]) -> Change:
        """Return the change that operations with these results have made."""
        stored = {each.key for each in operations if isinstance(each, Store)}
        pairs = zip(operations, results, strict=True)
        deleted = {each.key for each, result in pairs if isinstance(each, Delete) and result["deleted"]}
        return cls(stored, deleted - stored, all(map(is_unconditional, operations)))

    @property
    def keys(self) -> list[str]:
        """The keys of the rows that tell of it, in order."""
        return sorted({*self.stored, *self.deleted})


class Write:
    """One write of a memory, and those that were under way when it began.

    Attributes:
        id: its ``write_id``.
    """

    def __init__(self, writer: Writer, number: int, under_way: Collection[int]) -> None:
        """Begin it; called by ``Writer.begin``."""
        self._writer, self._number, self._under_way = writer, number, under_way
        self._begun = time.monotonic()
        self.id = f"{writer.name}-{number:x}"

    def of(self, place: int) -> str:
        """Return the ``write_id`` of one operation, where a transaction may write a row more than once."""
        return f"{self.id}.{place:x}"

    def settled(
        self,
        attempt: Callable[[], Answer],
        change: Callable[[], Change],
        look: Callable[[Sequence[str]], Sequence[Seen]],
        done: Callable[[Sequence[Seen]], Answer],
    ) -> Answer:
        """Return the answer of ``attempt``, which runs the transaction.

        Args:
            attempt: runs it; called again if it turns out that nothing was written.
            change: tells what it has written.
            look: returns the rows at keys, those that are there; it waits for those who are writing them.
            done: returns the answer of an attempt that was committed, with these rows.

        Raises:
            LTMError: of ``attempt``, with ``unknown: True`` if nobody can tell what became of it.
        """
        while True:
            try:
                answer = attempt()
            except LTMError as failure:
                if "unknown" not in failure.result:
                    self._end()
                    raise
                unknown = failure
            else:
                self._end()
                return answer
            changed = change()
            rows = self._looked(look, changed.keys, unknown)
            is_done = self._is_done(changed, rows)
            if is_done is None:
                raise unknown
            if is_done:
                self._end()
                return done(rows)

    def _looked(
        self, look: Callable[[Sequence[str]], Sequence[Seen]], keys: Sequence[str], unknown: LTMError
    ) -> Sequence[Seen]:
        """Look at the rows; a server that restarts has all of the call's time to come back."""
        pause = _FIRST_PAUSE
        while keys:
            try:
                return look(keys)
            except LTMError as failure:
                is_over = time.monotonic() - self._begun + pause > self._writer.timeout
                if failure.error_type != "connection_error" or is_over:
                    raise unknown from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return ()

    def _is_done(self, change: Change, rows: Sequence[Seen]) -> bool | None:
        """Return whether the transaction was committed, None if nobody can tell."""
        if not change.keys or any(self._wrote(row) for row in rows):
            return True
        if any(self._is_before(row) and self._would_be_gone(change, row) for row in rows):
            return False
        return False if change.is_unconditional and not rows else None

    def _wrote(self, row: Seen) -> bool:
        return row.write_id is not None and row.write_id.partition(".")[0] == self.id

    def _is_before(self, row: Seen) -> bool:
        """Return whether a row was surely committed before this write began."""
        name, _, number = (row.write_id or "").partition(".")[0].partition("-")
        if name == self._writer.name:
            written = int(number, 16)
            if written < self._number and written not in self._under_way:
                return True
        elapsed = timedelta(seconds=time.monotonic() - self._begun + self._writer.longest)
        return row.age is not None and row.age > elapsed

    @staticmethod
    def _would_be_gone(change: Change, row: Seen) -> bool:
        """Return whether a row would not be there any more: what had expired a delete has left alone."""
        return row.key in change.stored or row.is_expired == change.of_expired

    def _end(self) -> None:
        self._writer.end(self._number)


class Writer:
    """Numbers the writes of one memory in one process. Safe for many threads, and inside signal handlers.

    Attributes:
        name: of this memory in this process, which is in all of its write ids.
        timeout: seconds that a call may take.
        longest: seconds that a transaction may take, of this memory or of another one on the same table.
    """

    def __init__(self, timeout: float) -> None:
        """Number from 1 on."""
        self.name = uuid.uuid4().hex[:16]
        self.timeout = timeout
        self.longest = max(timeout, _USUAL) + _OVERRUN
        self._number = 0
        self._under_way: dict[int, float] = {}  # and since when
        self._lock = RLock()

    def begin(self) -> Write:
        """Return a new write."""
        with self._lock:
            if len(self._under_way) > _REMEMBERED:
                self._forget()
            self._number = number = self._number + 1
            under_way = frozenset(self._under_way)
            self._under_way[number] = time.monotonic()
        return Write(self, number, under_way)

    def end(self, number: int) -> None:
        """Note that it is known what became of a write."""
        with self._lock:
            self._under_way.pop(number, None)

    def _forget(self) -> None:
        """Forget writes of which nobody knows what became of them, and whose calls ended long ago."""
        longest_ago = time.monotonic() - 2 * self.longest
        self._under_way = {number: begun for number, begun in self._under_way.items() if begun > longest_ago}


def version_of(rows: Iterable[Seen]) -> int:
    """Return the version of the one row that a store has written."""
    (row,) = rows
    return row.version
