"""Searches of the native SQLite memory. The full-text index finds candidates; SQL and Python check them exactly."""

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
from the_edge_agent.memory.sqlite.index import METADATA_QUERY, lookups_json, term_query

VISIBLE: Final = "(expires_at IS NULL OR expires_at > :now)"
IN_PREFIX: Final = "key >= :prefix AND key < :end"
# Four columns of a match: for a match that is a result at once, for one to be ranked, and for one whose words are
# counted.
_WHOLE: Final = "key, metadata, value, storage_uri"
_RANKED: Final = "id, metadata, search_text, NULL"
_COUNTED: Final = f"key, metadata, updated_at, CASE WHEN length(search_text) <= {SHORT} THEN search_text END"
# One query of the index returns the matches, or one row of nulls if there are too many.
_LOOK_UP: Final = """
    WITH matching AS (
        SELECT rowid FROM ltm_entries_fts WHERE ltm_entries_fts MATCH {index_query} LIMIT :max_matches + 1)
    SELECT {columns}, updated_at, key FROM ltm_entries
    WHERE id IN (SELECT rowid FROM matching WHERE (SELECT count(*) FROM matching) <= :max_matches) AND {conditions}
    UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL WHERE (SELECT count(*) FROM matching) > :max_matches
    ORDER BY updated_at DESC, key"""
# INDEXED BY, because SQLite would use the index of keys for a prefix, and then sort all entries with it.
_NEWEST: Final = """
    SELECT {columns} FROM ltm_entries INDEXED BY ix_ltm_entries_updated_at
    WHERE updated_at >= coalesce((
        SELECT updated_at FROM ltm_entries ORDER BY updated_at DESC, key LIMIT 1 OFFSET :newest), '')
    AND {conditions} ORDER BY updated_at DESC, key"""
_ALL: Final = "SELECT {columns} FROM ltm_entries WHERE {conditions} ORDER BY updated_at DESC, key"
# Sorts ids by time first, and then reads the rows of the first ones.
_SORTED: Final = """
    SELECT {columns} FROM ltm_entries
    WHERE id IN (SELECT id FROM ltm_entries WHERE {conditions} ORDER BY updated_at DESC, key LIMIT :limit)
    ORDER BY updated_at DESC, key"""
_IN_INDEX: Final = "id IN (SELECT rowid FROM ltm_entries_fts WHERE ltm_entries_fts MATCH {index_query})"
# Returns matches in the order of the index, so that it can stop early.
_HAVING: Final = """
    SELECT {columns} FROM (SELECT rowid AS place FROM ltm_entries_fts WHERE ltm_entries_fts MATCH {index_query})
    CROSS JOIN ltm_entries ON id = place WHERE {conditions}"""
_ANY: Final = "SELECT {columns} FROM ltm_entries WHERE {conditions}"
_TEXT: Final = "SELECT search_text FROM ltm_entries WHERE key = ?"
_BY_KEY: Final = f"SELECT {_WHOLE} FROM ltm_entries WHERE key = ?"
_BY_ID: Final = f"SELECT {_WHOLE} FROM ltm_entries WHERE id = ?"


