"""The examples of incremental backups export exactly the changes, and all backups together restore the whole memory."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from databases import Database
from the_edge_agent import YAMLEngine
from the_edge_agent.memory import SQLAlchemyBackend, SQLAlchemyCatalog

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "examples"
SCRIPT = EXAMPLES / "incremental_backup.py"

on_files_and_servers = pytest.mark.targets(portable=False, in_memory=False)


@pytest.fixture
def script() -> Any:
    specification = importlib.util.spec_from_file_location("incremental_backup", SCRIPT)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Return what a backup says after its first line."""
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()[1:]]


def entries_of(memory: SQLAlchemyBackend) -> dict[str, dict[str, Any]]:
    """Return what the catalog says of everything, without what no two memories share."""
    assert isinstance(memory.catalog, SQLAlchemyCatalog)
    entries = memory.catalog.get_changed_entries()
    return {entry["key"]: {k: v for k, v in entry.items() if k != "key" and not k.endswith("_at")} for entry in entries}


def work(memory: SQLAlchemyBackend, generator: random.Random) -> None:
    """Do something of everything."""
    for _ in range(30):
        key, value = f"é/{generator.randrange(60)} ", generator.choice([1, 1.0, None, "日😀", {"b": [10**30], "a": {}}])
        metadata = generator.choice([None, {}, {"n": 1}, {"n": 1.0}])
        if generator.random() < 0.4:
            memory.delete(key)
        else:
            memory.store(key, value, metadata, ttl=generator.choice([None, None, 3600]))
    memory.store_many([{"key": f"many/{generator.randrange(2000)}", "value": n} for n in range(300)])
    memory.delete_many([f"many/{generator.randrange(2000)}" for _ in range(300)])


def test_a_backup_has_what_is_new_different_or_gone_and_no_more(
    database: Database, script: Any, tmp_path: Path
) -> None:
    with database.open(catalog="sqlalchemy") as memory:
        memory.store_many([{"key": f"k{n}", "value": n} for n in range(5)])
        file, changed, deleted = script.back_up(memory, tmp_path / "backups")
        assert (file.name, changed, deleted, len(lines_of(file))) == ("000001.jsonl", 5, 0, 5)
        memory.store("k1", 1)
        memory.store("k2", "other", {"m": 1})
        memory.store("new", None)
        memory.delete("k0")
        file, changed, deleted = script.back_up(memory, tmp_path / "backups")
        assert (file.name, changed, deleted) == ("000002.jsonl", 2, 1)
        assert lines_of(file) == [
            {"key": "k2", "value": "other", "metadata": {"m": 1}, "expires_at": None},
            {"key": "new", "value": None, "metadata": None, "expires_at": None},
            {"key": "k0", "deleted": True},
        ]
        assert script.back_up(memory, tmp_path / "backups")[1:] == (0, 0)
        assert len(memory.catalog.list_snapshots()) == 1


@pytest.mark.targets(portable=False)
def test_all_backups_together_are_the_memory(database: Database, script: Any, tmp_path: Path) -> None:
    generator = random.Random(7)
    with database.open(catalog="sqlalchemy") as memory:
        for _ in range(3):
            work(memory, generator)
            script.back_up(memory, tmp_path / "backups")
        with SQLAlchemyBackend(f"sqlite:///{tmp_path / 'restored.db'}", catalog="sqlalchemy") as restored:
            assert script.restore(tmp_path / "backups", restored) == memory.count()["count"]
            assert script.difference(memory, restored) is None
            assert entries_of(restored) == entries_of(memory)
            for entry in memory.catalog.get_changed_entries():
                again: Any = restored.catalog.get_entry(entry["key"])  # type: ignore[union-attr]
                assert (again["expires_at"] is None) is (entry["expires_at"] is None)
                if again["expires_at"]:
                    assert abs(again["expires_at"] - entry["expires_at"]) < timedelta(minutes=5)
            memory.delete_many([key for key, _, _ in memory.iterate_all()])  # a disaster
            script.restore(tmp_path / "backups", memory)
            assert script.difference(memory, restored) is None
            assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}
            restored.store("k", 1)
            assert script.difference(memory, restored) == "k"


