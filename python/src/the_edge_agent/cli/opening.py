"""Open the memory that a command works with: the options that name it, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from the_edge_agent.memory import LTMBackend

URL_VARIABLES: Final = ("TEA_LTM_URL", "TEA_URL")

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The database, such as sqlite:///memory.db. [env: TEA_LTM_URL, TEA_URL]"),
]
AgentFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="FILE", help="An agent's file; its settings.ltm name the memory."),
]
Namespace = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="Work in this namespace; for one below it, repeat it."),
]
Nested = Annotated[bool, typer.Option("--nested", help="Include the namespaces below.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class NoMemoryNamed(typer.BadParameter):
    """No option and no variable names a memory."""

    def __init__(self) -> None:
        """Name the three ways."""
        super().__init__("which memory? Give --url URL or -f FILE, or set TEA_LTM_URL")


def url_of(url: str | None) -> str | None:
    """Return the URL of ``--url``, or that of a variable; None if neither is there."""
    return url or next((text for name in URL_VARIABLES if (text := os.environ.get(name))), None)


@contextmanager
def opened(
    url: str | None,
    file: Path | None,
    namespace: list[str] | None = None,
    *,
    creates: bool = False,
    catalog: bool = False,
    language: str | None = None,
) -> Iterator[LTMBackend]:
    """Open the memory that the options name, and close it at the end.

    Its methods raise ``LTMError``, and its first call connects.

    Args:
        url: the option ``--url``. A variable replaces it if it is missing.
        file: the option ``-f``; it counts if there is no URL.
        namespace: the names of the namespace; None for the whole memory.
        creates: whether to create tables that do not exist.
        catalog: whether the memory must have a catalog. With a URL that is the catalog in the same database.
        language: the language of the memory's table, with a URL; None for any, and for the default of a new table.

    Raises:
        LTMError: the memory cannot be opened, or has no catalog.
        NoMemoryNamed: no option and no variable names a memory.
    """
    from the_edge_agent.memory import parse_ltm_config

    block = _settings(url, file, creates=creates, catalog=catalog)
    if language is not None and url_of(url) is not None:
        block["language"] = language
    with parse_ltm_config({"ltm": block}) as memory:
        yield memory.namespace(*namespace) if namespace else memory


def _settings(url: str | None, file: Path | None, *, creates: bool, catalog: bool) -> dict[str, Any]:
    """Return ``settings.ltm`` of the memory that the options name."""
    common = {"lazy": True, "errors": "raise"}
    if (named := url_of(url)) is not None:
        more = {"catalog": "sqlalchemy"} if catalog else {}
        return {"backend": "sqlalchemy", "url": named, "create_tables": creates, **more, **common}
    if file is None:
        raise NoMemoryNamed
    from the_edge_agent.memory import LTMError
    from the_edge_agent.workflow.reading import read_file

    data = read_file(file).data
    settings = data.get("settings") if isinstance(data, dict) else None
    if not isinstance(settings, dict) or not isinstance(block := settings.get("ltm", {}), dict):
        raise LTMError("configuration_error", f"{file} has no settings.ltm")
    flat = {
        name.removeprefix("ltm_"): value
        for name, value in settings.items()
        if isinstance(name, str) and name.startswith("ltm_")
    }
    merged = {"backend": "sqlalchemy", **flat, **block}
    if catalog and not merged.get("catalog"):
        raise LTMError("configuration_error", "settings.ltm has no catalog; write for example catalog: sqlalchemy")
    if merged["backend"] == "sqlalchemy":
        merged.setdefault("create_tables", creates)
    return {**merged, **common}
