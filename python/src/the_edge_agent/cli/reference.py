"""Write the page with every command and option of ``tea``: ``python -m the_edge_agent.cli.reference > tea.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import typer

from the_edge_agent.cli.app import app

_HEAD: Final = """# The command `tea`

Every command with its arguments and options. `make reference` writes this page from the program.
[Examples and exit codes](../command.md) are on another page.
"""


def page() -> str:
    """Return the page as Markdown."""
    return "".join([_HEAD, *_sections(typer.main.get_command(app), "tea")])


def _sections(command: Any, name: str) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"\n## `{name}`\n\n{_text(command.help)}\n"
    rows = [_row(parameter) for parameter in command.get_params(context) if _is_shown(parameter)]
    if rows:
        yield "\n| argument or option | |\n|---|---|\n" + "".join(rows)
    for child, sub in getattr(command, "commands", {}).items():
        yield from _sections(sub, f"{name} {child}")


def _is_shown(parameter: Any) -> bool:
    return not getattr(parameter, "hidden", False) and parameter.name not in ("help", "show_completion")


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []
    shown = " ".join(filter(None, (", ".join(names), parameter.metavar)))  # an option without metavar is a flag
    default = parameter.default
    has_default = isinstance(default, str | int | float) and not isinstance(default, bool) and default != ""
    value = getattr(default, "value", default)
    more = f" Default: `{value}`." if has_default else ""
    return f"| `{_cell(shown)}` | {_cell(_text(parameter.help))}{more} |\n"


def _text(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
