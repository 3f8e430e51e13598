"""Searches of the native SQLite memory: the full-text index finds what may match, the definitions in Python decide."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from the_edge_agent.memory.core.codec import encode_value
from the_edge_agent.memory.core.damage import Damage
from the_edge_agent.memory.core.filters import Node, equalities, index_lookups
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.tokens import Term, has_words, terms_of_prefix
from the_edge_agent.memory.database.native_rows import fitting, range_of, result_of
from the_edge_agent.memory.database.search_plan import (
    MENTIONED,
    SCANNED,
    SHORT,
    Row,
    Step,
    StepLimits,
    best,
    first_answer,
    ladder,
    window_of,
)
from the_edge_agent.memory.sqlite.database import SQLiteDatabase, now, written
from the_edge_agent.memory.sqlite.index import ASKED, looked_up, wanted_text

VISIBLE: Final = "(expires_at IS NULL OR expires_at > :now)"
IN_PREFIX: Final = "key >= :prefix AND key < :end"
# Four columns of a match: of one that is a result as it is, that is ranked, or whose words are counted.
_WHOLE: Final = "key, metadata, value, storage_uri"
_RANKED: Final = "id, metadata, search_text, NULL"
_COUNTED: Final = f"key, metadata, updated_at, CASE WHEN length(search_text) <= {SHORT} THEN search_text END"
# One look at the index: the matches, or if there are too many a row of nulls.
_FEW: Final = """
    WITH found AS (SELECT rowid FROM ltm_entries_fts WHERE ltm_entries_fts MATCH {asked} LIMIT :few + 1)
    SELECT {columns}, updated_at, key FROM ltm_entries
    WHERE id IN (SELECT rowid FROM found WHERE (SELECT count(*) FROM found) <= :few) AND {conditions}
    UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL WHERE (SELECT count(*) FROM found) > :few
    ORDER BY updated_at DESC, key"""
# SQLite would prefer the index of keys for a prefix, and sort all of its entries.
_NEWEST: Final = """
    SELECT {columns} FROM ltm_entries INDEXED BY ix_ltm_entries_updated_at
    WHERE updated_at >= coalesce((
        SELECT updated_at FROM ltm_entries ORDER BY updated_at DESC, key LIMIT 1 OFFSET :newest), '')
    AND {conditions} ORDER BY updated_at DESC, key"""
_ALL: Final = "SELECT {columns} FROM ltm_entries WHERE {conditions} ORDER BY updated_at DESC, key"
# Rows are sorted by their times alone, and read then.
_SORTED: Final = """
    SELECT {columns} FROM ltm_entries
    WHERE id IN (SELECT id FROM ltm_entries WHERE {conditions} ORDER BY updated_at DESC, key LIMIT :limit)
    ORDER BY updated_at DESC, key"""
_IN_INDEX: Final = "id IN (SELECT rowid FROM ltm_entries_fts WHERE ltm_entries_fts MATCH {asked})"
# In the order in which the index has them, so that it can end after a few.
_HAVING: Final = """
    SELECT {columns} FROM (SELECT rowid AS place FROM ltm_entries_fts WHERE ltm_entries_fts MATCH {asked})
    CROSS JOIN ltm_entries ON id = place WHERE {conditions}"""
_ANY: Final = "SELECT {columns} FROM ltm_entries WHERE {conditions}"
_TEXT: Final = "SELECT search_text FROM ltm_entries WHERE key = ?"
_BY_KEY: Final = f"SELECT {_WHOLE} FROM ltm_entries WHERE key = ?"
_BY_ID: Final = f"SELECT {_WHOLE} FROM ltm_entries WHERE id = ?"


class SQLiteSearch:
    """The reads of one search, on a connection in a transaction or for one statement."""

    def __init__(
        self,
        database: SQLiteDatabase,
        connection: sqlite3.Connection,
        condition: Node | None,
        prefix: str,
        rules: Language,
    ) -> None:
        """Fix the time at which entries have expired, and the part of the memory that is searched."""
        self._database, self._connection = database, connection
        self._condition, self._prefix = condition, prefix
        self._prefix_terms = terms_of_prefix(prefix, rules) if database.has_full_text else []
        self._values = range_values(prefix)

    # --- as a ``Reader`` ---------------------------------------------------------------------------

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Row]:
        """Return the newest entries, see ``Reader.newest``."""
        rows = self._newest(_COUNTED, terms, limit, condition=self._condition if filtered else None)
        return _as_read(rows)

    def having(self, terms: Sequence[Term], limit: int) -> list[Row]:
        """Return entries that satisfy terms, see ``Reader.having``."""
        asked, values, unsure, recheck = self._conditions(terms, self._condition, in_prefix=True)
        if asked:
            sql = _HAVING.format(columns=_COUNTED, asked=asked, conditions=" AND ".join(unsure))
        else:
            sql = _ANY.format(columns=_COUNTED, conditions=" AND ".join([*recheck, *self._mentioned(values)]))
        rows = self._fetched(sql, values, limit + 1, self._condition)
        return _as_read(rows)

    def in_time(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield rows until the time of the call is over."""
        return self._database.in_time(rows)

    def texts(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the search texts of entries."""
        return {key: self._connection.execute(_TEXT, (key,)).fetchone()[0] for key in keys}

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return ``{"key", "value", "metadata", "score"}`` of entries, in this order."""
        return [result_of(self._connection.execute(_BY_KEY, (key,)).fetchone()) for key in keys]

    # --- for conditions that must all hold ---------------------------------------------------------

    def results(self, terms: Sequence[Term], offset: int, limit: int) -> list[dict[str, Any] | Damage]:
        """Return the results that satisfy terms, best first; without words in one statement, the newest first."""
        is_ranked = has_words(terms)
        columns, skipped = (_RANKED, 0) if is_ranked else (_WHOLE, offset)
        rows = self._newest(columns, terms, window_of(terms, offset, limit), condition=self._condition, skipped=skipped)
        chosen = best(rows, map(itemgetter(2), self._database.in_time(rows)), terms, offset, limit)
        if not is_ranked:
            return [result_of(row[:4]) for _, row in chosen]
        return [result_of(self._connection.execute(_BY_ID, (row[0],)).fetchone(), score) for score, row in chosen]

    def every(self, terms: Sequence[Term], *, keeps_words: bool) -> sqlite3.Cursor:
        """Return all that may match, newest first, as ``undamaged`` takes it."""
        asked, values, unsure, recheck = self._conditions(terms, self._condition)
        conditions = [_IN_INDEX.format(asked=asked), *unsure] if asked else recheck
        words = "search_text" if keeps_words else "''"
        columns = f"key, value, metadata, {words}, storage_uri"
        return self._connection.execute(_ALL.format(columns=columns, conditions=" AND ".join(conditions)), values)

    # --- steps -------------------------------------------------------------------------------------

    def _newest(
        self, columns: str, terms: Sequence[Term], limit: int, *, condition: Node | None, skipped: int = 0
    ) -> Sequence[Sequence[Any]]:
        """Return the columns of the newest that match, of those to be skipped the first one."""
        asked, values, unsure, recheck = self._conditions(terms, condition)

        def everything() -> str:
            return " AND ".join([*recheck, *(self._mentioned(values) if condition else ())])

        def step(statement: str, conditions: str, *, is_partial: bool = False, **bounds: int) -> Step[str]:
            sql = statement.format(asked=asked, columns=columns, conditions=conditions)
            return Step(sql, bounds, is_partial=is_partial)

        def few(bound: StepLimits) -> Step[str]:
            return step(_FEW, " AND ".join(unsure), few=max(bound.matches, limit))

        def late(bound: StepLimits) -> Step[str]:
            return step(_NEWEST, everything(), is_partial=True, newest=max(bound.newest, SCANNED * limit))

        def every() -> Step[str]:
            if asked:
                return step(_ALL, " AND ".join([_IN_INDEX.format(asked=asked), *unsure]))
            if self._prefix and not condition:
                return step(_SORTED, everything(), limit=limit)
            return step(_ALL, everything())

        def read(step: Step[str]) -> Sequence[Sequence[Any]]:
            return self._fetched(step.statement, {**values, **step.parameters}, limit, condition, skipped=skipped)

        is_laddered = asked or self._prefix
        steps = ladder("sqlite", [few] if asked else [], late, every) if is_laddered else [every()]
        rows = first_answer(steps, read, limit)
        assert rows is not None  # the last step always answers
        return rows

    # --- conditions --------------------------------------------------------------------------------

    def _fetched(
        self, sql: str, values: dict[str, Any], limit: int, condition: Node | None, *, skipped: int = 0
    ) -> list[Sequence[Any]]:
        with closing(self._connection.execute(sql, values)) as rows:
            found = islice(fitting(self._database.in_time(rows), condition), limit)
            return [*(row[:1] for row in islice(found, skipped)), *found]

    def _mentioned(self, values: dict[str, Any]) -> list[str]:
        conditions = []
        for place, mentioned in enumerate(_mentioned(self._condition)[:MENTIONED]):
            values[f"mentioned{place}"] = mentioned
            conditions.append(f"instr(metadata, :mentioned{place}) > 0")
        return conditions

    def _conditions(
        self, terms: Sequence[Term], condition: Node | None, *, in_prefix: bool = False
    ) -> tuple[str, dict[str, Any], list[str], list[str]]:
        """Return the query for the index, its parameters, and the conditions for matches of the index and for the rest.

        With ``in_prefix`` the index is asked for the words of the prefix too.
        """
        asked, values = self._asked(terms, condition, in_prefix=in_prefix)
        values |= self._values
        # SQLite would seek by a range of all keys, and sort.
        shared = [VISIBLE, IN_PREFIX] if self._prefix else [VISIBLE]
        unsure, recheck = [*shared], [*shared]
        for place, term in enumerate(terms):
            found = []
            for number, needle in enumerate(term.needles):
                values[f"needle{place}_{number}"] = needle
                found.append(f"instr(search_text, :needle{place}_{number}) > 0")
            recheck.append(f"({' OR '.join(found)}) = {int(not term.negated)}")
            if not asked or not term.is_told_by_index:
                unsure.append(recheck[-1])
        return asked, values, unsure, recheck

    def _asked(self, terms: Sequence[Term], condition: Node | None, *, in_prefix: bool) -> tuple[str, dict[str, Any]]:
        """Return the query for the index, in SQL, and its parameters; nothing where it cannot help."""
        parts, values = [], dict[str, Any]()
        positive = [term for term in terms if not term.negated]
        if positive and self._database.has_full_text:
            parts.append(":words")
            values["words"] = " AND ".join(map(looked_up, [*positive, *(self._prefix_terms if in_prefix else ())]))
        groups = index_lookups(condition) if self._database.has_metadata_words else []
        if groups:
            parts.append(ASKED.format(wanted="wanted"))
            values["wanted"] = wanted_text(groups)
        return " || ' AND ' || ".join(parts), values


def _as_read(rows: Iterable[Sequence[Any]]) -> list[Row]:
    """Return rows of ``_COUNTED`` as a reader does; by C, because there are thousands."""
    return [*map(Row._make, map(itemgetter(0, 2, 3), rows))]


def range_values(prefix: str) -> dict[str, Any]:
    """Return the parameters of ``VISIBLE`` and ``IN_PREFIX``."""
    return {**range_of(prefix), "now": written(now())}


def _mentioned(condition: Node | None) -> list[str]:
    """Return JSON strings that metadata has as they are written here if it satisfies a filter, which decides."""
    found: list[str] = []
    for wanted in equalities(condition):
        inner: Any = wanted
        while isinstance(inner, dict):
            (key, inner), *_ = inner.items()
            found.append(encode_value(key))
        if isinstance(inner, str):
            found.append(encode_value(inner))
    return found
