"""Difficult keys, values, metadata and arguments, from which generated sequences of calls choose."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final

from the_edge_agent.testing.catalog_base import FUTURE, PAST

KEYS: Final = (
    *("a", "A", "a ", " a", "a\t", "á", "a\u0301", "à", "ª", "a/", "a/b", "a/b ", "a/B", "ab", "b", "ß", "ss", "SS"),
    *(
        "%",
        "_",
        "a%",
        "a_",
        "a%b",
        "a\\",
        "\\%",
        "\\_",
        "'",
        "''",
        '"',
        "a'b",
        'a"b',
        ";--",
        "`",
        "$1",
        ":k",
        "?",
        "%s",
    ),
    *(
        "😀",
        "😀😀",
        "👩\u200d🚀",
        "\U0010ffff",
        "\uffff",
        "\ud7ff",
        "ﬁ",
        "fi",
        "日本",
        "日本語",
        "İ",
        "ı",
        "\x01",
        "\n",
    ),
    *("@a.a", "@a/b.a", "@a//b.c", "@a.", "@a%2eb.a", "@a%2Fb.a", "@", "a.b"),
    *("k" * 512, "k" * 511 + " ", "😀" * 512, "1", "01", "1.0", "null", "\u00a0", "\u200b", "\ufeff"),
)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, 1.0, -0.0, 0.0, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 0.1, 2**53 + 1, 2**63),
    *(
        10**300,
        -(10**40),
        "",
        " ",
        "\0",
        "fox\0hound",
        "\\u0000",
        "e\u0301",
        "é",
        "👍🏽",
        "\u2028",
        "\x7f",
        "'; DROP",
        "\\",
    ),
    *([], {}, [[]], {"": None}, {"b": 1, "a": 2}, {"a": 2, "b": 1}, {"a": 1, "A": 2, "a ": 3}, [1, 1.0, True, "1"]),
    *(
        "red fox, red hound",
        "Red FOX",
        "ＦＵＬＬ width",
        "x" * 5_000,
        "日本語の狐",
        {"deep": [{"fox": ["hound\0"] * 3}]},
    ),
)
METADATA: Final[tuple[Any, ...]] = (
    *(None, {}, {"n": 1}, {"n": 1.0}, {"n": True}, {"n": "1"}, {"n": None}, {"n": -0.0}, {"n": 2**63 - 1}, {"n": 1e22}),
    *({"s": "fox", "n": 2}, {"n": 2, "s": "fox"}, {"s": "Fox "}, {"o": {"k": [1, 2]}}, {"a.b": [], "": 0, "😀": "é"}),
    *({"n": -(2**63)}, {"s": "e\u0301"}, {"$x": 1}, {"l": [1, [2, {"d": None}]]}, {"s": "'\"\\%_"}),
)
QUERIES: Final = (
    *(
        None,
        "",
        "fox",
        "FOX",
        "red fox",
        '"red fox"',
        '"red hound" -fox',
        "fo*",
        "f*",
        "日*",
        "狐",
        "-fox",
        "fox -hound",
    ),
    *(
        "é",
        "e\u0301",
        "😀",
        "👍🏽",
        "!!!",
        "%",
        "_",
        "'",
        "\\",
        '"',
        "fox NOT hound",
        "full",
        "x*",
        "1",
        "1.0",
        "-日本 fo*",
    ),
)
PREFIXES: Final = (
    None,
    "",
    "a",
    "A",
    "a ",
    "a/",
    "á",
    "%",
    "_",
    "\\",
    "'",
    "😀",
    "ﬁ",
    "日",
    "k" * 511,
    "\U0010ffff",
    "zz",
)
NAMESPACES: Final[tuple[tuple[str, ...], ...]] = (
    *((), (), (), ("a",), ("a",), ("a", "b"), ("a/b",), ("a.b",), ("%",), ("A",), ("😀", " "), ("n" * 300, "é")),
)
TTLS: Final = (None, None, None, 3600, 3600.5, 86400)
TIMES: Final = (PAST, PAST, PAST + timedelta(microseconds=1), PAST - timedelta(days=400), FUTURE)  # of imported entries
LIMITS: Final = (1, 2, 3, 7, 10, 100, 10_000)
HASHES: Final = ("h", "H", "sha256:" + "0" * 64, "~" * 200, "'", "\\", "%")
URIS: Final = (None, "", "s3://bucket/é ", "file:///a b", "😀" * 100, "x" * 900)
SIZES: Final = (None, 0, 1, 4096, 2**40)
EXPIRIES: Final = (
    *(None, None, None, PAST, FUTURE, FUTURE + timedelta(microseconds=1), FUTURE.replace(tzinfo=None)),
    *(FUTURE.astimezone(timezone(timedelta(hours=-7))), datetime(9999, 12, 31, 23, 59, 59, 999999, timezone.utc)),
)
