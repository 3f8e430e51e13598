"""Read YAML text into plain data, and remember the line and column of each key and value.

YAML is read strictly: no tags, no duplicate keys, only text as keys. Words without quotes are accepted only if YAML 1.1
and YAML 1.2 read them in the same way. Others (``no``, ``010``, ``1_000``) are refused, because each reading would
surprise someone. Dates and times such as ``2024-01-31`` and ``12:30`` are text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, NamedTuple

import yaml

from the_edge_agent.workflow.errors import Place, WorkflowFileError, describe

Path = tuple[str | int, ...]

# With aliases and merges a few lines can stand for billions of values. Real agent files have a few thousand values.
MAX_CHARACTERS = 5_000_000  # characters of a file; reading so many takes seconds
MAX_VALUES = 200_000  # keys, values and merged pairs; each use of an alias counts
MAX_TEXT = 20_000_000  # characters of all values; each use of an alias counts
MAX_DEPTH = 100  # levels of nesting

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+][0-9]+)?|\.[0-9]+([eE][-+][0-9]+)?", re.ASCII)
_NUMBER_OF_YAML_1_2 = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    re.ASCII,
)
_YAML_1_1_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_YAML_1_1_BOOL = "tag:yaml.org,2002:bool"
_YAML_1_1_MERGE = "tag:yaml.org,2002:merge"

_TEMPLATE_HINT = "; a template such as {{ state.x }} must be in quotes"


class Mark(NamedTuple):
    """A place in the text, counted from 1. ``text_line`` is the line on which a block of text begins."""

    line: int
    column: int
    text_line: int


@dataclass
class Document:
    """Plain data and the places where it was written. Data from a dict has no places."""

    data: Any
    source: str = ""
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return the place of the value (or key) at ``path``. If there is none, return the place of its parent."""
        marks = self.keys if key and path in self.keys else self.values
        written = path
        while written and written not in marks:
            written = written[:-1]
        mark = marks.get(written)
        if mark is None:
            return Place(self.source, show_path(path))
        return Place(self.source, show_path(path), mark.line, mark.column)

    def text_line(self, path: Path) -> int:
        """Return the number of the line before the text at ``path``, or 0 if there is no file."""
        mark = self.values.get(path)
        return mark.text_line - 1 if mark else 0


def show_path(path: Path) -> str:
    """Return a path as text, such as ``nodes[0].with.key``."""
    shown = ""
    for step in path:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}" if shown else step
    return shown


