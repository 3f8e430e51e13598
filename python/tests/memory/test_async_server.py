"""The example of a server: answers under random cancellation, and its shutdown."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from benchmarks.serving import EXAMPLE, USERS, serve
from databases import Database
from run_length import SEED, of_this_run
from the_edge_agent.memory import SQLAlchemyBackend


def test_no_answer_is_wrong_and_no_connection_is_left_under_random_cancellation(database: Database) -> None:
    outcome = serve(
        database.url,
        seconds=of_this_run(1.5, 60.0),
        users=of_this_run(50, USERS),
        seed=SEED,
        large=of_this_run(100_000, 1_000_000),
    )
    assert outcome.wrong == []
    assert outcome.connections_in_use == 0
    assert outcome.cancelled
    assert outcome.requests[200]


def test_a_shutdown_awaits_requests_and_keeps_what_they_stored(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/notes.db"
    with running(url) as (process, address):
        assert ask("PUT", f"{address}/notes/tea", {"X-User": "ada"}, b'"green"') == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    with SQLAlchemyBackend(url, errors="raise") as memory:
        assert memory.namespace("users", "ada").retrieve("tea")["value"] == "green"


@contextmanager
def running(url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the example in a process of its own, and yield its process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE.parent), "--port", str(port), "server:app"]
    process = subprocess.Popen(command, env={**os.environ, "TEA_LTM_URL": url}, stderr=subprocess.PIPE)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, process.communicate()[1].decode()
            with suppress(URLError):
                ask("GET", f"{address}/nothing")
                break
            time.sleep(0.1)
        yield process, address
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/notes/tea", {}, None, 401),
        ("GET", "/notes/tea", {"X-User": "ada"}, None, 404),
        ("PUT", "/notes/tea", {"X-User": "ada"}, b"no JSON", 400),
        ("PUT", "/notes/tea", {"X-User": "ada", "If-Match": "7"}, b"1", 409),
    ],
)
def test_failures_have_the_status_of_http(
    server: str, method: str, path: str, headers: dict[str, str], body: bytes | None, status: int
) -> None:
    assert ask(method, server + path, headers, body) == status


def ask(method: str, url: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> int:
    """Send a request and return the status of its answer."""
    try:
        with urlopen(Request(url, body, headers or {}, method=method)) as answer:
            status: int = answer.status
    except HTTPError as error:
        error.close()
        return error.code
    return status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(f"sqlite:///{tmp_path_factory.mktemp('server')}/notes.db") as (_, address):
        yield address
