"""``tea memory list|get|search|namespaces|stats``: look at what a memory has. They change and create nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from the_edge_agent.cli import commands
from the_edge_agent.cli.failures import EXIT_FAILED, fail, failures_exit
from the_edge_agent.cli.jsonio import InputError, json_line, read_object
from the_edge_agent.cli.opening import AgentFile, Json, Namespace, Nested, Url, opened
from the_edge_agent.cli.output import writer
from the_edge_agent.cli.signals import ended_by_signals
from the_edge_agent.cli.tables import is_terminal, tables, text_of, time_of
from the_edge_agent.cli.terminal import one_line, printable, printable_json

if TYPE_CHECKING:
    from the_edge_agent.memory import LTMBackend

_PAGE: Final = 100  # entries that are read at a time
_LISTED: Final = 100  # entries that ``list`` shows without --limit and --all
_LABEL: Final = 10  # characters
_CUT: Final = ("value", "metadata", "terms", "hash", "name")


class Order(str, Enum):
    """The orders of ``list``."""

    key = "key"
    descending = "-key"
    newest = "newest"


class Match(str, Enum):
    """What ``search`` returns: entries that have any of the words, or all."""

    any = "any"
    all = "all"


Prefix = Annotated[str | None, typer.Option(metavar="TEXT", help="Only keys that begin with this text.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to ``tea memory``."""
    commands.add(app, list_, "list")
    for command in (get, search, namespaces, stats):
        commands.add(app, command)


def list_(
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    nested: Nested = False,
    prefix: Prefix = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many entries to list at most; 100 by default.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="List every entry, however many there are.")] = False,
    after: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Begin after this place, which the list before has named.")
    ] = None,
    order: Annotated[
        Order, typer.Option(metavar="key|-key|newest", help="By key, by key from the last one, or newest first.")
    ] = Order.key,
    keys: Annotated[bool, typer.Option("--keys", help="List the keys alone.")] = False,
    as_json: Json = False,
) -> None:
    """List entries. With --json there is one object a line, with everything that an entry has."""
    if all_ and limit is not None:
        raise typer.BadParameter("--all lists every entry, and --limit only some: give one of them")
    with failures_exit(), ended_by_signals(), opened(url, file, namespace) as memory:
        shown = _Listed(memory, prefix, after, order.value, None if all_ else limit or _LISTED, nested=nested)
        if as_json:
            lines = ({"key": entry["key"]} | _namespace_of(entry) if keys else plain(entry) for entry in shown)
            write_json(lines)
        else:
            columns = ("key",) if keys else ("key", "version", "updated", "expires", "metadata", "value")
            columns = ("namespace", *columns) if nested else columns
            write_table(columns, (_row(entry, columns) for entry in shown))
    if shown.next is not None:
        typer.echo(f"there are more entries; the next are after: --after {one_line(shlex.quote(shown.next))}", err=True)
    name_damaged(shown.damaged)


class _Listed:
    """The entries that a command lists, read page by page.

    Attributes:
        damaged: the keys of damaged entries, which are left out.
        next: the place after which there are more entries; None if there are none.
    """

    def __init__(
        self, memory: LTMBackend, prefix: str | None, after: str | None, order: Any, limit: int | None, *, nested: bool
    ) -> None:
        self.damaged: list[str] = []
        self.next = after
        self._memory, self._prefix, self._order, self._limit, self._nested = memory, prefix, order, limit, nested

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        left = self._limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = self._memory.entries(self._prefix, size, self.next, self._order, nested=self._nested)
            self.damaged += page.get("damaged", ())
            self.next = page["next"]
            yield from page["entries"]
            if self.next is None:
                return
            left = None if left is None else left - size


