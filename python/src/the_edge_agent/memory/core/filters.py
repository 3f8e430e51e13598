"""Metadata filters: parse a dict into a small tree of conditions, and match metadata against it in Python.

``matches`` is the definition of a filter. The SQL of every dialect is tested against it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from the_edge_agent.memory.core.codec import check_filterable, encode_json
from the_edge_agent.memory.core.results import LTMError

MAX_FILTER_DEPTH = 60  # twice the depth of metadata, because operators nest too
MAX_FILTER_SIZE = 20_000  # keys and values in all; Python may have to compare them with every entry

Path: TypeAlias = tuple[str, ...]
Comparison: TypeAlias = Literal["$gt", "$gte", "$lt", "$lte"]


@dataclass(frozen=True, slots=True)
class And:
    """All of the conditions; true when there are none."""

    conditions: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the conditions; false when there are none."""

    conditions: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a condition."""

    condition: Node


@dataclass(frozen=True, slots=True)
class Equals:
    """The value at ``path`` is one of ``values``. None among them matches null and a missing value."""

    path: Path
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """The value at ``path`` has the same type as ``value`` (number or string) and compares with it as ``op`` says."""

    path: Path
    op: Comparison
    value: int | float | str


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value at ``path``, null included."""

    path: Path


@dataclass(frozen=True, slots=True)
class IsObject:
    """The value at ``path`` is an object."""

    path: Path


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Stands for a value of an ``Equals``. Two conditions that differ only in such values become equal by it."""

    place: int
    is_text: bool


Node: TypeAlias = And | Or | Not | Equals | Compare | Exists | IsObject

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_LOGICAL = ("$and", "$or", "$not")
_FIELD = ("$eq", "$ne", *COMPARISONS, "$in", "$nin", "$exists")
_MISSING: Final = object()
_MAX_ALTERNATIVES: Final = 50


def parse_filter(metadata_filter: Any) -> Node | None:
    """Return the condition of a metadata filter, or None if there is none (None or ``{}``).

    Raises:
        LTMError: ``validation_error`` if ``metadata_filter`` is not a filter: it has an unknown operator, operators
            mixed with plain keys, an operand of the wrong type, NUL, an integer beyond 64 bits, something that is not
            JSON, or more than ``MAX_FILTER_SIZE`` keys and values.
    """
    if metadata_filter is None:
        return None
    if not isinstance(metadata_filter, dict):
        raise _invalid(f"metadata_filter must be a dict or None, not {type(metadata_filter).__name__}")
    _check_size(metadata_filter)
    try:
        encode_json(metadata_filter, "metadata_filter", MAX_FILTER_DEPTH)
    except LTMError as failure:
        raise _invalid(str(failure)) from None
    check_filterable(metadata_filter, "metadata_filter")
    return _parse(metadata_filter, ()) if metadata_filter else None


def matches(node: Node | None, metadata: dict[str, Any] | None) -> bool:
    """Return whether metadata satisfies a condition. Metadata None counts as ``{}``; every entry fits no condition."""
    match node:
        case None:
            return True
        case And(conditions):
            return all(matches(condition, metadata) for condition in conditions)
        case Or(conditions):
            return any(matches(condition, metadata) for condition in conditions)
        case Not(condition):
            return not matches(condition, metadata)
        case Equals(path, values):
            actual = _at(metadata, path)
            actual = None if actual is _MISSING else actual
            return actual in values and any(equal(actual, value) for value in values)  # the first test is quick
        case Compare(path, op, value):
            actual = _at(metadata, path)
            return _orderable(actual, value) and COMPARISONS[op](actual, value)
        case Exists(path):
            return _at(metadata, path) is not _MISSING
        case IsObject(path):
            return isinstance(_at(metadata, path), dict)


def equalities(node: Node | None) -> list[dict[str, Any]]:
    """Return objects that metadata must contain to satisfy a condition. An index can look them up.

    The objects are necessary but may not be sufficient: the condition must still be checked.
    """
    match node:
        case And(conditions):
            return [contained for condition in conditions for contained in equalities(condition)]
        case Equals(path, (value,)) if isinstance(value, (bool, int, float, str)):
            return [nested(path, value)]
    return []


def index_lookups(node: Node | None) -> list[list[dict[str, Any]]]:
    """Return groups of objects that an index can look up.

    Metadata that satisfies the condition contains at least one object of each group. The groups are necessary but may
    not be sufficient: the condition must still be checked. No group has a fraction, because databases read the digits
    of fractions in different ways.
    """
    match node:
        case And(conditions):
            return [group for condition in conditions for group in index_lookups(condition)]
        case Or(conditions):
            alternatives = [index_lookups(condition) for condition in conditions]
            if not all(alternatives):
                return []
            return _short_group([contained for groups in alternatives for contained in groups[0]])
        case Equals(path, values) if all(map(_is_exact, values)):
            return _short_group([nested(path, value) for value in values])
    return []


def parameterize(node: Node | None) -> tuple[Node | None, list[tuple[Path, str | int]]]:
    """Return a condition with placeholders for its texts and integers, and the values that they stand for.

    The values are a list of pairs ``(path, value)``, in the order of the placeholders. An integer gets a placeholder
    only if a double holds it exactly.
    """
    filled: list[tuple[Path, str | int]] = []

    def placeholder(path: Path, value: Any) -> Any:
        if not isinstance(value, str) and (isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**53):
            return value
        filled.append((path, value))
        return Placeholder(len(filled) - 1, isinstance(value, str))

    def emptied(node: Node) -> Node:
        match node:
            case And(conditions):
                return And(tuple(map(emptied, conditions)))
            case Or(conditions):
                return Or(tuple(map(emptied, conditions)))
            case Not(condition):
                return Not(emptied(condition))
            case Equals(path, values):
                return Equals(path, tuple(placeholder(path, value) for value in values))
        return node

    return node and emptied(node), filled


def equal(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal: 1 equals 1.0, true does not equal 1, and key order does not matter."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def _check_size(metadata_filter: dict[Any, Any]) -> None:
    """Refuse a filter that has too many keys and values. An object that occurs twice counts twice."""
    size = 0
    pending: list[dict[Any, Any] | list[Any]] = [metadata_filter]
    while pending:
        item = pending.pop()
        size += len(item)
        if size > MAX_FILTER_SIZE:
            raise _invalid(f"metadata_filter must have at most {MAX_FILTER_SIZE:,} keys and values in all")
        children = item.values() if isinstance(item, dict) else item
        pending += [child for child in children if isinstance(child, (dict, list))]


def _parse(condition: dict[str, Any], path: Path) -> Node:
    """Parse an object at ``path`` whose keys are operators or names of fields."""
    operators = [key for key in condition if key.startswith("$")]
    if operators and len(operators) < len(condition):
        raise _invalid(f"{operators[0]} must not be mixed with plain keys in one object of metadata_filter; use $and")
    if not operators:
        nested = tuple(_parse_field((*path, key), value) for key, value in condition.items())
        return _all((IsObject(path), *nested)) if path else _all(nested)
    parse = _parse_operator if path else _parse_logical
    return _all(tuple(parse(op, condition[op], path) for op in operators))


def _parse_field(path: Path, value: Any) -> Node:
    return _parse(value, path) if isinstance(value, dict) else Equals(path, (value,))


def _parse_logical(op: str, operand: Any, path: Path) -> Node:
    if op == "$not":
        return Not(_parse_filter_operand(op, operand, path))
    if op in ("$and", "$or"):
        if not isinstance(operand, list):
            raise _invalid(f"{op} takes a list of filters")
        conditions = tuple(_parse_filter_operand(op, item, path) for item in operand)
        return And(conditions) if op == "$and" else Or(conditions)
    if op in _FIELD:
        raise _invalid(f'{op} needs a key: write {{"key": {{"{op}": ...}}}}')
    raise _unknown(op)


def _parse_filter_operand(op: str, operand: Any, path: Path) -> Node:
    if not isinstance(operand, dict):
        raise _invalid(f"{op} takes filters, which are objects")
    return _parse(operand, path)


def _parse_operator(op: str, operand: Any, path: Path) -> Node:
    match op:
        case "$eq":
            return Equals(path, (operand,))
        case "$ne":
            return Not(Equals(path, (operand,)))
        case "$in" | "$nin":
            if not isinstance(operand, list):
                raise _invalid(f"{op} takes a list")
            return Equals(path, tuple(operand)) if op == "$in" else Not(Equals(path, tuple(operand)))
        case "$gt" | "$gte" | "$lt" | "$lte":
            if isinstance(operand, bool) or not isinstance(operand, (int, float, str)):
                raise _invalid(f"{op} takes a number or a string")
            return Compare(path, op, operand)
        case "$exists":
            if not isinstance(operand, bool):
                raise _invalid("$exists takes true or false")
            return Exists(path) if operand else Not(Exists(path))
    if op in _LOGICAL:
        raise _invalid(f'{op} takes whole filters: write {{"{op}": ...}} around the key')
    raise _unknown(op)


def _all(conditions: tuple[Node, ...]) -> Node:
    return conditions[0] if len(conditions) == 1 else And(conditions)


def _at(metadata: dict[str, Any] | None, path: Path) -> Any:
    value: Any = metadata or {}
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def nested(path: Path, value: Any) -> dict[str, Any]:
    """Return the object that has ``value`` at ``path`` and nothing else, such as ``{"a": {"b": 1}}``."""
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def _is_exact(value: Any) -> bool:
    return isinstance(value, (bool, int, str)) or (isinstance(value, float) and value.is_integer())


def _short_group(group: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [group] if 0 < len(group) <= _MAX_ALTERNATIVES else []


def _orderable(actual: Any, value: int | float | str) -> bool:
    if isinstance(value, str):
        return isinstance(actual, str)
    return isinstance(actual, (int, float)) and not isinstance(actual, bool)


def _unknown(op: str) -> LTMError:
    return _invalid(f"unknown operator {op!r} in metadata_filter; known: {', '.join((*_FIELD, *_LOGICAL))}")


def _invalid(message: str) -> LTMError:
    return LTMError("validation_error", message)
