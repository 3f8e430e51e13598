"""The rules for arguments, for the model, written from docs/memory.md and docs/catalog.md."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any, Final

from the_edge_agent.testing.differential.answers import Failure
from the_edge_agent.testing.differential.conditions import depth, fits_metadata, is_json

INVALID: Final = "validation_error"
NOT_JSON: Final = "serialization_error"
_CENTURY: Final = 36_525 * 86_400
_PRINTABLE: Final = frozenset(string.ascii_letters + string.digits + string.punctuation)


class RefusedError(Exception):
    """A call breaks a rule. ``failure`` is the answer to the call."""

    def __init__(self, failure: Failure) -> None:
        """Make the exception with the answer to the call."""
        super().__init__(failure.error_type)
        self.failure = failure


def refuse(error_type: str = INVALID) -> RefusedError:
    """Return the exception for a ``validation_error`` without further fields."""
    return RefusedError(Failure(error_type))


def check_key(key: str, taken: int = 0) -> None:
    """1 to 512 characters, no NUL, no lone surrogate. The namespace takes some of the characters."""
    if not key:
        raise refuse()
    check_part_of_key(key, taken)


def check_part_of_key(text: str | None, taken: int = 0) -> None:
    """Up to 512 characters, no NUL, no lone surrogate: the rule for ``prefix`` and ``after``."""
    if text is not None and (len(text) > 512 - taken or "\0" in text or not is_json(text)):
        raise refuse()


def check_nested(prefix: str | None, nested: bool) -> None:
    """A prefix is not allowed with ``nested``."""
    if prefix and nested:
        raise refuse()


def check_value(value: Any) -> None:
    """Any JSON, 500 levels deep."""
    if depth(value) > 500:
        raise refuse()
    if not is_json(value):
        raise refuse(NOT_JSON)


def check_metadata(metadata: Any) -> None:
    """A JSON object or None, 30 levels deep, no NUL, integers within 64 bits."""
    if metadata is None:
        return
    if not isinstance(metadata, dict) or depth(metadata) > 30:
        raise refuse()
    if not is_json(metadata):
        raise refuse(NOT_JSON)
    if not fits_metadata(metadata):
        raise refuse()


def check_ttl(ttl: float | None) -> None:
    """From a microsecond to 100 years."""
    if ttl is not None and not 1e-6 <= ttl <= _CENTURY:
        raise refuse()


def check_if_version(version: int | None) -> None:
    """0 or more."""
    if version is not None and version < 0:
        raise refuse()


def check_limit(limit: int) -> None:
    """1 to 10,000: the rule for ``limit`` and ``batch_size``."""
    if not 1 <= limit <= 10_000:
        raise refuse()


def check_offset(offset: int) -> None:
    """0 to 2,147,483,647."""
    if not 0 <= offset <= 2_147_483_647:
        raise refuse()


def check_store(entry: dict[str, Any], taken: int = 0) -> None:
    """The arguments of a store. If several are wrong, value and metadata are reported last."""
    check_key(entry["key"], taken)
    check_ttl(entry.get("ttl"))
    check_if_version(entry.get("if_version"))
    if entry.get("ttl") is not None and entry.get("expires_at") is not None:
        raise refuse()
    check_value(entry["value"])
    check_metadata(entry.get("metadata"))


def check_import(entry: dict[str, Any], taken: int = 0) -> None:
    """An entry of an import. If several parts are wrong, value and metadata are reported last."""
    check_key(entry["key"], taken)
    check_ttl(entry.get("ttl"))
    if entry.get("ttl") is not None and entry.get("expires_at") is None:
        raise refuse()
    if not 1 <= entry.get("version", 1) < 2**63:
        raise refuse()
    check_value(entry["value"])
    check_metadata(entry.get("metadata"))


def check_track(entry: dict[str, Any]) -> None:
    """The arguments of ``track_entry``."""
    check_key(entry["key"])
    content_hash, size = entry["content_hash"], entry["byte_size"]
    if not 1 <= len(content_hash) <= 200 or not set(content_hash) <= _PRINTABLE:
        raise refuse()
    if size is not None and not 0 <= size < 2**63:
        raise refuse()
    check_value(entry.get("inlined_value"))
    check_metadata(entry["metadata"])


def check_each(items: list[Any], what: str, check: Callable[[Any], None]) -> None:
    """Check each item of a list. The failure names the first bad item by its place."""
    for place, item in enumerate(items):
        try:
            check(item)
        except RefusedError as refused:
            raise RefusedError(Failure(refused.failure.error_type, begins=f"{what}[{place}]: ")) from None
