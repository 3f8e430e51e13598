"""The language of a memory: stems, stop words, and the language setting of a table."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from databases import Database, drop_tables
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLiteBackend, escape, words_of
from the_edge_agent.memory.core import languages as languages_module
from the_edge_agent.memory.core.languages import Language, language, languages
from the_edge_agent.memory.core.query import parse_query
from the_edge_agent.memory.core.tokens import EXACT, matches, search_text, term_of
from the_edge_agent.memory.database.backend import DatabaseBackend
from the_edge_agent.memory.diagnostics.check import check_database

PAIRS: Final[dict[str, list[tuple[str, str]]]] = {
    "english": [
        ("running", "runs"),
        ("résumé", "resumes"),
        ("café", "cafe"),
        ("John’s", "john"),
        ("Nations", "NATION"),
    ],
    "french": [("étudiées", "étudier"), ("cafe", "café"), ("nationale", "nationaux"), ("élèves", "élève")],
    "german": [("Häuser", "haus"), ("Bücher", "buch"), ("Straße", "strassen"), ("laufen", "läuft")],
    "russian": [("красивый", "красивая"), ("книги", "книга"), ("ёлка", "елки")],
    "spanish": [("canciones", "canción"), ("comunicación", "comunicaciones"), ("hablo", "habló")],
    "none": [("café", "CAFE"), ("Straße", "strasse")],
}
APART: Final[dict[str, list[tuple[str, str]]]] = {
    "english": [("universe", "unit"), ("fox", "foxglove")],
    "none": [("running", "runs"), ("foxes", "fox"), ("john's", "john")],
}


def finds(query: str, stored: str, name: str) -> bool:
    rules = language(name)
    term = term_of(query, rules)
    assert term is not None
    return matches(search_text("-", stored, None, rules), [term])


@pytest.mark.parametrize(("name", "words"), [(name, pair) for name, pairs in PAIRS.items() for pair in pairs])
def test_forms_of_a_word_find_each_other(name: str, words: tuple[str, str]) -> None:
    if (name, words[0]) == ("german", "laufen"):  # a vowel of the stem changes: no rule of endings knows that
        assert not finds(words[0], words[1], name)
        return
    assert finds(words[0], words[1], name)
    assert finds(words[1], words[0], name)


@pytest.mark.parametrize(("name", "words"), [(name, pair) for name, pairs in APART.items() for pair in pairs])
def test_other_words_do_not(name: str, words: tuple[str, str]) -> None:
    assert not finds(words[0], words[1], name)


def test_calls_and_new_threads_import_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt while they do could leave the lock of all imports locked (Python 3.10)."""
    rules, stems = Language("english"), list[str]()
    monkeypatch.setattr(languages_module, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    thread = threading.Thread(target=lambda: stems.append(rules.stem("running")))
    thread.start()
    thread.join()
    assert stems == ["run"]
    assert "the" in rules.stop_words


@pytest.mark.parametrize("name", ["english", "french", "german", "russian", "turkish"])
def test_stop_words_count_for_nothing_unless_there_is_nothing_else(name: str) -> None:
    rules = language(name)
    stop = sorted(rules.stop_words)[:3]
    parsed = parse_query(f"{' '.join(stop)} telescope", "any", rules)
    assert [term.shown for term in parsed.words or ()] == ["telescope"]
    assert parse_query(" ".join(stop), "any", rules).words


def test_every_language_has_rules_of_its_own_and_a_fingerprint() -> None:
    assert languages()[0] == "none"
    prints = {name: language(name).fingerprint for name in languages()}
    assert prints.pop("none") == ""
    assert all(len(value) == 16 for value in prints.values())
    assert len(set(prints.values())) > len(prints) * 0.9


@pytest.mark.parametrize("name", ["klingon", "", 1, ["english"]])
def test_an_unknown_language_is_refused(name: Any) -> None:
    with pytest.raises(LTMError) as raised:
        SQLiteBackend(language=name)
    assert raised.value.result["error_type"] == "configuration_error"
    with pytest.raises(LTMError, match="search=False"):
        SQLiteBackend(language="english", search=False)


def test_words_of_shows_what_is_indexed() -> None:
    assert words_of("The Runners' café, 日本語 42!") == [
        ("the", "the"),
        ("runners", "runner"),
        ("cafe", "cafe"),
        ("日本", "日本"),
        ("本語", "本語"),
        ("語", "語"),
        ("42", "42"),
    ]
    assert words_of("Runners", language="none") == [("runners", "runners")]


@pytest.mark.parametrize(
    ("name", "word"), [("french", "7s"), ("porter", "4s"), ("arabic", "١٢"), ("arabic", "١٢a"), ("english", "v2ing")]
)
def test_a_word_with_digits_is_kept_as_it_is(name: str, word: str) -> None:
    assert words_of(word, name) == [(word, word)]
    assert not finds(word, "7 4 12", name)


def test_equal_words_that_must_occur_count_once() -> None:
    assert len(parse_query("+fox " * 201, "any", EXACT).terms) == 1


@pytest.mark.parametrize("text", [None, 1, b"fox"])
def test_what_is_no_text_is_refused(text: Any) -> None:
    for function in (escape, words_of):
        with pytest.raises(LTMError, match="text must be a string") as raised:
            function(text)
        assert raised.value.error_type == "validation_error"


@pytest.mark.parametrize("query", ['-a +b "c" d*', '"""', "+-+x", '-"a b"', "*", "a -5 +49"])
def test_an_escaped_text_has_no_operators(query: str) -> None:
    parsed = parse_query(escape(query), "any", EXACT)
    assert parsed.terms == ()
    assert not any(term.prefix for term in parsed.words or ())


@pytest.mark.targets("native", "portable", in_memory=False)
def test_a_table_keeps_its_language(database: Database) -> None:
    options: dict[str, Any] = {} if database.target.native else {"table_name": "agent_words"}
    if database.target.native and database.target.server:
        return  # its one table has been made already
    with database.open(language=None, **options) as first:
        first.store("k", "The foxes were running")
        assert first.language == "english"
    with pytest.raises(LTMError, match=r"language english.*language=french"):
        database.open(language="french", **options)
    for name in ("english", None):
        with database.open(language=name, **options) as again:
            assert again.language == "english"
            assert [entry["key"] for entry in again.search("Did a fox run?")["results"]] == ["k"]
            assert again.search("fox run", match="all")["count"] == 1
            assert again.search('"fox were run"', match="all")["count"] == 1
            assert again.search("-foxes", match="all")["count"] == 0


def test_stems_of_another_release_are_told_of(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    SQLAlchemyBackend(url).close()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE ltm_settings SET value = 'english 0123456789abcdef'"))
    with caplog.at_level(logging.WARNING):
        SQLAlchemyBackend(url).close()
        SQLiteBackend(url[10:]).close()
    assert len([message for message in caplog.messages if "stems some words of english otherwise" in message]) == 2


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An engine of a database without tables of ours, before the test and after it: others are of another language."""
    engine = create_engine(database.url, poolclass=NullPool)
    drop_tables(engine)
    yield engine
    drop_tables(engine)
    engine.dispose()


def run(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement.replace("{key}", engine.dialect.identifier_preparer.quote("key"))))


@pytest.mark.targets("native", "portable", in_memory=False)
@pytest.mark.parametrize("is_half_way", [True, False])
@pytest.mark.parametrize("lost", ["DELETE FROM ltm_settings", "DROP TABLE ltm_settings"])
def test_a_table_without_its_language_is_refused(
    engine: Engine, database: Database, lost: str, is_half_way: bool
) -> None:
    database.open().close()
    run(engine, lost)
    if is_half_way:
        run(engine, "DELETE FROM ltm_schema_version")
    for wanted in ("none", "english", None):
        with pytest.raises(LTMError, match="ltm_entries keeps words, but ltm_settings does not have") as raised:
            database.open(language=wanted)
        assert raised.value.error_type == "configuration_error"
    report = check_database(database.url)
    assert (report["success"], report["error_type"]) == (False, "configuration_error")


@pytest.mark.targets(in_memory=False, portable=False)
def test_optimize_stems_anew_what_another_release_has_stemmed(
    engine: Engine, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:  # a release that stems as if words were French
        patched.setattr(DatabaseBackend, "_rules", lambda self: language("french"))
        with SQLAlchemyBackend(database.url) as memory:
            memory.store_many({"key": f"k{n}", "value": f"foxes running {n}", "metadata": {"n": n}} for n in range(450))
            memory.store("gone", "foxes", ttl=0.001)
    run(engine, "UPDATE ltm_settings SET value = 'english 0123456789abcdef'")
    run(engine, "UPDATE ltm_entries SET value = '{' WHERE {key} = 'k7'")
    with caplog.at_level(logging.WARNING), SQLAlchemyBackend(database.url) as memory:
        assert "tea memory optimize" in caplog.text
        before = memory.retrieve_many(["k1", "k3"])
        assert memory.search("run", match="all")["count"] == 0
        assert memory.store("k2", "a fox runs")["version"] == 2  # by this release
        result = memory.optimize()
        assert (result["success"], result["stemmed"]) == (True, 449)
        assert memory.search("fox run", match="all", limit=1000)["count"] == 449
        assert memory.retrieve_many(["k1", "k3"]) == before
        assert memory.optimize()["stemmed"] == 0
    caplog.clear()
    with SQLAlchemyBackend(database.url) as memory:
        assert memory.search("runs", match="all")["count"] == 10
    assert "otherwise" not in caplog.text


@pytest.mark.targets(in_memory=False, portable=False)
def test_words_of_an_entry_that_was_stored_since_it_was_read_stay(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SQLAlchemyBackend(database.url) as memory, SQLAlchemyBackend(database.url) as writer:
        memory.store_many({"key": key, "value": "foxes"} for key in ("again", "deleted", "over", "same"))
        run(engine, "UPDATE ltm_settings SET value = 'english 0123456789abcdef'")
        rows = list(memory._stemmed_rows(language("english")))
        monkeypatch.setattr(memory, "_stemmed_rows", lambda rules: iter(rows))
        writer.store("over", "hounds")
        writer.delete("deleted")
        writer.delete("again")
        writer.store("again", "hounds")  # version 1 again
        assert memory.optimize()["success"]
        assert {entry["key"] for entry in memory.search("hound", match="all")["results"]} == {"again", "over"}
        assert [entry["key"] for entry in memory.search("fox", match="all")["results"]] == ["same"]
