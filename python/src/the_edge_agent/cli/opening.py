"""Open the memory that a command works with: the options that name it, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from the_edge_agent.memory import ExistingMemory, LTMBackend, LTMError

URL_VARIABLES: Final = ("TEA_LTM_URL", "TEA_URL")
_SQLALCHEMY: Final = "sqlalchemy"
_OURS: Final = (_SQLALCHEMY, "sqlite", "postgres")  # their constructors take lazy and create_tables

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
    writes: bool = False,
    catalog: bool = False,
    table: str | None = None,
    reads_variables: bool = True,
    language: str | None = None,
) -> Iterator[LTMBackend]:
    """Open the memory that the options name, and close it at the end.

    Its methods raise ``LTMError``, and its first call connects.

    With a URL, this finds out whether the table has full-text search. A command that writes also writes the catalog in
    the same database, if that has entries: otherwise the catalog would no longer agree with the memory. With a file,
    a command that only reads leaves the catalog closed, because the start of a memory may fill it.

    Args:
        url: the option ``--url``. A variable replaces it if it is missing.
        file: the option ``-f``; it counts if there is no URL.
        namespace: the names of the namespace; None for the whole memory.
        creates: whether to create tables that do not exist, which is a write.
        writes: whether the command changes entries.
        catalog: whether the memory must have a catalog. With a URL that is the catalog in the same database.
        table: the name of the entries' table; None for the usual one, or that of the file.
        reads_variables: whether a variable counts before the file.
        language: the language of the memory's table, with a URL; None for any, and for the default of a new table.

    Raises:
        LTMError: the memory cannot be opened, there is no memory, or it has no catalog.
        NoMemoryNamed: no option and no variable names a memory.
    """
    from the_edge_agent.memory import LTMError, parse_ltm_config

    if (named := url_of(url) if reads_variables else url) is not None:
        block = _settings_of_url(named, creates=creates, writes=creates or writes, catalog=catalog, table=table)
    elif file is not None:
        block = _settings_of_file(file, creates=creates, writes=creates or writes, catalog=catalog, table=table)
    else:
        raise NoMemoryNamed
    if language is not None and named is not None:
        block["language"] = language
    problem: LTMError
    try:
        with parse_ltm_config({"ltm": block}) as memory:
            yield memory.namespace(*namespace) if namespace else memory
        return
    except LTMError as failure:
        if creates or not is_without_tables(failure):
            raise
        place = str(failure).partition(";")[0] if str(failure).startswith("there is no file") else "it has no tables"
        problem = no_memory(place)
    raise problem


def is_without_tables(failure: LTMError) -> bool:
    """Return whether a call failed because the tables do not exist, and may not be created."""
    return failure.error_type == "configuration_error" and "create_tables is false" in str(failure)


def no_memory(reason: str) -> LTMError:
    """Return the failure of a command that finds no memory, and creates none."""
    from the_edge_agent.memory import LTMError

    return LTMError(
        "configuration_error", f"there is no memory here: {reason}; check the URL, or store something first"
    )


def settings_of(file: Path) -> dict[str, Any]:
    """Return ``settings.ltm`` of an agent's file, with the flat spellings.

    Raises:
        LTMError: the file has no such settings.
        WorkflowError: the file cannot be read.
    """
    from the_edge_agent.memory import LTMError
    from the_edge_agent.workflow.reading import read_file

    data = read_file(file).data
    settings = data.get("settings") if isinstance(data, dict) else None
    block = settings.get("ltm") or {} if isinstance(settings, dict) else None
    flat = {key: value for key, value in (settings or {}).items() if isinstance(key, str) and key.startswith("ltm_")}
    if not isinstance(block, dict) or not (block or flat):
        raise LTMError("configuration_error", f"{file} has no settings.ltm")
    names = {**block, **{key.removeprefix("ltm_"): value for key, value in flat.items()}}
    if len(names) < len(block) + len(flat):
        raise LTMError("configuration_error", "settings.ltm names a key twice, once in its flat spelling")
    return {"backend": _SQLALCHEMY, **names}


def _settings_of_url(url: str, *, creates: bool, writes: bool, catalog: bool, table: str | None) -> dict[str, Any]:
    from the_edge_agent.memory import expand_env_vars

    block = {"backend": _SQLALCHEMY, "url": url, "create_tables": creates, "lazy": True, "errors": "raise"}
    more = {} if table is None else {"table_name": table}
    existing = _existing(expand_env_vars(url), *more.values())
    if not existing["exists"] and not creates:
        file = existing["missing_file"]
        raise no_memory(f"there is no file {file}" if file else f"the database has no table {table or 'ltm_entries'}")
    if existing["exists"] and not existing["is_current"] and not creates and existing["full_text"] is not None:
        raise no_memory("its tables are unfinished, or of an earlier release; `tea memory put` brings them up to date")
    if existing["full_text"] is False:
        more["search"] = False  # type: ignore[assignment]
    if catalog or (writes and existing["has_catalog"] and table is None):
        more["catalog"] = _SQLALCHEMY
    return {**block, **more}


def _existing(url: str, *table: str) -> ExistingMemory:
    from the_edge_agent.memory import LTMError, create_ltm_backend

    try:
        from the_edge_agent.memory import existing_memory
    except ImportError as error:
        try:
            create_ltm_backend(url=url, lazy=True)
        except ImportError as naming:  # its message names the extra that the url needs
            raise LTMError("dependency_missing", str(naming)) from None
        raise error from None
    return existing_memory(url, *table)


def _settings_of_file(file: Path, *, creates: bool, writes: bool, catalog: bool, table: str | None) -> dict[str, Any]:
    from the_edge_agent.memory import LTMError

    block = settings_of(file)
    if catalog and not block.get("catalog"):
        raise LTMError("configuration_error", "settings.ltm has no catalog; write for example catalog: sqlalchemy")
    if table is not None:
        block["table_name"] = table
    if not (writes or catalog):
        block.pop("catalog", None)
    if str(block["backend"]).strip().lower() not in _OURS:
        return {**block, "errors": "raise"}
    if not creates:
        block["create_tables"] = False
        if isinstance(of_catalog := block.get("catalog"), dict) and str(of_catalog.get("type", "sqlite")) in _OURS:
            block["catalog"] = {**of_catalog, "auto_migrate": False}
    return {**block, "lazy": True, "errors": "raise"}
