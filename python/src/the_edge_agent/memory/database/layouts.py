"""The tables that all our classes create, with their columns; refuses a table of the same name with other columns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from the_edge_agent.memory.core.languages import ENGLISH, Language, language
from the_edge_agent.memory.core.namespaces import split_key
from the_edge_agent.memory.core.results import LTMError

_logger = logging.getLogger("the_edge_agent.memory")
# The columns of the entries' table in the earlier public layout, which has no version.
_EARLIER: Final = frozenset({"key", "value", "metadata", "created_at", "updated_at"})
_ENTRIES: Final = "ltm_entries"
_WORDS: Final = "search_text"
# The columns of version 1.
_COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    _ENTRIES: _EARLIER | {"version", "write_id", "storage_uri", "expires_at"},  # and search_text, with full-text search
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

#: The version of the tables that this release creates and uses.
SCHEMA_VERSION: Final = 2
#: The steps from version 1 to this version: the columns, with their types, that each adds to a table of entries.
STEPS: Final[Mapping[int, Mapping[str, str]]] = {2: {"lifetime": "BIGINT", "is_indexed": "SMALLINT"}}
_ADDED: Final[Mapping[str, str]] = {name: kind for step in STEPS.values() for name, kind in step.items()}
_STALE: Final = "stale"  # in place of the fingerprint in the setting of a language: the words must be stored again
LANGUAGE: Final = "language"
#: The table and the name of the setting in which the language of the default table is stored.
LANGUAGE_OF: Final = (_ENTRIES, LANGUAGE)


def check_layouts(
    columns_of: Callable[[str], Iterable[str]],
    more: Mapping[str, Iterable[str]] | None = None,
    *,
    search: bool | None = None,
) -> None:
    """Refuse a database that has tables of our names in another layout than the present one.

    Args:
        columns_of: returns the columns of a table; nothing if the table does not exist.
        more: further columns that a class needs, by table.
        search: as for ``check_kind``.

    Raises:
        LTMError: ``configuration_error``.
    """
    for name, columns in _COLUMNS.items():
        existing = set(columns_of(name))
        if name == _ENTRIES:
            check_kind(name, existing, search=search)
        if not existing or existing >= columns.union((more or {}).get(name, ())):
            continue
        if name == _ENTRIES and is_earlier(existing):
            raise LTMError(
                "configuration_error",
                f"the database has a table {name} of an earlier layout; open it once with SQLAlchemyBackend, "
                "which brings it up to date",
            )
        raise another_layout(name)


def check_version(table: str, version: Any) -> int:
    """Return the version of the schema that is stored in a database: this release's, or one that it can bring up to it.

    Args:
        table: the name of the table in which the version is stored.
        version: the value that was read from this table.

    Raises:
        LTMError: ``configuration_error`` if the value is a later version than ours, or no version at all.
    """
    if not isinstance(version, int):
        raise another_layout(table)
    if not 1 <= version <= SCHEMA_VERSION:
        raise LTMError(
            "configuration_error",
            f"the database has schema version {version}; this release knows 1 to {SCHEMA_VERSION}. Use the release of "
            "the-edge-agent that created it, or another database",
        )
    return version


def missing_columns(columns: Iterable[str]) -> dict[str, str]:
    """Return the columns, with their types, that the steps add to an entries' table with these columns."""
    existing = set(columns)
    return {name: kind for name, kind in _ADDED.items() if name not in existing}


def is_added(column: str) -> bool:
    """Return whether a step has added this column, so that a table of version 1 lacks it."""
    return column in _ADDED


def has_namespaced(keys: Iterable[str]) -> bool:
    """Return whether one of the keys has a namespace.

    Version 1 did not know namespaces: it stored the words of the whole key.
    """
    return any(split_key(key)[0] for key in keys)


def stale_setting(setting: str) -> str:
    """Return the language setting that says that the words must be stored again."""
    return f"{setting.partition(' ')[0]} {_STALE}"


def check_kind(name: str, columns: Iterable[str], *, search: bool | None) -> None:
    """Refuse an entries' table that has full-text search although it is opened without, or the other way round.

    Args:
        name: the name of the table.
        columns: the columns of the table.
        search: whether the table must have full-text search; None accepts both.

    Raises:
        LTMError: ``configuration_error``.
    """
    names = set(columns)
    has_words = keeps_words(names)
    if has_words is None and names and not is_earlier(names):
        raise another_layout(name)
    if search is None or has_words is None or has_words == search:
        return
    preposition, option = ("with", "True") if has_words else ("without", "False")
    raise LTMError(
        "configuration_error",
        f"the table {name} was made {preposition} full-text search; open it with search={option} "
        f"(full_text: {option.lower()}), or copy it into another table or database",
    )


def setting_of_language(name: str | None) -> str:
    """Return the language setting that is stored for a new table: the name and the fingerprint of the stemming rules.

    Args:
        name: the name of the language; None for English.
    """
    rules = language(name or ENGLISH)
    return f"{rules.name} {rules.fingerprint}".strip()


def check_language_of(table: str, requested: str | None, setting: str | None) -> Language:
    """Return the rules of the language of a table.

    Args:
        table: the name of the table.
        requested: the language that the table must have; None accepts any language.
        setting: the result of ``setting_of_language`` when the table was created; None if there is no setting.

    Raises:
        LTMError: ``configuration_error`` if the table has another language or none, or if the installed stemmer does
            not know the language.
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
        cause = (
            "an earlier release of the-edge-agent stored the words of some entries by other rules."
            if fingerprint == _STALE
            else f"the installed release of snowballstemmer stems some words of {name} otherwise than the release with "
            "which they were stored."
        )
        remedy = "run `tea memory optimize` (SQLAlchemyBackend.optimize())"
        _logger.warning("%s: %s Searches may miss these words; %s", table, cause, remedy)
    return rules


def language_name(table: str, setting: str | None) -> str:
    """Return the name of the language of a table that has full-text search.

    Args:
        table: the name of the table.
        setting: the result of ``setting_of_language`` when the table was created; None if there is no setting.

    Raises:
        LTMError: ``configuration_error`` if the table has no language.
    """
    if setting is None:
        raise LTMError(
            "configuration_error",
            f"the table {table} keeps words, but ltm_settings does not have their language. If it is a copy of another "
            f"table, copy that table's row of ltm_settings too, with {table} as table_name; else use another database",
        )
    return setting.partition(" ")[0]


def keeps_words(columns: Iterable[str]) -> bool | None:
    """Return whether an entries' table with these columns has full-text search; None if it has another layout."""
    existing = set(columns)
    return _WORDS in existing if existing >= _COLUMNS[_ENTRIES] else None


def is_earlier(columns: set[str]) -> bool:
    """Return whether these are the columns of the entries' table in the earlier public layout."""
    return columns >= _EARLIER and "version" not in columns


def another_layout(name: str) -> LTMError:
    """Return the error for a database in which another application has a table of our name."""
    return LTMError("configuration_error", f"the database has a table {name} of another layout; use another database")
