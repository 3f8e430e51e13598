"""The command ``python -m benchmarks.retrieval FOLDER`` measures how well ours and others answer questions.

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

TOP: Final = 10  # how many answers to a question are measured
COMPARED: Final = 100  # how many answers to a question must be the same on all databases
OURS: Final = "the_edge_agent"
_WORD: Final = re.compile(r"\w+")
SOURCES: Final[Mapping[str, str]] = {
    "locomo": "LoCoMo, conversations of two people over months (Maharana and others, ACL 2024), CC BY-NC 4.0. A turn "
    "is a document; the turns that a question's answer is in are relevant; adversarial questions are left out.",
    "cranfield": "Cranfield, abstracts on aerodynamics (Cleverdon, 1967); we know of no licence for it.",
}

Ranking: TypeAlias = Sequence[tuple[str, float]]  # ids and scores, best first
Ask: TypeAlias = Callable[[str], Ranking]
Measures: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Collection:
    """Documents, and questions about them.

    Attributes:
        name: the name of its folder.
        documents: the id and the text of each document, the oldest first.
        questions: each question, with the ids of the documents that answer it.
    """

    name: str
    documents: Sequence[tuple[str, str]]
    questions: Sequence[tuple[str, frozenset[str]]]

    @property
    def group(self) -> str:
        """The name of its group: its name without the number at the end."""
        return re.sub(r"-\d+$", "", self.name)


@dataclass(frozen=True)
class Case:
    """Collections whose questions are measured together; each collection is in its own memory."""

    title: str
    collections: Sequence[Collection]


@dataclass(frozen=True)
class System:
    """A system that answers questions.

    Attributes:
        name: the name in the table.
        opened: stores documents, and yields the function that answers a question.
    """

    name: str
    opened: Callable[[Sequence[tuple[str, str]]], AbstractContextManager[Ask]]


class DifferenceError(Exception):
    """Two of our databases answer differently."""


# --- the measures ------------------------------------------------------------------------------


def measures(ranked: Sequence[str], relevant: frozenset[str]) -> Measures:
    """Return recall, nDCG and reciprocal rank of the first ten.

    Args:
        ranked: the ids that a system returned, best first.
        relevant: the ids that answer the question, at least one; each counts the same.
    """
    ranks = [rank for rank, each in enumerate(ranked[:TOP], 1) if each in relevant]
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
    collections = []
    for each in sorted(path.parent for path in folder.glob("*/docs.jsonl")):
        documents = [(line["id"], line["text"]) for line in _lines(each / "docs.jsonl")]
        questions = [(line["query"], frozenset(line["relevant"])) for line in _lines(each / "queries.jsonl")]
        collections.append(Collection(each.name, documents, questions))
    return collections


def cases_of(collections: Sequence[Collection]) -> list[Case]:
    """Return the cases: each group, and each group of several collections also as one memory."""
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
    """Yield the function that asks our memories, on SQLite and on other databases; all must give the same answer.

    Args:
        documents: the documents; each becomes an entry, with the id as key and the text as value.
        urls: the URLs of empty databases; their tables are dropped at the end.
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
    for key, words in documents:  # one after the other, as an agent stores them, so that each has its own time
        succeeded(memory.store(key, words))


def _asked(memory: LTMBackend, query: str) -> Ranking:
    return [(entry["key"], entry["score"]) for entry in succeeded(memory.search(query, limit=COMPARED))["results"]]


def _same(answers: Mapping[str, Ranking], query: str) -> Ranking:
    """Return the answer that all memories gave.

    Raises:
        DifferenceError: an answer differs from the first one.
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
    """Yield the function that asks SQLite's own index: with Porter's stems, for any of the words, by its own rank.

    Args:
        documents: the id and the text of each document.
        stop_words: whether the query contains the stop words of a question too.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE docs USING fts5(id UNINDEXED, text, tokenize='porter unicode61')")
        connection.executemany("INSERT INTO docs VALUES (?, ?)", documents)

        def ask(query: str) -> Ranking:
            any_word = " OR ".join(f'"{word}"' for word in words_of(query, stop_words=stop_words))
            if not any_word:
                return []
            sql = "SELECT id, -rank FROM docs WHERE docs MATCH ? ORDER BY rank LIMIT ?"
            return connection.execute(sql, (any_word, TOP)).fetchall()

        yield ask


