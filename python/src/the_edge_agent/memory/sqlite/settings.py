"""Settings of an SQLite connection that could change answers or lose data.

Our own connections set them. A connection of the caller with a wrong setting is refused. All other settings were tried
one by one: either no answer differs, or the call fails with a clear error.
"""

from __future__ import annotations

import codecs
import sqlite3
from collections.abc import Collection
from operator import methodcaller
from typing import Any, Final

_MARKED: Final = "the_edge_agent.no_utf8"


def _marked(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are not UTF-8 as NUL and an escape. No stored text may have NUL, so this text is damaged."""
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return "".join(f"\0\\x{byte:02x}" for byte in bad), error.end


codecs.register_error(_MARKED, _marked)
TOLERANT: Final = methodcaller("decode", "utf-8", _MARKED)  # for text in UTF-8 no Python code runs

# In WAL mode synchronous=NORMAL is safe: a crash cannot damage the file, although commits do not wait for the disk.
OURS: Final = (
    "PRAGMA synchronous=NORMAL",
    "PRAGMA trusted_schema=ON",
    "PRAGMA count_changes=OFF",
    "PRAGMA read_uncommitted=OFF",
)

# The right values of each setting, and the remedy for another value. An SQLite that does not have a pragma returns no
# row.
_EVERYWHERE: Final[dict[str, tuple[Collection[Any], str]]] = {
    "encoding": (("UTF-8",), "copy the data into a database that was made with UTF-8"),
    "trusted_schema": ((1,), "set it to ON: triggers keep the full-text index"),
    "count_changes": ((0,), "set it to OFF"),
    "read_uncommitted": ((0,), "set it to OFF"),
    "journal_mode": (("wal", "delete", "truncate", "persist", "memory"), "set it to WAL"),
}
_IN_FILES: Final[dict[str, tuple[Collection[Any], str]]] = {
    "journal_mode": (("wal", "delete", "truncate", "persist"), "set it to WAL"),
    "synchronous": ((1, 2, 3), "set it to NORMAL or FULL"),
    "locking_mode": (("normal",), "set it to NORMAL: other connections would wait for ever"),
}
_REPLACED: Final = """
    SELECT DISTINCT name FROM pragma_function_list WHERE NOT builtin AND name IN (
        'abs', 'coalesce', 'count', 'group_concat', 'hex', 'instr', 'json_each', 'json_extract', 'json_quote',
        'json_tree', 'json_type', 'json_valid', 'length', 'lower', 'max', 'min', 'nullif', 'printf', 'replace',
        'substr', 'sum', 'total', 'typeof')"""
_LIKE: Final = "SELECT 'ab' LIKE '%b', 'ab' LIKE 'b'"  # a test, because case_sensitive_like also replaces the function
_DISTINCT: Final = "SELECT count(*) FROM (SELECT 'a' UNION SELECT 'A' UNION SELECT 'a ')"
_TABLE: Final = "CREATE TABLE temp.tea_types (a TEXT, b VARCHAR(512), c BIGINT, d INTEGER, e DATETIME)"
_VALUES: Final = ("a1", "a1", 1, 1, "2000-01-01 00:00:00.000000")


def why_unusable(connection: Any, *, is_file: bool) -> str | None:
    """Return why a connection could give wrong answers or lose data, and what to do; None if it is right.

    Args:
        connection: a connection of the driver that is not in a transaction.
        is_file: whether its database is a file.
    """
    if connection.row_factory not in (None, sqlite3.Row):
        return "the connection has a row_factory of its own; leave it out, or use sqlite3.Row"
    if connection.text_factory not in (str, TOLERANT):
        return "the connection has a text_factory of its own; leave it out"
    expected = {**_EVERYWHERE, **_IN_FILES} if is_file else _EVERYWHERE
    for name, (values, remedy) in expected.items():
        row = connection.execute(f"PRAGMA {name}").fetchone()
        if row is not None and row[0] not in values:
            return f"the setting {name} of SQLite is {row[0]}; {remedy}"
    return _of_functions(connection) or _of_types(connection)


def _of_functions(connection: Any) -> str | None:
    if connection.execute(_DISTINCT).fetchone()[0] != 3:
        return "the connection has a collation BINARY of its own, which orders keys otherwise; give it another name"
    if tuple(connection.execute(_LIKE).fetchone()) != (1, 0):
        return "the connection replaces SQLite's function like; give its function another name"
    try:
        replaced = connection.execute(_REPLACED).fetchall()
    except Exception:  # this SQLite cannot list its functions
        return None
    if replaced:
        return f"the connection replaces SQLite's function {replaced[0][0]}; give its function another name"
    return None


def _of_types(connection: Any) -> str | None:
    connection.execute("DROP TABLE IF EXISTS temp.tea_types")
    connection.execute(_TABLE)
    row: Any = None
    try:
        connection.execute("INSERT INTO temp.tea_types VALUES (?, ?, ?, ?, ?)", _VALUES)
        try:
            row = tuple(connection.execute("SELECT * FROM temp.tea_types").fetchone())
        except Exception:  # a converter may raise anything
            row = None
    finally:
        connection.rollback()
        connection.execute("DROP TABLE IF EXISTS temp.tea_types")
    if row == _VALUES:
        return None
    return "the connection converts values by the types of their columns; leave detect_types out"
