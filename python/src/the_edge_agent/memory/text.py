"""Full-text search without a database's parser: text to tokens, query to terms, match and score in Python.

Every engine tokenises differently, so the tokens are made here and the engines index opaque ASCII words.
The functions that match and score in Python are the definition that every dialect is tested against.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from the_edge_agent.memory.results import LTMError
from the_edge_agent.memory.validation import check_encodable

WORD_PART = 77  # characters of a word in one token; with its marks below 84, InnoDB's longest
MAX_SEARCH_TEXT = 200_000  # characters; keeps a PostgreSQL tsvector under its limit of 1 MB
MAX_QUERY_WORDS = 200  # SQLite refuses expressions deeper than 1,000
MAX_QUERY_LENGTH = 100_000  # characters: 200 words need fewer, and more would only take time
RANK_WINDOW = 1_000  # candidates that are ranked: the newest matches

TOKEN_START = "qz"  # noqa: S105 - makes every token at least 3 letters long and none a stop word
BREAK = ". "  # between two strings, so that no phrase crosses from one to the next

_CONTINUED = "qy"  # begins what continues a word: not TOKEN_START, so that words are counted once
_DIGITS = "0123456789abcdefghijklmnoprstuvwxyz"  # without q, so that no token is found inside another
# Scripts written without spaces, as overlapping pairs: Thai, Lao, Myanmar, Khmer, kana, Han.
_PAIRED = (
    r"\u0e01-\u0e4e\u0e80-\u0ecf\u0edc-\u0edf\u1000-\u103f\u1780-\u17d3"
    r"\u3005-\u3007\u3031-\u3035\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U000323af"
)
_PAIRED_RUN = re.compile(f"[{_PAIRED}]+|[^{_PAIRED}]+")
_PAIRED_CHAR = re.compile(f"[{_PAIRED}]")
_QUERY_PART = re.compile(r'(-?)(?:"([^"]*)(?:"|$)|([^\s"]+))')
_KEPT_LENGTH = 20  # characters of a word whose tokens are remembered
_KEPT_RUNS = 20_000
_FOLDED_LENGTH = 1_000  # characters normalised at a time: ordering a run of marks takes quadratic time
_ASCII_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Term:
    """One condition of a query: ``needle`` is (or, negated, is not) in the search text.

    Attributes:
        tokens: adjacent tokens, in order.
        prefix: whether the last token may go on.
        negated: whether the entry must not contain it.
    """

    tokens: tuple[str, ...]
    prefix: bool = False
    negated: bool = False

    @property
    def needle(self) -> str:
        """What to look for in the search text; tokens begin with ``qz`` (``qy`` in the middle of a long word)."""
        return " ".join(self.tokens) + ("" if self.prefix else " ")


def search_text(key: str, value: Any, metadata: dict[str, Any] | None) -> str:
    """Return the search text of an entry: the tokens of its key and of every string and number in it.

    Each token ends with a space, each string with ``". "``. Whole tokens, up to 200,000 characters.
    """
    found = ""
    for text in _strings([metadata, value, key]):
        if pieces := _pieces_of(text):
            found += pieces + BREAK
            if len(found) > MAX_SEARCH_TEXT:
                end = found.rfind(" ", 0, MAX_SEARCH_TEXT - len(BREAK)) + 1
                return found[:end] + (BREAK if found.startswith(BREAK, end) else "")
    return found


def tokenize(text: str) -> Iterator[str]:
    """Yield the search tokens of one string, in order; a long word is several, see ``_word_tokens``."""
    for group in _word_groups(text):
        for run in group:
            yield from _run_tokens(run)


def parse_query(query: Any) -> tuple[Term, ...] | None:
    """Return the terms of a query, None for no text condition, ``()`` if nothing in it is searchable.

    Words are AND-ed; ``"..."`` is a phrase, ``word*`` a prefix, ``-`` negates a word or phrase.

    Raises:
        LTMError: ``validation_error`` for what is not text, for lone surrogates and for more than
            ``MAX_QUERY_LENGTH`` characters or ``MAX_QUERY_WORDS`` words.
    """
    if query is None:
        return None
    if not isinstance(query, str):
        raise LTMError("validation_error", f"query must be a string or None, not {type(query).__name__}")
    if len(query) > MAX_QUERY_LENGTH:
        message = f"query must have at most {MAX_QUERY_LENGTH:,} characters, not {len(query):,}"
        raise LTMError("validation_error", message)
    check_encodable(query, "query")
    if not query.strip():
        return None
    terms: list[Term] = []
    for minus, phrase, word in _QUERY_PART.findall(query):
        term = _term(word or phrase, prefix=word.endswith("*"), negated=bool(minus))
        if term is not None:
            terms.append(term)
    if sum(len(term.tokens) for term in terms) > MAX_QUERY_WORDS:
        counted = f"a long word counts once for each {WORD_PART} of its characters"
        raise LTMError("validation_error", f"query must have at most {MAX_QUERY_WORDS} words; {counted}")
    return tuple(terms)


def has_words(terms: Sequence[Term]) -> bool:
    """Return whether there is a word to look for; otherwise every score is 0.0."""
    return any(not term.negated for term in terms)


def matches(indexed: str, terms: Sequence[Term]) -> bool:
    """Return whether a search text satisfies every term; nothing matches ``()``."""
    return bool(terms) and all((term.needle in indexed) != term.negated for term in terms)


def rank(needles: Sequence[str], search_text: str) -> float:
    """Return the score of an entry for the needles of a query, 0 for a query without words."""
    if not needles:
        return 0.0
    return score([search_text.count(needle) for needle in needles], search_text.count(TOKEN_START))


def score(counts: Sequence[int], length: int) -> float:
    """Return the rank of an entry with ``length`` tokens in which the terms occur ``counts`` times.

    BM25's term saturation with a fixed average length of 100 tokens and no document frequencies, so that
    the score of an entry depends on the entry alone; rounded to 6 decimals.
    """
    norm = 1.2 * (0.25 + 0.75 * length / 100)
    return round(sum(count * 2.2 / (count + norm) for count in counts), 6)


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


def _term(text: str, *, prefix: bool, negated: bool) -> Term | None:
    runs = [run for group in _word_groups(text) for run in group]
    if not runs:
        return None
    *before, last = runs
    tokens = [token for run in before for token in _run_tokens(run)]
    if _PAIRED_CHAR.match(last):
        # The text may go on after these characters: pairs alone are exact, one character begins a pair.
        prefix = len(last) == 1
        tokens += _run_tokens(last)[: None if prefix else -1]
    else:
        tokens += _run_tokens(last)
        prefix = prefix and _marked(text.rstrip("*"))[-1] != " "
    return Term(tuple(tokens), prefix, negated)


def _word_groups(text: str) -> Iterator[list[str]]:
    """Split folded text into words, and each word into runs of one kind of script."""
    if text.isascii():
        return ([word] for word in _ASCII_WORD.findall(text.lower()))
    return (_PAIRED_RUN.findall(word) for word in _marked(text).split(" ") if word)


def _marked(text: str) -> str:
    """Return folded text without marks, as much of it as fills the index.

    Long text is folded part by part: where it is cut, at most the order of marks differs, and these are left out.
    """
    if len(text) <= _FOLDED_LENGTH:
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        return folded.translate(_MARKED)
    parts, kept = [], 0
    for at in range(0, len(text), _FOLDED_LENGTH):
        parts.append(_marked(text[at : at + _FOLDED_LENGTH]))
        kept += len(parts[-1]) - parts[-1].count(" ")
        if kept > MAX_SEARCH_TEXT:  # each character but a space makes at least one of a token
            break
    return "".join(parts)


class _CharacterClasses(dict[int, str]):
    """Letters and digits as they are, symbols between spaces, marks and joiners gone, all else a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if category[0] in "LN":
            kept = char
        elif category == "So" or "\U0001f3fb" <= char <= "\U0001f3ff":
            kept = f" {char} "
        else:
            kept = "" if category[0] == "M" or (category == "Cf" and char != "\u200b") else " "
        self[code] = kept
        return kept


