"""End a command that fails with one line on stderr and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from the_edge_agent.cli.jsonio import InputError, OutputError
from the_edge_agent.cli.terminal import one_line

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141  # 128 and SIGPIPE, as of a program that the signal ends


@contextmanager
def failures_exit() -> Iterator[None]:
    """Turn failures that a user can correct into one line on stderr and exit code 1."""
    try:
        yield
    except (InputError, OutputError) as error:
        fail(str(error))
    except BrokenPipeError:  # the reader of stdout, such as ``head``, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python tries again at exit, and prints an error
        raise typer.Exit(EXIT_CLOSED_PIPE) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        from the_edge_agent.memory import LTMError
        from the_edge_agent.workflow import WorkflowError

        if not isinstance(error, WorkflowError | LTMError):
            raise
        fail(str(error))


def fail(message: str) -> None:
    """Print what is wrong and end the command.

    Raises:
        Exit: always.
    """
    typer.echo(f"Error: {one_line(message)}", err=True)
    raise typer.Exit(EXIT_FAILED)
