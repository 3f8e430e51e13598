"""Find out whether a write was committed, when the connection was lost before the server's reply.

Each row has the ``write_id`` of the write that stored it. When the reply to the COMMIT of a transaction A is lost, the
memory reads the rows that A writes. They tell whether A was committed:

1. A row has A's ``write_id``. Then A was committed, because a transaction is committed as a whole.
2. A would have replaced or deleted a row, but the row still has the ``write_id`` of a write B that was committed
   before A began. Then A was not committed. There are two ways to know that B was committed before A began:

   - This memory has written B, and the call of B had returned when A's call began.
   - B's ``updated_at`` is older than the beginning of A's call, by more than the longest time that a transaction
     takes. ``updated_at`` is the time at which B began. So a row that is only older than A's call proves nothing: B may
     have begun before A, waited for A, and replaced what A wrote. The row of an import proves nothing either, because
     an import keeps the ``updated_at`` of its entries.

3. There is no row, and A has only unconditional stores. Then A runs again. Nearly always the server had never received
   it. Otherwise another client deleted its entries just then, and they exist again. A store with ``if_version`` does
   not run again.
4. A transaction that only renews lifetimes runs again: it may run twice.
5. In all other cases nobody can tell, and the failure has ``unknown: True``.

A statement may also reach the server after its call has failed. It may then overwrite a store that was acknowledged
meanwhile. ``if_version`` prevents that. A condition on the server's time in each statement would prevent it too, but
it takes time: on PostgreSQL a statement took 93 instead of 77 microseconds with it, on MySQL 90 instead of 68.

Reading the rows waits for transactions that have locked them, and so for A if the server still runs it. When A runs
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

_DEFAULT_TIMEOUT: Final = 30.0  # seconds; another memory on the same table may have this timeout
_OVERRUN: Final = 1.0  # seconds by which a call may exceed its timeout
_FIRST_PAUSE: Final = 0.02  # seconds between the first two attempts to reach the database; doubled each time
_LONGEST_PAUSE: Final = 0.5  # seconds
_OF_IMPORT: Final = ".i"  # the end of the write_id of an imported row
_REMEMBERED: Final = 256  # writes without a known end; with more, old ones are forgotten


class WrittenRow(NamedTuple):
    """A row that was read after a connection was lost.

    Attributes:
        key: the key of the entry.
        version: the version of the entry.
        write_id: the id of the write that stored the row; None if that write had no id.
        age: the time since ``updated_at``, by the server's clock; None if ``updated_at`` is not a time.
        is_expired: whether the entry has expired.
    """

    key: str
    version: int
    write_id: str | None
    age: timedelta | None
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction has written if it was committed.

    Attributes:
        stored: the keys that it stores.
        deleted: the keys that it deletes.
        is_unconditional: whether it has unconditional stores and nothing else.
        of_expired: whether it deletes expired entries only. Otherwise its deletes leave expired entries alone.
        may_repeat: whether the transaction may run twice, so that it runs again when the reply is lost.
    """

    stored: Collection[str] = ()
    deleted: Collection[str] = ()
    is_unconditional: bool = False
    of_expired: bool = False
    may_repeat: bool = False

    @classmethod
    def of(cls, operations: Sequence[Operation], results: Sequence[Result]) -> Change:
        """Return the change that these operations make; ``results`` tell which deletes have deleted an entry."""
        stored = {each.key for each in operations if isinstance(each, Store)}
        pairs = zip(operations, results, strict=True)
        deleted = {each.key for each, result in pairs if isinstance(each, Delete) and result["deleted"]}
        return cls(stored, deleted - stored, all(map(is_unconditional, operations)))

    @property
    def keys(self) -> list[str]:
        """The keys of all rows that the transaction writes, in order."""
        return sorted({*self.stored, *self.deleted})


