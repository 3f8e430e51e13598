"""``WordBlocks`` creates and drops blocks of words on MySQL and MariaDB. ``words.py`` explains what blocks are."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    VARBINARY,
    BigInteger,
    Connection,
    Integer,
    Text,
    and_,
    bindparam,
    delete,
    exc,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects.mysql import DATETIME

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.sql.dialects.base import Run, Upkeep
from the_edge_agent.memory.sql.dialects.mysql.words import (
    BLOCK,
    LIST,
    MAKER,
    NUMBER,
    TERM_BYTES,
    WordTable,
    packed,
    pieces,
)

_MOMENT: Final = DATETIME(fsp=6)
_PAGE: Final = 250  # entries that one statement reads or numbers
_MOST_TEXT: Final = 10_000_000  # characters in the search texts of a block
_INSERTED: Final = 1_000  # rows of one INSERT
_MOST_BLOCKS: Final = 4  # that one store creates at most
_LOOKED_AT: Final = 10  # blocks to look at when a block was created; one of them may be dropped
_BUSY: Final = (1205, 3572, 1062)  # a row is locked (MariaDB, MySQL), or another process has just inserted it
_ATTEMPTS: Final = 100
_PAUSE: Final = 0.05  # seconds


class _Row(NamedTuple):
    """An entry, as it was when its words were read."""

    key: str
    version: int
    updated_at: datetime
    text: str


class _NewBlock(NamedTuple):
    """A block whose words are in the table, and its entries, which have no numbers yet."""

    block: int
    rows: Sequence[_Row]


class WordBlocks(Upkeep):
    """Creates blocks from the entries without a number, and drops blocks that have few entries left.

    Other processes may write entries or do the same work at the same time. A crash at any moment does no harm. The
    transactions are short and never wait for a locked entry. Such an entry gets its number another time.
    """

    every = BLOCK

    def __init__(self, words: WordTable) -> None:
        """Build the statements."""
        super().__init__()
        self._words, self._table = words, words.table
        columns, number, rows = words.entries.c, words.number, words.table.c
        self._key, timestamp = columns.key, type_coerce(columns.updated_at, _MOMENT)
        words_of = type_coerce(columns.search_text, Text())
        unnumbered = select(columns.key, columns.version, timestamp, words_of).with_hint(words.entries, words.hint)
        unnumbered = unnumbered.where(number.is_(None), columns.key > bindparam("b_after", type_=columns.key.type))
        self._page = unnumbered.order_by(columns.key).limit(bindparam("b_rows", type_=Integer()))
        is_listed = and_(rows.block == LIST, rows.term == bindparam("b_term", type_=VARBINARY()))
        self._lock_listed = select(rows.block).where(is_listed).with_for_update(nowait=True)
        self._lock_entries = (
            select(columns.key)
            .with_hint(words.entries, "FORCE INDEX (PRIMARY)")
            .where(columns.key.in_(bindparam("b_keys", expanding=True)))
            .order_by(columns.key)
            .with_for_update(nowait=True)
        )
        self._unlist = delete(words.table).where(is_listed)
        self._list = insert(words.table)
        self._counted = update(words.table).where(is_listed).values(places=bindparam("b_count", type_=VARBINARY()))
        self._listed = select(rows.term, rows.places).where(rows.block == LIST, rows.term > MAKER)
        self._drop = delete(words.table).where(rows.block == bindparam("b_block"))
        in_block = [number >= bindparam("b_from", type_=BigInteger()), number < bindparam("b_to", type_=BigInteger())]
        self._live = select(columns.key).with_hint(words.entries, words.hint).where(*in_block)
        self._live_count = (
            select(func.count()).select_from(words.entries).with_hint(words.entries, words.hint).where(*in_block)
        )
        self._forget = (
            update(words.entries)
            .where(columns.key.in_(bindparam("b_keys", expanding=True)), *in_block)
            .values({NUMBER: null()})
        )
        blocks = select(number.op("DIV")(literal_column(str(BLOCK)))).where(number.is_not(None)).distinct()
        self._numbered_blocks = blocks.with_hint(words.entries, words.hint)
        self._compiled: Any = None

    def some(self, run: Run) -> None:
        """Create a few blocks, if enough entries have no number.

        For each, drop at most one block with few entries left.
        """
        for _ in range(_MOST_BLOCKS):
            if not self._number(run, run(self._make)):
                return
            listed = run(self._blocks)
            self._thin_out(run, dict(random.sample(sorted(listed.items()), min(_LOOKED_AT, len(listed)))), limit=1)

    def all(self, run: Run) -> tuple[int, int]:
        """Create and drop all blocks that need it. Return how many were created, and for how many entries."""
        used = run(self._blocks_in_entries)
        listed = run(self._blocks)  # read after that, because a block is listed before its entries get numbers
        for block in used - set(listed):  # the entries' table was copied without its table of words
            self._dissolve(run, block)
        self._thin_out(run, listed, limit=len(listed))
        blocks = entries = 0
        while numbered := self._number(run, _retry_busy(run, self._make)):
            blocks, entries = blocks + 1, entries + numbered
        return blocks, entries

    def _number(self, run: Run, new_block: _NewBlock | None) -> int:
        """Give the entries of a block their numbers. Return how many entries got one."""
        numbered = 0
        pending = [] if new_block is None else [(0, len(new_block.rows))]
        while new_block is not None and pending:
            first, end = pending.pop()
            half = (first + end) // 2
            try:
                if end - first <= _PAGE:
                    numbered += run(partial(self._give_numbers, new_block, first, end, numbered))
                    continue
            except _DroppedError:
                break
            except _BusyError:  # another transaction is writing one of these entries
                if end - first == 1:
                    continue
            pending += [(half, end), (first, half)]
        return numbered

    def _make(self, connection: Connection) -> _NewBlock | None:
        """Write the words of a new block. Return None if too few entries have no number."""
        if self._words.unnumbered(connection, self.every) < self.every:
            return None
        with _busy():
            if connection.execute(self._lock_listed, {"b_term": MAKER}).first() is None:
                connection.execute(self._list, {"block": LIST, "term": MAKER, "places": b""})
        rows = self._unnumbered_rows(connection)
        if not rows:
            return None
        block = time.time_ns() // 1_000_000  # the primary key refuses a second block of the same millisecond
        name = connection.dialect.identifier_preparer.format_table(self._table)
        for some in pieces(_postings(rows), _INSERTED):
            # All values are digits, so nothing needs escaping. With parameters it took twice the time.
            values = ",".join([f"({block},x'{term}',x'{places}')" for term, places in some])
            connection.exec_driver_sql(f"INSERT INTO {name} (block, term, places) VALUES {values}")  # noqa: S608
        connection.execute(self._list, {"block": LIST, "term": _name(block), "places": _packed_count(0)})
        return _NewBlock(block, rows)

    def _unnumbered_rows(self, connection: Connection) -> list[_Row]:
        rows: list[_Row] = []
        size, after = 0, ""
        while len(rows) < self.every and size < _MOST_TEXT:
            parameters = {"b_after": after, "b_rows": min(_PAGE, self.every - len(rows))}
            page = [_Row(*row) for row in connection.execute(self._page, parameters)]
            if not page:  # another process has numbered the rest
                return []
            rows += page
            size += sum(len(row.text) for row in page)
            after = page[-1].key
        return rows

    def _give_numbers(self, new_block: _NewBlock, first: int, end: int, before: int, connection: Connection) -> int:
        """Number some of the entries, those that did not change since they were read, if the block is still listed."""
        rows, listed = new_block.rows[first:end], {"b_term": _name(new_block.block)}
        with _busy():
            if connection.execute(self._lock_listed, listed).first() is None:
                raise _DroppedError
            connection.execute(self._lock_entries, {"b_keys": [row.key for row in rows]}).all()
        statement = self._compiled
        if statement is None:  # compiled once: SQLAlchemy would go through all its parts each time
            statement = self._compiled = self._numbering().compile(dialect=connection.dialect)
        padded = [*rows, *[rows[-1]] * (_PAGE - len(rows))]
        values: dict[str, Any] = {"b_number": new_block.block * BLOCK + first - 1}
        for place, row in enumerate(padded):
            values |= {f"b_key{place}": row.key, f"b_version{place}": row.version, f"b_moment{place}": row.updated_at}
        names = statement.positiontup
        parameters = values if names is None else tuple([values[name] for name in names])
        rowcount = connection.exec_driver_sql(statement.string, parameters).rowcount
        # A lock is not enough: another node of a cluster may drop the block, and sees only a write.
        if not connection.execute(self._counted, {**listed, "b_count": _packed_count(before + rowcount)}).rowcount:
            raise _DroppedError
        return rowcount

    def _numbering(self) -> Any:
        columns, number = self._words.entries.c, self._words.number
        keys = [bindparam(f"b_key{place}", type_=columns.key.type) for place in range(_PAGE)]
        are_same = [
            and_(
                columns.key == key,
                columns.version == bindparam(f"b_version{place}", type_=BigInteger()),
                type_coerce(columns.updated_at, _MOMENT) == bindparam(f"b_moment{place}", type_=_MOMENT),
            )
            for place, key in enumerate(keys)
        ]
        place = bindparam("b_number", type_=BigInteger()) + func.field(columns.key, *keys, type_=Integer())
        return update(self._words.entries).where(or_(*are_same)).values({NUMBER: func.coalesce(number, place)})

    def _blocks(self, connection: Connection) -> dict[int, int]:
        """Return the listed blocks. Each has the count of entries that got its numbers."""
        rows = connection.execute(self._listed)
        return {int.from_bytes(term, "big"): int.from_bytes(places, "big") for term, places in rows}

    def _blocks_in_entries(self, connection: Connection) -> set[int]:
        return {int(block) for block in connection.scalars(self._numbered_blocks)}

    def _thin_out(self, run: Run, blocks: dict[int, int], limit: int) -> None:
        """Drop those of these blocks that have lost half of their entries, emptiest first, at most ``limit`` blocks."""
        live = {block: run(partial(self._size_of, block)) for block in blocks}
        emptiest = sorted(blocks, key=lambda block: live[block])
        for block in islice((block for block in emptiest if live[block] * 2 <= blocks[block]), limit):
            self._dissolve(run, block)

    def _size_of(self, block: int, connection: Connection) -> int:
        return int(connection.scalar(self._live_count, _range(block)) or 0)

    def _keys_of(self, block: int, connection: Connection) -> list[str]:
        return sorted(connection.scalars(self._live, _range(block)))

    def _dissolve(self, run: Run, block: int) -> None:
        """Remove the numbers of a block from its entries, then drop the block. Give up if another process uses it."""
        try:
            for keys in pieces(run(partial(self._keys_of, block)), _PAGE):
                run(partial(self._take_numbers, block, keys))
            run(partial(self._drop_block, block))
        except _BusyError:  # another call will do it
            pass

    def _take_numbers(self, block: int, keys: Sequence[str], connection: Connection) -> None:
        with _busy():
            connection.execute(self._lock_entries, {"b_keys": keys}).all()
        connection.execute(self._forget, {"b_keys": keys, **_range(block)})

    def _drop_block(self, block: int, connection: Connection) -> None:
        with _busy():
            connection.execute(self._lock_listed, {"b_term": _name(block)})
        if connection.execute(self._live.limit(1), _range(block)).first() is None:
            connection.execute(self._unlist, {"b_term": _name(block)})
            connection.execute(self._drop, {"b_block": block})


class _BusyError(LTMError):
    """Another transaction has locked a row. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("lock_timeout", "another transaction writes these rows or creates blocks of words; try again")


