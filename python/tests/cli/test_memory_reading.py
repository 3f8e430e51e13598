"""`tea memory list|get|search|namespaces`: they show what a memory has, and change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_calls import failed, ok, tea
from databases import Database
from memory_checks import objects, run_sql
from the_edge_agent.memory import SQLAlchemyBackend, SQLiteBackend, existing_memory
from the_edge_agent.workflow.actions.plain import plain

EVIL = "a\x1b[2J\u202eb\n"
SHOWN = "a\\x1b[2J\\u202eb\\n"
READING = (
    *(("memory", "list"), ("memory", "get", "k"), ("memory", "search"), ("memory", "namespaces"), ("memory", "stats")),
    *(("memory", "delete", "k", "--yes"), ("memory", "cleanup"), ("memory", "optimize")),
)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a file that does not exist yet."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'm.db'}"


@pytest.fixture
def memory(url: str) -> Iterator[SQLAlchemyBackend]:
    """A memory with three entries."""
    with SQLAlchemyBackend(url) as memory:
        memory.store("a/1", {"x": 1}, {"kind": "n"})
        memory.store("a/2", "hello red fox", ttl=1000)
        memory.store("b", None, index=False)
        yield memory


def test_the_code_says_that_the_reader_of_the_output_has_gone(memory: SQLAlchemyBackend, url: str) -> None:
    memory.store_many([{"key": f"n/{number}", "value": "x" * 200} for number in range(1000)])
    command = [sys.executable, "-m", "the_edge_agent.cli", "memory", "list", "--all", "--json", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(timeout=60), process.stderr and process.stderr.read()) == (141, b"")


class TestList:
    def test_json_has_everything_of_each_entry(self, memory: SQLAlchemyBackend, url: str) -> None:
        lines = ok("memory", "list", "--url", url, "--json").lines
        expected = [plain(entry) for entry in memory.iterate_entries()]
        assert lines == expected
        assert set(lines[0]) == {
            *("key", "value", "metadata", "version", "created_at", "updated_at", "expires_at", "ttl", "index")
        }

    def test_in_a_pipe_nothing_is_cut(self, memory: SQLAlchemyBackend, url: str) -> None:
        memory.store("long", "x" * 1000)
        out = ok("memory", "list", "--url", url, COLUMNS="20").stdout
        assert out.splitlines()[0].split() == ["KEY", "VERSION", "UPDATED", "EXPIRES", "METADATA", "VALUE"]
        assert out.splitlines()[-1].endswith('"' + "x" * 1000 + '"')

    def test_options_choose_entries(self, memory: SQLAlchemyBackend, url: str) -> None:
        def keys(*options: str) -> list[str]:
            return [line["key"] for line in ok("memory", "list", "--url", url, "--json", "--keys", *options).lines]

        assert keys() == ["a/1", "a/2", "b"]
        assert keys("--prefix", "a/") == ["a/1", "a/2"]
        assert keys("--order", "-key") == ["b", "a/2", "a/1"]
        assert keys("--order", "newest") == ["b", "a/2", "a/1"]
        assert keys("--limit", "2") == ["a/1", "a/2"]
        assert keys("--limit", "2", "--after", "a/1") == ["a/2", "b"]

    def test_a_list_that_is_not_complete_says_how_to_go_on(self, memory: SQLAlchemyBackend, url: str) -> None:
        assert "--all" in failed("memory", "list", "--url", url, "--all", "--limit", "2", code=2)
        assert "--after a/2" in ok("memory", "list", "--url", url, "--limit", "2").stderr
        assert ok("memory", "list", "--url", url, "--limit", "3").stderr == ""

    def test_all_is_every_entry(self, memory: SQLAlchemyBackend, url: str) -> None:
        memory.store_many([{"key": f"n/{number:04}", "value": number} for number in range(250)])
        for order in ("key", "-key", "newest"):
            done = ok("memory", "list", "--url", url, "--all", "--json", "--keys", "--order", order)
            assert (len({line["key"] for line in done.lines}), done.stderr) == (253, "")

    def test_nested_shows_namespaces(self, memory: SQLAlchemyBackend, url: str) -> None:
        memory.namespace("users", "ada").store("k", 1)
        below = ok("memory", "list", "--url", url, "-n", "users", "--nested", "--json").lines
        assert [(line["namespace"], line["key"]) for line in below] == [(["ada"], "k")]
        assert ok("memory", "list", "--url", url, "-n", "users", "-n", "ada", "--json").lines[0]["key"] == "k"
        assert "users / ada" in ok("memory", "list", "--url", url, "--nested").stdout

    def test_damaged_entries_are_named_and_the_exit_code_is_1(self, memory: SQLAlchemyBackend, url: str) -> None:
        run_sql(url, "UPDATE ltm_entries SET value = '{' WHERE key = 'a/1'")
        done = tea("memory", "list", "--url", url, "--json", "--keys")
        assert (done.code, [line["key"] for line in done.lines]) == (1, ["a/2", "b"])
        assert "damaged: a/1\n" in done.stderr

    def test_control_characters_are_made_visible(self, memory: SQLAlchemyBackend, url: str) -> None:
        memory.store(EVIL, EVIL, {EVIL: EVIL})
        out = ok("memory", "list", "--url", url, "--prefix", "a\x1b").stdout
        assert SHOWN in out
        assert not {"\x1b", "\u202e"} & {*out}
        line = ok("memory", "list", "--url", url, "--prefix", "a\x1b", "--json").stdout
        assert not {"\x1b", "\u202e"} & {*line}
        assert json.loads(line)["value"] == EVIL


class TestGet:
    def test_it_shows_the_value_and_the_facts(self, memory: SQLAlchemyBackend, url: str) -> None:
        out = ok("memory", "get", "a/1", "--url", url).stdout
        assert 'metadata  {"kind": "n"}\n' in out
        assert out.endswith('value     {\n            "x": 1\n          }\n')
        assert "lifetime  1000 s\n" in ok("memory", "get", "a/2", "--url", url).stdout
        assert "words     not searched\n" in ok("memory", "get", "b", "--url", url).stdout

    def test_json_is_the_line_of_list(self, memory: SQLAlchemyBackend, url: str) -> None:
        line = ok("memory", "get", "a/2", "--url", url, "--json").stdout
        assert line in ok("memory", "list", "--url", url, "--json").stdout

    def test_raw_text_is_printed_as_it_is(self, memory: SQLAlchemyBackend, url: str) -> None:
        memory.store("t", "é\x1b\n")
        assert ok("memory", "get", "t", "--raw", "--url", url).stdout == "é\x1b\n"
        assert "not text" in failed("memory", "get", "a/1", "--raw", "--url", url)

    def test_a_missing_entry_is_exit_code_1(self, memory: SQLAlchemyBackend, url: str) -> None:
        assert failed("memory", "get", "a", "--url", url) == "Error: there is no entry with the key a"
        assert SHOWN in failed("memory", "get", EVIL, "--url", url)

    def test_a_damaged_entry_is_exit_code_1(self, memory: SQLAlchemyBackend, url: str) -> None:
        run_sql(url, "UPDATE ltm_entries SET value = '{' WHERE key = 'a/1'")
        assert "a/1" in failed("memory", "get", "a/1", "--url", url)


class TestSearch:
    def test_results_have_scores_and_the_best_is_first(self, memory: SQLAlchemyBackend, url: str) -> None:
        memory.store("c", "a fox and a fox")
        lines = ok("memory", "search", "foxes red", "--url", url, "--json", "--explain").lines
        expected = memory.search("foxes red", explain=True)["results"]
        assert [(line["key"], line["score"], line["explain"]) for line in lines] == [
            (entry["key"], entry["score"], entry["explain"]) for entry in expected
        ]
        table = ok("memory", "search", "foxes red", "--url", url, "--explain").stdout.splitlines()
        assert table[0].split() == ["SCORE", "KEY", "TERMS", "METADATA", "VALUE"]
        assert table[1].split()[:2] == [f"{expected[0]['score']:.4f}", "a/2"]

    def test_conditions_are_those_of_the_method(self, memory: SQLAlchemyBackend, url: str) -> None:
        def keys(*options: str) -> list[str]:
            return [line["key"] for line in ok("memory", "search", "--url", url, "--json", *options).lines]

        assert keys("--filter", '{"kind": "n"}') == ["a/1"]
        assert keys("--prefix", "a/", "--offset", "1") == ["a/1"]
        assert keys("fox wolf", "--match", "all") == []
        assert keys("fox wolf", "--match", "any") == ["a/2"]
        assert "$x" in failed("memory", "search", "--url", url, "--filter", '{"a": {"$x": 1}}')

    def test_no_result_is_said_on_stderr(self, memory: SQLAlchemyBackend, url: str) -> None:
        done = ok("memory", "search", "wolf", "--url", url)
        assert (done.stdout, done.stderr) == ("", "nothing was found\n")

    def test_a_table_without_words_says_why_words_cannot_be_searched(self, url: str) -> None:
        with SQLAlchemyBackend(url, search=False) as memory:
            memory.store("k", "fox", {"x": 1})
        assert ok("memory", "search", "--url", url, "--filter", '{"x": 1}', "--json").lines[0]["key"] == "k"
        assert "keeps no full-text index" in failed("memory", "search", "fox", "--url", url)
        assert ok("memory", "list", "--url", url, "--keys", "--json").lines == [{"key": "k"}]


class TestNamespaces:
    def test_they_are_listed_in_order(self, memory: SQLAlchemyBackend, url: str) -> None:
        for names in (("a",), ("a", "x/y"), ("b", "x/y")):
            memory.namespace(*names).store("k", 1)

        def found(*options: str) -> list[list[str]]:
            return [line["namespace"] for line in ok("memory", "namespaces", "--url", url, "--json", *options).lines]

        assert found() == [["a"], ["a", "x/y"], ["b", "x/y"]]
        assert found("--prefix", "a") == [["a"], ["a", "x/y"]]
        assert found("--suffix", "x/y") == [["a", "x/y"], ["b", "x/y"]]
        assert found("--depth", "1") == [["a"], ["b"]]
        assert found("-n", "a") == [["x/y"]]
        assert ok("memory", "namespaces", "--url", url).stdout == "NAMESPACE\na\na / x/y\nb / x/y\n"


class TestStats:
    def test_json_is_the_result_of_measure(self, memory: SQLAlchemyBackend, url: str) -> None:
        memory.namespace("n").store("k", 1)
        expected = {name: value for name, value in plain(memory.measure()).items() if name != "success"}
        assert ok("memory", "stats", "--url", url, "--json").json == expected
        lines = ok("memory", "stats", "--url", url, "--json", "--nested").lines
        assert [(line.get("namespace"), line["entries"]) for line in lines] == [(None, 4), (["n"], 1)]

    def test_people_see_each_number(self, memory: SQLAlchemyBackend, url: str) -> None:
        names = [line.split("  ")[0] for line in ok("memory", "stats", "--url", url).stdout.splitlines()]
        assert names == ["entries", "bytes", "oldest", "newest", "expired", "word index"]

    def test_values_in_a_blob_storage_count(self, url: str, tmp_path: Path) -> None:
        storage = {"uri": str(tmp_path / "blobs"), "inline_threshold": 10}
        with SQLAlchemyBackend(url, storage=storage) as memory, SQLAlchemyBackend("sqlite://") as plain_memory:
            for each in (memory, plain_memory):
                each.store("large", "é" * 100)
                each.store("same", "é" * 100)
                each.store("small", 1)
            assert memory.measure()["bytes"] == plain_memory.measure()["bytes"]
        assert "2 values are in a blob storage" in failed("memory", "stats", "--url", url)


class TestWhichMemory:
    def test_the_url_counts_before_variables_and_variables_before_the_file(self, tmp_path: Path, url: str) -> None:
        urls = {name: f"sqlite:///{tmp_path / name}.db" for name in ("option", "ltm", "tea", "file")}
        for name, each in urls.items():
            ok("memory", "put", name, "1", "--url", each)
        agent = tmp_path / "agent.yaml"
        agent.write_text(f"settings: {{ltm: {{url: '{urls['file']}'}}}}\nnodes: []\n")

        def key(*options: str, **variables: str) -> str:
            lines = ok("memory", "list", "--json", "--keys", *options, **variables).lines
            return str(lines[0]["key"])

        of_file, ltm, alias = ("-f", str(agent)), {"TEA_LTM_URL": urls["ltm"]}, {"TEA_URL": urls["tea"]}
        assert key("--url", urls["option"], *of_file, **ltm, **alias) == "option"
        assert key(*of_file, **ltm, **alias) == "ltm"
        assert key(*of_file, **alias) == "tea"
        assert key(*of_file) == "file"

    def test_no_memory_named_is_wrong_usage(self) -> None:
        assert "--url URL or -f FILE" in failed("memory", "list", code=2)

    @pytest.mark.parametrize(
        "settings",
        [
            "ltm: {backend: sqlite, path: m.db}",
            "ltm: {url: 'sqlite:///m.db'}",
            "ltm_url: 'sqlite:///m.db'",
            "ltm: {path: m.db, catalog: sqlalchemy}",
        ],
    )
    def test_a_file_may_name_any_backend(self, url: str, tmp_path: Path, settings: str) -> None:
        (tmp_path / "agent.yaml").write_text(f"settings: {{{settings}}}\nnodes: []\n")
        lacks_optimize = "backend: sqlite" in settings
        for command in READING[: -1 if lacks_optimize else None]:
            assert "there is no file" in failed(*command, "-f", "agent.yaml")
        assert os.listdir(tmp_path) == ["agent.yaml"]
        ok("memory", "put", "k", "[1]", "-f", "agent.yaml")
        assert ok("memory", "get", "k", "-f", "agent.yaml", "--json").json["value"] == [1]
        assert ok("memory", "check", "-f", "agent.yaml").stdout.endswith("ok\n")

    @pytest.mark.parametrize("command", READING, ids=lambda command: command[1])
    def test_a_command_that_reads_creates_no_file(self, url: str, tmp_path: Path, command: tuple[str, ...]) -> None:
        assert f"there is no file {tmp_path / 'm.db'}" in failed(*command, "--url", url)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("command", READING, ids=lambda command: command[1])
    def test_a_command_that_reads_creates_no_tables(self, url: str, command: tuple[str, ...]) -> None:
        run_sql(url, "CREATE TABLE application (id INTEGER)")
        before = objects(url)
        assert "no table ltm_entries" in failed(*command, "--url", url)
        assert objects(url) == before

    def test_a_read_fills_no_catalog(self, memory: SQLAlchemyBackend, url: str, tmp_path: Path) -> None:
        (tmp_path / "agent.yaml").write_text(f"settings: {{ltm: {{url: '{url}', catalog: sqlalchemy}}}}\nnodes: []\n")
        ok("memory", "list", "-f", "agent.yaml")
        assert not existing_memory(url)["has_catalog"]

    def test_no_password_is_shown(self) -> None:
        url = "postgresql://user:s3cret@127.0.0.1:1/db"
        calls = [("memory", *command) for command in (("list",), ("get", "k"), ("put", "k", "1"), ("check",))]
        for call in calls:
            done = tea(*call, "--url", url)
            assert (done.code, "s3cret" in done.stdout + done.stderr) == (1, False)
            done = tea(*call, url, url, "--url", url)
            assert (done.code, "s3cret" in done.stdout + done.stderr) == (2, False)


def test_native_memories_create_nothing_if_told_so(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with SQLiteBackend(path, create_tables=False, lazy=True) as memory:
        assert memory.count()["error"].startswith(f"there is no file {path}; the tables do not exist")
    assert not path.exists()
    SQLiteBackend(path).close()
    with SQLiteBackend(path, create_tables=False) as memory:
        assert memory.count()["count"] == 0


class TestOnEveryDatabase:
    @pytest.mark.targets(portable=False, in_memory=False)
    def test_a_memory_is_read_and_written(self, database: Database) -> None:
        url = database.url
        ok("memory", "put", "fox", '{"text": "a red fox", "n": 1.0}', "--metadata", '{"kind": "x"}', "--url", url)
        ok("memory", "put", "gone", "1", "--url", url, "-n", "users", "-n", "ada")
        assert ok("memory", "get", "fox", "--url", url, "--json").json["value"] == {"text": "a red fox", "n": 1.0}
        assert [line["key"] for line in ok("memory", "search", "foxes", "--url", url, "--json").lines] == ["fox"]
        assert len(ok("memory", "list", "--url", url, "--json").lines) == 2
        stats = ok("memory", "stats", "--url", url, "--json").json
        texts = ("fox", '{"text":"a red fox","n":1.0}', '{"kind":"x"}', "@users/ada.gone", "1")
        assert (stats["entries"], stats["bytes"]) == (2, sum(map(len, texts)))
        assert ok("memory", "delete", "gone", "--yes", "--json", "--url", url, "-n", "users", "-n", "ada").json == {
            "success": True,
            "deleted_count": 1,
        }
        assert existing_memory(url) == {
            "missing_file": None,
            "exists": True,
            "is_current": True,
            "full_text": True,
            "has_catalog": False,
        }
