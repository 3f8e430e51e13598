"""Metadata filters for the model, written from docs/search.md."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Final

_MISSING: Final = object()
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_EQUALITIES: Final = ("$eq", "$ne", "$in", "$nin")
_OF_VALUES: Final = (*_EQUALITIES, *_ORDERS, "$exists")
_OF_FILTERS: Final = ("$and", "$or", "$not")
_MAX_DEPTH: Final = 60
_MAX_PARTS: Final = 20_000


class InvalidFilterError(Exception):
    """A filter breaks a rule."""


def check(condition: Any) -> None:
    """Check a whole filter.

    Raises:
        InvalidFilterError: it breaks a rule.
    """
    if condition is None:
        return
    if not isinstance(condition, dict) or depth(condition) > _MAX_DEPTH or _parts(condition) > _MAX_PARTS:
        raise InvalidFilterError
    _check_values(condition)
    _check_filter(condition)


def holds(condition: dict[str, Any] | None, metadata: dict[str, Any] | None) -> bool:
    """Return whether metadata satisfies a filter."""
    subject = {} if metadata is None else metadata
    return all(_filter_part(name, operand, subject) for name, operand in (condition or {}).items())


def depth(value: Any) -> int:
    """Return how many levels of objects and lists a value has."""
    levels, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        levels += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return levels


def fits_metadata(value: Any) -> bool:
    """Return whether no text in a value has NUL and no integer is beyond 64 bits."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            if "\0" in item:
                return False
        elif isinstance(item, int) and not -(2**63) <= item < 2**63:
            return False
    return True


def is_json(value: Any) -> bool:
    """Return whether a value is JSON: no NaN or infinity, no lone surrogate, no integer that is too long to write."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                return False
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            if any("\ud800" <= character <= "\udfff" for character in item):
                return False
        elif isinstance(item, float):
            if not math.isfinite(item):
                return False
        elif isinstance(item, int):
            if abs(item) >= 10**4300:
                return False
        elif item is not None:
            return False
    return True


def _parts(condition: Any) -> int:
    """Return how many keys and values a filter has."""
    parts, pending = 0, [condition]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            parts += 2 * len(item)
            pending += item.values()
        elif isinstance(item, list):
            parts += len(item)
            pending += item
    return parts


def _check_values(condition: Any) -> None:
    if not is_json(condition) or not fits_metadata(condition):
        raise InvalidFilterError


def _check_filter(condition: Any) -> None:
    if not isinstance(condition, dict):
        raise InvalidFilterError
    has_operators = _is_of_operators(condition)
    for name, operand in condition.items():
        if not has_operators:
            _check_operand(operand)
        elif name in ("$and", "$or"):
            if not isinstance(operand, list):
                raise InvalidFilterError
            for each in operand:
                _check_filter(each)
        elif name == "$not":
            _check_filter(operand)
        else:
            raise InvalidFilterError


def _check_operand(operand: Any) -> None:
    """Check the operand of a key: a value, an object with further keys, or operators."""
    if not isinstance(operand, dict):
        return
    if not _is_of_operators(operand):
        for each in operand.values():
            _check_operand(each)
        return
    for name, value in operand.items():
        is_right = {
            "$in": isinstance(value, list),
            "$nin": isinstance(value, list),
            "$exists": isinstance(value, bool),
            **dict.fromkeys(_ORDERS, isinstance(value, (int, float, str)) and not isinstance(value, bool)),
        }
        if name not in _OF_VALUES or not is_right.get(name, True):
            raise InvalidFilterError


def _is_of_operators(condition: dict[str, Any]) -> bool:
    operators = sum(name.startswith("$") for name in condition)
    if operators not in (0, len(condition)):
        raise InvalidFilterError
    return operators > 0


def _filter_part(name: str, operand: Any, subject: dict[str, Any]) -> bool:
    if name == "$and":
        return all(holds(each, subject) for each in operand)
    if name == "$or":
        return any(holds(each, subject) for each in operand)
    if name == "$not":
        return not holds(operand, subject)
    return _value_part(operand, subject.get(name, _MISSING))


def _value_part(operand: Any, actual: Any) -> bool:
    if not isinstance(operand, dict):
        return _equal(actual, operand)
    if operand and next(iter(operand)).startswith("$"):
        return all(_operator(name, value, actual) for name, value in operand.items())
    if not isinstance(actual, dict):
        return False
    return all(_value_part(each, actual.get(name, _MISSING)) for name, each in operand.items())


def _operator(name: str, operand: Any, actual: Any) -> bool:
    if name == "$exists":
        return (actual is not _MISSING) is operand
    if name in ("$eq", "$ne"):
        return _equal(actual, operand) == (name == "$eq")
    if name in ("$in", "$nin"):
        return any(_equal(actual, each) for each in operand) == (name == "$in")
    are_alike = isinstance(actual, str) == isinstance(operand, str)
    is_ordered = isinstance(actual, (int, float, str)) and not isinstance(actual, bool)
    return is_ordered and are_alike and _ORDERS[name](actual, operand)


def _equal(actual: Any, other: Any) -> bool:
    if actual is _MISSING:
        actual = None
    if isinstance(actual, dict) and isinstance(other, dict):
        return actual.keys() == other.keys() and all(_equal(actual[key], other[key]) for key in actual)
    if isinstance(actual, list) and isinstance(other, list):
        return len(actual) == len(other) and all(map(_equal, actual, other))
    if isinstance(actual, bool) or isinstance(other, bool):
        return actual is other
    if isinstance(actual, (int, float)) and isinstance(other, (int, float)):
        return actual == other
    return type(actual) is type(other) and bool(actual == other)
