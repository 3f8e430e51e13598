"""Searches of the native PostgreSQL memory: indexes find candidates, and Python functions decide which ones match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.core.damage import TIMES, Damage
from the_edge_agent.memory.core.filters import Node, equalities
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.pages import Place
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.core.tokens import Term, has_words, terms_of_prefix
from the_edge_agent.memory.database.native_rows import (
    ITEM,
    RESULT,
    TIMED,
    WHOLE,
    Row,
    fitting,
    namespaced,
    range_of,
    result_of,
    undamaged_results,
)
from the_edge_agent.memory.database.search_plan import (
    SHORT,
    STEP_LIMITS,
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
from the_edge_agent.memory.postgres.times import in_utc, utc

Columns: TypeAlias = Mapping[str, str]  # the SQL of each column of a match, by its name in the result

VISIBLE: Final = "(expires_at IS NULL OR expires_at > now())"
IN_RANGE: Final = "key >= %(start)s AND key < %(end)s"
_NAMESPACED: Final = namespaced("strpos", "%%")


def _sql_of(name: str) -> str:
    return utc(name) if name in TIMES else name


def selected(columns: Sequence[str]) -> str:
    """Return columns for a SELECT, with times as text for ``in_utc``."""
    return ", ".join(map(_sql_of, columns))


def _named(columns: Sequence[str]) -> dict[str, str]:
    """Return columns by names that differ from those of the times in the table, by which a statement sorts."""
    return {f"{name}_text" if name in TIMES else name: _sql_of(name) for name in columns}


_RESULTS: Final = f"SELECT {selected(RESULT)} FROM ltm_entries WHERE key = ANY(%(keys)s)"
# Columns of matches. Ranked rows bring only short values, because most of the rows are not among the results.
_OF_WHOLE: Final[Columns] = _named(WHOLE)
_OF_RESULTS: Final[Columns] = _named(RESULT)
_OF_RANKED: Final[Columns] = {
    **_OF_RESULTS,
    "value": f"CASE WHEN octet_length(value) <= {SHORT} THEN value END",
    "search_text": "search_text",  # the last column, as ``results_at_once`` expects
}
_OF_READ: Final[Columns] = {
    "key": "key",
    "metadata": "metadata",
    "moment": utc("updated_at"),
    "search_text": f"CASE WHEN octet_length(search_text) <= {SHORT} THEN search_text END",
}
_TEXTS: Final = "SELECT key, search_text FROM ltm_entries WHERE key = ANY(%(keys)s)"
_NEWEST_FIRST: Final = "ORDER BY updated_at DESC, key"
_HAVING: Final = "SELECT {columns} FROM ltm_entries WHERE {where}"
_STREAM: Final = f"{_HAVING} {_NEWEST_FIRST}"
_ALL: Final = f"{_STREAM} LIMIT %(window)s"
_AMONG_NEWEST: Final = f"""
    SELECT {{columns}} FROM (SELECT * FROM ltm_entries {_NEWEST_FIRST} LIMIT %(newest)s) AS newest
    WHERE {{where}} {_NEWEST_FIRST} LIMIT %(window)s"""
# These look up the matches, at most as many as a limit and one more. _SORTED_ROWS sorts whole rows. _SORTED_KEYS sorts
# keys, then fetches the rows, and returns a row of nulls if there are too many. MATERIALIZED is needed: without
# statistics, and in a cached plan, the planner expects each metadata value to be common, and would read all entries
# from the newest on.
_SORTED_ROWS: Final = f"""
    WITH matches AS MATERIALIZED (
        SELECT {{columns}}, updated_at FROM ltm_entries WHERE {{where}} LIMIT %(most_rows)s + 1)
    SELECT {{names}} FROM matches {_NEWEST_FIRST}"""
_FETCHED: Final = f"""
    SELECT {{names}} FROM (
        SELECT {{columns}}, updated_at FROM ltm_entries JOIN (
            SELECT key AS chosen FROM matches WHERE (SELECT count(*) FROM {{counted}}) <= %(most_keys)s
            {_NEWEST_FIRST} LIMIT %(window)s) AS places ON key = chosen
        UNION ALL SELECT {{nulls}}, NULL WHERE (SELECT count(*) FROM {{counted}}) > %(most_keys)s) AS rows
    {_NEWEST_FIRST}"""
_SORTED_KEYS: Final = f"""
    WITH matches AS MATERIALIZED (SELECT key, updated_at FROM ltm_entries WHERE {{where}} LIMIT %(most_keys)s + 1)
    {_FETCHED}"""
# These look up the keys of a range in the same way, and decide all other conditions on their rows. LIMIT and OFFSET
# hide the conditions from the planner, which would otherwise look up common words in their index. With too many keys
# the first row of _RANGE_OF_ROWS has no key.
_RANGE_OF_ROWS: Final = f"""
    SELECT {{columns_in_range}} FROM (
        SELECT * FROM (
            SELECT *, row_number() OVER (ORDER BY key) > %(most_keys)s AS is_over FROM ltm_entries
            WHERE {IN_RANGE} ORDER BY key LIMIT %(most_keys)s + 1) AS ranged
        WHERE is_over OR ({{where}}) ORDER BY is_over DESC, updated_at DESC, key LIMIT %(window)s) AS chosen
    ORDER BY is_over DESC, updated_at DESC, chosen.key"""
_RANGE_OF_KEYS: Final = f"""
    WITH ranged AS MATERIALIZED (
        SELECT key AS place FROM ltm_entries WHERE {IN_RANGE} ORDER BY key LIMIT %(most_keys)s + 1),
    matches AS MATERIALIZED (
        SELECT key, updated_at
        FROM ranged CROSS JOIN LATERAL (SELECT * FROM ltm_entries WHERE key = place OFFSET 0) AS entry
        WHERE (SELECT count(*) FROM ranged) <= %(most_keys)s AND {{where}})
    {_FETCHED}"""


# ``having`` puts a SELECT around it, which hides the words from the planner. Otherwise the planner expects to find
# common words together soon, and reads the whole table if no entry has all of them.
_WORDS: Final = "to_tsquery('simple', %(words)s)"


def results_at_once(
    connection: Any, terms: Sequence[Term], condition: Node | None, keys: KeyRange, offset: int, limit: int
) -> list[dict[str, Any] | Damage] | None:
    """Return the results of a search, best first, by single statements.

    Return None if single statements cannot answer.
    """
    window, is_in_index = window_of(terms, offset, limit), condition is None or bool(equalities(condition))
    if is_far_page(terms, offset, limit) or (has_words(terms) and not is_in_index):
        return None  # too many rows would bring values that are not among the results
    columns = _OF_RANKED if has_words(terms) else _OF_RESULTS
    rows = _newest_at_once(connection, columns, terms, condition, keys, window)
    if rows is None:
        return None
    chosen = best(rows, map(itemgetter(-1), in_time(connection, rows)), terms, offset, limit)
    if any(row[2] is None for _, row in chosen):
        return None
    return [result_of(row[: len(RESULT)], in_utc, score) for score, row in chosen]


def newest_entries(connection: Any, keys: KeyRange, place: Place, limit: int) -> list[Row]:
    """Return up to ``limit`` rows of ``WHOLE``, newest first, which come after a place."""
    where, values = _matching(connection, (), None, keys)
    values |= {"place": place.key, "moment": place.timestamp}
    rows = list[Row]()
    # Many entries may have the time of the place. Each of two reads follows an index.
    for after in ("updated_at = %(moment)s AND key > %(place)s", "updated_at < %(moment)s") if place.key else ("true",):
        plan = _Plan(_OF_WHOLE, f"{where} AND {after}", None, keys, limit - len(rows))
        rows += plan.run(connection, values, ladder("postgresql", plan.look_ups(), None, plan.every)) or ()
        if len(rows) == limit:
            break
    return rows


def _newest_at_once(
    connection: Any, columns: Columns, terms: Sequence[Term], condition: Node | None, keys: KeyRange, window: int
) -> Sequence[Row] | None:
    """Return the newest matches, newest first, or None if no single statement can find them."""
    where, values = _matching(connection, terms, condition, keys)
    plan = _Plan(columns, where, condition, keys, window)
    if _needs_steps(terms, condition):
        steps = ladder("postgresql", [*plan.look_ups(), plan.by_filter], plan.among_newest, plan.every)
    elif keys.has_limits:
        steps = ladder("postgresql", plan.look_ups(), None, plan.every)
    else:
        steps = iter([plan.every()])
    return plan.run(connection, values, steps)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The steps of a search for the newest matches.

    Attributes:
        columns: the columns of a match.
        where: the condition that matches satisfy, but for the filter.
        condition: the metadata filter.
        keys: the range of the keys.
        window: how many matches are needed.
    """

    columns: Columns
    where: str
    condition: Node | None
    keys: KeyRange
    window: int

    def look_ups(self) -> list[Callable[[StepLimits], Step[str]]]:
        """Return the step that looks up the keys of the range, if it has limits."""
        return [self.in_range] if self.keys.has_limits else []

    def in_range(self, limits: StepLimits) -> Step[str]:
        """Return the step that looks up the keys of the range."""
        # In SELECT, the words are made once and not for each row.
        where = self.where.replace(_WORDS, f"(SELECT {_WORDS})")
        if not limits.is_small:
            return self._step(_RANGE_OF_KEYS, where, counted="ranged", most_keys=limits.matches)
        # With a filter this returns all matches, because the filter may refuse some of them.
        window = self.window if self.condition is None else limits.matches + 2
        return self._step(_RANGE_OF_ROWS, where, most_keys=limits.matches, window=window)

    def by_filter(self, limits: StepLimits) -> Step[str]:
        """Return the step that looks up the metadata."""
        if limits.is_small:
            return self._step(_SORTED_ROWS, most_rows=limits.matches, window=limits.matches + 1)
        return self._step(_SORTED_KEYS, counted="matches", most_keys=limits.matches)

    def among_newest(self, limits: StepLimits) -> Step[str]:
        """Return the step that looks for enough matches among the newest entries."""
        return replace(self._step(_AMONG_NEWEST, newest=limits.newest), is_partial=True, limit=limits.newest)

    def every(self) -> Step[str]:
        """Return the step that reads all matches."""
        return self._step(_ALL)

    def run(self, connection: Any, values: Mapping[str, Any], steps: Iterable[Step[str]]) -> Sequence[Row] | None:
        """Return the matches of the first step that answers; None if no step does."""

        def read(step: Step[str]) -> Sequence[Row] | None:
            parameters = {"window": self.window, **step.parameters}
            rows = connection.execute(step.statement, {**values, **parameters}).fetchall()
            if len(rows) > parameters.get("most_rows", len(rows)):
                return None
            matches = [*fitting(in_time(connection, rows), self.condition)]
            # The limit was reached, but the filter refuses some of these rows: there may be more matches.
            return None if len(matches) < len(rows) == parameters["window"] else matches[: self.window]

        return first_answer(steps, read, self.window)

    def _step(self, statement: str, where: str = "", *, counted: str = "", **parameters: int) -> Step[str]:
        columns = self.columns
        sql = statement.format(
            columns=_select(columns),
            columns_in_range=_select({**columns, "key": "CASE WHEN is_over THEN NULL ELSE key END"}),
            names=", ".join(columns),
            nulls=", ".join(["NULL"] * len(columns)),
            where=where or self.where,
            counted=counted,
        )
        return Step(sql, parameters)


