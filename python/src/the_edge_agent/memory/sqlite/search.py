"""Searches of the native SQLite memory. The full-text index finds candidates; SQL and Python check them exactly."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from the_edge_agent.memory.core.codec import encode_value
from the_edge_agent.memory.core.damage import Damage
from the_edge_agent.memory.core.filters import Node, equalities, index_lookups
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.pages import Place
from the_edge_agent.memory.core.tokens import Term, has_words, terms_of_prefix
from the_edge_agent.memory.database.native_rows import (
    ITEM,
    RESULT,
    TIMED,
    WHOLE,
    fitting,
    namespaced,
    range_of,
    result_of,
)
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
from the_edge_agent.memory.sqlite.database import SQLiteDatabase, now, timestamp, written
from the_edge_agent.memory.sqlite.index import METADATA_QUERY, lookups_json, term_query

VISIBLE: Final = "(expires_at IS NULL OR expires_at > :now)"
IN_RANGE: Final = "key >= :start AND key < :end"
_NAMESPACED: Final = namespaced("instr")
# The columns of a match that is ranked, and of one whose words are counted. Those of a result are ``RESULT``.
_RANKED: Final = ("id", "metadata", "search_text")
_COUNTED: Final = ("key", "metadata", "updated_at", f"CASE WHEN length(search_text) <= {SHORT} THEN search_text END")
_WITH_WORDS: Final = "SELECT rowid AS place FROM ltm_entries_fts WHERE ltm_entries_fts MATCH {index_query}"
_WITH_KEYS: Final = f"SELECT id AS place FROM ltm_entries WHERE {IN_RANGE}"
# One query of an index, of words or of keys, returns the matches, or one row of nulls if there are too many.
_FOUND: Final = """
    WITH found AS ({found} LIMIT :max_matches + 1)
    SELECT {columns}, updated_at, key
    FROM (SELECT place FROM found WHERE (SELECT count(*) FROM found) <= :max_matches)
    CROSS JOIN ltm_entries ON id = place WHERE {conditions}
    UNION ALL SELECT {nulls}, NULL, NULL WHERE (SELECT count(*) FROM found) > :max_matches"""
_LOOK_UP: Final = f"{_FOUND} ORDER BY updated_at DESC, key LIMIT :most"
# INDEXED BY, because SQLite would use the index of keys for a range, and then sort all entries of it.
_NEWEST: Final = """
    SELECT {columns} FROM ltm_entries INDEXED BY ix_ltm_entries_updated_at
    WHERE updated_at >= coalesce((
        SELECT updated_at FROM ltm_entries ORDER BY updated_at DESC, key LIMIT 1 OFFSET :newest), '')
    AND {conditions} ORDER BY updated_at DESC, key"""
_BY_TIME: Final = """
    SELECT {columns} FROM ltm_entries INDEXED BY ix_ltm_entries_updated_at
    WHERE {conditions} ORDER BY updated_at DESC, key"""
_ALL: Final = "SELECT {columns} FROM ltm_entries WHERE {conditions} ORDER BY updated_at DESC, key"
# Sorts ids by time first, and then reads the rows of the first ones.
_SORTED: Final = """
    SELECT {columns} FROM ltm_entries
    WHERE id IN (SELECT id FROM ltm_entries WHERE {conditions} ORDER BY updated_at DESC, key LIMIT :limit)
    ORDER BY updated_at DESC, key"""
_IN_INDEX: Final = f"id IN ({_WITH_WORDS})"
# Returns matches in the order of the index, so that it can stop early.
_HAVING: Final = f"""
    SELECT {{columns}} FROM ({_WITH_WORDS}) CROSS JOIN ltm_entries ON id = place WHERE {{conditions}}"""
_ANY: Final = "SELECT {columns} FROM ltm_entries WHERE {conditions}"
_TEXT: Final = "SELECT search_text FROM ltm_entries WHERE key = ?"
_BY_KEY: Final = f"SELECT {', '.join(RESULT)} FROM ltm_entries WHERE key = ?"
_BY_ID: Final = f"SELECT {', '.join(RESULT)} FROM ltm_entries WHERE id = ?"
_EXPONENT: Final = 10**16  # JSON writes floats from here on with an exponent; see ``repr`` of Python


class SQLiteSearch:
    """The reads of one search, on a connection that is in a transaction or runs one statement."""

    def __init__(
        self,
        database: SQLiteDatabase,
        connection: sqlite3.Connection,
        condition: Node | None,
        keys: KeyRange,
        rules: Language,
    ) -> None:
        """Prepare the search. Entries that have expired now, or whose key is not in the range, are left out."""
        self._database, self._connection = database, connection
        self._condition, self._keys = condition, keys
        self._prefix_terms = terms_of_prefix(keys.prefix, rules) if database.has_full_text else []
        self._values = range_values(keys)

    # --- the methods of ``Reader`` -----------------------------------------------------------------

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Row]:
        """Return the newest entries that satisfy the terms; see ``Reader.newest``."""
        rows = self._newest(_COUNTED, terms, limit, condition=self._condition if filtered else None)
        return _as_read(rows)

    def having(self, terms: Sequence[Term], limit: int) -> list[Row]:
        """Return entries that satisfy the terms, in any order; see ``Reader.having``."""
        index_query, values, unsure, recheck = self._conditions(terms, self._condition, in_prefix=True)
        everything = " AND ".join([*recheck, *self._mentioned(values)])
        look_ups = self._look_ups(_COUNTED, index_query, unsure, everything, 0, in_order=False)

        def every() -> Step[str]:
            statement, conditions = (_HAVING, " AND ".join(unsure)) if index_query else (_ANY, everything)
            columns = ", ".join(_COUNTED)
            return Step(statement.format(columns=columns, index_query=index_query, conditions=conditions))

        def read(step: Step[str]) -> Sequence[Sequence[Any]]:
            return self._fetched(step.statement, {**values, **step.parameters}, limit + 1, self._condition)

        steps = ladder("sqlite", look_ups, None, every) if self._keys.has_limits else [every()]
        return _as_read(first_answer(steps, read, limit) or ())

    def in_time(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows, and fail when the time of the call is over."""
        return self._database.in_time(rows)

    def texts(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the search texts of entries by key."""
        return {key: self._connection.execute(_TEXT, (key,)).fetchone()[0] for key in keys}

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return the results of a search, or the damage, at these keys, in their order. All scores are 0.0."""
        return [result_of(self._connection.execute(_BY_KEY, (key,)).fetchone(), timestamp) for key in keys]

    # --- searches with ``match="all"`` -------------------------------------------------------------

    def results(self, terms: Sequence[Term], offset: int, limit: int) -> list[dict[str, Any] | Damage]:
        """Return the entries that satisfy all terms, best first. Without words, one statement reads the newest."""
        is_ranked = has_words(terms)
        columns, skipped = (_RANKED, 0) if is_ranked else (RESULT, offset)
        rows = self._newest(columns, terms, window_of(terms, offset, limit), condition=self._condition, skipped=skipped)
        chosen = best(rows, map(itemgetter(2), self._database.in_time(rows)), terms, offset, limit)
        if not is_ranked:
            return [result_of(row[: len(RESULT)], timestamp) for _, row in chosen]
        by_id = [(score, self._connection.execute(_BY_ID, (row[0],)).fetchone()) for score, row in chosen]
        return [result_of(row, timestamp, score) for score, row in by_id]

    def every(self, terms: Sequence[Term], *, keeps_words: bool) -> sqlite3.Cursor:
        """Return the rows of all possible matches, newest first, in the form that ``undamaged`` takes."""
        index_query, values, unsure, recheck = self._conditions(terms, self._condition)
        conditions = [_IN_INDEX.format(index_query=index_query), *unsure] if index_query else recheck
        words = "search_text" if keeps_words else "''"
        columns = ", ".join((*ITEM[:3], words, *TIMED[3:]))
        return self._connection.execute(_ALL.format(columns=columns, conditions=" AND ".join(conditions)), values)

    def newest_entries(self, place: Place, skip: int, limit: int) -> list[Sequence[Any]]:
        """Return up to ``limit`` rows of ``WHOLE``, newest first, which come after a place and ``skip`` more rows."""
        rows, needed = list[Sequence[Any]](), skip + limit
        # Many entries may have the time of the place. Each of two reads follows an index.
        for after in ("updated_at = :moment AND key > :place", "updated_at < :moment") if place.key else ("true",):
            rows += self._newest_where(after, place, needed - len(rows))
            if len(rows) == needed:
                break
        return [row[: len(WHOLE)] for row in rows[skip:]]

    def _newest_where(self, after: str, place: Place, limit: int) -> Sequence[Sequence[Any]]:
        conditions = " AND ".join([after, *self._shared()])
        values = {**self._values, "place": place.key, "moment": written(place.timestamp), "most": limit}

        def by_time() -> Step[str]:
            return Step(_BY_TIME.format(columns=", ".join(WHOLE), conditions=conditions))

        def read(step: Step[str]) -> Sequence[Sequence[Any]]:
            return self._fetched(step.statement, {**values, **step.parameters}, limit, None)

        look_ups = self._look_ups(WHOLE, "", (), conditions, limit)
        return first_answer(ladder("sqlite", look_ups, None, by_time), read, limit) or ()

    # --- steps -------------------------------------------------------------------------------------

    def _newest(
        self,
        columns: Sequence[str],
        terms: Sequence[Term],
        limit: int,
        *,
        condition: Node | None,
        skipped: int = 0,
    ) -> Sequence[Sequence[Any]]:
        """Return the columns of the newest matches. The first ``skipped`` rows have only their first column."""
        index_query, values, unsure, recheck = self._conditions(terms, condition)
        everything = " AND ".join([*recheck, *(self._mentioned(values) if condition else ())])

        def step(statement: str, conditions: str, *, is_partial: bool = False, **parameters: int) -> Step[str]:
            sql = statement.format(index_query=index_query, columns=", ".join(columns), conditions=conditions)
            return Step(sql, parameters, is_partial=is_partial)

        def among_newest(limits: StepLimits) -> Step[str]:
            return step(_NEWEST, everything, is_partial=True, newest=max(limits.newest, SCANNED * limit))

        def every() -> Step[str]:
            if index_query:
                return step(_ALL, " AND ".join([_IN_INDEX.format(index_query=index_query), *unsure]))
            if self._keys.has_limits and not condition:
                return step(_SORTED, everything, limit=limit)
            return step(_ALL, everything)

        def read(step: Step[str]) -> Sequence[Sequence[Any]]:
            parameters = {**values, "most": -1 if condition else limit, **step.parameters}
            return self._fetched(step.statement, parameters, limit, condition, skipped=skipped)

        look_ups = self._look_ups(columns, index_query, unsure, everything, limit)
        is_laddered = index_query or self._keys.has_limits
        steps = ladder("sqlite", look_ups, among_newest, every) if is_laddered else [every()]
        rows = first_answer(steps, read, limit)
        assert rows is not None  # the last step always answers
        return rows

    def _look_ups(
        self,
        columns: Sequence[str],
        index_query: str,
        unsure: Sequence[str],
        everything: str,
        needed: int,
        *,
        in_order: bool = True,
    ) -> list[Callable[[StepLimits], Step[str]]]:
        """Return the steps that look up the keys of the range, and the words.

        Args:
            columns: the columns of a match.
            index_query: as ``_conditions`` returns it.
            unsure: see there.
            everything: all conditions on a row of the range.
            needed: look up at least so many matches.
            in_order: whether to return the newest matches first.
        """

        def look_up(found: str, conditions: str, limits: StepLimits) -> Step[str]:
            sql = (_LOOK_UP if in_order else _FOUND).format(
                found=found,
                columns=", ".join(columns),
                nulls=", ".join(["NULL"] * len(columns)),
                conditions=conditions,
            )
            return Step(sql, {"max_matches": max(limits.matches, needed)})

        steps: list[Callable[[StepLimits], Step[str]]] = []
        if self._keys.has_limits:
            steps.append(partial(look_up, _WITH_KEYS, everything))
        if index_query:
            steps.append(partial(look_up, _WITH_WORDS.format(index_query=index_query), " AND ".join(unsure)))
        return steps

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
        unsure, recheck = self._shared(), self._shared()
        for place, term in enumerate(terms):
            variants = []
            for number, needle in enumerate(term.needles):
                values[f"needle{place}_{number}"] = needle
                variants.append(f"instr(search_text, :needle{place}_{number}) > 0")
            recheck.append(f"({' OR '.join(variants)}) = {int(not term.negated)}")
            if not index_query or not term.is_told_by_index:
                unsure.append(recheck[-1])
        return index_query, values, unsure, recheck

    def _shared(self) -> list[str]:
        """Return the conditions of every search on this range."""
        # Without a range there is no condition on the key: SQLite would use the index of keys, and sort.
        in_range = [IN_RANGE] if self._keys.has_limits else []
        return [VISIBLE, *in_range, *conditions_of(self._keys)]

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


def range_values(keys: KeyRange) -> dict[str, Any]:
    """Return the parameters of ``VISIBLE`` and ``IN_RANGE``."""
    return {**range_of(keys), "now": written(now())}


def conditions_of(keys: KeyRange) -> list[str]:
    """Return the conditions, besides ``IN_RANGE``, that the keys of a range have."""
    return [_NAMESPACED] if keys.is_nested else []


def _mentioned(condition: Node | None) -> list[str]:
    """Return JSON texts that stored metadata must contain to satisfy a filter. The filter must still be checked."""
    texts: list[str] = []
    for contained in equalities(condition):
        inner: Any = contained
        while isinstance(inner, dict):
            (key, inner), *_ = inner.items()
            texts.append(encode_value(key))
        # The float that equals an integer has the same digits, unless JSON writes it with an exponent.
        if isinstance(inner, (str, bool)) or (isinstance(inner, int) and abs(inner) < _EXPONENT):
            texts.append(encode_value(inner))
    return texts
