"""Settings of an SQLite connection that change answers or lose data: set for our own, refused on a caller's.

Other settings were tried one by one, and no answer differs; those that make a call fail say so by themselves.
"""

from __future__ import annotations

import codecs
import sqlite3
from collections.abc import Collection
from operator import methodcaller
from typing import Any, Final

_MARKED: Final = "the_edge_agent.no_utf8"


def _marked(error: UnicodeError) -> tuple[str, int]:
    """Write bytes that are no UTF-8 as escapes after a NUL, which makes damage of every text that we keep."""
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return "".join(f"\0\\x{byte:02x}" for byte in bad), error.end


codecs.register_error(_MARKED, _marked)
TOLERANT: Final = methodcaller("decode", "utf-8", _MARKED)  # all of it C, as long as a text is UTF-8

# In WAL mode the file stays sound without waiting for the disk at each commit.
OURS: Final = (
    "PRAGMA synchronous=NORMAL",
    "PRAGMA trusted_schema=ON",
    "PRAGMA count_changes=OFF",
    "PRAGMA read_uncommitted=OFF",
)

# The values that are right, and what else is to be done. A pragma that this SQLite does not know answers nothing.
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
_LIKE: Final = "SELECT 'ab' LIKE '%b', 'ab' LIKE 'b'"  # case_sensitive_like makes another function of it
_DISTINCT: Final = "SELECT count(*) FROM (SELECT 'a' UNION SELECT 'A' UNION SELECT 'a ')"
_TABLE: Final = "CREATE TABLE temp.tea_types (a TEXT, b VARCHAR(512), c BIGINT, d INTEGER, e DATETIME)"
_VALUES: Final = ("a1", "a1", 1, 1, "2000-01-01 00:00:00.000000")


def why_unusable(connection: Any, *, is_file: bool) -> str | None:
    """Return why a connection would answer wrongly or lose data, and what to do; None if it is right.

    Args:
        connection: of the driver, in no transaction.
        is_file: whether its database is a file.
    """
    if connection.row_factory not in (None, sqlite3.Row):
        return "the connection has a row_factory of its own; leave it out, or use sqlite3.Row"
    if connection.text_factory not in (str, TOLERANT):
        return "the connection has a text_factory of its own; leave it out"
    wanted = {**_EVERYWHERE, **_IN_FILES} if is_file else _EVERYWHERE
    for name, (values, remedy) in wanted.items():
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
    except Exception:  # an SQLite that cannot list them
        return None
    if replaced:
        return f"the connection replaces SQLite's function {replaced[0][0]}; give its function another name"
    return None


def _of_types(connection: Any) -> str | None:
    connection.execute("DROP TABLE IF EXISTS temp.tea_types")
    connection.execute(_TABLE)
    found: Any = None
    try:
        connection.execute("INSERT INTO temp.tea_types VALUES (?, ?, ?, ?, ?)", _VALUES)
        try:
            found = tuple(connection.execute("SELECT * FROM temp.tea_types").fetchone())
        except Exception:  # what a converter raises
            found = None
    finally:
        connection.rollback()
        connection.execute("DROP TABLE IF EXISTS temp.tea_types")
    if found == _VALUES:
        return None
    return "the connection converts values by the types of their columns; leave detect_types out"
