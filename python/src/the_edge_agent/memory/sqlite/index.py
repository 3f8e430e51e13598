"""The full-text index of entries in SQLite: the tokens of their search texts, and words for their metadata.

A word for metadata begins with ``qx``; no search token does. Each string, number, true and false below a key makes one
word, of the key, the type and the value, in hexadecimal digits. Long words and fractions are cut, so a filter must
still be checked for the matches of the index. SQLite itself makes these words, both when rows are written and when a
filter is searched. So they agree for any encoding of the database.
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
# The index has only words with the numbers of rows. It has no text, positions or sizes, because SQL checks phrases and
# Python ranks. It has no content table, so SQLite refuses to rebuild it; a rebuild would lose the words for metadata.
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

#: SQL for the part of an index query that stands for a filter. ``lookups_json`` makes the value of its parameter.
METADATA_QUERY: Final = (
    "(SELECT group_concat('(' || {words} || ')', ' AND ') FROM json_each(:{parameter}) AS one_of)".replace(
        "{words}", _WORDS.format(word=f"""'"' || {_WORD} || '"'""", between="' OR '", json="one_of.value")
    )
)


def definitions(table: str, *, has_json: bool) -> list[str]:
    """Return the statements that create the index of a table of entries and the triggers that keep it.

    Args:
        table: the name of the table.
        has_json: whether SQLite has JSON functions. Without them the index has no words for metadata.
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


def lookups_json(groups: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return the value for the parameter of ``METADATA_QUERY``, from the groups of ``core.filters.index_lookups``."""
    return json.dumps(groups[: GROUPS["sqlite"]])


def term_query(term: Term) -> str:
    """Return the query of the full-text index for a term. Its tokens have only ASCII letters and digits."""
    end = "*" if term.prefix else ""
    variants = [" AND ".join(f'"{token}"' for token in tokens) + end for tokens in term.variants]
    return variants[0] if len(variants) == 1 else f"({' OR '.join(f'({variant})' for variant in variants)})"


def _words_of(metadata: str) -> str:
    checked = (
        f"CASE WHEN json_valid({metadata}) THEN {metadata} END"  # metadata that is not JSON would make the store fail
    )
    return _WORDS.format(word=_WORD, between="' '", json=checked)
