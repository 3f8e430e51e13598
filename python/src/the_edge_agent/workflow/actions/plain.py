"""Times and namespaces in files and in the state: there they are JSON, in the memory they are Python objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from the_edge_agent.memory import LTMError

_MOMENT: Final = re.compile(  # for the same result on every Python: fromisoformat of 3.10 reads fewer forms
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?(Z|[+-]\d{2}:\d{2})?)?", re.ASCII
)


def moment(text: Any, what: str = "expires_at") -> Any:
    """Return the time that a text names. Values that are not text are returned unchanged; the memory checks them.

    Raises:
        LTMError: ``validation_error`` that begins with ``what``.
    """
    if not isinstance(text, str):
        return text
    if parts := _MOMENT.fullmatch(text):
        day, minute, second, fraction, zone = parts.groups()
        written = f"{day}T{minute or '00:00'}:{second or '00'}.{fraction or '0':0<6}"
        try:
            time = datetime.fromisoformat(written + (zone or "Z").replace("Z", "+00:00"))
            return time.astimezone(timezone.utc)
        except (ValueError, OverflowError):
            pass  # such as a 13th month
    raise LTMError("validation_error", f"{what} must be a time in ISO 8601, such as 2030-12-31T23:59:59+00:00")


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry or a result with its times as ISO 8601 text in UTC, and its namespace as a list."""
    return {name: _plain(value) for name, value in fields.items()}


def all_plain(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return ``plain`` of each entry."""
    return [*map(plain, entries)]


def plain_in(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a result whose list ``name`` of entries or namespaces is plain, or its dict ``name`` of entries by key."""
    found = result.get(name)
    if isinstance(found, dict):
        return {**result, name: {key: _plain_item(item) for key, item in found.items()}}
    return {**result, name: [*map(_plain_item, found)]} if isinstance(found, list) else dict(result)


def _plain_item(item: Any) -> Any:
    return plain(item) if isinstance(item, Mapping) else _plain(item)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat(timespec="microseconds")
    return list(value) if isinstance(value, tuple) else value