@on_files_and_servers
def test_what_was_stored_without_the_catalog_is_in_the_backup(database: Database, script: Any, tmp_path: Path) -> None:
    with database.open() as memory:
        memory.store("k", 1)
    with database.open(catalog="sqlalchemy") as memory:
        assert script.back_up(memory, tmp_path / "backups")[1:] == (1, 0)
    with database.open() as memory:
        memory.delete("k")
    with database.open(catalog="sqlalchemy") as memory:
        assert script.back_up(memory, tmp_path / "backups")[1:] == (0, 1)


@on_files_and_servers
def test_from_the_command_line(database: Database, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, str(SCRIPT), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    with database.open(catalog="sqlalchemy") as memory:
        memory.store("k", [1])
    assert run("backup", database.url, "backups") == (0, f"{Path('backups', '000001.jsonl')}: 1 changed, 0 deleted\n")
    assert run("restore", "backups", "sqlite:///restored.db") == (0, "restored 1 entries\n")
    assert run("compare", database.url, "sqlite:///restored.db") == (0, "equal\n")
    assert run("restore", "backups", database.url) == (1, "the memory is not empty\n")


@on_files_and_servers
def test_the_agent_backs_up_its_diary(
    database: Database, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTM_URL", database.url)
    monkeypatch.chdir(tmp_path)
    inputs: list[dict[str, Any]] = [
        {"keep": {"monday": "It rained.", "tuesday": "日 😀 {{ state }}", "friday": "Fog."}},
        {"keep": {"monday": "It poured.", "friday": "Fog."}, "forget": ["tuesday", "sunday"]},
        {},
    ]
    with YAMLEngine() as engine:
        for number, (given, answer) in enumerate(zip(inputs, ["3, 0", "1, 1", "0, 0"], strict=True), 1):
            *_, final = engine.load_from_file(EXAMPLES / "backup.yaml").invoke(given)
            state = final["state"]
            assert state["answer"].replace(" changed", "").replace(" deleted", "") == answer
            assert Path(state["file"]) == Path("backups", f"{number:06}.jsonl")
    with database.open(language=None) as memory, SQLAlchemyBackend("sqlite://") as restored:
        assert script.restore(tmp_path / "backups", restored) == 2
        assert script.difference(memory, restored) is None


on_sqlite = pytest.mark.targets(family="sqlite", in_memory=True, portable=False)


@on_sqlite
def test_a_missing_backup_is_noticed(database: Database, script: Any, tmp_path: Path) -> None:
    with database.open(catalog="sqlalchemy") as memory:
        files = [script.back_up(memory, tmp_path)[0] for _ in range(3)]
    files[1].rename(files[1].with_suffix(".lost"))
    with SQLAlchemyBackend("sqlite://") as restored, pytest.raises(SystemExit, match="one is missing"):
        script.restore(tmp_path, restored)


@on_sqlite
def test_a_backup_that_did_not_end_is_none(
    database: Database, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with database.open(catalog="sqlalchemy") as memory:
        script.back_up(memory, tmp_path)
        memory.store("k", 1)
        with monkeypatch.context() as patch:
            patch.setattr(script, "entries_of", interrupt)
            with pytest.raises(KeyboardInterrupt):
                script.back_up(memory, tmp_path)
        assert script.back_up(memory, tmp_path)[1:] == (1, 0), "what it had not written is in the next"


@on_sqlite
def test_what_has_expired_meanwhile_is_not_restored(database: Database, script: Any, tmp_path: Path) -> None:
    with database.open(catalog="sqlalchemy") as memory:
        memory.store("k", 1, ttl=3600)
        file, *_ = script.back_up(memory, tmp_path)
        head, line = file.read_text().splitlines()
        entry = {**json.loads(line), "expires_at": "2020-01-01T00:00:00+00:00"}
        file.write_text(f"{head}\n{json.dumps(entry)}\n")
    with SQLAlchemyBackend("sqlite://") as restored:
        assert script.restore(tmp_path, restored) == 0
