"""Searches of the native PostgreSQL memory: indexes find what may match, the functions that define it decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from the_edge_agent.memory.filters import Node, equalities
from the_edge_agent.memory.native_rows import best, entry_of, fits, range_of, window_of
from the_edge_agent.memory.postgres_database import contained, streamed
from the_edge_agent.memory.text import Term

VISIBLE: Final = "(expires_at IS NULL OR expires_at > now())"
IN_PREFIX: Final = "key >= %(prefix)s AND key < %(end)s"
FOUND: Final = "SELECT key, value, metadata, version, storage_uri FROM ltm_entries WHERE key = ANY(%(keys)s)"
_NEWEST_FIRST: Final = "ORDER BY updated_at DESC, key"
# Asked for the newest the planner would look at all entries from the newest on, because it takes each value of the
# metadata to be common, without statistics and in a plan that is kept.
_FEW_ROWS: Final = 200
_FEW: Final = f"WITH found AS MATERIALIZED ({{matching}} LIMIT {{most}}) SELECT * FROM found {_NEWEST_FIRST}"


def search_results(
    connection: Any, terms: Sequence[Term], condition: Node | None, prefix: str, first: int, most: int
) -> list[dict[str, Any]]:
    """Return ``{"key", "value", "metadata", "score"}`` of what matches, best first, in a transaction of one state."""
    statement, values = _matching(terms, condition, prefix)
    if condition is None:  # every row fits, so that the database can end where the window does
        values["window"] = window_of(terms, first, most)
        rows = connection.execute(f"{statement} {_NEWEST_FIRST} LIMIT %(window)s", values)
        return _found(connection, best(rows, terms, first, most))
    if _finds_few(terms, condition):
        rows = connection.execute(_FEW.format(matching=statement, most=_FEW_ROWS + 1), values).fetchall()
        if len(rows) <= _FEW_ROWS:
            fitting = [row for row in rows if fits(condition, row[1])]
            return _found(connection, best(fitting, terms, first, most))
    with streamed(connection) as cursor:
        rows = cursor.execute(f"{statement} {_NEWEST_FIRST}", values)
        ranked = best((row for row in rows if fits(condition, row[1])), terms, first, most)
    return _found(connection, ranked)


def _finds_few(terms: Sequence[Term], condition: Node | None) -> bool:
    """Return whether an index may find few entries of which the planner does not know that they are few."""
    return bool(equalities(condition)) and all(term.negated for term in terms)


def _matching(terms: Sequence[Term], condition: Node | None, prefix: str) -> tuple[str, dict[str, Any]]:
    """Return the statement for ``(key, metadata, search_text, updated_at)`` of what satisfies every term.

    And its parameters. What satisfies the filter is among it.
    """
    in_index, values = contained(condition)
    conditions = [VISIBLE, in_index]
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
    text = "search_text" if positive else "''"
    where = " AND ".join(conditions)
    return f"SELECT key, metadata, {text}, updated_at FROM ltm_entries WHERE {where}", values


def _looked_up(term: Term) -> str:
    """Return what the text index is asked for a term; its tokens are ASCII letters and digits."""
    return " & ".join(term.tokens) + (":*" if term.prefix else "")


def _found(connection: Any, ranked: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
    rows = connection.execute(FOUND, {"keys": [key for _, key in ranked]}) if ranked else ()
    entries = {row[0]: entry_of(*row[1:]) for row in rows}
    names = ("value", "metadata")
    return [{"key": key, **{name: entries[key][name] for name in names}, "score": rank} for rank, key in ranked]
