"""Find out whether the file of an SQLite database is damaged, if the error of SQLite does not say so."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

_CHECK: Final = "PRAGMA integrity_check(1)"  # stops at the first fault; a file without a fault takes seconds


def is_damage(error: BaseException, connection: Any) -> bool:
    """Return whether a damaged file has caused an error: the error itself tells, or a check of the file.

    Args:
        error: an error of SQLite, or of Python while it decoded a row.
        connection: a connection of the driver, on which to check the file; the check ends with the time of the call.
            None if there is none.
    """
    # UnicodeDecodeError: SQLite returned a name or a message that is not UTF-8. A plain DatabaseError, without a class
    # of its own, is an error code for damage.
    if isinstance(error, UnicodeDecodeError) or type(error) is sqlite3.DatabaseError:
        return True
    if connection is None:
        return False
    try:
        return tuple(connection.execute(_CHECK).fetchone()) != ("ok",)
    except Exception as problem:
        return any(text in str(problem) for text in ("malformed", "not a database"))
