"""Limit the work of templates: count their steps, and the characters and elements that they make.

A short template can cause much work: ``'%100000000d' % 1``, a list that is doubled 32 times, nested loops. One such
call may block the interpreter for minutes, and no timeout can interrupt it. So every operation pays for the data that
it reads and makes. An operation that can make much data from little pays before it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

import jinja2
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import Namespace

# The unit of work is to copy one character. The cost of other operations is their time in this unit. At the limit a
# template has run for 1 to 3 seconds on an idle machine, or has made 50 million characters. Real templates need less
# than a hundredth of that.
MAX_WORK: Final = 50_000_000
MAX_RUN_WORK: Final = 4 * MAX_WORK  # for all templates and states of one run of an untrusted file
ELEMENT: Final = 20  # the cost of an element of a list or dict that is read, compared or made
STEP: Final = 100  # the cost of an iteration, a call or an operation
NODE: Final = 10  # the cost of a part of an expression, such as a name, a `.key` or a `not`
COPIES: Final = 2  # copies of the state after each node
VISIT: Final = 10_000  # the cost of running a node at all, so that no graph runs for ever
SECOND: Final = 1_000_000  # the cost of a second in which a node waits for its next attempt
MAX_BITS: Final = 100_000  # the longest integer that one `*` or `**` may make
MAX_PRECISION: Final = 400  # for `round`: a float has no more decimals

_BITS_SQUARED: Final = 50_000  # squared bits for one unit: work on long integers takes quadratic time
_LINEAR_CODECS: Final = ("utf", "ascii", "latin", "iso")  # beginnings of the names of fast codecs
_SHORT_TEXT: Final = 64  # characters; a longer text that occurs again is counted only from the second time on
_TWO_WAY: Final = 30_000  # characters; Python searches a longer text in linear time
_VIEWS: Final[tuple[Any, ...]] = (type({}.keys()), type({}.values()), type({}.items()))
_SEQUENCES: Final[tuple[Any, ...]] = (list, tuple, set, frozenset, *_VIEWS)
_DIGITS: Final = re.compile(r"\d+")
_CONVERSION: Final = re.compile(r"[#0\- +]*(\*|\d+)?(?:\.(\*|\d+)?)?[hlL]?.?", re.DOTALL)

Rule = Callable[[Any, Sequence[Any], Mapping[str, Any]], int]


class BudgetError(jinja2.TemplateRuntimeError):
    """A template exceeds its limit of work."""


class Work:
    """The work that is left. Only one thread may use an object."""

    def __init__(self, limit: int = MAX_WORK) -> None:
        """Allow ``limit`` units of work."""
        self.left = limit

    def charge(self, amount: int) -> None:
        """Pay for work.

        Raises:
            BudgetError: not enough work is left.
        """
        self.left -= amount
        if self.left < 0:
            raise BudgetError(
                f"the template does too much: it may make up to {MAX_WORK:,} characters, in {MAX_WORK // STEP:,} steps"
            )

    def split(self, count: int) -> list[Work]:
        """Return objects for as many threads, each with its share of the work that is left here."""
        share = max(self.left, 0) // count
        self.left -= share * count
        return [Work(share) for _ in range(count)]

    def take_back(self, parts: Iterable[Work]) -> None:
        """Take back what the threads have left of their shares."""
        self.left += sum(max(part.left, 0) for part in parts)

    def weigh(self, value: Any, *, texts: bool = True) -> None:
        """Pay for everything in a value. A part that occurs several times is paid for each time.

        Args:
            value: any value.
            texts: False if the texts are not copied. Then the first occurrence of a long text is free.

        Raises:
            BudgetError: the value is too large.
        """
        long_texts: set[int] = set()
        stack, left = [value], self.left - 1
        parts: list[Any] = []
        while stack:
            item = stack.pop()
            kind = type(item)
            if kind is float or kind is bool or item is None:
                continue
            if isinstance(item, str):
                if texts or len(item) <= _SHORT_TEXT or id(item) in long_texts:
                    left -= len(item)
                else:
                    long_texts.add(id(item))
            elif isinstance(item, int):
                bits = item.bit_length()
                left -= bits // 8 + bits * bits // _BITS_SQUARED
            elif isinstance(item, dict):
                left -= 2 * ELEMENT * len(item)
                parts = [item, item.values()]
            elif isinstance(item, _SEQUENCES):
                left -= ELEMENT * len(item)
                parts = [item]
            elif isinstance(item, range):
                left -= ELEMENT * len(item)
            elif isinstance(item, bytes):
                left -= len(item)
            elif isinstance(item, Namespace):
                parts = [[item._Namespace__attrs]]
            if left < 0:
                break
            for part in parts:
                stack.extend(part)
            parts = []
        self.charge(self.left - left)

    def weigh_state(self, state: Mapping[str, Any]) -> None:
        """Pay for the copies of a state. The copies share its texts.

        Raises:
            BudgetError: the state is too large.
        """
        before = self.left
        self.weigh(state, texts=False)
        self.charge((COPIES - 1) * (before - self.left))

    def charge_shallow(self, value: Any) -> None:
        """Pay for a shallow copy of a value."""
        if isinstance(value, str | bytes):
            self.charge(len(value))
        elif isinstance(value, (dict, *_SEQUENCES)):
            self.charge(ELEMENT * _length(value))

    def charge_digits(self, spec: str) -> None:
        """Pay for the widths and precisions in a format."""
        for digits in _DIGITS.findall(spec):
            self.charge(int(digits) if len(digits) < 19 else MAX_WORK + 1)

    def charge_operator(self, operator: str, left: Any, right: Any) -> None:
        """Pay for a binary operation before it is done."""
        self.charge(STEP)
        if isinstance(left, int) and isinstance(right, int):
            bits, other = left.bit_length(), right.bit_length()
            if operator in ("*", "**"):
                bits = other = bits * abs(right) if operator == "**" else bits + other
                if bits > MAX_BITS:
                    raise BudgetError(f"the result of `{operator}` is too large")
            self.charge(bits * other // _BITS_SQUARED)
        elif operator == "%" and isinstance(left, str | bytes):
            self.charge_printf(left, right)
        elif operator == "+":
            self.charge_shallow(left)
            self.charge_shallow(right)
        elif operator == "*":
            for repeated, times in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(repeated, str | bytes | list | tuple):
                    self.charge(max(0, times) * (ELEMENT if isinstance(repeated, list | tuple) else 1) * len(repeated))

    def charge_call(self, function: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Pay for a call before it is done."""
        self.charge(STEP)
        if isinstance(function, Macro):  # its statements pay for themselves
            return
        if isinstance(function, LoopContext):
            for argument in args:
                self.charge(STEP * _length(argument))
            return
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        self.weigh([*args, *(value for key, value in named.items() if key not in ("_loop_vars", "_block_vars"))])
        if isinstance(owner, str | bytes):
            self.charge(len(owner))
            if rule := _METHODS.get(name):
                self.charge(rule(owner, args, named))
        elif isinstance(owner, list | tuple) and name in ("index", "count"):
            self.weigh(owner)
        elif isinstance(owner, int):
            self.charge(_numbers(owner, args, named))

    def charge_printf(self, text: str | bytes, args: Any) -> None:
        """Pay for ``text % args`` before it is done."""
        pattern = text if isinstance(text, str) else text.decode("latin-1")
        named = args if isinstance(args, Mapping) else None
        values = args if isinstance(args, tuple) else (args,)
        star = max((abs(value) for value in values if isinstance(value, int)), default=0)
        self.charge(len(pattern))
        if named is None:
            self.weigh(args)
        at = pattern.find("%")
        while at >= 0:
            self.charge(STEP)
            at += 1
            if pattern[at : at + 1] == "(":
                key, at = _key(pattern, at)
                self.charge(ELEMENT * len(key))
                if named is not None:
                    self.weigh(named.get(key))
            match = _CONVERSION.match(pattern, at)
            if match is None:  # cannot happen, because the pattern also matches an empty text
                return
            for size in match.groups(""):
                self.charge(star) if size == "*" else self.charge_digits(size)
            at = pattern.find("%", match.end())

    def charge_has(self, container: Any, item: Any) -> None:
        """Pay for a test whether an item is in a container."""
        self.weigh(item)
        if isinstance(container, str | bytes):
            self.charge(len(container) + _search(container, [item], {}))
        elif not isinstance(container, dict | set | frozenset | _VIEWS[0]):
            self.weigh(container)

    def charge_result(self, value: Any) -> Any:
        """Pay for a result and return it. An iterator becomes a list, so that every value in a template has a size."""
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            value = list(self.steps(value))
        self.charge_shallow(value)
        return value

    def steps(self, items: Iterable[Any], more: int = 0) -> Iterator[Any]:
        """Iterate, and pay for each step: ``STEP``, and ``more`` for the work within the step."""
        for item in items:
            self.charge(STEP + more)
            yield item


