"""Generates sequences of calls of memories and of catalogs from a seed and from the data of ``parity_data``.

A step names a method of a player in ``parity_players.py``, and has its arguments.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from ltm_calls import BAD_CALLS
from parity_data import (
    EXPIRIES,
    HASHES,
    KEYS,
    LIMITS,
    METADATA,
    NAMESPACES,
    PREFIXES,
    QUERIES,
    SIZES,
    TIMES,
    TTLS,
    URIS,
    VALUES,
)
from the_edge_agent.testing import bad_input as bad
from the_edge_agent.testing import catalog_bad_input as bad_of_catalogs
from the_edge_agent.testing import corpus
from the_edge_agent.testing.catalog_base import FUTURE, PAST, entry_of

Arguments: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Step:
    """One step: the name of a method, its arguments, and the number of operations for which it counts.

    The step of a memory is taken in a namespace of it.
    """

    name: str
    arguments: Arguments = ()
    options: Mapping[str, Any] | None = None
    operations: int = 1
    namespace: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the step as the text of a call."""
        shown = [*map(ascii, self.arguments), *(f"{name}={value!a}" for name, value in (self.options or {}).items())]
        part = f"namespace({', '.join(map(ascii, self.namespace))})." if self.namespace else ""
        return f"{part}{self.name}({', '.join(shown)})"


