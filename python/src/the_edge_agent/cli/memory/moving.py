"""``tea memory export|import|copy|backup|restore``: move entries to files, from files, and to other databases."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from the_edge_agent.cli.failures import fail, failures_exit
from the_edge_agent.cli.jsonio import InputError, OutputError, json_line
from the_edge_agent.cli.opening import AgentFile, Json, Namespace, Nested, Url, opened, url_of
from the_edge_agent.cli.output import stdout_reserved_for_the_result, writer
from the_edge_agent.cli.progress import progress_bar
from the_edge_agent.cli.signals import ended_by_signals
from the_edge_agent.cli.terminal import one_line

if TYPE_CHECKING:
    from the_edge_agent.memory import LTMBackend, LTMError

_DEFAULT_LANGUAGE = "english"
_COUNTS = {
    "imported_count": "stored",
    "replaced_count": "replaced",
    "unchanged_count": "unchanged",
    "skipped_count": "skipped",
    "expired_count": "expired",
    "deleted_count": "deleted",
    "snapshot_count": "snapshots",
}

Output = Annotated[str, typer.Option("--output", "-o", metavar="FILE|-", help="The file to write; - is stdout.")]
OnConflict = Annotated[
    Literal["fail", "skip", "replace"],
    typer.Option("--on-conflict", help="What to do about an entry that is there and differs."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to ``tea memory``."""
    app.command("export")(export)
    app.command("import")(import_)
    app.command("copy")(copy)
    app.command("backup")(backup)
    app.command("restore")(restore)


def export(
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    nested: Nested = False,
    output: Output = "-",
    as_json: Json = False,
) -> None:
    """Write all entries to a file of JSON Lines with a checksum, with their versions, times and lifetimes."""
    from the_edge_agent.memory import export_entries

    with failures_exit(), ended_by_signals():
        with (
            written_file(output) as stream,
            stdout_reserved_for_the_result(),
            opened(url, file, namespace) as memory,
            _bar("export", memory, nested=nested) as progress,
        ):
            report, damage = _written_to_the_end(
                lambda: export_entries(memory, stream, nested=nested, progress=progress)
            )
        if damage is not None:
            raise damage
        text = f"{_counted(report['entries'], 'entries')}, SHA-256 {report['sha256']}"
        show_report({"output": output, **report}, text, as_json=as_json, to_stderr=output == "-")


def import_(
    source: Annotated[
        str, typer.Argument(metavar="FILE|-|URL", help="What to read; - is stdin. A URL for langgraph and tea.")
    ],
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    form: Annotated[
        Literal["jsonl", "rows", "csv", "langgraph", "tea"],
        typer.Option(
            "--format",
            help="jsonl: what export has written. rows: lines of JSON. csv: with the names of fields in the first row. "
            "langgraph: LangGraph's table store. tea: the tables of the earlier public TEA.",
        ),
    ] = "jsonl",
    key: Annotated[str | None, typer.Option(metavar="FIELD", help="Of rows and csv: the key.  [default: key]")] = None,
    value: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Of rows and csv: the value.  [default: all fields that are left]"),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Of rows and csv: a part of the metadata. Repeatable.")
    ] = None,
    on_conflict: OnConflict = "fail",
    as_json: Json = False,
) -> None:
    """Store what export has written, or the rows of other programs. After an interruption, run it again."""
    from the_edge_agent.memory import (
        import_file,
        import_langgraph,
        import_rows,
        import_tea,
        read_csv_rows,
        read_json_rows,
    )

    if form not in ("rows", "csv") and (key, value, metadata) != (None, None, None):
        raise typer.BadParameter("--key, --value and --metadata are for --format rows and csv")
    with failures_exit(), ended_by_signals(), ExitStack() as stack:
        more: dict[str, Any] = {"on_conflict": on_conflict}
        if form in ("langgraph", "tea"):
            stack.enter_context(stdout_reserved_for_the_result())
            memory = stack.enter_context(target(url, file, namespace, language=None))
            more["progress"] = stack.enter_context(progress_bar("import"))
            report = (import_langgraph if form == "langgraph" else import_tea)(memory, source, **more)
        else:
            stream = stack.enter_context(read_file(source))
            stack.enter_context(stdout_reserved_for_the_result())
            first = stream.readline()
            language = _language_of(first) if form == "jsonl" else None
            memory = stack.enter_context(target(url, file, namespace, language=language))
            total = (lambda: _entries_in(stream)) if form == "jsonl" else (lambda: None)
            more["progress"] = stack.enter_context(progress_bar("import", total))
            lines = _lines(first, stream)
            if form == "jsonl":
                report = import_file(memory, lines, **more)
            else:
                rows = read_json_rows(lines) if form == "rows" else read_csv_rows(lines)
                report = import_rows(memory, rows, key=key or "key", value=value, metadata=metadata or (), **more)
    with failures_exit():
        show_counts(report, as_json=as_json)