_CURRENT: Final[ContextVar[Work]] = ContextVar("work of the template that is rendered")


def current() -> Work:
    """Return the work that is left for the template that is rendered now."""
    return _CURRENT.get()


@contextmanager
def working(work: Work) -> Iterator[None]:
    """Make ``work`` the limit of the template that is rendered in the block."""
    token = _CURRENT.set(work)
    try:
        yield
    finally:
        _CURRENT.reset(token)


class Formatter(SandboxedFormatter):
    """``str.format`` that pays for each field."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Pay for a field and format it."""
        work = current()
        work.charge(STEP)
        work.weigh(value)
        work.charge_digits(format_spec)
        return super().format_field(value, format_spec)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """Pay for a field and convert it for ``!r`` and ``!s``."""
        current().weigh(value)
        return super().convert_field(value, conversion)


class EscapeFormatter(Formatter, SandboxedEscapeFormatter):
    """``Formatter`` for text that is marked as safe."""


def counted(functions: Mapping[str, Callable[..., Any]], cheap: frozenset[str]) -> dict[str, Callable[..., Any]]:
    """Return filters or tests that pay for their work. Those in ``cheap`` read only a few objects."""
    return {name: _counted(name, function, is_cheap=name in cheap) for name, function in functions.items()}


def _counted(name: str, function: Callable[..., Any], *, is_cheap: bool) -> Callable[..., Any]:
    rule, factor = _FILTERS.get(name), _FACTORS.get(name, 1)
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context comes before the value

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        work = current()
        work.charge(STEP)
        if is_cheap:
            result = function(*args, **named)
            return work.charge_result(result) if isinstance(result, Iterator) else result
        before = work.left
        values = args[first:]
        work.weigh([*values, *named.values()])
        work.charge((factor - 1) * (before - work.left))
        if rule is not None and values:
            work.charge(rule(values[0], values[1:], named))
        return work.charge_result(function(*args, **named))

    return call


