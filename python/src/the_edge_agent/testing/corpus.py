"""Random entries, queries and filters. A seed repeats them, and most queries and filters match something."""

from __future__ import annotations

import random
from typing import Any, Final

from the_edge_agent.testing.contract import Item
from the_edge_agent.testing.filters import EXACT_NUMBERS

WORDS: Final = (
    *(
        "fox",
        "foxes",
        "foxglove",
        "hound",
        "red",
        "the",
        "a",
        "of",
        "q",
        "qz",
        "quick",
        "x1",
        "42",
        "3.14",
        "crème",
        "CREME",
    ),
    *(
        "naïve",
        "Straße",
        "STRASSE",
        "ﬁnal",
        "Ёлка",
        "елка",
        "οδός",
        "foo-bar",
        "foo_bar",
        "a.b@c.de",
        "it's",
        "AND",
        "or",
    ),
    *(
        "日本語",
        "日本",
        "本日",
        "我爱北京",
        "ภาษาไทย",
        "カタカナ",
        "한국어",
        "한국",
        "😀",
        "🎉😀",
        "👍🏽",
        "½",
        "ＦＵＬＬ",
        "e\u0301t\u00e9",
    ),
    *(
        "supercalifragilistic" * 5,
        "ünï" * 20,
        "http://x.y/z?q=1",
        "C++",
        "100%",
        "%_",
        "\\",
        "-",
        "...",
        "***",
        "O'Neil",
    ),
)
TEXTS: Final = (
    *(
        "",
        "a",
        "A",
        "a ",
        "b",
        "\u00e1",
        "a\u0301",
        "1",
        "1.0",
        "true",
        "null",
        "z",
        "日本",
        "\U0001f600",
        "\uffff",
        "\U00010000",
    ),
    *("it's", 'say "hi"', "back\\slash", "100%", "under_score", "new\nline", "\x01", "\u2028", "$eq", "a.b", "x" * 300),
)
NUMBERS: Final = (*EXACT_NUMBERS, -0.0, 0.0, 1, 1.0, 2, 2.0, 3, -1, 2.5, 10, 9007199254740992.0, float(10**15))
NAMES: Final = (
    *(
        "n",
        "n",
        "n",
        "text",
        "text",
        "flag",
        "list",
        "object",
        "object",
        "",
        "a.b",
        "a'b",
        'a"b',
        "a\\b",
        "a$b",
        "$.n",
        "$x",
    ),
    *("n ", "N", "日本", "\U0001f600", "\x01", "\n", "%", "[0]", "0"),
)
PREFIXES: Final = ("a", "b", "a/", "a/b", "A", "%", "_", "日", "\U0001f600", "\U0010ffff", "\ud7ff", "'")


def entries(rng: random.Random, count: int) -> list[list[Item]]:
    """Return groups of items with distinct keys. Each group is stored in one transaction."""
    by_key: dict[str, Item] = {}
    while len(by_key) < count:
        key = rng.choice(PREFIXES) + rng.choice(["", "/", " ", rng.choice(WORDS)[:20]]) + str(rng.randrange(1000))
        by_key[key] = (key, _value(rng), rng.choice([None, {}]) if rng.random() < 0.05 else _object(rng, 2))
    items = list(by_key.values())
    rng.shuffle(items)
    groups: list[list[Item]] = []
    while items:
        size = rng.choice([1, 5, 40])
        groups.append(items[:size])
        items = items[size:]
    return groups


def query(rng: random.Random, items: list[Item]) -> str:
    """Return a query of one to three parts. Most parts occur in one of the items."""
    words = _words(rng.choice(items)[1]) or list(WORDS)
    parts = [_part(rng, words if rng.random() < 0.8 else list(WORDS)) for _ in range(rng.choice([1, 1, 1, 2, 2, 3]))]
    return rng.choice([" ", " ", "  ", "\t", "\u3000"]).join(parts)


