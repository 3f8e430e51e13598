"""The rules of list_entries: order, prefixes, and metadata filters that work before the limit."""

from __future__ import annotations

from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.core import filters
from the_edge_agent.testing import corpus
from the_edge_agent.testing.catalog_base import CatalogBase, entry_of, keys, track, track_all
from the_edge_agent.testing.contract import differences, generator
from the_edge_agent.testing.exactness import ALIKE_UNTIL_THE_END, HOSTILE_TEXTS
from the_edge_agent.testing.filters import EXACT_NUMBERS, FILTERS, HOSTILE_KEYS, RECORDS
from the_edge_agent.testing.iteration import PREFIXES, TREE
from the_edge_agent.testing.slow import slow

GENERATED: Final = 80


def deep(leaf: Any, levels: int = 12) -> dict[str, Any]:
    """Return metadata, or a filter, that is nested more deeply than some databases can filter in SQL."""
    for _ in range(levels):
        leaf = {"k": leaf}
    return {"k": leaf}


# Some database cannot express each of these in SQL. They must still be applied before the limit.
HARD_FILTERS: Final[dict[str, Any]] = {
    "deep": deep({"$gte": 540}),
    "deep and not": {"$not": deep({"$lt": 540})},
    "deep or": {"$or": [deep({"$gte": 545}), {"n": {"$gte": 540}}]},
    "key with a minus": {"-n": {"$gte": 540}},
    "key with quotes": {"a\"\\'b": {"$gte": 540}},
    "easy": {"n": {"$gte": 540}},
}


