"""`servers.py` starts real servers with passwords; none of them outlives the command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import servers
from dbservers.clusters import CLUSTERS
from dbservers.session import Session, variable

ENTRY = Path(servers.__file__)
TELL_AND_WAIT = "import os, signal; print(os.environ['TEST_POSTGRES_URL'], flush=True); signal.pause()"
SETTINGS = {"postgres": "TimeZone=Asia/Tokyo", "mariadb": "max_sort_length=2048", "mysql": "innodb_page_size=8192"}
SETTINGS_AND_WRONG_PASSWORDS = """
import os, sqlalchemy
questions = {"POSTGRES": "SHOW TimeZone", "MARIADB": "SELECT @@max_sort_length", "MYSQL": "SELECT @@innodb_page_size"}
for name, question in questions.items():
    url = sqlalchemy.make_url(os.environ[f"TEST_{name}_URL"])
    print(sqlalchemy.create_engine(url).connect().scalar(sqlalchemy.text(question)))
    for password in ("wrong", ""):
        try:
            sqlalchemy.create_engine(url.set(password=password)).connect()
        except sqlalchemy.exc.OperationalError:
            print("refused")
"""


THROUGH_A_POOLER = """
import os, sqlalchemy
urls = [sqlalchemy.make_url(os.environ[f"TEST_{name}_URL"]) for name in ("POSTGRES", "PGBOUNCER")]
for url in urls:
    connection = sqlalchemy.create_engine(url).connect()
    driver_pid = connection.connection.driver_connection.info.backend_pid
    print("same" if connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()")) == driver_pid else "other")
try:
    sqlalchemy.create_engine(urls[1].set(password="wrong")).connect()
except sqlalchemy.exc.OperationalError:
    print("refused")
"""


def command(*program: str, only: str = "postgres", settings: Sequence[str] = ()) -> list[str]:
    options = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, str(ENTRY), "run", "--only", only, *options, "--", *program]


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a command that waits for ever; the second value is the port of its server."""
    env = {name: value for name, value in os.environ.items() if name != "TEST_POSTGRES_URL"}
    argv = command(sys.executable, "-c", TELL_AND_WAIT)
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True, preexec_fn=_heed_hangups
    ) as process:
        assert process.stdout
        match = re.search(r":(\d+)/postgres", process.stdout.readline())
        assert match
        try:
            yield process, match[1]
        finally:
            if process.poll() is None:
                process.kill()


def _heed_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # if nohup runs the tests, it has made them ignore SIGHUP


def processes() -> list[tuple[int, int, str]]:
    output = subprocess.run(["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in output.splitlines()[1:]]
    return [(int(pid), int(parent), rest[0] if rest else "") for pid, parent, *rest in lines]


def server_of(port: str) -> tuple[int, int, Path] | None:
    """Return process, keeper and data folder of the server on a port."""
    for pid, parent, arguments in processes():
        match = re.search(rf"-D (\S+) .*port={port}\b", arguments)
        if match:
            return pid, parent, Path(match[1]).parent
    return None


def alive(pid: int) -> bool:
    return any(pid == other for other, _, _ in processes())


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_the_server_and_removes_the_data(number: signal.Signals) -> None:
    with running() as (process, port):
        server = server_of(port)
        assert server
        assert server[2].exists()
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert server_of(port) is None
        assert not server[2].exists()


def test_the_server_stops_and_its_data_goes_when_the_program_is_killed() -> None:
    with running() as (process, port):
        server = server_of(port)
        assert server
        os.killpg(process.pid, signal.SIGKILL)
        assert eventually(lambda: server_of(port) is None)
        assert eventually(lambda: not server[2].exists())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_the_server_stops_even_if_every_process_that_could_stop_it_is_killed() -> None:
    with running() as (process, port):
        server = server_of(port)
        assert server
        os.kill(server[1], signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        assert eventually(lambda: server_of(port) is None)
        shutil.rmtree(server[2])


def test_the_exit_code_is_the_one_of_the_command() -> None:
    done = subprocess.run(command(sys.executable, "-c", "raise SystemExit(7)"), check=False)
    assert done.returncode == 7


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    done = subprocess.run(command(absent), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (127, f"{absent}: No such file or directory\n")


def test_each_server_has_its_setting_and_refuses_a_wrong_password() -> None:
    settings = [f"{server}.{setting}" for server, setting in SETTINGS.items()]
    argv = command(sys.executable, "-c", SETTINGS_AND_WRONG_PASSWORDS, only=",".join(SETTINGS), settings=settings)
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert output == [
        word for setting in SETTINGS.values() for word in (setting.partition("=")[2], "refused", "refused")
    ]


def test_a_pooler_stands_before_the_postgresql_that_is_started_for_it() -> None:
    argv = command(sys.executable, "-c", THROUGH_A_POOLER, only="pgbouncer")
    env = {name: value for name, value in os.environ.items() if not name.startswith("TEST_")}
    output = subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout.split()
    assert output == ["same", "other", "refused"]


def test_a_setting_is_given_as_server_name_and_value() -> None:
    done = subprocess.run(command("true", settings=["mariadb.sql_mode"]), capture_output=True, text=True, check=False)
    assert (done.returncode, "'sql_mode' is not NAME=VALUE" in done.stderr) == (2, True)


def test_a_cluster_starts_only_if_it_is_named_and_its_variable_has_the_urls_of_its_nodes() -> None:
    assert [variable(name) for name in CLUSTERS] == ["TEST_GALERA_URLS", "TEST_GROUP_REPLICATION_URLS"]
    assert not set(CLUSTERS) & set(servers._arguments(["serve"]).only)
    assert servers._arguments(["serve", "--only", "galera"]).only == ["galera"]


def test_a_url_in_the_environment_is_used_unchanged_and_nothing_is_started() -> None:
    url = "mysql+pymysql://root:x@127.0.0.1:1/test"
    argv = command(sys.executable, "-c", "import os; print(os.environ['TEST_MYSQL_URL'])", only="mysql")
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "TEST_MYSQL_URL": url})
    assert (done.stdout.strip(), done.stderr) == (url, "")


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_server_that_is_not_available_is_named_with_its_reason_and_fails_the_run_in_ci(
    ci: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", ci)
    with Session([]) as session:
        session.missing["mysql"] = "no apt-get on this machine"
        assert servers.report(session) == code
    assert capsys.readouterr().err == "mysql: not available: no apt-get on this machine\n"
