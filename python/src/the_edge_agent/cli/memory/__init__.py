"""The commands of ``tea memory``: work with a memory from a terminal."""

from __future__ import annotations

import typer

from the_edge_agent.cli.memory import moving, reading, upkeep, writing

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _memory() -> None:
    """Work with a long-term memory on any SQL database."""


for part in (reading, writing, moving, upkeep):  # each has the commands of one kind
    part.add_to(app)