CHEAP_FILTERS: Final = frozenset(["attr", "count", "d", "default", "first", "last", "length", "random", "safe"])
CHEAP_TESTS: Final = frozenset(
    {
        *("boolean", "false", "true", "none", "integer", "float", "number", "odd", "even", "divisibleby", "sameas"),
        *("callable", "defined", "undefined", "escaped", "filter", "test"),
        *("iterable", "mapping", "sequence", "string"),
    }
)


def internal_filters() -> dict[str, Callable[..., Any]]:
    """Return the filters that compiled templates use. Their names have a space, so no template can write them."""
    return {STEPS: _steps, WEIGHED: _weighed, COPIED: _copied, HAS: _has, SPENT: _spent}


STEPS, WEIGHED, COPIED, HAS, SPENT = " steps", " weighed", " copied", " has", " spent"


def _steps(items: Any, more: int) -> Iterator[Any]:
    return current().steps(items, more)


def _weighed(value: Any) -> Any:
    current().weigh(value)
    return value


def _copied(value: Any) -> Any:
    current().charge_shallow(value)
    return value


def _has(container: Any, item: Any) -> bool:
    current().charge_has(container, item)
    return item in container


def _spent(amount: int) -> None:
    current().charge(amount)


# --- the cost of methods and filters, by their arguments -----------------------------------------------


