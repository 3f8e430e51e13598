"""The words of texts and queries for the model, written from docs/search.md."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
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
_COUNTS_ONCE: Final = 77  # characters of a word that count as one word
_LONGEST_STEMMED: Final = 60
_LONGEST_WITH_MARKS: Final = 40

# From docs/search.md, "The language".
_STEMMED_WITHOUT_MARKS: Final = ("english", "porter", "indonesian", "sesotho")
_WITH_POSSESSIVES: Final = ("english", "porter")
_STOP_WORDS: Final = {
    "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi", "french": "fr", "german": "de", "hungarian": "hu",
    "italian": "it", "norwegian": "no", "porter": "en", "portuguese": "pt", "russian": "ru", "spanish": "es",
    "swedish": "sv", "turkish": "tr",
}  # fmt: skip

Words = tuple[str, ...]


class TooManyWordsError(Exception):
    """A query has too many words."""


class Indexed:
    """The words of one entry, string by string."""

    def __init__(self, strings: list[Words]) -> None:
        """Count the words."""
        self.strings = strings
        self.counts = Counter(word for words in strings for word in words)
        self.length = sum(self.counts.values())


@dataclass(frozen=True)
class Term:
    """One term of a query: a word or adjacent words.

    Attributes:
        forms: the forms in which the words may be indexed.
        is_open: whether the last word may be the beginning of a longer one.
        is_negated: whether the term must not occur.
        shown: the name of the term in ``explain``.
    """

    forms: tuple[Words, ...]
    is_open: bool = False
    is_negated: bool = False
    shown: str = field(default="", compare=False)

    @property
    def size(self) -> int:
        """How many words the term counts for in the limit of a query."""
        return sum(math.ceil(_written_length(word) / _COUNTS_ONCE) for words in self.forms for word in words)

    def count(self, entry: Indexed) -> int:
        """Return how often the term occurs in an entry. Occurrences of one form do not overlap."""
        return sum(self._count_of(words, entry) for words in self.forms)

    def _count_of(self, form: Words, entry: Indexed) -> int:
        if len(form) > 1:
            return sum(self._count_in(words, form) for words in entry.strings)
        if self.is_open:
            return sum(count for word, count in entry.counts.items() if word.startswith(form[0]))
        return entry.counts[form[0]]

    def _count_in(self, words: Words, form: Words) -> int:
        count = start = 0
        while start + len(form) <= len(words):
            if self._is_at(words[start : start + len(form)], form):
                count += 1
                start += len(form)
            else:
                start += 1
        return count

    def _is_at(self, words: Words, form: Words) -> bool:
        if words[:-1] != form[:-1]:
            return False
        return words[-1].startswith(form[-1]) if self.is_open else words[-1] == form[-1]


@dataclass(frozen=True)
class Question:
    """A parsed query.

    Attributes:
        conditions: the terms that must occur and, negated, those that must not.
        telling: with ``match="any"`` the terms that select and rank entries; empty if there are only conditions.
    """

    conditions: tuple[Term, ...]
    telling: tuple[Term, ...] = ()


class Vocabulary:
    """Splits texts and queries into the words of one language. ``none`` means exact words."""

    def __init__(self, language: str) -> None:
        """Use the language with this name."""
        self.language = language
        self._has_stems = language != "none"
        self._keeps_marks = self._has_stems and language not in _STEMMED_WITHOUT_MARKS
        self._stems: dict[str, str] = {}

    def words_of(self, text: str) -> Words:
        """Return the words of one string, as they are indexed."""
        return tuple(word for run in self._runs(text) for word in self._indexed(run))

    def indexed(self, *items: Any) -> Indexed:
        """Return the words of each string and number at any depth of JSON values."""
        return Indexed([self.words_of(text) for text in _texts(items)])

    def parse(self, query: str | None, match: str) -> Question | None:
        """Return the parsed query, or None if it is empty.

        Raises:
            TooManyWordsError: the query has more than 200 words.
        """
        if query is None or not query or query.isspace():
            return None
        if match == "any":
            return self._question(query)
        conditions = tuple(self._conditions(query))
        _check_size(conditions)
        return Question(conditions)

    # --- match="all" ----------------------------------------------------------------------------------

    def _conditions(self, query: str) -> Iterator[Term]:
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
                text, shown, has_star = query[place + 1 : end], f'"{query[place + 1 : end]}"', False
                place = end + 1
            else:
                end = _end_of_chunk(query, place)
                text = shown = query[place:end]
                has_star, place = text.endswith("*"), end
            part = self._side_by_side(text, shown, is_negated=is_negated, has_star=has_star)
            if part is not None:
                yield part

    def _side_by_side(self, text: str, shown: str, *, is_negated: bool, has_star: bool) -> Term | None:
        runs = self._runs(text)
        if not runs:
            return None
        if _has_no_spaces(runs[-1][0]):
            is_open = len(runs[-1]) == 1
        else:
            is_open = has_star and _ends_with_letter(text.rstrip("*"))
        return Term(self._forms(runs, is_open=is_open), is_open, is_negated, shown)

    def _forms(self, runs: Sequence[str], *, is_open: bool) -> tuple[Words, ...]:
        """Return the forms of adjacent words: with marks and without; the beginning of a word also without stemming."""
        forms: list[Words] = []
        for some in (runs, [_without_marks(run) for run in runs]):
            words = [word for run in some for word in self._indexed(run)]
            if _has_no_spaces(some[-1][0]):
                if len(some[-1]) > 1:
                    words.pop()  # the last character alone: the text of an entry may go on after it
                forms.append(tuple(words))
                continue
            forms.append(tuple(words))
            if is_open:
                forms.append((*words[:-1], _without_marks(some[-1])))
        different = list(dict.fromkeys(forms))
        if not is_open:
            return tuple(different)
        return tuple(one for one in different if not any(_is_beginning(other, one) for other in different))

    # --- match="any" ----------------------------------------------------------------------------------

    def _question(self, query: str) -> Question:
        conditions: list[Term] = []
        words: list[Term] = []
        for sign, text, is_phrase in _parts(query):
            if is_phrase or sign:
                has_star = not is_phrase and text.endswith("*")
                shown = f'"{text}"' if is_phrase else text
                part = self._side_by_side(text, shown, is_negated=sign == "-", has_star=has_star)
                if part is None:
                    continue
                if sign:
                    conditions.append(part)
                    continue
                if part.size <= _MAX_WORDS:
                    words.append(part)
                    continue
            words += self._each(text, has_star=not is_phrase and text.endswith("*"))
        conditions = list(dict.fromkeys(conditions))
        _check_size(conditions)
        telling = [part for part in conditions if not part.is_negated]
        telling += [part for part in words if not self._tells_nothing(part)]
        fitting: list[Term] = []
        for part in dict.fromkeys(telling or words):
            if sum(each.size for each in fitting) + part.size <= _MAX_WORDS:
                fitting.append(part)
        return Question(tuple(conditions), tuple(fitting))

    def _each(self, text: str, *, has_star: bool) -> Iterator[Term]:
        runs = self._runs(text)
        for place, run in enumerate(runs):
            if _has_no_spaces(run[0]):
                pairs = [run[start : start + 2] for start in range(len(run) - 1)]
                yield from (Term(((pair,),), shown=pair) for pair in pairs)
                if not pairs:
                    yield Term(((run,),), is_open=True, shown=run)
                continue
            is_open = has_star and place == len(runs) - 1 and _ends_with_letter(text.rstrip("*"))
            yield Term(self._forms([run], is_open=is_open), is_open, shown=run + "*" * is_open)

    def _tells_nothing(self, part: Term) -> bool:
        return not part.is_open and part.shown in self._stop_words

    @cached_property
    def _stop_words(self) -> set[str]:
        if self.language not in _STOP_WORDS:
            return set()
        lists: Any = import_module("whoosh.lang.stopwords")
        return {run for word in lists.stoplists[_STOP_WORDS[self.language]] for run in self._runs(word)}

    # --- words ----------------------------------------------------------------------------------------

    def _indexed(self, run: str) -> list[str]:
        if _has_no_spaces(run[0]):
            return [run[place : place + 2] for place in range(len(run))]
        return [_without_marks(self._stem(run)) or _without_marks(run)]

    def _stem(self, run: str) -> str:
        has_digits = any(unicodedata.category(character)[0] == "N" for character in run)
        if not self._has_stems or len(run) > _LONGEST_STEMMED or has_digits:
            return run
        if run not in self._stems:
            module = import_module(f"snowballstemmer.{self.language}_stemmer")
            stemmer: Any = getattr(module, self.language.title().replace("_", "") + "Stemmer")()
            stem = stemmer.stemWord(run)
            has_letters = any(unicodedata.category(character)[0] == "L" for character in stem)
            self._stems[run] = stem if has_letters else run
        return self._stems[run]

    def _runs(self, text: str) -> list[str]:
        """Return the runs of letters and digits of one kind of script. A symbol is a run of its own."""
        characters = list(_characters(text))
        if self.language in _WITH_POSSESSIVES:
            characters = _without_possessives(characters)
        runs: list[str] = []
        pending = ""
        for character, kind in [*characters, (" ", "gap")]:
            if kind in ("letter", "mark"):
                pending += character
                continue
            runs += self._runs_of(pending)
            pending = ""
            if kind == "symbol":
                runs.append(character)
        return runs

    def _runs_of(self, letters: str) -> Iterator[str]:
        """Yield the longest runs of letters, digits and marks."""
        bare = _without_marks(letters)
        if not bare:
            return
        letters = letters[letters.index(bare[0]) :]  # marks at the beginning do not belong to a letter
        is_marked = letters != bare and len(letters) <= _LONGEST_WITH_MARKS
        if self._keeps_marks and is_marked and not any(map(_has_no_spaces, bare)):
            yield unicodedata.normalize("NFC", letters)
            return
        run = ""
        for character in bare:
            if run and _has_no_spaces(run[-1]) != _has_no_spaces(character):
                yield run
                run = ""
            run += character
        yield run


def score(question: Question, rarities: Iterable[float], entry: Indexed) -> tuple[float, list[dict[str, Any]]]:
    """Return the score of an entry and its explanation; docs/search.md has the formula."""
    parts = question.telling or [part for part in question.conditions if not part.is_negated]
    added: list[float] = []
    told: list[dict[str, Any]] = []
    for part, rarity in zip(parts, rarities, strict=True):
        occurs = part.count(entry)
        added.append(rarity * (occurs * 2.2 / (occurs + 1.2 * (0.25 + 0.75 * entry.length / 100))))
        if occurs:
            told.append({"term": part.shown, "score": round(added[-1], 6)})
    return round(math.fsum(added), 6), told


def rarity(among: int, having: int) -> float:
    """Return the weight of a word that ``having`` of ``among`` entries have."""
    return round(math.log(1 + (among - having + 0.5) / (having + 0.5)), 6)


def _parts(query: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the parts of a question: its operator, its text, and whether it is a phrase."""
    place = 0
    while place < len(query):
        sign = query[place] if query[place] in "+-" else ""
        after = place + len(sign)
        is_quoted = query[after : after + 1] == '"'
        end = query.find('"', after + 1) if is_quoted else -1
        if end >= 0:
            yield sign, query[after + 1 : end], True
            place = end + 1
        elif query[place].isspace() or query[place] == '"':
            place += 1
        else:
            end = _end_of_chunk(query, place)
            is_operator = sign and unicodedata.category(query[after : after + 1] or " ")[0] == "L"
            yield (sign, query[after:end], False) if is_operator else ("", query[place:end], False)
            place = end


