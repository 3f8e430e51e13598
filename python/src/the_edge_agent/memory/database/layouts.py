"""The tables that every class of ours makes, by their columns, and what is said where such a name is another's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from the_edge_agent.memory.core.languages import ENGLISH, Language, language
from the_edge_agent.memory.core.results import LTMError

_logger = logging.getLogger("the_edge_agent.memory")
_EARLIER: Final = frozenset({"key", "value", "metadata", "created_at", "updated_at"})  # of the entries, without version
_ENTRIES: Final = "ltm_entries"
_WORDS: Final = "search_text"
_COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    _ENTRIES: _EARLIER | {"version", "write_id", "storage_uri", "expires_at"},  # and search_text, if words are kept
    "ltm_catalog": frozenset(
        {"id", "key", "content_hash", "storage_uri", "byte_size", "inlined_value", "metadata", "metadata_hash"}
        | {"expires_at", "created_at", "updated_at", "version"}
    ),
    "ltm_snapshots": frozenset({"id", "name", "entry_count", "total_bytes", "created_at"}),
    "ltm_snapshot_entries": frozenset(
        {"snapshot_id", "entry_id", "key", "content_hash", "metadata_hash", "byte_size", "expires_at"}
    ),
    "ltm_settings": frozenset({"table_name", "name", "value"}),
    "ltm_schema_version": frozenset({"id", "version"}),
}

#: The version of the tables that this release makes and uses.
SCHEMA_VERSION: Final = 1
LANGUAGE: Final = "language"
#: The table and the name of the setting that keeps the language of the usual table.
LANGUAGE_OF: Final = (_ENTRIES, LANGUAGE)


def check_layouts(
    columns_of: Callable[[str], Iterable[str]],
    more: Mapping[str, Iterable[str]] | None = None,
    *,
    search: bool | None = None,
) -> None:
    """Refuse a database that has tables of our names in a layout that is not today's.

    Args:
        columns_of: returns the columns of a table, none if it is not there.
        more: columns by table that a class needs besides.
        search: what ``check_kind`` wants of the entries.

    Raises:
        LTMError: ``configuration_error``.
    """
    for name, columns in _COLUMNS.items():
        found = set(columns_of(name))
        if name == _ENTRIES:
            check_kind(name, found, search=search)
        if not found or found >= columns.union((more or {}).get(name, ())):
            continue
        if name == _ENTRIES and is_earlier(found):
            raise LTMError(
                "configuration_error",
                f"the database has a table {name} of an earlier layout; open it once with SQLAlchemyBackend, "
                "which brings it up to date",
            )
        raise another_layout(name)


def check_version(table: str, version: Any) -> int:
    """Return the version of the schema that a database keeps.

    Args:
        table: the name of the table that keeps it.
        version: that was read there.

    Raises:
        LTMError: ``configuration_error`` for any other version than ours, and for what is no version.
    """
    if not isinstance(version, int):
        raise another_layout(table)
    if version != SCHEMA_VERSION:
        raise LTMError(
            "configuration_error",
            f"the database has schema version {version}; this release knows {SCHEMA_VERSION}. Use the release of "
            "the-edge-agent that has made it, or another database",
        )
    return version


def check_kind(name: str, columns: Iterable[str], *, search: bool | None) -> None:
    """Refuse an entries' table of ours that was made with full-text search where none is wanted, or without it.

    Args:
        name: of the table.
        columns: that it has.
        search: whether words are to be kept; None takes both.

    Raises:
        LTMError: ``configuration_error``.
    """
    has_words = keeps_words(columns)
    if search is None or has_words is None or has_words == search:
        return
    made, search_option = ("with", "True") if has_words else ("without", "False")
    raise LTMError(
        "configuration_error",
        f"the table {name} was made {made} full-text search; open it with search={search_option} "
        f"(full_text: {search_option.lower()}), or copy it into another table or database",
    )


def setting_of_language(name: str | None) -> str:
    """Return the setting that a new table keeps for its language: the name and the fingerprint of the stems.

    Args:
        name: of the language; None for English.
    """
    rules = language(name or ENGLISH)
    return f"{rules.name} {rules.fingerprint}".strip()


def check_language_of(table: str, requested: str | None, setting: str | None) -> Language:
    """Return the rules of the language of a table.

    Args:
        table: its name.
        requested: the language that it must have; None for any.
        setting: what ``setting_of_language`` returned when the table was created; None if there is no setting.

    Raises:
        LTMError: ``configuration_error`` for another language, one that the installed stemmer does not know, and a
            table that has none.
    """
    name = language_name(table, setting)
    fingerprint = (setting or "").partition(" ")[2]
    if requested not in (None, name):
        raise LTMError(
            "configuration_error",
            f"the table {table} keeps words of the language {name}, and this memory is opened with "
            f"language={requested}; open it with language={name} or without, or copy it into another table or database",
        )
    rules = language(name)
    if rules.fingerprint != fingerprint:
        _logger.warning(
            "%s: the installed release of snowballstemmer stems some words of %s otherwise than the release that has "
            "stored them, so that searches may miss these; run `tea memory optimize` (SQLAlchemyBackend.optimize())",
            table,
            name,
        )
    return rules


def language_name(table: str, setting: str | None) -> str:
    """Return the name of the language of a table that keeps words.

    Args:
        table: its name.
        setting: what ``setting_of_language`` returned when the table was created; None if there is no setting.

    Raises:
        LTMError: ``configuration_error`` for a table that has none.
    """
    if setting is None:
        raise LTMError(
            "configuration_error",
            f"the table {table} keeps words, but ltm_settings does not have their language. If it is a copy of another "
            f"table, copy that table's row of ltm_settings too, with {table} as table_name; else use another database",
        )
    return setting.partition(" ")[0]


def keeps_words(columns: Iterable[str]) -> bool | None:
    """Return whether these columns of an entries' table keep words; None if they are not of today's layout."""
    found = set(columns)
    return _WORDS in found if found >= _COLUMNS[_ENTRIES] else None


def is_earlier(columns: set[str]) -> bool:
    """Return whether these are the columns of the entries' table of the earlier public layout."""
    return columns >= _EARLIER and "version" not in columns


def another_layout(name: str) -> LTMError:
    """Return the failure of a database in which another application has a table of our name."""
    return LTMError("configuration_error", f"the database has a table {name} of another layout; use another database")
