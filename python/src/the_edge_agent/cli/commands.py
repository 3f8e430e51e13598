"""Register commands so that a wrong call never shows a password."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand


class _Command(TyperCommand):
    """A command that refuses surplus arguments without showing them: one is usually a URL with a password."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        if ctx.args:
            raise typer.BadParameter("an argument too many; the URL goes after --url")
        return super().invoke(ctx)


def add(app: typer.Typer, function: Callable[..., None], name: str | None = None) -> None:
    """Add a command to an app, under the name of its function or another one."""
    app.command(name, cls=_Command, context_settings={"allow_extra_args": True})(function)
