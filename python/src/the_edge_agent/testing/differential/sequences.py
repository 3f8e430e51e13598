"""Make random calls. They use what the model has, so that most of them find something."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from the_edge_agent.testing.differential.answers import SnapshotId
from the_edge_agent.testing.differential.data import (
    BAD_KEYS,
    NAMES,
    NAMESPACES,
    NUMBERS,
    QUESTION_WORDS,
    WORDS,
    Data,
    nested,
)
from the_edge_agent.testing.differential.memory_model import MOMENT, MemoryModel
from the_edge_agent.testing.differential.operations import Operation

_MOST_ENTRIES: Final = 120
_BAD: Final = 0.03  # this part of the calls is refused
_LIFETIMES: Final = (1e-6, 0.001, 3600, 3600.5, 3_000_000_000)  # seconds
_COMPARISONS: Final = ("$gt", "$gte", "$lt", "$lte")
_OF_MEMORY: Final = {
    "store": 22,
    "retrieve": 10,
    "delete": 6,
    "search": 26,
    "store_many": 6,
    "retrieve_many": 5,
    "delete_many": 3,
    "list_keys": 5,
    "count": 3,
    "iterate_all": 1,
    "iterate_entries": 2,
    "touch": 4,
    "delete_all": 1,
    "entries": 2,
    "pages": 2,
    "list_namespaces": 2,
    "import_entries": 5,
    "cleanup_expired": 2,
    "transaction": 8,
    "after_close": 0.3,
}
_OF_THE_WHOLE: Final = ("cleanup_expired", "after_close", "sync_catalog")  # calls that are made on no namespace
_OF_CATALOG: Final = {
    "catalog.track_entry": 6,
    "catalog.get_entry": 8,
    "catalog.list_entries": 6,
    "catalog.delete_entry": 4,
    "catalog.store_batch": 4,
    "catalog.retrieve_batch": 3,
    "catalog.cleanup_expired": 1,
    "catalog.create_snapshot": 2,
    "catalog.get_snapshot": 1,
    "catalog.list_snapshots": 0.5,
    "catalog.delete_snapshot": 1.5,
    "catalog.get_changed_entries": 4,
    "catalog.get_deleted_entries": 3,
    "sync_catalog": 2,
}


class Sequence:
    """Makes one random call after the other.

    Attributes:
        left_out: names of calls that are not made.
    """

    def __init__(
        self, chance: random.Random, model: MemoryModel, handles: int, *, with_catalog: bool, lasts: bool
    ) -> None:
        """Prepare calls for a number of handles. If ``lasts``, handles are sometimes closed."""
        self._chance, self._model, self._handles = chance, model, handles
        self._data = Data(chance)
        weights = {**_OF_MEMORY, **(_OF_CATALOG if with_catalog else {})}
        if not lasts:
            del weights["after_close"]
        self._namespace: tuple[str, ...] = ()  # of the present call
        self._names, self._weights = [*weights], [*weights.values()]

    def next(self) -> Operation:
        """Return the next call."""
        name = self._chance.choices(self._names, self._weights)[0]
        if len(self._model.keys) > _MOST_ENTRIES:
            name = "delete_many"
        draw: Callable[[], dict[str, Any]] = getattr(self, "_" + name.replace(".", "_"), dict)
        is_whole = "." in name or name in _OF_THE_WHOLE or len(self._model.keys) > _MOST_ENTRIES
        self._namespace = () if is_whole or self._is(0.6) else self._chance.choice(NAMESPACES)
        return Operation(name, draw(), self._chance.randrange(self._handles), self._namespace)

    # --- the memory -----------------------------------------------------------------------------------

    def _store(self) -> dict[str, Any]:
        entry = self._entry(self._some_key())
        if self._is(0.2):
            version = self._model.version(entry["key"], self._namespace)
            entry["if_version"] = self._chance.choice((version, version, version, 0, 1, version + 1))
        if self._is(_BAD):
            self._spoil(entry, ("key", "value", "metadata", "ttl", "if_version"))
        return entry

    def _retrieve(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"key": self._key_or_bad(), **self._flags("times", "refresh_ttl")}
        return {**arguments, "default": self._data.text()} if self._is(0.2) else arguments

    def _delete(self) -> dict[str, Any]:
        key = self._key_or_bad()
        if not self._is(0.3):
            return {"key": key}
        version = self._model.version(key, self._namespace)
        return {"key": key, "if_version": self._chance.choice((version, version, version, 0, 1, version + 1, -1))}

    def _touch(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"key": self._key_or_bad()}
        if self._is(0.5):
            arguments["ttl"] = self._bad("ttl") if self._is(_BAD) else self._chance.choice(_LIFETIMES)
        return arguments

    def _delete_all(self) -> dict[str, Any]:
        if self._is(0.2):
            return {"prefix": "", **self._flags("nested")}
        return {"prefix": self._some_key()}

    def _import_entries(self) -> dict[str, Any]:
        entries = [self._copy() for _ in range(self._size())]
        if entries and self._is(_BAD * 2):
            self._spoil(self._chance.choice(entries), ("key", "value", "metadata", "version"))
        way = self._chance.choice(("skip", "replace")) if len(entries) != 1 else "fail"
        return {"entries": entries, "on_conflict": "ignore" if self._is(_BAD) else way}

    def _copy(self) -> dict[str, Any]:
        entry = self._entry(self._some_key())
        ttl = entry.pop("ttl", None)
        if self._is(0.7):
            entry["version"] = self._chance.choice((1, 2, 3, 10, 2**31, 2**62))
        for name in ("created_at", "updated_at", "expires_at"):
            if self._is(0.4):
                entry[name] = self._data.time()
        if entry.get("expires_at") is not None and ttl != MOMENT:
            entry["ttl"] = ttl
        if self._is(0.3):
            entry["namespace"] = self._chance.choice(((), ("b",), ["b"], ("c", ".")))
        return entry

    def _entries(self) -> dict[str, Any]:
        return {**self._list_keys(), **({"order": "-key"} if self._is(0.5) else {})}

    def _pages(self) -> dict[str, Any]:
        order = self._chance.choice(("key", "-key", "newest", "newest"))
        limit = self._chance.choice((7, 20, 100, 10_000))
        return {"limit": limit, "order": order, **self._count()}

    def _list_namespaces(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for name in ("prefix", "suffix"):
            if self._is(0.4):
                names = [self._chance.choice(("*", "*", "a", "b", "A", "a/b")) for _ in range(self._size() % 4)]
                arguments[name] = ("",) if self._is(_BAD) else tuple(names)
        if self._is(0.4):
            arguments["max_depth"] = self._chance.choice((1, 2, 3, 0))
        if self._is(0.4):
            arguments |= {"limit": self._limit(), "offset": self._chance.choice((0, 1, 3, -1))}
        return arguments

    def _store_many(self) -> dict[str, Any]:
        entries = [self._entry(self._some_key()) for _ in range(self._size())]
        if entries and self._is(_BAD * 2):
            self._spoil(self._chance.choice(entries), ("key", "value", "metadata", "ttl"))
        return {"entries": entries}

    def _retrieve_many(self) -> dict[str, Any]:
        return {"keys": self._keys(), **self._flags("times")}

    def _delete_many(self) -> dict[str, Any]:
        if len(self._model.keys) > _MOST_ENTRIES:
            return {"keys": self._chance.sample(self._model.keys, _MOST_ENTRIES // 2)}
        return {"keys": self._keys(most=3)}

    def _list_keys(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self._is(0.5):
            arguments["prefix"] = self._prefix()
        if self._is(0.8):
            arguments["limit"] = self._limit()
        if self._is(0.5):
            arguments["after"] = self._chance.choice((self._some_key, self._prefix))()
        return arguments

    def _count(self) -> dict[str, Any]:
        if self._is(0.3):
            return {"nested": True, **({"prefix": self._prefix()} if self._is(_BAD) else {})}
        return {"prefix": self._prefix()} if self._is(0.6) else {}

    _iterate_all = _iterate_entries = _count

    def _cleanup_expired(self) -> dict[str, Any]:
        return {"batch_size": self._limit()} if self._is(0.8) else {}

    _catalog_cleanup_expired = _cleanup_expired

    def _transaction(self) -> dict[str, Any]:
        calls: list[tuple[str, dict[str, Any]]] = []
        for _ in range(self._chance.choice((0, 1, 2, 3, 5))):
            key = calls[0][1]["key"] if calls and self._is(0.3) else self._some_key()
            if self._is(0.25):
                version = {"if_version": self._model.version(key, self._namespace)} if self._is(0.3) else {}
                calls.append(("delete", {"key": key, **version}))
                continue
            entry = self._entry(key)
            if self._is(0.2):
                entry["if_version"] = self._chance.choice((*[self._model.version(key, self._namespace)] * 2, 0, 1))
            calls.append(("store", entry))
        if calls and self._is(_BAD):
            self._chance.choice(calls)[1]["key"] = self._bad("key")
        return {"calls": calls, "end": self._chance.choice(("commit", "commit", "commit", "with", "rollback", "raise"))}

    def _search(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        has_query, has_filter = self._chance.choice(((True, False), (False, True), (True, True), (True, True)))
        if has_query and self._is(0.65):
            arguments["query"] = self._question()
            if self._is(0.5):
                arguments["match"] = "any"
        else:
            arguments["match"] = "all"
            if has_query:
                arguments["query"] = self._query()
        if self._is(_BAD):
            arguments |= self._chance.choice(({"match": "some"}, {"match": "ANY"}, {"match": 1}, {"explain": 1}))
        elif self._is(0.4):
            arguments["explain"] = self._is(0.9)
        if has_filter:
            arguments["metadata_filter"] = self._bad_filter() if self._is(0.08) else self._filter(2)
        if self._is(0.6):
            arguments["limit"] = self._limit()
        if self._is(0.15):
            arguments["prefix"] = self._prefix()
        elif self._is(0.2):
            arguments["nested"] = True
        arguments |= self._flags("refresh_ttl")
        if self._is(0.2):
            arguments["offset"] = self._chance.choice((0, 1, 2, 5, 100, -1, 2**31 - 1, 2**31))
        return arguments

    def _query(self) -> str | None:
        if self._is(0.04):
            return self._chance.choice((None, "", " ", "\n", "!!!", "-", "*", '"', '""', '-""', "- fox",
            "a\0b", "\ud800", "a " * 201, "a" * 100_001,
                                        "a " * 200, "--", "-- fox", '"fox', "“fox”", "...", "-!!!",
                                        "fox*hound", "*fox", "fox**"))  # fmt: skip
        parts = [self._query_part() for _ in range(self._chance.choice((1, 1, 1, 2, 2, 3)))]
        return self._chance.choice((" ", " ", "  ", "\t", "\u3000")).join(parts)

    def _query_part(self) -> str:
        text = self._indexed_text() if self._is(0.7) else self._chance.choice(WORDS)
        pieces = text.split() or [self._chance.choice(WORDS)]
        start = self._chance.randrange(len(pieces))
        word = pieces[start][:80]
        kind = self._chance.random()
        if kind < 0.2:
            return '"' + " ".join(pieces[start : start + self._chance.randint(1, 3)])[:200].replace('"', "") + '"'
        if kind < 0.4:
            return word[: self._chance.randint(1, 5)] + "*"
        if kind < 0.5:
            return "-" + word
        if kind < 0.55:
            return f'-"{word} {self._chance.choice(WORDS)}"'
        if kind < 0.65 and len(word) > 1:
            place = self._chance.randrange(len(word))
            return word[place : place + self._chance.randint(1, 3)].strip() or word
        return self._chance.choice((word, word, word.upper(), word.lower(), word.swapcase()))

    def _question(self) -> str | None:
        """Return a question, some words and operators as a person types them, or text that is not a question."""
        if self._is(0.04):
            return self._chance.choice(
                (None, "", " \n", "?!", "+", "-", "+ fox", '"', '+"', '-"fox', '""', '+""', '-"!!"', '"fox', 'a"fox',
                 "\0", "--fox", "+-fox", "-5", "+49", "-½ fox", '-"fox" -red', "-fox", "\ud800", "a" * 100_001,
                 "x" * 16_000,
                 "q" * 4_000 + " fox", '"' + "fox red " * 150 + '"', "+fox " * 200, "+fox " * 201,
                 "-a " + "fox " * 300, "*", "fox**", "fo*x", "'s", "fox's*", "fox's's", '"fox"*', 'fox"red fox"',
                 'x-"fox"', '"a b"-fox')
            )  # fmt: skip
        most = self._chance.choice((2, 3, 8, 8, 8, 8, 40, 300))
        parts = [self._question_part() for _ in range(self._chance.randint(1, most))]
        text = self._chance.choice((" ", " ", " ", ", ", "\n", "\u3000")).join(parts)
        return text + self._chance.choice(("", "", "?", "!", '"', " ...", "?)"))

    def _question_part(self) -> str:
        kind = self._chance.random()
        if kind < 0.3:
            return self._chance.choice(QUESTION_WORDS)
        if kind < 0.75:
            text = self._indexed_text() if self._is(0.7) else self._chance.choice(WORDS)
            word = self._chance.choice(text.split() or [text])[:80]
            ending = self._chance.choice(("", "", "", "'s", "\u2019s", "s", "ing", "é", "\u0301", "*"))
            return self._chance.choice((word, word.upper(), word.title(), word[:4])) + ending
        if kind < 0.85:
            return self._chance.choice(("", "+", "+", "-")) + self._query_part()
        word = self._query_part()
        return self._chance.choice(
            (f"({word})", f"{word},", f"{word}?", f"«{word}»", f"“{word}”", f"*{word}*", f"'{word}'")
        )

    def _indexed_text(self) -> str:
        if not self._model.keys:
            return "fox"
        key = self._chance.choice(self._model.keys)
        value, metadata = self._model.texts_and_metadata(key)
        pending, texts = [value, metadata], [key]
        while pending and len(texts) < 20:
            item = pending.pop()
            if isinstance(item, (dict, list)):
                pending += item.values() if isinstance(item, dict) else item
            elif isinstance(item, str):
                texts.append(item[:1000])
            elif isinstance(item, (int, float)) and abs(item) < 1e300:
                texts.append(repr(item))
        return self._chance.choice(texts)

    def _filter(self, levels: int) -> dict[str, Any]:
        kind = self._chance.random()
        if levels and kind < 0.2:
            filters = [self._filter(levels - 1) for _ in range(self._chance.randint(0, 3))]
            return {self._chance.choice(("$and", "$or")): filters}
        if levels and kind < 0.3:
            return {"$not": self._filter(levels - 1)}
        if kind < 0.45:
            return {self._chance.choice(NAMES[:6]): self._data.alike()}
        names = [self._existing_member() for _ in range(self._chance.choice((1, 1, 1, 2)))]
        return {name: self._condition(value, 2) for name, value in names}

    def _existing_member(self) -> tuple[str, Any]:
        if self._model.keys and self._is(0.85):
            members = [*self._model.texts_and_metadata(self._chance.choice(self._model.keys))[1].items()]
            members = [member for member in members if not member[0].startswith("$")]
            if members:
                return self._chance.choice(members)
        return self._chance.choice([name for name in NAMES if not name.startswith("$")]), self._data.member(1)

    def _condition(self, value: Any, levels: int) -> Any:
        """Return a condition that a given value may satisfy."""
        if isinstance(value, dict) and levels and self._is(0.7):
            plain = {name: member for name, member in value.items() if not name.startswith("$")}
            some = self._chance.sample([*plain], min(len(plain), self._chance.randint(0, 2)))
            return {name: self._condition(plain[name], levels - 1) for name in some}
        other = self._near(value)
        kind = self._chance.random()
        if kind < 0.3:
            return {"$eq": other} if isinstance(other, dict) else other
        if kind < 0.45:
            return {self._chance.choice(("$eq", "$ne")): other}
        if kind < 0.65:
            values = [other, *(self._near(value) for _ in range(self._chance.choice((0, 1, 2, 60))))]
            return {self._chance.choice(("$in", "$nin")): self._chance.choice((values, values, []))}
        if kind < 0.75:
            return {"$exists": self._is(0.5)}
        if isinstance(other, bool) or not isinstance(other, (int, float, str)):
            other = self._chance.choice((*NUMBERS, *WORDS))
        condition = {self._chance.choice(_COMPARISONS): other}
        if self._is(0.3):
            condition[self._chance.choice(_COMPARISONS)] = self._chance.choice((*NUMBERS, "", "m", "😀"))
        return condition

    def _near(self, value: Any) -> Any:
        """Return a value, or one that is nearly equal to it."""
        if self._is(0.6):
            return value
        if isinstance(value, bool):
            return self._chance.choice((int(value), not value, float(value), str(value).lower()))
        if isinstance(value, int):
            return self._chance.choice((min(value + 1, 2**63 - 1), float(value), str(value), bool(value)))
        if isinstance(value, float):
            return self._chance.choice((-value, value + 1, repr(value), int(value) if abs(value) < 1e15 else value))
        if isinstance(value, str):
            return self._chance.choice((value.upper(), value + " ", value[:-1], value.lower(), value + "\u0301"))
        if isinstance(value, list):
            return self._chance.choice((value[::-1], [*value, 1], value[:-1], {}))
        return self._chance.choice((None, 0, "", False, [], {}, self._data.member(1)))

    def _bad_filter(self) -> Any:
        return self._chance.choice(
            ({"$near": 1}, {"a": {"$near": 1}}, {"a": 1, "$or": []}, {"a": {"b": 1, "$gt": 1}}, {"$and": {}},
            {"$and": [1]},
             {"$not": []}, {"a": {"$in": 1}}, {"a": {"$gt": None}}, {"a": {"$lt": True}}, {"a": {"$gte": [1]}},
             {"a": {"$exists": 1}}, {"$eq": 1}, {"$exists": True}, {"a": {"$and": []}}, {"a": {"$not": {}}},
             {"a": 2**63},
             {"a": "\0"}, {"\0": 1}, {"a": "\ud800"}, {"a": float("nan")}, {"a": {"$in": [(1,)]}},
             {"a": nested(60)}, {"a": {"$": 1}},
             {"a": {"$in": [*range(21_000)]}})
        )  # fmt: skip

    # --- the catalog ----------------------------------------------------------------------------------

    def _catalog_track_entry(self) -> dict[str, Any]:
        entry = self._tracked()
        if self._is(_BAD):
            entry.update(self._bad_tracked())
        return entry

    def _catalog_get_entry(self) -> dict[str, Any]:
        return {"key": self._bad("key") if self._is(_BAD) else self._tracked_key()}

    _catalog_delete_entry = _catalog_get_entry

    def _catalog_list_entries(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self._is(0.4):
            arguments["prefix"] = self._chance.choice(("own/", self._prefix()))
        if self._is(0.5):
            arguments["metadata_filter"] = self._bad_filter() if self._is(0.08) else self._filter(1)
        if self._is(0.5):
            arguments["limit"] = self._limit()
        return arguments

    def _catalog_store_batch(self) -> dict[str, Any]:
        entries = [self._tracked() for _ in range(self._size())]
        for entry in entries:
            if self._is(_BAD * 2):
                entry.update(self._bad_tracked())
        return {"entries": entries, **({"atomic": self._is(0.5)} if self._is(0.7) else {})}

    def _catalog_retrieve_batch(self) -> dict[str, Any]:
        keys = [self._tracked_key() for _ in range(self._size())]
        return {"keys": [*keys, self._bad("key")] if self._is(_BAD) else keys}

    def _catalog_create_snapshot(self) -> dict[str, Any]:
        return {"name": self._chance.choice(("monday", "Monday", "é", "'", "%", "日本", "a "))}

    def _catalog_get_snapshot(self) -> dict[str, Any]:
        return {"snapshot": SnapshotId(self._chance.randint(0, self._model.catalog.snapshot_count))}

    _catalog_delete_snapshot = _catalog_get_deleted_entries = _catalog_get_snapshot

    def _catalog_get_changed_entries(self) -> dict[str, Any]:
        return {} if self._is(0.1) else self._catalog_get_snapshot()

    def _tracked(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "key": self._own_key(),
            "content_hash": "sha256:" + self._chance.choice(("0" * 64, "1" * 64, "x", "!~")),
            "storage_uri": self._chance.choice((None, "s3://a/b", "", "é😀", "a" * 600)),
            "byte_size": self._chance.choice((None, 0, 1, 2**31, 2**40)),
            "metadata": self._data.metadata(),
        }
        if self._is(0.4):
            entry["inlined_value"] = self._data.value()
        if self._is(0.4):
            entry["expires_at"] = self._data.time()
        return entry

    def _bad_tracked(self) -> dict[str, Any]:
        return self._chance.choice(
            ({"key": self._bad("key")}, {"content_hash": ""}, {"content_hash": "a b"}, {"content_hash": "é"},
             {"content_hash": "x" * 201}, {"byte_size": -1}, {"byte_size": 2**63},
             {"metadata": self._data.bad_metadata()},
             {"inlined_value": self._data.bad_value()})
        )  # fmt: skip

    def _own_key(self) -> str:
        return "own/" + self._data.key()[:500]

    def _tracked_key(self) -> str:
        return self._own_key() if self._is(0.5) else self._some_key()

    # --- parts ----------------------------------------------------------------------------------------

    def _entry(self, key: str) -> dict[str, Any]:
        entry = {"key": key, "value": self._data.value()}
        if self._is(0.75):
            entry["metadata"] = self._data.metadata()
        if self._is(0.15):
            entry["ttl"] = self._chance.choice((MOMENT, MOMENT, *_LIFETIMES))
        elif self._is(0.07):
            entry["expires_at"] = self._data.time()
        if self._is(0.1):
            entry["index"] = self._is(0.3)
        if self._is(_BAD / 10):
            entry |= {"ttl": 60, "expires_at": self._data.time()}
        return entry

    def _spoil(self, entry: dict[str, Any], names: tuple[str, ...]) -> None:
        """Make one part of an entry bad. Only one, because the docs do not say which of two errors is reported."""
        entry.pop("expires_at", None)
        bad = self._chance.choice(names)
        entry[bad] = self._bad(bad)

    def _keys(self, most: int = 20) -> list[str]:
        keys = [self._some_key() for _ in range(min(most, self._size()))]
        return [*keys, self._bad("key")] if self._is(_BAD) else keys

    def _some_key(self) -> str:
        if self._is(0.5) and (keys := self._model.keys_in(self._namespace)):
            return self._chance.choice(keys)
        return self._data.key()

    def _key_or_bad(self) -> str:
        return str(self._bad("key")) if self._is(_BAD) else self._some_key()

    def _prefix(self) -> str | None:
        if self._is(0.06):
            return self._chance.choice((None, "", "\0", "\ud800", "x" * 513, "\U0010ffff", "\ud7ff"))
        key = self._some_key()
        return key[: self._chance.randint(1, 3)] if self._is(0.7) else key

    def _limit(self) -> int:
        return (
            self._chance.choice((1, 2, 3, 5, 10, 100, 1000, 10_000))
            if not self._is(_BAD)
            else self._chance.choice((0, -1, 10_001))
        )

    def _size(self) -> int:
        return self._chance.choice((0, 1, 2, 3, 5, 20))

    def _bad(self, what: str) -> Any:
        if what == "key":
            return self._chance.choice(BAD_KEYS)
        if what == "value":
            return self._data.bad_value()
        if what == "metadata":
            return self._data.bad_metadata()
        return self._chance.choice((0, -1, 1e-8, float("nan"), 4e9) if what == "ttl" else (-1, -(2**40)))

    def _flags(self, *names: str) -> dict[str, bool]:
        """Return some of these arguments, which are true or false."""
        return {name: self._is(0.8) for name in names if self._is(0.25)}

    def _is(self, probability: float) -> bool:
        return self._chance.random() < probability
