"""Read and write JSON on the command line exactly: nothing is rounded, renamed or dropped."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, NoReturn

from the_edge_agent.cli.terminal import printable_json


class InputError(Exception):
    """The input cannot be used."""


class OutputError(Exception):
    """A result cannot be written."""


def read_object(source: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        source: the JSON text, or ``@`` and the name of a UTF-8 file with the text.

    Raises:
        InputError: the input cannot be read, is not JSON (NaN and infinity are not), is not an object, or has a key
            twice.
    """
    value = parse_json(read_text(source) if source.startswith("@") else source)
    if not isinstance(value, dict):
        raise InputError('the input must be a JSON object, such as \'{"topic": "tea"}\'')
    return value


def read_text(source: str) -> str:
    """Return a text: that of a file for ``@`` and its name, that of the standard input for ``-``; else the text itself.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    if source.startswith("@"):
        return _read_file(source[1:])
    if source != "-":
        return source
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("the standard input is not UTF-8 text") from None
    except (OSError, AttributeError):
        raise InputError("can't read the standard input") from None


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        InputError: the text is not JSON (NaN and infinity are not), has a key twice, or is not UTF-8.
    """
    try:
        text.encode("utf-8")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_float)
    except UnicodeEncodeError:
        raise InputError("the input is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"the input is not JSON: {error.msg} ({where})") from None
    except ValueError:  # Python refuses to read integers of more than 4,300 digits
        raise InputError("the input has a number that is too long") from None
    except RecursionError:
        raise InputError("the input is nested too deeply") from None


def json_line(value: Any) -> bytes:
    """Return data that is JSON as one line in UTF-8. Control characters of terminals are escaped."""
    return printable_json(json.dumps(value, ensure_ascii=False, allow_nan=False)).encode() + b"\n"


def to_json(value: Any) -> bytes:
    """Return data as indented JSON in UTF-8 that ends with a line break. Control characters of terminals are escaped.

    Raises:
        OutputError: a part of the data is not JSON. The message names the path of this part.
    """
    try:
        _check(value, "state")
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    except RecursionError:
        raise OutputError("the final state is nested too deeply, or contains itself") from None
    except ValueError as error:
        raise OutputError(f"the final state can't be written as JSON: {error}") from None
    return printable_json(text).encode() + b"\n"


def _check(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise OutputError(f"the final state is not JSON: `{path}` has a key that is not text")
            _check(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise OutputError(f"the final state is not JSON: `{path}` is {value}")
    elif not (value is None or isinstance(value, str | int | float)):
        raise OutputError(f"the final state is not JSON: `{path}` is of type {type(value).__name__}")


def _read_file(name: str) -> str:
    try:
        with open(name, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError:
        raise InputError(f"the input file {name} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"can't read the input file {name}: {reason}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"the input has the key `{twice}` twice in one object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"the input is not JSON: {name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InputError(f"the input has a number that is too large: {text}")
    if value == 0 and any(digit in "123456789" for digit in text.lower().partition("e")[0]):
        raise InputError(f"the input has a number that is too close to 0: {text}")
    return value
