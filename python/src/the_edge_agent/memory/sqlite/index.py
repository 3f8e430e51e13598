"""The full-text index of entries in SQLite: their search words, and as further words what their metadata holds.

A word for metadata begins with ``qx``, which no search token does, and has a key, the kind of its value and the value,
each as hexadecimal digits: every string, number, true and false below a key is one. The words are cut short and
fractions cut off, so that a filter still looks at what the index finds. SQLite makes them, when rows are written and
when a filter asks: the two cannot differ, whatever the encoding of the database.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from the_edge_agent.memory.core.tokens import Term
from the_edge_agent.memory.database.search_plan import GROUPS

_WORD: Final = (
    "'qx' || hex(substr(key, 1, 64)) || 'x' || CASE type WHEN 'text' THEN 's' || hex(substr(atom, 1, 40)) "
    "WHEN 'true' THEN 't' WHEN 'false' THEN 'f' ELSE 'n' || hex(CAST(atom AS INTEGER)) END"
)
_WORDS: Final = (
    "(SELECT group_concat({word}, {between}) FROM json_tree({json}) WHERE atom IS NOT NULL AND typeof(key) = 'text')"
)
# It holds rows of words, no text, no positions and no sizes: phrases are rechecked and the rank is ours. Without a
# content table SQLite refuses to rebuild it, by which it would lose the words for metadata.
_INDEX: Final = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS {fts} USING fts5({columns}, content='', tokenize='ascii', detail='none', "
    "columnsize=0)",
    "CREATE TRIGGER IF NOT EXISTS {inserted} AFTER INSERT ON {table} BEGIN "
    "INSERT INTO {fts} (rowid, {columns}) VALUES (new.id, {new}); END",
    "CREATE TRIGGER IF NOT EXISTS {deleted} AFTER DELETE ON {table} BEGIN "
    "INSERT INTO {fts} ({fts}, rowid, {columns}) VALUES ('delete', old.id, {old}); END",
    "CREATE TRIGGER IF NOT EXISTS {updated} AFTER UPDATE OF {changing} ON {table} WHEN {changed} BEGIN "
    "INSERT INTO {fts} ({fts}, rowid, {columns}) VALUES ('delete', old.id, {old}); "
    "INSERT INTO {fts} (rowid, {columns}) VALUES (new.id, {new}); END",
)

#: What the index is asked for on behalf of a filter, to be bound to ``wanted_text``.
ASKED: Final = "(SELECT group_concat('(' || {words} || ')', ' AND ') FROM json_each(:{wanted}) AS one_of)".replace(
    "{words}", _WORDS.format(word=f"""'"' || {_WORD} || '"'""", between="' OR '", json="one_of.value")
)


def definitions(table: str, *, has_json: bool) -> list[str]:
    """Return the statements that create the index of a table of entries and the triggers that keep it.

    Args:
        table: its name.
        has_json: whether SQLite has JSON functions; without them the index has no words for metadata.
    """
    names = {suffix: f'"{table}_{suffix}"' for suffix in ("fts", "inserted", "deleted", "updated")}
    names |= {"table": f'"{table}"', "columns": "search_text", "changing": "search_text"}
    names |= {row: f"{row}.search_text" for row in ("old", "new")}
    names["changed"] = "old.search_text <> new.search_text"
    if has_json:
        names |= {"columns": "search_text, metadata", "changing": "search_text, metadata"}
        names |= {row: f"{row}.search_text, {_words_of(f'{row}.metadata')}" for row in ("old", "new")}
        names["changed"] += " OR old.metadata IS NOT new.metadata"
    return [part.format(**names) for part in _INDEX]


def wanted_text(groups: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return the value for the parameter of ``ASKED``, from the groups that ``core.filters.index_lookups`` returns."""
    return json.dumps(groups[: GROUPS["sqlite"]])


def looked_up(term: Term) -> str:
    """Return the query for the full-text index that finds a term; its tokens are ASCII letters and digits."""
    end = "*" if term.prefix else ""
    variants = [" AND ".join(f'"{token}"' for token in tokens) + end for tokens in term.variants]
    return variants[0] if len(variants) == 1 else f"({' OR '.join(f'({variant})' for variant in variants)})"


def _words_of(metadata: str) -> str:
    checked = f"CASE WHEN json_valid({metadata}) THEN {metadata} END"  # what is no JSON would stop the store
    return _WORDS.format(word=_WORD, between="' '", json=checked)
