"""Metadata filters as docs/search.md defines them, for the model."""

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
    """Return how many levels of objects and lists there are."""
    levels, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        levels += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return levels


def fits_metadata(value: Any) -> bool:
    """Return whether every text is without NUL and every integer within 64 bits."""
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
    """Return whether JSON has each value: no NaN or infinity, no lone surrogate, integers that Python can write."""
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
    """Return how many keys and values there are."""
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
    """Check what stands at a key: a value, an object that is descended into, or operators."""
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


def _value_part(operand: Any, found: Any) -> bool:
    if not isinstance(operand, dict):
        return _equal(found, operand)
    if operand and next(iter(operand)).startswith("$"):
        return all(_operator(name, value, found) for name, value in operand.items())
    if not isinstance(found, dict):
        return False
    return all(_value_part(each, found.get(name, _MISSING)) for name, each in operand.items())


def _operator(name: str, operand: Any, found: Any) -> bool:
    if name == "$exists":
        return (found is not _MISSING) is operand
    if name in ("$eq", "$ne"):
        return _equal(found, operand) == (name == "$eq")
    if name in ("$in", "$nin"):
        return any(_equal(found, each) for each in operand) == (name == "$in")
    are_alike = isinstance(found, str) == isinstance(operand, str)
    is_ordered = isinstance(found, (int, float, str)) and not isinstance(found, bool)
    return is_ordered and are_alike and _ORDERS[name](found, operand)


def _equal(found: Any, wanted: Any) -> bool:
    if found is _MISSING:
        found = None
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_equal(found[key], wanted[key]) for key in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_equal, found, wanted))
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, (int, float)) and isinstance(wanted, (int, float)):
        return found == wanted
    return type(found) is type(wanted) and bool(found == wanted)
