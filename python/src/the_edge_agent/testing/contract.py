"""The fixtures and the exact comparisons that every part of the contract suite uses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Final, TypeAlias

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.results import Result

OpenBackend: TypeAlias = Callable[[], LTMBackend]
Item: TypeAlias = tuple[str, Any, dict[str, Any] | None]

TIMES: Final = ("created_at", "updated_at", "expires_at")
VERSION_AND_TIMES: Final = ("version", *TIMES)  # of a result of search


class ContractBase:
    """The fixtures of the contract suite.

    Attributes:
        shared_by_processes: whether each call of ``open_backend`` opens the same store again, in this process and in
            others. False for a store in RAM.
        seed: the seed of all generated data. The message of a failure names it.
    """

    shared_by_processes: ClassVar[bool] = True
    seed: ClassVar[int] = 1

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        """Return a picklable function without arguments that opens the store, empty at first. Override this."""
        raise NotImplementedError("a subclass of LTMContract must have a fixture open_backend")

    @pytest.fixture
    def backend(self, open_backend: OpenBackend) -> Iterator[LTMBackend]:
        """Return an open backend on the empty store."""
        with open_backend() as backend:
            yield backend

    @pytest.fixture
    def transactional(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it has no transactions."""
        return having(backend, "transactions")

    @pytest.fixture
    def expiring(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not accept ``ttl``."""
        return having(backend, "ttl")

    @pytest.fixture
    def timed(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not have the capability ``times``."""
        return having(backend, "times")

    @pytest.fixture
    def versioned(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not obey ``if_version``."""
        return having(backend, "versions")

    @pytest.fixture
    def matching(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not declare ``match``."""
        return having(backend, "match")

    @pytest.fixture
    def touching(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not provide ``touch``."""
        return having(backend, "touch")

    @pytest.fixture
    def indexing(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not accept ``index``."""
        return having(backend, "index")

    @pytest.fixture
    def importing(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not provide ``import_entries``."""
        return having(backend, "import")

    @pytest.fixture
    def measuring(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it does not provide ``measure``."""
        return having(backend, "measure")

    @pytest.fixture
    def namespaced(self, backend: LTMBackend) -> LTMBackend:
        """Return the backend; skip the test if it has no namespaces."""
        return having(backend, "namespaces")

    @pytest.fixture
    def reopen(self, open_backend: OpenBackend) -> OpenBackend:
        """Return ``open_backend``; skip the test if it cannot open the same store again."""
        if not self.shared_by_processes:
            pytest.skip("the store ends with the backend that opened it")
        return open_backend


def having(backend: LTMBackend, capability: str) -> LTMBackend:
    """Return the backend; skip the test if it does not declare the capability."""
    if capability not in backend.capabilities:
        pytest.skip(f"the backend declares no {capability}")
    return backend


def generator(seed: int) -> random.Random:
    """Return a random generator that repeats its data for the same seed."""
    return random.Random(seed)  # noqa: S311 - not for secrets


def load(backend: LTMBackend, items: Iterable[Item]) -> None:
    """Store items, in one transaction if the backend has transactions."""
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
    """Search with ``match="all"``: for entries that have every word. The results have no version and no times."""
    if "match" in backend.capabilities:
        options["match"] = "all"
    return without_times(backend.search(query, metadata_filter, limit, **options))


def without_times(result: Result) -> Result:
    """Return the result of a search without the fields that need the capability ``times``."""
    if not result["success"]:
        return result
    results = [
        {name: value for name, value in entry.items() if name not in VERSION_AND_TIMES} for entry in result["results"]
    ]
    return {**result, "results": results}


def text_of(value: Any) -> str:
    """Return JSON text. It differs if two values differ in any way: 1 and 1.0, 0.0 and -0.0, the order of keys."""
    return json.dumps(value, ensure_ascii=True)


def assert_same(actual: Result, expected: Result) -> None:
    """Check that two results are exactly equal, types included. The order of the keys does not matter."""
    assert actual == expected
    assert json.dumps(actual, sort_keys=True) == json.dumps(expected, sort_keys=True)


def assert_success(result: Result) -> Result:
    """Check that a result is a success, and return it."""
    assert result["success"] is True, result
    return result


def assert_failure(result: Result, error_type: str) -> None:
    """Check that a result is a failure dict of this type without further keys."""
    assert result.keys() == {"success", "error", "error_type"}, result
    assert result["success"] is False
    assert result["error_type"] == error_type, result
    assert isinstance(result["error"], str)
    assert result["error"].strip()


def assert_conflict(result: Result, key: str, version: int) -> None:
    """Check that a result is a ``conflict`` that names the key and the present version of the entry."""
    assert_failure({name: value for name, value in result.items() if name not in ("key", "version")}, "conflict")
    assert_same({name: result[name] for name in ("key", "version")}, {"key": key, "version": version})


def keys_of(result: Result) -> list[str]:
    """Return the keys in the result of a search, in order."""
    assert_success(result)
    assert result.keys() == {"success", "results", "count"}
    assert result["count"] == len(result["results"])
    return [entry["key"] for entry in result["results"]]


def differences(actual: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the cases that differ: by name ``(actual, expected)``; for sets, what only one of them has."""
    assert actual.keys() == expected.keys()
    return {name: _difference(actual[name], expected[name]) for name in actual if actual[name] != expected[name]}


def _difference(actual: Any, expected: Any) -> tuple[Any, Any]:
    if isinstance(actual, set) and isinstance(expected, set):
        return actual - expected, expected - actual
    return actual, expected


def contents(backend: LTMBackend) -> list[str]:
    """Return every entry in the store as JSON text, in key order."""
    return [text_of([*item, backend.retrieve(item[0])["version"]]) for item in backend.iterate_all()]
