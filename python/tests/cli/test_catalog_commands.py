"""`tea catalog`: entries, snapshots and changes of a catalog, by the options of `tea memory`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_calls import failed, ok
from the_edge_agent.memory import SQLAlchemyBackend, existing_memory

READING = ("list", "snapshots", "changes", "get k")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a memory with a catalog and two entries."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'm.db'}"
    with SQLAlchemyBackend(url, catalog="sqlalchemy") as memory:
        memory.store("a/1", 1, {"kind": "n"})
        memory.store("a/\x1b", "two")
    return url


def test_list_and_get_show_entries(url: str) -> None:
    lines = ok("catalog", "list", "--url", url, "--json").lines
    assert [(line["key"], line["byte_size"]) for line in lines] == [("a/\x1b", 5), ("a/1", 1)]
    assert ok("catalog", "list", "--url", url, "--filter", '{"kind": "n"}', "--json").lines == lines[1:]
    assert ok("catalog", "get", "a/1", "--url", url, "--json").json == lines[1]
    assert "content_hash  sha256:" in ok("catalog", "get", "a/1", "--url", url).stdout
    assert "a/\\x1b" in ok("catalog", "list", "--url", url).stdout
    assert "no entry" in failed("catalog", "get", "b", "--url", url)


def test_changes_since_a_snapshot_by_id_and_by_name(url: str) -> None:
    snapshot_id = ok("catalog", "snapshot", "monday", "--url", url).stdout.strip()
    ok("memory", "put", "new", "1", "--url", url)
    ok("memory", "delete", "a/1", "--yes", "--url", url)
    for since in (snapshot_id, "monday"):
        lines = ok("catalog", "changes", "--since", since, "--url", url, "--json").lines
        assert [(line["change"], line["key"]) for line in lines] == [("changed", "new"), ("deleted", "a/1")]
    assert len(ok("catalog", "changes", "--url", url, "--json").lines) == 2
    assert "no snapshot tuesday" in failed("catalog", "changes", "--since", "tuesday", "--url", url)
    assert ok("catalog", "changes", "--since", "monday", "--url", url).stdout.splitlines()[0].startswith("CHANGE")


def test_snapshots_are_listed_and_deleted(url: str) -> None:
    for _ in range(2):
        ok("catalog", "snapshot", "same", "--url", url)
    first, second = ok("catalog", "snapshots", "--url", url, "--json").lines
    assert (first["name"], first["entry_count"], first["total_bytes"]) == ("same", 2, 6)
    assert "2 snapshots have the name same" in failed("catalog", "delete-snapshot", "same", "--yes", "--url", url)
    assert "give --yes" in failed("catalog", "delete-snapshot", first["id"], "--url", url, code=2)
    ok("catalog", "delete-snapshot", first["id"], "--yes", "--url", url)
    assert ok("catalog", "snapshots", "--url", url, "--json").lines == [second]
    ok("catalog", "delete-snapshot", "same", "--yes", "--url", url)
    assert "no snapshot same" in failed("catalog", "delete-snapshot", "same", "--yes", "--url", url)


@pytest.mark.parametrize("command", READING)
def test_reading_a_catalog_changes_nothing(tmp_path: Path, command: str) -> None:
    url = f"sqlite:///{tmp_path / 'without.db'}"
    assert "there is no file" in failed("catalog", *command.split(), "--url", url)
    with SQLAlchemyBackend(url) as memory:
        memory.store("b", 1)
    if command != "get k":
        assert ok("catalog", *command.split(), "--url", url).stdout == ""
    assert not existing_memory(url)["has_catalog"]


def test_sync_and_cleanup(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    with SQLAlchemyBackend(url) as memory:
        memory.store("b", 1)
    assert ok("catalog", "sync", "--url", url, "--json").json == {"tracked_count": 1, "deleted_count": 0}
    assert ok("catalog", "cleanup", "--url", url).stdout == "removed 0\n"
    assert existing_memory(url)["has_catalog"]


def test_a_file_without_a_catalog_says_how_to_add_one(url: str, tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(f"settings: {{ltm: {{url: '{url}'}}}}\nnodes: []\n")
    assert "catalog: sqlalchemy" in failed("catalog", "list", "-f", "agent.yaml")
    (tmp_path / "agent.yaml").write_text(f"settings: {{ltm: {{url: '{url}', catalog: sqlalchemy}}}}\nnodes: []\n")
    assert len(ok("catalog", "list", "-f", "agent.yaml", "--json").lines) == 2
    ok("memory", "put", "k", "1", "-f", "agent.yaml", "-n", "part")
    assert [line["key"] for line in ok("catalog", "list", "-f", "agent.yaml", "-n", "part", "--json").lines] == ["k"]