class PostgresReader:
    """Reads for a search on one connection, in a transaction that sees one state; see ``Reader``."""

    def __init__(
        self, connection: Any, condition: Node | None, keys: KeyRange, rules: Language, *, keeps_words: bool
    ) -> None:
        """Search the entries with this filter and range of keys. ``keeps_words``: whether the table stores words."""
        self._columns = _OF_READ if keeps_words else {**_OF_READ, "search_text": "''"}
        self._connection, self._condition, self._keys = connection, condition, keys
        self._prefix_terms = terms_of_prefix(keys.prefix, rules)

    def newest(self, terms: Sequence[Term], limit: int, *, filtered: bool) -> list[Read]:
        """Return the newest entries, see ``Reader.newest``."""
        condition = self._condition if filtered else None
        rows = _newest_at_once(self._connection, self._columns, terms, condition, self._keys, limit)
        if rows is None:
            where, values = _matching(self._connection, terms, condition, self._keys)
            statement = _STREAM.format(columns=_select(self._columns), where=where)
            rows = self._first(statement, values, limit, condition)
        return _as_read(rows)

    def having(self, terms: Sequence[Term], limit: int) -> list[Read]:
        """Return entries that satisfy terms, see ``Reader.having``."""
        where, values = _matching(self._connection, terms, self._condition, self._keys, also=self._prefix_terms)
        if self._keys.has_limits:
            plan = _Plan(self._columns, where, self._condition, self._keys, limit + 1)
            rows = plan.run(self._connection, values, map(plan.in_range, STEP_LIMITS["postgresql"]))
            if rows is not None:
                return _as_read(rows)
        where = where.replace(_WORDS, f"(SELECT {_WORDS})")
        statement = _HAVING.format(columns=_select(self._columns), where=where)
        if self._condition is None:
            sql = f"{statement} LIMIT %(window)s"
            rows = self._connection.execute(sql, {**values, "window": limit + 1}).fetchall()
        else:
            rows = self._first(statement, values, limit + 1, self._condition)
        return _as_read(rows)

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
        """Return the results of a search, or the damage, at these keys, in their order. All scores are 0.0."""
        results = {row[0]: row for row in self._connection.execute(_RESULTS, {"keys": [*keys]})}
        return [result_of(results[key], in_utc) for key in keys]