def get(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key of the entry.")],
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print a value that is text as it is, without quotes.")] = False,
    as_json: Json = False,
) -> None:
    """Show an entry. The exit code is 1 if there is none."""
    with failures_exit(), ended_by_signals():
        with opened(url, file, namespace) as memory:
            entry = _entry_at(memory, key)
        if entry is None:
            fail(f"there is no entry with the key {key}")
        elif raw:
            _write_raw(entry["value"])
        elif as_json:
            writer("-")(json_line(plain(entry)))
        else:
            writer("-")(_described(entry).encode())


def _entry_at(memory: LTMBackend, key: str) -> Mapping[str, Any] | None:
    if "times" in memory.capabilities and key:
        found = memory.entries(key, 1)["entries"]  # of all keys that begin with this one it is the first
        if found and found[0]["key"] == key:
            return found[0]
        times = {"times": True}
    else:
        times = {}
    result = memory.retrieve(key, **times)
    if not result["found"]:
        return None
    return {"key": key, **{name: value for name, value in result.items() if name not in ("success", "found")}}


def _write_raw(value: Any) -> None:
    if not isinstance(value, str):
        raise InputError("the value is not text; leave out --raw")
    writer("-")((printable(value) + "\n" if is_terminal() else value).encode("utf-8", "surrogatepass"))


def _described(entry: Mapping[str, Any]) -> str:
    facts = {
        "key": entry["key"],
        "version": str(entry["version"]),
        "created": time_of(entry.get("created_at")),
        "updated": time_of(entry.get("updated_at")),
        "expires": time_of(entry.get("expires_at")),
        "lifetime": f"{entry['ttl']:g} s" if entry.get("ttl") is not None else "",
        "words": "not searched" if entry.get("index") is False else "",
        "metadata": text_of(entry["metadata"]),
    }
    lines = "".join(f"{name:<{_LABEL}}{one_line(text)}\n" for name, text in facts.items() if text)
    return f"{lines}{'value':<{_LABEL}}{_indented(entry['value'])}\n"


def _indented(value: Any) -> str:
    text = printable_json(json.dumps(value, ensure_ascii=False, indent=2))
    return text.replace("\n", "\n" + " " * _LABEL)


def search(
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="A question, or words.")] = None,
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    nested: Nested = False,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON|@FILE", help="What the metadata must have: a JSON object."),
    ] = None,
    match: Annotated[
        Match | None, typer.Option(metavar="any|all", help="Entries with any of the words, or with all.")
    ] = None,
    prefix: Prefix = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many results at most.")] = 10,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="How many results to skip.")] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each word adds to a score.")] = False,
    as_json: Json = False,
) -> None:
    """Search entries by words and metadata; the best come first, with their scores."""
    with failures_exit(), ended_by_signals():
        condition = None if filter_ is None else read_object(filter_)
        with opened(url, file, namespace) as memory:
            more: dict[str, Any] = {"nested": True} if nested else {}
            more |= {"explain": True} if explain else {}
            way: Any = None if match is None else match.value
            result = memory.search(query, condition, limit, match=way, prefix=prefix, offset=offset, **more)
        if as_json:
            write_json(map(plain, result["results"]))
        else:
            columns = (
                *(("namespace",) if nested else ()),
                *("score", "key"),
                *(("terms",) if explain else ()),
                *("metadata", "value"),
            )
            write_table(columns, (_row(entry, columns) for entry in result["results"]))
        if not result["results"]:
            typer.echo("nothing was found", err=True)
    name_damaged(result.get("damaged", ()))


def namespaces(
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The first name; * is any. For the second name, repeat it."),
    ] = None,
    suffix: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="The last name; * is any. For the last two, repeat it.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Cut namespaces after so many names, and list each once.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the namespaces that have entries, below the one that --namespace names."""
    with failures_exit(), ended_by_signals(), opened(url, file, namespace) as memory:
        found = _all_namespaces(memory, prefix, suffix, depth)
        if as_json:
            write_json({"namespace": list(names)} for names in found)
        else:
            write_table(("namespace",), ([_path(names)] for names in found))


