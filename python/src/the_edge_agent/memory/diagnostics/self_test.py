"""A short test of a memory on a database: a few calls check its main promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.result_types import SearchResult
from the_edge_agent.memory.core.results import LTMError, succeeded

_VALUE: Final = {
    "text": "the red fox",
    "b": 1,
    "a": 1.0,
    "list": [None, True, -0.0, 2**60 + 1, 0.1],
    "emoji": "😀 é 日本",
}
_KEYS: Final = ("a", "A", "a ", "á", "a\u0301", "😀", "\uffff")


def _store(memory: LTMBackend) -> None:
    stored = succeeded(memory.store("animals/fox", _VALUE, {"kind": "animal", "legs": 4}))
    _expect("the version of a new entry", stored["version"], 1)
    again = succeeded(memory.store("animals/hen", {"text": "a brown hen"}, {"kind": "animal", "legs": 2}))
    _expect("whether the entry is new", again["created"], True)


def _retrieve(memory: LTMBackend) -> None:
    entry = succeeded(memory.retrieve("animals/fox"))
    _expect("whether the entry is found", entry["found"], True)
    _expect("the metadata", entry["metadata"], {"kind": "animal", "legs": 4})
    _expect("the default of a missing entry", succeeded(memory.retrieve("animals/none", 7))["value"], 7)


def _exact_values(memory: LTMBackend) -> None:
    value = succeeded(memory.retrieve("animals/fox"))["value"]
    _expect("the value", json.dumps(value), json.dumps(_VALUE))  # as text, which differs for 1 and 1.0


def _exact_keys(memory: LTMBackend) -> None:
    succeeded(memory.store_many([{"key": f"keys/{key}", "value": key} for key in _KEYS]))
    entries = succeeded(memory.retrieve_many([f"keys/{key}" for key in _KEYS]))["entries"]
    _expect("the values by key", [entry and entry["value"] for entry in entries.values()], [*_KEYS])
    listed = succeeded(memory.list_keys("keys/"))["keys"]
    _expect("the keys in order", listed, sorted(f"keys/{key}" for key in _KEYS))


def _search(memory: LTMBackend) -> None:
    _expect("the entries with a word", _keys(memory.search("fox")), ["animals/fox"])
    _expect("the entries with a phrase", _keys(memory.search('"brown hen"')), ["animals/hen"])
    succeeded(memory.store("animals/hen", {"text": "a white hen"}, {"kind": "animal", "legs": 2}))
    _expect("the entries with a word that is gone", _keys(memory.search("brown")), [])


def _filter(memory: LTMBackend) -> None:
    condition = {"kind": "animal", "legs": {"$gte": 3}}
    _expect("the entries that pass a filter", _keys(memory.search(metadata_filter=condition)), ["animals/fox"])


def _compare_and_swap(memory: LTMBackend) -> None:
    succeeded(memory.store("swap", 1, if_version=0))
    swapped = succeeded(memory.store("swap", 2, if_version=1))
    _expect("the version of the entry that was replaced", swapped["version"], 2)
    _expect("a store over a version that is gone", memory.store("swap", 3, if_version=1).get("error_type"), "conflict")
    _expect("the value after it", succeeded(memory.retrieve("swap"))["value"], 2)


def _transaction_rollback(memory: LTMBackend) -> None:
    transaction = memory.transaction()
    succeeded(transaction.store("rolled/back", 1))
    succeeded(transaction.store("swap", 4, if_version=0))
    _expect("a commit with a conflict", transaction.commit().get("error_type"), "conflict")
    _expect("an entry of that transaction", succeeded(memory.retrieve("rolled/back"))["found"], False)


def _delete(memory: LTMBackend) -> None:
    _expect("whether the entry was there", succeeded(memory.delete("animals/fox"))["deleted"], True)
    _expect("whether it is still found", succeeded(memory.retrieve("animals/fox"))["found"], False)
    _expect("the entries with its word", _keys(memory.search("fox")), [])


#: The tests by name. Each needs the entries of those before it, and raises ``LTMError`` if it fails.
STEPS: Final[tuple[tuple[str, Callable[[LTMBackend], None]], ...]] = (
    ("store", _store),
    ("retrieve", _retrieve),
    ("exact_values", _exact_values),
    ("exact_keys", _exact_keys),
    ("search", _search),
    ("filter", _filter),
    ("compare_and_swap", _compare_and_swap),
    ("transaction_rollback", _transaction_rollback),
    ("delete", _delete),
)


def _keys(result: SearchResult) -> list[str]:
    return [entry["key"] for entry in succeeded(result)["results"]]


def _expect(what: str, actual: Any, expected: Any) -> None:
    if actual != expected:
        raise LTMError("query_error", f"{what}: found {actual!r}, expected {expected!r}")
