"""Parse the text of a query into terms, for both values of ``match``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from the_edge_agent.memory.core.languages import ENGLISH, Language, check_language
from the_edge_agent.memory.core.languages import language as language_of
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.tokens import EXACT, WORD_PART, Term, is_stop_word, stems_of, term_of, terms_of_words
from the_edge_agent.memory.core.validation import check_encodable

Match: TypeAlias = Literal["any", "all"]

MATCHES: Final[tuple[Match, ...]] = ("any", "all")
MAX_QUERY_WORDS: Final = 200  # SQLite refuses expressions deeper than 1,000
MAX_QUERY_LENGTH: Final = 100_000  # characters; 200 words need fewer, and a longer text would only take time

_ALL_PART: Final = re.compile(r'(-?)(?:"([^"]*)(?:"|$)|([^\s"]+))')
_ANY_PART: Final = re.compile(r'([+-]?)"([^"]*)"|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query.

    Attributes:
        terms: an entry must match each of these; a negated term must not occur in it.
        words: an entry must have at least one of these terms, and is ranked by them. None means that ``terms``
            also rank the entries.
        is_empty: whether the query has text but no word to look for, such as ``"!"``.
    """

    terms: tuple[Term, ...] = ()
    words: tuple[Term, ...] | None = None
    is_empty: bool = False

    @property
    def has_conditions(self) -> bool:
        """Whether the query says anything about words."""
        return bool(self.terms or self.words or self.is_empty)


def parse_query(query: Any, match: Any = "all", rules: Language = EXACT) -> Query:
    """Parse a query into the words that rank entries, and the words that must or must not occur.

    Args:
        query: text, or None.
        match: ``any`` or ``all``.
        rules: the language rules of the memory.

    Raises:
        LTMError: ``validation_error`` if the query is not text, has a lone surrogate, more than
            ``MAX_QUERY_LENGTH`` characters, or more than ``MAX_QUERY_WORDS`` words that must or must not occur.
    """
    text, way = check_query(query), check_match(match)
    if text is None:
        return Query()
    return _any_of(text, rules) if way == "any" else _all_of(text, rules)


def words_of(text: str, language: str = ENGLISH) -> list[tuple[str, str]]:
    """Return the words of a text, each as a pair ``(word, stem)``. The search indexes the stem.

    Args:
        text: any text.
        language: the name of a language, or ``none`` for exact words.

    Raises:
        LTMError: ``configuration_error`` for an unknown language; ``validation_error`` if ``text`` is not a string.
    """
    return stems_of(_checked_text(text), language_of(check_language(language) or ENGLISH))


def check_query(query: Any) -> str | None:
    """Return the text of a query, or None for a query that is empty or has only spaces.

    Raises:
        LTMError: ``validation_error``.
    """
    if query is None:
        return None
    if not isinstance(query, str):
        raise LTMError("validation_error", f"query must be a string or None, not {type(query).__name__}")
    if len(query) > MAX_QUERY_LENGTH:
        message = f"query must have at most {MAX_QUERY_LENGTH:,} characters, not {len(query):,}"
        raise LTMError("validation_error", message)
    check_encodable(query, "query")
    return query if query.strip() else None


def check_match(match: Any) -> Match:
    """Return ``any`` or ``all``; None means ``any``.

    Raises:
        LTMError: ``validation_error``.
    """
    if match is None:
        return "any"
    for name in MATCHES:
        if match == name and isinstance(match, str):
            return name
    raise LTMError("validation_error", f'match must be "any" or "all", not {match!r:.40}')


def check_explain(explain: Any) -> bool:
    """Return the argument ``explain``: whether each result says which words it matched.

    Raises:
        LTMError: ``validation_error``.
    """
    if isinstance(explain, bool):
        return explain
    raise LTMError("validation_error", f"explain must be True or False, not {type(explain).__name__}")


def escape(text: str) -> str:
    """Return a query that has the words of a text and no operators.

    Raises:
        LTMError: ``validation_error`` if ``text`` is not a string.
    """
    return re.sub(r'["*]', " ", re.sub(r"(?<!\S)[+\-]+", " ", _checked_text(text).replace('"', " ")))


def _checked_text(text: Any) -> str:
    if isinstance(text, str):
        return text
    raise LTMError("validation_error", f"text must be a string, not {type(text).__name__}")


def _all_of(query: str, rules: Language) -> Query:
    terms = []
    for minus, phrase, word in _ALL_PART.findall(query):
        shown = word or f'"{phrase}"'
        term = term_of(word or phrase, rules, prefix=word.endswith("*"), negated=bool(minus), shown=shown)
        if term is not None:
            terms.append(term)
    _check_length(terms)
    return Query(tuple(terms), is_empty=not terms)


def _any_of(query: str, rules: Language) -> Query:
    required, words = list[Term](), list[Term]()
    for sign, phrase, chunk in _ANY_PART.findall(query):
        operator = sign or (chunk[0] if chunk.startswith(("+", "-")) and chunk[1:2].isalpha() else "")
        is_word = bool(chunk)
        if is_word and not operator:
            words += terms_of_words(chunk, rules, prefix=chunk.endswith("*"))
            continue
        shown = f'"{phrase}"' if not is_word else chunk[1:]
        text = chunk[1:] if is_word else phrase
        term = term_of(text, rules, prefix=chunk.endswith("*"), negated=operator == "-", shown=shown)
        if term is None:
            continue
        if operator:
            required.append(term)
        elif term.length > MAX_QUERY_WORDS:
            words += terms_of_words(phrase, rules, prefix=False)
        else:
            words.append(term)
    required = [*dict.fromkeys(required)]
    _check_length(required)
    positive = [term for term in required if not term.negated]
    telling = [*positive, *(term for term in words if not is_stop_word(term, rules))]
    ranking = tuple(_first([*dict.fromkeys(telling or words)]))
    if not ranking:
        return Query(tuple(required), is_empty=not required)
    return Query(tuple(required), ranking)


def _first(terms: Sequence[Term]) -> list[Term]:
    """Return the first terms that have at most ``MAX_QUERY_WORDS`` words in all, without those that do not fit."""
    fitting, length = [], 0
    for term in terms:
        if length + term.length <= MAX_QUERY_WORDS:
            length += term.length
            fitting.append(term)
    return fitting


def _check_length(terms: Sequence[Term]) -> None:
    if sum(term.length for term in terms) > MAX_QUERY_WORDS:
        counted = f"a long word counts once for each {WORD_PART} of its characters"
        raise LTMError(
            "validation_error",
            f"query must have at most {MAX_QUERY_WORDS} words that must or must not occur; {counted}",
        )
