"""`tea memory export|import|copy`: files that get their name when complete, reports, exit codes and interruptions."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

import cli_calls
from databases import Database, Databases, Target
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLiteBackend, export_entries

pytestmark = pytest.mark.slow

TEA: Final = Path(sys.executable).with_name("tea")
ENTRIES: Final = 12_000  # in the large memory
on_files_and_servers = pytest.mark.targets(portable=False, in_memory=False)


def tea(*arguments: str, given: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Run ``tea memory``; return the exit code, stdout and stderr."""
    done = cli_calls.tea("memory", *arguments, given=given, **environment)
    return done.code, done.stdout, done.stderr


def piped(*arguments: str, given: bytes = b"") -> tuple[int, str, str]:
    """Run ``tea memory`` as a process, because it reads from a pipe or writes to one."""
    command = [str(TEA), "memory", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a file with a hundred entries."""
    url = f"sqlite:///{tmp_path / 'source.db'}"
    with SQLAlchemyBackend(url, errors="raise") as memory:
        memory.store_many([{"key": f"k{n:03}", "value": n, "ttl": 3600 if n % 2 else None} for n in range(99)])
        memory.namespace("users", "ada").store("note", "\x1b[31mred")
    return url


def lines_of(url: str) -> list[bytes]:
    with SQLAlchemyBackend(url, create_tables=False) as memory:
        file = io.BytesIO()
        export_entries(memory, file)
        return file.getvalue().splitlines()[1:]


@on_files_and_servers
def test_export_import_and_copy_keep_everything(
    database: Database, target: Target, databases: Databases, url: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "memory.jsonl")
    assert tea("export", "--url", url, "-o", file)[0] == 0
    if target.family == "sqlite":
        assert tea("copy", "--url", url, "--to", database.url)[1].startswith("100 stored, ")
    else:
        code, out, err = tea("import", file, "--url", database.url, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["imported_count"] == 100
    assert lines_of(database.url) == lines_of(url)
    assert json.loads(tea("import", file, "--url", database.url, "--json")[1])["unchanged_count"] == 100


class TestExport:
    def test_stdout_has_the_file_and_stderr_the_report(self, url: str) -> None:
        code, out, err = piped("export", "--url", url)
        assert code == 0
        assert [line.encode() for line in out.splitlines()[1:]] == lines_of(url)
        assert err == f"100 entries, SHA-256 {json.loads(out.splitlines()[-1])['sha256']}\n"

    def test_a_namespace_alone_or_with_those_below(self, url: str) -> None:
        def entries(*more: str) -> Any:
            return json.loads(tea("export", "--url", url, "-o", os.devnull, "--json", *more)[1])["entries"]

        assert [entries(), entries("-n", "users"), entries("-n", "users", "--nested")] == [100, 0, 1]
        assert entries("-n", "users", "-n", "ada") == 1

    def test_the_memory_is_found_by_option_variable_or_file(self, url: str, tmp_path: Path) -> None:
        agent = tmp_path / "agent.yaml"
        agent.write_text(f"settings: {{ltm: {{backend: sqlalchemy, url: '{url}'}}}}\n")
        assert tea("export", "-o", os.devnull, "-f", str(agent))[0] == 0
        assert tea("export", "-o", os.devnull, TEA_LTM_URL=url)[0] == 0
        assert tea("export", "-o", os.devnull, TEA_URL=url)[0] == 0
        code, _, err = tea("export", "-o", os.devnull)
        assert (code, "which memory?" in err) == (2, True)

    def test_a_failed_export_leaves_the_older_file(self, tmp_path: Path) -> None:
        file = tmp_path / "memory.jsonl"
        file.write_text("older")
        code, _, err = tea("export", "--url", f"sqlite:///{tmp_path / 'absent.db'}", "-o", str(file))
        assert (code, file.read_text()) == (1, "older")
        assert err.startswith("Error: ")
        assert [each.name for each in tmp_path.iterdir()] == ["memory.jsonl"]

    def test_damaged_entries_are_named_and_the_file_has_all_others(self, url: str, tmp_path: Path) -> None:
        import sqlite3

        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("UPDATE ltm_entries SET value = '{' WHERE key = 'k007'")
        connection.close()
        file = tmp_path / "memory.jsonl"
        code, out, err = tea("export", "--url", url, "-o", str(file))
        assert (code, out) == (1, "")
        assert "all entries but 1 damaged: 'k007'" in err
        assert len(file.read_bytes().splitlines()) == 101
        code, out, err = tea("import", str(file), "--url", f"sqlite:///{tmp_path / 'target.db'}")
        assert (code, out[:10]) == (1, "99 stored,")
        assert "lacks 1 entries" in err

    def test_a_file_that_cannot_be_written_is_an_error(self, url: str, tmp_path: Path) -> None:
        code, _, err = tea("export", "--url", url, "-o", str(tmp_path / "absent" / "file"))
        assert (code, "there is no such folder" in err) == (1, True)
        code, _, err = tea("export", "--url", url, "-o", "/dev/full")
        assert (code, "No space left" in err) == (1, True)


class TestImport:
    @pytest.fixture
    def file(self, url: str, tmp_path: Path) -> bytes:
        file = tmp_path / "memory.jsonl"
        assert tea("export", "--url", url, "-o", str(file))[0] == 0
        return file.read_bytes()

    @pytest.fixture
    def target_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'target.db'}"

    def test_a_pipe_is_read_from_stdin(self, file: bytes, url: str, target_url: str) -> None:
        code, out, err = piped("import", "-", "--url", target_url, given=file)
        assert (code, err) == (0, "")
        assert out == "100 stored, 0 replaced, 0 unchanged, 0 skipped, 0 expired\n"
        assert lines_of(target_url) == lines_of(url)

    def test_a_conflict_names_the_entry(self, file: bytes, target_url: str) -> None:
        with SQLAlchemyBackend(target_url, errors="raise") as memory:
            memory.namespace("users", "ada").store("note", 1)
        code, _, err = tea("import", "-", "--url", target_url, given=file)
        assert (code, "'@users/ada.note' is there already, version 1" in err) == (1, True)
        code, out, _ = tea("import", "-", "--url", target_url, "--on-conflict", "skip", given=file)
        assert (code, out[:44]) == (0, "99 stored, 0 replaced, 0 unchanged, 1 skipped"[:44])

    def test_a_file_that_is_cut_off_is_an_error(self, file: bytes, target_url: str) -> None:
        code, _, err = tea("import", "-", "--url", target_url, given=file[:-100])
        assert (code, "the file is cut off" in err) == (1, True)

    def test_an_absent_file_is_an_error(self, target_url: str, tmp_path: Path) -> None:
        code, _, err = tea("import", str(tmp_path / "absent"), "--url", target_url)
        assert (code, "can't read" in err) == (1, True)
        assert not Path(target_url.removeprefix("sqlite:///")).exists()

    def test_a_new_table_gets_the_language_of_the_memory(self, tmp_path: Path, target_url: str) -> None:
        with SQLiteBackend(tmp_path / "german.db", language="german", errors="raise") as memory:
            memory.store("k", "Häuser")
        file = str(tmp_path / "memory.jsonl")
        assert tea("export", "--url", f"sqlite:///{tmp_path / 'german.db'}", "-o", file)[0] == 0
        for _ in range(2):
            assert tea("import", file, "--url", target_url)[0] == 0
        with SQLAlchemyBackend(target_url) as memory:
            assert memory.language == "german"
            assert memory.search("Haus")["count"] == 1

    def test_wrong_usage_has_code_2(self, target_url: str) -> None:
        assert tea("import")[0] == 2
        assert tea("import", "-", "--url", target_url, "--on-conflict", "ignore")[0] == 2


class TestRowsOfOthers:
    @pytest.fixture
    def target_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'target.db'}"

    def test_csv_and_lines_of_json(self, target_url: str) -> None:
        fields = ("--key", "id", "--value", "text", "--metadata", "kind", "--url", target_url, "-n", "rows")
        for form, given in (("csv", b"id,text,kind\n1,fox,a\n"), ("rows", b'{"id": 1, "text": "fox", "kind": "a"}\n')):
            code, out, err = tea("import", "-", "--format", form, *fields, given=given)
            assert (code, err) == (0, ""), form
            assert out.startswith("1 stored" if form == "csv" else "0 stored, 0 replaced, 1 unchanged")
        with SQLAlchemyBackend(target_url) as memory:
            entry = memory.namespace("rows").retrieve("1")
            assert (entry["value"], entry["metadata"]) == ("fox", {"kind": "a"})

    def test_a_database_of_another_program(self, target_url: str, tmp_path: Path) -> None:
        import sqlite3

        with sqlite3.connect(tmp_path / "store.db") as connection:
            connection.execute(
                "CREATE TABLE store (prefix text, key text, value text, created_at text, updated_at text)"
            )
            connection.execute(
                "INSERT INTO store VALUES ('a.b', 'k', '{}', '2024-01-01 00:00:00', '2024-01-01 00:00:00')"
            )
        connection.close()
        source = f"sqlite:///{tmp_path / 'store.db'}"
        assert tea("import", source, "--format", "langgraph", "--url", target_url)[1].startswith("1 stored")
        code, _, err = tea("import", source, "--format", "tea", "--url", target_url)
        assert (code, "does not have a table ltm_entries" in err) == (1, True)

    def test_options_of_another_format_are_wrong_usage(self, target_url: str) -> None:
        assert tea("import", "-", "--key", "id", "--url", target_url)[0] == 2


class TestBackup:
    def test_backups_together_restore_everything(self, url: str, tmp_path: Path) -> None:
        files = [str(tmp_path / f"{number}.jsonl") for number in range(3)]
        code, out, _ = tea("backup", files[0], "--url", url)
        assert (code, out[:11]) == (0, "100 entries")
        since = out.split()[-1]
        with SQLAlchemyBackend(url, catalog="sqlalchemy", errors="raise") as memory:
            memory.delete("k000")
            memory.store("k001", "changed")
        report = json.loads(tea("backup", files[1], "--url", url, "--since", since, "--json")[1])
        assert report["deleted_count"] == 1
        code, file, err = piped("backup", "-", "--url", url, "--since", report["snapshot_id"], "--no-sync")
        assert (code, "for the next backup: --since" in err) == (0, True)
        Path(files[2]).write_text(file)
        target_url = f"sqlite:///{tmp_path / 'target.db'}"
        code, out, err = tea("restore", *files, "--url", target_url)
        assert (code, err) == (0, "")
        assert out == "99 stored, 0 replaced, 0 unchanged, 0 skipped, 0 expired, 0 deleted, 3 snapshots\n"
        assert lines_of(target_url) == lines_of(url)
        code, _, err = tea("restore", files[2], "--url", f"sqlite:///{tmp_path / 'other.db'}")
        assert (code, "which the memory does not have" in err) == (1, True)

    def test_no_memory_is_made_to_back_it_up(self, tmp_path: Path) -> None:
        code, _, err = tea("backup", str(tmp_path / "file"), "--url", f"sqlite:///{tmp_path / 'absent.db'}")
        assert (code, err[:6]) == (1, "Error:")
        assert not [*tmp_path.iterdir()]


class TestInterruption:
    @pytest.fixture(scope="class")
    @classmethod
    def large(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        """The URL of a memory whose copy takes some seconds."""
        url = f"sqlite:///{tmp_path_factory.mktemp('large') / 'large.db'}"
        with SQLAlchemyBackend(url, errors="raise") as memory:
            memory.import_entries({"key": f"k{n:06}", "value": f"word{n} fox"} for n in range(ENTRIES))
        return url

    @pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
    def test_the_same_command_goes_on(self, large: str, tmp_path: Path, sent: signal.Signals, code: int) -> None:
        target_url = f"sqlite:///{tmp_path / 'target.db'}"
        command = [str(TEA), "memory", "copy", "--url", large, "--to", target_url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and _count(target_url) == 0:
            time.sleep(0.02)  # there is nothing else to wait for: another process works
        process.send_signal(sent)
        process.communicate(timeout=60)
        assert process.returncode == code
        before = _count(target_url)
        assert 0 < before < ENTRIES
        report: Any = json.loads(tea("copy", "--url", large, "--to", target_url, "--json")[1])
        assert (report["imported_count"], report["unchanged_count"]) == (ENTRIES - before, before)
        assert lines_of(target_url) == lines_of(large)


def _count(url: str) -> int:
    if not Path(url.removeprefix("sqlite:///")).exists():
        return 0
    try:
        with SQLAlchemyBackend(url, create_tables=False, errors="raise") as memory:
            return memory.count()["count"]
    except LTMError:  # the tables are not there yet
        return 0
