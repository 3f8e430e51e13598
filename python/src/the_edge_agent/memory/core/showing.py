"""What messages and reprs may show of a caller's arguments: never a secret, even one in the wrong place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

_SCHEME: Final = re.compile(r"[^:/?#@]*://")
_USER_AND_PASSWORD: Final = re.compile(r"/[^/]*:[^/]*@")
_ORDINARY_NAME: Final = re.compile(r"[a-z_-]{1,20}")
STRAY_CHARACTER: Final = (
    "the url has a line break or another control character, or a space before or behind it; remove it"
)
SECRET_WORDS: Final = ("pass", "pwd", "secret", "token")
_SHORT: Final = 3  # characters
_LONGEST_NUMBER: Final = 2**63


def kind_of(value: Any) -> str:
    """Return how a message describes a bad value: numbers, booleans and None as they are, else the name of the type."""
    is_number = type(value) in (int, float) and -_LONGEST_NUMBER <= value < _LONGEST_NUMBER
    return repr(value) if value is None or isinstance(value, bool) or is_number else type(value).__name__


def name_of(name: Any) -> str:
    """Return how a message shows an unknown name: a space and the name if it looks harmless, else nothing."""
    return f" {name!r}" if isinstance(name, str) and _ORDINARY_NAME.fullmatch(name.strip().lower()) else ""


def ordinary(names: Iterable[str]) -> tuple[str, ...]:
    """Return those names that a message may show: they look like option names and do not mention a secret."""
    plain = (name for name in names if _ORDINARY_NAME.fullmatch(name.lower()))
    return tuple(name for name in plain if not any(word in name.lower() for word in SECRET_WORDS))


def has_control_character(url: str) -> bool:
    """Return whether a URL has a control character in it or a space around it. Files and shells add these."""
    return url != url.strip() or any(character < " " or character == "\x7f" for character in url)


def has_raw_login(url: str) -> bool:
    """Return whether the user or password of a URL has a character that must be percent-encoded there.

    A parser would take a part of such a password for the host, the port or the database, and messages show those.
    """
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url
    server, separator, path = rest.partition("/")
    login = server[: server.rfind("@") + 1]
    if "@" in login[:-1]:
        return True
    place = (server[len(login) :] + separator + path).partition("?")[0]
    if not server:  # the URL names a file; a file name may have an @
        return _USER_AND_PASSWORD.match(place) is not None
    return "@" in place


def words_of(values: Iterable[str]) -> set[str]:
    """Return the words of texts that may hold secrets. Words of up to 3 characters are left out: they hide nothing."""
    return {word for value in values for word in re.split(r"\W+", value) if len(word) > _SHORT}


def repr_of(owner: Any) -> str:
    """Return the repr of a memory or a catalog. It names the database, if there is one already."""
    database = getattr(owner, "_database", None)
    return f"{type(owner).__name__}({'' if database is None else repr(str(database))})"