def _argument(args: Sequence[Any], named: Mapping[str, Any], position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else named.get(name, default)


def _number(value: Any) -> int:
    return abs(value) if isinstance(value, int) else 0


def _length(value: Any) -> int:
    sized: Any = value if isinstance(value, (str, bytes, dict, range, *_SEQUENCES)) else ()
    return len(sized)


def _key(pattern: str, at: int) -> tuple[str, int]:
    """Return the key in parentheses that begins at ``at``, and the position after it."""
    depth, start = 0, at + 1
    while at < len(pattern):
        depth += (pattern[at] == "(") - (pattern[at] == ")")
        at += 1
        if not depth:
            break
    return pattern[start : at - 1], at


def _numbers(_: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return sum(_number(value) for value in (*args, *named.values()))


def _expandtabs(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return int(text.count("\t" if isinstance(text, str) else b"\t")) * _number(_argument(args, named, 0, "tabsize", 8))


def _search(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Return the cost of a forward search. Only in long texts it takes linear time."""
    return _search_slowly(text, args, named) if len(text) < _TWO_WAY else 0


def _search_slowly(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return len(text) * max(map(_length, (*args, *named.values())), default=0) // 4


def _replace(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    text = text if isinstance(text, str | bytes) else str(text)
    old, new = _argument(args, named, 0, "old", ""), _argument(args, named, 1, "new", "")
    return (len(text) // max(1, _length(old)) + 1) * _length(new) + _search(text, [old], {})


def _coded(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    codec = str(_argument(args, named, 0, "encoding", "utf-8")).lower()
    return 0 if codec.startswith(_LINEAR_CODECS) else len(text) ** 2 // 100  # such as punycode


def _joined(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return len(text) * sum(map(_length, args))


def _translate(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    table = args[0] if args and isinstance(args[0], dict) else {}
    return len(text) * max(map(_length, table.values()), default=0)


def _strip_tags(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    plain = str(text)
    return len(plain) * plain.count("<") // 4


_METHODS: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("ljust", "rjust", "center", "zfill"), _numbers),
    **dict.fromkeys(("find", "index", "count", "split", "partition"), _search),
    **dict.fromkeys(("rfind", "rindex", "rsplit", "rpartition", "strip", "lstrip", "rstrip"), _search_slowly),
    **dict.fromkeys(("encode", "decode"), _coded),
    "expandtabs": _expandtabs,
    "join": _joined,
    "replace": _replace,
    "striptags": _strip_tags,
    "translate": _translate,
}


def _center(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return _number(_argument(args, named, 0, "width", 80))


def _indent(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    width = _argument(args, named, 0, "width", 4)
    return (len(str(text).splitlines()) + 1) * (_length(width) or _number(width))


def _batch(items: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    is_filled = _argument(args, named, 1, "fill_with") is not None
    return ELEMENT * _number(_argument(args, named, 0, "linecount")) if is_filled else 0


def _slice(items: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return STEP * _number(_argument(args, named, 0, "slices"))


def _wordwrap(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    text = str(text)
    parts = len(text.splitlines()) + len(text.split())
    return _words(text) + ELEMENT * parts + (len(text) + 1) * _length(_argument(args, named, 2, "wrapstring"))


def _urlize(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    text = str(text)
    added = sum(_length(value) for value in (*args, *named.values()))
    return _words(text) + (len(text.split()) + 1) * (100 + added)


def _words(text: str) -> int:
    """Return the cost of splitting text into words: within a long word it takes quadratic time."""
    longest = max(map(len, text.split()), default=0)
    return longest * longest // 4


def _join(items: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return _length(items) * _length(_argument(args, named, 0, "d", ""))


def _trim(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return _search_slowly(str(text), args, named)


def _round(number: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return 0 if _number(_argument(args, named, 0, "precision", 0)) <= MAX_PRECISION else MAX_WORK + 1


def _each(items: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Return the cost of work for each item, with names and defaults that may be long texts."""
    return _length(items) * (ELEMENT + sum(map(_length, (*args, *named.values()))))


def _sum(items: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    start = _argument(args, named, 1, "start", 0)
    if isinstance(start, int | float):
        return 0
    total = Work()
    total.weigh([items, start])
    spent: int = MAX_WORK - total.left
    return _length(items) * spent  # each partial sum is a copy


def _tojson(value: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Return the cost of the spaces before each line: an element that is nested deeply has many of them."""
    indent = _argument(args, named, 0, "indent")
    if indent is None:
        return 0
    width, spaces = _length(indent) or _number(indent), 0
    stack: list[tuple[Any, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        parts: Any = item.values() if isinstance(item, dict) else item if isinstance(item, _SEQUENCES) else ()
        spaces += (len(parts) + 1) * depth
        stack += [(part, depth + 1) for part in parts]
    return spaces * width


def _fromjson(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    return ELEMENT * len(text) if isinstance(text, str) else 0  # `[0,0,...`: an element for two characters


def _format(text: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    current().charge_printf(str(text), dict(named) or tuple(args))
    return 0


_FILTERS: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("dictsort", "groupby", "map", "max", "min", "sort", "unique"), _each),
    **dict.fromkeys(("reject", "rejectattr", "select", "selectattr"), _each),
    "batch": _batch,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "fromjson": _fromjson,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "slice": _slice,
    "striptags": _strip_tags,
    "sum": _sum,
    "tojson": _tojson,
    "trim": _trim,
    "urlize": _urlize,
    "wordwrap": _wordwrap,
}
# How many characters a filter can make of one; `pprint` writes deeply nested values several times.
_FACTORS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("e", "escape", "forceescape", "json", "tojson", "urlize", "xmlattr"), 8),
    "pprint": 100,
    "urlencode": 12,
}
