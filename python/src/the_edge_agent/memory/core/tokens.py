"""Full-text search that does not depend on a database's parser: tokens, terms, matching and scores, in Python.

Every database splits text in its own way. So this module makes the tokens, and databases index them as ASCII words
without a meaning. The Python functions that match and score are the definition; every dialect is tested against them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from the_edge_agent.memory.core.languages import NONE, Language, language
from the_edge_agent.memory.core.namespaces import own_key

WORD_PART = 77  # characters of a word in one token; with "qz" and "q" below 84, InnoDB's maximum
MAX_SEARCH_TEXT = 200_000  # characters; keeps a PostgreSQL tsvector under its limit of 1 MB
RANK_WINDOW = 1_000  # how many of the newest matches are ranked
EXACT = language(NONE)

TOKEN_START = "qz"  # noqa: S105 - makes every token at least 3 letters long and none a stop word
BREAK = ". "  # between two strings, so that no phrase crosses from one to the next

_CONTINUED = "qy"  # begins the next part of a long word; not TOKEN_START, so that the word is counted once
_DIGITS = "0123456789abcdefghijklmnoprstuvwxyz"  # without q, so that no token occurs inside another
# Scripts without spaces: Thai, Lao, Myanmar, Khmer, kana, Han. They are indexed as overlapping pairs of characters.
_PAIRED = (
    r"\u0e01-\u0e4e\u0e80-\u0ecf\u0edc-\u0edf\u1000-\u103f\u1780-\u17d3"
    r"\u3005-\u3007\u3031-\u3035\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U000323af"
)
_PAIRED_RUN = re.compile(f"[{_PAIRED}]+|[^{_PAIRED}]+")
_PAIRED_CHAR = re.compile(f"[{_PAIRED}]")
_CACHED_LENGTH = 20  # characters; the tokens of longer words are not cached
_CACHED_RUNS = 20_000
_FOLDED_LENGTH = 1_000  # characters normalised at a time: ordering a run of marks takes quadratic time
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_POSSESSIVE = re.compile(r"(?<=[^\W_])'s(?![^\W_])")  # in folded text


@dataclass(frozen=True, slots=True)
class Term:
    """One condition of a query: the search text of an entry has one of the ``variants``, or, if negated, none of them.

    Attributes:
        variants: sequences of adjacent tokens. A word has two variants if it may have been stemmed with its marks or
            without them.
        prefix: whether the last token may be the beginning of a longer one.
        negated: whether the entry must not contain the term.
        shown: the term as it stands in the query, for messages and explanations.
    """

    variants: tuple[tuple[str, ...], ...]
    prefix: bool = False
    negated: bool = False
    shown: str = field(default="", compare=False)

    @property
    def needles(self) -> tuple[str, ...]:
        """The texts to look for in the search text, one for each variant."""
        end = "" if self.prefix else " "
        return tuple([" ".join(tokens) + end for tokens in self.variants])

    @property
    def is_told_by_index(self) -> bool:
        """Whether a text index alone can decide about the term. An index does not know the order of several tokens."""
        return not self.negated and all(len(tokens) == 1 for tokens in self.variants)

    @property
    def length(self) -> int:
        """The number of tokens in all variants; the limits of a query count these."""
        return sum(map(len, self.variants))


def search_text(key: str, value: Any, metadata: dict[str, Any] | None, rules: Language = EXACT) -> str:
    """Return the search text of an entry: the tokens of its key and of every string and number in it.

    The names of the namespace, with which a full key begins, are not part of the search text.

    Each token ends with a space, each string with ``". "``. The text has at most 200,000 characters; it ends after a
    whole token.
    """
    words = ""
    pieces_of = _pieces(rules)
    for text in _strings([metadata, value, own_key(key)]):
        if pieces := "".join([pieces_of[run] for run in _runs(text, rules)]):
            words += pieces + BREAK
            if len(words) > MAX_SEARCH_TEXT:
                end = words.rfind(" ", 0, MAX_SEARCH_TEXT - len(BREAK)) + 1
                return words[:end] + (BREAK if words.startswith(BREAK, end) else "")
    return words


def tokenize(text: str, rules: Language = EXACT) -> Iterator[str]:
    """Yield the search tokens of one string, in order. A long word has several tokens, see ``_word_tokens``."""
    pieces = _pieces(rules)
    for run in _runs(text, rules):
        yield from pieces[run].split()


def stems_of(text: str, rules: Language = EXACT) -> list[tuple[str, str]]:
    """Return the words of a text as pairs ``(word, stem)``; the stem has no marks.

    Text of a script without spaces is split into overlapping pairs of characters, which have no other stem.
    """
    words: list[tuple[str, str]] = []
    for run in _runs(text, rules):
        if _PAIRED_CHAR.match(run):
            words += [(run[place : place + 2], run[place : place + 2]) for place in range(len(run))]
        else:
            words.append((run, _stem(run, rules)))
    return words


def term_of(
    text: str, rules: Language = EXACT, *, prefix: bool = False, negated: bool = False, shown: str = ""
) -> Term | None:
    """Return the term for words that stand side by side, or None if the text has no word.

    Args:
        text: the words.
        rules: the rules of the language.
        prefix: whether the last word may be the beginning of a longer one, if the text ends with it.
        negated: whether an entry must not have the term.
        shown: the term as people see it; by default ``text``.
    """
    runs = [*_runs(text, rules)]
    if not runs:
        return None
    prefix = prefix and _marked(text.rstrip("*"))[-1:] not in ("", " ")
    if _PAIRED_CHAR.match(runs[-1]):
        # The text of an entry may go on after these characters. Pairs match anyway; a single character is the
        # beginning of a pair, and so a prefix.
        prefix = len(runs[-1]) == 1
    return Term(_variants(runs, rules, prefix=prefix), prefix, negated, shown or text)


def terms_of_words(text: str, rules: Language, *, prefix: bool) -> list[Term]:
    """Return a term, as ``term_of`` makes it, for each word of a text, or for each pair in a script without spaces."""
    runs = [*_runs(text, rules)]
    terms = []
    goes_on = prefix and _marked(text.rstrip("*"))[-1:] not in ("", " ")
    for place, run in enumerate(runs):
        is_paired = bool(_PAIRED_CHAR.match(run))
        parts = [run[i : i + 2] for i in range(len(run) - 1)] or [run] if is_paired else [run]
        for part in parts:
            is_prefix = len(part) == 1 if is_paired else goes_on and place == len(runs) - 1
            shown = f"{part}*" if is_prefix and not is_paired else part
            terms.append(Term(_variants([part], rules, prefix=is_prefix), is_prefix, shown=shown))
    return terms


def is_stop_word(term: Term, rules: Language) -> bool:
    """Return whether a term of ``terms_of_words`` is a stop word of the language."""
    return not term.prefix and term.shown in _stop_words(rules)


def terms_of_prefix(prefix: str, rules: Language = EXACT) -> list[Term]:
    """Return the whole words of a key prefix as terms: every entry whose key has the prefix matches all of them.

    The prefix is one of keys in their namespace, see ``KeyRange.prefix``.

    The last word is left out unless a space or sign ends it, because the word of the key may be longer. Words of
    scripts without spaces are left out for the same reason.
    """
    runs = [*_runs(prefix, rules)]
    if prefix and _marked(prefix, _WITH_MARKS)[-1:] != " ":
        runs = runs[:-1]
    return [Term(_variants([run], rules, prefix=False)[:1]) for run in runs if not _PAIRED_CHAR.match(run)]


def has_words(terms: Sequence[Term]) -> bool:
    """Return whether one of the terms is not negated. Without such a term every score is 0.0."""
    return any(not term.negated for term in terms)


def matches(indexed: str, terms: Sequence[Term]) -> bool:
    """Return whether a search text satisfies every term. Without terms the answer is False."""
    return bool(terms) and all(any(needle in indexed for needle in term.needles) != term.negated for term in terms)


def counted(needles: Sequence[tuple[str, ...]], search_text: str) -> list[int]:
    """Return how often each term occurs in a search text; ``needles`` has the needles of each term."""
    return [
        search_text.count(of_term[0]) if len(of_term) == 1 else sum([search_text.count(needle) for needle in of_term])
        for of_term in needles
    ]


class Counter:
    """Counts terms in many search texts as ``counted`` does, but looks for all whole words in one pass."""

    def __init__(self, terms: Sequence[Term]) -> None:
        """Prepare to count these terms, which must be distinct."""
        self._needles = [term.needles for term in terms]
        words = {
            term.needles[0]: place for place, term in enumerate(terms) if term.is_told_by_index and not term.prefix
        }
        self._places = {word: place for word, place in words.items() if len(terms[place].variants) == 1}
        self._others = sorted({*range(len(terms))} - {*self._places.values()})
        endings = "|".join(word.removeprefix(TOKEN_START) for word in self._places)
        self._find = re.compile(f"{TOKEN_START}(?:{endings})").findall if self._places else None

    def __call__(self, search_text: str) -> list[int]:
        """Return how often each term occurs in a search text."""
        counts = [0] * len(self._needles)
        if self._find is not None:
            for word in self._find(search_text):
                counts[self._places[word]] += 1
        for place in self._others:
            counts[place] = sum([search_text.count(needle) for needle in self._needles[place]])
        return counts


def positive_needles(terms: Iterable[Term]) -> list[tuple[str, ...]]:
    """Return the needles of the terms that an entry must have."""
    return [term.needles for term in terms if not term.negated]


def rank(needles: Sequence[tuple[str, ...]], search_text: str) -> float:
    """Return the score of an entry for the needles of a query, or 0.0 without needles."""
    if not needles:
        return 0.0
    return score(counted(needles, search_text), search_text.count(TOKEN_START))


def score(counts: Sequence[int], length: int) -> float:
    """Return the rank of an entry with ``length`` tokens in which the terms occur ``counts`` times.

    The formula is BM25's term saturation with a fixed average length of 100 tokens and no document frequencies. So the
    score of an entry depends on this entry alone. It is rounded to 6 decimals.
    """
    norm = 1.2 * (0.25 + 0.75 * length / 100)
    return round(sum(count * 2.2 / (count + norm) for count in counts), 6)


def rarity(having: int, among: int) -> float:
    """Return the weight of a word that ``having`` of ``among`` entries have: BM25's inverse document frequency."""
    return round(math.log(1 + (among - having + 0.5) / (having + 0.5)), 6)


