"""The command: ``python -m benchmarks.retrieval FOLDER``: how well questions are answered, ours and by others.

``FOLDER`` has a folder for each collection, with ``docs.jsonl`` (``{"id", "text"}``) and ``queries.jsonl``
(``{"query", "relevant": [ids]}``). Collections whose names share a beginning (``talks-1``, ``talks-2``) are one group:
each is asked by itself, and then all of them in one memory.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import MetaData, create_engine, inspect, make_url, text

from benchmarks.arena import tell
from benchmarks.markdown import NAMES, RETRIEVAL, table
from the_edge_agent.memory import LTMBackend, PostgresBackend, SQLAlchemyBackend, SQLiteBackend
from the_edge_agent.memory.core.languages import language
from the_edge_agent.memory.core.results import succeeded

TOP: Final = 10  # answers that are measured
COMPARED: Final = 100  # answers that must be the same on all databases
OURS: Final = "the_edge_agent"
_WORD: Final = re.compile(r"\w+")
SOURCES: Final[Mapping[str, str]] = {
    "locomo": "LoCoMo, conversations of two people over months (Maharana and others, ACL 2024), CC BY-NC 4.0. A turn "
    "is a document; the turns that a question's answer is in are relevant; adversarial questions are left out.",
    "cranfield": "Cranfield, abstracts on aerodynamics (Cleverdon, 1967); we know of no licence for it.",
}

Found: TypeAlias = Sequence[tuple[str, float]]  # ids and scores, best first
Ask: TypeAlias = Callable[[str], Found]
Measures: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Collection:
    """Documents, and questions about them.

    Attributes:
        name: of its folder.
        documents: id and text of each, the oldest first.
        questions: each with the ids of the documents that answer it.
    """

    name: str
    documents: Sequence[tuple[str, str]]
    questions: Sequence[tuple[str, frozenset[str]]]

    @property
    def group(self) -> str:
        """What its name has in common with others."""
        return re.sub(r"-\d+$", "", self.name)


@dataclass(frozen=True)
class Case:
    """Collections whose questions count together, each of which is a memory of its own."""

    title: str
    collections: Sequence[Collection]


@dataclass(frozen=True)
class System:
    """What answers questions.

    Attributes:
        name: as the table shows it.
        opened: takes documents and gives what asks.
    """

    name: str
    opened: Callable[[Sequence[tuple[str, str]]], AbstractContextManager[Ask]]


class DifferenceError(Exception):
    """Two of our databases answer differently."""


# --- the measures ------------------------------------------------------------------------------


def measures(found: Sequence[str], relevant: frozenset[str]) -> Measures:
    """Return recall, nDCG and reciprocal rank of the first ten.

    Args:
        found: ids, best first.
        relevant: the ids wanted, at least one; each is worth the same.
    """
    ranks = [rank for rank, each in enumerate(found[:TOP], 1) if each in relevant]
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(TOP, len(relevant)) + 1))
    gain = sum(1 / math.log2(rank + 1) for rank in ranks)
    return len(ranks) / len(relevant), gain / best, 1 / ranks[0] if ranks else 0.0


def average(measured: Sequence[Measures]) -> Measures:
    """Return the means over all questions."""
    recalls, gains, ranks = zip(*measured, strict=True)
    return sum(recalls) / len(measured), sum(gains) / len(measured), sum(ranks) / len(measured)


# --- the data ----------------------------------------------------------------------------------


def collections_of(folder: Path) -> list[Collection]:
    """Return the collections of a folder by name."""
    found = []
    for each in sorted(path.parent for path in folder.glob("*/docs.jsonl")):
        documents = [(line["id"], line["text"]) for line in _lines(each / "docs.jsonl")]
        questions = [(line["query"], frozenset(line["relevant"])) for line in _lines(each / "queries.jsonl")]
        found.append(Collection(each.name, documents, questions))
    return found


def cases_of(collections: Sequence[Collection]) -> list[Case]:
    """Return what is measured: each group, and a group of several also as one memory."""
    groups: dict[str, list[Collection]] = {}
    for each in collections:
        groups.setdefault(each.group, []).append(each)
    cases = []
    for name, some in groups.items():
        if len(some) == 1:
            cases.append(Case(some[0].name, some))
        else:
            cases += [Case(f"{name}, {len(some)} memories", some), Case(f"{name}, all in one", [_joined(name, some)])]
    return cases


def _joined(name: str, some: Sequence[Collection]) -> Collection:
    documents = [(f"{each.name}/{key}", words) for each in some for key, words in each.documents]
    questions = [
        (query, frozenset(f"{each.name}/{key}" for key in relevant))
        for each in some
        for query, relevant in each.questions
    ]
    return Collection(name, documents, questions)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


# --- ours --------------------------------------------------------------------------------------


@contextmanager
def ours(documents: Sequence[tuple[str, str]], urls: Sequence[str] = ()) -> Iterator[Ask]:
    """Give what asks ours, on SQLite and on further databases, which must all answer alike.

    Args:
        documents: each is an entry: its id is the key and its text the value.
        urls: of empty databases; they are empty again afterwards.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tea-retrieval-")))
        memories = dict[str, LTMBackend]()

        def opened(name: str, memory: LTMBackend) -> LTMBackend:
            memories[name] = stack.enter_context(memory)
            return memory

        _fill(opened("SQLiteBackend", SQLiteBackend(folder / "memory.db")), documents)
        opened("SQLAlchemyBackend on SQLite", SQLAlchemyBackend(f"sqlite:///{folder / 'memory.db'}"))
        for url in urls:
            stack.enter_context(_emptied(url))
            shown = make_url(url).render_as_string()
            _fill(opened(f"SQLAlchemyBackend on {shown}", SQLAlchemyBackend(url)), documents)
            if make_url(url).get_backend_name() == "postgresql":
                opened(f"PostgresBackend on {shown}", PostgresBackend(_plain(url)))
        yield lambda query: _same({name: _asked(each, query) for name, each in memories.items()}, query)