def read_file(path: str | PathLike[str]) -> Document:
    """Read a YAML file.

    Raises:
        WorkflowFileError: the file cannot be read, or is not plain YAML.
    """
    source = fspath(path)
    try:
        with open(source, encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise WorkflowFileError(f"not UTF-8 text: byte {error.start} can't be read", Place(source)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WorkflowFileError(f"can't read the file: {reason}", Place(source)) from None
    return read_yaml(text, source)


def read_yaml(text: str, source: str) -> Document:
    """Read YAML text.

    Args:
        text: one YAML document.
        source: the name of the file, for messages.

    Raises:
        WorkflowFileError: the text is not YAML, or has something that this reader refuses.
    """
    if len(text) > MAX_CHARACTERS:
        raise WorkflowFileError(f"the file has more than {MAX_CHARACTERS:,} characters", Place(source))
    try:
        root = _compose(text)
        document = Document(None, source)
        if root is not None:
            document.data = _Builder(document).build(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "this is not YAML"
        raise WorkflowFileError(f"not valid YAML: {problem}{_hint(text, mark)}", _place(source, mark)) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(source, "", before.count("\n") + 1, error.position - before.rfind("\n"))
        raise WorkflowFileError("not valid YAML: control characters must be escaped in quotes", place) from None
    except RecursionError:
        raise WorkflowFileError("nested too deeply", Place(source)) from None
    return document


class _Loader(yaml.SafeLoader):
    """A YAML composer that refuses tags, because they create Python objects, and limits the number of values."""

    count = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="tags such as `!!python/...` are refused", problem_mark=event.start_mark)
        self.count += 1
        self.depth += 1
        problem = _too_many(self.count) if self.count > MAX_VALUES else ""
        problem = (
            f"nested too deeply, more than {MAX_DEPTH} values in each other" if self.depth > MAX_DEPTH else problem
        )
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _too_many(values: int) -> str:
    return f"more than {MAX_VALUES:,} values, aliases and merged pairs included" if values > MAX_VALUES else ""


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Builder:
    """Turns composed YAML nodes into data, and notes the place of each in the document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._inside: set[int] = set()
        self._count = 0
        self._characters = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        mark = node.start_mark
        block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        self._document.values[path] = Mark(mark.line + 1, mark.column + 1, mark.line + (2 if block else 1))
        self._enter(node)
        try:
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._inside.discard(id(node))

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        data = {}
        for key, (key_node, value_node) in self._pairs(node).items():
            mark, place = key_node.start_mark, (*path, key)
            self._document.keys[place] = Mark(mark.line + 1, mark.column + 1, mark.line + 1)
            data[key] = self.build(value_node, place)
        return data

    def _pairs(self, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _YAML_1_1_MERGE and key_node.style is None:
                for name, pair in self._merged(value_node).items():
                    self._count_one(value_node)
                    merged.setdefault(name, pair)
                continue
            key = self._key(key_node)
            if key in own:
                first = own[key][0].start_mark.line + 1
                raise self._refused(key_node, f"the key `{key}` is here twice, first in line {first}")
            own[key] = (key_node, value_node)
        return {**merged, **own}

    def _merged(self, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise self._refused(part, "`<<` takes a mapping or a list of mappings")
            self._enter(part)
            for name, pair in self._pairs(part).items():
                self._count_one(part)
                pairs.setdefault(name, pair)
            self._inside.discard(id(part))
        return pairs

    def _enter(self, node: yaml.Node) -> None:
        self._count_one(node)
        if id(node) in self._inside:
            raise self._refused(node, "an alias that contains itself")
        self._inside.add(id(node))

    def _count_one(self, node: yaml.Node) -> None:
        self._count += 1
        if problem := _too_many(self._count):
            raise self._refused(node, problem)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            is_template = isinstance(node, yaml.MappingNode) and node.flow_style
            raise self._refused(node, f"keys must be text{_TEMPLATE_HINT if is_template else ''}")
        key = str(node.value)
        is_word = node.tag == _YAML_1_1_BOOL and key not in _TRUE | _FALSE
        if node.style is None and not is_word and not isinstance(self._scalar(node), str):
            raise self._refused(node, f'keys must be text: write "{key}" in quotes')
        return key

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        self._characters += len(text)
        if self._characters > MAX_TEXT:
            raise self._refused(node, f"more than {MAX_TEXT:,} characters, aliases included")
        if node.style is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
            return self._number(node, text)
        # The messages do not show the word, because it may be a secret.
        if node.tag == _YAML_1_1_BOOL:
            raise self._refused(node, "yes, no, on and off are ambiguous: write true or false, or put text in quotes")
        if (node.tag in _YAML_1_1_NUMBERS and ":" not in text) or _NUMBER_OF_YAML_1_2.fullmatch(text):
            raise self._refused(node, "an ambiguous number: write it in plain decimals, or put text in quotes")
        return text

    def _number(self, node: yaml.Node, text: str) -> int | float:
        try:
            if _INTEGER.fullmatch(text):
                return int(text, 16 if text.startswith("0x") else 10)
            number = float(text)
        except ValueError:  # Python refuses to read integers of more than 4,300 digits
            raise self._refused(node, "this number is too long") from None
        if not math.isfinite(number):
            raise self._refused(node, "this number is too large")
        return number

    def _refused(self, node: yaml.Node, message: str) -> WorkflowFileError:
        return WorkflowFileError(message, _place(self._document.source, node.start_mark))


def _place(source: str, mark: yaml.Mark | None) -> Place:
    return Place(source, "", mark.line + 1, mark.column + 1) if mark else Place(source)


def _hint(text: str, mark: yaml.Mark | None) -> str:
    """Return a hint for a common mistake, guessed from the line of an error, or ``""``."""
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "{{" in line:
        return _TEMPLATE_HINT
    return "; text with `: ` in it must be in quotes" if line.count(": ") > 1 else ""


def from_dict(data: Mapping[str, Any]) -> Document:
    """Copy an agent that was written as a Python dict.

    Raises:
        WorkflowFileError: something in it cannot be copied, or it is too large.
    """
    _check_size(data)
    try:
        return Document(deepcopy(data))
    except Exception as error:
        raise WorkflowFileError(f"the configuration can't be copied: {describe(error)}") from error


def _check_size(data: Any) -> None:
    """Refuse data with too many values. A list that occurs in several places counts each time."""
    count, characters, stack = 0, 0, [data]
    while stack:
        item = stack.pop()
        count += 1
        if isinstance(item, str):
            characters += len(item)
        elif isinstance(item, Mapping):
            stack += item.values()
        elif isinstance(item, list | tuple):
            stack += item
        if count + len(stack) > MAX_VALUES:
            raise WorkflowFileError(f"the configuration has {_too_many(MAX_VALUES + 1)}, or contains itself")
        if characters > MAX_TEXT:
            raise WorkflowFileError(f"the configuration has more than {MAX_TEXT:,} characters")