class CatalogListingRules(CatalogBase):
    """Lists of entries, ordered by key."""

    def test_entries_are_in_the_order_of_code_points(self, catalog: CatalogBackend) -> None:
        expected = {*HOSTILE_TEXTS.values(), *TREE}
        track_all(catalog, map(entry_of, expected))
        assert keys(catalog.list_entries(limit=1000)) == sorted(expected)
        assert keys(catalog.get_changed_entries()) == sorted(expected)

    def test_long_keys_are_in_the_order_of_their_ends(self, catalog: CatalogBackend) -> None:
        expected = sorted(ALIKE_UNTIL_THE_END)
        track_all(catalog, (entry_of(key, metadata={"n": 1}) for key in ALIKE_UNTIL_THE_END))
        for limit in (1, 5, 1000):
            assert keys(catalog.list_entries(limit=limit)) == expected[:limit]
            assert keys(catalog.list_entries(None, {"n": 1}, limit)) == expected[:limit]
            assert keys(catalog.list_entries("k", {"n": 1}, limit)) == [key for key in expected if key < "l"][:limit]

    def test_a_prefix_selects_exactly_the_keys_that_begin_with_it(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, metadata={"n": 1}) for key in TREE))
        for prefix in PREFIXES:
            expected = sorted(key for key in TREE if key.startswith(prefix))
            assert keys(catalog.list_entries(prefix, limit=1000)) == expected, ascii(prefix)
            assert keys(catalog.list_entries(prefix, {"n": 1}, 1000)) == expected, ascii(prefix)
            assert keys(catalog.list_entries(prefix, limit=2)) == expected[:2], ascii(prefix)

    def test_no_prefix_selects_all(self, catalog: CatalogBackend) -> None:
        track_all(catalog, map(entry_of, TREE))
        assert (
            keys(catalog.list_entries(None, limit=1000)) == keys(catalog.list_entries("", limit=1000)) == sorted(TREE)
        )

    def test_the_first_100_entries_are_listed_unless_told(self, catalog: CatalogBackend) -> None:
        names = [f"k{number:03}" for number in range(130)]
        track_all(catalog, map(entry_of, reversed(names)))
        assert keys(catalog.list_entries()) == keys(catalog.list_entries("k", {})) == names[:100]
        for limit in (1, 2, 129, 130, 131, 10_000):
            assert keys(catalog.list_entries(limit=limit)) == names[:limit]

    @slow
    def test_each_form_of_filter_lists_what_it_must(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, metadata=metadata) for key, metadata in RECORDS.items()))
        listed = {name: keys(catalog.list_entries(None, condition)) for name, (condition, _) in FILTERS.items()}
        assert differences(listed, {name: sorted(expected) for name, (_, expected) in FILTERS.items()}) == {}

    def test_filters_compare_numbers_exactly(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(repr(number), metadata={"n": number}) for number in EXACT_NUMBERS))
        for number in EXACT_NUMBERS:
            equal = {repr(other) for other in EXACT_NUMBERS if other == number}
            above = {repr(other) for other in EXACT_NUMBERS if other > number}
            assert set(keys(catalog.list_entries(None, {"n": number}))) == equal, number
            assert set(keys(catalog.list_entries(None, {"n": {"$gt": number}}))) == above, number

    @slow
    def test_any_text_is_a_key_or_a_value_of_metadata(self, catalog: CatalogBackend) -> None:
        names = [f"k{place:03}" for place in range(len(HOSTILE_KEYS))]
        track_all(
            catalog,
            (
                entry_of(name, metadata={"outer": {key: 1}, "t": key})
                for name, key in zip(names, HOSTILE_KEYS, strict=True)
            ),
        )
        for name, key in zip(names, HOSTILE_KEYS, strict=True):
            assert keys(catalog.list_entries(None, {"t": key})) == [name], ascii(key)
            assert keys(catalog.list_entries(None, {"outer": {"$eq": {key: 1}}})) == [name], ascii(key)
            if not key.startswith("$"):  # which would be an operator
                assert keys(catalog.list_entries(None, {"outer": {key: {"$gte": 0}}})) == [name], ascii(key)

    @pytest.mark.parametrize("width", [100, 600])
    def test_a_filter_may_be_wide(self, catalog: CatalogBackend, width: int) -> None:
        every = {f"n{number}": number for number in range(width)}
        track(catalog, "k", metadata=every)
        assert keys(catalog.list_entries(None, every)) == ["k"]
        assert keys(catalog.list_entries(None, {**every, "n7": 8})) == []
        assert keys(catalog.list_entries(None, {"n7": {"$in": [*range(width)]}})) == ["k"]

    @slow
    def test_filters_and_prefixes_work_before_the_limit(self, catalog: CatalogBackend) -> None:
        def metadata(number: int) -> dict[str, Any]:
            return {"n": number, "-n": number, "a\"\\'b": number, **deep(number)}

        track_all(catalog, (entry_of(f"k{number:03}", metadata=metadata(number)) for number in range(550)))
        track_all(catalog, (entry_of(f"x{number}", metadata=metadata(540 + number)) for number in range(3)))
        expected = [*(f"k{number}" for number in range(540, 550)), "x0", "x1", "x2"]
        for name, condition in HARD_FILTERS.items():
            assert keys(catalog.list_entries(None, condition)) == expected, name
            assert keys(catalog.list_entries(None, condition, 3)) == expected[:3], name
            assert keys(catalog.list_entries("x", condition, 2)) == ["x0", "x1"], name
            assert keys(catalog.list_entries("k54", condition, 1000)) == expected[:10], name

    def test_a_filter_sees_the_newest_metadata(self, catalog: CatalogBackend) -> None:
        for number in range(5):
            track(catalog, "k", metadata={"n": number, "only": {str(number): True}})
            assert keys(catalog.list_entries(None, {"n": number})) == ["k"]
            assert keys(catalog.list_entries(None, {"n": number - 1})) == []
            assert keys(catalog.list_entries(None, {"only": {str(number - 1): {"$exists": True}}})) == []
        catalog.delete_entry("k")
        assert catalog.list_entries(None, {"n": 4}) == []

    def test_generated_listings_are_those_of_the_oracle(self, catalog: CatalogBackend) -> None:
        rng = generator(self.seed)
        items = [item for group in corpus.entries(rng, 300) for item in group]
        stored = {key: metadata for key, _, metadata in items}
        track_all(catalog, (entry_of(key, metadata=metadata) for key, _, metadata in items))
        matched = 0
        for example in range(GENERATED):
            condition, limit = corpus.metadata_filter(rng, items), rng.choice([1, 2, 10, 1000])
            prefix = rng.choice(items)[0][: rng.choice([0, 0, 1, 2])]
            parsed = filters.parse_filter(condition)
            expected = sorted(
                key for key, metadata in stored.items() if key.startswith(prefix) and filters.matches(parsed, metadata)
            )
            described = f"seed {self.seed}, example {example}: list_entries({prefix!r}, {condition!r}, {limit})"
            assert keys(catalog.list_entries(prefix, condition, limit)) == expected[:limit], described
            matched += bool(expected)
        assert matched >= GENERATED * 0.3, f"seed {self.seed}: {matched}"  # otherwise the examples would prove little
