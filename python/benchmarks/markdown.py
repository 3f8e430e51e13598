"""The page of the results, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import goals
from benchmarks.contenders import BARE, CONTENDERS
from benchmarks.operations import TITLES, UNITS
from benchmarks.results import Results
from benchmarks.startup import STEPS
from benchmarks.timing import ratios

_NOTHING: Final = "–"
_MISSED: Final = "▼"  # the goal is not reached
NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}
_PEAK_TITLES: Final = {**TITLES, "put_many": "put_many"}
_OURS: Final = frozenset(each.name for each in CONTENDERS if each.kind == "ours")
_HEAD: Final = """\
# Benchmarks

This page is generated from a run; `make bench` writes it anew, with its chart and its numbers (`benchmarks.json`).
`make bench SHORT=1` measures less and shows the tables only.

## What is compared

The **bare driver** is hand-written SQL on `sqlite3`, psycopg 3 with its pool, or PyMySQL, with a held connection for
each thread. It does what we promise: the same columns, versions, lifetimes and text index, the same search tokens, JSON
in and out, the same rank for a search, one transaction for a put, the same settings for durability. It leaves out what
a library adds: checks of what goes in, deadlines, lost connections replaced, clear errors, other databases.

Peers are measured with the operations that they have, and do less for a put: none keeps a text index of words, versions
or lifetimes there. At nearly equal work they compare with our columns `search=False`, which keep no text index either
and are asked for no words; the ratios of both are to the bare driver, which keeps one. LangGraph's SQLite store is
given WAL and `synchronous=NORMAL`, as all others on SQLite have; sqlitedict sets `synchronous=OFF` itself. Their
metadata is part of the value.

Entries have a text of 60 words and three metadata keys. Before anything is measured, all contenders must give the same
answers to every operation; else the run fails. Servers are given up-to-date statistics once the entries are there
(`VACUUM ANALYZE`, `ANALYZE TABLE`), which they make by themselves within minutes. Repetitions are interleaved: each
contender in turn, again and again.
"""
_RATES_ABOUT: Final = f"""\
Units per second, and in brackets the ratio to the bare driver's. The goal is such a ratio; {_MISSED}: below it.
{_NOTHING}: the contender has no such operation, or there is no goal."""
_LIMITS: Final = Path(__file__).with_name("limits.md")
RETRIEVAL: Final = Path(__file__).with_name("retrieval.md")
_RETRIEVAL_ABOUT: Final = """\
How many of the entries that answer a question are among the first ten, and how early they come. `make bench` does not
measure this, because the questions are not ours to hand on; it includes the table that this command wrote last:

```
cd python && ../.venv-bench/bin/python -m benchmarks.retrieval FOLDER --url URL --write
```

`FOLDER` has a folder for each collection, with `docs.jsonl` (`{"id", "text"}`) and `queries.jsonl`
(`{"query", "relevant": [ids]}`). `--url` names an empty database, on which ours must answer as on SQLite; it may be
given several times.