def undamaged_of(
    connection: Any, terms: Sequence[Term], condition: Node | None, keys: KeyRange, offset: int, limit: int
) -> Result:
    """Return the result of a search that found damage. The connection is in a transaction that sees one state."""
    where, values = _matching(connection, terms, condition, keys)
    words = "search_text" if has_words(terms) else "''"
    columns = _select({**_named(ITEM[:3]), "words": words, **_named(TIMED[3:])})  # the order that ``undamaged`` takes
    with streamed(connection) as cursor:
        rows = cursor.execute(_STREAM.format(columns=columns, where=where), values)
        return undamaged_results(in_time(connection, rows), terms, condition, offset, limit, in_utc)


def more_conditions(keys: KeyRange) -> str:
    """Return the end of the conditions of a statement that reads a range of keys, besides ``IN_RANGE``."""
    return f" AND {_NAMESPACED}" if keys.is_nested else ""


def _as_read(rows: Iterable[Row]) -> list[Read]:
    """Convert rows of ``_OF_READ``."""
    return [Read(row[0], *row[2:]) for row in rows]


def _select(columns: Columns) -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql in columns.items())


def _needs_steps(terms: Sequence[Term], condition: Node | None) -> bool:
    """Return whether the index on metadata may find few entries, which the planner does not expect."""
    return bool(equalities(condition)) and all(term.negated for term in terms)


def _matching(
    connection: Any, terms: Sequence[Term], condition: Node | None, keys: KeyRange, *, also: Sequence[Term] = ()
) -> tuple[str, dict[str, Any]]:
    """Return an SQL condition and its parameters.

    It selects the entries that satisfy every term and may satisfy the filter.

    ``also`` has more terms that every match has, for the index.
    """
    in_index, values = indexed_filter(condition)
    conditions = [VISIBLE, in_index]
    if not connection.is_direct and (values or terms):
        conditions.append(WHOLE_INDEX)
    if keys.has_limits:  # for a prepared statement, the planner would expect that even a range of all keys selects few
        conditions.append(f"{IN_RANGE}{more_conditions(keys)}")
        values |= range_of(keys)
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
