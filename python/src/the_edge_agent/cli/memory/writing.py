"""``tea memory put|delete|cleanup``: change what a memory has."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from the_edge_agent.cli import commands
from the_edge_agent.cli.failures import EXIT_FAILED, failures_exit
from the_edge_agent.cli.jsonio import InputError, json_line, parse_json, read_object, read_text
from the_edge_agent.cli.opening import AgentFile, Json, Namespace, Nested, Url, Yes, opened
from the_edge_agent.cli.output import writer
from the_edge_agent.cli.progress import progress_bar
from the_edge_agent.cli.signals import ended_by_signals
from the_edge_agent.cli.terminal import one_line

_KEYS_AT_ONCE: Final = 1_000

IfVersion = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Only if the entry has this version; 0 if there must be no entry."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to ``tea memory``."""
    for command in (put, delete, cleanup):
        commands.add(app, command)


def put(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key of the entry.")],
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE|-|@FILE",
            help="The value as JSON; - reads the standard input, @ a file. Write -- before KEY if it begins with -.",
        ),
    ],
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    text: Annotated[bool, typer.Option("--text", help="The value is text, and not JSON.")] = False,
    metadata: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="The metadata: a JSON object.")] = None,
    ttl: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long the entry lives.")] = None,
    if_version: IfVersion = None,
    index: Annotated[bool, typer.Option("--index/--no-index", help="Whether its words can be searched.")] = True,
    as_json: Json = False,
) -> None:
    """Create or replace an entry. The tables are created if the database has none."""
    with failures_exit(), ended_by_signals():
        facts = None if metadata is None else read_object(metadata)
        content = read_text(value)
        stored = content if text else _json_of(content)
        more: dict[str, Any] = {} if ttl is None else {"ttl": ttl}
        more |= {} if if_version is None else {"if_version": if_version}
        more |= {} if index else {"index": False}
        with opened(url, file, namespace, creates=True) as memory:
            result = memory.store(key, stored, facts, **more)
        done = "created" if result["created"] else f"replaced, now version {result['version']}"
        writer("-")(json_line(result) if as_json else f"{one_line(key)}: {done}\n".encode())


def _json_of(text: str) -> Any:
    try:
        return parse_json(text)
    except InputError as error:
        message = f"{str(error).replace('the input', 'the value', 1)}; with --text the value is stored as text"
    raise InputError(message)


def delete(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY...", help="The keys of the entries.")] = None,
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    nested: Nested = False,
    prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Delete the entries whose keys begin with this text.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Delete every entry of the memory or the namespace.")] = False,
    if_version: IfVersion = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete entries: those with the keys, those with a prefix, or all."""
    names = keys or []
    if sum((bool(names), prefix is not None, all_)) != 1 or prefix == "":
        raise typer.BadParameter("give keys, --prefix TEXT or --all")
    if nested and not all_:
        raise typer.BadParameter("--nested goes with --all")
    if if_version is not None and len(names) != 1:
        raise typer.BadParameter("--if-version goes with one key")
    with failures_exit(), ended_by_signals(), opened(url, file, namespace, writes=True) as memory:
        more: dict[str, Any] = {"nested": True} if nested else {}
        if not yes:
            count = len(names) or memory.count(prefix, **more)["count"]
            agree(f"Delete {count:,} {'entry' if count == 1 else 'entries'}?")
        if if_version is not None:
            deleted = int(memory.delete(names[0], if_version=if_version)["deleted"])
        elif names:
            parts = (names[start : start + _KEYS_AT_ONCE] for start in range(0, len(names), _KEYS_AT_ONCE))
            deleted = sum(memory.delete_many(part)["deleted_count"] for part in parts)
        else:
            deleted = memory.delete_all(prefix or "", **more)["deleted_count"]
        report({"success": True, "deleted_count": deleted}, f"deleted {deleted:,}", as_json=as_json)


def cleanup(
    url: Url = None,
    file: AgentFile = None,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="How many to remove in one transaction.")
    ] = 1_000,
    as_json: Json = False,
) -> None:
    """Remove all expired entries from the database. No call returns them any more, but they take space."""
    with failures_exit(), ended_by_signals(), opened(url, file, writes=True) as memory:
        removed = removed_of(memory, batch)
        report({"success": True, "deleted_count": removed}, f"removed {removed:,}", as_json=as_json)


def removed_of(cleaned: Any, batch: int) -> int:
    """Remove all expired entries of a memory or a catalog, with a progress bar on a terminal. Return how many."""
    removed: int = 0
    with progress_bar("cleanup") as progress:
        while True:
            result = cleaned.cleanup_expired(batch)
            removed += result["deleted_count"]
            if progress is not None:
                progress(removed)
            if not (result["deleted_count"] and result["remaining_count"]):  # or others remove the rest
                return removed


def agree(question: str) -> None:
    """Ask on a terminal whether to go on, and end the command if not.

    Raises:
        BadParameter: there is nobody to ask.
        Exit: the answer is no.
    """
    if not can_ask():
        raise typer.BadParameter("this destroys something, and there is no terminal to ask; give --yes")
    if not typer.confirm(question, err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(EXIT_FAILED)


def can_ask() -> bool:
    """Return whether there is somebody at a terminal who can answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def report(result: dict[str, Any], line: str, *, as_json: bool) -> None:
    """Write what a command did to stdout: the result as JSON, or a line for people."""
    writer("-")(json_line(result) if as_json else f"{one_line(line)}\n".encode())