class Write:
    """One write of a memory. It knows which other writes were under way when it began.

    Attributes:
        id: the ``write_id``.
    """

    def __init__(self, writer: Writer, number: int, under_way: Collection[int]) -> None:
        """Begin the write; only ``Writer.begin`` calls this."""
        self._writer, self._number, self._under_way = writer, number, under_way
        self._begun = time.monotonic()
        self.id = f"{writer.name}-{number:x}"

    def of(self, place: int) -> str:
        """Return the ``write_id`` of one operation, for a transaction that may write a row more than once."""
        return f"{self.id}.{place:x}"

    @property
    def of_import(self) -> str:
        """The ``write_id`` of the rows of an import. Their ``updated_at`` does not say when they were written."""
        return f"{self.id}{_OF_IMPORT}"

    def settled(
        self,
        attempt: Callable[[], Answer],
        change: Callable[[], Change],
        look: Callable[[Sequence[str]], Sequence[WrittenRow]],
        done: Callable[[Sequence[WrittenRow]], Answer],
    ) -> Answer:
        """Run the transaction by ``attempt`` and return its answer, also if the reply to its COMMIT is lost.

        Args:
            attempt: runs the transaction. It is called again if it turns out that nothing was written.
            change: returns what the transaction writes.
            look: returns the rows that exist at these keys. It waits for transactions that are writing them.
            done: takes the rows of a transaction that was committed, and returns the answer that was lost.

        Raises:
            LTMError: the failure of ``attempt``, with ``unknown: True`` if nobody can tell whether it was committed.
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
            if changed.may_repeat and self._pause():
                continue
            rows = self._rows(look, changed.keys, unknown)
            is_done = self._is_done(changed, rows)
            if is_done is None:
                raise unknown
            if is_done:
                self._end()
                return done(rows)

    def _pause(self) -> bool:
        """Wait a moment. Return whether there is time for another attempt."""
        time.sleep(_FIRST_PAUSE)
        return time.monotonic() - self._begun < self._writer.timeout

    def _rows(
        self, look: Callable[[Sequence[str]], Sequence[WrittenRow]], keys: Sequence[str], unknown: LTMError
    ) -> Sequence[WrittenRow]:
        """Read the rows, and try again until the time of the call is over: the server may be restarting."""
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

    def _is_done(self, change: Change, rows: Sequence[WrittenRow]) -> bool | None:
        """Return whether the transaction was committed, or None if nobody can tell."""
        if not change.keys or any(self._wrote(row) for row in rows):
            return True
        if any(self._is_before(row) and self._would_be_gone(change, row) for row in rows):
            return False
        return False if change.is_unconditional and not rows else None

    def _wrote(self, row: WrittenRow) -> bool:
        return row.write_id is not None and row.write_id.partition(".")[0] == self.id

    def _is_before(self, row: WrittenRow) -> bool:
        """Return whether a row was certainly committed before this write began."""
        name, _, number = (row.write_id or "").partition(".")[0].partition("-")
        if name == self._writer.name:
            written = int(number, 16)
            if written < self._number and written not in self._under_way:
                return True
        if (row.write_id or "").endswith(_OF_IMPORT):
            return False
        elapsed = timedelta(seconds=time.monotonic() - self._begun + self._writer.longest)
        return row.age is not None and row.age > elapsed

    @staticmethod
    def _would_be_gone(change: Change, row: WrittenRow) -> bool:
        """Return whether this row would not exist any more if the transaction had been committed."""
        return row.key in change.stored or row.is_expired == change.of_expired

    def _end(self) -> None:
        self._writer.end(self._number)


class Writer:
    """Numbers the writes of one memory in one process. Safe for many threads, and inside signal handlers.

    Attributes:
        name: a random name of this memory in this process; all of its write ids begin with it.
        timeout: seconds that a call may take.
        longest: seconds that a transaction may take, of this memory or of another one on the same table.
    """

    def __init__(self, timeout: float) -> None:
        """Make a writer; the first write has the number 1."""
        self.name = uuid.uuid4().hex[:16]
        self.timeout = timeout
        self.longest = max(timeout, _DEFAULT_TIMEOUT) + _OVERRUN
        self._number = 0
        self._under_way: dict[int, float] = {}  # the time at which each write began, by number
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
        """Record that a write has ended, committed or not."""
        with self._lock:
            self._under_way.pop(number, None)

    def _forget(self) -> None:
        """Forget writes whose end is unknown and whose calls ended long ago."""
        longest_ago = time.monotonic() - 2 * self.longest
        self._under_way = {number: begun for number, begun in self._under_way.items() if begun > longest_ago}


def version_of(rows: Iterable[WrittenRow]) -> int:
    """Return the version of the single row that a store has written."""
    (row,) = rows
    return row.version
