"""Search on one connection: candidates from SQL, newest first; the rank from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, bindparam, or_, select, type_coerce

from the_edge_agent.memory.codec import decode
from the_edge_agent.memory.filters import Node, matches
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.text import RANK_WINDOW, Term, score

PAGE_ROWS = 500  # rows that Python filters at a time
KEYS_PER_STATEMENT = 1_000


@dataclass(frozen=True, slots=True)
class Search:
    """A checked search.

    Attributes:
        terms: of the query; none for no text condition.
        metadata_filter: None for no condition.
        prefix: of the keys; empty for all.
        limit: results at most.
        offset: results to skip.
    """

    terms: Sequence[Term]
    metadata_filter: Node | None
    prefix: str
    limit: int
    offset: int

    @property
    def ranked(self) -> bool:
        """Whether there is a word to look for; otherwise every score is 0.0."""
        return any(not term.negated for term in self.terms)

    @property
    def is_one_statement(self) -> bool:
        """Whether one statement answers it; several must see one state."""
        return not self.ranked and self.metadata_filter is None


class Searcher:
    """Runs searches over the entries' table of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        """Build the parts that every search shares."""
        self._dialect = dialect
        columns = dialect.entries.c
        self._key, self._updated_at = columns.key, columns.updated_at
        self._value, self._metadata = (
            type_coerce(columns.value, Text()),
            type_coerce(columns.metadata, Text()),
        )
        self._newest_first = (columns.updated_at.desc(), columns.key)
        self._by_key = select(columns.key, self._value, self._metadata).where(
            columns.key.in_(bindparam("keys", expanding=True))
        )

    def search(self, connection: Connection, search: Search) -> list[dict[str, Any]]:
        """Return ``[{"key", "value", "metadata", "score"}]``, best first."""
        condition = None if search.metadata_filter is None else self._dialect.condition(search.metadata_filter)
        in_python = None if condition is not None else search.metadata_filter
        where = [*key_range(self._key, search.prefix)]
        if search.terms:
            where.append(self._dialect.text_condition(search.terms))
        if condition is not None:
            where.append(condition)
        if not search.ranked and in_python is None:
            statement = select(self._key, self._value, self._metadata).where(*where)
            statement = statement.order_by(*self._newest_first).limit(search.limit).offset(search.offset)
            return [_entry(row, 0.0) for row in connection.execute(statement)]
        scored = self._candidates(connection, search, where, in_python)
        scored.sort(key=lambda candidate: -candidate[1])  # stable: equal scores stay newest first, then by key
        return self._entries(connection, scored[search.offset : search.offset + search.limit])

    def _candidates(
        self, connection: Connection, search: Search, where: list[ColumnElement[bool]], in_python: Node | None
    ) -> list[tuple[str, float]]:
        """Return the key and score of the newest matches, newest first, then by key."""
        wanted = search.offset + search.limit
        columns: list[ColumnElement[Any]] = [self._key, self._updated_at]
        if search.ranked:
            wanted = max(RANK_WINDOW, wanted)
            needles = [term.needle for term in search.terms if not term.negated]
            columns += [self._dialect.token_count(), *map(self._dialect.occurrences, needles)]
        if in_python is not None:
            columns.append(self._metadata)
        statement = select(*columns).where(*where).order_by(*self._newest_first)
        if in_python is None:
            return [(row[0], score(row[3:], row[2])) for row in connection.execute(statement.limit(wanted))]
        counts = slice(3, -1) if search.ranked else slice(0)
        found = self._filtered(connection, statement, in_python, wanted)
        return [(row[0], score(row[counts], row[2]) if search.ranked else 0.0) for row in found]

    def _filtered(
        self, connection: Connection, statement: Select[Any], condition: Node, wanted: int
    ) -> list[Sequence[Any]]:
        """Return the first rows whose metadata, their last column, satisfies the condition."""
        found: list[Sequence[Any]] = []
        page = statement.limit(PAGE_ROWS)
        while True:
            rows = connection.execute(page).all()
            found += [row for row in rows if matches(condition, row[-1] and decode(row[-1]))]
            if len(found) >= wanted or len(rows) < PAGE_ROWS:
                return found[:wanted]
            key, moment = rows[-1][0], rows[-1][1]
            older = or_(self._updated_at < moment, and_(self._updated_at == moment, self._key > key))
            page = statement.where(older).limit(PAGE_ROWS)

    def _entries(self, connection: Connection, scored: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
        rows: dict[str, Sequence[Any]] = {}
        for start in range(0, len(scored), KEYS_PER_STATEMENT):
            keys = [key for key, _ in scored[start : start + KEYS_PER_STATEMENT]]
            rows |= {row[0]: row for row in connection.execute(self._by_key, {"keys": keys})}
        # Where a database has no snapshots, an entry may have been deleted since it was ranked.
        return [_entry(rows[key], rank) for key, rank in scored if key in rows]


def key_range(column: ColumnElement[str], prefix: str) -> list[ColumnElement[bool]]:
    """Return the conditions that select the keys with a prefix: a range, which an index serves exactly."""
    if not prefix:
        return []
    after = _successor(prefix)
    return [column >= prefix] if after is None else [column >= prefix, column < after]


def _successor(prefix: str) -> str | None:
    """Return the least text above everything that begins with ``prefix``, None if there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if code == 0xD800 else code)  # no surrogates
        prefix = prefix[:-1]
    return None


def _entry(row: Sequence[Any], rank: float) -> dict[str, Any]:
    return {
        "key": row[0],
        "value": decode(row[1]),
        "metadata": None if row[2] is None else decode(row[2]),
        "score": rank,
    }
