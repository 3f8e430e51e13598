"""``back_up`` and ``restore``: a whole memory with the snapshots of its catalog, or what has changed since one."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.result_types import BackupResult, RecordedEntry, RestoreResult, Snapshot
from the_edge_agent.memory.core.namespaces import Namespace, split_key
from the_edge_agent.memory.core.results import LTMError, ok, outcome_of, succeeded
from the_edge_agent.memory.transfer.arrival import DAMAGED, Arrival, OnConflict, Present, Progress
from the_edge_agent.memory.transfer.lines import LineReader, LineWriter, Writable, header, in_utc, read_entry, time_text
from the_edge_agent.memory.transfer.moving import damaged_failure

_REPORTED: Final = 1_000  # entries between two calls of ``progress``
_DELETED_AT_ONCE: Final = 1_000
_NEWEST_AT_ONCE: Final = 100
# A transaction that began before a snapshot may end after it. None lasts longer than this, so that a backup since the
# snapshot reads the entries of this time again.
_LONGEST_WRITE: Final = timedelta(minutes=1)
_COMPARED: Final = ("content_hash", "metadata_hash", "byte_size", "expires_at")
_METHODS: Final = ("iterate_snapshot", "import_snapshot", "list_snapshots", "get_snapshot", "delete_snapshot")


def back_up(
    memory: LTMBackend,
    file: Writable,
    *,
    since: str | None = None,
    name: str = "backup",
    sync: bool = True,
    progress: Progress | None = None,
) -> BackupResult:
    """Write a memory, and the snapshots of its catalog, to a file; or what has changed since a snapshot.

    The backup begins with a new snapshot. Pass its id as ``since`` to the next backup, which then has the entries that
    were stored or touched since, and the keys of those that are gone. Other programs may work meanwhile: their changes
    are in this backup or in the next one. A full backup needs 8 bytes of RAM for each entry, a backup since a snapshot
    the keys of what has changed.

    Args:
        memory: a whole memory with a catalog of ours, and the capability ``"times"``.
        file: a binary stream.
        since: the id of the snapshot of the backup before; None for a full backup.
        name: the name of the new snapshot.
        sync: whether to bring the catalog in step with the memory first, by ``sync_catalog``. This reads all entries.
        progress: called from time to time with the number of entries so far.

    Returns:
        ``{"success": True, "snapshot_id": str, "entries": int, "deleted_count": int, "snapshot_count": int,
        "sha256": str}``: the new snapshot, and how many entries, keys of deleted entries and snapshots the file has.

    Raises:
        LTMError: ``validation_error`` if there is no such snapshot, no catalog of ours, or the memory is a namespace.
            If entries are damaged: as for ``export_entries``. The new snapshot is deleted if the backup fails, but not
            if it only lacks damaged entries.
        OSError: the stream cannot be written.
    """
    catalog = _catalog_of(memory)
    base = None if since is None else catalog.get_snapshot(since)
    if since is not None and base is None:
        raise LTMError("validation_error", f"there is no snapshot {since!r}; make a backup without since")
    if sync:
        succeeded(outcome_of(memory.sync_catalog))  # type: ignore[attr-defined]
    snapshot_id = catalog.create_snapshot(name)
    try:
        return _back_up(memory, catalog, file, base, snapshot_id, progress)
    except LTMError as failure:
        if "sha256" not in failure.result:
            catalog.delete_snapshot(snapshot_id)
        raise
    except BaseException:
        catalog.delete_snapshot(snapshot_id)
        raise


def restore(
    memory: LTMBackend,
    files: Iterable[Iterable[bytes]],
    *,
    on_conflict: OnConflict = "fail",
    progress: Progress | None = None,
) -> RestoreResult:
    """Put backups back into a memory: entries with versions, times and lifetimes, and snapshots.

    If it was interrupted, call it again with the same files.

    Args:
        memory: a whole memory with a catalog of ours, and the capabilities ``"times"`` and ``"import"``.
        files: the lines of a full backup, and of the backups since then, in any order. Without the full one the memory
            must have the snapshot that the first of the others names.
        on_conflict: as for ``import_file``. Entries of a memory that has the snapshot are replaced in any case.
        progress: called from time to time with the number of entries so far.

    Returns:
        The counts of ``import_file``, and ``deleted_count`` and ``snapshot_count``: how many entries were deleted, and
        how many snapshots were stored.

    Raises:
        LTMError: as for ``import_file``; ``validation_error`` too if a backup is missing between two files, or before
            the first one.
    """
    catalog = _catalog_of(memory)
    chain = _in_order([_BackupReader(lines) for lines in files])
    since = chain[0].since
    if since is not None and catalog.get_snapshot(since) is None:
        raise LTMError(
            "validation_error",
            f"the backup begins at the snapshot {since!r}, which the memory does not have; restore the backups before "
            "it first, or together with it",
        )
    deletions = _Deletions(memory)
    way = on_conflict if since is None else "replace"
    counts = Arrival(memory, way, progress).store(_entries_of(chain, deletions))
    deletions.flush()
    stored = {each for reader in chain for each in _restored_snapshots(catalog, reader)}
    gone = {each for reader in chain for each in reader.written} - {*chain[-1].snapshots}
    for snapshot_id in gone:
        catalog.delete_snapshot(snapshot_id)  # it was deleted before the last backup
    return ok(
        **{field: count for field, count in counts.items() if field != "success"},
        deleted_count=deletions.count,
        snapshot_count=len(stored - gone),
    )


# --- writing ---------------------------------------------------------------------------------------


def _back_up(
    memory: LTMBackend,
    catalog: Any,
    file: Writable,
    base: Snapshot | None,
    snapshot_id: str,
    progress: Progress | None,
) -> BackupResult:
    snapshots = sorted(catalog.list_snapshots(), key=lambda each: (each["created_at"], each["id"]))
    places = [each["id"] for each in snapshots]
    written = snapshots if base is None else snapshots[places.index(base["id"]) + 1 :]
    since = None if base is None else base["id"]
    writer = LineWriter(file)
    writer.head(header(memory, backup={"snapshot": snapshot_id, "since": since, "snapshots": places}))
    if base is None:
        deleted, damaged = 0, _write_all(memory, catalog, writer, snapshot_id, progress)
    else:
        deleted, damaged = _write_changes(memory, catalog, writer, base, snapshot_id, progress)
    before = since
    for snapshot in written:
        writer.line({"snapshot": {**snapshot, "created_at": time_text(snapshot["created_at"])}, "base": before})
        for old, new in _differences(catalog, before, snapshot["id"]):
            writer.line({"recorded": {"id": old["id"], "deleted": True} if new is None else _plain(new)})  # type: ignore[index]
        before = snapshot["id"]
    last = writer.close(**({"damaged": damaged} if damaged else {}))
    if progress is not None:
        progress(writer.entries)
    fields = {"snapshot_id": snapshot_id, "deleted_count": deleted, "snapshot_count": len(written), **last}
    if damaged:
        raise damaged_failure("the backup has all entries but", **fields)
    return ok(**fields)


def _write_all(
    memory: LTMBackend, catalog: Any, writer: LineWriter, snapshot_id: str, progress: Progress | None
) -> list[str]:
    """Write the entries that the snapshot has, as they are now; return the full keys of damaged entries.

    An entry that was created since the snapshot is left out. The next backup has it, unless it is gone by then.
    """
    numbers = array("Q", (_number(entry["id"]) for entry in catalog.iterate_snapshot(snapshot_id)))
    entries = memory.iterate_entries(nested="namespaces" in memory.capabilities)
    for entry in entries:
        full_key = Namespace.of(entry.get("namespace", ())).full_key(entry["key"])
        number = _number(generate_entry_id(full_key))
        place = bisect_left(numbers, number)
        if place < len(numbers) and numbers[place] == number:
            _write(writer, entry, progress)
    return [*getattr(entries, "damaged", ())]


def _write_changes(
    memory: LTMBackend,
    catalog: Any,
    writer: LineWriter,
    base: Snapshot,
    snapshot_id: str,
    progress: Progress | None,
) -> tuple[int, list[str]]:
    """Write what has changed between two snapshots; return how many keys are gone, and those of damaged entries."""
    is_there: dict[str, bool] = {}  # whether the new snapshot has a key
    for old, new in _differences(catalog, base["id"], snapshot_id):
        is_there[(new or old)["key"]] = new is not None  # type: ignore[index]
    # A store of an equal value changes only the version and the times, which the catalog does not compare.
    stored = set(_keys_stored_since(memory, base["created_at"] - _LONGEST_WRITE)) - is_there.keys()
    ids = {_number(generate_entry_id(key)): key for key in stored}
    for entry in catalog.iterate_snapshot(snapshot_id) if ids else ():
        if _number(entry["id"]) in ids:
            is_there[entry["key"]] = True
    present, damaged, deleted = Present(memory), list[str](), 0
    for full_key in sorted(is_there):
        entry = present.at(full_key) if is_there[full_key] else None
        if entry is DAMAGED:
            damaged.append(full_key)
        elif entry is not None:
            _write(writer, entry, progress)
        elif not is_there[full_key]:
            names, key = split_key(full_key)
            writer.line({"namespace": [*names], "key": key, "deleted": True})
            deleted += 1
    return deleted, damaged


def _write(writer: LineWriter, entry: Mapping[str, Any], progress: Progress | None) -> None:
    writer.entry(entry)
    if progress is not None and writer.entries % _REPORTED == 0:
        progress(writer.entries)


def _keys_stored_since(memory: LTMBackend, moment: datetime) -> Iterator[str]:
    more: dict[str, Any] = {"nested": True} if "namespaces" in memory.capabilities else {}
    after: str | None = None
    while True:
        page = succeeded(outcome_of(memory.entries, limit=_NEWEST_AT_ONCE, after=after, order="newest", **more))
        for entry in page["entries"]:
            if entry["updated_at"] < moment:
                return
            yield Namespace.of(entry.get("namespace", ())).full_key(entry["key"])
        after = page["next"]
        if after is None:
            return


def _differences(
    catalog: Any, before: str | None, after: str
) -> Iterator[tuple[RecordedEntry | None, RecordedEntry | None]]:
    """Yield the entries, old and new, that differ between two snapshots, by id; None stands for no entry."""
    old = iter(()) if before is None else catalog.iterate_snapshot(before)
    both = _by_id(old, catalog.iterate_snapshot(after))
    for _, group in groupby(both, key=lambda item: item[0]):
        found: dict[int, RecordedEntry] = {which: entry for _, which, entry in group}
        one, other = found.get(0), found.get(1)
        if one is None or other is None or any(one[name] != other[name] for name in _COMPARED):
            yield one, other


def _by_id(old: Iterable[Any], new: Iterable[Any]) -> Iterator[tuple[str, int, Any]]:
    """Yield the id, 0 or 1, and the entry of each old (0) and new (1) entry. Both are in the order of their ids."""

    def keyed(entries: Iterable[Any], number: int) -> Iterator[tuple[str, int, Any]]:
        return ((entry["id"], number, entry) for entry in entries)

    return heapq.merge(keyed(old, 0), keyed(new, 1), key=lambda item: item[:2])


def _plain(entry: RecordedEntry) -> dict[str, Any]:
    return {**entry, "expires_at": time_text(entry["expires_at"])}


def _number(entry_id: str) -> int:
    """Return the first 64 bits of an id. That two of a billion entries have the same ones is very unlikely."""
    return int(entry_id[:16], 16)


# --- reading ---------------------------------------------------------------------------------------


class _BackupReader:
    """Reads one backup: first the entries and deletions, then the snapshots."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._reader = LineReader(lines)
        backup = self._reader.header.get("backup")
        if not isinstance(backup, dict) or not {"snapshot", "since", "snapshots"} <= backup.keys():
            raise LTMError("validation_error", "the file is an export, not a backup; import it: tea memory import")
        self.snapshot, self.since, self.snapshots = backup["snapshot"], backup["since"], backup["snapshots"]
        self.written: list[str] = []
        self._lines = iter(self._reader)
        self._next: dict[str, Any] | None = None

    def entries(self) -> Iterator[tuple[str, dict[str, Any], int]]:
        """Yield the full key, the fields and the size of each entry and deletion."""
        for fields in self._lines:
            if "snapshot" in fields:
                self._next = fields
                return
            try:
                full_key = Namespace.of(fields["namespace"]).full_key(fields["key"])
            except (KeyError, TypeError):
                raise LTMError("validation_error", f"line {self._reader.number:,} has no key") from None
            yield full_key, read_entry(fields, self._reader.number), self._reader.size

    def next_snapshot(self) -> tuple[Snapshot, str | None] | None:
        """Return the next snapshot and its base, or None after the last one. Read ``recorded`` before the next call."""
        for _ in self.recorded() if self._next is None else ():
            pass
        if self._next is None:
            return None
        fields, self._next = self._next, None
        try:
            snapshot: Any = {**fields["snapshot"]}
            snapshot["created_at"] = datetime.fromisoformat(snapshot["created_at"])
            self.written.append(snapshot["id"])
            return snapshot, fields["base"]
        except (KeyError, TypeError, ValueError):
            raise LTMError("validation_error", f"line {self._reader.number:,} is no snapshot") from None

    def recorded(self) -> Iterator[dict[str, Any]]:
        """Yield the differences of the snapshot from its base."""
        for fields in self._lines:
            if "snapshot" in fields:
                self._next = fields
                return
            try:
                entry = dict(fields["recorded"])
                if entry.get("expires_at") is not None:
                    entry["expires_at"] = in_utc(datetime.fromisoformat(entry["expires_at"]))
            except (KeyError, TypeError, ValueError):
                raise LTMError("validation_error", f"line {self._reader.number:,} is no part of a snapshot") from None
            yield entry