Ours is asked as it is by default, with the question as it is written; the entries were stored one after the other. The
others are asked for any of the words. FTS5 has Porter's stems, and is asked with and without our stop words. PostgreSQL
ranks by `ts_rank`, with its English configuration. `bm25s` has Snowball's stems and our stop words. The scores of ours
depend on the newest 1,000 entries, those of the others on all of them."""
_GROWTH_ABOUT: Final = f"""\
The same operations as one memory grows: units per second, and how many times slower they are in the largest than in the
smallest. {_MISSED}: slower than the goal. All contenders of a database share the tables. A common word and a filter of
1 % have more matches in a larger memory; a rare word and a filter with ten matches have as many. The question has eight
words: a third of all entries has each of three, 1 % have each of two, and ten entries have each of three. Only ours
answer it: the bare driver and the peers have nothing that finds entries by some of the words."""
_STARTS_ABOUT: Final = f"""\
Milliseconds in fresh interpreters, medians, beyond the start of the interpreter itself, on a memory that is there.
The first call is a `retrieve`. {_MISSED}: above the goal."""
_PEAKS_ABOUT: Final = """\
MiB above what the process has after its imports and a first get: the whole scan, put_many of {entries} entries at once,
the search for a common word; each in a process of its own."""


def page(results: Results, chart: str | None) -> str:
    """Return the page.

    Args:
        results: the results of a run.
        chart: the file name of the chart beside the page, None for no chart.
    """
    facts = [f"- {name}: {value}" for name, value in results.facts.items()]
    parts = [_HEAD, "\n".join([f"Measured in the {results.form} form:", "", *facts]) + "\n"]
    if chart:
        parts.append(f"![Our operations per second as parts of the bare driver's]({chart})\n")
    if results.rates:
        parts.append(f"## Operations\n\n{_RATES_ABOUT}\n")
        parts += [_rates(database, rates) for database, rates in results.rates.items()]
        if chart:
            parts.append(_LIMITS.read_text(encoding="utf-8"))
    if results.growth:
        parts.append(f"## Growth\n\n{_GROWTH_ABOUT}\n")
        parts += [_growth(database, found, results.sizes) for database, found in results.growth.items()]
    if results.starts:
        parts.append(f"## Start-up\n\n{_STARTS_ABOUT}\n")
        parts.append(_starts(results.starts))
    if results.peaks:
        entries = results.facts.get("entries of put_many whose memory is measured", "many")
        parts.append(f"## Peak memory\n\n{_PEAKS_ABOUT.format(entries=entries)}\n")
        parts += [_peaks(database, found) for database, found in results.peaks.items()]
    if chart and RETRIEVAL.exists():
        parts.append(f"## Answers to questions\n\n{_RETRIEVAL_ABOUT}\n\n{RETRIEVAL.read_text(encoding='utf-8')}")
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Return a number with three significant digits."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _rates(database: str, rates: Mapping[str, Mapping[str, float]]) -> str:
    names = _in_order(database, rates)
    rows = []
    for operation, rate_of in rates.items():
        goal, compared = goals.ratio(database, operation), ratios(rate_of, BARE)
        cells = [_rate(name, rate_of, compared, goal) for name in names]
        rows.append([f"{TITLES[operation]}, {UNITS[operation]}", _NOTHING if goal is None else f"{goal:.2f}", *cells])
    return f"### {NAMES[database]}\n\n{table(['operation', 'goal', *names], rows)}"


def _rate(name: str, rate_of: Mapping[str, float], compared: Mapping[str, float], goal: float | None) -> str:
    if name not in rate_of:
        return _NOTHING
    if name == BARE or name not in compared:
        return number(rate_of[name])
    is_missed = name in _OURS and goal is not None and compared[name] < goal
    return f"{number(rate_of[name])} ({compared[name]:.2f})" + f" {_MISSED}" * is_missed


def _growth(database: str, rates_of: Mapping[str, Mapping[str, Sequence[float]]], sizes: Sequence[int]) -> str:
    rows = []
    for operation, by_name in rates_of.items():
        goal = goals.GROWTH.get(operation)
        for name, rates in by_name.items():
            slower = rates[0] / rates[-1]
            is_missed = name in _OURS and goal is not None and slower > goal
            cells = [number(slower) + f" {_MISSED}" * is_missed, _NOTHING if goal is None else f"{goal:g}"]
            rows.append([f"{TITLES[operation]}: {name}", *map(number, rates), *cells])
    head = ["operation", *(f"{size:,}" for size in sizes), "times slower", "goal"]
    return f"### {NAMES[database]}\n\n{table(head, rows)}"


def _starts(starts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = []
    for database, by_title in starts.items():
        for title, times in by_title.items():
            cells = []
            for step in STEPS:
                goal, taken = goals.STARTS.get((title, step)) if database == "sqlite" else None, times.get(step)
                text = _NOTHING if taken is None else f"{taken:.1f}"
                is_missed = goal is not None and taken is not None and taken > goal
                cells.append(text + (f" (goal {goal:.0f}){f' {_MISSED}' * is_missed}" if goal else ""))
            rows.append([f"{NAMES[database]}: {title}", *cells])
    return table(["start", *STEPS], rows)


def _peaks(database: str, peaks: Mapping[str, Mapping[str, float]]) -> str:
    names = _in_order(database, peaks)
    rows = [
        [_PEAK_TITLES[operation], *(f"{by_name[name]:.1f}" if name in by_name else _NOTHING for name in names)]
        for operation, by_name in peaks.items()
    ]
    return f"### {NAMES[database]}\n\n{table(['operation', *names], rows)}"


def _in_order(database: str, by_operation: Mapping[str, Mapping[str, float]]) -> list[str]:
    there = {name for by_name in by_operation.values() for name in by_name}
    return [
        name for name in dict.fromkeys(each.name for each in CONTENDERS if each.database == database) if name in there
    ]