def copy(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The database to copy to.")],
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    nested: Nested = False,
    to_namespace: Annotated[
        list[str] | None,
        typer.Option("--to-namespace", metavar="NAME", help="Copy into this namespace; for one below it, repeat it."),
    ] = None,
    on_conflict: OnConflict = "fail",
    as_json: Json = False,
) -> None:
    """Copy all entries to another database. After an interruption, run it again."""
    from the_edge_agent.memory import copy_entries

    if url_of(url) == to and not namespace and not to_namespace:
        raise typer.BadParameter("--to names the memory that is copied")
    with failures_exit(), ended_by_signals():
        with (
            stdout_reserved_for_the_result(),
            opened(url, file, namespace) as memory,
            target(to, None, to_namespace, language=memory.language) as copied,
            _bar("copy", memory, nested=nested) as progress,
        ):
            report = copy_entries(memory, copied, nested=nested, on_conflict=on_conflict, progress=progress)
        show_counts(report, as_json=as_json)


def backup(
    output: Annotated[str, typer.Argument(metavar="FILE|-", help="The file to write; - is stdout.")],
    url: Url = None,
    file: AgentFile = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="SNAPSHOT", help="The snapshot of the backup before: write only what has changed since."),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync/--no-sync", help="First bring the catalog in step with the memory.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Write all entries and snapshots to a file, or what has changed since a snapshot. This makes a new snapshot."""
    from the_edge_agent.memory import back_up

    with failures_exit(), ended_by_signals():
        with (
            written_file(output) as stream,
            stdout_reserved_for_the_result(),
            with_catalog(url, file) as memory,
            progress_bar("backup", lambda: memory.count()["count"] if since is None else None) as progress,
        ):
            report, damage = _written_to_the_end(
                lambda: back_up(memory, stream, since=since, sync=sync, progress=progress)
            )
        if damage is not None:
            raise damage
        text = (
            f"{_counted(report['entries'], 'entries')}, {report['deleted_count']:,} deleted, "
            f"{_counted(report['snapshot_count'], 'snapshots')}; for the next backup: --since {report['snapshot_id']}"
        )
        show_report({"output": output, **report}, text, as_json=as_json, to_stderr=output == "-")


def restore(
    sources: Annotated[list[str], typer.Argument(metavar="FILE...", help="A full backup, and those made since.")],
    url: Url = None,
    file: AgentFile = None,
    on_conflict: OnConflict = "fail",
    as_json: Json = False,
) -> None:
    """Put backups back, with their versions, times, lifetimes and snapshots. After an interruption, run it again."""
    from the_edge_agent.memory import restore as restored

    with failures_exit(), ended_by_signals():
        with ExitStack() as stack:
            streams = [stack.enter_context(read_file(each)) for each in sources]
            stack.enter_context(stdout_reserved_for_the_result())
            firsts = [stream.readline() for stream in streams]
            language = next(filter(None, map(_language_of, firsts)), None)
            memory = stack.enter_context(target(url, file, None, language=language, catalog=True))
            progress = stack.enter_context(progress_bar("restore", lambda: _entries_in(streams[0])))
            lines = [*map(_lines, firsts, streams)]
            report = restored(memory, lines, on_conflict=on_conflict, progress=progress)
        show_counts(report, as_json=as_json)


@contextmanager
def with_catalog(url: str | None, file: Path | None) -> Iterator[LTMBackend]:
    """Open a memory that exists, with its catalog. The catalog is created if it is not there yet."""
    with opened(url, file) as memory:
        memory.count()
    with opened(url, file, creates=True, catalog=True) as memory:
        yield memory


def _ltm_error() -> type[LTMError]:
    from the_edge_agent.memory import LTMError

    return LTMError


@contextmanager
def target(
    url: str | None, file: Path | None, namespace: list[str] | None, *, language: str | None, catalog: bool = False
) -> Iterator[LTMBackend]:
    """Open the memory that entries are stored in. A new table gets the language of the memory that they come from."""
    language = None if language == _DEFAULT_LANGUAGE else language
    if language is not None:
        try:
            with opened(url, file) as memory:
                memory.count()
                language = None  # the table exists
        except _ltm_error() as failure:
            if failure.error_type not in ("configuration_error", "connection_error"):
                raise
    with opened(url, file, namespace, creates=True, catalog=catalog, language=language) as memory:
        yield memory


@contextmanager
def written_file(output: str) -> Iterator[BinaryIO]:
    """Yield a binary stream for a file that gets its name when it is complete; for ``-`` it is stdout.

    Raises:
        OutputError: the file cannot be written.
    """
    writer(output)  # refuses a folder, a symbolic link and a closed stdout
    path = Path(output)
    if output == "-" or (path.exists() and not path.is_file()):
        with _written(output), open(os.dup(1) if output == "-" else output, "wb") as stream:
            yield stream
        return
    with _written(output):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with open(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def _written(output: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"can't write {'to stdout' if output == '-' else output}: {error.strerror}") from None


@contextmanager
def read_file(source: str) -> Iterator[BinaryIO]:
    """Yield the binary stream of a file; for ``-`` it is stdin.

    Raises:
        InputError: the file cannot be read.
    """
    if source == "-":
        if sys.stdin is None:
            raise InputError("can't read stdin: it is closed")
        yield sys.stdin.buffer
        return
    try:
        with open(source, "rb") as stream:
            yield stream
    except OSError as error:
        raise InputError(f"can't read {source}: {error.strerror}") from None


def show_counts(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what was done with how many entries. Entries that the export had left out are a failure."""
    text = ", ".join(_counted(report[name], word) for name, word in _COUNTS.items() if name in report)
    show_report(report, text, as_json=as_json)
    if damaged := report.get("damaged"):
        fail(f"the file lacks {len(damaged):,} entries, which were damaged when it was written: {damaged[0]!r}, ...")


