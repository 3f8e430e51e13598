"""Make text safe for terminals: characters that control a terminal are written as escapes, also into a pipe."""

from __future__ import annotations

import logging
import re
import sys
from typing import Final

# Control characters except tab and line break; characters that change the direction, break lines or are invisible; lone
# surrogates. Joiners are allowed, because scripts and emoji need them.
_OBEYED: Final = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f\ud800-\udfff"
)
_IN_TEXT: Final = re.compile(f"[{_OBEYED}]")
_IN_LINE: Final = re.compile(f"[\t\n{_OBEYED}]")


def printable(text: str) -> str:
    """Return text with Python's escapes in place of control characters."""
    return _IN_TEXT.sub(_escaped, text)


def one_line(text: str) -> str:
    """Return ``printable`` text on one line: tabs and line breaks are escaped too."""
    return _IN_LINE.sub(_escaped, text)


def printable_json(text: str) -> str:
    """Return JSON text with JSON's escapes in place of control characters. Its value stays the same."""
    return _IN_TEXT.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _utf16(match[0])), text)


class PrintableFormatter(logging.Formatter):
    """Formats log records without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, with control characters escaped."""
        return printable(super().format(record))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _utf16(char: str) -> memoryview:
    return memoryview(char.encode(f"utf-16-{sys.byteorder[0]}e", "surrogatepass")).cast("H")
