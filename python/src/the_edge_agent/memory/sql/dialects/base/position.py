"""The place of a text in another one, for which each database has its own function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import ColumnElement, Integer, func, literal

#: The functions, each with a statement that shows whether a server has it. The first is that of the SQL standard.
POSITIONS: Final[Mapping[str, str]] = {
    "position": "SELECT position('.' IN 'a.b')",
    "instr": "SELECT instr('a.b', '.')",
    "strpos": "SELECT strpos('a.b', '.')",
    "charindex": "SELECT charindex('.', 'a.b')",
}


def position_by(name: str, text: ColumnElement[str], part: str) -> ColumnElement[int]:
    """Return the place of the first occurrence of ``part`` in a text, from 1 on; 0 if there is none.

    Args:
        name: a function of ``POSITIONS``.
        text: the text.
        part: what to look for.
    """
    if name == "position":
        return func.position(literal(part).op("IN")(text), type_=Integer())
    arguments = (part, text) if name == "charindex" else (text, part)
    place: ColumnElement[int] = getattr(func, name)(*arguments, type_=Integer())
    return place
