"""Searches of the native PostgreSQL memory: indexes find what may match, the functions that define it decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from the_edge_agent.memory.damage import Damage
from the_edge_agent.memory.filters import Node, equalities
from the_edge_agent.memory.languages import Language
from the_edge_agent.memory.native_rows import Row, best, fitting, range_of, result_of, undamaged_results, window_of
from the_edge_agent.memory.postgres_bounds import BOUNDS, looked_up
from the_edge_agent.memory.postgres_database import contained, in_time, streamed, utc
from the_edge_agent.memory.questions import SHORT
from the_edge_agent.memory.questions import Row as QuestionRow
from the_edge_agent.memory.results import Result
from the_edge_agent.memory.text import RANK_WINDOW, Term, has_words, terms_of_prefix

VISIBLE: Final = "(expires_at IS NULL OR expires_at > now())"
IN_PREFIX: Final = "key >= %(prefix)s AND key < %(end)s"
_WHOLE: Final = "SELECT key, metadata, value, storage_uri FROM ltm_entries WHERE key = ANY(%(keys)s)"
# With what is ranked come short values only: most of them are not among the results.
_OF_RANKED: Final = "search_text, CASE WHEN octet_length(value) <= 10000 THEN value END AS value, storage_uri"
_OF_RESULTS: Final = "'' AS search_text, value, storage_uri"
_OF_QUESTION: Final = (
    f"CASE WHEN octet_length(search_text) <= {SHORT} THEN search_text END AS search_text, "
    f"{utc('updated_at')} AS value, storage_uri"
)
_TEXT: Final = "SELECT search_text FROM ltm_entries WHERE key = %(key)s"
_ALL_OF: Final = "key, value, metadata, {words}, storage_uri"  # as ``undamaged`` takes them
_NEWEST_FIRST: Final = "ORDER BY updated_at DESC, key"
_ROWS: Final = "key, metadata, search_text, value, storage_uri"
_SELECT: Final = "SELECT key, metadata, {columns} FROM"
_STREAM: Final = f"{_SELECT} ltm_entries WHERE {{where}} {_NEWEST_FIRST}"
_HAVING: Final = f"{_SELECT} ltm_entries WHERE {{where}}"
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


# A SELECT around it hides the words from the planner. If each is common, it expects entries that have all of them soon,
# and reads the whole table where there are none.
_WORDS: Final = "to_tsquery('simple', %(words)s)"
# Evaluated before the scan. Another client of a pooler may have left a limit on what a GIN index finds.
_WHOLE_INDEX: Final = "(SELECT set_config('gin_fuzzy_search_limit', '0', true)) = '0'"


def results_at_once(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, first: int, most: int
) -> list[dict[str, Any] | Damage] | None:
    """Return ``{"key", "value", "metadata", "score"}`` of what matches, best first; None where no one statement can."""
    window, is_in_index = window_of(terms, first, most), condition is None or bool(equalities(condition))
    if window - most > RANK_WINDOW or (has_words(terms) and not is_in_index):
        return None  # too many values would come that are not among the results
    columns = _OF_RANKED if has_words(terms) else _OF_RESULTS
    rows = _newest_at_once(connection, columns, terms, condition, prefix, window)
    return None if rows is None else _results(best(in_time(connection, rows), terms, first, most))


def _newest_at_once(
    connection: Any, columns: str, terms: Sequence[Term], condition: Node | None, prefix: str, window: int
) -> list[Row] | None:
    """Return the newest that match, newest first; None where no one statement can tell."""
    where, values = _matching(connection, terms, condition, prefix)
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
            return [*islice(fitting(in_time(connection, rows), condition), window)]
        steps = [(_LATE, late), (_SOME, some), (_LATE, later), *steps]
    for statement, bound in steps:
        rows = rows_of(statement, bound)
        found = [*fitting(in_time(connection, rows), condition)]
        is_all = statement != _LATE and len(rows) < window and not (rows and rows[0][0] is None)
        if is_all or (len(found) == window and found[0][0] is not None):
            return found
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


class PostgresReads:
    """What a question reads on one connection, in a transaction of one state; see ``Reader``."""

    def __init__(self, connection: Any, condition: Node | None, prefix: str, rules: Language) -> None:
        """Take the part of the memory that is searched."""
        self._connection, self._condition, self._prefix = connection, condition, prefix
        self._prefix_terms = terms_of_prefix(prefix, rules)

    def newest(self, terms: Sequence[Term], most: int, *, filtered: bool) -> Iterable[QuestionRow]:
        """Return the newest entries, see ``Reader.newest``."""
        condition = self._condition if filtered else None
        rows = _newest_at_once(self._connection, _OF_QUESTION, terms, condition, self._prefix, most)
        if rows is None:
            where, values = _matching(self._connection, terms, condition, self._prefix)
            rows = self._first(_STREAM.format(columns=_OF_QUESTION, where=where), values, most, condition)
        return [QuestionRow(row[0], row[3], row[2]) for row in rows]

    def having(self, terms: Sequence[Term], most: int) -> list[QuestionRow]:
        """Return entries that satisfy terms, see ``Reader.having``."""
        where, values = _matching(self._connection, terms, self._condition, self._prefix, also=self._prefix_terms)
        where = where.replace(_WORDS, f"(SELECT {_WORDS})")
        statement = _HAVING.format(columns=_OF_QUESTION, where=where)
        if self._condition is None:
            sql = f"{statement} LIMIT %(window)s"
            rows = self._connection.execute(sql, {**values, "window": most + 1}).fetchall()
        else:
            rows = self._first(statement, values, most + 1, self._condition)
        return [QuestionRow(row[0], row[3], row[2]) for row in rows]

    def _first(self, statement: str, values: dict[str, Any], most: int, condition: Node | None) -> list[Row]:
        with streamed(self._connection, most) as cursor:
            rows = in_time(self._connection, cursor.execute(statement, values))
            return [*islice(fitting(rows, condition), most)]

    def in_time(self, rows: Iterable[Any]) -> Iterable[Any]:
        """Yield rows until the time of the call is over."""
        return in_time(self._connection, rows)

    def text(self, key: str) -> str:
        """Return the search text of an entry."""
        return str(self._connection.execute(_TEXT, {"key": key}).fetchone()[0])

    def entries(self, keys: Sequence[str]) -> list[dict[str, Any] | Damage]:
        """Return ``{"key", "value", "metadata", "score"}`` of entries, in this order."""
        whole = {row[0]: row for row in self._connection.execute(_WHOLE, {"keys": [*keys]})}
        return [result_of(whole[key]) for key in keys]


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
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, *, also: Sequence[Term] = ()
) -> tuple[str, dict[str, Any]]:
    """Return the condition on entries that satisfy every term, and its parameters.

    What satisfies the filter is among them. The index is asked for other terms too, which all that match have.
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
        conditions.append(f"search_vector @@ {_WORDS}")
        values["words"] = " & ".join(map(looked_up, [*positive, *also]))
    for place, term in enumerate(terms):
        if term.is_told_by_index:
            continue
        found = []
        for number, needle in enumerate(term.needles):
            found.append(f"position(%(needle{place}_{number})s in search_text) > 0")
            values[f"needle{place}_{number}"] = needle
        conditions.append(f"({' OR '.join(found)}) = {not term.negated}")
    return " AND ".join(conditions), values
