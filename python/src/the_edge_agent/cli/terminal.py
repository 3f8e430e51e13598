"""Text for terminals, which obey some characters: those are written as escapes, on a pipe as well."""

from __future__ import annotations

import logging
import re
import sys
from typing import Final

# Controls but for tab and line break; what changes the direction, breaks lines or is invisible; lone surrogates.
# Joiners stay: scripts and emoji need them.
_OBEYED: Final = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f\ud800-\udfff"
)
_IN_TEXT: Final = re.compile(f"[{_OBEYED}]")
_IN_LINE: Final = re.compile(f"[\n{_OBEYED}]")


def printable(text: str) -> str:
    """Return text with Python's escapes in place of what a terminal would obey."""
    return _IN_TEXT.sub(_escaped, text)


def one_line(text: str) -> str:
    """Return the same of text that has to stay one line."""
    return _IN_LINE.sub(_escaped, text)


def printable_json(text: str) -> str:
    """Return the same of JSON: it means what it meant."""
    return _IN_TEXT.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])), text)


class PrintableFormatter(logging.Formatter):
    """Writes log records so that a terminal obeys nothing in them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable(super().format(record))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _utf16(char: str) -> memoryview:
    return memoryview(char.encode(f"utf-16-{sys.byteorder[0]}e", "surrogatepass")).cast("H")
