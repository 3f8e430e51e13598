"""Searches of the native PostgreSQL memory: indexes find candidates, and Python functions decide which ones match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from the_edge_agent.memory.core.damage import Damage
from the_edge_agent.memory.core.filters import Node, equalities
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.core.tokens import Term, has_words, terms_of_prefix
from the_edge_agent.memory.database.native_rows import Row, fitting, range_of, result_of, undamaged_results
from the_edge_agent.memory.database.search_plan import (
    SHORT,
    Step,
    StepLimits,
    best,
    first_answer,
    is_far_page,
    ladder,
    window_of,
)
from the_edge_agent.memory.database.search_plan import Row as Read
from the_edge_agent.memory.postgres.database import in_time, streamed
from the_edge_agent.memory.postgres.shared_sql import WHOLE_INDEX, indexed_filter, term_query
from the_edge_agent.memory.postgres.times import utc

VISIBLE: Final = "(expires_at IS NULL OR expires_at > now())"
IN_PREFIX: Final = "key >= %(prefix)s AND key < %(end)s"
_WHOLE: Final = "SELECT key, metadata, value, storage_uri FROM ltm_entries WHERE key = ANY(%(keys)s)"
# Ranked rows bring only short values, because most of the rows are not among the results.
_OF_RANKED: Final = f"search_text, CASE WHEN octet_length(value) <= {SHORT} THEN value END AS value, storage_uri"
_OF_RESULTS: Final = "'' AS search_text, value, storage_uri"
_SHORT_TEXT: Final = f"CASE WHEN octet_length(search_text) <= {SHORT} THEN search_text END"
_OF_READ: Final = f"{{text}} AS search_text, {utc('updated_at')} AS value, storage_uri"
_TEXTS: Final = "SELECT key, search_text FROM ltm_entries WHERE key = ANY(%(keys)s)"
_ALL_OF: Final = "key, value, metadata, {words}, storage_uri"  # the order that ``undamaged`` takes
_NEWEST_FIRST: Final = "ORDER BY updated_at DESC, key"
_ROWS: Final = "key, metadata, search_text, value, storage_uri"
_SELECT: Final = "SELECT key, metadata, {columns} FROM"
_STREAM: Final = f"{_SELECT} ltm_entries WHERE {{where}} {_NEWEST_FIRST}"
_HAVING: Final = f"{_SELECT} ltm_entries WHERE {{where}}"
_ALL: Final = f"{_STREAM} LIMIT %(window)s"
_AMONG_NEWEST: Final = f"""
    {_SELECT} (SELECT * FROM ltm_entries {_NEWEST_FIRST} LIMIT %(newest)s) AS newest
    WHERE {{where}} {_NEWEST_FIRST} LIMIT %(window)s"""
# These look up the matches, at most as many as a limit and one more. _SORTED_ROWS sorts whole rows. _SORTED_KEYS sorts
# keys, then fetches the rows, and returns a row of nulls if there are too many. MATERIALIZED is needed: without
# statistics, and in a cached plan, the planner expects each metadata value to be common, and would read all entries
# from the newest on.
_SORTED_ROWS: Final = f"""
    WITH matches AS MATERIALIZED (
        SELECT key, metadata, {{columns}}, updated_at FROM ltm_entries WHERE {{where}} LIMIT %(most_rows)s + 1)
    SELECT {_ROWS} FROM matches {_NEWEST_FIRST}"""
_SORTED_KEYS: Final = f"""
    WITH matches AS MATERIALIZED (SELECT key, updated_at FROM ltm_entries WHERE {{where}} LIMIT %(most_keys)s + 1)
    SELECT {_ROWS} FROM (
        SELECT key, metadata, {{columns}}, updated_at FROM ltm_entries JOIN (
            SELECT key AS chosen FROM matches WHERE (SELECT count(*) FROM matches) <= %(most_keys)s
            {_NEWEST_FIRST} LIMIT %(window)s) AS places ON key = chosen
        UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL
        WHERE (SELECT count(*) FROM matches) > %(most_keys)s) AS rows
    {_NEWEST_FIRST}"""


# ``having`` puts a SELECT around it, which hides the words from the planner. Otherwise the planner expects to find
# common words together soon, and reads the whole table if no entry has all of them.
_WORDS: Final = "to_tsquery('simple', %(words)s)"


def results_at_once(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, offset: int, limit: int
) -> list[dict[str, Any] | Damage] | None:
    """Return ``{"key", "value", "metadata", "score"}`` of the matches, best first, by single statements.

    Return None if single statements cannot answer.
    """
    window, is_in_index = window_of(terms, offset, limit), condition is None or bool(equalities(condition))
    if is_far_page(terms, offset, limit) or (has_words(terms) and not is_in_index):
        return None  # too many rows would bring values that are not among the results
    columns = _OF_RANKED if has_words(terms) else _OF_RESULTS
    rows = _newest_at_once(connection, columns, terms, condition, prefix, window)
    if rows is None:
        return None
    chosen = best(rows, map(itemgetter(2), in_time(connection, rows)), terms, offset, limit)
    if any(row[3] is None for _, row in chosen):
        return None
    return [result_of((row[0], row[1], *row[3:5]), score) for score, row in chosen]


def _newest_at_once(
    connection: Any, columns: str, terms: Sequence[Term], condition: Node | None, prefix: str, window: int
) -> Sequence[Row] | None:
    """Return the newest matches, newest first, or None if no single statement can find them."""
    where, values = _matching(connection, terms, condition, prefix)
    values["window"] = window

    def step(statement: str, **parameters: int) -> Step[str]:
        sql = statement.format(columns=columns, where=where)
        is_partial = statement == _AMONG_NEWEST
        return Step(sql, parameters, is_partial=is_partial, limit=parameters["newest"] if is_partial else None)

    def by_filter(limits: StepLimits) -> Step[str]:
        return (
            step(_SORTED_ROWS, most_rows=limits.matches)
            if limits.is_small
            else step(_SORTED_KEYS, most_keys=limits.matches)
        )

    def read(step: Step[str]) -> Sequence[Row] | None:
        rows: Sequence[Row] = connection.execute(step.statement, {**values, **step.parameters}).fetchall()
        matches = [*fitting(in_time(connection, rows), condition)]
        if "most_rows" in step.parameters:
            return matches[:window] if len(rows) <= step.parameters["most_rows"] else None
        # The limit was reached, but the filter refuses some of these rows: there may be more matches.
        return None if len(matches) < len(rows) == window else matches

    if not _needs_steps(terms, condition):
        return first_answer([step(_ALL)], read, window)
    steps = ladder(
        "postgresql",
        [by_filter],
        lambda limits: step(_AMONG_NEWEST, newest=limits.newest),
        lambda: step(_ALL),
    )
    return first_answer(steps, read, window)


class PostgresReader:
    """Reads for a search on one connection, in a transaction that sees one state; see ``Reader``."""

    def __init__(
        self, connection: Any, condition: Node | None, prefix: str, rules: Language, *, keeps_words: bool
    ) -> None:
        """Search the entries with this filter and prefix. ``keeps_words`` says whether the table stores words."""
        self._columns = _OF_READ.format(text=_SHORT_TEXT if keeps_words else "''")
        self._connection, self._condition, self._prefix = connection, condition, prefix
        self._prefix_terms = terms_of_prefix(prefix, rules)

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Read]:
        """Return the newest entries, see ``Reader.newest``."""
        condition = self._condition if filtered else None
        rows = _newest_at_once(self._connection, self._columns, terms, condition, self._prefix, limit)
        if rows is None:
            where, values = _matching(self._connection, terms, condition, self._prefix)
            rows = self._first(_STREAM.format(columns=self._columns, where=where), values, limit, condition)
        return [Read(row[0], row[3], row[2]) for row in rows]

    def having(self, terms: Sequence[Term], limit: int) -> list[Read]:
        """Return entries that satisfy terms, see ``Reader.having``."""
        where, values = _matching(self._connection, terms, self._condition, self._prefix, also=self._prefix_terms)
        where = where.replace(_WORDS, f"(SELECT {_WORDS})")
        statement = _HAVING.format(columns=self._columns, where=where)
        if self._condition is None:
            sql = f"{statement} LIMIT %(window)s"
            rows = self._connection.execute(sql, {**values, "window": limit + 1}).fetchall()
        else:
            rows = self._first(statement, values, limit + 1, self._condition)
        return [Read(row[0], row[3], row[2]) for row in rows]

    def _first(self, statement: str, values: dict[str, Any], limit: int, condition: Node | None) -> list[Row]:
        with streamed(self._connection, limit) as cursor:
            rows = in_time(self._connection, cursor.execute(statement, values))
            return [*islice(fitting(rows, condition), limit)]

    def in_time(self, rows: Sequence[Any]) -> Iterable[Any]:
        """Yield the rows, and fail when the time of the call is over."""
        return in_time(self._connection, rows)

    def texts(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the search texts of entries."""
        return dict(self._connection.execute(_TEXTS, {"keys": [*keys]}))

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return ``{"key", "value", "metadata", "score"}``, or the damage, of entries, in the order of the keys."""
        whole = {row[0]: row for row in self._connection.execute(_WHOLE, {"keys": [*keys]})}
        return [result_of(whole[key]) for key in keys]


def undamaged_of(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, offset: int, limit: int
) -> Result:
    """Return the result of a search that found damage. The connection is in a transaction that sees one state."""
    where, values = _matching(connection, terms, condition, prefix)
    columns = _ALL_OF.format(words="search_text" if has_words(terms) else "''")
    with streamed(connection) as cursor:
        rows = cursor.execute(f"SELECT {columns} FROM ltm_entries WHERE {where} {_NEWEST_FIRST}", values)
        return undamaged_results(in_time(connection, rows), terms, condition, offset, limit)


def _needs_steps(terms: Sequence[Term], condition: Node | None) -> bool:
    """Return whether the index on metadata may find few entries, which the planner does not expect."""
    return bool(equalities(condition)) and all(term.negated for term in terms)


def _matching(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, *, also: Sequence[Term] = ()
) -> tuple[str, dict[str, Any]]:
    """Return an SQL condition and its parameters.

    It selects the entries that satisfy every term and may satisfy the filter.

    ``also`` has more terms that every match has, for the index.
    """
    in_index, values = indexed_filter(condition)
    conditions = [VISIBLE, in_index]
    if not connection.is_direct and (values or terms):
        conditions.append(WHOLE_INDEX)
    if prefix:  # for a prepared statement, the planner would expect that even a range of all keys selects few
        conditions.append(IN_PREFIX)
        values |= range_of(prefix)
    positive = [term for term in terms if not term.negated]
    if positive:
        conditions.append(f"search_vector @@ {_WORDS}")
        values["words"] = " & ".join(map(term_query, [*positive, *also]))
    for place, term in enumerate(terms):
        if term.is_told_by_index:
            continue
        tests = []
        for number, needle in enumerate(term.needles):
            tests.append(f"position(%(needle{place}_{number})s in search_text) > 0")
            values[f"needle{place}_{number}"] = needle
        conditions.append(f"({' OR '.join(tests)}) = {not term.negated}")
    return " AND ".join(conditions), values
