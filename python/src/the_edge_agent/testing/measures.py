"""The rules of measure: how many entries there are, how large and how old they are."""

from __future__ import annotations

import json
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import ContractBase, assert_failure, assert_success
from the_edge_agent.testing.full_keys import full_key
from the_edge_agent.testing.lifetimes import SOON, wait_until_expired

ITEMS: Final[dict[str, tuple[Any, dict[str, Any] | None]]] = {
    "a/ascii": ("text", None),
    "a/é日😀": ("é日😀\u0000\u2028", {"é": "日", "n": 1.0}),
    "b": ({"nested": [1, 2.50, None, True, -0.0]}, {}),
    "c": (None, {"a": [1, "😀"]}),
}
NOTHING: Final = {
    "success": True,
    "entries": 0,
    "bytes": 0,
    "oldest": None,
    "newest": None,
    "expired_count": 0,
    "waiting_count": 0,
}


def bytes_of(key: str, value: Any, metadata: dict[str, Any] | None) -> int:
    """Return how many bytes an entry has: its full key and its JSON texts in UTF-8."""
    texts = [key, _json(value), "" if metadata is None else _json(metadata)]
    return sum(len(text.encode()) for text in texts)


def _json(value: Any) -> str:
    from the_edge_agent.memory.core.codec import encode_value

    assert json.loads(encode_value(value)) == value
    return encode_value(value)


def numbers(memory: LTMBackend, **options: Any) -> tuple[int, int]:
    """Return how many entries and bytes ``measure`` counts."""
    result = assert_success(memory.measure(**options))
    return result["entries"], result["bytes"]


def filled(memory: LTMBackend) -> LTMBackend:
    """Store the items."""
    for key, (value, metadata) in ITEMS.items():
        assert_success(memory.store(key, value, metadata))
    return memory


class MeasureRules(ContractBase):
    """Measuring a memory, for backends that declare ``measure``."""

    def test_an_empty_memory_measures_nothing(self, measuring: LTMBackend) -> None:
        assert measuring.measure() == NOTHING

    def test_bytes_are_those_of_keys_and_json_texts(self, measuring: LTMBackend) -> None:
        filled(measuring)
        total = sum(bytes_of(key, *item) for key, item in ITEMS.items())
        assert numbers(measuring) == (len(ITEMS), total)
        below = sum(bytes_of(key, *item) for key, item in ITEMS.items() if key.startswith("a/"))
        assert numbers(measuring, prefix="a/") == (2, below)

    def test_a_replaced_entry_counts_once_and_a_deleted_one_not_at_all(self, measuring: LTMBackend) -> None:
        filled(measuring)
        measuring.store("b", 1)
        for key in ("a/ascii", "a/é日😀", "c"):
            measuring.delete(key)
        assert numbers(measuring) == (1, bytes_of("b", 1, None))

    def test_oldest_and_newest_are_the_times_of_entries(self, measuring: LTMBackend, timed: LTMBackend) -> None:
        filled(measuring)
        measuring.store("a/ascii", "again")
        entries = [timed.retrieve(key, times=True) for key in ITEMS]
        result = measuring.measure()
        assert result["oldest"] == min(entry["created_at"] for entry in entries if entry["created_at"])
        assert result["newest"] == max(entry["updated_at"] for entry in entries if entry["updated_at"])
        assert (str(result["oldest"].tzinfo), str(result["newest"].tzinfo)) == ("UTC", "UTC")

    def test_expired_entries_count_only_as_expired(self, measuring: LTMBackend, expiring: LTMBackend) -> None:
        measuring.store("stays", 1)
        expiring.store("goes", "x" * 100, ttl=SOON)
        wait_until_expired(expiring, SOON, "goes")
        assert numbers(measuring) == (1, bytes_of("stays", 1, None))
        assert measuring.measure()["expired_count"] == 1
        assert measuring.measure("st")["expired_count"] == 0
        assert_success(measuring.cleanup_expired())
        assert measuring.measure()["expired_count"] == 0

    def test_a_namespace_measures_its_own_entries_with_their_full_keys(
        self, measuring: LTMBackend, namespaced: LTMBackend
    ) -> None:
        measuring.store("k", 1)
        for names in (("a",), ("a", "b"), ("a-b",)):
            filled(namespaced.namespace(*names))

        def size(*names: str) -> int:
            return sum(bytes_of(full_key(names, key), *item) for key, item in ITEMS.items())

        part = measuring.namespace("a")
        assert numbers(part) == (4, size("a"))
        assert numbers(part, nested=True) == (8, size("a") + size("a", "b"))
        assert numbers(measuring.namespace("nobody"), nested=True) == (0, 0)
        whole = size("a") + size("a", "b") + size("a-b") + bytes_of("k", 1, None)
        assert numbers(measuring, nested=True) == (13, whole)

    def test_waiting_entries_are_entries(self, measuring: LTMBackend) -> None:
        filled(measuring)
        assert 0 <= measuring.measure()["waiting_count"] <= len(ITEMS)
        if (optimize := getattr(measuring, "optimize", None)) is not None:
            assert_success(optimize())

    def test_bad_arguments_of_measure_are_refused(self, measuring: LTMBackend) -> None:
        for prefix in (1, b"a", "\0", ["a"]):
            assert_failure(measuring.measure(prefix), "validation_error")  # type: ignore[arg-type]
        assert_failure(measuring.measure(nested=1), "validation_error")  # type: ignore[arg-type]