_MARKED = _CharacterClasses()


def _pieces_of(text: str) -> str:
    if text.isascii():
        return "".join([_PIECES[word] for word in _ASCII_WORD.findall(text.lower())])
    return "".join([_PIECES[run] for group in _word_groups(text) for run in group])


def _run_tokens(run: str) -> list[str]:
    return _PIECES[run].split()


class _Pieces(dict[str, str]):
    """The tokens of a run, each with a space behind; those of short ones are kept, because texts repeat their words."""

    def __missing__(self, run: str) -> str:
        if _PAIRED_CHAR.match(run):
            tokens = [TOKEN_START + run[i : i + 2].translate(_ENCODED) for i in range(len(run))]
        else:
            tokens = [*_word_tokens(run.translate(_ENCODED))]
        pieces = " ".join([*tokens, ""])
        if len(run) <= _KEPT_LENGTH:
            if len(self) >= _KEPT_RUNS:
                self.clear()
            self[run] = pieces
        return pieces


_PIECES = _Pieces()


def _word_tokens(encoded: str) -> Iterator[str]:
    """Yield the tokens of one word: one, or for a long word its parts.

    A part that goes on ends with ``q``, the next begins with ``qy``; neither occurs in an encoded word. So
    an exact word never equals the beginning of a longer one, and the parts of a prefix are those of the word.
    """
    for start in range(0, len(encoded), WORD_PART):
        goes_on = start + WORD_PART < len(encoded)
        first = _CONTINUED if start else TOKEN_START
        yield first + encoded[start : start + WORD_PART] + ("q" if goes_on else "")


class _Encoding(dict[int, str]):
    """ASCII letters and digits as they are; ``q`` and every other character as ``q`` and 4 digits."""

    def __missing__(self, code: int) -> str:
        number, digits = code, ""
        for _ in range(4):
            number, digit = divmod(number, len(_DIGITS))
            digits = _DIGITS[digit] + digits
        encoded = chr(code) if code < 128 and code != ord("q") else "q" + digits
        self[code] = encoded
        return encoded


_ENCODED = _Encoding()
