"""Encode values as JSON text and decode them exactly. A value that JSON would change is refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from the_edge_agent.memory.core.results import LTMError

MAX_VALUE_DEPTH = 500  # half of CPython's default recursion limit, so that every stored value can be read
MAX_METADATA_DEPTH = 30
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1  # databases compare larger integers in different ways
_LARGEST = sys.float_info.max
_LEVELS_IN_TEXT = 8  # levels of nesting that are counted in the text, which is fast
_MAX_SHOWN_STEPS = 20  # steps of a path that an error message shows
_ORDINARY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,29}")  # a key that an error message may show
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def encode_value(value: Any) -> str:
    """Return the JSON text of ``value``.

    Raises:
        LTMError: ``serialization_error`` if decoding the text would not give back an equal value: NaN and
            infinity, lone surrogates, tuples, sets, keys that are not strings, other objects;
            ``validation_error`` for more than ``MAX_VALUE_DEPTH`` levels.
    """
    return encode_json(value, "value", MAX_VALUE_DEPTH)


def encode_metadata(metadata: dict[str, Any] | None) -> str | None:
    """Return the JSON text of ``metadata``, or None for None.

    Raises:
        LTMError: ``validation_error`` if ``metadata`` is not a dict, is nested deeper than
            ``MAX_METADATA_DEPTH``, or holds NUL or an integer beyond 64 bits (no database can filter these
            exactly); ``serialization_error`` if it is not JSON.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise LTMError("validation_error", f"metadata must be a dict or None, not {type(metadata).__name__}")
    text = encode_json(metadata, "metadata", MAX_METADATA_DEPTH)
    check_filterable(metadata, "metadata")
    return text


class UnreadableError(Exception):
    """A stored part of an entry is not text that this module wrote.

    The message names the problem. It never shows stored data.

    Attributes:
        what: the damaged part, such as ``value``.
    """

    def __init__(self, what: str, problem: str) -> None:
        """Make the exception of a part; ``problem`` completes the sentence "its value ...", such as "is no JSON"."""
        super().__init__(f"its {what} {problem}")
        self.what = what


def decode(text: str, what: str = "value") -> Any:
    """Return the value of a JSON text that this module wrote.

    Raises:
        UnreadableError: another program wrote the text, or it was damaged. Text of a value that ``encode_value``
            would refuse counts as damaged. The error names ``what``. It has no context: the standard library's
            exception would show the text.
    """
    return _checked(_decode_number, text, what, MAX_VALUE_DEPTH)


def decode_metadata(text: str | None) -> dict[str, Any] | None:
    """Return the metadata of a JSON text that this module wrote, None for None.

    Raises:
        UnreadableError: as ``decode`` does; also for metadata that ``encode_metadata`` would refuse.
    """
    if text is None:
        return None
    metadata = _checked(_decode_filterable, text, "metadata", MAX_METADATA_DEPTH)
    if not isinstance(metadata, dict):
        raise UnreadableError("metadata", "is no JSON object")
    if "\\" in text and _has_nul(metadata):
        raise UnreadableError("metadata", "has a NUL character")
    return metadata


def decode_stored(text: str | None, decoder: Callable[[Any], Any] = decode) -> Any:
    """Decode a JSON text by ``decode`` or ``decode_metadata`` for a caller that knows no key to name.

    Raises:
        LTMError: ``query_error`` if the text is damaged.
    """
    try:
        return decoder(text)
    except UnreadableError as error:
        problem = LTMError("query_error", f"an entry is damaged, {error}")
    raise problem


def _checked(decoder: json.JSONDecoder, text: Any, what: str, max_depth: int) -> Any:
    """Return the value of a JSON text; ``decoder`` checks its numbers."""
    try:
        value, end = decoder.raw_decode(text)  # twice as fast as json.loads, which also skips surrounding space
    except (ValueError, TypeError, RecursionError):
        end = -1
    if end < 0 or end != len(text):
        value = _decode_carefully(decoder, text, what)
    if "\\" in text and "\\u" in text and not _is_encodable(value):
        raise UnreadableError(what, "has a lone surrogate")
    if _is_deeper(text, value, max_depth):
        raise UnreadableError(what, f"is nested more than {max_depth} levels deep")
    return value


def _decode_carefully(decoder: json.JSONDecoder, text: Any, what: str) -> Any:
    if not isinstance(text, str):
        raise UnreadableError(what, "is no text")
    try:
        return decoder.decode(text)
    except json.JSONDecodeError:
        problem = "is no JSON"
    except _RefusedError as error:
        problem = str(error)
    except ValueError:
        problem = "has a number that is too long"
    except RecursionError:
        if _written_depth(text) <= MAX_VALUE_DEPTH:  # the text is fine: the caller's stack is nearly full
            raise RecursionError("no stack is left to read an entry") from None
        problem = f"is nested more than {MAX_METADATA_DEPTH if what == 'metadata' else MAX_VALUE_DEPTH} levels deep"
    raise UnreadableError(what, problem)


class _RefusedError(ValueError):
    """A number that no store accepts. The message says why and does not show the number."""