class SQLiteSearch:
    """The reads of one search, on a connection that is in a transaction or runs one statement."""

    def __init__(
        self,
        database: SQLiteDatabase,
        connection: sqlite3.Connection,
        condition: Node | None,
        prefix: str,
        rules: Language,
    ) -> None:
        """Prepare the search. Entries that have expired now, or whose key lacks the prefix, are left out."""
        self._database, self._connection = database, connection
        self._condition, self._prefix = condition, prefix
        self._prefix_terms = terms_of_prefix(prefix, rules) if database.has_full_text else []
        self._values = range_values(prefix)

    # --- the methods of ``Reader`` -----------------------------------------------------------------

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Row]:
        """Return the newest entries that satisfy the terms; see ``Reader.newest``."""
        rows = self._newest(_COUNTED, terms, limit, condition=self._condition if filtered else None)
        return _as_read(rows)

    def having(self, terms: Sequence[Term], limit: int) -> list[Row]:
        """Return entries that satisfy the terms, in any order; see ``Reader.having``."""
        index_query, values, unsure, recheck = self._conditions(terms, self._condition, in_prefix=True)
        if index_query:
            sql = _HAVING.format(columns=_COUNTED, index_query=index_query, conditions=" AND ".join(unsure))
        else:
            sql = _ANY.format(columns=_COUNTED, conditions=" AND ".join([*recheck, *self._mentioned(values)]))
        rows = self._fetched(sql, values, limit + 1, self._condition)
        return _as_read(rows)

    def in_time(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows, and fail when the time of the call is over."""
        return self._database.in_time(rows)

    def texts(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the search texts of entries by key."""
        return {key: self._connection.execute(_TEXT, (key,)).fetchone()[0] for key in keys}

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return ``{"key", "value", "metadata", "score"}``, or the damage, of entries, in the order of the keys."""
        return [result_of(self._connection.execute(_BY_KEY, (key,)).fetchone()) for key in keys]

    # --- searches with ``match="all"`` -------------------------------------------------------------

    def results(self, terms: Sequence[Term], offset: int, limit: int) -> list[dict[str, Any] | Damage]:
        """Return the entries that satisfy all terms, best first. Without words, one statement reads the newest."""
        is_ranked = has_words(terms)
        columns, skipped = (_RANKED, 0) if is_ranked else (_WHOLE, offset)
        rows = self._newest(columns, terms, window_of(terms, offset, limit), condition=self._condition, skipped=skipped)
        chosen = best(rows, map(itemgetter(2), self._database.in_time(rows)), terms, offset, limit)
        if not is_ranked:
            return [result_of(row[:4]) for _, row in chosen]
        return [result_of(self._connection.execute(_BY_ID, (row[0],)).fetchone(), score) for score, row in chosen]

    def every(self, terms: Sequence[Term], *, keeps_words: bool) -> sqlite3.Cursor:
        """Return the rows of all possible matches, newest first, in the form that ``undamaged`` takes."""
        index_query, values, unsure, recheck = self._conditions(terms, self._condition)
        conditions = [_IN_INDEX.format(index_query=index_query), *unsure] if index_query else recheck
        words = "search_text" if keeps_words else "''"
        columns = f"key, value, metadata, {words}, storage_uri"
        return self._connection.execute(_ALL.format(columns=columns, conditions=" AND ".join(conditions)), values)

    # --- steps -------------------------------------------------------------------------------------

    def _newest(
        self, columns: str, terms: Sequence[Term], limit: int, *, condition: Node | None, skipped: int = 0
    ) -> Sequence[Sequence[Any]]:
        """Return the columns of the newest matches. The first ``skipped`` rows have only their first column."""
        index_query, values, unsure, recheck = self._conditions(terms, condition)

        def everything() -> str:
            return " AND ".join([*recheck, *(self._mentioned(values) if condition else ())])

        def step(statement: str, conditions: str, *, is_partial: bool = False, **parameters: int) -> Step[str]:
            sql = statement.format(index_query=index_query, columns=columns, conditions=conditions)
            return Step(sql, parameters, is_partial=is_partial)

        def look_up(limits: StepLimits) -> Step[str]:
            return step(_LOOK_UP, " AND ".join(unsure), max_matches=max(limits.matches, limit))

        def among_newest(limits: StepLimits) -> Step[str]:
            return step(_NEWEST, everything(), is_partial=True, newest=max(limits.newest, SCANNED * limit))

        def every() -> Step[str]:
            if index_query:
                return step(_ALL, " AND ".join([_IN_INDEX.format(index_query=index_query), *unsure]))
            if self._prefix and not condition:
                return step(_SORTED, everything(), limit=limit)
            return step(_ALL, everything())

        def read(step: Step[str]) -> Sequence[Sequence[Any]]:
            return self._fetched(step.statement, {**values, **step.parameters}, limit, condition, skipped=skipped)

        is_laddered = index_query or self._prefix
        steps = ladder("sqlite", [look_up] if index_query else [], among_newest, every) if is_laddered else [every()]
        rows = first_answer(steps, read, limit)
        assert rows is not None  # the last step always answers
        return rows

    # --- conditions --------------------------------------------------------------------------------

    def _fetched(
        self, sql: str, values: dict[str, Any], limit: int, condition: Node | None, *, skipped: int = 0
    ) -> list[Sequence[Any]]:
        with closing(self._connection.execute(sql, values)) as rows:
            matches = islice(fitting(self._database.in_time(rows), condition), limit)
            return [*(row[:1] for row in islice(matches, skipped)), *matches]

    def _mentioned(self, values: dict[str, Any]) -> list[str]:
        conditions = []
        for place, mentioned in enumerate(_mentioned(self._condition)[:MENTIONED]):
            values[f"mentioned{place}"] = mentioned
            conditions.append(f"instr(metadata, :mentioned{place}) > 0")
        return conditions

    def _conditions(
        self, terms: Sequence[Term], condition: Node | None, *, in_prefix: bool = False
    ) -> tuple[str, dict[str, Any], list[str], list[str]]:
        """Return the parts of a statement: ``(index_query, values, unsure, recheck)``.

        Returns:
            ``index_query`` is SQL for the query of the full-text index, empty if the index cannot help. ``values`` are
            the parameters. ``unsure`` are the conditions that the index cannot decide, for matches of the index.
            ``recheck`` are all conditions, for a statement without the index. With ``in_prefix`` the index also looks
            for the words of the key prefix.
        """
        index_query, values = self._index_query(terms, condition, in_prefix=in_prefix)
        values |= self._values
        # Without a prefix there is no condition on the key: SQLite would use the index of keys, and sort.
        shared = [VISIBLE, IN_PREFIX] if self._prefix else [VISIBLE]
        unsure, recheck = [*shared], [*shared]
        for place, term in enumerate(terms):
            variants = []
            for number, needle in enumerate(term.needles):
                values[f"needle{place}_{number}"] = needle
                variants.append(f"instr(search_text, :needle{place}_{number}) > 0")
            recheck.append(f"({' OR '.join(variants)}) = {int(not term.negated)}")
            if not index_query or not term.is_told_by_index:
                unsure.append(recheck[-1])
        return index_query, values, unsure, recheck

    def _index_query(
        self, terms: Sequence[Term], condition: Node | None, *, in_prefix: bool
    ) -> tuple[str, dict[str, Any]]:
        """Return SQL for the query of the full-text index, and its parameters. It is empty if the index cannot help."""
        parts, values = [], dict[str, Any]()
        positive = [term for term in terms if not term.negated]
        if positive and self._database.has_full_text:
            parts.append(":words")
            values["words"] = " AND ".join(map(term_query, [*positive, *(self._prefix_terms if in_prefix else ())]))
        groups = index_lookups(condition) if self._database.has_metadata_words else []
        if groups:
            parts.append(METADATA_QUERY.format(parameter="lookups"))
            values["lookups"] = lookups_json(groups)
        return " || ' AND ' || ".join(parts), values


def _as_read(rows: Iterable[Sequence[Any]]) -> list[Row]:
    """Convert rows of ``_COUNTED`` into ``Row`` objects, with functions written in C because there are thousands."""
    return [*map(Row._make, map(itemgetter(0, 2, 3), rows))]


def range_values(prefix: str) -> dict[str, Any]:
    """Return the parameters of ``VISIBLE`` and ``IN_PREFIX``."""
    return {**range_of(prefix), "now": written(now())}


def _mentioned(condition: Node | None) -> list[str]:
    """Return JSON strings that stored metadata must contain to satisfy a filter. The filter must still be checked."""
    strings: list[str] = []
    for contained in equalities(condition):
        inner: Any = contained
        while isinstance(inner, dict):
            (key, inner), *_ = inner.items()
            strings.append(encode_value(key))
        if isinstance(inner, str):
            strings.append(encode_value(inner))
    return strings
