"""The words of texts and queries as docs/search.md defines them, for the model."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

# Scripts without spaces: Thai, Lao, Myanmar, Khmer, kana, Han. From docs/search.md, "What is a word".
_WITHOUT_SPACES: Final = (
    (0x0E01, 0x0E4E),
    (0x0E80, 0x0ECF),
    (0x0EDC, 0x0EDF),
    (0x1000, 0x103F),
    (0x1780, 0x17D3),
    (0x3005, 0x3007),
    (0x3031, 0x3035),
    (0x3041, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
_SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
_MAX_WORDS: Final = 200

Words = tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """One part of a query: adjacent words, the last of which may go on if ``is_open``."""

    words: Words
    is_open: bool = False
    is_negated: bool = False

    def count(self, strings: Sequence[Words]) -> int:
        """Return how often this occurs in the strings of an entry; occurrences do not overlap."""
        return sum(self._count_in(words) for words in strings)

    def _count_in(self, words: Words) -> int:
        found = start = 0
        size = len(self.words)
        while start + size <= len(words):
            if self._is_at(words, start):
                found += 1
                start += size
            else:
                start += 1
        return found

    def _is_at(self, words: Words, start: int) -> bool:
        *before, last = words[start : start + len(self.words)]
        if tuple(before) != self.words[:-1]:
            return False
        return last.startswith(self.words[-1]) if self.is_open else last == self.words[-1]


class TooManyWordsError(Exception):
    """A query has more words than are allowed."""


def words_of(text: str) -> Words:
    """Return the words of one string."""
    return tuple(word for run in _runs(text) for word in _split(run))


def strings_of(*items: Any) -> list[Words]:
    """Return the words of each string and number at any depth of JSON values."""
    found, pending = [], list(items)
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            found.append(words_of(item))
        elif item is not None and not isinstance(item, bool):
            found.append(words_of(repr(item)))
    return found


def parse(query: str | None) -> list[Wanted] | None:
    """Return the parts of a query, None for no condition.

    Raises:
        TooManyWordsError: more than 200 words.
    """
    if query is None or not query or query.isspace():
        return None
    parts = [part for part in _parts(query) if part is not None]
    if sum(len(part.words) for part in parts) > _MAX_WORDS:
        raise TooManyWordsError
    return parts


def score(parts: Sequence[Wanted], strings: Sequence[Words]) -> float:
    """Return the score of an entry; docs/search.md has the formula."""
    length = sum(len(words) for words in strings)
    total = 0.0
    for part in parts:
        if not part.is_negated:
            occurs = part.count(strings)
            total += occurs * 2.2 / (occurs + 1.2 * (0.25 + 0.75 * length / 100))
    return round(total, 6)


def _parts(query: str) -> Iterator[Wanted | None]:
    place = 0
    while place < len(query):
        if query[place].isspace():
            place += 1
            continue
        is_negated = query[place] == "-" and place + 1 < len(query) and not query[place + 1].isspace()
        place += is_negated
        if query[place] == '"':
            end = query.find('"', place + 1)
            end = len(query) if end < 0 else end
            yield _wanted(query[place + 1 : end], is_negated, has_star=False)
            place = end + 1
        else:
            end = place
            while end < len(query) and not query[end].isspace() and query[end] != '"':
                end += 1
            word = query[place:end]
            yield _wanted(word, is_negated, has_star=word.endswith("*"))
            place = end


def _wanted(text: str, is_negated: bool, *, has_star: bool) -> Wanted | None:
    runs = _runs(text)
    if not runs:
        return None
    words = [word for run in runs for word in _split(run)]
    last = runs[-1]
    if _has_no_spaces(last[0]):
        if len(last) > 1:
            words.pop()  # the last character alone: what is looked for may go on
        return Wanted(tuple(words), is_open=len(last) == 1, is_negated=is_negated)
    kept = [kind for _, kind in _characters(text.rstrip("*"))]
    return Wanted(tuple(words), is_open=has_star and kept[-1] == "letter", is_negated=is_negated)


def _runs(text: str) -> list[str]:
    """Return runs of letters and digits of one kind of script; a symbol is a run of its own."""
    runs: list[str] = []
    goes_on = False
    for character, kind in _characters(text):
        if kind == "letter" and goes_on and _has_no_spaces(character) == _has_no_spaces(runs[-1][0]):
            runs[-1] += character
        elif kind != "gap":
            runs.append(character)
        goes_on = kind == "letter"
    return runs


def _characters(text: str) -> Iterator[tuple[str, str]]:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    for character in folded:
        category = unicodedata.category(character)
        if category.startswith(("L", "N")):
            yield character, "letter"
        elif category == "So" or ord(character) in _SKIN_TONES:
            yield character, "symbol"
        elif character == "\u200b" or not (category.startswith("M") or category == "Cf"):
            yield character, "gap"


def _split(run: str) -> list[str]:
    if not _has_no_spaces(run[0]):
        return [run]
    return [run[place : place + 2] for place in range(len(run))]


def _has_no_spaces(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _WITHOUT_SPACES)