def _end_of_chunk(query: str, place: int) -> int:
    while place < len(query) and not query[place].isspace() and query[place] != '"':
        place += 1
    return place


def _check_size(parts: Iterable[Term]) -> None:
    if sum(part.size for part in parts) > _MAX_WORDS:
        raise TooManyWordsError


def _written_length(word: str) -> int:
    return sum(1 if character.isascii() and character != "q" else 5 for character in word)


def _is_beginning(other: Words, one: Words) -> bool:
    """Return whether ``other`` is shorter than ``one`` and a beginning of it."""
    return other != one and other[:-1] == one[:-1] and one[-1].startswith(other[-1])


def _texts(items: Iterable[Any]) -> Iterator[str]:
    pending = list(items)
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            yield item
        elif item is not None and not isinstance(item, bool):
            yield repr(item)


def _characters(text: str) -> Iterator[tuple[str, str]]:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    for character in folded:
        category = unicodedata.category(character)
        if category.startswith(("L", "N")):
            yield character, "letter"
        elif category == "So" or ord(character) in _SKIN_TONES:
            yield character, "symbol"
        elif category.startswith("M"):
            yield character, "mark"
        elif character == "\u200b" or category != "Cf":
            yield character, "gap"


def _without_possessives(characters: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Remove marks, and ``'s`` at the end of a word."""
    bare = [(character, kind) for character, kind in characters if kind != "mark"]
    kinds = ["gap", *(kind for _, kind in bare), "gap", "gap"]
    left_out: set[int] = set()
    for place in range(len(bare) - 1):
        is_s = bare[place][0] in "'\u2019" and bare[place + 1][0] == "s"
        if is_s and kinds[place] == "letter" and kinds[place + 3] != "letter":
            left_out |= {place, place + 1}
    return [each for place, each in enumerate(bare) if place not in left_out]


def _ends_with_letter(text: str) -> bool:
    kinds = [kind for _, kind in _characters(text) if kind != "mark"]
    return kinds[-1:] == ["letter"]


def _without_marks(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word)
    return "".join(character for character in decomposed if not unicodedata.category(character).startswith("M"))


def _has_no_spaces(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _WITHOUT_SPACES)