def parts_of_score(counts: Sequence[int], length: int, rarities: Sequence[float]) -> list[float]:
    """Return the part of the score that each term adds, not rounded; see ``score``."""
    norm = 1.2 * (0.25 + 0.75 * length / 100)
    return [rarity * (count * 2.2 / (count + norm)) for count, rarity in zip(counts, rarities, strict=True)]


def _strings(pending: list[Any]) -> Iterator[str]:
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending.extend(reversed(item.values()))
        elif isinstance(item, list):
            pending.extend(reversed(item))
        elif isinstance(item, int) and not isinstance(item, bool):
            yield int.__repr__(item)
        elif isinstance(item, float):
            yield float.__repr__(item)


def _variants(runs: Sequence[str], rules: Language, *, prefix: bool) -> tuple[tuple[str, ...], ...]:
    """Return the token sequences under which the runs may be indexed.

    A word with marks may be indexed as its stem, or as the stem of the word without marks. The word of an entry that
    begins with a prefix may contain the prefix as it is, or its stem.
    """
    pieces = _pieces(rules)
    last = runs[-1]
    unmarked = [_unmarked(run) if rules.keeps_marks else run for run in runs]
    sequences = []
    for words in (runs, unmarked):
        tokens = [token for run in words[:-1] for token in pieces[run].split()]
        of_last = pieces[words[-1]].split()
        if _PAIRED_CHAR.match(last):
            of_last = of_last if prefix else of_last[:-1]
        sequences.append((*tokens, *of_last))
        if prefix and not _PAIRED_CHAR.match(last):
            sequences.append((*tokens, *_word_tokens(_unmarked(words[-1]).translate(_ENCODED))))
    variants = [*dict.fromkeys(sequences)]
    if prefix:  # a text with the longer variant also has the shorter one, and must count once
        variants = [one for one in variants if not any(_begins(one, other) for other in variants if other != one)]
    return tuple(variants)


