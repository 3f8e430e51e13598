"""How a program with the native PostgreSQL classes ends, what it prints to stderr, what its children leave alone."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from databases import Database

pytestmark = pytest.mark.targets(family="postgresql", native=True)

# Programs that close nothing; `url` leads to a database, `silent` to a port that never answers.
PROGRAMS = {
    "a memory": "memory = PostgresBackend(url)\nmemory.count()",
    "a memory with a catalog": "memory = PostgresBackend(url, catalog='postgres')\nmemory.store('k', 1)",
    "a catalog": "catalog = PostgresCatalog(url)\ncatalog.list_entries()",
    "an iteration": "memory = PostgresBackend(url)\nmemory.store('k', 1)\nnext(memory.iterate_all())",
    "SystemExit": "memory = PostgresBackend(url)\nmemory.count()\nraise SystemExit(0)",
    "a memory of a function": "(lambda: PostgresBackend(url).count())()",
    "a cycle": "memory = PostgresBackend(url)\nmemory.count()\nmemory.itself = memory\ndel memory",
    "a workflow": (
        "engine = YAMLEngine()\n"
        "engine.load_from_dict({'name': 'a', 'settings': {'ltm': {'backend': 'postgres', 'url': url}},\n"
        "    'nodes': [{'name': 'n', 'uses': 'ltm.count'}]}).invoke({})"
    ),
    "a silent server": "memory = PostgresBackend(silent, lazy=True, timeout=0.5)\nassert not memory.count()['success']",
    "no server": "memory = PostgresBackend(nowhere, lazy=True)\nassert not memory.count()['success']",
    "a lost connection": (
        "memory = PostgresBackend(url, timeout=1)\n"
        "try: memory._database.run(lambda c: c.execute('SELECT pg_terminate_backend(pg_backend_pid())'))\n"
        "except LTMError: pass\n"
        "assert memory.count()['success']"
    ),
    "an exit handler of its own": (
        "memory = PostgresBackend(url, lazy=True)\n"
        "atexit.register(lambda: memory.count()['success'] or print('closed too early', file=sys.stderr))"
    ),
}
BEGIN = """
import atexit, sys
from the_edge_agent import YAMLEngine
from the_edge_agent.memory import LTMError, PostgresBackend, PostgresCatalog

url, silent, nowhere = sys.argv[1:]
"""


def run_program(code: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    begun = time.monotonic()
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments]  # of os.fork
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done, time.monotonic() - begun


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_closes_nothing_ends_at_once_and_without_a_word(database: Database, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"postgresql://u:p@127.0.0.1:{listener.getsockname()[1]}/x"
        done, seconds = run_program(BEGIN + PROGRAMS[name], database.url, silent, "postgresql://u:p@127.0.0.1:1/x")
    assert (done.returncode, done.stderr) == (0, "")
    assert seconds < 4


FORKING = """
import os, sys
from the_edge_agent.memory import PostgresBackend

memory = PostgresBackend(sys.argv[1])
session = lambda: memory._database.run(lambda c: c.info.backend_pid)
alive = lambda: memory._database.run(lambda c: c.execute("SELECT pg_backend_pid()").fetchone()[0])
before = session()
pid = os.fork()
if pid == 0:
    {child}
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert session() == alive() == before
"""


@pytest.mark.parametrize("child", ["pass", "memory.close()", "assert memory.count()['success']", "del memory"])
def test_a_child_that_ends_leaves_the_connections_of_its_parent_alone(database: Database, child: str) -> None:
    done, seconds = run_program(FORKING.format(child=child), database.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert seconds < 4
