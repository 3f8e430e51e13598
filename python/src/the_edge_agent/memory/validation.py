"""The rules for keys, prefixes and limits, the same for every backend."""

from __future__ import annotations

from typing import Any

from the_edge_agent.memory.results import LTMError

MAX_KEY_LENGTH = 512  # characters; 2,048 bytes of UTF-8 fit the index of every supported database
MAX_LIMIT = 10_000
MAX_OFFSET = 2**31 - 1


def check_key(key: Any) -> str:
    """Return ``key``: text of 1 to 512 characters without NUL or lone surrogates.

    Raises:
        LTMError: ``validation_error``.
    """
    if not isinstance(key, str):
        raise LTMError("validation_error", f"key must be a string, not {type(key).__name__}")
    if not key:
        raise LTMError("validation_error", "key must not be empty")
    return _check_text(key, "key")


def check_prefix(prefix: Any) -> str:
    """Return the key prefix, ``""`` for None.

    Raises:
        LTMError: ``validation_error`` for what no key can begin with.
    """
    if prefix is None:
        return ""
    if not isinstance(prefix, str):
        raise LTMError("validation_error", f"prefix must be a string or None, not {type(prefix).__name__}")
    return _check_text(prefix, "prefix")


def check_limit(limit: Any) -> int:
    """Return ``limit``, an integer from 1 to 10,000.

    Raises:
        LTMError: ``validation_error``.
    """
    return _check_int(limit, "limit", 1, MAX_LIMIT)


def check_offset(offset: Any) -> int:
    """Return ``offset``, an integer of at least 0.

    Raises:
        LTMError: ``validation_error``.
    """
    return _check_int(offset, "offset", 0, MAX_OFFSET)


def check_encodable(text: str, what: str) -> None:
    """Refuse lone surrogates, which no database can store.

    Raises:
        LTMError: ``validation_error`` that begins with ``what``.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise LTMError("validation_error", f"{what} must not contain a lone surrogate") from None


def _check_text(text: str, what: str) -> str:
    if len(text) > MAX_KEY_LENGTH:
        raise LTMError("validation_error", f"{what} must have at most {MAX_KEY_LENGTH} characters, not {len(text)}")
    if "\0" in text:
        raise LTMError("validation_error", f"{what} must not contain a NUL character")
    check_encodable(text, what)
    return str.__str__(text)  # the plain text of a subclass: str() of an enum is its name


def _check_int(number: Any, what: str, low: int, high: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise LTMError("validation_error", f"{what} must be an integer from {low:,} to {high:,}")
    return int(number)
