"""Every example runs, stores its input, and finds it again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cli_calls import ok
from the_edge_agent import YAMLEngine

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEA_LTM_URL", raising=False)
    return tmp_path


def run(name: str, **state: Any) -> Any:
    """Run an example the way a user does."""
    done = ok("run", str(EXAMPLES / name), "-i", json.dumps(state))
    assert done.stderr == ""
    return done.json


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_each_runs_twice_without_input(path: Path) -> None:
    for _ in range(2):
        with YAMLEngine() as engine:
            assert [event["type"] for event in engine.load_from_file(path).invoke()] == ["final"]


def test_remember_tells_what_earlier_runs_were_told() -> None:
    first = run("remember.yaml", topic="green tea", note="Steep it at 80 degrees.")
    assert (first["remembered_before"], first["visits"], first["is_new_topic"]) == ([], 1, True)
    second = run("remember.yaml", topic="green tea", note="Two minutes are enough.")
    assert second["remembered_before"] == ["Steep it at 80 degrees."]
    assert (second["visits"], second["is_new_topic"]) == (2, False)
    assert second["notes"] == ["Steep it at 80 degrees.", "Two minutes are enough."]
    other = run("remember.yaml", topic="black tea", note="Boiling water.")
    assert (other["remembered_before"], other["visits"]) == ([], 1)


def test_remember_keeps_a_note_once_and_any_text() -> None:
    note = "日本 😀 {{ state.topic }} 'quoted' \"twice\""
    for _ in range(2):
        state = run("remember.yaml", topic="{% evil %}", note=note)
    assert (state["notes"], state["visits"]) == ([note], 2)


def test_search_finds_what_remember_stored() -> None:
    run("remember.yaml", topic="green tea", note="Steep it at 80 degrees.")
    run("remember.yaml", topic="black tea", note="Boiling water.")
    found = run("search.yaml", query="steep*")
    assert (found["count"], found["answer"]) == (1, "green tea: Steep it at 80 degrees.")
    assert run("search.yaml", query="tea", limit=1)["count"] == 1
    assert run("search.yaml", query="tea -boiling")["results"][0]["key"] == "notes:green tea"
    assert run("search.yaml", query="coffee")["answer"] == "Nothing is known about that."


def test_tasks_gives_each_task_to_one_worker() -> None:
    first = run("tasks.yaml", worker="Ana", add=["plants", "milk", "plants"])
    assert (first["answer"], first["added"], first["left"], first["taken"]) == ("Ana: milk", 2, 2, 1)
    assert run("tasks.yaml", worker="Bea")["answer"] == "Bea: plants"
    assert run("tasks.yaml", worker="Cem")["answer"] == "Cem: nothing to do"


def test_tasks_strikes_off_what_is_done() -> None:
    run("tasks.yaml", worker="Ana", add=["milk", "plants"])
    second = run("tasks.yaml", worker="Ana", done=["milk"])
    assert (second["task"], second["struck"]["deleted_count"], second["left"], second["taken"]) == ("plants", 2, 1, 1)


def test_tasks_gives_a_task_again_when_its_claim_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIM_SECONDS", "0.000001")
    assert run("tasks.yaml", worker="Ana", add=["milk"])["answer"] == "Ana: milk"
    second = run("tasks.yaml", worker="Bea")
    assert (second["answer"], second["taken"]) == ("Bea: milk", 0)
    assert second["tidied"]["deleted_count"] + second["tidied"]["remaining_count"] == 1


def test_tasks_may_be_taken_by_many_workers_at_once() -> None:
    todo = [f"task {number}" for number in range(4)]
    run("tasks.yaml", worker="nobody", add=todo, done=todo)  # makes the database
    with YAMLEngine() as engine, ThreadPoolExecutor(8) as pool:
        graph = engine.load_from_file(EXAMPLES / "tasks.yaml")
        runs = pool.map(lambda n: next(graph.invoke({"worker": str(n), "add": todo}))["state"]["task"], range(8))
        assert sorted(task or "nothing" for task in runs) == ["nothing"] * 4 + todo


def test_the_memory_is_where_ltm_url_says(folder: Path) -> None:
    ok("run", str(EXAMPLES / "remember.yaml"), "-i", '{"topic": "a", "note": "b"}', TEA_LTM_URL="sqlite:///other.db")
    assert (folder / "other.db").exists()
    assert not (folder / "ltm.db").exists()
