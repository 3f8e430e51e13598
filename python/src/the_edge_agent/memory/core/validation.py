"""The rules for keys, prefixes, limits and options, the same for every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import kind_of

MAX_KEY_LENGTH = 512  # characters; 2,048 bytes of UTF-8 fit the index of every supported database
MAX_LIMIT = 10_000
_LEAST_IDLE = 5.0  # seconds; a busy machine may keep a transaction waiting for a while
MAX_OFFSET = 2**31 - 1
MAX_VERSION = 2**63 - 1
MAX_TTL = timedelta(days=36_525)  # 100 years; the last date of every database is later
_MICROSECOND = timedelta(microseconds=1)
ERRORS: Final[tuple[Literal["return", "raise"], ...]] = ("return", "raise")
ON_CONFLICT: Final[tuple[Literal["fail", "skip", "replace"], ...]] = ("fail", "skip", "replace")


class NotGiven(Enum):
    """The type of ``NOT_GIVEN``, the default of an argument for which None has a meaning of its own."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        """Return the name, as signatures show it."""
        return self.name


NOT_GIVEN: Final = NotGiven.NOT_GIVEN
TTL: TypeAlias = float | Literal[NotGiven.NOT_GIVEN] | None


def check_key(key: Any) -> str:
    """Return ``key``: text of 1 to 512 characters without NUL or lone surrogates.

    Raises:
        LTMError: ``validation_error``.
    """
    if type(key) is str and key.isascii() and 0 < len(key) <= MAX_KEY_LENGTH and "\0" not in key:
        return key  # most keys: ASCII has no surrogates
    if not isinstance(key, str):
        raise LTMError("validation_error", f"key must be a string, not {type(key).__name__}")
    if not key:
        raise LTMError("validation_error", "key must not be empty")
    return _check_text(key, "key")


def check_prefix(prefix: Any) -> str:
    """Return the key prefix, or ``""`` for None.

    Raises:
        LTMError: ``validation_error`` if no key can begin with ``prefix``.
    """
    return _check_optional(prefix, "prefix")


def check_required_prefix(prefix: Any) -> str:
    """Return a key prefix that must be given; ``""`` stands for all keys.

    Raises:
        LTMError: ``validation_error``, also for None.
    """
    if prefix is None:
        raise LTMError("validation_error", 'prefix must be a string; "" means every entry')
    return check_prefix(prefix)


def check_after(after: Any) -> str:
    """Return the key after which a page of keys begins, or ``""`` for None.

    Raises:
        LTMError: ``validation_error``.
    """
    return _check_optional(after, "after")


def end_of_prefix(prefix: str) -> str | None:
    """Return the smallest text that is greater than every text with this prefix, or None if there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if code == 0xD800 else code)  # no surrogates
        prefix = prefix[:-1]
    return None


def check_flag(name: str, flag: Any) -> bool:
    """Return the value of an option that must be true or false.

    Raises:
        LTMError: ``configuration_error``.
    """
    if not isinstance(flag, bool):
        raise LTMError("configuration_error", f"{name} must be true or false, not {kind_of(flag)}")
    return flag


def check_errors(errors: Any) -> Literal["return", "raise"]:
    """Return the option ``errors``: whether the methods of a memory return their failures, or raise them.

    Raises:
        LTMError: ``configuration_error``.
    """
    for way in ERRORS:
        if isinstance(errors, str) and errors == way:
            return way
    raise LTMError("configuration_error", f'errors must be "return" or "raise", not {kind_of(errors)}')


