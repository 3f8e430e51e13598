"""The commands of ``tea``. Results go to stdout, everything else to stderr.

Exit codes: 0 ok; 1 a failed node, bad configuration or bad input; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

import the_edge_agent
from the_edge_agent.cli.jsonio import InputError, OutputError, read_object, to_json

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def main() -> None:
    """Run ``tea`` and leave the process with its exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _print_version(wanted: bool) -> None:  # the callback of an option
    if wanted:
        typer.echo(f"tea {the_edge_agent.__version__}")
        raise typer.Exit


@app.callback()
def _tea(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Run YAML agents that have a long-term memory."""


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The agent, a YAML file.")],
    given: Annotated[
        str,
        typer.Option("--input", "-i", metavar="JSON|@FILE", help="The input: a JSON object, or @ and a file of it."),
    ] = "{}",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where the final state goes; - is stdout.")
    ] = "-",
    code: Annotated[
        bool, typer.Option("--code/--no-code", help="Whether the agent may run the Python code in its file.")
    ] = True,
) -> None:
    """Run an agent and print its final state as JSON."""
    with _failures_exit():
        state = read_object(given)
        write = _writer(output)
        with _stdout_kept_for_the_result():
            final = _run_agent(file, state, allow_code=code)
        write(to_json(final))


def _run_agent(file: Path, state: dict[str, Any], *, allow_code: bool) -> Any:
    from the_edge_agent.workflow import YAMLEngine  # here, so that `tea --help` does not wait for it

    with YAMLEngine(allow_code=allow_code) as engine:
        final = None
        for event in engine.load_from_file(file).invoke(state):
            final = event["state"]
        return final


@contextmanager
def _stdout_kept_for_the_result() -> Iterator[None]:
    """Send what an agent prints, in Python or from programs that it starts, to stderr."""
    with redirect_stdout(sys.stderr):
        try:
            saved = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # a process without stdout or stderr
            yield
            return
        try:
            yield
        finally:
            os.dup2(saved, 1)
            os.close(saved)


def _writer(output: str) -> Callable[[bytes], None]:
    """Return what writes the result, once it is sure that there is a folder for it."""
    if output == "-":
        if sys.stdout is None:  # closed by whoever started us
            raise OutputError("can't write to stdout: it is closed")
        return _write_stdout
    path = Path(output)
    if path.is_dir() or not path.parent.is_dir():
        raise OutputError(f"can't write {output}: {'it is a folder' if path.is_dir() else 'there is no such folder'}")
    return lambda text: _write_file(path, text)


def _write_stdout(text: bytes) -> None:
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the reader has seen enough; Typer ends the program without a word
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries again when it ends, and complains
        raise OutputError(f"can't write to stdout: {error.strerror}") from None


def _write_file(path: Path, text: bytes) -> None:
    try:
        path.write_bytes(text)
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror}") from None


@contextmanager
def _failures_exit() -> Iterator[None]:
    """Turn failures that a user can mend into one line on stderr and exit code 1."""
    try:
        yield
    except (InputError, OutputError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        from the_edge_agent.memory import LTMError
        from the_edge_agent.workflow import WorkflowError

        if not isinstance(error, WorkflowError | LTMError):
            raise
        _fail(str(error))


def _fail(message: str) -> None:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(EXIT_FAILED)
