"""A progress bar on stderr, if stderr is a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    label: str, total: Callable[[], int | None] = lambda: None, unit: str = "entries"
) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar while the block runs.

    Args:
        label: what is being done, such as ``export``.
        total: returns how many there will be, or None if that is not known. It is called only for a terminal.
        unit: what is counted.

    Yields:
        A function that takes how many are done; None if stderr is no terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} " + unit))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(label, total=total())
        yield lambda done: bar.update(task, completed=done)