def _fill(memory: LTMBackend, documents: Sequence[tuple[str, str]]) -> None:
    for key, words in documents:  # one after the other, as an agent stores what it hears
        succeeded(memory.store(key, words))


def _asked(memory: LTMBackend, query: str) -> Found:
    return [(found["key"], found["score"]) for found in succeeded(memory.search(query, limit=COMPARED))["results"]]


def _same(answers: Mapping[str, Found], query: str) -> Found:
    """Return the answer of all.

    Raises:
        DifferenceError: one is another than the first.
    """
    first, *others = answers
    for other in others:
        if answers[other] != answers[first]:
            raise DifferenceError(f"{other} answers {query!r} differently than {first}")
    return answers[first]


@contextmanager
def _emptied(url: str) -> Iterator[None]:
    engine = create_engine(url)
    try:
        if inspect(engine).get_table_names():
            raise SystemExit(f"{make_url(url).render_as_string()} has tables; name an empty database")
        yield
        metadata = MetaData()
        metadata.reflect(engine)
        metadata.drop_all(engine)
    finally:
        engine.dispose()


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


# --- others ------------------------------------------------------------------------------------


@contextmanager
def fts5(documents: Sequence[tuple[str, str]], *, stop_words: bool) -> Iterator[Ask]:
    """Give what asks SQLite's own index: stems of Porter, any of the words, its own rank.

    Args:
        documents: id and text.
        stop_words: whether these are looked for too.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE docs USING fts5(id UNINDEXED, text, tokenize='porter unicode61')")
        connection.executemany("INSERT INTO docs VALUES (?, ?)", documents)

        def ask(query: str) -> Found:
            asked = " OR ".join(f'"{word}"' for word in words_of(query, stop_words=stop_words))
            if not asked:
                return []
            sql = "SELECT id, -rank FROM docs WHERE docs MATCH ? ORDER BY rank LIMIT ?"
            return connection.execute(sql, (asked, TOP)).fetchall()

        yield ask


@contextmanager
def ts_rank(documents: Sequence[tuple[str, str]], url: str) -> Iterator[Ask]:
    """Give what asks PostgreSQL's text search: English, any of the words, ``ts_rank``."""
    engine = create_engine(url)
    ranked = text(
        "SELECT id, ts_rank(words, asked) AS score FROM tea_docs, to_tsquery('english', :asked) AS asked "
        "WHERE words @@ asked ORDER BY score DESC, place LIMIT :top"
    )
    with engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE tea_docs (place serial, id text, words tsvector)"))
        insert = text("INSERT INTO tea_docs (id, words) VALUES (:id, to_tsvector('english', :text))")
        connection.execute(insert, [{"id": key, "text": words} for key, words in documents])

        def ask(query: str) -> Found:
            asked = " | ".join(f"'{word}'" for word in words_of(query, stop_words=True))
            return [(row[0], row[1]) for row in connection.execute(ranked, {"asked": asked, "top": TOP})]

        yield ask
    engine.dispose()


