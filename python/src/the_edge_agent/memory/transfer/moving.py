"""``export_entries``, ``import_file`` and ``copy_entries``: move whole entries to a file, from a file, or directly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.result_types import ExportResult, MoveResult
from the_edge_agent.memory.core.results import LTMError, ok
from the_edge_agent.memory.transfer.arrival import Arrival, OnConflict, Progress
from the_edge_agent.memory.transfer.lines import LineReader, LineWriter, Writable, header, read_entry

_REPORTED = 1_000  # entries between two calls of ``progress`` during an export
_NAMED = 5  # damaged keys that a message names


def export_entries(
    memory: LTMBackend, file: Writable, *, nested: bool = False, progress: Progress | None = None
) -> ExportResult:
    """Write all entries of a memory to a file: JSON Lines, in the order of their keys, with a checksum.

    An entry that has expired is left out. The entries are read page by page, so that the RAM that this needs does not
    grow with the memory. The export is not one transaction: of an entry that changes meanwhile it has the old or the
    new state. docs/moving.md describes the format.

    Args:
        memory: any memory with the capability ``"times"``, or a namespace.
        file: a binary stream.
        nested: whether to write the entries of the namespaces below a namespace too. Of a whole memory all entries are
            written in any case.
        progress: called from time to time with the number of entries so far.

    Returns:
        ``{"success": True, "entries": int, "sha256": str}``, as the last line of the file has them.

    Raises:
        LTMError: the memory failed. If entries are damaged: ``query_error`` after the whole file was written without
            them, with ``entries``, ``sha256`` and the full keys in the list ``damaged``, which the last line has too.
        OSError: the stream cannot be written.
    """
    entries = _entries_of(memory, nested=nested)
    writer = LineWriter(file)
    writer.head(header(memory))
    for entry in entries:
        writer.entry(entry)
        if progress is not None and writer.entries % _REPORTED == 0:
            progress(writer.entries)
    damaged = _damaged_of(entries)
    last = writer.close(**damaged)
    if progress is not None:
        progress(writer.entries)
    if damaged:
        raise damaged_failure("the file has all entries but", **last)
    return ok(**last)


def import_file(
    memory: LTMBackend,
    lines: Iterable[bytes],
    *,
    on_conflict: OnConflict = "fail",
    progress: Progress | None = None,
) -> MoveResult:
    """Store the entries of a file that ``export_entries`` has written, with their versions, times and lifetimes.

    If it was interrupted, call it again with the same file: entries that are there and equal are left alone. The
    checksum is at the end of the file, so a file that was changed is noticed after its entries are stored.

    Args:
        memory: any memory with the capabilities ``"times"`` and ``"import"``, or a namespace, below which the entries
            are stored then.
        lines: the lines of the file, such as a binary file. They are read once, one by one.
        on_conflict: what to do about an entry that is there and differs from that in the file. ``fail`` fails, ``skip``
            keeps the one that is there, ``replace`` replaces it.
        progress: called from time to time with the number of entries so far.

    Returns:
        ``{"success": True, "imported_count": int, "replaced_count": int, "unchanged_count": int, "skipped_count": int,
        "expired_count": int}``; each entry of the file counts once. If the export has left out damaged entries, their
        full keys are in the list ``damaged``.

    Raises:
        LTMError: ``validation_error`` if the file is no export, is cut off, was changed, or has an entry that the
            memory cannot store; ``conflict`` on ``fail``; both have the full ``key``. The counts are fields too.
    """
    reader = LineReader(lines)
    if "backup" in reader.header:
        raise LTMError("validation_error", "the file is a backup, not an export; restore it: tea memory restore")

    def entries() -> Iterator[tuple[dict[str, Any], int]]:
        for fields in reader:
            yield read_entry(fields, reader.number), reader.size

    result = Arrival(memory, on_conflict, progress).store(entries())
    if "damaged" in reader.last:
        result["damaged"] = reader.last["damaged"]
    return result


def copy_entries(
    source: LTMBackend,
    target: LTMBackend,
    *,
    nested: bool = False,
    on_conflict: OnConflict = "fail",
    progress: Progress | None = None,
) -> MoveResult:
    """Copy all entries of a memory into another one, with their versions, times and lifetimes.

    If it was interrupted, call it again: entries that are there and equal are left alone. Source and target may be
    namespaces, also of different names.

    Args:
        source: any memory with the capability ``"times"``, or a namespace.
        target: any memory with the capabilities ``"times"`` and ``"import"``, or a namespace.
        nested: as for ``export_entries``.
        on_conflict: as for ``import_file``.
        progress: as for ``import_file``.

    Returns:
        The counts, as ``import_file`` returns them.

    Raises:
        LTMError: as for ``import_file``. If entries of the source are damaged: ``query_error`` after all others were
            copied, with their full keys in the list ``damaged``.
    """
    entries = _entries_of(source, nested=nested)
    result = Arrival(target, on_conflict, progress).store((entry, size_of(entry)) for entry in entries)
    if damaged := _damaged_of(entries):
        counts: dict[str, Any] = {name: count for name, count in result.items() if name != "success"}
        raise damaged_failure("all entries were copied but", **counts, **damaged)
    return result


def size_of(entry: Mapping[str, Any]) -> int:
    """Return about how many bytes an entry has as JSON text."""
    value, metadata = entry["value"], entry.get("metadata")
    return (len(value) if isinstance(value, str) else len(json.dumps(value))) + (len(str(metadata)) if metadata else 0)


def damaged_failure(done: str, *, damaged: list[str], **fields: Any) -> LTMError:
    """Return the failure of a call that had to leave out damaged entries."""
    names = ", ".join(map(repr, damaged[:_NAMED])) + (", ..." if len(damaged) > _NAMED else "")
    return LTMError("query_error", f"{done} {len(damaged):,} damaged: {names}", damaged=damaged, **fields)


def _entries_of(memory: LTMBackend, *, nested: bool) -> Any:
    has_namespaces = "namespaces" in memory.capabilities
    return memory.iterate_entries(nested=(has_namespaces and (nested or not memory.namespace_names)) or nested)


def _damaged_of(entries: Any) -> dict[str, list[str]]:
    damaged = [*getattr(entries, "damaged", ())]
    return {"damaged": damaged} if damaged else {}