@contextmanager
def ts_rank(documents: Sequence[tuple[str, str]], url: str) -> Iterator[Ask]:
    """Yield the function that asks PostgreSQL's text search: in English, for any of the words, by ``ts_rank``."""
    engine = create_engine(url)
    ranked = text(
        "SELECT id, ts_rank(words, query) AS score FROM tea_docs, to_tsquery('english', :any_word) AS query "
        "WHERE words @@ query ORDER BY score DESC, place LIMIT :top"
    )
    with engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE tea_docs (place serial, id text, words tsvector)"))
        insert = text("INSERT INTO tea_docs (id, words) VALUES (:id, to_tsvector('english', :text))")
        connection.execute(insert, [{"id": key, "text": words} for key, words in documents])

        def ask(query: str) -> Ranking:
            any_word = " | ".join(f"'{word}'" for word in words_of(query, stop_words=True))
            return [(row[0], row[1]) for row in connection.execute(ranked, {"any_word": any_word, "top": TOP})]

        yield ask
    engine.dispose()


@contextmanager
def bm25s(documents: Sequence[tuple[str, str]]) -> Iterator[Ask]:
    """Yield the function that asks the library ``bm25s``: with Snowball's stems, and with our stop words.

    Its own list of stop words is shorter.
    """
    library: Any = import_module("bm25s")
    stop_words = sorted(language("english").stop_words)
    stemmer = import_module("snowballstemmer").stemmer("english")

    def tokens(texts: Sequence[str]) -> Any:
        return library.tokenize(texts, stopwords=stop_words, stemmer=stemmer, show_progress=False, return_ids=False)

    index = library.BM25()
    index.index(tokens([words for _, words in documents]), show_progress=False)

    def ask(query: str) -> Ranking:
        most = min(TOP, len(documents))
        places, scores = index.retrieve(tokens([query]), k=most, show_progress=False)
        return [(documents[place][0], score) for place, score in zip(places[0], scores[0], strict=True) if score > 0]

    yield ask


def words_of(query: str, *, stop_words: bool) -> list[str]:
    """Return the words of a question. Stop words are left out unless ``stop_words`` is true or there are no others."""
    words = _WORD.findall(query.lower())
    others = [word for word in words if word not in language("english").stop_words]
    return words if stop_words else others or words


# --- the command -------------------------------------------------------------------------------


def systems_of(urls: Sequence[str]) -> list[System]:
    """Return the systems: ours first, then SQLite's, and the others that are installed or have a URL."""
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
    """Return the measures of a system: the means over all questions of a case."""
    measured_questions = []
    for collection in case.collections:
        with system.opened(collection.documents) as ask:
            for query, relevant in collection.questions:
                measured_questions.append(measures([key for key, _ in ask(query)], relevant))
    return average(measured_questions)


def report(cases: Sequence[Case], systems: Sequence[System], databases: Sequence[str]) -> str:
    """Measure all cases and systems, and return the results as a part of the page."""
    rows = []
    for case in cases:
        for system in systems:
            tell(f"{case.title}: {system.name}")
            rows.append([f"{case.title}: {system.name}", *(f"{each:.4f}" for each in measured(system, case))])
    question_counts = {case.title: sum(len(each.questions) for each in case.collections) for case in cases}
    groups = dict.fromkeys(each.group for case in cases for each in case.collections)
    lines = [f"- {SOURCES[group]}" for group in groups if group in SOURCES]
    lines.append(f"- Questions: {'; '.join(f'{title} {count:,}' for title, count in question_counts.items())}.")
    lines.append(
        f"- Ours answered each question with the same keys, in the same order and with the same scores on "
        f"{', '.join(['SQLite', *databases])}; the first {COMPARED} results were compared."
    )
    shown = table(["questions and who answers", f"recall@{TOP}", f"nDCG@{TOP}", f"MRR@{TOP}"], rows)
    return f"{shown}\n" + "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder that has a folder for each collection")
    parser.add_argument("--only", help="measure the collections whose names begin with this text")
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
        page_part = report(cases_of(collections), systems_of(arguments.url), names)
    except DifferenceError as error:
        print(f"our databases do not agree: {error}", file=sys.stderr)
        return 1
    print(page_part)
    if arguments.write:
        RETRIEVAL.write_text(page_part, encoding="utf-8")
    return 0


def _name(url: str) -> str:
    """Return the name of the database; it asks the server, because URLs of MySQL and MariaDB look the same."""
    engine = create_engine(url)
    with engine.connect() as connection:
        name = "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
    engine.dispose()
    return NAMES.get(name, name)


if __name__ == "__main__":
    sys.exit(main())
