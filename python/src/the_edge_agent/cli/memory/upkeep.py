"""``tea memory check|sync|optimize|tokens``: look after a memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from the_edge_agent.cli import commands
from the_edge_agent.cli.failures import EXIT_FAILED, fail, failures_exit
from the_edge_agent.cli.jsonio import to_json
from the_edge_agent.cli.opening import (
    AgentFile,
    Json,
    NoMemoryNamed,
    Url,
    is_without_tables,
    opened,
    settings_of,
    url_of,
)
from the_edge_agent.cli.output import stdout_reserved_for_the_result, writer
from the_edge_agent.cli.reports import check_report
from the_edge_agent.cli.signals import ended_by_signals


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to ``tea memory``."""
    for command in (check, sync, optimize, tokens):
        commands.add(app, command)


def _seconds(value: float) -> float:  # the callback of an option
    if not 0 < value < 1e9:
        raise typer.BadParameter("it must be a positive number of seconds")
    return value


def check(
    url: Url = None,
    file: AgentFile = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", callback=_seconds, help="How long the check may take.")
    ] = 30.0,
    data: Annotated[
        bool, typer.Option("--data", help="Read every entry too, and list those that are damaged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check whether a memory works on a database. Nothing is left behind there."""
    with failures_exit(), ended_by_signals():
        place = _place(url, file)
        write = writer("-")
        with stdout_reserved_for_the_result():
            report = _checked(place, timeout, data=data)
        write(to_json(report) if as_json else check_report(report).encode())
    if not report["success"]:
        raise typer.Exit(EXIT_FAILED)


def sync(
    agent: Annotated[Path | None, typer.Argument(metavar="FILE", help="The same as -f FILE.")] = None,
    url: Url = None,
    file: AgentFile = None,
    as_json: Json = False,
) -> None:
    """Make the catalog agree with the memory, for example when the catalog is new."""
    if agent is not None and (url is not None or file is not None):
        raise typer.BadParameter("name the memory once: --url URL, -f FILE or FILE")
    with failures_exit(), ended_by_signals():
        write = writer("-")
        with stdout_reserved_for_the_result():
            result = _synced(url, agent or file, is_named=agent is not None)
        write(to_json(result) if as_json else _line(result, "tracked {tracked_count:,}, deleted {deleted_count:,}"))
    if not result["success"]:
        raise typer.Exit(EXIT_FAILED)


def optimize(
    url: Url = None,
    file: AgentFile = None,
    table: Annotated[
        str | None, typer.Option(metavar="NAME", help="The table of the entries, where it has another name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Index the words of all entries now, for example after an import into MySQL or MariaDB."""
    with failures_exit(), ended_by_signals():
        write = writer("-")
        with stdout_reserved_for_the_result(), opened(url, file, table=table) as memory:
            result = outcome(getattr(memory, "optimize", None))
        write(to_json(result) if as_json else _line(result, "indexed {entries:,}, stemmed again {stemmed:,}"))
    if not result["success"]:
        raise typer.Exit(EXIT_FAILED)


def tokens(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Any text, or - to read it from the standard input.")],
    language: Annotated[
        str, typer.Option(metavar="NAME", help="The language of the memory; none for exact words.")
    ] = "english",
    as_json: Json = False,
) -> None:
    """Show the words of a text, and the stem of each word, which is indexed, without accents."""
    from the_edge_agent.memory import words_of

    with failures_exit():
        words = words_of(sys.stdin.read() if text == "-" else text, language)
        lines = "".join(f"{word:<24} {stem}\n" for word, stem in words)
        report = to_json({"words": [{"word": word, "indexed": stem} for word, stem in words]})
        writer("-")(report if as_json else lines.encode())


def _line(result: Mapping[str, Any], text: str) -> bytes:
    """Return the line for people about a call, with the counts of its result.

    Raises:
        Exit: the call failed; why is on stderr.
    """
    if not result["success"]:
        fail(result["error"])
    return f"{text.format_map(result)}\n".encode()


def _synced(url: str | None, file: Path | None, *, is_named: bool) -> Mapping[str, Any]:
    """Sync the catalog. A file that ``is_named`` as an argument counts before the variables."""
    from the_edge_agent.memory import catalog_as_it_is

    creates = is_named or url_of(url) is None  # with a URL the catalog is one of the memory's own tables
    with opened(url, file, creates=creates, writes=True, catalog=True, reads_variables=not is_named) as memory:
        catalog_as_it_is(memory)
        return outcome(getattr(memory, "sync_catalog", None))


def outcome(method: Callable[[], Mapping[str, Any]] | None) -> Mapping[str, Any]:
    """Return the result of a method of a memory, also if it is a failure. None is a method that the memory lacks."""
    from the_edge_agent.memory import LTMError

    if method is None:
        raise LTMError("configuration_error", "this memory has no such method; it is one of another package")
    try:
        return method()
    except LTMError as failure:
        if is_without_tables(failure):
            raise
        return failure.result


def _place(url: str | None, file: Path | None) -> str:
    """Return the URL of the database of a memory."""
    from the_edge_agent.memory import LTMError, expand_env_vars

    if (named := url_of(url)) is not None:
        return named
    if file is None:
        raise NoMemoryNamed
    block = expand_env_vars(settings_of(file))
    if (path := block.get("path", block.get("db_path"))) is not None:
        return f"sqlite:///{path}"
    if not isinstance(block.get("url"), str):
        raise LTMError("configuration_error", f"settings.ltm of {file} names no database")
    return str(block["url"])


def _checked(url: str, timeout: float, *, data: bool) -> dict[str, Any]:
    from the_edge_agent.memory import create_ltm_backend

    try:
        from the_edge_agent.memory import check_database
    except ImportError:
        try:
            create_ltm_backend(url=url, lazy=True)
        except ImportError as error:  # its message names the extra that the url needs
            return {"success": False, "error": str(error), "error_type": "dependency_missing"}
        raise
    return check_database(url, timeout, data=data)
