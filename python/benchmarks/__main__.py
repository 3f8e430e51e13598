"""The command: ``python -m benchmarks [--short] [--only sqlite] [--operations get,put]``, or ``page results.json``."""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.agreement import DisagreementError
from benchmarks.arena import opened, tell
from benchmarks.contenders import DATABASES, not_installed, of_database
from benchmarks.forms import FULL, SHORT, Form
from benchmarks.growth import curve
from benchmarks.machine import facts
from benchmarks.markdown import page
from benchmarks.operations import NAMES
from benchmarks.peak import METHODS, peaks
from benchmarks.places import SERVERS, is_reachable_by_name
from benchmarks.results import Results, read
from benchmarks.startup import starts

DOCS: Final = Path(__file__).parents[2] / "docs"
PARTS: Final = ("operations", "growth", "starts", "peaks")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _arguments(argv)
    if arguments.page:
        publish(read(arguments.page), arguments.docs)
        return 0
    form: Form = arguments.form
    databases = [database for database in arguments.only if is_reachable_by_name(database)]
    for database in [each for each in arguments.only if each not in databases]:
        tell(f"{database}: left out, {SERVERS[database]} is not set")
    for contender in not_installed():
        if contender.database in databases:
            tell(f"{contender.title}: left out, {contender.module} is not installed")
    try:
        results = run(form, databases, arguments.operations, arguments.parts)
    except DisagreementError as error:
        print(f"the contenders do not agree: {error}", file=sys.stderr)
        return 1
    is_whole = arguments.only == [*DATABASES] == databases and arguments.operations == [*NAMES]
    if form is FULL and is_whole and arguments.parts == [*PARTS]:
        publish(results, arguments.docs)
    else:
        print(page(results, chart=None))
    if arguments.output:
        results.write(arguments.output)
    return 0


def run(form: Form, databases: Sequence[str], operations: Sequence[str], parts: Sequence[str]) -> Results:
    """Measure and return the results.

    Raises:
        DisagreementError: two contenders answer differently.
    """
    results = Results(form.name, facts(form, databases))
    has_growth = bool(form.growth) and "growth" in parts
    gc.collect()
    gc.freeze()  # the garbage collection before each time slice then skips the objects that exist already
    with tempfile.TemporaryDirectory(prefix="tea-bench-") as name:
        folder = Path(name)
        for database in databases:
            contenders = of_database(database)
            with opened(form, contenders, folder) as arena:
                arena.fill()
                if "operations" in parts:
                    results.rates[database] = arena.rates(operations)
                if "starts" in parts:
                    tell(f"{database}: start-up")
                    ours = next(place for each, place in arena.places.items() if each.kind == "ours")
                    results.starts[database] = starts(database, ours, form.starts)
                if "peaks" in parts and set(METHODS) & {*operations}:
                    tell(f"{database}: peak memory")
                    results.peaks[database] = peaks(arena.places, form.size, form.peak_entries)
            if has_growth:
                results.growth[database] = curve(form, contenders, folder, operations)
    results.sizes = [*form.growth] if has_growth else []
    return results


def publish(results: Results, docs: Path) -> None:
    """Write the page, its chart, and the numbers from which both are made."""
    from benchmarks.chart import draw

    results.write(docs / "benchmarks.json")
    draw(results, docs / "benchmarks.svg")
    (docs / "benchmarks.md").write_text(page(results, chart="benchmarks.svg"), encoding="utf-8")
    tell(f"written: {docs / 'benchmarks.md'}, benchmarks.svg, benchmarks.json")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", dest="form", action="store_const", const=SHORT, default=FULL, help="for development")
    parser.add_argument("--only", type=_among(DATABASES), default=[*DATABASES], help="databases, such as sqlite,mysql")
    parser.add_argument("--operations", type=_among(NAMES), default=[*NAMES], help="such as get,put,search_rare")
    parser.add_argument("--parts", type=_among(PARTS), default=[*PARTS], help="such as operations,starts")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON to this file")
    parser.add_argument("--page", type=Path, help="measure nothing; write the page of the numbers in this file")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the page")
    return parser.parse_args(argv)


class _among:  # noqa: N801 - a function with a name for argparse's messages
    def __init__(self, choices: Sequence[str]) -> None:
        self._choices = choices

    def __call__(self, text: str) -> list[str]:
        names = text.split(",")
        if unknown := sorted(set(names) - set(self._choices)):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(self._choices)}")
        return [name for name in self._choices if name in names]


if __name__ == "__main__":
    sys.exit(main())