class _DroppedError(LTMError):
    """The block is no longer listed, because another process has dropped it."""

    def __init__(self) -> None:
        super().__init__("conflict", "the block of words was dropped")


@contextmanager
def _busy() -> Iterator[None]:
    """Turn the error of a locked row into ``_BusyError``, so that the transaction is not repeated at once."""
    try:
        yield
    except exc.DBAPIError as error:
        code = getattr(error.orig, "errno", None) or error.orig.args[0]  # type: ignore[union-attr]
        if code in _BUSY:
            raise _BusyError from None
        raise


def _retry_busy(run: Run, work: Callable[[Connection], Any]) -> Any:
    for attempt in range(_ATTEMPTS):
        try:
            return run(work)
        except _BusyError:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(_PAUSE)
    return None


def _postings(rows: Sequence[_Row]) -> list[tuple[str, str]]:
    """Return the words of entries, sorted, each with the places of its entries; both as hexadecimal digits."""
    places = defaultdict[str, list[int]](list)
    for place, row in enumerate(rows):
        for token in set(row.text.split()):
            places[token].append(place)
    places.pop(".", None)  # the separator between two strings
    terms = sorted(token for token in places if len(token) <= TERM_BYTES)
    return [(term.encode().hex(), packed(places[term])) for term in terms]


def _packed_count(entries: int) -> bytes:
    return entries.to_bytes(2, "big")


def _name(block: int) -> bytes:
    return block.to_bytes(8, "big")


def _range(block: int) -> dict[str, int]:
    return {"b_from": block * BLOCK, "b_to": (block + 1) * BLOCK}
