"""Whether the file of an SQLite database is damaged: asked where SQLite does not explain why a call failed."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

_CHECK: Final = "PRAGMA integrity_check(1)"  # ends at the first fault; a whole file takes seconds


def is_damage(error: BaseException, connection: Any) -> bool:
    """Return whether an error came of a damaged file: SQLite says so now, or already with the error.

    Args:
        error: of SQLite, or of Python's about what was read.
        connection: of the driver, on which a check ends with the time of the call; None without one.
    """
    # A name or a message of SQLite's that is no UTF-8; what has no class of its own is a code for damage.
    if isinstance(error, UnicodeDecodeError) or type(error) is sqlite3.DatabaseError:
        return True
    if connection is None:
        return False
    try:
        return tuple(connection.execute(_CHECK).fetchone()) != ("ok",)
    except Exception as problem:
        return any(text in str(problem) for text in ("malformed", "not a database"))
