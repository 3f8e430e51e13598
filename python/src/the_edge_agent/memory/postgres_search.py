"""Searches of the native PostgreSQL memory: indexes find what may match, the functions that define it decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from the_edge_agent.memory.damage import Damage
from the_edge_agent.memory.filters import Node, equalities
from the_edge_agent.memory.native_rows import Row, best, fitting, range_of, result_of, undamaged_results, window_of
from the_edge_agent.memory.postgres_bounds import BOUNDS
from the_edge_agent.memory.postgres_database import contained, in_time, streamed
from the_edge_agent.memory.results import Result
from the_edge_agent.memory.text import RANK_WINDOW, Term, has_words

VISIBLE: Final = "(expires_at IS NULL OR expires_at > now())"
IN_PREFIX: Final = "key >= %(prefix)s AND key < %(end)s"
_WHOLE: Final = "SELECT key, metadata, value, storage_uri FROM ltm_entries WHERE key = ANY(%(keys)s)"
# With what is ranked come short values only: most of them are not among the results.
_OF_RANKED: Final = "search_text, CASE WHEN octet_length(value) <= 10000 THEN value END AS value, storage_uri"
_OF_RESULTS: Final = "'' AS search_text, value, storage_uri"
_ALL_OF: Final = "key, value, metadata, {words}, storage_uri"  # as ``undamaged`` takes them
_NEWEST_FIRST: Final = "ORDER BY updated_at DESC, key"
_ROWS: Final = "key, metadata, search_text, value, storage_uri"
_SELECT: Final = "SELECT key, metadata, {columns} FROM"
_STREAM: Final = f"{_SELECT} ltm_entries WHERE {{where}} {_NEWEST_FIRST}"
_ALL: Final = f"{_STREAM} LIMIT %(window)s"
_LATE: Final = f"""
    {_SELECT} (SELECT * FROM ltm_entries {_NEWEST_FIRST} LIMIT %(bound)s) AS newest
    WHERE {{where}} {_NEWEST_FIRST} LIMIT %(window)s"""
# Matches, one more than the bound at most. If there are more, the second has a row of nulls in their place.
_FEW: Final = f"""
    WITH found AS MATERIALIZED (
        SELECT key, metadata, {{columns}}, updated_at FROM ltm_entries WHERE {{where}} LIMIT %(bound)s + 1)
    SELECT {_ROWS} FROM found {_NEWEST_FIRST}"""
_SOME: Final = f"""
    WITH found AS MATERIALIZED (SELECT key, updated_at FROM ltm_entries WHERE {{where}} LIMIT %(bound)s + 1)
    SELECT {_ROWS} FROM (
        SELECT key, metadata, {{columns}}, updated_at FROM ltm_entries JOIN (
            SELECT key AS chosen FROM found WHERE (SELECT count(*) FROM found) <= %(bound)s
            {_NEWEST_FIRST} LIMIT %(window)s) AS places ON key = chosen
        UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL WHERE (SELECT count(*) FROM found) > %(bound)s) AS rows
    {_NEWEST_FIRST}"""


# Evaluated before the scan. Another client of a pooler may have left a limit on what a GIN index finds.
_WHOLE_INDEX: Final = "(SELECT set_config('gin_fuzzy_search_limit', '0', true)) = '0'"


def results_at_once(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, first: int, most: int
) -> list[dict[str, Any] | Damage] | None:
    """Return ``{"key", "value", "metadata", "score"}`` of what matches, best first; None where no one statement can."""
    window, is_in_index = window_of(terms, first, most), condition is None or bool(equalities(condition))
    if window - most > RANK_WINDOW or (has_words(terms) and not is_in_index):
        return None  # too many values would come that are not among the results
    where, values = _matching(connection, terms, condition, prefix)
    columns = _OF_RANKED if has_words(terms) else _OF_RESULTS
    values["window"] = window

    def rows_of(statement: str, bound: int = 0) -> Sequence[Row]:
        sql = statement.format(columns=columns, where=where)
        rows: Sequence[Row] = connection.execute(sql, {**values, "bound": bound}).fetchall()
        return rows

    steps = [(_ALL, 0)]
    if _finds_few(terms, condition):
        (few, late), (some, later) = BOUNDS
        rows = rows_of(_FEW, few)
        if len(rows) <= few:
            return _results(best(fitting(in_time(connection, rows), condition), terms, first, most))
        steps = [(_LATE, late), (_SOME, some), (_LATE, later), *steps]
    for statement, bound in steps:
        rows = rows_of(statement, bound)
        found = [*fitting(in_time(connection, rows), condition)]
        is_all = statement != _LATE and len(rows) < window and not (rows and rows[0][0] is None)
        if is_all or (len(found) == window and found[0][0] is not None):
            return _results(best(in_time(connection, found), terms, first, most))
    return None  # of those that the index finds the filter does not like some


def _results(ranked: Sequence[tuple[float, Row]]) -> list[dict[str, Any] | Damage] | None:
    if any(row[3] is None for _, row in ranked):
        return None
    return [result_of((row[0], row[1], *row[3:5]), score) for score, row in ranked]


def search_results(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, first: int, most: int
) -> list[dict[str, Any] | Damage]:
    """Return the same, in a transaction of one state."""
    where, values = _matching(connection, terms, condition, prefix)
    columns = "search_text" if has_words(terms) else "''"
    with streamed(connection) as cursor:
        rows = cursor.execute(_STREAM.format(columns=columns, where=where), values)
        ranked = best(fitting(in_time(connection, rows), condition), terms, first, most)
    found = connection.execute(_WHOLE, {"keys": [row[0] for _, row in ranked]}) if ranked else ()
    whole = {row[0]: row for row in found}
    return [result_of(whole[row[0]], score) for score, row in ranked]


def undamaged_of(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, first: int, most: int
) -> Result:
    """Return the result of a search that came upon damage, in a transaction of one state."""
    where, values = _matching(connection, terms, condition, prefix)
    columns = _ALL_OF.format(words="search_text" if has_words(terms) else "''")
    with streamed(connection) as cursor:
        rows = cursor.execute(f"SELECT {columns} FROM ltm_entries WHERE {where} {_NEWEST_FIRST}", values)
        return undamaged_results(in_time(connection, rows), terms, condition, first, most)


def _finds_few(terms: Sequence[Term], condition: Node | None) -> bool:
    """Return whether an index may find few entries of which the planner does not know that they are few."""
    return bool(equalities(condition)) and all(term.negated for term in terms)


def _matching(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str
) -> tuple[str, dict[str, Any]]:
    """Return the condition on entries that satisfy every term, and its parameters.

    What satisfies the filter is among them.
    """
    in_index, values = contained(condition)
    conditions = [VISIBLE, in_index]
    if not connection.is_direct and (values or terms):
        conditions.append(_WHOLE_INDEX)
    if prefix:  # a range of all keys would look selective to the planner of a prepared statement
        conditions.append(IN_PREFIX)
        values |= range_of(prefix)
    positive = [term for term in terms if not term.negated]
    if positive:
        conditions.append("search_vector @@ to_tsquery('simple', %(words)s)")
        values["words"] = " & ".join(map(_looked_up, positive))
    for place, term in enumerate(terms):
        if not term.negated and len(term.tokens) == 1:
            continue  # the index has decided; of several words it does not know the order
        conditions.append(f"(position(%(needle{place})s in search_text) > 0) = {not term.negated}")
        values[f"needle{place}"] = term.needle
    return " AND ".join(conditions), values


def _looked_up(term: Term) -> str:
    """Return the query for the full-text index for a term; its tokens are ASCII letters and digits."""
    return " & ".join(term.tokens) + (":*" if term.prefix else "")