def _written_to_the_end(write: Callable[[], Mapping[str, Any]]) -> tuple[Mapping[str, Any], LTMError | None]:
    """Write a file; return the report, or the failure of a file that has everything except damaged entries.

    The caller raises the failure after the file has its name.
    """
    try:
        return write(), None
    except _ltm_error() as failure:
        if "sha256" not in failure.result:
            raise
        return {}, failure


def _counted(count: int, word: str) -> str:
    """Return a number and what it counts."""
    ones = {"entries": "entry", "snapshots": "snapshot"}
    return f"{count:,} {ones.get(word, word) if count == 1 else word}"


def show_report(report: Mapping[str, Any], text: str, *, as_json: bool, to_stderr: bool = False) -> None:
    """Print a report as JSON, or as a line for people, to stdout or stderr."""
    shown = {name: value for name, value in report.items() if name != "success"}
    line = json_line(shown) if as_json else f"{one_line(text)}\n".encode()
    if to_stderr:
        typer.echo(line, err=True, nl=False)
    else:
        writer("-")(line)


@contextmanager
def _bar(label: str, memory: LTMBackend, *, nested: bool) -> Iterator[Callable[[int], None] | None]:
    with progress_bar(label, lambda: memory.count(nested=nested)["count"]) as progress:
        yield progress


def _lines(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    if first:
        yield first
    yield from stream


def _language_of(header: bytes) -> str | None:
    """Return the language in the header of an export."""
    import json

    try:
        language = json.loads(header)["language"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return language if isinstance(language, str) else None


def _entries_in(stream: BinaryIO) -> int | None:
    """Return the number of entries that the last line of an export names; None for a pipe."""
    import json

    try:
        place = stream.tell()
        stream.seek(-min(1_000, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        last = stream.read().splitlines()[-1]
        stream.seek(place)
        count = json.loads(last).get("entries")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return count if isinstance(count, int) else None
