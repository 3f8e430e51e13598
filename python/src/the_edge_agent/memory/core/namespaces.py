"""Namespaces: parts of a memory that have keys of their own. The full key of an entry begins with its namespace.

The full key is ``@``, the names joined by ``/``, ``.`` and the key: ``@users/ada.note``. In names ``%``, ``.`` and
``/`` are written as ``%25``, ``%2E`` and ``%2F``; the key stays as it is. No character is between ``.`` and ``/``. So
the keys of a namespace are one range of the index, and the keys of all namespaces below it are the next range.

A key that has not exactly this form, such as ``@ada`` or ``@a//b.c``, is a key of no namespace. Such a key may lie in
the range of a namespace with all that is below it: a read of that range must leave it out, see ``KeyRange.is_nested``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH, check_key, check_prefix, check_text, end_of_prefix

Names: TypeAlias = tuple[str, ...]

#: How the signs of the encoding are written in names.
ESCAPES: Final = ("%25", "%2E", "%2F")
_NAME: Final = f"(?:[^%./]|{'|'.join(ESCAPES)})+"
_HEAD: Final = re.compile(rf"@({_NAME}(?:/{_NAME})*)\.(?=.)", re.DOTALL)
_FIRST: Final = "\x01"  # the lowest character of a key
_LEAST_KEY: Final = 1  # characters that a namespace must leave for the key


@dataclass(frozen=True, slots=True)
class KeyRange:
    """A range of full keys, which a call reads.

    Attributes:
        start: the lowest key that may be in the range; ``""`` for all keys.
        end: every key of the range is lower; None if the range has no end.
        prefix: the prefix that all keys of the range have, without their namespace; ``""`` if they have none, or may
            have different namespaces.
        is_nested: whether keys of no namespace are left out. Such a key may lie between ``start`` and ``end``.
        is_open: whether the key ``start`` itself is left out.
    """

    start: str = ""
    end: str | None = None
    prefix: str = ""
    is_nested: bool = False
    is_open: bool = False

    @classmethod
    def of_prefix(cls, prefix: str) -> KeyRange:
        """Return the range of the full keys with this prefix."""
        return cls(prefix, end_of_prefix(prefix), _own_prefix(prefix))

    @property
    def has_limits(self) -> bool:
        """Whether there may be keys outside of the range."""
        return bool(self.start)

    def after(self, key: str) -> KeyRange:
        """Return the part of the range after a key; the whole range for ``""``."""
        return replace(self, start=key, is_open=True) if key and key >= self.start else self

    def before(self, key: str) -> KeyRange:
        """Return the part of the range before a key; the whole range for ``""``."""
        return replace(self, end=key) if key and (self.end is None or key < self.end) else self

    def __contains__(self, key: str) -> bool:
        """Return whether a full key is in the range."""
        is_between = self.start <= key and (self.end is None or key < self.end)
        return (
            is_between and not (self.is_open and key == self.start) and (not self.is_nested or bool(split_key(key)[0]))
        )


EVERYTHING: Final = KeyRange()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace. ``ROOT`` stands for the whole memory, whose keys are the full keys.

    Attributes:
        names: the names, outermost first.
        head: what each full key begins with: ``@users/ada.``; empty for the root.
    """

    names: Names = ()
    head: str = ""

    @classmethod
    def of(cls, names: Sequence[Any]) -> Namespace:
        """Check names and return their namespace.

        Raises:
            LTMError: ``validation_error``.
        """
        checked = tuple([_check_name(name, place) for place, name in enumerate(names)])
        if not checked:
            return ROOT
        head = f"@{'/'.join(map(_escaped, checked))}."
        if len(head) > MAX_KEY_LENGTH - _LEAST_KEY:
            raise LTMError(
                "validation_error",
                f"the names of a namespace may take {MAX_KEY_LENGTH - _LEAST_KEY} characters of the full key "
                f"{head[:40]!r}..., not {len(head)}",
            )
        return cls(checked, head)

    def below(self, names: Sequence[Any]) -> Namespace:
        """Return the namespace with these further names.

        Raises:
            LTMError: ``validation_error``.
        """
        return Namespace.of((*self.names, *names))

    def full_key(self, key: Any) -> str:
        """Check a key of this namespace, and return the full key.

        Raises:
            LTMError: ``validation_error``; a full key has at most 512 characters.
        """
        if not self.head:
            return check_key(key)
        self._check_length(key, "key")
        return self.head + check_key(key)

    def key_of(self, full_key: str) -> str:
        """Return the key in this namespace, from a full key that begins with ``head``."""
        return full_key[len(self.head) :]

    def place_of(self, full_key: str) -> tuple[Names, str]:
        """Return the namespace of a full key, as names below this one, and the key there."""
        names, key = split_key(full_key)
        return names[len(self.names) :], key

    def key_range(self, prefix: Any = None, *, nested: bool = False) -> KeyRange:
        """Check a prefix and return the range of the full keys with it.

        Args:
            prefix: the prefix of keys in this namespace, or None.
            nested: whether the range also has the keys of all namespaces below this one.

        Raises:
            LTMError: ``validation_error``, also for a prefix together with ``nested``.
        """
        if self.head:
            self._check_length(prefix, "prefix")
        checked = check_prefix(prefix)
        if checked and nested:
            raise LTMError("validation_error", "prefix is of the keys of one namespace; it does not go with nested")
        if not self.head:
            return KeyRange.of_prefix(checked)
        if nested:
            return KeyRange(self.head + _FIRST, self.head[:-1] + "0", is_nested=True)
        return KeyRange(self.head + (checked or _FIRST), end_of_prefix(self.head + checked), checked)

    def after(self, key: str) -> str:
        """Return the full key of ``key``, after which a page begins; ``""`` for the first page."""
        if not self.head or not key:
            return key
        self._check_length(key, "after")
        return self.head + key

    def _check_length(self, text: Any, what: str) -> None:
        left = MAX_KEY_LENGTH - len(self.head)
        if isinstance(text, str) and len(text) > left:
            raise LTMError(
                "validation_error",
                f"{what} must have at most {left} characters in the namespace, not {len(text)}: the full key, which "
                f"begins with {self.head[:40]!r}, has at most {MAX_KEY_LENGTH}",
            )


ROOT: Final = Namespace()


def split_key(full_key: str) -> tuple[Names, str]:
    """Return the names of the namespace of a full key, and the key there. A key of no namespace has no names."""
    found = _HEAD.match(full_key) if full_key.startswith("@") else None
    if found is None:
        return (), full_key
    return tuple(map(_unescaped, found[1].split("/"))), full_key[found.end() :]


def own_key(full_key: str) -> str:
    """Return the key without its namespace, whose words are searched."""
    return split_key(full_key)[1] if full_key.startswith("@") else full_key


def _own_prefix(prefix: str) -> str:
    """Return a prefix of full keys without the namespace; ``""`` if the prefix may end within the namespace."""
    if not prefix.startswith("@"):
        return prefix
    return split_key(prefix)[1] if _HEAD.match(prefix) else ""


def _check_name(name: Any, place: int) -> str:
    if isinstance(name, str) and not name:
        raise LTMError("validation_error", f"name {place} of a namespace must not be empty")
    return check_text(name, f"name {place} of a namespace")


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace(".", "%2E").replace("/", "%2F")


def _unescaped(name: str) -> str:
    return name.replace("%2E", ".").replace("%2F", "/").replace("%25", "%")
