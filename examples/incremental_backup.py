"""Backs up a memory, each time what is new only, and restores it into another one, on any database.

    python incremental_backup.py backup sqlite:///ltm.db backups
    python incremental_backup.py restore backups postgresql://me@localhost/memories
    python incremental_backup.py compare sqlite:///ltm.db postgresql://me@localhost/memories

Each backup is a file of JSON lines. The first line names the snapshot that the backup was made at and the one before;
each other line is an entry, or says that one was deleted. Agents may go on working: what they change during a backup
is in this one or in the next, except an entry that is deleted and stored again as it was in that moment.
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

AT_ONCE = 500  # entries in memory at a time


def back_up(memory: SQLAlchemyBackend, folder: Path) -> tuple[Path, int, int]:
    """Write what has changed since the last backup; return the file, and how many were changed and deleted."""
    catalog = memory.catalog
    assert isinstance(catalog, SQLAlchemyCatalog)
    succeeded(memory.sync_catalog())  # so that it also knows what was stored without it
    before = last_snapshot(folder)
    snapshot = catalog.create_snapshot("backup")  # first: what changes from now on is new for the next backup
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
    unfinished.replace(file)  # only now it is a backup
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
            for part in parts(lines):
                put(memory, [json.loads(line) for line in part])
    return int(succeeded(memory.count())["count"])


def difference(one: SQLAlchemyBackend, other: SQLAlchemyBackend) -> str | None:
    """Return the first key at which two memories differ, None if they are equal."""
    for pair in zip_longest(one.iterate_all(), other.iterate_all()):
        if json.dumps(pair[0]) != json.dumps(pair[1]):  # as text, where 1 and 1.0 are not the same
            return min(entry[0] for entry in pair if entry is not None)
    return None


def entries_of(memory: SQLAlchemyBackend, catalog: SQLAlchemyCatalog, keys: list[str]) -> Iterator[dict[str, Any]]:
    for part in parts(keys):
        values = succeeded(memory.retrieve_many(part))["entries"]
        tracked = succeeded(catalog.retrieve_batch(part))["entries"]
        for key in part:
            if values[key] is not None and tracked[key] is not None:  # else it went meanwhile
                end = tracked[key]["expires_at"]
                kept = {"key": key, "value": values[key]["value"], "metadata": values[key]["metadata"]}
                yield {**kept, "expires_at": None if end is None else end.isoformat()}


def put(memory: SQLAlchemyBackend, lines: list[dict[str, Any]]) -> None:
    stores, gone = [], []
    for line in lines:
        if line.get("deleted"):
            gone.append(line["key"])
        else:
            end = line["expires_at"]
            stores.append({**line, "expires_at": None if end is None else datetime.fromisoformat(end)})
    succeeded(memory.store_many(stores))
    succeeded(memory.delete_many(gone))


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def last_snapshot(folder: Path) -> str | None:
    for file in reversed(backups(folder)):
        with file.open(encoding="ascii") as lines:
            return str(json.loads(next(lines))["snapshot"])
    return None


def parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(items)
    while part := list(islice(left, AT_ONCE)):
        yield part


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