def _begins(tokens: tuple[str, ...], prefix: tuple[str, ...]) -> bool:
    return " ".join(tokens).startswith(" ".join(prefix))


@cache
def _stop_words(rules: Language) -> frozenset[str]:
    return frozenset(run for word in rules.stop_words for run in _runs(word, rules))


def _runs(text: str, rules: Language) -> Iterator[str]:
    """Yield the runs of a text: its words, split where a script without spaces begins or ends."""
    if text.isascii():
        text = text.lower()
        yield from _ASCII_WORD.findall(_POSSESSIVE.sub("", text) if rules.has_possessives and "'" in text else text)
        return
    if not rules.keeps_marks:
        folded = _marked(text, _WITH_APOSTROPHES if rules.has_possessives else None)
        if "'" in folded:
            folded = _POSSESSIVE.sub("", folded).replace("'", " ")
        for word in folded.split(" "):
            if word:
                yield from _PAIRED_RUN.findall(word)
        return
    for word in _marked(text, _WITH_MARKS).split(" "):
        bare = word.translate(_UNMARKED)
        if bare == word or _PAIRED_CHAR.search(bare):
            yield from _PAIRED_RUN.findall(bare)
        elif bare:
            of_letters = word[word.index(bare[0]) :]  # without the marks of a character before it, such as an emoji
            # A very long word is mostly marks, which take long to normalise.
            yield unicodedata.normalize("NFC", of_letters) if len(of_letters) <= _CACHED_LENGTH * 2 else bare


