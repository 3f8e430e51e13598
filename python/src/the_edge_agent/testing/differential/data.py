"""Random keys, texts, values and metadata that databases find hard."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta, timezone
from typing import Any, Final

KEYS: Final = (
    "a", "A", "a ", "a  ", " a", "á", "a\u0301", "Á", "ä", "ae", "æ", "b", "B", "ab", "aB", "a/b", "a/B", "a/ b",
    "user/ada", "user/Ada", "user/", "user/ada ", "user%", "user_", "user*", "%", "_", "\\", "\\%", "'", '"', "a'b",
    'a"b', "a;b--", "a\tb", "a\nb", "a\rb", "\u00a0", "\u200b", "ß", "ss", "ẞ", "ı", "i", "İ", "I", "ﬁ", "fi", "😀",
    "😁", "😀a", "日本", "日本語", "本", "が", "か\u3099", "한", "\u1112\u1161\u11ab", "\ud7ff", "\ue000",
    "\uffff", "\U00010000",
    "\U0010ffff", "\x01", "\x7f", "\x80", "0", "00", "1", "10", "2", "-1", "1e5", "null", "true", "NULL", "",
    "fox", "the fox", "note/1", "note/10", "note/2", "x" * 512, "x" * 511, "é" * 512, "😀" * 512, "日" * 512,
)  # fmt: skip
BAD_KEYS: Final = ("", "a\0b", "\0", "\ud800", "a\udfff", "x" * 513, "😀" * 513)
# Keys in namespaces, and keys that look so and are not.
FULL_KEYS: Final = (
    "@a.k", "@a/b.k", "@A.k", "@a%2Fb.k", "@a/b", "@a//b.c", "@a.", "@a%2eb.k", "@a/.k", "@a/b//c.k", ".k", "/b.k",
)  # fmt: skip
NAMESPACES: Final = (
    ("a",), ("a",), ("a",), ("a",), ("a", "b"), ("a", "b"), ("a", "b"),
    ("a/b",), ("a.b",), ("A",), ("á",), ("a", "b", "c"), ("%2E", "fox"),
    ("😀", " "), ("n" * 400,), ("a-b",), ("*",),
)  # fmt: skip
WORDS: Final = (
    "fox", "Fox", "FOX", "fóx", "fo\u0301x", "foxes", "fo", "f", "hound", "red", "the", "and", "AND", "or", "not",
    "NEAR", "a", "q", "qz", "qzfox", "qu", "Zebra", "straße", "STRASSE", "strasse", "ﬁsh", "fish", "ı", "İstanbul",
    "istanbul", "naïve", "naive", "Ⅷ", "viii", "①", "1", "½", "3.14", "-7", "1e5", "x²", "foo-bar", "foo_bar",
    "user@x.com", "a.b", "don't", "C++", "日本", "日本語", "本語", "語", "東京都", "日", "ひらがな",
    "カタカナ", "ｶﾅ", "ไทย",
    "ສະບາຍດີ", "ខ្មែរ", "မြန်မာ", "한국어", "한", "😀", "👍🏽", "👩\u200d🚀", "🇩🇪", "☃", "→", "€", "fox😀",
    "fox日本", "日本fox",
    "עברית", "العربية", "Ελλάδα", "ΣΊΣΥΦΟΣ", "σίσυφος", "москва", "МОСКВА", "ё", "е", "i\u0307", "zero\u200bwidth",
    "running", "runs", "runner's", "runners’", "FOX'S", "ponies", "happy", "happily", "résumé", "resumés", "maisons",
    "étudiées", "étudier", "e\u0301tudie\u0301es", "l'été", "même", "красивый", "красивая", "книги", "книг", "ing",
    "'s", "s", "t", "é" * 41, "w" * 59 + "s", "w" * 60 + "s", "fox日本é", "❤\ufe0fs", "soft\u00adhyphen",
    "w" * 77, "w" * 78, "w" * 200, "q" * 16, "é" * 20, "ǆ", "ǅ", "ŉ", "\u0345", "0", "00", "007",
)  # fmt: skip
# Words for questions: stop words of several languages, and other forms of the words above.
QUESTION_WORDS: Final = (
    "what", "What", "did", "the", "do", "is", "of", "in", "about", "when", "Where", "who's", "don't", "it's", "foxes",
    "foxing", "reds", "hounds", "hounded", "run", "running", "runners", "pony", "happiness", "resume", "naively",
    "fishes", "cafés", "que", "est-ce", "les", "la", "à", "où", "meme", "même", "maison", "études", "l'", "было", "что",
    "это",
    "красивые", "книга", "не", "日", "本", "東京", "😀", "1", "2024", "-5", "+49", "&", "—",
)  # fmt: skip
GAPS: Final = (" ", " ", " ", "  ", "\n", "\t", ", ", ". ", "-", "/", "\u3000", "\u00a0", "", "\u200b", "'")
TEXTS: Final = (
    "", " ", "  ", "a ", "A", "a", "á", "a\u0301", "\0", "a\0b", "\x01\x1f\x7f\x80", "'", '"', "\\", "\\\\",
    "\\n", "\\u0000", "%",
    "_", "%s", "%(x)s", ":x", "{x}", "{{ x }}", "${x}", "$1", "?", "--", "/*", "; DROP TABLE x", "\u2028",
    "\ufeff", "\ufffd",
    "\uffff", "\U0010ffff", "1", "1.0", "true", "null", "NaN", "2024-02-29", "😀" * 3, "é" * 300, "ＦＵＬＬ",
    "٣", "\r\n",
)  # fmt: skip
NUMBERS: Final = (
    0, 1, -1, 2, 10, 42, 2**31 - 1, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63),
    0.0, -0.0, 1.0, -1.0, 0.5,
    0.1, 1.5, 2.0, 1e15, 1e16, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 9007199254740992.0, 9007199254740994.0,
    9.223372036854775e18, 9.223372036854776e18, 123456789.123456789, 100.0, 1e5, 3.14, 0.30000000000000004,
)  # fmt: skip
ALIKE: Final[tuple[Any, ...]] = (
    0,
    1,
    0.0,
    1.0,
    True,
    False,
    None,
    "0",
    "1",
    "true",
    "",
    [],
    {},
    [1],
    [True],
    {"a": 1},
    {"a": True},
)
BIG_NUMBERS: Final = (2**63, 2**64, -(2**63) - 1, 10**25, 10**400, 10**4299, -(10**4300) + 1)
NAMES: Final = (
    "a", "A", "b", "n", "kind", "tags", "a.b", "", " ", "é", "e\u0301", "ключ", 'q"uote', "ap'os",
    "back\\slash", "%", "_",
    "a[0]", "-a", "0", "a b", "日本", "😀", "$", "@", "*", "x" * 100, "null", "a\nb",
)  # fmt: skip
DAMAGING: Final = (math.nan, math.inf, float("1e400"), (1,), {1}, b"x", "\ud800", {"\udc00": 1}, {1: 2}, 10**4300)
_LONGEST: Final = 400  # how many words a long text has


class Data:
    """Makes random data."""

    def __init__(self, chance: random.Random) -> None:
        """Use ``chance`` for all random choices."""
        self.chance = chance
        self._keys = [key for key in KEYS if key]

    def key(self) -> str:
        """Return a valid key, often one of a small set."""
        kind = self.chance.random()
        if kind < 0.93:
            return self.chance.choice(self._keys if kind < 0.87 else FULL_KEYS)
        return "".join(self.chance.choices(WORDS, k=self.chance.randint(1, 4)))[:512]

    def text(self) -> str:
        """Return a random text that can be stored."""
        if self.chance.random() < 0.3:
            return self.chance.choice(TEXTS)
        most = _LONGEST if self.chance.random() < 0.02 else 8
        return "".join(part for _ in range(self.chance.randint(1, most)) for part in self._word_and_gap())

    def value(self, levels: int = 3) -> Any:
        """Return a random JSON value."""
        kind = self.chance.random()
        if kind < 0.45 or (levels == 0 and kind < 0.7):
            return self.text()
        if kind < 0.6 or levels == 0:
            return self.chance.choice((*NUMBERS, None, True, False))
        if kind < 0.62:
            return self.chance.choice(BIG_NUMBERS)
        if kind < 0.625:
            return nested(self.chance.choice((100, 499)))
        if kind < 0.82:
            return [self.value(levels - 1) for _ in range(self.chance.randint(0, 4))]
        return {self.name(): self.value(levels - 1) for _ in range(self.chance.randint(0, 4))}

    def metadata(self) -> dict[str, Any] | None:
        """Return metadata that can be stored."""
        if self.chance.random() < 0.15:
            return None
        if self.chance.random() < 0.01:
            return {"a": nested(29)}
        size = self.chance.choice((0, 1, 1, 2, 3, 5, 12))
        return {self.name(): self.member(2) for _ in range(size)}

    def member(self, levels: int) -> Any:
        """Return a random value for a field of metadata."""
        kind = self.chance.random()
        if kind < 0.2:
            return self.alike()
        if kind < 0.35:
            return self.chance.choice(NUMBERS)
        if kind < 0.5:
            return self.chance.choice((None, True, False))
        if kind < 0.8 or levels == 0:
            return (self.text() if self.chance.random() < 0.4 else self.chance.choice(WORDS)).replace("\0", "")
        if kind < 0.9:
            return [self.member(levels - 1) for _ in range(self.chance.randint(0, 3))]
        return {self.name(): self.member(levels - 1) for _ in range(self.chance.randint(0, 3))}

    def alike(self) -> Any:
        """Return a value that databases may confuse with another one."""
        return self.chance.choice(ALIKE[:6] if self.chance.random() < 0.6 else ALIKE)

    def name(self) -> str:
        """Return a random name for a field of an object."""
        return self.chance.choice(NAMES[:6] if self.chance.random() < 0.7 else NAMES)

    def bad_value(self) -> Any:
        """Return a value that cannot be stored."""
        bad = self.chance.choice((*DAMAGING, nested(501)))
        return bad if self.chance.random() < 0.5 else [bad]

    def bad_metadata(self) -> Any:
        """Return a value that cannot be metadata."""
        return self.chance.choice(
            (nested(3), "a", {"a": nested(30)}, {"a": "\0"}, {"\0": 1}, {"a": 2**63}, {"a": [-(2**63) - 1]},
             {"a": math.nan}, {"a": "\ud800"}, {"a": (1,)})
        )  # fmt: skip

    def time(self) -> datetime:
        """Return a time far in the past or far in the future."""
        zone = self.chance.choice((None, timezone.utc, timezone(timedelta(hours=9)), timezone(-timedelta(hours=3.5))))
        year = self.chance.choice((1900, 1970, 1999, 2001, 2020, 2037, 2039, 2100, 9998, 9999))
        if self.chance.random() < 0.1:
            return datetime(9999, 12, 31, 23, 59, 59, 999_999, timezone.utc)
        microsecond = self.chance.choice((0, 1, 999_999, 123_456))
        return datetime(year, self.chance.randint(1, 12), 28, 23, 59, 59, microsecond, zone)

    def _word_and_gap(self) -> tuple[str, str]:
        return self.chance.choice(WORDS), self.chance.choice(GAPS)


def nested(levels: int) -> list[Any]:
    """Return an empty list inside lists, nested ``levels`` deep."""
    item: list[Any] = []
    for _ in range(levels - 1):
        item = [item]
    return item
