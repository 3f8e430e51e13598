"""``import_rows``: store the rows of other programs, such as lines of JSON or CSV, as entries."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.result_types import MoveResult
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.transfer.arrival import Arrival, OnConflict, Progress
from the_edge_agent.memory.transfer.lines import read_object
from the_edge_agent.memory.transfer.moving import size_of


def import_rows(
    memory: LTMBackend,
    rows: Iterable[Mapping[str, Any]],
    *,
    key: str = "key",
    value: str | None = None,
    metadata: Sequence[str] = (),
    on_conflict: OnConflict = "fail",
    progress: Progress | None = None,
) -> MoveResult:
    """Store rows as entries of version 1 that never expire.

    If it was interrupted, call it again: entries that are there and equal are left alone.

    Args:
        memory: as for ``import_file``.
        rows: dicts, such as ``read_json_rows`` and ``read_csv_rows`` yield. They are read once, one by one.
        key: the field that is the key: text or an integer.
        value: the field that is the value. None makes the value of all fields that are neither key nor metadata.
        metadata: the fields that the metadata has. Without any the metadata is None.
        on_conflict: as for ``import_file``.
        progress: as for ``import_file``.

    Returns:
        The counts, as ``import_file`` returns them.

    Raises:
        LTMError: as for ``import_file``; ``validation_error`` for a row without one of the fields. It names the row by
            its number.
    """
    names = [*metadata]
    used = {key, *names}

    def entries() -> Iterator[tuple[dict[str, Any], int]]:
        for number, row in enumerate(rows, 1):
            for name in (key, *([] if value is None else [value]), *names):
                if name not in row:
                    raise LTMError("validation_error", f"row {number:,} has no field {name!r}")
            text = row[key]
            if isinstance(text, bool) or not isinstance(text, (str, int)):
                raise LTMError("validation_error", f"row {number:,}: the key must be text or an integer")
            rest = {name: item for name, item in row.items() if name not in used}
            entry: dict[str, Any] = {
                "key": str(text),
                "value": rest if value is None else row[value],
                "metadata": {name: row[name] for name in names} or None,
            }
            yield entry, size_of(entry)

    return Arrival(memory, on_conflict, progress).store(entries())


def read_json_rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each line, such as those of a binary file; empty lines are left out.

    Raises:
        LTMError: ``validation_error`` that names the line.
    """
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield read_object(line, number)


def read_csv_rows(lines: Iterable[bytes], *, delimiter: str = ",") -> Iterator[dict[str, Any]]:
    """Yield the rows of CSV in UTF-8, such as a binary file. The first row names the fields; all values are text.

    Args:
        lines: the lines.
        delimiter: the character between two fields.

    Raises:
        LTMError: ``validation_error`` that names the row.
    """

    def texts() -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise LTMError("validation_error", f"line {number:,} is not UTF-8 text") from None

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise LTMError("validation_error", "the first row of the CSV names a field twice")
        for number, row in enumerate(reader, 1):
            if len(row) not in (0, len(names)):
                raise LTMError(
                    "validation_error", f"row {number:,} has {len(row)} fields; the first row names {len(names)}"
                )
            if row:
                yield dict(zip(names, row, strict=True))
    except csv.Error as error:
        problem = LTMError("validation_error", f"line {reader.line_num:,} is no CSV: {error}")
    else:
        return
    raise problem
