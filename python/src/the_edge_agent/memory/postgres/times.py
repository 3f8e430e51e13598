"""Times of PostgreSQL as text in UTC: drivers read a time by the session's TimeZone and DateStyle."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

#: How ``to_char`` writes a time; it makes NULL of infinity.
AS_TEXT: Final = """'YYYY-MM-DD HH24:MI:SS.US"+00:00"AD'"""
#: Makes an interval of a parameter that ``microseconds`` returns.
MICROSECONDS: Final = "::bigint * interval '1 microsecond'"


def utc(column: str) -> str:
    """Return the SQL for a time as ``in_utc`` reads it."""
    return f"coalesce(to_char({column} AT TIME ZONE 'UTC', {AS_TEXT}), {column}::text)"


def in_utc(timestamp: str | None) -> datetime | None:
    """Return a time of the server's, written by ``utc``.

    Raises:
        ValueError: it is none of Python's: infinity, before the year 1 or after 9999.
    """
    return None if timestamp is None else datetime.fromisoformat(timestamp.removesuffix("AD"))


def microseconds(duration: timedelta | None) -> int | None:
    """Return a duration as it is bound to ``MICROSECONDS``, whatever the session's IntervalStyle is."""
    return None if duration is None else duration // timedelta(microseconds=1)