class _Sequence:
    """Chooses steps by weight until they count for enough operations."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.items = [item for group in corpus.entries(self.rng, 150) for item in group]
        self.keys = [*self.rng.sample(KEYS, 45), *(key for key, _, _ in self.items[:15])]

    def steps(self, operations: int) -> list[Step]:
        choices: dict[Callable[[], Step], float] = self.choices()
        steps: list[Step] = []
        count = 0
        while count < operations:
            (choose,) = self.rng.choices([*choices], [*choices.values()])
            steps.append(self.placed(choose()))
            count += steps[-1].operations
        return steps

    def choices(self) -> dict[Callable[[], Step], float]:
        raise NotImplementedError

    def placed(self, step: Step) -> Step:
        """Return a step with the place where it is taken."""
        return step

    def key(self) -> str:
        return self.rng.choice(self.keys)

    def some_keys(self) -> list[str]:
        return [self.key() for _ in range(self.rng.choice((0, 1, 3, 8)))]

    def value(self) -> Any:
        return self.rng.choice(VALUES) if self.rng.random() < 0.6 else self.rng.choice(self.items)[1]

    def metadata(self) -> Any:
        return self.rng.choice(METADATA) if self.rng.random() < 0.5 else self.rng.choice(self.items)[2]

    def filter(self) -> Any:
        return corpus.metadata_filter(self.rng, self._with_ours())

    def _with_ours(self) -> list[Any]:
        return [*self.items[:40], *(("", value, metadata) for value, metadata in zip(VALUES, METADATA, strict=False))]

    def bad(self, *tables: Mapping[str, Any]) -> Any:
        return self.rng.choice([*self.rng.choice(tables).values()])


class _OfAMemory(_Sequence):
    def choices(self) -> dict[Callable[[], Step], float]:
        return {
            self.store: 24,
            self.store_over: 8,
            self.retrieve: 14,
            self.search: 22,
            self.delete: 4,
            self.store_many: 3,
            self.retrieve_many: 4,
            self.delete_many: 2,
            self.list_keys: 4,
            self.pages: 1,
            self.count: 3,
            self.iterate: 1,
            self.touch: 5,
            self.delete_all: 1,
            self.entries: 3,
            self.entry_pages: 2,
            self.list_namespaces: 2,
            self.imports: 4,
            self.copies: 0.5,
            self.transaction: 5,
            self.refused: 5,
            self.time_passes: 1,
            self.clean_up: 1,
            self.reopen: 0.2,
        }

    def placed(self, step: Step) -> Step:
        if step.name in _OF_THE_WHOLE:
            return step
        return replace(step, namespace=self.rng.choice(NAMESPACES))

    def entry(self) -> dict[str, Any]:
        entry = {"key": self.key(), "value": self.value(), "metadata": self.metadata(), "ttl": self.rng.choice(TTLS)}
        return {**entry, "index": self.rng.random() < 0.3} if self.rng.random() < 0.15 else entry

    def flags(self, *names: str) -> dict[str, bool]:
        return {name: self.rng.random() < 0.8 for name in names if self.rng.random() < 0.3}

    def touch(self) -> Step:
        return Step("touch", (self.key(), self.rng.choice((None, None, 3600, 7200.5, 86400))))

    def delete_all(self) -> Step:
        prefix = self.rng.choice(PREFIXES[2:])
        return Step("delete_all", (prefix,) if self.rng.random() < 0.7 else ("",), self.flags("nested"))

    def entries(self) -> Step:
        after = self.rng.choice((None, "", self.key()))
        order = self.rng.choice(("key", "-key"))
        return Step("entries", (self.rng.choice(PREFIXES), self.rng.choice(LIMITS), after, order))

    def entry_pages(self) -> Step:
        nested = self.rng.random() < 0.4
        order = self.rng.choice(("key", "-key", "newest", "newest"))
        prefix = None if nested else self.rng.choice(PREFIXES)
        return Step("entries_page_by_page", (prefix, self.rng.choice((5, 17, 100)), order, nested))

    def list_namespaces(self) -> Step:
        names = (None, None, (), ("a",), ("*",), ("a", "*"), ("*", "b"), ("A",))
        conditions = {"prefix": self.rng.choice(names), "suffix": self.rng.choice(names)}
        depth = {"max_depth": self.rng.choice((None, None, 1, 2))}
        return Step("list_namespaces", options={**conditions, **depth, "limit": self.rng.choice(LIMITS)})

    def imports(self) -> Step:
        """Import entries. A memory chooses which of several conflicts it reports, so ``fail`` has one entry."""
        entries = [self.copy() for _ in range(self.rng.choice((0, 1, 1, 3, 8)))]
        way = "fail" if len(entries) == 1 else self.rng.choice(("skip", "replace"))
        return Step("import_entries", (entries, way), operations=max(1, len(entries)))

    def copy(self) -> dict[str, Any]:
        choose = self.rng.choice
        entry: dict[str, Any] = {**self.entry(), "expires_at": choose((FUTURE, FUTURE, PAST))}
        entry |= {"version": choose((1, 2, 5, 2**40)), "created_at": choose(TIMES), "updated_at": choose(TIMES)}
        return {**entry, "namespace": choose(((), ("b",), ["b", "/"]))} if self.rng.random() < 0.2 else entry

    def copies(self) -> Step:
        return Step("copy_into", (("b",), self.rng.choice(("skip", "replace"))))

    def store(self) -> Step:
        version = self.rng.choice((None, None, None, None, 0, 1, 2, 3, 10**6))
        return Step("store", options={**self.entry(), "if_version": version})

    def store_over(self) -> Step:
        return Step("store_over_the_current_version", options={**self.entry(), "ahead": self.rng.choice((0, 0, 0, 1))})

    def store_many(self) -> Step:
        entries = [self.entry() for _ in range(self.rng.choice((0, 1, 2, 5, 12)))]
        if entries and self.rng.random() < 0.4:
            entries.append({"key": entries[0]["key"], "value": self.value()})  # the same key twice
        if self.rng.random() < 0.25:
            entries.insert(self.rng.randrange(len(entries) + 1), self.rng.choice(_BAD_ENTRIES))
        return Step("store_many", (entries,), operations=max(1, len(entries)))

    def retrieve(self) -> Step:
        default = self.rng.choice(((), (1.0,), ([{"b": 1, "a": 2}],)))
        return Step("retrieve", (self.key(), *default), self.flags("times", "refresh_ttl"))

    def retrieve_many(self) -> Step:
        return Step("retrieve_many", (self.some_keys(),), self.flags("times"))

    def delete(self) -> Step:
        version = self.rng.choice((None, None, None, 0, 1, 2))
        return Step("delete", (self.key(),), {"if_version": version})

    def delete_many(self) -> Step:
        return Step("delete_many", (self.some_keys(),))

    def search(self) -> Step:
        chance = self.rng.random
        query = self.rng.choice(QUERIES) if chance() < 0.5 else corpus.query(self.rng, self._with_ours())
        options: dict[str, Any] = {"limit": self.rng.choice(LIMITS), "offset": self.rng.choice((0, 0, 0, 1, 5, 100))}
        if chance() < 0.3:
            options["prefix"] = self.rng.choice(PREFIXES)
        elif chance() < 0.3:
            options["nested"] = True
        options |= self.flags("refresh_ttl")
        condition = self.filter() if chance() < 0.5 else None
        return Step("search", (query if chance() < 0.7 else None, condition), options)

    def list_keys(self) -> Step:
        after = self.rng.choice((None, "", self.key()))
        return Step("list_keys", (self.rng.choice(PREFIXES), self.rng.choice(LIMITS), after))

    def pages(self) -> Step:
        return Step("list_keys_page_by_page", (self.rng.choice(PREFIXES), self.rng.choice((5, 17, 100))))

    def count(self) -> Step:
        return Step("count", **self.prefix_or_nested())

    def iterate(self) -> Step:
        return Step(self.rng.choice(("iterate_all", "iterate_entries")), **self.prefix_or_nested())

    def prefix_or_nested(self) -> dict[str, Any]:
        if self.rng.random() < 0.3:
            return {"arguments": (None,), "options": {"nested": True}}
        return {"arguments": (self.rng.choice(PREFIXES),)}

    def transaction(self) -> Step:
        calls: list[tuple[str, dict[str, Any]]] = []
        for _ in range(self.rng.choice((0, 1, 2, 4, 8))):
            delete = self.rng.random() < 0.25
            version = self.rng.choice((None,) * 8 + (0, 1))
            calls.append(
                ("delete", {"key": self.key()}) if delete else ("store", {**self.entry(), "if_version": version})
            )
        if self.rng.random() < 0.15:
            calls.append(("store", self.rng.choice(_BAD_ENTRIES[:4])))
        ending = self.rng.choice(("commit", "commit", "commit", "rollback"))
        return Step("transaction", (calls, ending), operations=len(calls) + 1)

    def refused(self) -> Step:
        store = {"key": self.key(), "value": 1}
        return self.rng.choice(
            [
                *(Step(method, arguments, options) for _, method, arguments, options in [self.rng.choice(BAD_CALLS)]),
                Step("store", (self.bad(bad.BAD_KEYS), 1)),
                Step("store", options={**store, "value": self.bad(bad.NOT_JSON)}),
                Step("store", options={**store, "metadata": self.bad(bad.BAD_METADATA)}),
                Step("retrieve", (self.bad(bad.BAD_KEYS),)),
                Step("delete", (self.bad(bad.BAD_KEYS),)),
                Step("search", (self.bad(bad.BAD_QUERIES),)),
                Step("search", (None, self.bad(bad.BAD_FILTERS))),
                Step("search", ("fox",), {"limit": self.bad(bad.BAD_LIMITS)}),
                Step("search", ("fox",), {"offset": self.bad(bad.BAD_OFFSETS)}),
                Step("list_keys", (self.bad(bad.BAD_PREFIXES),)),
                Step("count", (self.bad(bad.BAD_PREFIXES),)),
                Step("iterate_all", (self.bad(bad.BAD_PREFIXES),)),
                Step("retrieve_many", ([self.key(), self.bad(bad.BAD_KEYS)],)),
                Step("cleanup_expired", (self.bad(bad.BAD_LIMITS),)),
            ]
        )

    def time_passes(self) -> Step:
        return Step("time_passes")

    def clean_up(self) -> Step:
        return Step("clean_up", (self.rng.choice((1, 3, 100)),))

    def reopen(self) -> Step:
        return Step("reopen")


_OF_THE_WHOLE: Final = ("time_passes", "clean_up", "reopen")
_BAD_ENTRIES: Final[tuple[Any, ...]] = (
    *({"key": "", "value": 1}, {"key": "a\0", "value": 1}, {"key": "a", "value": float("nan")}),
    *({"key": "a", "value": 1, "ttl": 0}, {"key": "a"}, {"key": "a", "value": 1, "if_version": 0}, None, "a"),
)


class _OfACatalog(_Sequence):
    def choices(self) -> dict[Callable[[], Step], float]:
        return {
            self.track: 30,
            self.get: 14,
            self.list: 14,
            self.delete: 6,
            self.store_batch: 6,
            self.retrieve_batch: 5,
            self.snapshot: 2,
            self.changed: 8,
            self.deleted: 4,
            self.look_at_snapshots: 4,
            self.delete_snapshot: 1,
            self.clean_up: 1,
            self.refused: 5,
            self.reopen: 0.2,
        }

    def entry(self) -> dict[str, Any]:
        choose = self.rng.choice
        fields = {"content_hash": choose(HASHES), "storage_uri": choose(URIS), "byte_size": choose(SIZES)}
        others = {"metadata": self.metadata(), "inlined_value": self.value(), "expires_at": choose(EXPIRIES)}
        entry: dict[str, Any] = entry_of(self.key(), **fields, **others)
        return entry

    def track(self) -> Step:
        return Step("track_entry", options=self.entry())

    def get(self) -> Step:
        return Step("get_entry", (self.key(),))

    def list(self) -> Step:
        condition = self.filter() if self.rng.random() < 0.6 else None
        return Step("list_entries", (self.rng.choice(PREFIXES), condition, self.rng.choice(LIMITS)))

    def delete(self) -> Step:
        return Step("delete_entry", (self.key(),))

    def store_batch(self) -> Step:
        entries: list[Any] = [self.entry() for _ in range(self.rng.choice((0, 1, 3, 8)))]
        if entries and self.rng.random() < 0.4:
            entries.append({**self.entry(), "key": entries[0]["key"]})
        if self.rng.random() < 0.4:
            bad_entry = self.rng.choice((None, {"key": "a"}, {**self.entry(), **self._bad_argument()}))
            entries.insert(self.rng.randrange(len(entries) + 1), bad_entry)
        return Step("store_batch", (entries,), {"atomic": self.rng.random() < 0.5}, operations=max(1, len(entries)))

    def retrieve_batch(self) -> Step:
        return Step("retrieve_batch", (self.some_keys(),))

    def snapshot(self) -> Step:
        return Step("create_snapshot", (self.rng.choice(("", "nightly", "é 😀", "x" * 1000, "'\\%_")),))

    def changed(self) -> Step:
        return Step("changed_since", (self.rng.choice((None, -1, -1, -2, -3, 0)),))

    def deleted(self) -> Step:
        return Step("deleted_since", (self.rng.choice((-1, -1, -2, -3, 0)),))

    def look_at_snapshots(self) -> Step:
        return self.rng.choice((Step("list_snapshots"), Step("snapshot", (self.rng.choice((-1, -2, 0)),))))

    def delete_snapshot(self) -> Step:
        return Step("delete_a_snapshot", (self.rng.choice((-2, 0, 1)),))

    def clean_up(self) -> Step:
        return Step("clean_up", (self.rng.choice((1, 3, 100)),))

    def refused(self) -> Step:
        return self.rng.choice(
            [
                *(Step("track_entry", options={**self.entry(), **self._bad_argument()}) for _ in range(8)),
                Step("get_entry", (self.bad(bad.BAD_KEYS),)),
                Step("delete_entry", (self.bad(bad.BAD_KEYS),)),
                Step("list_entries", (self.bad(bad.BAD_PREFIXES),)),
                Step("list_entries", (None, self.bad(bad.BAD_FILTERS))),
                Step("list_entries", (None, None, self.bad(bad.BAD_LIMITS))),
                Step("create_snapshot", (self.bad(bad_of_catalogs.BAD_NAMES),)),
                Step("get_changed_entries", (self.rng.choice(_NO_SNAPSHOTS),)),
                Step("get_deleted_entries", (self.rng.choice(_NO_SNAPSHOTS[:-1]),)),
                Step("get_snapshot", (self.rng.choice(_NO_SNAPSHOTS[:-1]),)),
                Step("retrieve_batch", ([self.key(), self.bad(bad.BAD_KEYS)],)),
                Step("store_batch", ([self.entry()],), {"atomic": self.rng.choice((None, 1, "yes"))}),
                Step("cleanup_expired", (self.bad(bad.BAD_LIMITS),)),
            ]
        )

    def _bad_argument(self) -> dict[str, Any]:
        tables = {**bad_of_catalogs.BAD_ARGUMENTS, **bad_of_catalogs.not_json()}
        name = self.rng.choice([*tables])
        return {name: self.bad(tables[name])}

    def reopen(self) -> Step:
        return Step("reopen")


_NO_SNAPSHOTS: Final = ("", "nightly", "0" * 36, "é" * 36, "x" * 5000, "a\0", 1)


def sequence_of_a_memory(seed: int, operations: int) -> list[Step]:
    """Return steps for memories that count for this number of operations."""
    return _OfAMemory(seed).steps(operations)


def sequence_of_a_catalog(seed: int, operations: int) -> list[Step]:
    """Return steps for catalogs that count for this number of operations."""
    return _OfACatalog(seed).steps(operations)