def metadata_filter(rng: random.Random, items: list[Item], depth: int = 2) -> dict[str, Any]:
    """Return a filter of one or two conditions. One of the items satisfies most of them."""
    kind = rng.random() if depth else 1.0
    if kind < 0.12:
        return {"$not": metadata_filter(rng, items, depth - 1)}
    if kind < 0.35:
        op = rng.choice(["$and", "$or", "$or"])
        return {op: [metadata_filter(rng, items, depth - 1) for _ in range(rng.choice([0, 1, 2, 2, 3]))]}
    fields = [
        (name, value)
        for name, value in (rng.choice(items)[2] or {}).items()
        if not name.startswith("$")  # which would be an operator
    ]
    chosen = rng.sample(fields, min(len(fields), rng.choice([1, 1, 1, 2]))) or [(rng.choice("nxt"), None)]
    return {name: _condition(rng, value) for name, value in chosen}


def _value(rng: random.Random) -> Any:
    texts = [_text(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    return rng.choice([texts[0], texts, {"title": texts[0], "body": {"parts": texts[1:], "n": rng.choice(NUMBERS)}}])


def _text(rng: random.Random) -> str:
    count = rng.choice([1, 2, 5, 12])
    words = (rng.choice(WORDS[: rng.choice([6, 20, len(WORDS)])]) for _ in range(count))
    return "".join(word + rng.choice([" ", " ", " ", ", ", "-", "", "\n"]) for word in words)


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [word for part in parts for word in _words(part)]


def _part(rng: random.Random, words: list[str]) -> str:
    place = rng.randrange(len(words))
    word = words[place].replace('"', "") or "fox"
    start = rng.randrange(len(word))
    kind = rng.random()
    if kind < 0.35:
        part = word
    elif kind < 0.5:
        part = f'"{" ".join(words[place : place + rng.choice([1, 2, 3])])}"'
    elif kind < 0.7:
        part = word[: rng.randrange(1, len(word) + 1)] + "*"
    elif kind < 0.8:
        part = word[start : start + rng.choice([1, 2, 3])]
    elif kind < 0.9:
        part = rng.choice([word.upper(), word.title(), word.casefold()])
    else:
        part = rng.choice(["!!!", '"', '"red', "NOT", "(fox)", "fox:*", "+fox", "~", "''", "*", '""', "fox*hound"])
    return ("-" if rng.random() < 0.15 else "") + part


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    return {rng.choice(NAMES): _field(rng, depth) for _ in range(rng.randrange(1, 6))}


def _field(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(NUMBERS)
    if kind < 0.65:
        return rng.choice(TEXTS)
    if kind < 0.8:
        return rng.choice([None, True, False, [], {}])
    if not depth:
        return rng.choice([0, 1, True, "a"])
    if kind < 0.87:
        return [_field(rng, depth - 1) for _ in range(rng.randrange(3))]
    return _object(rng, depth - 1)


def _condition(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and rng.random() < 0.7:
        below = [(name, item) for name, item in value.items() if not name.startswith("$")]
        return {
            name: _condition(rng, item) for name, item in rng.sample(below, min(len(below), rng.choice([0, 1, 1, 2])))
        }
    kind = rng.random()
    if kind < 0.35:
        return {"$eq": value} if isinstance(value, dict) else value
    if kind < 0.7 and not isinstance(value, (bool, list, dict)) and value is not None:
        return _comparisons(rng, value)
    if kind < 0.8:
        return {rng.choice(["$in", "$in", "$nin"]): [value, *(_scalar(rng) for _ in range(rng.randrange(4)))]}
    if kind < 0.9:
        return {"$exists": rng.random() < 0.7}
    return {"$ne": value if rng.random() < 0.5 else _scalar(rng)}


def _comparisons(rng: random.Random, value: Any) -> dict[str, Any]:
    ops = rng.sample(["$gt", "$gte", "$lt", "$lte"], rng.choice([1, 1, 2]))
    pool: tuple[Any, ...] = TEXTS if isinstance(value, str) else NUMBERS
    return {op: value if rng.random() < 0.5 else rng.choice(pool) for op in ops}


def _scalar(rng: random.Random) -> Any:
    return rng.choice([rng.choice(NUMBERS), rng.choice(TEXTS), None, True, False])