def _finite(number: str) -> float:
    value = float(number)
    if -_LARGEST <= value <= _LARGEST:
        return value
    raise _RefusedError("has a number that is too large")


def _filterable(number: str) -> int:
    value = int(number)
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise _RefusedError("has an integer beyond 64 bits")


def _is_encodable(value: Any) -> bool:
    try:
        _dumps(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_nul(value: Any) -> bool:
    try:
        check_filterable(value, "metadata")
    except LTMError:
        return True
    return False


def _refuse_constant(name: str) -> Any:
    raise json.JSONDecodeError("NaN and infinity are no JSON", name, 0)


def _written_depth(text: str) -> int:
    """Return how deep the brackets of a JSON text nest. Brackets inside strings do not count."""
    depth = deepest = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        depth += (bracket in ("[", "{")) - (bracket in ("]", "}"))
        deepest = max(deepest, depth)
    return deepest


def check_filterable(value: Any, what: str) -> None:
    """Refuse strings with NUL and integers beyond 64 bits anywhere in a JSON value.

    Raises:
        LTMError: ``validation_error`` that begins with ``what``.
    """
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str):
            if "\0" in item:
                raise LTMError("validation_error", f"{what} must not contain a NUL character")
        elif isinstance(item, int) and not INT64_MIN <= item <= INT64_MAX:
            raise LTMError("validation_error", f"{what} must not contain integers beyond 64 bits")


def encode_json(value: Any, what: str, max_depth: int) -> str:
    """Return the JSON text of ``value``, which errors call ``what``.

    Raises:
        LTMError: ``serialization_error`` if decoding would not give back an equal value;
            ``validation_error`` if it is nested deeper than ``max_depth``.
    """
    try:
        text = _dumps(value)
        text.encode("utf-8")
        if _is_deeper(text, value, max_depth):
            raise RecursionError
        if _decode_written(text)[0] == value:
            return text
        problem = "it holds a tuple, a key that is not a string, or another object that JSON would change"
    except RecursionError:
        raise LTMError("validation_error", f"{what} must be nested at most {max_depth} levels deep") from None
    except UnicodeEncodeError:
        problem = "it holds a lone surrogate"
    except (TypeError, ValueError) as error:
        problem = str(error)
    place = _place_of_fault(value, what)
    raise LTMError("serialization_error", f"{place} cannot be kept exactly as JSON: {problem}")


def _place_of_fault(value: Any, what: str) -> str:
    """Return the path of the first part of a value that JSON would change, such as ``value.items[3].when``."""
    steps: list[str] = [""]
    inside: dict[int, None] = {id(steps): None}  # ids of the containers around the current part, outermost first
    parts = [iter([(what, value)])]
    while parts:
        for step, part in parts[-1]:
            if id(part) in inside or not _is_exact(part):
                path = [*steps[1:], step]
                return "".join(path[:_MAX_SHOWN_STEPS]) + ("..." if len(path) > _MAX_SHOWN_STEPS else "")
            if isinstance(part, (dict, list)):
                parts.append(_parts_of(part))
                steps.append(step)
                inside[id(part)] = None
                break
        else:
            parts.pop()
            steps.pop()
            inside.popitem()
    return what


def _parts_of(container: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(container, list):
        yield from ((f"[{index}]", item) for index, item in enumerate(container))
    else:
        for number, (key, item) in enumerate(container.items(), 1):
            yield f".{key}" if _ORDINARY_NAME.fullmatch(key) else f"[key {number}]", item


def _is_exact(part: Any) -> bool:
    """Return whether JSON can hold a value unchanged. Of a container only the keys are checked."""
    if isinstance(part, list):
        return True
    if isinstance(part, dict):
        return all(isinstance(key, str) and _is_encodable(key) for key in part)
    try:
        return _is_encodable(part) and bool(_decode_written(_dumps(part))[0] == part)
    except (TypeError, ValueError):
        return False


def comparable_json(value: Any) -> str:
    """Return JSON in which whole doubles are written as integers: PostgreSQL's NUMERIC then compares them as equal."""
    return json.dumps(_whole_as_integers(value), ensure_ascii=False, separators=(",", ":"))


def _whole_as_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_as_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_as_integers(item) for item in value]
    if isinstance(value, float) and value == int(value) and INT64_MIN <= value <= INT64_MAX:
        return int(value)
    return value


def _is_deeper(text: str, value: Any, limit: int) -> bool:
    """Return whether a value has more than ``limit`` levels of nesting. For most values the text alone tells."""
    if len(text) <= 2 * limit or text.count("[") + text.count("{") <= limit:
        return False
    brackets = text.encode(errors="surrogatepass").translate(_ONE_KIND, _NO_BRACKETS)
    for level in range(1, _LEVELS_IN_TEXT + 1):
        brackets = brackets.replace(b"[]", b"")  # removes the innermost level
        if brackets.count(b"[") + level <= limit:
            return False
    return _depth(value) > limit


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode_written = json.JSONDecoder().raw_decode
_decode_number = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_decode_filterable = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, parse_int=_filterable)
