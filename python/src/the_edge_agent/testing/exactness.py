"""The rules of exactness: a memory returns what was stored, and different keys stay different."""

from __future__ import annotations

import random
import unicodedata
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_same,
    assert_success,
    find,
    generator,
    keys_of,
    load,
    text_of,
)
from the_edge_agent.testing.slow import slow

HOSTILE_TEXTS: Final[dict[str, str]] = {
    "lower case": "a",
    "upper case": "A",
    "trailing space": "a ",
    "two trailing spaces": "a  ",
    "leading space": " a",
    "space": " ",
    "no-break space": "a\u00a0",
    "zero-width joiner": "a\u200d",
    "trailing tab": "a\t",
    "trailing newline": "a\n",
    "newline": "a\nb",
    "carriage return": "a\r\nb",
    "control characters": "\x01\x02\x1f\x7f\x80\x9f",
    "accent NFC": "\u00e1",
    "accent NFD": "a\u0301",
    "upper accent": "\u00c1",
    "sharp s": "\u00df",
    "ss": "ss",
    "ligature": "\ufb01",
    "fi": "fi",
    "dotless i": "\u0131",
    "dotted I": "\u0130",
    "full width": "\uff41",
    "digit": "1",
    "superscript digit": "\u00b9",
    "single quote": "a'b",
    "double quote": 'a"b',
    "backtick": "a`b",
    "backslash": "a\\b",
    "two backslashes": "a\\\\b",
    "trailing backslash": "a\\",
    "backslash and quote": "a\\'b",
    "escape sequence": "a\\0b",
    "per cent": "a%",
    "per cent alone": "%",
    "format": "%s %(x)s {x} {0} $1 ${x} :x @x ?",
    "underscore": "_",
    "star": "*",
    "brackets": "[a-z]",
    "slash": "a/b",
    "json": '{"a": [1, "x"]}',
    "template": "{{ 7*7 }} {% raw %}",
    "null word": "null",
    "None word": "None",
    "drop table": "'; DROP TABLE ltm_entries; --",
    "or true": "' OR '1'='1",
    "or true, doubled": '" OR ""="',
    "comment": "a/*b*/ -- #",
    "union": "x') UNION SELECT key FROM ltm_entries --",
    "like escape": "\\%\\_",
    "emoji": "\U0001f600",
    "emoji with skin tone": "\U0001f44d\U0001f3fd",
    "emoji family": "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "right to left": "\u202e\u05d0\u05d1",
    "Chinese": "日本",
    "byte order mark": "\ufeff",
    "replacement character": "\ufffd",
    "last before surrogates": "\ud7ff",
    "first after surrogates": "\ue000",
    "not a character": "\uffff",
    "first above 16 bits": "\U00010000",
    "last character": "\U0010ffff",
    "line separator": "\u2028",
    "combining mark alone": "\u0301",
    "512 letters": "k" * 512,
    "512 four-byte characters": "\U0001f98a" * 512,
    "512 quotes": "'" * 512,
}

NUMBERS: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1),
    *(2**64, 10**22, 10**40 + 1, -(10**400), True, False),
    *(0.0, -0.0, 1.0, -1.0, 0.1, 0.1 + 0.2, 1e15, 1e16, 9007199254740993.0, 1e22, 1e23, 1e300, 5e-324),
    *(2.2250738585072014e-308, 1.7976931348623157e308, 1.152921504606847e18, 123456789.123456789, 1e-7),
)

VALUES: Final[dict[str, Any]] = {
    "numbers": list(NUMBERS),
    "texts": [*HOSTILE_TEXTS.values()],
    "keys": {text: index for index, text in enumerate([*HOSTILE_TEXTS.values(), "", "\0"])},
    "key order": {"z": 1, "a": 2, "m": {"b": 1, "a": 2}, "10": 1, "9": 2},
    "NUL": ["\0", "a\0b", "\0\0", {"a\0b": "\0"}, "\\0", "\\u0000", "\\\\u0000"],
    "NFC and NFD": [unicodedata.normalize(form, "Ångström ﬁ ½ 각") for form in ("NFC", "NFD", "NFKC", "NFKD")],
    "every character up to U+2FFF": "".join(map(chr, range(0x3000))),
    "nothing in everything": [None, [None], {"": None}, [[]], [{}], {"a": {}}, [False, 0, "", 0.0]],
    "looks like a date": ["2024-01-01", "2024-01-01T00:00:00Z", "1e5", "NaN", "Infinity", "0x10"],
    "long numbers in text": ["1" * 500, "a" + "9" * 30, {"9" * 30: "0." + "3" * 60}],
    "2 MB of text": "0123456789\U0001f600é\\\"'" * 120_000,
    "2 MB of numbers": list(range(300_000)),
    "wide": {f"key {number}": [number, str(number)] for number in range(20_000)},
}


def nested(depth: int) -> Any:
    """Return a value of objects and lists, ``depth`` levels deep."""
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


METADATA: Final[dict[str, dict[str, Any]]] = {
    "texts": {"text": [*HOSTILE_TEXTS.values()]},
    "keys": {text: text for text in [*HOSTILE_TEXTS.values(), "", "$", "$eq", "$.a", "a.b", "[0]"]},
    "numbers": {"n": [number for number in NUMBERS if not isinstance(number, int) or -(2**63) <= number < 2**63]},
    "key order and types": {"z": 1, "a": {"y": None, "b": []}, "m": 1.0, "i": 1, "t": True},
    "30 levels": {"a": nested(29)},
    "long": {"long": "x" * 100_000},
}


