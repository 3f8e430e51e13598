"""The command ``python -m benchmarks.namespaces --url URL`` measures a namespace among many others.

It measures calls of a memory of 100 entries. Then it stores many namespaces of 100 entries, and measures the same calls
in one of them.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any, Final

from sqlalchemy import make_url

from benchmarks.markdown import table
from the_edge_agent.memory import LTMBackend, PostgresBackend, SQLAlchemyBackend, SQLiteBackend
from the_edge_agent.memory.core.results import succeeded

ENTRIES: Final = 100  # entries of a namespace
BATCH: Final = 5_000  # entries that one call stores
ROUNDS: Final = 50
WARM_UP: Final = 10
TIMEOUT: Final = 600.0  # seconds
WORDS: Final = ("red", "fox", "river", "stone", "cloud", "paper", "green", "light", "winter", "coffee", "train")

CALLS: Final[Mapping[str, Callable[[Any], object]]] = {
    "a question": lambda memory: succeeded(memory.search("where is the red fox")),
    "a question with a filter": lambda memory: succeeded(memory.search("red fox river", {"n": 3})),
    "a search for all words": lambda memory: succeeded(memory.search("red fox", match="all")),
    "a search by a filter": lambda memory: succeeded(memory.search(None, {"n": 3})),
    "the newest entries": lambda memory: succeeded(memory.entries(limit=10, order="newest")),
    "a page of entries": lambda memory: succeeded(memory.entries()),
    "a page of keys": lambda memory: succeeded(memory.list_keys()),
    "a count": lambda memory: succeeded(memory.count()),
    "an iteration": lambda memory: [*memory.iterate_entries()],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.namespaces", description=__doc__)
    parser.add_argument("--url", required=True, help="the URL of an empty database")
    parser.add_argument("--native", action="store_true", help="use the memory without SQLAlchemy")
    parser.add_argument("--namespaces", type=int, default=10_000, help="how many there are at the end")
    arguments = parser.parse_args(argv)
    with opened(arguments.url, native=arguments.native) as memory:
        if succeeded(memory.count())["count"]:
            print("the database is not empty", file=sys.stderr)
            return 1
        try:
            fill(memory, range(1), named=False)
            alone = measured(memory)
            succeeded(memory.delete_all(""))
            fill(memory, range(arguments.namespaces))
            among_many = measured(memory.namespace(*name_of(arguments.namespaces // 2)))
        finally:
            succeeded(memory.delete_all(""))
    rows = [
        [name, f"{one:.2f}", f"{among_many[name]:.2f}", f"{among_many[name] / one:.2f}"] for name, one in alone.items()
    ]
    print(table(["call", "alone, ms", f"among {arguments.namespaces:,}, ms", "ratio"], rows))
    return 0


def opened(url: str, *, native: bool) -> LTMBackend:
    """Return the memory to measure."""
    if not native:
        return SQLAlchemyBackend(url, timeout=TIMEOUT)
    if url.startswith("sqlite"):
        return SQLiteBackend(str(make_url(url).database), timeout=TIMEOUT)
    return PostgresBackend(url, timeout=TIMEOUT)


def name_of(number: int) -> tuple[str, str]:
    """Return the names of a namespace."""
    return "users", f"u{number:06}"


def fill(memory: LTMBackend, numbers: range, *, named: bool = True) -> None:
    """Store the entries of namespaces, or with ``named=False`` of a memory without them."""
    entries, begun = entries_of(numbers, named=named), time.monotonic()
    while batch := [*islice(entries, BATCH)]:
        succeeded(memory.import_entries(batch))
    print(f"{len(numbers) * ENTRIES:,} entries in {time.monotonic() - begun:.0f} s", file=sys.stderr)


def entries_of(numbers: range, *, named: bool) -> Iterator[dict[str, Any]]:
    """Yield entries, the same in each run."""
    for number in numbers:
        dice = random.Random(number)
        for place in range(ENTRIES):
            words = " ".join(dice.choices(WORDS, k=20))
            entry = {"key": f"note/{place}", "value": {"text": words}, "metadata": {"n": place % 7}}
            yield {**entry, "namespace": name_of(number)} if named else entry


def measured(memory: LTMBackend) -> dict[str, float]:
    """Return the median of the milliseconds that each call takes."""
    return {name: median(times(lambda each=call: each(memory))) for name, call in CALLS.items()}  # type: ignore[misc]


def times(call: Callable[[], object]) -> list[float]:
    """Return the milliseconds of each of ``ROUNDS`` calls, after a warm-up."""
    for _ in range(WARM_UP):
        call()
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begun) * 1_000)
    return taken


if __name__ == "__main__":
    sys.exit(main())