class _Deletions:
    """Deletes entries of a memory in batches."""

    def __init__(self, memory: LTMBackend) -> None:
        self._memory = memory
        self._keys: list[str] = []
        self.count = 0

    def add(self, full_key: str) -> None:
        self._keys.append(full_key)
        if len(self._keys) == _DELETED_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if self._keys:
            self.count += succeeded(outcome_of(self._memory.delete_many, self._keys))["deleted_count"]
            self._keys = []


def _in_order(readers: Sequence[_BackupReader]) -> list[_BackupReader]:
    """Return backups in the order in which they were made; each begins at the snapshot of the one before."""
    if not readers:
        raise LTMError("validation_error", "there is no backup to restore")
    snapshots = {reader.snapshot for reader in readers}
    followers = {reader.since: reader for reader in readers}
    first = [reader for reader in readers if reader.since not in snapshots]
    chain = first[:1]
    while chain and (follower := followers.get(chain[-1].snapshot)) is not None and follower not in chain:
        chain.append(follower)
    if len(chain) != len(readers):
        raise LTMError("validation_error", "the backups do not follow each other: one is missing, or one comes twice")
    return chain


def _entries_of(chain: Sequence[_BackupReader], deletions: _Deletions) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the last state of each entry, in the order of the full keys, with its size."""

    def keyed(place: int) -> Iterator[tuple[str, int, dict[str, Any], int]]:
        return ((full_key, place, entry, size) for full_key, entry, size in chain[place].entries())

    merged = heapq.merge(*map(keyed, range(len(chain))), key=lambda item: item[:2])
    for full_key, states in groupby(merged, key=lambda item: item[0]):
        *_, (_, _, entry, size) = states
        if entry.get("deleted"):
            deletions.add(full_key)
        else:
            yield entry, size


def _restored_snapshots(catalog: Any, reader: _BackupReader) -> Iterator[str]:
    """Store the snapshots of a backup; yield the id of each that was stored."""
    while (following := reader.next_snapshot()) is not None:
        snapshot, base = following
        if catalog.get_snapshot(snapshot["id"]) is None:
            catalog.import_snapshot(snapshot, _recorded(catalog, base, reader))
            yield snapshot["id"]


def _recorded(catalog: Any, base: str | None, reader: _BackupReader) -> Iterator[Any]:
    """Yield the entries of a snapshot: those of its base, with the differences that a backup has."""
    old = iter(()) if base is None else catalog.iterate_snapshot(base)
    both = _by_id(old, reader.recorded())
    for _, states in groupby(both, key=lambda item: item[0]):
        *_, (_, _, entry) = states
        if not entry.get("deleted"):
            yield entry


def _catalog_of(memory: LTMBackend) -> Any:
    """Return the catalog of a whole memory.

    Raises:
        LTMError: ``validation_error``.
    """
    catalog = getattr(memory, "catalog", None)
    if memory.namespace_names:
        raise LTMError("validation_error", "a backup is of a whole memory; export a namespace instead")
    if catalog is None:
        raise LTMError("validation_error", "this memory has no catalog, whose snapshots a backup needs")
    if not all(hasattr(catalog, name) for name in _METHODS):
        raise LTMError("validation_error", f"{type(catalog).__name__} cannot be backed up; export the memory instead")
    return catalog
