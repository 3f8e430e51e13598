"""``tea memory check|sync|optimize|tokens``: look after a memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from the_edge_agent.cli.failures import EXIT_FAILED, failures_exit
from the_edge_agent.cli.jsonio import to_json
from the_edge_agent.cli.output import stdout_reserved_for_the_result, writer
from the_edge_agent.cli.reports import check_report
from the_edge_agent.cli.signals import ended_by_signals

_URL = typer.Option("--url", envvar="TEA_URL", metavar="URL", help="The database, such as sqlite:///memory.db.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to ``tea memory``."""
    app.command(context_settings={"allow_extra_args": True})(check)
    for command in (sync, optimize, tokens):
        app.command()(command)


def _seconds(value: float) -> float:  # the callback of an option
    if not 0 < value < 1e9:
        raise typer.BadParameter("it must be a positive number of seconds")
    return value


def check(
    context: typer.Context,
    url: Annotated[str, _URL],
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", callback=_seconds, help="How long the check may take.")
    ] = 30.0,
    data: Annotated[
        bool, typer.Option("--data", help="Read every entry too, and list those that are damaged.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Check whether a memory works on a database. Nothing is left behind there."""
    if context.args:  # the message does not show it, because it is usually a URL with a password
        raise typer.BadParameter("an argument too many; the URL goes after --url")
    with failures_exit(), ended_by_signals():
        write = writer("-")
        with stdout_reserved_for_the_result():
            report = _checked(url, timeout, data=data)
        write(to_json(report) if as_json else check_report(report).encode())
    if not report["success"]:
        raise typer.Exit(EXIT_FAILED)


def sync(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The agent, a YAML file with settings.ltm.")],
) -> None:
    """Make the catalog of an agent's memory agree with the memory, for example when the catalog is new."""
    with failures_exit(), ended_by_signals():
        write = writer("-")
        with stdout_reserved_for_the_result():
            result = _synced(file)
        write(to_json(result))
    if not result["success"]:
        raise typer.Exit(EXIT_FAILED)


def optimize(
    url: Annotated[str, _URL],
    table: Annotated[
        str, typer.Option(metavar="NAME", help="The table of the entries, where it has another name.")
    ] = "ltm_entries",
) -> None:
    """Index the words of all entries now, for example after an import into MySQL or MariaDB."""
    with failures_exit(), ended_by_signals():
        write = writer("-")
        with stdout_reserved_for_the_result():
            result = _optimized(url, table)
        write(to_json(result))
    if not result["success"]:
        raise typer.Exit(EXIT_FAILED)


def _optimized(url: str, table: str) -> Mapping[str, Any]:
    from the_edge_agent.memory import SQLAlchemyBackend

    with SQLAlchemyBackend(url, table_name=table, create_tables=False, lazy=True) as memory:
        result = memory.optimize()
    if result.get("error_type") == "configuration_error" and "create_tables" in result["error"]:
        result["error"] = f"this database has no memory with the table {table}; check --url and --table"
    return result


def tokens(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Any text, or - to read it from the standard input.")],
    language: Annotated[
        str, typer.Option(metavar="NAME", help="The language of the memory; none for exact words.")
    ] = "english",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Show the words of a text, and the stem of each word, which is indexed, without accents."""
    from the_edge_agent.memory import words_of

    with failures_exit():
        words = words_of(sys.stdin.read() if text == "-" else text, language)
        lines = "".join(f"{word:<24} {stem}\n" for word, stem in words)
        report = to_json({"words": [{"word": word, "indexed": stem} for word, stem in words]})
        writer("-")(report if as_json else lines.encode())


def _synced(file: Path) -> Mapping[str, Any]:
    from the_edge_agent.memory import LTMError, parse_ltm_config
    from the_edge_agent.workflow.reading import read_file

    data = read_file(file).data
    settings = data.get("settings") if isinstance(data, dict) else None
    if not isinstance(settings, dict) or not isinstance(block := settings.get("ltm", {}), dict):
        raise LTMError("configuration_error", f"{file} has no settings.ltm")
    flat = {name: value for name, value in settings.items() if name not in ("ltm_lazy", "ltm_errors")}
    ours = {"lazy": True, "errors": "return"}  # lazy, because a start may refuse a new catalog
    with parse_ltm_config({**flat, "ltm": {**block, **ours}}) as memory:
        if getattr(memory, "catalog", None) is None:
            raise LTMError("configuration_error", "settings.ltm has no catalog; write for example catalog: sqlalchemy")
        result: Mapping[str, Any] = memory.sync_catalog()  # type: ignore[attr-defined]
        return result


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
