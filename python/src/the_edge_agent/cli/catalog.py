"""``tea catalog``: what the catalog of a memory has, its snapshots, and changes since a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from the_edge_agent.cli import commands
from the_edge_agent.cli.failures import fail, failures_exit
from the_edge_agent.cli.jsonio import json_line, read_object
from the_edge_agent.cli.memory.reading import Prefix, name_damaged, write_json, write_table
from the_edge_agent.cli.memory.writing import agree, removed_of, report
from the_edge_agent.cli.opening import AgentFile, Json, Namespace, Url, Yes, opened
from the_edge_agent.cli.output import writer
from the_edge_agent.cli.signals import ended_by_signals
from the_edge_agent.cli.tables import text_of
from the_edge_agent.cli.terminal import one_line

if TYPE_CHECKING:
    from the_edge_agent.memory import LTMBackend

app = typer.Typer(no_args_is_help=True)

_LABEL: Final = 14  # characters
_ENTRY: Final = ("key", "size", "updated", "expires", "hash", "metadata")
_SNAPSHOT: Final = ("id", "entries", "bytes", "created", "name")

Snapshot = Annotated[
    str, typer.Argument(metavar="ID|NAME", help="The id of a snapshot, or its name if only one has it.")
]


@app.callback()
def _catalog() -> None:
    """Look at the catalog of a memory: hashes and sizes of entries, snapshots, and changes since a snapshot."""


def list_(
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    prefix: Prefix = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON|@FILE", help="What the metadata must have: a JSON object."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="How many entries at most.")] = 100,
    as_json: Json = False,
) -> None:
    """List entries of the catalog by key."""
    with failures_exit(), ended_by_signals():
        condition = None if filter_ is None else read_object(filter_)
        with _read(url, file, namespace) as memory:
            result = _actions().list_entries(memory, prefix, condition, limit)
        _write_entries(result["entries"], as_json=as_json)
    name_damaged(result.get("damaged", ()))


def get(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key of the entry.")],
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Show an entry of the catalog. The exit code is 1 if there is none."""
    with failures_exit(), ended_by_signals():
        with _read(url, file, namespace) as memory:
            entry = _actions().get(memory, key)["entry"]
        if entry is None:
            fail(f"the catalog has no entry with the key {key}")
        elif as_json:
            writer("-")(json_line(entry))
        else:
            shown = {name: value if isinstance(value, str) else text_of(value) for name, value in entry.items()}
            lines = (f"{name:<{_LABEL}}{one_line(text)}\n" for name, text in shown.items() if text)
            writer("-")("".join(lines).encode())


def snapshot(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for the snapshot.")],
    url: Url = None,
    file: AgentFile = None,
    as_json: Json = False,
) -> None:
    """Take a snapshot of the catalog, and print its id."""
    with failures_exit(), ended_by_signals(), opened(url, file, writes=True, catalog=True) as memory:
        result = _actions().snapshot(memory, name)
        report(_without_success(result), result["snapshot_id"], as_json=as_json)


def snapshots(url: Url = None, file: AgentFile = None, as_json: Json = False) -> None:
    """List all snapshots, newest first."""
    with failures_exit(), ended_by_signals():
        with _read(url, file) as memory:
            result = _actions().snapshots(memory)
        if as_json:
            write_json(result["snapshots"])
        else:
            write_table(_SNAPSHOT, map(_snapshot_row, result["snapshots"]))
    name_damaged(result.get("damaged", ()))