def _marked(text: str, classes: _CharacterClasses | None = None) -> str:
    """Return folded text, up to the length that the index takes. Marks are removed unless ``classes`` keeps them.

    Long text is folded part by part. At a cut only the order of marks may differ.
    """
    if len(text) <= _FOLDED_LENGTH:
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        return folded.translate(_MARKED if classes is None else classes)
    parts, length = [], 0
    for at in range(0, len(text), _FOLDED_LENGTH):
        parts.append(_marked(text[at : at + _FOLDED_LENGTH], classes))
        length += len(parts[-1].translate(_UNMARKED)) - parts[-1].count(" ") - parts[-1].count("'")
        if length > MAX_SEARCH_TEXT:  # a token has at least as many characters as its part of a word
            break
    return "".join(parts)


class _CharacterClasses(dict[int, str]):
    """Maps letters and digits to themselves, a symbol to itself between spaces, and any other character to a space.

    Marks and joiners are removed; with ``keeps_marks`` marks stay.
    """

    def __init__(self, *, keeps_marks: bool = False, keeps_apostrophes: bool = False) -> None:
        super().__init__({ord("'"): "'", 0x2019: "'"} if keeps_apostrophes else {})
        self._keeps_marks = keeps_marks

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if category[0] in "LN":
            replacement = char
        elif category == "So" or "\U0001f3fb" <= char <= "\U0001f3ff":
            replacement = f" {char} "
        else:
            is_mark = category[0] == "M"
            is_joined = is_mark or (category == "Cf" and char != "\u200b")
            replacement = char if is_mark and self._keeps_marks else "" if is_joined else " "
        self[code] = replacement
        return replacement


class _Marks(dict[int, str]):
    """Removes marks and leaves every other character as it is."""

    def __missing__(self, code: int) -> str:
        self[code] = replacement = "" if unicodedata.category(chr(code))[0] == "M" else chr(code)
        return replacement


_MARKED = _CharacterClasses()
_WITH_MARKS = _CharacterClasses(keeps_marks=True)
_WITH_APOSTROPHES = _CharacterClasses(keeps_apostrophes=True)
_UNMARKED = _Marks()


def _unmarked(word: str) -> str:
    return word if word.isascii() else unicodedata.normalize("NFKD", word).translate(_UNMARKED)


def _stem(run: str, rules: Language) -> str:
    """Return the stem of a word without marks, or the word without marks if the stem is empty."""
    return _unmarked(rules.stem(run)) or _unmarked(run)


class _Pieces(dict[str, str]):
    """Maps a run to its tokens, each followed by a space. Short runs are cached, because texts repeat their words.

    A full cache becomes the earlier cache, which is still read, and a new one begins. So words in use stay cached.
    """

    def __init__(self, rules: Language) -> None:
        super().__init__()
        self._rules = rules
        self._earlier: dict[str, str] = {}

    def __missing__(self, run: str) -> str:
        pieces = self._earlier.get(run)
        if pieces is None:
            pieces = self._tokens_of(run)
        if len(run) <= _CACHED_LENGTH:
            if len(self) >= _CACHED_RUNS:
                self._earlier = dict(self)
                self.clear()
            self[run] = pieces
        return pieces

    def _tokens_of(self, run: str) -> str:
        if _PAIRED_CHAR.match(run):
            tokens = [TOKEN_START + run[i : i + 2].translate(_ENCODED) for i in range(len(run))]
        else:
            tokens = [*_word_tokens(_stem(run, self._rules).translate(_ENCODED))]
        return " ".join([*tokens, ""])


@cache
def _pieces(rules: Language) -> _Pieces:
    return _Pieces(rules)


def _word_tokens(encoded: str) -> Iterator[str]:
    """Yield the token of one word, or several tokens for a word of more than 77 encoded characters.

    If a word goes on after a token, this token ends with ``q`` and the next one begins with ``qy``. Neither occurs in
    an encoded word. So a whole word never equals the beginning of a longer one, and a long prefix has the same first
    tokens as the word.
    """
    for start in range(0, len(encoded), WORD_PART):
        goes_on = start + WORD_PART < len(encoded)
        first = _CONTINUED if start else TOKEN_START
        yield first + encoded[start : start + WORD_PART] + ("q" if goes_on else "")


class _Encoding(dict[int, str]):
    """Maps ASCII letters and digits to themselves, and ``q`` and every other character to ``q`` and 4 digits."""

    def __missing__(self, code: int) -> str:
        number, digits = code, ""
        for _ in range(4):
            number, digit = divmod(number, len(_DIGITS))
            digits = _DIGITS[digit] + digits
        encoded = chr(code) if code < 128 and code != ord("q") else "q" + digits
        self[code] = encoded
        return encoded


_ENCODED = _Encoding()