def random_json(rng: random.Random, depth: int = 4) -> Any:
    """Return any JSON value."""
    kind = rng.randrange(7 if depth else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([rng.randrange(-100, 100), rng.getrandbits(70), rng.choice(NUMBERS)])
    if kind == 2:
        return rng.choice([rng.uniform(-1, 1), rng.uniform(-1, 1) * 10.0 ** rng.randrange(-300, 300)])
    if kind in (3, 4):
        return random_text(rng)
    if kind == 5:
        return [random_json(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {random_text(rng): random_json(rng, depth - 1) for _ in range(rng.randrange(5))}


def random_text(rng: random.Random) -> str:
    """Return a text that databases find hard, or one of random characters."""
    if rng.random() < 0.3:
        return rng.choice([*HOSTILE_TEXTS.values()])[:40]
    codes = (rng.randrange(rng.choice([0x80, 0x800, 0xD800, 0x110000])) for _ in range(rng.randrange(12)))
    return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


# A database that sorts only by the first bytes of a text would return these in any order.
ALIKE_UNTIL_THE_END: Final = tuple(
    letter * (500 + more) + end for letter in ("k", "日", "\U0001f98a") for more in (0, 11) for end in "cab"
)


class ExactnessRules(ContractBase):
    """Values, metadata and keys that databases tend to change."""

    def read(self, backend: LTMBackend, value: Any, metadata: dict[str, Any] | None = None) -> list[str]:
        """Store an entry and return what each read method returns for it, as texts that show every difference."""
        assert_success(backend.store("k", value, metadata))
        ((_, iterated_value, iterated_metadata),) = backend.iterate_all()
        read_back = (backend.retrieve("k"), find(backend, prefix="k")["results"][0])
        read = [(entry["value"], entry["metadata"]) for entry in read_back]
        return [text_of(entry) for entry in (*read, (iterated_value, iterated_metadata))]

    @slow
    def test_a_value_comes_out_as_it_went_in(self, backend: LTMBackend) -> None:
        changed = [name for name, value in VALUES.items() if {*self.read(backend, value)} != {text_of((value, None))}]
        assert changed == []

    def test_a_value_may_be_500_levels_deep(self, backend: LTMBackend) -> None:
        for depth in (1, 30, 31, 100, 101, 199, 200, 254, 255, 500):
            value = nested(depth)
            assert {*self.read(backend, value)} == {text_of((value, None))}

    def test_numbers_keep_their_type(self, backend: LTMBackend) -> None:
        for number in NUMBERS:
            backend.store("k", number)
            assert repr(backend.retrieve("k")["value"]) == repr(number)

    def test_any_value_and_metadata_come_out_as_they_went_in(self, backend: LTMBackend) -> None:
        rng = generator(self.seed)
        items = [(f"k{number:03}", random_json(rng), self.random_metadata(rng)) for number in range(200)]
        load(backend, items)
        yielded = list(backend.iterate_all())
        for expected, got in zip(items, yielded, strict=True):
            assert text_of(got) == text_of(expected), f"seed {self.seed}"
            assert text_of(backend.retrieve(expected[0])["value"]) == text_of(expected[1]), f"seed {self.seed}"

    def random_metadata(self, rng: random.Random) -> dict[str, Any] | None:
        """Return metadata that may be stored."""
        while True:
            metadata = (
                {random_text(rng): random_json(rng) for _ in range(rng.randrange(4))} if rng.random() < 0.9 else None
            )
            if "\\u0000" not in text_of(metadata) and not any(abs(number) >= 2**63 for number in _integers(metadata)):
                return metadata

    @slow
    def test_metadata_comes_out_as_it_went_in(self, backend: LTMBackend) -> None:
        changed = [name for name, data in METADATA.items() if {*self.read(backend, 1, data)} != {text_of((1, data))}]
        assert changed == []

    @slow
    def test_any_text_is_a_key(self, backend: LTMBackend) -> None:
        for key in HOSTILE_TEXTS.values():
            stored = {"success": True, "stored": True, "key": key, "created": True, "version": 1}
            assert_same(backend.store(key, 1), stored)
            assert backend.retrieve(key)["value"] == 1
            assert keys_of(find(backend, prefix=key)) == [item[0] for item in backend.iterate_all(key)] == [key]
            assert_same(backend.delete(key), {"success": True, "deleted": True, "key": key})
            assert backend.retrieve(key)["found"] is False

    def test_every_key_is_its_own(self, backend: LTMBackend) -> None:
        for name, key in HOSTILE_TEXTS.items():
            assert_success(backend.store(key, name, {"name": name}))
        assert {key: backend.retrieve(key)["value"] for key in HOSTILE_TEXTS.values()} == {
            key: name for name, key in HOSTILE_TEXTS.items()
        }
        assert {entry["key"]: entry["value"] for entry in find(backend, limit=1000)["results"]} == {
            key: name for name, key in HOSTILE_TEXTS.items()
        }
        for deleted, key in enumerate(HOSTILE_TEXTS.values(), start=1):
            assert backend.delete(key)["deleted"] is True
            assert find(backend, limit=1000)["count"] == len(HOSTILE_TEXTS) - deleted


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return _integers([*value.values()])
    if isinstance(value, list):
        return [number for item in value for number in _integers(item)]
    return [value] if isinstance(value, int) else []
