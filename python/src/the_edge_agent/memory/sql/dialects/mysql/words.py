"""The index of words on MySQL and MariaDB: a table of our own, because their text index does not follow transactions.

Entries get numbers, in blocks of up to 1,000 entries. The table has one row for each word of a block. The row has the
places (the numbers in the block) of the entries that have the word. A store leaves its entry without a number. Few
entries have no number, and a search reads all of them.

The table may be out of date, so a search checks the text of the entry itself. Only one rule must hold at the end of
every transaction: if an entry has a number, its text is the one from which the block was created, and the block is
listed.

The rows are sorted by block, not by word. So a new block is written to one part of the table, however large the table
is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import islice
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    VARBINARY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    bindparam,
    func,
    literal_column,
    or_,
    select,
)

from the_edge_agent.memory.core.tokens import Term

NUMBER: Final = "number"
INDEX: Final = f"ix_{NUMBER}"  # not named after the table, because a copy of the table has an index of the same name
BLOCK: Final = 1_000  # the most entries in a block

Places: TypeAlias = dict[int, int]  # the entries that have a word: for each block, a bitmap of places

LIST: Final = 0  # not a block: its rows list the blocks, each with the count of entries that got a number
MAKER: Final = b""  # the row of LIST that a process locks while it creates a block
TERM_BYTES: Final = 80
_MAP_BYTES: Final = BLOCK // 8  # of a bitmap of places; a shorter list with two bytes for each place replaces it
# For a list of 1,000 blocks or words MariaDB does not use the index.
_PAIRS: Final = 4_000  # pairs of a block and a word in one statement
_MOST_BLOCKS: Final = 500  # in one statement
_DIGITS: Final = [f"{place:04x}" for place in range(BLOCK)]  # the two bytes of a place in hexadecimal


class WordTable:
    """The table of words: it finds the entries that may have the terms of a query."""

    def __init__(self, entries: Table) -> None:
        """Define the table of words for an entries' table, which has the column for numbers."""
        self.entries = entries
        self.table = words_table(entries.name)
        self.hint = f"FORCE INDEX ({INDEX})"
        self.number = entries.c[NUMBER]
        columns = self.table.c
        self._blocks = select(columns.term).where(columns.block == LIST, columns.term > MAKER)
        in_blocks = columns.block.in_(bindparam("b_blocks", expanding=True))
        rows = select(columns.block, columns.term, columns.places).where(in_blocks)
        self._words = rows.where(columns.term.in_(bindparam("b_terms", expanding=True)))
        self._beginnings = rows.where(
            columns.term >= bindparam("b_first", type_=VARBINARY()),
            columns.term < bindparam("b_after", type_=VARBINARY()),
        )
        some: Select[Any] = select(literal_column("1")).select_from(entries).with_hint(entries, self.hint)
        some = some.where(self.number.is_(None)).limit(bindparam("b_most", type_=Integer()))
        self._unnumbered = select(func.count()).select_from(some.subquery("some"))

    def may_have(self, numbers: str) -> ColumnElement[bool]:
        """Return the condition that an entry has no number, or one of those in the parameter ``numbers``."""
        return or_(self.number.in_(bindparam(numbers, expanding=True)), self.number.is_(None))

    def unnumbered(self, connection: Connection, limit: int) -> int:
        """Return how many entries have no number, or ``limit`` if there are more."""
        return int(connection.scalar(self._unnumbered, {"b_most": limit}) or 0)

    def blocks(self, connection: Connection) -> list[int]:
        """Return the blocks that are listed."""
        return [int.from_bytes(row[0], "big") for row in connection.execute(self._blocks)]

    def places(self, connection: Connection, blocks: Sequence[int], terms: Sequence[Term]) -> list[Places]:
        """Return for each term the entries of these blocks that may have it. Negation is ignored.

        The connection is in a transaction that sees one state. Blocks and entries must be read in the same transaction.
        """
        exact, open_ended = set[str](), set[str]()
        for term in terms:
            for *before, last in _sequences(term):
                exact.update(before)
                (open_ended if term.prefix else exact).add(last)
        words = self._of_words(connection, blocks, sorted(exact))
        beginnings = {start: self._of_beginning(connection, blocks, start) for start in sorted(open_ended)}

        def of(term: Term, sequence: Sequence[str]) -> Places:
            *before, last = sequence
            last_places = (beginnings if term.prefix else words).get(last, {})
            return reduce(both, [words.get(token, {}) for token in before], last_places)

        return [reduce(either, [of(term, sequence) for sequence in _sequences(term)]) for term in terms]

    def _of_words(self, connection: Connection, blocks: Sequence[int], words: Sequence[str]) -> dict[str, Places]:
        places_by_word: dict[str, Places] = {}
        for some_words in pieces(words, 50):
            for some in pieces(blocks, min(_MOST_BLOCKS, _PAIRS // len(some_words))):
                parameters = {"b_blocks": some, "b_terms": [word.encode() for word in some_words]}
                for block, term, places in connection.execute(self._words, parameters):
                    places_by_word.setdefault(bytes(term).decode(), {})[block] = unpacked(places)
        return places_by_word

    def _of_beginning(self, connection: Connection, blocks: Sequence[int], start: str) -> Places:
        places_by_block: Places = {}
        for some in pieces(blocks, _MOST_BLOCKS):
            parameters = {"b_blocks": some, "b_first": start.encode(), "b_after": start.encode() + b"\x7f"}
            for block, _, places in connection.execute(self._beginnings, parameters):
                places_by_block[block] = places_by_block.get(block, 0) | unpacked(places)
        return places_by_block


def words_table(entries_name: str) -> Table:
    """Return the table of words of an entries' table."""
    return Table(
        f"{entries_name}_words",
        MetaData(),
        Column("block", BigInteger, primary_key=True, autoincrement=False),
        Column("term", VARBINARY(TERM_BYTES), primary_key=True),
        Column("places", VARBINARY(_MAP_BYTES), nullable=False),
    )


def both(first: Places, second: Places) -> Places:
    """Return the places that are in both."""
    small, large = sorted((first, second), key=len)
    return {block: common for block, places in small.items() if (common := places & large.get(block, 0))}


def either(first: Places, second: Places) -> Places:
    """Return the places that are in at least one of the two."""
    return first | {block: places | first.get(block, 0) for block, places in second.items()}


def count(places: Places) -> int:
    """Return how many places there are."""
    return sum(bin(bits).count("1") for bits in places.values())


def numbers(places: Places) -> Iterator[int]:
    """Yield the numbers of the entries, those of the latest block first."""
    for block in sorted(places, reverse=True):
        bits = bin(places[block])[:1:-1]
        at = bits.find("1")
        while at >= 0:
            yield block * BLOCK + at
            at = bits.find("1", at + 1)


def _sequences(term: Term) -> Sequence[Sequence[str]]:
    """Return sequences of tokens. An entry with the term has all tokens of at least one sequence."""
    return term.variants


def packed(places: Sequence[int]) -> str:
    """Return places in the format of the table, as hexadecimal digits."""
    if len(places) * 2 < _MAP_BYTES:
        return "".join([_DIGITS[place] for place in places])
    return sum(1 << place for place in places).to_bytes(_MAP_BYTES, "big").hex()


def unpacked(packed_places: bytes) -> int:
    """Return places from the format of the table as an integer with one bit for each place."""
    if len(packed_places) == _MAP_BYTES:
        return int.from_bytes(packed_places, "big")
    bits = 0
    for at in range(0, len(packed_places), 2):
        bits |= 1 << int.from_bytes(packed_places[at : at + 2], "big")
    return bits


def pieces(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield the items in lists of ``size``. The last list may be shorter."""
    rest = iter(items)
    while piece := [*islice(rest, size)]:
        yield piece
