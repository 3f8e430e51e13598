"""``NamespaceListing``: finds the namespaces that have entries, in the index of the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.core.namespaces import KeyRange, Names, Namespace, split_key
from the_edge_agent.memory.core.results import LTMError

Keys: TypeAlias = Callable[[KeyRange, str, int], Iterable[str]]

ANY_NAME: Final = "*"
_MOST_KEYS: Final = 256  # that one statement reads
_OF_NAMESPACES: Final = KeyRange("@", "A", is_nested=True)  # all keys of namespaces; "A" is the character after "@"


@dataclass(frozen=True, slots=True)
class NamespaceListing:
    """The namespaces below one that satisfy conditions.

    Attributes:
        above: the namespace below which they are.
        prefix: the first names, below ``above``; ``ANY_NAME`` stands for any name.
        suffix: the last names.
        max_depth: how many names are shown at most; None for all.
    """

    above: Namespace
    prefix: Names = ()
    suffix: Names = ()
    max_depth: int | None = None

    @classmethod
    def of(cls, above: Namespace, prefix: Any, suffix: Any, max_depth: Any) -> NamespaceListing:
        """Check the arguments of ``list_namespaces``.

        Raises:
            LTMError: ``validation_error``.
        """
        if max_depth is not None and (isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < 1):
            raise LTMError("validation_error", "max_depth must be an integer of at least 1, or None")
        return cls(above, _check_names(prefix, "prefix"), _check_names(suffix, "suffix"), max_depth)

    def page(self, keys: Keys, offset: int, limit: int) -> list[Names]:
        """Return namespaces in the order of their full keys, as names below ``above``.

        It reads one key of each namespace, and skips the others in the index.

        Args:
            keys: takes a range of keys, a key and a number, and returns so many of the keys after that key, in order.
            offset: how many namespaces to skip.
            limit: how many to return at most.
        """
        found: list[Names] = []
        where, after, count = self._range(), "", 1
        while len(found) < offset + limit:
            read = [*islice(keys(where, after, count), count)]
            used = 0
            for key in read:
                if key <= after:
                    continue  # the key of a namespace that was passed over
                used += 1
                names = split_key(key)[0]
                if not names:  # a database whose functions on text differ from ours
                    after = key
                    continue
                shown = self._shown(names)
                if shown is not None:
                    found.append(shown)
                after = _last_key(names) if shown is None or len(shown) != self.max_depth else self._last_below(shown)
            if len(read) < count:
                break
            count = min(2 * count, _MOST_KEYS) if used == len(read) else used
        return found[offset : offset + limit]

    def _shown(self, names: Names) -> Names | None:
        """Return how a namespace is shown, or None if it does not satisfy the conditions."""
        below = names[len(self.above.names) :]
        if not below or len(below) < max(len(self.prefix), len(self.suffix)):
            return None
        last = below[len(below) - len(self.suffix) :]
        fits = all(map(_fits, self.prefix, below)) and all(map(_fits, self.suffix, last))
        return below[: self.max_depth] if fits else None

    def _last_below(self, names: Names) -> str:
        """Return a text above all keys of a namespace and of those below it, and below all keys that follow."""
        return self.above.below(names).head[:-1] + "0"

    def _range(self) -> KeyRange:
        """Return the range of the keys of all namespaces that may satisfy the conditions."""
        known = [*takewhile(lambda name: name != ANY_NAME, self.prefix)]
        start = self.above.below(known)
        return start.key_range(nested=True) if start.names else _OF_NAMESPACES


def _last_key(names: Names) -> str:
    """Return a text above all keys of a namespace, and below all keys that follow."""
    return Namespace.of(names).head[:-1] + "/"


def _fits(condition: str, name: str) -> bool:
    return condition in (ANY_NAME, name)


def _check_names(names: Any, what: str) -> Names:
    if names is None:
        return ()
    if not isinstance(names, (list, tuple)):
        raise LTMError("validation_error", f"{what} must be a tuple of names, not {type(names).__name__}")
    try:
        return Namespace.of(names).names
    except LTMError as failure:
        raise failure.within(what) from None
