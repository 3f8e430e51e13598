"""The ``json.*`` actions: read and write JSON text, such as the answer of a language model."""

from __future__ import annotations

import json
from collections.abc import Callable
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final, NoReturn

from the_edge_agent.memory import NOT_GIVEN
from the_edge_agent.workflow.actions.failures import FailureError, returning_failures
from the_edge_agent.workflow.errors import describe

_MOST_BEGINNINGS: Final = 1_000  # places of a text where `strict: false` looks for JSON


def parse(state: dict[str, Any], text: str, default: Any = NOT_GIVEN, strict: bool = True) -> dict[str, Any]:
    """Read JSON text. With ``strict=False`` other text may be around it; the first object or list is read.

    If it is no JSON, ``data`` is ``default``; without one the action fails.
    """
    if not isinstance(text, str):
        raise FailureError("validation_error", f"text must be text, not {type(text).__name__}")
    try:
        data = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        data = NOT_GIVEN if strict else _first_in(text)
        if data is NOT_GIVEN:
            data = default
        if data is NOT_GIVEN:
            raise FailureError("parse_error", f"not valid JSON: {_fault(error)}") from None
    return {"success": True, "data": data}


def stringify(state: dict[str, Any], data: Any, indent: int | None = None, sort_keys: bool = False) -> dict[str, Any]:
    """Write data as JSON text, on one line or with ``indent`` (0 to 8) spaces."""
    if indent is not None and indent not in range(9):
        raise FailureError("validation_error", "indent must be a whole number from 0 to 8")
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent, sort_keys=bool(sort_keys))
    except (TypeError, ValueError, RecursionError) as error:
        raise FailureError("serialization_error", f"the data is no JSON: {describe(error)}") from None
    return {"success": True, "text": text}


JSON_ACTIONS: Final[dict[str, Callable[..., Any]]] = {
    "json.parse": returning_failures(parse),
    "json.stringify": returning_failures(stringify),
}


def _first_in(text: str) -> Any:
    """Return the first object or list in a text; NOT_GIVEN if there is none."""
    tried, start = 0, 0
    while tried < _MOST_BEGINNINGS:
        places = [place for mark in "{[" if (place := text.find(mark, start)) >= 0]
        if not places:
            break
        try:
            return _decoder.raw_decode(text, min(places))[0]
        except JSONDecodeError as error:
            start, tried = min(places) + 1, tried + 1 + (error.pos - min(places)) // 10_000
        except (ValueError, RecursionError):
            break
    return NOT_GIVEN


def _fault(error: Exception) -> str:
    """Return what is wrong with a text, and where, without the text."""
    if isinstance(error, JSONDecodeError):
        return f"{error.msg} (line {error.lineno}, column {error.colno})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_decoder: Final = JSONDecoder(parse_constant=_no_constant)