def check_seconds(name: str, seconds: Any) -> float:
    """Return the value of an option that must be a positive number of seconds, below a million.

    Raises:
        LTMError: ``configuration_error``.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e6:
        raise LTMError("configuration_error", f"{name} must be a positive number of seconds, not {kind_of(seconds)}")
    return float(seconds)


def check_idle_timeout(seconds: Any, timeout: float) -> float:
    """Return ``idle_transaction_timeout`` in seconds; None means half of ``timeout``, but at least 5 seconds.

    Raises:
        LTMError: ``configuration_error``.
    """
    if seconds is None:
        return max(_LEAST_IDLE, timeout / 2)
    return 0.0 if seconds == 0 and seconds is not False else check_seconds("idle_transaction_timeout", seconds)


def check_prepare_threshold(times: Any) -> int | None:
    """Return psycopg's ``prepare_threshold``: after how many runs a statement is prepared on the server. None: never.

    Raises:
        LTMError: ``configuration_error``.
    """
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 0):
        raise LTMError("configuration_error", f"prepare_threshold must be None or a whole number, not {kind_of(times)}")
    return times


def check_on_conflict(on_conflict: Any) -> Literal["fail", "skip", "replace"]:
    """Return the argument ``on_conflict`` of ``import_entries``.

    Raises:
        LTMError: ``validation_error``.
    """
    for way in ON_CONFLICT:
        if isinstance(on_conflict, str) and on_conflict == way:
            return way
    raise LTMError("validation_error", f'on_conflict must be "fail", "skip" or "replace", not {on_conflict!r:.40}')


def check_iterable(items: Any, what: str, kind: str = "a list or another iterable") -> Iterable[Any]:
    """Return a collection, or something that yields items.

    Raises:
        LTMError: ``validation_error`` that names ``kind``. Strings, bytes and dicts are not accepted.
    """
    if not isinstance(items, Iterable) or isinstance(items, (str, bytes, Mapping)):
        raise LTMError("validation_error", f"{what} must be {kind}, not {type(items).__name__}")
    return items


def check_items(items: Any, what: str) -> list[Any]:
    """Return a collection as a list.

    Raises:
        LTMError: ``validation_error`` if ``items`` is not a collection. Strings, bytes and dicts are not accepted.
    """
    return list(check_iterable(items, what, "a list"))


def check_keys(keys: Any, check: Callable[[Any], str] = check_key) -> list[str]:
    """Check keys. The results of ``check`` are returned in the order of the keys, each once.

    Raises:
        LTMError: ``validation_error``; it names the first bad key by its place.
    """
    checked: dict[str, None] = {}
    for place, key in enumerate(check_items(keys, "keys")):
        try:
            checked[check(key)] = None
        except LTMError as failure:
            raise failure.within(f"keys[{place}]") from None
    return list(checked)


def check_ttl(ttl: Any) -> timedelta | None:
    """Return a lifetime in seconds as a timedelta, or None for None.

    Raises:
        LTMError: ``validation_error`` if ``ttl`` is not a number of seconds from a microsecond to 100 years.
    """
    if ttl is None:
        return None
    is_number = isinstance(ttl, (int, float)) and not isinstance(ttl, bool)
    if is_number and 0 < ttl <= MAX_TTL.total_seconds() and (lifetime := timedelta(seconds=ttl)):
        return lifetime
    raise LTMError("validation_error", "ttl must be a number of seconds, from a microsecond to 100 years, or None")


def seconds_of(lifetime: timedelta | None) -> float | None:
    """Return a lifetime in seconds, exact to the microsecond; None for None."""
    return None if lifetime is None else lifetime / timedelta(seconds=1)


def microseconds_of(lifetime: timedelta | None) -> int | None:
    """Return a lifetime in microseconds; None for None."""
    return None if lifetime is None else lifetime // _MICROSECOND


def check_expiry(expires_at: Any, what: str = "expires_at") -> datetime | None:
    """Return a time in UTC with microseconds, or None for None. A time without a zone is taken as UTC.

    Raises:
        LTMError: ``validation_error`` if the time is not a datetime, or is outside of the years 1 to 9999 in UTC. The
            message begins with ``what``.
    """
    if expires_at is None:
        return None
    if not isinstance(expires_at, datetime):
        raise LTMError("validation_error", f"{what} must be a datetime or None, not {type(expires_at).__name__}")
    try:
        is_naive = expires_at.utcoffset() is None
        return expires_at.replace(tzinfo=timezone.utc) if is_naive else expires_at.astimezone(timezone.utc)
    except OverflowError:
        raise LTMError("validation_error", f"{what} must be between the years 1 and 9999 in UTC") from None


def check_boolean(value: Any, what: str) -> bool:
    """Return an argument that must be True or False.

    Raises:
        LTMError: ``validation_error``.
    """
    if isinstance(value, bool):
        return value
    raise LTMError("validation_error", f"{what} must be True or False, not {type(value).__name__}")


def check_if_version(version: Any) -> int | None:
    """Return ``if_version``: an integer of at least 0, or None.

    Raises:
        LTMError: ``validation_error``.
    """
    return None if version is None else _check_int(version, "if_version", 0, MAX_VERSION)


def check_version(version: Any) -> int:
    """Return a version: an integer of at least 1.

    Raises:
        LTMError: ``validation_error``.
    """
    return _check_int(version, "version", 1, MAX_VERSION)


def check_batch_size(batch_size: Any) -> int:
    """Return ``batch_size``, an integer from 1 to 10,000.

    Raises:
        LTMError: ``validation_error``.
    """
    return _check_int(batch_size, "batch_size", 1, MAX_LIMIT)


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


def _check_optional(text: Any, what: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise LTMError("validation_error", f"{what} must be a string or None, not {type(text).__name__}")
    return _check_text(text, what)


def check_text(text: Any, what: str) -> str:
    """Return text of any length without NUL or lone surrogates.

    Raises:
        LTMError: ``validation_error``.
    """
    if not isinstance(text, str):
        raise LTMError("validation_error", f"{what} must be a string, not {type(text).__name__}")
    return _check_characters(text, what)


def _check_text(text: str, what: str) -> str:
    if len(text) > MAX_KEY_LENGTH:
        raise LTMError("validation_error", f"{what} must have at most {MAX_KEY_LENGTH} characters, not {len(text)}")
    return _check_characters(text, what)


def _check_characters(text: str, what: str) -> str:
    if "\0" in text:
        raise LTMError("validation_error", f"{what} must not contain a NUL character")
    check_encodable(text, what)
    return str.__str__(text)  # the plain text of a subclass: str() of an enum is its name


def _check_int(number: Any, what: str, low: int, high: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise LTMError("validation_error", f"{what} must be an integer from {low:,} to {high:,}")
    return int(number)
