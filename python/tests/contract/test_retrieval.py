"""The command that measures answers to questions: its measures, its collections, and its comparisons."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from benchmarks import retrieval
from benchmarks.markdown import page
from benchmarks.places import new_place
from benchmarks.results import Results
from benchmarks.retrieval import (
    Case,
    Collection,
    DifferenceError,
    System,
    cases_of,
    collections_of,
    fts5,
    main,
    measured,
    measures,
    ours,
)
from databases import Target

pytestmark = pytest.mark.slow

PETS = [("cat", "A cat sleeps on the sofa"), ("dogs", "Dogs bark at the cat"), ("fish", "The fish says nothing")]


@pytest.mark.parametrize(
    ("found", "relevant", "expected"),
    [
        (["a", "b"], {"a"}, (1.0, 1.0, 1.0)),
        (["x", "a"], {"a"}, (1.0, 1 / log2(3), 0.5)),
        (["a", "x", "b"], {"a", "b"}, (1.0, (1 + 0.5) / (1 + 1 / log2(3)), 1.0)),
        (["a"], {"a", "b", "c", "d"}, (0.25, 1 / sum(1 / log2(rank + 1) for rank in range(1, 5)), 1.0)),
        ([*"0123456789", "a"], {"a"}, (0.0, 0.0, 0.0)),
        ([*"0123456789"], {*"0123456789ab"}, (10 / 12, 1.0, 1.0)),
        ([], {"a"}, (0.0, 0.0, 0.0)),
    ],
)
def test_measures_of_the_first_ten(found: list[str], relevant: set[str], expected: tuple[float, float, float]) -> None:
    assert measures(found, frozenset(relevant)) == pytest.approx(expected)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, words in {"talks-1": "apples", "talks-2": "pears", "papers": "figs"}.items():
        (tmp_path / name).mkdir()
        documents = [{"id": "1", "text": f"I like {words}"}, {"id": "2", "text": "Nobody asked"}]
        (tmp_path / name / "docs.jsonl").write_text("\n".join(map(json.dumps, documents)))
        questions = [{"query": f"Who likes {words}?", "relevant": ["1"]}]
        (tmp_path / name / "queries.jsonl").write_text("\n".join(map(json.dumps, questions)))
    return tmp_path


def test_collections_with_a_common_name_are_also_one_memory(folder: Path) -> None:
    papers, each, one = cases_of(collections_of(folder))
    assert [papers.title, each.title, one.title] == ["papers", "talks, 2 memories", "talks, all in one"]
    assert [collection.name for collection in each.collections] == ["talks-1", "talks-2"]
    (joined,) = one.collections
    assert [key for key, _ in joined.documents] == ["talks-1/1", "talks-1/2", "talks-2/1", "talks-2/2"]
    assert joined.questions[1] == ("Who likes pears?", frozenset({"talks-2/1"}))


def test_a_case_counts_each_question_once() -> None:
    one = Collection("pets-1", PETS, [("Who is barking?", frozenset({"dogs"}))])
    two = Collection("pets-2", PETS, [("sofas", frozenset({"fish"})), ("sleeping", frozenset({"fish"}))])
    assert measured(System("ours", ours), Case("pets", [one, two])) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_fts5_is_asked_for_any_word_with_and_without_stop_words() -> None:
    with fts5(PETS, stop_words=False) as ask:
        assert {key for key, _ in ask("Does the dog sleep?")} == {"cat", "dogs"}
        assert {key for key, _ in ask("the")} == {"cat", "dogs", "fish"}
        assert ask('"!"') == []
    with fts5(PETS, stop_words=True) as ask:
        assert {key for key, _ in ask("Does the dog sleep?")} == {"cat", "dogs", "fish"}


def test_the_table_has_a_row_for_each_system_and_says_what_was_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--only", "talks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| talks, all in one: the_edge_agent | 1.0000 | 1.0000 | 1.0000 |" in lines
    assert "- Questions: talks, 2 memories 2; talks, all in one 2." in lines


@pytest.mark.targets(family="postgresql", portable=False)
def test_ours_is_compared_on_other_databases_and_leaves_nothing_there(
    target: Target, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with new_place(target.family, tmp_path) as url:
        assert main([str(folder), "--url", url]) == 0
        engine = create_engine(url)
        assert not inspect(engine).get_table_names()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE of_others (id integer)"))
        with pytest.raises(SystemExit, match="name an empty database"):
            main([str(folder), "--url", url])
        engine.dispose()
    output = capsys.readouterr().out
    assert "on SQLite, PostgreSQL; the first 100 results were compared" in output
    assert "papers: PostgreSQL ts_rank | 1.0000" in output


def test_a_difference_between_databases_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_asked", lambda memory, query: [(type(memory).__name__, 1.0)])
    assert main([str(folder)]) == 1
    with ours(PETS) as ask, pytest.raises(DifferenceError, match="SQLAlchemyBackend on SQLite answers 'cat'"):
        ask("cat")


def test_the_page_includes_what_was_measured_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "retrieval.md"
    monkeypatch.setattr("benchmarks.markdown.RETRIEVAL", kept)
    assert "## Answers to questions" not in page(Results("tiny", {}), chart="benchmarks.svg")
    kept.write_text("| measured |\n")
    assert page(Results("tiny", {}), chart="benchmarks.svg").endswith("| measured |\n")
