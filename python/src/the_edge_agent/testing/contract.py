"""What every part of the contract suite builds on: its fixtures and its exact comparisons."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeAlias

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.results import Result

OpenBackend: TypeAlias = Callable[[], LTMBackend]
Item: TypeAlias = tuple[str, Any, dict[str, Any] | None]


class ContractBase:
    """The fixtures of the contract suite.

    Attributes:
        shared_by_processes: whether each call of ``open_backend`` opens the same store again, in this and in
            other processes; false for a store in memory.
        seed: of all generated data; a failure names it.
    """

    shared_by_processes: ClassVar[bool] = True
    seed: ClassVar[int] = 1

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        """To be overridden: a picklable callable without arguments that opens the initially empty store."""
        raise NotImplementedError("a subclass of LTMContract must have a fixture open_backend")

    @pytest.fixture
    def backend(self, open_backend: OpenBackend) -> Iterator[LTMBackend]:
        """An open backend on the empty store."""
        with open_backend() as backend:
            yield backend

    @pytest.fixture
    def transactional(self, backend: LTMBackend) -> LTMBackend:
        """The backend, where it has transactions."""
        if "transactions" not in backend.capabilities:
            pytest.skip("the backend declares no transactions")
        return backend

    @pytest.fixture
    def expiring(self, backend: LTMBackend) -> LTMBackend:
        """The backend, where it keeps lifetimes."""
        if "ttl" not in backend.capabilities:
            pytest.skip("the backend declares no ttl")
        return backend

    @pytest.fixture
    def timed(self, backend: LTMBackend) -> LTMBackend:
        """The backend, where it keeps the times of its entries."""
        if "times" not in backend.capabilities:
            pytest.skip("the backend declares no times")
        return backend

    @pytest.fixture
    def versioned(self, backend: LTMBackend) -> LTMBackend:
        """The backend, where it obeys ``if_version``."""
        if "versions" not in backend.capabilities:
            pytest.skip("the backend declares no versions")
        return backend

    @pytest.fixture
    def reopen(self, open_backend: OpenBackend) -> OpenBackend:
        """The opener, where it opens the same store again."""
        if not self.shared_by_processes:
            pytest.skip("the store ends with the backend that opened it")
        return open_backend


def generator(seed: int) -> random.Random:
    """Return a source of data that is the same for the same seed."""
    return random.Random(seed)  # noqa: S311 - keeps no secret


def load(backend: LTMBackend, items: Iterable[Item]) -> None:
    """Store items: in one transaction if the backend has them."""
    if "transactions" not in backend.capabilities:
        for key, value, metadata in items:
            assert_success(backend.store(key, value, metadata))
        return
    transaction = backend.transaction()
    for key, value, metadata in items:
        assert_success(transaction.store(key, value, metadata))
    assert_success(transaction.commit())


def find(
    backend: LTMBackend,
    query: Any = None,
    metadata_filter: Any = None,
    limit: Any = 10,
    **options: Any,
) -> Result:
    """Search for entries that have every word."""
    if "match" in backend.capabilities:
        options["match"] = "all"
    return backend.search(query, metadata_filter, limit, **options)


def text_of(value: Any) -> str:
    """Return JSON text that differs wherever two values do: 1 and 1.0, 0.0 and -0.0, the order of keys."""
    return json.dumps(value, ensure_ascii=True)


def assert_same(found: Result, expected: Result) -> None:
    """Compare two results exactly, types included, whatever the order of their own keys."""
    assert found == expected
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


def assert_success(result: Result) -> Result:
    """Return the result, which must be a success."""
    assert result["success"] is True, result
    return result


def assert_failure(result: Result, error_type: str) -> None:
    """Check that a result is a failure dict of this type, with nothing else in it."""
    assert result.keys() == {"success", "error", "error_type"}, result
    assert result["success"] is False
    assert result["error_type"] == error_type, result
    assert isinstance(result["error"], str)
    assert result["error"].strip()


def assert_conflict(result: Result, key: str, version: int) -> None:
    """Check that a result is the failure of an ``if_version``, and names the version that the entry has."""
    assert_failure({name: found for name, found in result.items() if name not in ("key", "version")}, "conflict")
    assert_same({name: result[name] for name in ("key", "version")}, {"key": key, "version": version})


def keys_of(result: Result) -> list[str]:
    """Return the keys that a search found, in order."""
    assert_success(result)
    assert result.keys() == {"success", "results", "count"}
    assert result["count"] == len(result["results"])
    return [entry["key"] for entry in result["results"]]


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the named cases that differ, as ``(found, expected)``; of two sets, what is only in each."""
    assert found.keys() == expected.keys()
    return {name: _difference(found[name], expected[name]) for name in found if found[name] != expected[name]}


def _difference(found: Any, expected: Any) -> tuple[Any, Any]:
    if isinstance(found, set) and isinstance(expected, set):
        return found - expected, expected - found
    return found, expected


def contents(backend: LTMBackend) -> list[str]:
    """Return everything in the store as JSON texts, in key order."""
    return [text_of([*item, backend.retrieve(item[0])["version"]]) for item in backend.iterate_all()]