def changes(
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="ID|NAME", help="A snapshot; without one, every entry has changed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the entries that are new, changed or deleted since a snapshot."""
    with failures_exit(), ended_by_signals():
        with _read(url, file, namespace) as memory:
            result = _actions().changes(memory, None if since is None else _id_of(memory, since))
        changed = [("changed", entry) for entry in result["changed"]]
        all_of = changed + [("deleted", entry) for entry in result["deleted"]]
        if as_json:
            write_json({"change": change, **entry} for change, entry in all_of)
        else:
            write_table(("change", *_ENTRY), ([change, *_row(entry)] for change, entry in all_of))
    name_damaged(result.get("damaged", ()))


def delete_snapshot(
    snapshot: Snapshot,
    url: Url = None,
    file: AgentFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a snapshot. The entries stay."""
    with failures_exit(), ended_by_signals(), opened(url, file, writes=True, catalog=True) as memory:
        snapshot_id = _id_of(memory, snapshot)
        if not yes:
            agree(f"Delete the snapshot {one_line(snapshot)}?")
        deleted = _actions().delete_snapshot(memory, snapshot_id)["deleted"]
        if not deleted:
            fail(f"there is no snapshot {snapshot}")
        report({"deleted": True, "snapshot_id": snapshot_id}, f"deleted {snapshot_id}", as_json=as_json)


def sync(url: Url = None, file: AgentFile = None, as_json: Json = False) -> None:
    """Make the catalog agree with the memory, for example when the catalog is new."""
    from the_edge_agent.memory import catalog_as_it_is

    with failures_exit(), ended_by_signals(), opened(url, file, writes=True, catalog=True) as memory:
        catalog_as_it_is(memory)
        result = _actions().sync(memory)
        line = f"tracked {result['tracked_count']:,}, deleted {result['deleted_count']:,}"
        report(_without_success(result), line, as_json=as_json)
    name_damaged(result.get("damaged", ()))


def cleanup(
    url: Url = None,
    file: AgentFile = None,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="How many to remove in one transaction.")
    ] = 1_000,
    as_json: Json = False,
) -> None:
    """Remove all expired entries from the catalog."""
    with failures_exit(), ended_by_signals(), opened(url, file, writes=True, catalog=True) as memory:
        removed = removed_of(getattr(memory, "catalog", None), batch)
        report({"deleted_count": removed}, f"removed {removed:,}", as_json=as_json)


commands.add(app, list_, "list")
commands.add(app, get)
commands.add(app, snapshot)
commands.add(app, snapshots)
commands.add(app, changes)
commands.add(app, delete_snapshot, "delete-snapshot")
commands.add(app, sync)
commands.add(app, cleanup)


def _actions() -> Any:
    """Return the module with the actions of the catalog, whose results these commands show."""
    from the_edge_agent.workflow.actions import catalog

    return catalog


@contextmanager
def _read(url: str | None, file: Path | None, namespace: list[str] | None = None) -> Iterator[LTMBackend]:
    """Open a memory to read its catalog, which is not filled if it is empty."""
    from the_edge_agent.memory import catalog_as_it_is

    with opened(url, file, namespace, catalog=True) as memory:
        catalog_as_it_is(memory)
        yield memory


def _id_of(memory: LTMBackend, snapshot: str) -> str:
    """Return the id of the snapshot with an id or a name.

    Raises:
        LTMError: no snapshot has the name, or several have it.
    """
    from the_edge_agent.memory import LTMError

    found = _actions().snapshots(memory)["snapshots"]
    if any(each["id"] == snapshot for each in found):
        return snapshot
    named = [str(each["id"]) for each in found if each["name"] == snapshot]
    if len(named) == 1:
        return named[0]
    reason = (
        f"{len(named)} snapshots have the name {snapshot}; give an id" if named else f"there is no snapshot {snapshot}"
    )
    raise LTMError("validation_error", reason)


def _write_entries(entries: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        write_json(entries)
    else:
        write_table(_ENTRY, map(_row, entries))


def _row(entry: Mapping[str, Any]) -> list[str]:
    size = entry["byte_size"]
    times = [_short(entry.get("updated_at")), _short(entry["expires_at"])]
    return [
        entry["key"],
        "" if size is None else f"{size:,}",
        *times,
        entry["content_hash"],
        text_of(entry.get("metadata")),
    ]


def _snapshot_row(snapshot: Mapping[str, Any]) -> list[str]:
    counts = [f"{snapshot[name]:,}" for name in ("entry_count", "total_bytes")]
    return [snapshot["id"], *counts, _short(snapshot["created_at"]), snapshot["name"]]


def _short(moment: str | None) -> str:
    """Return a time of a result as tables show it, to the second."""
    return "" if moment is None else f"{moment[:19].replace('T', ' ')}Z"


def _without_success(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("success", "damaged")}
