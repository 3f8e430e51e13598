"""`tea memory put|delete|cleanup`: they change what they are told to, and ask before they destroy."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cli_calls import failed, ok, tea
from the_edge_agent.cli.memory import writing
from the_edge_agent.memory import SQLAlchemyBackend, existing_memory


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a file that does not exist yet."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'm.db'}"


def entry(url: str, key: str = "k") -> Any:
    return ok("memory", "get", key, "--url", url, "--json").json


class TestPut:
    @pytest.mark.parametrize("text", ["1", "1.0", "null", '"a"', '{"a": [1, {"b": -0.0}]}', '"\\u001b\\u0000é"'])
    def test_the_value_is_json(self, url: str, text: str) -> None:
        done = ok("memory", "put", "k", "--url", url, "--", text)
        assert done.stdout == "k: created\n"
        with SQLAlchemyBackend(url) as memory:
            assert json.dumps(memory.retrieve("k")["value"]) == json.dumps(json.loads(text))

    def test_the_value_may_be_a_file_or_the_standard_input(self, url: str) -> None:
        Path("value.json").write_text('{"é": 1}', encoding="utf-8")
        ok("memory", "put", "k", "@value.json", "--url", url)
        assert entry(url)["value"] == {"é": 1}
        ok("memory", "put", "k", "-", "--url", url, given="[2]")
        assert entry(url)["value"] == [2]
        ok("memory", "put", "k", "-", "--text", "--url", url, given="two\nlines")
        assert entry(url)["value"] == "two\nlines"

    def test_text_is_stored_as_it_is(self, url: str) -> None:
        ok("memory", "put", "k", "42", "--text", "--url", url)
        assert entry(url)["value"] == "42"

    @pytest.mark.parametrize("text", ["hello", "NaN", '{"a": 1, "a": 2}', "[1", "1e999"])
    def test_what_is_not_json_is_refused_with_advice(self, url: str, tmp_path: Path, text: str) -> None:
        assert "with --text the value is stored as text" in failed("memory", "put", "k", text, "--url", url)
        assert not (tmp_path / "m.db").exists()

    def test_metadata_lifetime_and_index(self, url: str) -> None:
        ok("memory", "put", "k", '"fox"', "--metadata", '{"a": 1}', "--ttl", "60", "--no-index", "--url", url)
        stored = entry(url)
        assert (stored["metadata"], stored["ttl"], stored["index"]) == ({"a": 1}, 60.0, False)
        assert "JSON object" in failed("memory", "put", "k", "1", "--metadata", "[]", "--url", url)

    def test_if_version_lets_only_one_version_be_replaced(self, url: str) -> None:
        ok("memory", "put", "k", "1", "--if-version", "0", "--url", url)
        assert "version 1" in failed("memory", "put", "k", "2", "--if-version", "0", "--url", url)
        assert ok("memory", "put", "k", "2", "--if-version", "1", "--url", url).stdout == "k: replaced, now version 2\n"
        assert ok("memory", "put", "k", "3", "--url", url, "--json").json["version"] == 3

    def test_control_characters_of_a_key_are_made_visible(self, url: str) -> None:
        assert ok("memory", "put", "a\x1b\n", "1", "--url", url).stdout == "a\\x1b\\n: created\n"


class TestDelete:
    @pytest.fixture(autouse=True)
    def _filled(self, url: str) -> None:
        with SQLAlchemyBackend(url) as memory:
            memory.store_many([{"key": key, "value": 1} for key in ("a/1", "a/2", "b")])
            memory.namespace("n").store("k", 1)

    @pytest.mark.parametrize("what", [("b",), ("--prefix", "a/"), ("--all",)])
    def test_without_a_terminal_it_refuses_unless_yes(self, url: str, what: tuple[str, ...]) -> None:
        assert "give --yes" in failed("memory", "delete", *what, "--url", url, code=2)
        assert len(ok("memory", "list", "--url", url, "--json").lines) == 4

    @pytest.mark.parametrize(
        ("what", "count"),
        [(("b",), 1), (("a/1", "b", "x"), 2), (("--prefix", "a/"), 2), (("--all",), 4), (("--all", "-n", "n"), 1)],
    )
    def test_it_deletes_what_is_named(self, url: str, what: tuple[str, ...], count: int) -> None:
        assert ok("memory", "delete", *what, "--yes", "--url", url).stdout == f"deleted {count}\n"
        assert len(ok("memory", "list", "--url", url, "--json").lines) == 4 - count

    @pytest.mark.parametrize(("answer", "left"), [("y\n", 3), ("n\n", 4), ("\n", 4)])
    def test_on_a_terminal_it_asks(self, url: str, answer: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writing, "can_ask", lambda: True)
        done = tea("memory", "delete", "b", "--url", url, given=answer)
        assert "Delete 1 entry? [y/N]" in done.stderr
        assert (done.code, len(ok("memory", "list", "--url", url, "--json").lines)) == (0 if left == 3 else 1, left)

    @pytest.mark.parametrize("what", [(), ("b", "--all"), ("--prefix", ""), ("b", "--nested")])
    def test_what_to_delete_must_be_clear(self, url: str, what: tuple[str, ...]) -> None:
        failed("memory", "delete", *what, "--yes", "--url", url, code=2)

    def test_if_version(self, url: str) -> None:
        assert "version 1" in failed("memory", "delete", "b", "--if-version", "2", "--yes", "--url", url)
        assert ok("memory", "delete", "b", "--if-version", "1", "--yes", "--url", url).stdout == "deleted 1\n"


def test_cleanup_removes_all_expired_entries_in_batches(url: str) -> None:
    with SQLAlchemyBackend(url) as memory:
        past = datetime(2020, 1, 1, tzinfo=timezone.utc)
        memory.store_many([{"key": str(number), "value": 1, "expires_at": past} for number in range(7)])
        memory.store("stays", 1)
    assert ok("memory", "cleanup", "--batch", "3", "--url", url, "--json").json == {"success": True, "deleted_count": 7}
    assert ok("memory", "cleanup", "--url", url).stdout == "removed 0\n"
    assert len(ok("memory", "list", "--url", url, "--json").lines) == 1


def test_a_catalog_with_entries_in_the_database_is_kept_in_step(url: str) -> None:
    with SQLAlchemyBackend(url, catalog="sqlalchemy") as memory:
        memory.store("before", 1)
        assert existing_memory(url)["has_catalog"]
        ok("memory", "put", "k", "1", "--url", url)
        ok("memory", "delete", "before", "--yes", "--url", url)
        assert memory.catalog is not None
        assert [each["key"] for each in memory.catalog.list_entries()] == ["k"]
        assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}
