"""The commands of ``tea``. Results go to stdout, everything else to stderr.

Exit codes: 0 ok; 1 a failed node, bad configuration or bad input; 2 wrong usage; 130 interrupted; 141 the
reader of the output has gone.
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

import the_edge_agent
from the_edge_agent.cli import catalog, memory
from the_edge_agent.cli.failures import EXIT_INTERRUPTED, fail, failures_exit
from the_edge_agent.cli.jsonio import read_object, to_json
from the_edge_agent.cli.output import stdout_reserved_for_the_result, writer
from the_edge_agent.cli.terminal import PrintableFormatter

app = typer.Typer(add_completion=True, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(memory.app, name="memory")
app.add_typer(catalog.app, name="catalog")


def main() -> None:
    """Run ``tea`` and leave the process with its exit code."""
    if logging.lastResort is not None:  # this handler shows warnings if a program does not configure logging
        logging.lastResort.setFormatter(PrintableFormatter())
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _print_version(is_requested: bool) -> None:  # the callback of an option
    if is_requested:
        typer.echo(f"tea {the_edge_agent.__version__}")
        raise typer.Exit


@app.callback()
def _tea(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            metavar="",
            help="Log nodes and actions to stderr, and where an agent's code failed; -vv also each call of the memory."
            " Write it before the command: tea -v run FILE.",
        ),
    ] = 0,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log JSON objects, one a line. Write it before the command.")
    ] = False,
) -> None:
    """Run YAML agents that have a long-term memory."""
    if verbose or log_json:
        from the_edge_agent.cli.logs import show_logs  # imported here, so that `tea --help` is fast

        context.call_on_close(show_logs(verbose, as_json=log_json))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The agent, a YAML file.")],
    state_input: Annotated[
        str,
        typer.Option("--input", "-i", metavar="JSON|@FILE", help="The input: a JSON object, or @ and a file of it."),
    ] = "{}",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where the final state goes; - is stdout.")
    ] = "-",
    code: Annotated[
        bool, typer.Option("--code/--no-code", help="Whether the agent may run the Python code in its file.")
    ] = True,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="The agent's memory, such as sqlite:///memory.db, or '${NAME}' of a variable."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME",
            help="An environment variable that the file may read; several with several --env. Otherwise all of them,"
            " with --no-code none.",
        ),
    ] = None,
    actions_module: Annotated[
        list[str] | None,
        typer.Option(
            "--actions-module",
            metavar="MODULE|FILE",
            help="A Python module, or a file that ends with .py, whose register_actions adds actions; may be repeated.",
        ),
    ] = None,
    actions_file: Annotated[
        list[Path] | None,
        typer.Option("--actions-file", metavar="FILE", help="The same, for a file with any name; may be repeated."),
    ] = None,
) -> None:
    """Run an agent and print its final state as JSON."""
    modules: list[str | Path] = [*(actions_module or []), *(actions_file or [])]
    if modules and not code:
        raise typer.BadParameter("it runs code, which --no-code refuses", param_hint="--actions-module")
    with failures_exit():
        state = read_object(state_input)
        write = writer(output)
        with stdout_reserved_for_the_result():
            final = _run_agent(file, state, allow_code=code, url=url, env=env or None, modules=modules)
        write(to_json(final))


def _run_agent(
    file: Path,
    state: dict[str, Any],
    *,
    allow_code: bool,
    url: str | None,
    env: list[str] | None,
    modules: list[str | Path],
) -> Any:
    from the_edge_agent.memory import parse_ltm_config  # imported here, so that `tea --help` is fast
    from the_edge_agent.workflow import YAMLEngine

    with ExitStack() as stack:
        memory = None if url is None else parse_ltm_config({"ltm": {"url": url}})
        if memory is not None:
            stack.callback(memory.close)
        engine = stack.enter_context(
            YAMLEngine(ltm_backend=memory, allow_code=allow_code, env=env, actions_modules=modules)
        )
        final = None
        for event in engine.load_from_file(file).invoke(state):
            if event["type"] == "error":
                fail(event["error"])
            final = event["state"]
        return final
