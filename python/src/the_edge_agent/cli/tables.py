"""Tables for people: fitted to a terminal, and in a pipe plain lines in which nothing is cut."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from io import StringIO
from itertools import islice
from typing import Any, Final

from the_edge_agent.cli.terminal import one_line, printable_json

_ROWS: Final = 1_000  # of one table; a longer list is several tables, so that it needs little RAM
_GAP: Final = "  "
_LEAST_WIDTH: Final = 20
_SHORT: Final = 16  # characters of a long cell that a terminal must at least have room for
_FOLDED: Final = "key"  # the column that is never cut, but may take several lines
_LESS_IMPORTANT: Final = ("expires", "updated", "created", "metadata", "version", "namespace")  # the least one first


def is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def tables(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut: Sequence[str] = (), width: int | None = None
) -> Iterator[str]:
    """Yield rows as tables. Control characters are made visible.

    Args:
        columns: the headings.
        rows: the cells of each row. The last column may be long.
        cut: the headings of columns that may be shortened to fit a terminal.
        width: the width of the terminal in characters; None for that of stdout, or for no terminal if it is none.
    """
    if width is None and is_terminal():
        width = shutil.get_terminal_size().columns
    left = iter(rows)
    while some := [[one_line(cell) for cell in row] for row in islice(left, _ROWS)]:
        if width is None:
            yield _plain(columns, some)
        else:
            yield _fitted(columns, some, cut, max(width, _LEAST_WIDTH))


def text_of(value: Any) -> str:
    """Return a JSON value as one line of JSON; None as nothing."""
    return "" if value is None else printable_json(json.dumps(value, ensure_ascii=False))


def time_of(moment: datetime | None) -> str:
    """Return a time in UTC to the second; None as nothing."""
    return "" if moment is None else moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[name.upper() for name in columns], *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) - 1)] + [0]
    padded = (_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], cut: Sequence[str], width: int) -> dict[str, int]:
    """Return the columns for which a terminal has room, with their least widths. Columns without text are left out."""
    from rich.cells import cell_len

    widths = {}
    for place, name in enumerate(columns):
        longest = max(cell_len(row[place]) for row in rows)
        if longest or name not in _LESS_IMPORTANT:
            least = min(longest, _SHORT) if name in (*cut, _FOLDED) else longest
            widths[name] = max(least, len(name)) + len(_GAP)
    for name in _LESS_IMPORTANT:
        if sum(widths.values()) > width:
            widths.pop(name, None)
    return widths


def _fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], cut: Sequence[str], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    widths = _fitting(columns, rows, cut, width)
    for name, least in widths.items():
        most = max(width - sum(widths.values()) + least - len(_GAP), 1) if name == _FOLDED else None
        table.add_column(name, no_wrap=name not in cut, max_width=most)  # Rich first shrinks columns that may wrap
    for row in rows:
        cells = [(name, cell) for name, cell in zip(columns, row, strict=True) if name in widths]
        table.add_row(
            *(
                Text(cell, no_wrap=name in cut, overflow="ellipsis" if name in cut else "fold", end="")
                for name, cell in cells
            )
        )
    out = StringIO()
    colours = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(file=out, width=width, force_terminal=True, color_system=colours, legacy_windows=False)  # type: ignore[arg-type]
    console.print(table)
    return out.getvalue()
