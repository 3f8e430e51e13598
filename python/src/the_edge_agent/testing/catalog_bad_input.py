"""The rules for bad input to a catalog: every method returns the right error, and nothing has changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from functools import partial
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.core.results import Result
from the_edge_agent.testing.bad_input import (
    BAD_FILTERS,
    BAD_KEYS,
    BAD_LIMITS,
    BAD_METADATA,
    BAD_PREFIXES,
    NOT_JSON,
    Unknown,
    anywhere,
    assert_refused,
)
from the_edge_agent.testing.catalog_base import FUTURE, CatalogBase, contents, entry_of, result_of, track
from the_edge_agent.testing.exactness import nested

_NOT_TEXT: Final[dict[str, Any]] = {"int": 1, "bytes": b"x", "list": ["x"], "dict": {}, "object": Unknown()}
_NOT_STORABLE: Final = {"NUL": "a\0b", "surrogate": "a\ud800"}

BAD_HASHES: Final[dict[str, Any]] = {
    **_NOT_TEXT,
    **_NOT_STORABLE,
    "None": None,
    "empty": "",
    "201 characters": "x" * 201,
    "accent": "é",
    "emoji": "😀",
    "space at the end": "x ",
    "space": "x y",
    "newline": "x\n",
    "control": "\x7f",
}
BAD_URIS: Final[dict[str, Any]] = {**_NOT_TEXT, **_NOT_STORABLE}
BAD_SIZES: Final[dict[str, Any]] = {
    "negative": -1,
    "2^63": 2**63,
    "float": 1.0,
    "text": "1",
    "true": True,
    "false": False,
    "NaN": math.nan,
    "list": [1],
}
BAD_EXPIRIES: Final[dict[str, Any]] = {
    "number": 1.5,
    "int": 1,
    "text": "2999-01-01",
    "date": date(2999, 1, 1),
    "timedelta": timedelta(1),
    "true": True,
    "after the last moment in UTC": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    "before the first moment in UTC": datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
}
BAD_NAMES: Final[dict[str, Any]] = {**_NOT_TEXT, **_NOT_STORABLE, "None": None}
BAD_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "key": BAD_KEYS,
    "content_hash": BAD_HASHES,
    "storage_uri": BAD_URIS,
    "byte_size": BAD_SIZES,
    "metadata": BAD_METADATA,
    "inlined_value": {"501 levels": nested(501), "100,000 levels": nested(100_000)},
    "expires_at": BAD_EXPIRIES,
}


def not_json() -> dict[str, dict[str, Any]]:
    """Return for each argument that takes JSON a value that is not JSON."""
    everywhere = anywhere(NOT_JSON)
    return {
        "metadata": {name: {"b": value} for name, value in everywhere.items()},
        "inlined_value": everywhere,
    }


def track_with(catalog: CatalogBackend, key: str, argument: str, value: Any) -> Result:
    """Track a key with one argument that has this value."""
    return catalog.track_entry(**{**entry_of(key), argument: value})


def list_with(catalog: CatalogBackend, *arguments: Any) -> Result:
    """List entries and return a result dict, also for a failure."""
    return result_of(lambda: catalog.list_entries(*arguments))


class CatalogBadInputRules(CatalogBase):
    """Bad input is refused. Every catalog checks it before it sends anything to the database."""

    @pytest.fixture
    def full(self, catalog: CatalogBackend) -> Iterator[CatalogBackend]:
        """Yield a catalog of two entries, and check that they are the same after the test."""
        track(catalog, "k", metadata={"a": 1}, inlined_value=1)
        track(catalog, "other", expires_at=FUTURE)
        before = contents(catalog)
        yield catalog
        assert contents(catalog) == before
        assert len(before) == 2

    @pytest.mark.parametrize("argument", BAD_ARGUMENTS)
    def test_a_bad_argument_is_not_tracked(self, full: CatalogBackend, argument: str) -> None:
        for key in ("k", "new"):
            assert_refused(BAD_ARGUMENTS[argument], partial(track_with, full, key, argument))

    @pytest.mark.parametrize("argument", ["metadata", "inlined_value"])
    def test_what_is_not_json_is_not_tracked(self, full: CatalogBackend, argument: str) -> None:
        for key in ("k", "new"):
            assert_refused(not_json()[argument], partial(track_with, full, key, argument), "serialization_error")

    def test_bad_keys_are_refused_by_every_method(self, full: CatalogBackend) -> None:
        assert_refused(BAD_KEYS, lambda key: result_of(lambda: full.get_entry(key)))
        assert_refused(BAD_KEYS, lambda key: result_of(lambda: full.delete_entry(key)))
        assert_refused(BAD_KEYS, lambda key: full.retrieve_batch(["k", key]))

    def test_bad_arguments_of_list_entries_are_refused(self, full: CatalogBackend) -> None:
        for prefix in (None, "k", "nothing"):
            assert_refused(BAD_FILTERS, partial(list_with, full, prefix))
            for condition in (None, {"a": 1}):
                assert_refused(BAD_LIMITS, partial(list_with, full, prefix, condition))
        assert_refused(BAD_PREFIXES, lambda prefix: result_of(lambda: full.list_entries(prefix)))

    def test_bad_names_of_snapshots_are_refused(self, full: CatalogBackend) -> None:
        assert_refused(BAD_NAMES, lambda name: result_of(lambda: full.create_snapshot(name)))

    def test_what_is_no_list_of_keys_is_refused(self, full: CatalogBackend) -> None:
        cases = {"None": None, "number": 1, "text": "k", "bytes": b"k", "dict": {"k": 1}}
        assert_refused(cases, lambda keys: full.retrieve_batch(keys))

    def test_bad_batch_sizes_are_refused(self, full: CatalogBackend) -> None:
        assert_refused(BAD_LIMITS, lambda size: full.cleanup_expired(size))

    def test_stored_text_is_never_shown_in_an_error(self, catalog: CatalogBackend) -> None:
        canary = "canary-in-value"
        for fields in (
            {"inlined_value": [canary, math.nan]},
            {"inlined_value": {canary: (1,)}},
            {"metadata": {"a": canary + "\0"}},
            {"metadata": {canary: {1}}},
            {"storage_uri": canary + "\0"},
            {"content_hash": canary + " "},
            {"content_hash": canary * 20},
            {"byte_size": canary},
            {"expires_at": canary},
        ):
            result = catalog.track_entry(**entry_of("k", **fields))
            assert result["success"] is False
            assert canary not in str(result)
            batch = catalog.store_batch([entry_of("k", storage_uri=canary), entry_of("k", **fields)])
            assert batch["success"] is False
            assert canary not in str(batch)
