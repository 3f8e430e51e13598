"""The rules for bad input: every method returns the right error, and nothing has changed."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.results import LTMError, Result
from the_edge_agent.testing.contract import ContractBase, assert_failure, assert_success, contents, find, keys_of
from the_edge_agent.testing.exactness import nested

BAD_KEYS: Final[dict[str, Any]] = {
    "empty": "",
    "None": None,
    "int": 1,
    "bytes": b"k",
    "list": ["k"],
    "513 characters": "k" * 513,
    "513 four-byte characters": "\U0001f98a" * 513,
    "NUL": "\0",
    "NUL inside": "a\0b",
    "NUL at the end": "k\0",
    "high surrogate": "a\ud800",
    "low surrogate": "\udfff",
    "surrogates in the wrong order": "\udc00\ud800",
}

BAD_PREFIXES: Final[dict[str, Any]] = {name: key for name, key in BAD_KEYS.items() if name not in ("empty", "None")}


class Unknown:
    """An object that is not JSON."""


def circular_list() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


def circular_dict() -> dict[str, Any]:
    """Return a dict that contains itself."""
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


# These are bad at any depth, both in values and in metadata.
NOT_JSON: Final[dict[str, Any]] = {
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "lone surrogate": "a\ud800",
    "lone surrogate in a key": {"\udfff": 1},
    "object": Unknown(),
    "class": Unknown,
    "function": len,
    "bytes": b"bytes",
    "set": {1},
    "tuple": (1, 2),
    "empty tuple": (),
    "complex": 1j,
    "decimal": decimal.Decimal("1.0"),
    "datetime": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    "uuid": uuid.UUID(int=0),
    "int key": {1: "a"},
    "None key": {None: "a"},
    "bool key": {True: "a"},
    "float key": {1.5: "a"},
    "tuple key": {(1, 2): "a"},
    "keys that become one": {1: "a", "1": "a"},
    "circular list": circular_list(),
    "circular dict": circular_dict(),
}

BAD_METADATA: Final[dict[str, Any]] = {
    "list": [],
    "text": "text",
    "json text": "{}",
    "number": 1,
    "false": False,
    "tuple": (),
    "object": Unknown(),
    "31 levels": nested(31),
    "31 levels of objects": {"a": nested(30)},
    "2^63": {"a": 2**63},
    "-2^63 - 1": {"a": [{"b": -(2**63) - 1}]},
    "10^400": {"a": 10**400},
    "NUL": {"a": "x\0y"},
    "NUL in a list": {"a": ["\0"]},
    "NUL in a key": {"a\0": 1},
    "NUL in a nested key": {"a": [{"\0": 1}]},
}

BAD_LIMITS: Final[dict[str, Any]] = {
    "0": 0,
    "negative": -1,
    "10,001": 10_001,
    "2^63": 2**63,
    "true": True,
    "false": False,
    "float": 10.0,
    "infinity": math.inf,
    "text": "10",
    "injection": "1; DROP TABLE ltm_entries",
    "None": None,
}

BAD_OFFSETS: Final[dict[str, Any]] = {
    "negative": -1,
    "true": True,
    "float": 0.0,
    "text": "0",
    "None": None,
}

BAD_QUERIES: Final[dict[str, Any]] = {
    "int": 1,
    "true": True,
    "bytes": b"fox",
    "list": ["fox"],
    "dict": {"a": 1},
    "lone surrogate": "fox \ud800",
    "100,001 characters": "fox" + " " * 99_998,
}

BAD_FILTERS: Final[dict[str, Any]] = {
    "list": [],
    "text": "a",
    "number": 1,
    "false": False,
    "unknown operator": {"a": {"$regex": "x"}},
    "unknown operator at the top": {"$where": "1"},
    "operator in capitals": {"a": {"$GT": 1}},
    "only a dollar": {"a": {"$": 1}},
    "operators mixed with keys": {"a": {"$gt": 1, "b": 2}},
    "operators mixed with keys at the top": {"$and": [], "a": 1},
    "mixed below $and": {"$and": [{"a": {"b": 1, "$lt": 2}}]},
    "mixed below $not": {"$not": {"$or": [], "a": 1}},
    "comparison without a key": {"$gt": 1},
    "$eq without a key": {"$eq": {}},
    "$exists without a key": {"$exists": True},
    "$and below a key": {"a": {"$and": [{"b": 1}]}},
    "$not below a key": {"a": {"$not": {"$gt": 1}}},
    "$and with an object": {"$and": {"a": 1}},
    "$or with None": {"$or": None},
    "$or with a list of no filters": {"$or": [1]},
    "$and with a list in a list": {"$and": [[]]},
    "$not with a list": {"$not": [{"a": 1}]},
    "$not with a value": {"$not": 1},
    "$in with a value": {"a": {"$in": 1}},
    "$in with a text": {"a": {"$in": "abc"}},
    "$in with an object": {"a": {"$in": {"b": 1}}},
    "$nin with None": {"a": {"$nin": None}},
    "$exists with a number": {"a": {"$exists": 1}},
    "$exists with None": {"a": {"$exists": None}},
    "$exists with a text": {"a": {"$exists": "true"}},
    **{
        f"{op} with {operand}": {"a": {op: operand}}
        for op in ("$gt", "$gte", "$lt", "$lte")
        for operand in (None, True)
    },
    "$gt with a list": {"a": {"$gt": [1]}},
    "$lt with an object": {"a": {"$lt": {"b": 1}}},
    "20,001 values": {"a": {"$in": [*range(19_998)]}, "b": 1},
    "NaN": {"a": math.nan},
    "infinity in $lt": {"a": {"$lt": math.inf}},
    "2^63": {"a": 2**63},
    "-2^63 - 1 in $in": {"a": {"$in": [1, -(2**63) - 1]}},
    "NUL": {"a": "x\0"},
    "NUL in a key": {"a\0": 1},
    "lone surrogate": {"a": "\ud800"},
    "lone surrogate in a key": {"\ud800": 1},
    "tuple": {"a": (1, 2)},
    "object": {"a": Unknown()},
    "int key": {1: 1},
    "int key below": {"a": {1: 1}},
    "circular": circular_dict(),
}


class BadInputRules(ContractBase):
    """Bad input is refused. Every backend checks it before it sends anything to the database."""

    @pytest.fixture
    def full(self, backend: LTMBackend) -> Iterator[LTMBackend]:
        """Yield a store of two entries, and check that they are the same after the test."""
        assert_success(backend.store("k", "value", {"a": 1}))
        assert_success(backend.store("other", "value"))
        before = contents(backend)
        yield backend
        assert contents(backend) == before
        assert len(before) == 2

    def test_bad_keys_are_refused(self, full: LTMBackend) -> None:
        assert_refused(BAD_KEYS, lambda key: full.store(key, 1))
        assert_refused(BAD_KEYS, lambda key: full.retrieve(key, "default"))
        assert_refused(BAD_KEYS, lambda key: full.delete(key))
        assert_refused(BAD_KEYS, lambda key: full.retrieve_many(["k", key]))

    def test_bad_prefixes_are_refused(self, full: LTMBackend) -> None:
        def iterate(prefix: Any) -> Result:
            with pytest.raises(LTMError) as raised:
                full.iterate_all(prefix)  # the call itself raises, not the first next()
            return raised.value.result

        assert_refused(BAD_PREFIXES, lambda prefix: find(full, prefix=prefix))
        assert_refused(BAD_PREFIXES, iterate)
        assert_refused(BAD_PREFIXES, lambda prefix: full.list_keys(prefix))
        assert_refused(BAD_PREFIXES, lambda prefix: full.count(prefix))

    def test_values_that_are_not_json_are_refused(self, full: LTMBackend) -> None:
        assert_refused(anywhere(NOT_JSON), lambda value: full.store("k", value), "serialization_error")
        assert_refused(anywhere(NOT_JSON), lambda value: full.store("new", value), "serialization_error")

    def test_metadata_that_is_not_json_is_refused(self, full: LTMBackend) -> None:
        assert_refused(anywhere(NOT_JSON), lambda value: full.store("k", 1, {"b": value}), "serialization_error")
        assert_refused(anywhere(NOT_JSON), lambda value: full.store("new", 1, {"b": value}), "serialization_error")

    def test_metadata_that_cannot_be_filtered_is_refused(self, full: LTMBackend) -> None:
        assert_refused(BAD_METADATA, lambda metadata: full.store("k", 1, metadata))
        assert_refused(BAD_METADATA, lambda metadata: full.store("new", 1, metadata))

    def test_values_deeper_than_500_levels_are_refused(self, full: LTMBackend) -> None:
        deep = {str(depth): nested(depth) for depth in (501, 600, 5_000, 100_000)}
        assert_refused(deep, lambda value: full.store("k", value))
        assert_refused(deep, lambda value: full.store("new", value))

    def test_bad_limits_are_refused_whatever_the_query(self, full: LTMBackend) -> None:
        assert_refused(with_queries(BAD_LIMITS), lambda case: find(full, case[0], limit=case[1]))

    def test_bad_offsets_are_refused_whatever_the_query(self, full: LTMBackend) -> None:
        assert_refused(with_queries(BAD_OFFSETS), lambda case: find(full, case[0], offset=case[1]))

    def test_bad_pages_of_keys_are_refused_whatever_the_prefix(self, full: LTMBackend) -> None:
        for prefix in (None, "", "k", "nothing"):
            list_keys = partial(full.list_keys, prefix)
            assert_refused(BAD_LIMITS, list_keys)
            assert_refused(BAD_PREFIXES, partial(list_keys, 10))

    def test_bad_filters_are_refused_whatever_the_query(self, full: LTMBackend) -> None:
        assert_refused(with_queries(BAD_FILTERS), lambda case: find(full, case[0], case[1]))

    def test_bad_queries_are_refused(self, full: LTMBackend) -> None:
        assert_refused(BAD_QUERIES, lambda query: find(full, query))
        assert_refused(BAD_QUERIES, lambda query: find(full, query, {"a": 1}, prefix="k"))

    def test_the_limit_goes_from_1_to_10_000(self, backend: LTMBackend) -> None:
        for key in ("a", "b"):
            backend.store(key, "fox")
        for query in (None, "fox"):
            assert keys_of(find(backend, query, limit=1)) == ["b"]
            assert keys_of(find(backend, query, limit=10_000)) == ["b", "a"]

    def test_a_transaction_refuses_the_same_at_once(self, transactional: LTMBackend) -> None:
        def refuse(operation: Callable[[LTMTransaction], Result]) -> Result:
            transaction = transactional.transaction()
            result = operation(transaction)
            assert_success(transaction.rollback())
            return result

        assert_refused(BAD_KEYS, lambda key: refuse(lambda transaction: transaction.store(key, 1)))
        assert_refused(BAD_KEYS, lambda key: refuse(lambda transaction: transaction.delete(key)))
        assert_refused(BAD_METADATA, lambda data: refuse(lambda transaction: transaction.store("k", 1, data)))
        assert_refused(
            NOT_JSON, lambda value: refuse(lambda transaction: transaction.store("k", value)), "serialization_error"
        )
        assert contents(transactional) == []

    def test_stored_text_is_never_shown_in_an_error(self, backend: LTMBackend) -> None:
        for result in (
            backend.store("k", ["canary-in-value", math.nan]),
            backend.store("k", ["canary-in-value", "\ud800"]),
            backend.store("k", {"canary-in-value": (1,)}),
            backend.store("k", 1, {"a": "canary-in-value\0"}),
            backend.store("k", 1, {"canary-in-value": {1}}),
            find(backend, metadata_filter={"a": ["canary-in-value", 2**63]}),
            backend.store_many([{"key": "k", "value": "canary-in-value", "metadata": ["canary-in-value"]}]),
        ):
            assert result["success"] is False
            assert "canary" not in str(result)


def anywhere(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Return each case alone, in a list, and nested more deeply."""
    in_lists = {f"{name} in a list": [case] for name, case in cases.items()}
    return {**cases, **in_lists, **{f"{name} deeper": {"a": [1, {"b": case}]} for name, case in cases.items()}}


def with_queries(cases: Mapping[str, Any]) -> dict[str, tuple[str | None, Any]]:
    """Return each case combined with each kind of query, including queries that match nothing."""
    queries = (None, "", "value", '"value"', "-value", "!!!", "nothing")
    return {f"{name}, query {query!r}": (query, case) for name, case in cases.items() for query in queries}


def assert_refused(
    cases: Mapping[str, Any], call: Callable[[Any], Result], error_type: str = "validation_error"
) -> None:
    """Check that a call refuses each of the named cases. The failure names the cases that it does not refuse."""
    answers = {name: call(case) for name, case in cases.items()}
    wrong = {name: answer for name, answer in answers.items() if answer.get("error_type") != error_type}
    assert wrong == {}
    for answer in answers.values():
        assert_failure(answer, error_type)
