"""The example of a backup writes what has changed, and all of its files together restore the whole memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from databases import Database
from the_edge_agent import YAMLEngine
from the_edge_agent.memory import SQLAlchemyBackend, export_entries, restore

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[3] / "examples" / "backup.yaml"

on_files_and_servers = pytest.mark.targets(portable=False, in_memory=False)


def lines_of(memory: SQLAlchemyBackend) -> list[bytes]:
    """Return all that an export has of the entries."""
    file = io.BytesIO()
    export_entries(memory, file)
    return file.getvalue().splitlines()[1:]


def entries_in(file: str) -> list[tuple[str, Any]]:
    """Return the keys and values in a backup, and "deleted" in place of the value of a deleted entry."""
    lines = map(json.loads, Path(file).read_text(encoding="ascii").splitlines()[1:])
    return [(line["key"], line.get("value", "deleted")) for line in lines if "key" in line]


@on_files_and_servers
def test_the_agent_backs_up_its_diary(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEA_LTM_URL", database.url)
    monkeypatch.chdir(tmp_path)
    sun = "日 😀 {{ state }}"
    first = {"keep": {"monday": "It rained.", "tuesday": sun, "friday": "Fog."}}
    second = {"keep": {"monday": "It poured.", "friday": "Fog."}, "forget": ["tuesday", "sunday"]}
    runs: list[tuple[dict[str, Any], str]] = [(first, "3 changed, 0 deleted"), (second, "2 changed, 1 deleted")]
    files = []
    with YAMLEngine() as engine:
        for number, (given, answer) in enumerate(runs, 1):
            *_, final = engine.load_from_file(EXAMPLE).invoke(given)
            assert final["state"]["answer"] == answer
            files.append(final["state"]["file"])
            assert Path(files[-1]) == Path("backups", f"{number:06}.jsonl")
    assert entries_in(files[0]) == [("diary/friday", "Fog."), ("diary/monday", "It rained."), ("diary/tuesday", sun)]
    assert entries_in(files[1]) == [
        *[("diary/friday", "Fog."), ("diary/monday", "It poured."), ("diary/tuesday", "deleted")],
    ]
    with (
        database.open(language=None, catalog="sqlalchemy") as memory,
        SQLAlchemyBackend("sqlite://", catalog="sqlalchemy", errors="raise") as restored,
    ):
        report = restore(restored, [Path(file).read_bytes().splitlines(keepends=True) for file in reversed(files)])
        assert (report["imported_count"], report["snapshot_count"]) == (2, 2)
        assert lines_of(restored) == lines_of(memory)
        assert restored.retrieve("diary/friday")["version"] == 2
        catalogs: list[Any] = [memory.catalog, restored.catalog]
        (last,) = catalogs[0].list_snapshots()
        assert catalogs[1].list_snapshots()[0] == last