@contextmanager
def bm25s(documents: Sequence[tuple[str, str]]) -> Iterator[Ask]:
    """Give what asks the library ``bm25s``, with Snowball's stems and our stop words, of which it has fewer."""
    library: Any = import_module("bm25s")
    stop_words = sorted(language("english").stop_words)
    stemmer = import_module("snowballstemmer").stemmer("english")

    def tokens(texts: Sequence[str]) -> Any:
        return library.tokenize(texts, stopwords=stop_words, stemmer=stemmer, show_progress=False, return_ids=False)

    index = library.BM25()
    index.index(tokens([words for _, words in documents]), show_progress=False)

    def ask(query: str) -> Found:
        most = min(TOP, len(documents))
        places, scores = index.retrieve(tokens([query]), k=most, show_progress=False)
        return [(documents[place][0], score) for place, score in zip(places[0], scores[0], strict=True) if score > 0]

    yield ask


def words_of(query: str, *, stop_words: bool) -> list[str]:
    """Return the words of a question; without stop words unless there are no others."""
    words = _WORD.findall(query.lower())
    telling = [word for word in words if word not in language("english").stop_words]
    return words if stop_words else telling or words


# --- the command -------------------------------------------------------------------------------


def systems_of(urls: Sequence[str]) -> list[System]:
    """Return what is measured: ours first, the others where they are installed or a URL is given."""
    systems = [
        System(OURS, lambda documents: ours(documents, urls)),
        System("SQLite FTS5, without stop words", lambda documents: fts5(documents, stop_words=False)),
        System("SQLite FTS5", lambda documents: fts5(documents, stop_words=True)),
    ]
    servers = [url for url in urls if make_url(url).get_backend_name() == "postgresql"]
    if servers:
        systems.append(System("PostgreSQL ts_rank", lambda documents: ts_rank(documents, servers[0])))
    if find_spec("bm25s"):
        systems.append(System("bm25s", bm25s))
    return systems


def measured(system: System, case: Case) -> Measures:
    """Return the measures of a system: means over all questions of a case."""
    found = []
    for collection in case.collections:
        with system.opened(collection.documents) as ask:
            for query, relevant in collection.questions:
                found.append(measures([key for key, _ in ask(query)], relevant))
    return average(found)


def report(cases: Sequence[Case], systems: Sequence[System], databases: Sequence[str]) -> str:
    """Measure, and return the part of the page."""
    rows = []
    for case in cases:
        for system in systems:
            tell(f"{case.title}: {system.name}")
            rows.append([f"{case.title}: {system.name}", *(f"{each:.4f}" for each in measured(system, case))])
    asked = {case.title: sum(len(each.questions) for each in case.collections) for case in cases}
    groups = dict.fromkeys(each.group for case in cases for each in case.collections)
    lines = [f"- {SOURCES[group]}" for group in groups if group in SOURCES]
    lines.append(f"- Questions: {'; '.join(f'{title} {count:,}' for title, count in asked.items())}.")
    lines.append(
        f"- Ours answered each question with the same keys, in the same order and with the same scores on "
        f"{', '.join(['SQLite', *databases])}; the first {COMPARED} results were compared."
    )
    shown = table(["questions and who answers", f"recall@{TOP}", f"nDCG@{TOP}", f"MRR@{TOP}"], rows)
    return f"{shown}\n" + "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("folder", type=Path, help="with a folder for each collection")
    parser.add_argument("--only", help="collections whose names begin so")
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        help="an empty database, on which ours must answer as on SQLite; may be given several times. PostgreSQL's is "
        "measured with its own text search too",
    )
    parser.add_argument("--write", action="store_true", help=f"write {RETRIEVAL.name} too, which `make bench` includes")
    arguments = parser.parse_args(argv)
    collections = [each for each in collections_of(arguments.folder) if each.name.startswith(arguments.only or "")]
    if not collections:
        parser.error(f"{arguments.folder} has no folder with docs.jsonl")
    names = list(dict.fromkeys(_name(url) for url in arguments.url))
    try:
        found = report(cases_of(collections), systems_of(arguments.url), names)
    except DifferenceError as error:
        print(f"our databases do not agree: {error}", file=sys.stderr)
        return 1
    print(found)
    if arguments.write:
        RETRIEVAL.write_text(found, encoding="utf-8")
    return 0


def _name(url: str) -> str:
    """Return the name of the database, which a URL for MySQL leaves open."""
    engine = create_engine(url)
    with engine.connect() as connection:
        name = "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
    engine.dispose()
    return NAMES.get(name, name)


if __name__ == "__main__":
    sys.exit(main())
