"""Full keys for the models: written from the documentation, without the code under test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final, TypeAlias

Names: TypeAlias = tuple[str, ...]

_ESCAPES: Final = {"/": "%2F", ".": "%2E", "%": "%25"}  # "%" is last, so that "%252F" is read as "%2F"


def full_key(names: Sequence[str], key: str) -> str:
    """Return the full key of a key in a namespace."""
    escaped = ["".join(_ESCAPES.get(character, character) for character in name) for name in names]
    return f"@{'/'.join(escaped)}.{key}" if names else key


def place_of(key: str) -> tuple[Names, str]:
    """Return the names of the namespace of a full key, and the key there.

    A key that ``full_key`` does not return for any namespace belongs to none, and has no names.
    """
    head, dot, own = key.partition(".")
    if not head.startswith("@") or not dot or not own:
        return (), key
    names = tuple(reduce(_unescaped, _ESCAPES.items(), name) for name in head[1:].split("/"))
    return (names, own) if all(names) and full_key(names, own) == key else ((), key)


def _unescaped(name: str, escape: tuple[str, str]) -> str:
    return name.replace(escape[1], escape[0])
