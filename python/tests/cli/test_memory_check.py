"""`check_database` and `tea memory check`: what they report, and how they fail."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy.engine import make_url

from absent import WITHOUT_SQLALCHEMY
from databases import Database, PortableBackend
from memory_checks import STEPS, LeavesNothing, objects, on_files_and_servers, run_sql, steps_of, tea
from run_length import of_this_day
from the_edge_agent.cli.reports import check_report
from the_edge_agent.memory import LTMError, check_database
from the_edge_agent.memory.database.layouts import SCHEMA_VERSION
from the_edge_agent.memory.diagnostics import check as check_module
from the_edge_agent.memory.diagnostics import self_test
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.options import EngineOptions
from the_edge_agent.memory.sql.schema.tables import copy_tables

pytestmark = pytest.mark.slow

TEA: Final = Path(sys.executable).with_name("tea")
KEYS: Final = {
    *("success", "url", "missing_file", "server", "server_version", "dialect", "is_portable", "driver"),
    *("driver_version", "pool", "search_path", "filter_path", "limits", "schema", "self_test", "left_behind"),
}
PRODUCTS: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}


@pytest.fixture
def without_tables(database: Database) -> None:
    """Drop what earlier tests have made in the database."""
    for name in sorted(name for kind, name in objects(database.url) if kind == "table" and name.startswith("ltm_")):
        run_sql(database.url, f"DROP TABLE {name}")


class TestReport(LeavesNothing):
    @on_files_and_servers
    def test_it_tells_what_is_there_and_tests_it(self, database: Database, before: set[tuple[str, str]]) -> None:
        report = check_database(database.url)
        assert report["success"], report
        assert set(report) == KEYS
        assert report["server"] == PRODUCTS[database.target.family]
        assert report["server_version"][0].isdigit()
        assert report["driver_version"][0].isdigit()
        assert report["dialect"] == make_url(database.url).get_backend_name()
        assert steps_of(report) == [(name, True) for name in STEPS]
        assert all(step["ms"] >= 0 for step in report["self_test"])
        assert report["left_behind"] == []

    @on_files_and_servers
    def test_it_tells_the_pool_and_the_limits(self, database: Database) -> None:
        report = check_database(database.url, timeout=20)
        assert report["pool"] == {
            "class": "QueuePool",
            "size": 5,
            "max_overflow": 10,
            "timeout_seconds": 10.0,
            "connect_timeout_seconds": 10.0,
        }
        limits = report["limits"]
        assert (limits["key_characters"], limits["call_seconds"]) == (512, 20)
        has_packets = database.target.family in ("mysql", "mariadb")
        assert (limits["packet_bytes"] is not None, limits["entry_bytes"] is not None) == (has_packets, has_packets)
        assert not has_packets or 0 < limits["entry_bytes"] < limits["packet_bytes"]

    @on_files_and_servers
    def test_it_tells_the_version_of_the_tables_that_are_there(self, database: Database) -> None:
        with database.open() as memory:
            memory.store("kept", 1)
        there = objects(database.url)
        report = check_database(database.url)
        complete = {"state": "complete", "version": SCHEMA_VERSION, "missing_tables": [], "foreign_tables": []}
        assert report["schema"] == {**complete, "full_text": True, "language": "none"}
        assert objects(database.url) == there
        with database.open() as memory:
            assert [key for key, _, _ in memory.iterate_all()] == ["kept"]

    def test_it_tells_that_the_tables_are_not_there_yet(self) -> None:
        missing = [table.name for table in copy_tables().all()]
        absent = {"state": "absent", "version": None, "missing_tables": missing, "foreign_tables": []}
        assert check_database("sqlite://")["schema"] == {**absent, "full_text": None, "language": None}

    def test_tables_of_a_later_release_are_a_failure(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'later.db'}"
        PortableBackend(url).close()
        run_sql(url, "UPDATE ltm_schema_version SET version = 999")
        report = check_database(url)
        assert (report["success"], report["error_type"]) == (False, "configuration_error")
        assert "schema version 999" in report["error"]
        assert report["server"] == "SQLite"

    @on_files_and_servers
    @pytest.mark.parametrize("name", of_this_day([table.name for table in copy_tables().all()], 3))
    @pytest.mark.parametrize("kind", ["TABLE {} (x INT)", "VIEW {} AS SELECT 1 AS x"])
    def test_tables_of_another_layout_are_a_failure(
        self, database: Database, without_tables: None, name: str, kind: str
    ) -> None:
        run_sql(database.url, f"CREATE {kind.format(name)}")
        report = check_database(database.url)
        run_sql(database.url, f"DROP {kind.partition(' ')[0]} {name}")
        message = f"the database has a table {name} of another layout; use another database"
        assert (report["success"], report["error_type"], report["error"]) == (False, "configuration_error", message)
        assert (report["schema"]["state"], report["schema"]["foreign_tables"]) == ("foreign", [name])
        assert "self_test" not in report
        assert f"tables          not ours: {name} of another layout; use another database\n" in check_report(report)

    def test_a_foreign_table_beside_ours_is_a_failure(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'a.db'}"
        PortableBackend(url).close()
        assert check_database(url)["success"]  # without what SQLite's own class would add
        run_sql(url, "DROP TABLE ltm_catalog", "CREATE TABLE ltm_catalog (x INT)")
        assert check_database(url)["schema"]["foreign_tables"] == ["ltm_catalog"]

    def test_a_dialect_without_a_class_of_its_own_is_tested_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("the_edge_agent.memory.sql.schema.create.for_dialect", lambda dialect: Dialect)
        report = check_database("sqlite://")
        assert report["success"], report
        assert (report["is_portable"], report["server"], report["filter_path"]) == (True, "sqlite", "Python")

    def test_a_sqlite_file_keeps_its_journal_mode(self, tmp_path: Path) -> None:
        file = tmp_path / "application.db"
        run_sql(f"sqlite:///{file}", "CREATE TABLE application (id INTEGER)")
        assert check_database(f"sqlite:///{file}")["success"]
        assert file.read_bytes()[18:20] == b"\x01\x01"  # 2 is WAL
        assert os.listdir(tmp_path) == ["application.db"]

    @pytest.mark.parametrize(
        "form", ["sqlite:///{}", "sqlite:///file:{}?uri=true", "sqlite:///file:{}?mode=rwc&uri=true"]
    )
    def test_a_sqlite_file_that_is_not_there_is_not_made(self, tmp_path: Path, form: str) -> None:
        report = check_database(form.format(tmp_path / "new.db"))
        assert report["success"], report
        assert report["missing_file"] == str(tmp_path / "new.db")
        assert os.listdir(tmp_path) == []

    def test_nor_is_its_folder(self, tmp_path: Path) -> None:
        report = check_database(f"sqlite:///{tmp_path / 'none' / 'new.db'}")
        assert (report["success"], report["error_type"]) == (False, "connection_error")
        assert "there is no folder 'none'" in report["error"]
        assert os.listdir(tmp_path) == []


USERS: Final = {
    "postgresql": (
        "CREATE USER {user} PASSWORD '{password}'",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}",
    ),
    "mysql": ("CREATE USER {user} IDENTIFIED BY '{password}'", "GRANT SELECT ON {database}.* TO {user}"),
    "mariadb": ("CREATE USER {user} IDENTIFIED BY '{password}'", "GRANT SELECT ON {database}.* TO {user}"),
}
NO_USERS: Final = {
    "postgresql": ("DROP OWNED BY {user}", "DROP USER {user}"),
    "mysql": ("DROP USER {user}",),
    "mariadb": ("DROP USER {user}",),
}
READ_ONLY: Final = {
    "sqlite": {"mode": "ro", "uri": "true"},
    "postgresql": {"options": "-c default_transaction_read_only=on"},
    "mysql": {"init_command": "SET SESSION transaction_read_only = 1"},
    "mariadb": {"init_command": "SET SESSION tx_read_only = 1"},
}


@pytest.fixture
def reader(database: Database) -> Iterator[str]:
    """The URL of a user that may only read."""
    url = make_url(database.url)
    names = {"user": f"tea_{secrets.token_hex(4)}", "password": secrets.token_hex(8), "database": url.database}

    def run(statements: Sequence[str]) -> None:
        run_sql(database.url, *(statement.format(**names) for statement in statements))

    run(USERS[database.target.family])
    yield url.set(username=names["user"], password=names["password"]).render_as_string(hide_password=False)
    run(NO_USERS[database.target.family])


class TestFailures(LeavesNothing):
    @pytest.mark.targets(server=True, portable=False)
    def test_a_user_who_may_only_read(self, database: Database, before: set[tuple[str, str]], reader: str) -> None:
        report = check_database(reader)
        assert (report["success"], report["error_type"]) == (False, "query_error")
        assert report["error"].startswith("the self-test is not possible, its tables cannot be created: ")
        assert "lacks a privilege" in report["error"]
        assert report["server"] == PRODUCTS[database.target.family]
        assert steps_of(report) == [("create_tables", False), ("clean_up", True)]
        assert report["left_behind"] == []

    @on_files_and_servers
    def test_a_read_only_database(self, database: Database, before: set[tuple[str, str]]) -> None:
        url = make_url(database.url).update_query_dict(READ_ONLY[database.target.family])
        if database.target.family == "sqlite":
            url = url.set(database=f"file:{url.database}")
        report = check_database(url.render_as_string(hide_password=False))
        assert (report["success"], report["error_type"]) == (False, "connection_error")
        assert "its tables cannot be created: the database is read-only" in report["error"]
        assert report["limits"]["key_characters"] == 512

    @pytest.mark.targets(server=True, portable=False)
    def test_a_wrong_password(self, database: Database) -> None:
        url = make_url(database.url).set(password="wr0ng").render_as_string(hide_password=False)
        if check_database(url)["success"]:
            pytest.fail("the server takes every password")
        code, printed = tea("--url", url)
        assert code == 1
        assert printed.endswith("(auth_failed)\n")

    @pytest.mark.targets(server=True, portable=False)
    def test_an_unknown_database(self, database: Database) -> None:
        url = make_url(database.url).set(database="tea_no_such").render_as_string(hide_password=False)
        report = check_database(url)
        assert (report["error_type"], "no such database" in report["error"]) == ("connection_error", True)

    @pytest.mark.driver
    @pytest.mark.parametrize("drivername", ["postgresql+psycopg", "mysql+pymysql"])
    def test_a_server_that_is_silent(self, drivername: str) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            report = check_database(f"{drivername}://u:s3cret@127.0.0.1:{silent.getsockname()[1]}/d", timeout=1)
        assert report["error_type"] == "connection_timeout"
        assert "s3cret" not in str(report)

    @pytest.mark.parametrize(
        ("url", "error_type"),
        [
            ("nonsense", "configuration_error"),
            ("", "configuration_error"),
            (None, "configuration_error"),
            ("nodialect://u:s3cret@h/d", "configuration_error"),
            ("postgresql://u:s3cr@et@h/d", "configuration_error"),
            ("mysql+nodriver://u:s3cret@h/d", "configuration_error"),
            ("oracle+oracledb://u:s3cret@h/d", "dependency_missing"),
            ("postgresql://u:s3cret@127.0.0.1:1/d", "connection_error"),
            ("postgresql://127.0.0.1:1/d?password=s3cret&user=u", "connection_error"),
        ],
    )
    def test_a_url_that_leads_nowhere(self, url: Any, error_type: str) -> None:
        report = check_database(url)
        assert (report["success"], report["error_type"]) == (False, error_type)
        assert "s3cr" not in str(report)
        assert "et@h" not in str(report)

    @pytest.mark.parametrize("timeout", [0, -1, "soon", None, float("nan")])
    def test_a_timeout_that_is_none(self, timeout: Any) -> None:
        assert check_database("sqlite://", timeout)["error_type"] == "configuration_error"

    def test_the_time_of_all_steps_is_limited(self) -> None:
        report: dict[str, Any] = {}
        options = EngineOptions(timeout=5)
        check = check_module._Check("sqlite://", options, report)
        check._end -= 4.5  # what is left is for cleaning
        with pytest.raises(LTMError, match="the check did not end within 5 seconds"):
            check.run(make_url("sqlite://"))
        assert steps_of(report) == [("create_tables", False), ("clean_up", True)]


@pytest.mark.parametrize(
    ("step", "method", "answer"),
    [
        ("exact_values", "retrieve", {"success": True, "found": True, "value": {"a": 1, "b": 1}, "metadata": None}),
        ("search", "search", {"success": True, "results": [], "count": 0}),
        ("delete", "delete", {"success": True, "deleted": False}),
    ],
)
def test_a_memory_that_answers_wrongly_fails_the_self_test(step: str, method: str, answer: dict[str, Any]) -> None:
    with PortableBackend("sqlite://") as memory:
        for name, work in self_test.STEPS:
            if name == step:
                setattr(memory, method, lambda *_, **__: answer)
                with pytest.raises(LTMError, match=r"found .*, expected "):
                    work(memory)
                return
            work(memory)


class TestCommand(LeavesNothing):
    @on_files_and_servers
    def test_a_report_for_people_ends_with_ok(self, database: Database, before: set[tuple[str, str]]) -> None:
        code, printed = tea(TEA_URL=database.url)
        lines = printed.splitlines()
        assert (code, lines[-1]) == (0, "ok")
        assert lines[1].startswith(f"server          {PRODUCTS[database.target.family]} ")
        assert "self-test" in lines
        password = make_url(database.url).password
        assert password is None or password not in printed

    @on_files_and_servers
    def test_a_report_for_programs_is_one_json_object(self, database: Database) -> None:
        done = subprocess.run(
            [TEA, "memory", "check", "--url", database.url, "--json"], capture_output=True, check=False, timeout=60
        )
        report = json.loads(done.stdout)
        assert (done.returncode, done.stderr, report["success"]) == (0, b"", True)
        assert set(report) == KEYS
        password = make_url(database.url).password
        assert password is None or password.encode() not in done.stdout

    def test_a_failure_is_the_last_line_and_exits_1(self) -> None:
        code, printed = tea("--url", "postgresql://u:s3cret@127.0.0.1:1/d")
        assert code == 1
        assert printed.splitlines() == [
            "database        postgresql://u:***@127.0.0.1:1/d",
            "failed: cannot reach the database; is it running at this address? (127.0.0.1:1) (connection_error)",
        ]

    def test_a_failure_in_json_says_what_was_learnt(self, tmp_path: Path) -> None:
        run_sql(f"sqlite:///{tmp_path / 'a.db'}", "CREATE TABLE application (id INTEGER)")
        code, printed = tea("--json", "--url", f"sqlite:///file:{tmp_path / 'a.db'}?mode=ro&uri=true")
        report = json.loads(printed)
        assert (code, report["success"], report["error_type"]) == (1, False, "connection_error")
        assert report["server"] == "SQLite"

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--url"],
            ["--url", "sqlite://", "--timeout", "soon"],
            ["--url", "sqlite://", "--timeout", "0"],
            ["--url", "sqlite://", "--nope"],
            ["postgresql://u:s3cret@h/d"],
            ["--url", "sqlite://", "postgresql://u:s3cret@h/d"],
        ],
    )
    def test_wrong_usage_exits_2(self, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TEA_URL", raising=False)
        code, printed = tea(*arguments)
        assert code == 2
        assert "s3cret" not in printed

    @pytest.mark.parametrize(("url", "extra"), [("sqlite://", "sqlalchemy"), ("postgresql://h/d", "postgres")])
    def test_without_sqlalchemy_it_names_the_extra(self, url: str, extra: str) -> None:
        code = WITHOUT_SQLALCHEMY + (
            "from the_edge_agent.cli import main\n"
            "sys.argv = ['tea', 'memory', 'check', '--json', '--url', '" + url + "']\nmain()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
        report = json.loads(done.stdout)
        assert (done.returncode, report["error_type"]) == (1, "dependency_missing")
        assert f"the-edge-agent[{extra}]" in report["error"]