def _all_namespaces(
    memory: LTMBackend,
    prefix: Sequence[str] | None = None,
    suffix: Sequence[str] | None = None,
    depth: int | None = None,
) -> Iterator[tuple[str, ...]]:
    size, offset = 1_000, 0
    while True:
        page = memory.list_namespaces(prefix, suffix, depth, size, offset)["namespaces"]
        yield from page
        if len(page) < size:
            return
        offset += size


def stats(
    url: Url = None,
    file: AgentFile = None,
    namespace: Namespace = None,
    nested: Nested = False,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show how many entries and bytes there are, how old they are, and how many have expired."""
    with failures_exit(), ended_by_signals(), opened(url, file, namespace) as memory:
        result = memory.measure(prefix, **({"nested": True} if nested else {}))
        below = _all_namespaces(memory) if nested else iter(())
        if as_json:
            write_json([_without_success(result)])
            write_json(
                {"namespace": list(names), **_without_success(memory.namespace(*names).measure())} for names in below
            )
        else:
            writer("-")(_measured(result).encode())
            rows = ([_path(names), *_numbers(memory.namespace(*names).measure())] for names in below)
            write_table(("namespace", "entries", "bytes", "oldest", "newest", "expired", "waiting"), rows)


def _without_success(result: Mapping[str, Any]) -> dict[str, Any]:
    return plain({name: value for name, value in result.items() if name != "success"})


def _numbers(result: Mapping[str, Any]) -> list[str]:
    counts = [f"{result[name]:,}" for name in ("entries", "bytes", "expired_count", "waiting_count")]
    return [*counts[:2], time_of(result["oldest"]), time_of(result["newest"]), *counts[2:]]


def _measured(result: Mapping[str, Any]) -> str:
    names = ("entries", "bytes", "oldest", "newest", "expired", "word index")
    *shown, _ = _numbers(result)
    waiting = result["waiting_count"]
    index = f"{waiting:,} entries wait; `tea memory optimize` adds them" if waiting else "up to date"
    lines = zip(names, [*shown, index], strict=True)
    return "".join(f"{name:<{_LABEL + 2}}{text}\n" for name, text in lines if text)


def plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry as JSON: times as text, a namespace as a list."""
    from the_edge_agent.workflow.actions.plain import plain

    return plain(entry)


def write_json(lines: Iterable[Any]) -> None:
    """Write JSON Lines to stdout as they come."""
    write = writer("-")
    for line in lines:
        write(json_line(line))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows to stdout as a table."""
    write = writer("-")
    for table in tables(columns, rows, cut=_CUT):
        write(table.encode())


def name_damaged(keys: Sequence[str]) -> None:
    """Name damaged entries on stderr, and end the command if there are any.

    Raises:
        Exit: there are damaged entries.
    """
    for key in keys:
        typer.echo(f"damaged: {one_line(key)}", err=True)
    if keys:
        typer.echo("`tea memory check --data` tells what is wrong with damaged entries", err=True)
        raise typer.Exit(EXIT_FAILED)


def _row(entry: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    cells: dict[str, Callable[[], str]] = {
        "namespace": lambda: _path(entry["namespace"]),
        "key": lambda: entry["key"],
        "score": lambda: f"{entry['score']:.4f}",
        "version": lambda: str(entry["version"]),
        "updated": lambda: time_of(entry["updated_at"]),
        "expires": lambda: time_of(entry["expires_at"]),
        "metadata": lambda: text_of(entry["metadata"]),
        "value": lambda: text_of(entry["value"]) or "null",
        "terms": lambda: ", ".join(f"{each['term']} {each['score']:.4f}" for each in entry["explain"]),
    }
    return [cells[name]() for name in columns]


def _path(names: Sequence[str]) -> str:
    return " / ".join(names)


def _namespace_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"namespace": list(entry["namespace"])} if "namespace" in entry else {}
