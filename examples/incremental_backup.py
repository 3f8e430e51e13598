"""Backs up the changes of a memory since the last backup, and restores backups into another memory, on any database.

    python incremental_backup.py backup sqlite:///ltm.db backups
    python incremental_backup.py restore backups postgresql://me@localhost/memories
    python incremental_backup.py compare sqlite:///ltm.db postgresql://me@localhost/memories

Each backup is a file of JSON lines. The first line names two snapshots: that of this backup, and that of the backup
before. Each other line is an entry, or says that an entry was deleted. Agents may continue to work during a backup:
their changes are in this backup or in the next one. There is one exception: an entry that an agent deletes during the
backup, and then stores again unchanged.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLAlchemyCatalog

BATCH_SIZE = 500  # how many entries are read or written at a time, which limits the RAM


def back_up(memory: SQLAlchemyBackend, folder: Path) -> tuple[Path, int, int]:
    """Write the changes since the last backup; return the file, and how many entries were changed and deleted."""
    catalog = memory.catalog
    assert isinstance(catalog, SQLAlchemyCatalog)
    succeeded(memory.sync_catalog())  # the catalog then also has entries that were stored without it
    before = last_snapshot(folder)
    # The snapshot comes first, so that the next backup has every change from now on.
    snapshot = catalog.create_snapshot("backup")
    changed = [entry["key"] for entry in catalog.get_changed_entries(before)]
    deleted = [] if before is None else [entry["key"] for entry in catalog.get_deleted_entries(before)]

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{len(backups(folder)) + 1:06}.jsonl"
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("w", encoding="ascii") as lines:
        write(lines, {"snapshot": snapshot, "since": before})
        for entry in entries_of(memory, catalog, changed):
            write(lines, entry)
        for key in deleted:
            write(lines, {"key": key, "deleted": True})
    unfinished.replace(file)  # a backup that was interrupted never has the name of a finished one
    if before is not None:
        catalog.delete_snapshot(before)
    return file, len(changed), len(deleted)


def restore(folder: Path, memory: SQLAlchemyBackend) -> int:
    """Put the backups of a folder into an empty memory; return how many entries there are."""
    if succeeded(memory.count())["count"]:
        raise SystemExit("the memory is not empty")
    before = None
    for file in backups(folder):
        with file.open(encoding="ascii") as lines:
            head = json.loads(next(lines))
            if head["since"] != before:
                raise SystemExit(f"{file} does not follow the backup before it: one is missing")
            before = head["snapshot"]
            for batch in batches(lines):
                apply(memory, [json.loads(line) for line in batch])
    return int(succeeded(memory.count())["count"])


def difference(one: SQLAlchemyBackend, other: SQLAlchemyBackend) -> str | None:
    """Return the first key at which two memories differ, None if they are equal."""
    for pair in zip_longest(one.iterate_all(), other.iterate_all()):
        if json.dumps(pair[0]) != json.dumps(pair[1]):  # as JSON, because 1 == 1.0 in Python
            return min(entry[0] for entry in pair if entry is not None)
    return None


def entries_of(memory: SQLAlchemyBackend, catalog: SQLAlchemyCatalog, keys: list[str]) -> Iterator[dict[str, Any]]:
    for batch in batches(keys):
        values = succeeded(memory.retrieve_many(batch))["entries"]
        tracked = succeeded(catalog.retrieve_batch(batch))["entries"]
        for key in batch:
            if values[key] is not None and tracked[key] is not None:  # otherwise it was deleted during this backup
                expiry = tracked[key]["expires_at"]
                entry = {"key": key, "value": values[key]["value"], "metadata": values[key]["metadata"]}
                yield {**entry, "expires_at": None if expiry is None else expiry.isoformat()}


def apply(memory: SQLAlchemyBackend, lines: list[dict[str, Any]]) -> None:
    entries, deleted = [], []
    for line in lines:
        if line.get("deleted"):
            deleted.append(line["key"])
        else:
            expiry = line["expires_at"]
            entries.append({**line, "expires_at": None if expiry is None else datetime.fromisoformat(expiry)})
    succeeded(memory.store_many(entries))
    succeeded(memory.delete_many(deleted))


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def last_snapshot(folder: Path) -> str | None:
    for file in reversed(backups(folder)):
        with file.open(encoding="ascii") as lines:
            return str(json.loads(next(lines))["snapshot"])
    return None


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH_SIZE)):
        yield batch


def write(lines: Any, line: dict[str, Any]) -> None:
    lines.write(json.dumps(line) + "\n")


def succeeded(result: dict[str, Any]) -> dict[str, Any]:
    if not result["success"]:
        raise LTMError.of(result)
    return result


def main(arguments: list[str]) -> int:
    """Run a command; see the top of this file."""
    match arguments:
        case ["backup", url, folder]:
            with SQLAlchemyBackend(url, catalog="sqlalchemy", lazy=True) as memory:  # back_up syncs it first
                file, changed, deleted = back_up(memory, Path(folder))
            print(f"{file}: {changed} changed, {deleted} deleted")
        case ["restore", folder, url]:
            with SQLAlchemyBackend(url, catalog="sqlalchemy") as memory:
                print(f"restored {restore(Path(folder), memory)} entries")
        case ["compare", one, other]:
            with SQLAlchemyBackend(one) as first, SQLAlchemyBackend(other) as second:
                key = difference(first, second)
            print("equal" if key is None else f"different at {key!r}")
            return 0 if key is None else 1
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LTMError as failure:
        sys.exit(f"Error: {failure}")
