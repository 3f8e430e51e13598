"""The tables that every class of ours makes, by their columns, and what is said where such a name is another's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from the_edge_agent.memory.results import LTMError

_EARLIER: Final = frozenset({"key", "value", "metadata", "created_at", "updated_at"})  # of the entries, without version
_ENTRIES: Final = "ltm_entries"
_COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    _ENTRIES: _EARLIER | {"search_text", "version", "write_id", "storage_uri", "expires_at"},
    "ltm_catalog": frozenset(
        {"id", "key", "content_hash", "storage_uri", "byte_size", "inlined_value", "metadata", "metadata_hash"}
        | {"expires_at", "created_at", "updated_at", "version"}
    ),
    "ltm_snapshots": frozenset({"id", "name", "entry_count", "total_bytes", "created_at"}),
    "ltm_snapshot_entries": frozenset(
        {"snapshot_id", "entry_id", "key", "content_hash", "metadata_hash", "byte_size", "expires_at"}
    ),
    "ltm_schema_version": frozenset({"id", "version"}),
}


def check_layouts(columns_of: Callable[[str], Iterable[str]], more: Mapping[str, Iterable[str]] | None = None) -> None:
    """Refuse a database that has tables of our names in a layout that is not today's.

    Args:
        columns_of: returns the columns of a table, none if it is not there.
        more: columns by table that a class needs besides.

    Raises:
        LTMError: ``configuration_error``.
    """
    for name, columns in _COLUMNS.items():
        found = set(columns_of(name))
        if not found or found >= columns.union((more or {}).get(name, ())):
            continue
        if name == _ENTRIES and is_earlier(found):
            raise LTMError(
                "configuration_error",
                f"the database has a table {name} of an earlier layout; open it once with SQLAlchemyBackend, "
                "which brings it up to date",
            )
        raise another_layout(name)


def is_earlier(columns: set[str]) -> bool:
    """Return whether these are the columns of the entries' table of the earlier public layout."""
    return columns >= _EARLIER and "version" not in columns


def another_layout(name: str) -> LTMError:
    """Return the failure of a database in which another application has a table of our name."""
    return LTMError("configuration_error", f"the database has a table {name} of another layout; use another database")
