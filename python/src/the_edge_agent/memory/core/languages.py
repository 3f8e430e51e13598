"""The languages of a memory: stems, by Snowball, and stop words.

A stem is what the forms of a word share: ``runs`` and ``running`` are indexed as ``run``. Both libraries are imported
when a language is needed, and not before.
"""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module
from typing import Any, Final

from the_edge_agent.memory.core.results import LTMError

NONE: Final = "none"
ENGLISH: Final = "english"

# Their alphabets have no marks: accents are left out before a word is stemmed, so that résumé and resume are one word.
# Elsewhere stems need them: the French -ées and the Russian й.
_WITHOUT_MARKS: Final = frozenset({ENGLISH, "porter", "indonesian", "sesotho"})
_LONGEST: Final = 60  # letters of a word that is stemmed; longer ones are no words, and would take long
# The names by which the stop words of a language are kept: ISO 639-1.
_CODES: Final = {
    "danish": "da",
    "dutch": "nl",
    ENGLISH: "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "hungarian": "hu",
    "italian": "it",
    "norwegian": "no",
    "porter": "en",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "swedish": "sv",
    "turkish": "tr",
}
# What the words end with of which a fingerprint is made: endings that the rules of stemmers look at.
_BEGINNINGS: Final = ("kontra", "mili", "красив", "γνωρ")
_ENDINGS: Final = (
    "s es ies ied ing ings ed edly eed ly ally ational ation ations ator alism iveness fulness ousness "
    "ousli able ible ment ements ity ities ness y er ers est ize ized izing ful less ion ions e a o i ée "
    "ées é er ait aient ons ez issement ité ités euse eux ante amente mente ción ciones idad ando iendo "
    "aba aron ía ías ungen ung heit keit lich isch en ern em ende heden ingen ene ens erne igt lig heter "
    "arna sti ista isti zione zioni ato ata ati ate ito isco osi osa ый ая ое ые ого ому ить ает ают ешь "
    "ость ости ами ях ов ев ный ными ся лась ως ους ης ων ει εις ακι lar ler lik ini sinden nya kan"
)


# The letters of other scripts: words of these end with each two of them.
_LETTERS: Final = {
    "arabic": (0x0621, 0x064B),
    "armenian": (0x0561, 0x0587),
    "hindi": (0x0905, 0x094E),
    "nepali": (0x0905, 0x094E),
    "persian": (0x0621, 0x064B),
    "tamil": (0x0B85, 0x0BCE),
    "yiddish": (0x05D0, 0x05EB),
}


class Language:
    """The rules of one language; safe for many threads.

    Attributes:
        name: as Snowball calls it, or ``none`` for exact words.
        stop_words: words that tell nothing, such as ``the``, in lower case; empty if none of the language are known.
    """

    def __init__(self, name: str) -> None:
        """Import all that the rules need: no call does so later, when an interrupt could keep imports locked."""
        self.name = name
        self.stop_words = _stop_words_of(name)
        self._local = threading.local()
        self._new_stemmer = _new_stemmer_of(name)

    @property
    def has_stems(self) -> bool:
        """Whether words are stemmed."""
        return self.name != NONE

    @property
    def keeps_marks(self) -> bool:
        """Whether the stemmer needs the marks of letters."""
        return self.has_stems and self.name not in _WITHOUT_MARKS

    @property
    def has_possessives(self) -> bool:
        """Whether ``'s`` at the end of a word is no part of it."""
        return self.name in (ENGLISH, "porter")

    def stem(self, word: str) -> str:
        """Return the stem of a word in lower case; the word, if it has digits, or the stem has no letters."""
        if not self.has_stems or len(word) > _LONGEST or _has_digits(word):
            return word
        try:
            stem = self._local.stem
        except AttributeError:
            stem = self._local.stem = self._new_stemmer()
        found = stem(word)
        return found if any(map(str.isalpha, found)) else word

    @cached_property
    def fingerprint(self) -> str:
        """What differs between releases of the stemmer that stem words differently: a hash of the stems of a list."""
        return _fingerprint(self.name, self.stem) if self.has_stems else ""

    def __repr__(self) -> str:
        """Name the language."""
        return f"Language({self.name!r})"


@cache
def language(name: str) -> Language:
    """Return the rules of a language.

    Args:
        name: ``none``, ``english``, or another that Snowball knows, in lower case.

    Raises:
        LTMError: ``configuration_error`` for another name; the message lists the known ones.
    """
    if name != NONE and name not in languages():
        raise LTMError("configuration_error", f"language must be one of {', '.join(languages())}; not {name!r}")
    return Language(name)


def check_language(name: Any, *, search: bool = True) -> str | None:
    """Return the name of a language, or None for the one that the table has.

    Args:
        name: the option.
        search: whether the memory keeps words.

    Raises:
        LTMError: ``configuration_error``.
    """
    if name is None:
        return None
    if not search:
        raise LTMError("configuration_error", "language is for words, and this memory keeps none (search=False)")
    if not isinstance(name, str):
        raise LTMError("configuration_error", f"language must be a string or None, not {type(name).__name__}")
    return language(name.strip().lower()).name


@cache
def languages() -> tuple[str, ...]:
    """Return the names of the languages, ``none`` first."""
    snowball: Any = import_module("snowballstemmer")
    module_names = {name for name in snowball.algorithms() if not name.endswith("_porter")}
    return (NONE, *sorted(module_names))


def _stop_words_of(name: str) -> frozenset[str]:
    if name not in _CODES:
        return frozenset()
    lists: Any = import_module("whoosh.lang.stopwords").stoplists
    return frozenset(map(str, lists[_CODES[name]]))


def _new_stemmer_of(name: str) -> Callable[[], Callable[[str], str]]:
    """Return a function that makes a stemmer; each thread needs its own.

    The stemmer is PyStemmer's if that is installed and gives the same stems as Snowball in Python, else Snowball's.
    """
    if name == NONE:
        return lambda: str
    snowball: Any = import_module(f"snowballstemmer.{name}_stemmer")
    in_python: Any = getattr(snowball, f"{name.title().replace('_', '')}Stemmer")

    def python() -> Callable[[str], str]:
        stem: Callable[[str], str] = in_python().stemWord
        return stem

    try:
        in_c: Any = import_module("Stemmer").Stemmer

        def native() -> Callable[[str], str]:
            stem: Callable[[str], str] = in_c(name).stemWord
            return stem

        return native if _are_equal(name, native(), python()) else python
    except (ImportError, KeyError):
        return python


def _are_equal(name: str, native: Callable[[str], str], python: Callable[[str], str]) -> bool:
    """Return whether two stemmers of a language are of releases that stem alike."""
    return _fingerprint(name, native) == _fingerprint(name, python)


def _has_digits(word: str) -> bool:
    """Return whether a word has a character of category N, as numbers, names of versions and identifiers do."""
    if word.isascii():
        return not word.isalpha() and any(map(str.isdigit, word))
    return any(unicodedata.category(character)[0] == "N" for character in word)


def _fingerprint(name: str, stem: Callable[[str], str]) -> str:
    letters = [chr(code) for code in range(*_LETTERS.get(name, (0, 0)))]
    words = [unicodedata.normalize("NFC", prefix + ending) for prefix in _BEGINNINGS for ending in _ENDINGS.split()]
    words += ["".join([*letters[7:11], first, second]) for first in letters for second in letters]
    return hashlib.sha256("\n".join(map(stem, words)).encode()).hexdigest()[:16]
