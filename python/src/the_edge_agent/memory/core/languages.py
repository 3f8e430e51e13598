"""The languages of a memory: stems, made by Snowball, and stop words, from Whoosh.

A stem is the part that the forms of a word share: ``runs`` and ``running`` are indexed as ``run``. Both libraries are
imported only when a language is used.
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

# These alphabets have no marks. Accents are removed before a word is stemmed, so that résumé and resume are one word.
# The stemmers of other languages need marks, for example the French -ées and the Russian й.
_WITHOUT_MARKS: Final = frozenset({ENGLISH, "porter", "indonesian", "sesotho"})
_LONGEST: Final = 60  # letters; longer "words" are not words, and stemming them would take long
# ISO 639-1 codes: the names of the stop-word lists.
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
# A fingerprint is made of words that have each of these beginnings with each of these endings. Stemmers have rules
# for the endings.
_BEGINNINGS: Final = ("kontra", "mili", "красив", "γνωρ")
_ENDINGS: Final = (
    "s es ies ied ing ings ed edly eed ly ally ational ation ations ator alism iveness fulness ousness "
    "ousli able ible ment ements ity ities ness y er ers est ize ized izing ful less ion ions e a o i ée "
    "ées é er ait aient ons ez issement ité ités euse eux ante amente mente ción ciones idad ando iendo "
    "aba aron ía ías ungen ung heit keit lich isch en ern em ende heden ingen ene ens erne igt lig heter "
    "arna sti ista isti zione zioni ato ata ati ate ito isco osi osa ый ая ое ые ого ому ить ает ают ешь "
    "ость ости ами ях ов ев ный ными ся лась ως ους ης ων ει εις ακι lar ler lik ini sinden nya kan"
)


# First and last letter of other scripts. For these a fingerprint also has words that end with each pair of letters.
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
    """The rules of one language. Many threads may use one object.

    Attributes:
        name: the name that Snowball uses, or ``none`` for exact words.
        stop_words: words without information, such as ``the``, in lower case. Empty if there is no list for the
            language.
    """

    def __init__(self, name: str) -> None:
        """Import the modules that the rules need: an interrupt during a later import could leave its lock held."""
        self.name = name
        self.stop_words = _stop_words_of(name)
        self._local = threading.local()
        self._new_stemmer = _new_stemmer_of(name)

    @property
    def has_stems(self) -> bool:
        """Whether words are stemmed: in every language but ``none``."""
        return self.name != NONE

    @property
    def keeps_marks(self) -> bool:
        """Whether the stemmer needs accents and other marks."""
        return self.has_stems and self.name not in _WITHOUT_MARKS

    @property
    def has_possessives(self) -> bool:
        """Whether ``'s`` at the end of a word is removed."""
        return self.name in (ENGLISH, "porter")

    def stem(self, word: str) -> str:
        """Return the stem of a word in lower case. A word with digits, or whose stem has no letters, stays as it is."""
        if not self.has_stems or len(word) > _LONGEST or _has_digits(word):
            return word
        try:
            stem = self._local.stem
        except AttributeError:
            stem = self._local.stem = self._new_stemmer()
        result = stem(word)
        return result if any(map(str.isalpha, result)) else word

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the stems of a fixed list of words. It differs if two releases of the stemmer stem differently."""
        return _fingerprint(self.name, self.stem) if self.has_stems else ""

    def __repr__(self) -> str:
        """Return text such as ``Language('english')``."""
        return f"Language({self.name!r})"


@cache
def language(name: str) -> Language:
    """Return the rules of a language.

    Args:
        name: ``none``, ``english``, or another language that Snowball knows, in lower case.

    Raises:
        LTMError: ``configuration_error`` for another name; the message lists the known ones.
    """
    if name != NONE and name not in languages():
        raise LTMError("configuration_error", f"language must be one of {', '.join(languages())}; not {name!r}")
    return Language(name)


def check_language(name: Any, *, search: bool = True) -> str | None:
    """Check the option ``language`` of a memory and return the name. None stays None: use the language of the table.

    Args:
        name: the value of the option.
        search: whether the memory has full-text search. Without it a language is an error.

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
    """Return a function that makes a stemmer. Each thread needs a stemmer of its own.

    The stemmer is PyStemmer's (written in C) if it is installed and gives the same stems as Snowball's Python code.
    Otherwise it is Snowball's.
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
    """Return whether two stemmers give the same stems. Different releases may not."""
    return _fingerprint(name, native) == _fingerprint(name, python)


def _has_digits(word: str) -> bool:
    """Return whether a word has a character of category N, as numbers, version names and identifiers have."""
    if word.isascii():
        return not word.isalpha() and any(map(str.isdigit, word))
    return any(unicodedata.category(character)[0] == "N" for character in word)


def _fingerprint(name: str, stem: Callable[[str], str]) -> str:
    letters = [chr(code) for code in range(*_LETTERS.get(name, (0, 0)))]
    words = [unicodedata.normalize("NFC", prefix + ending) for prefix in _BEGINNINGS for ending in _ENDINGS.split()]
    words += ["".join([*letters[7:11], first, second]) for first in letters for second in letters]
    return hashlib.sha256("\n".join(map(stem, words)).encode()).hexdigest()[:16]
