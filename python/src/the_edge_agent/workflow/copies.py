"""Copy a state. It does what ``copy.deepcopy`` does, much faster for the data that states have."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

_NEVER_CHANGE: Final = frozenset({str, int, float, bool, type(None), bytes})


def copied(value: Any) -> Any:
    """Return a deep copy. A list or dict that occurs in several places is one list or dict in the copy too.

    Raises:
        Exception: something in the value cannot be copied.
    """
    return _copy(value, {})


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _NEVER_CHANGE:
        return value
    if kind is not dict and kind is not list:
        return deepcopy(value, memo)
    if (known := memo.get(id(value))) is not None:
        return known
    if kind is dict:
        fields: dict[Any, Any] = {}
        memo[id(value)] = fields
        for key, item in value.items():
            if type(key) not in _NEVER_CHANGE:
                key = deepcopy(key, memo)
            fields[key] = item if type(item) in _NEVER_CHANGE else _copy(item, memo)
        return fields
    items: list[Any] = []
    memo[id(value)] = items
    for item in value:
        items.append(item if type(item) in _NEVER_CHANGE else _copy(item, memo))
    return items
