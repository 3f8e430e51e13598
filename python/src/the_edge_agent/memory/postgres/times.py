"""Times of PostgreSQL as text in UTC, because drivers read a time by the session's TimeZone and DateStyle."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

#: The format for ``to_char``, which returns NULL for infinity.
AS_TEXT: Final = """'YYYY-MM-DD HH24:MI:SS.US"+00:00"AD'"""
#: SQL that turns a parameter of ``microseconds`` into an interval.
MICROSECONDS: Final = "::bigint * interval '1 microsecond'"


def utc(column: str) -> str:
    """Return the SQL for a column of times, as text that ``in_utc`` reads."""
    return f"coalesce(to_char({column} AT TIME ZONE 'UTC', {AS_TEXT}), {column}::text)"


def in_utc(timestamp: str | None) -> datetime | None:
    """Return a time of the server from the text that ``utc`` selects.

    Raises:
        ValueError: Python does not have this time: it is infinity, before the year 1, or after 9999.
    """
    return None if timestamp is None else datetime.fromisoformat(timestamp.removesuffix("AD"))


def microseconds(duration: timedelta | None) -> int | None:
    """Return a duration as the parameter for ``MICROSECONDS``. It does not depend on the session's IntervalStyle."""
    return None if duration is None else duration // timedelta(microseconds=1)
