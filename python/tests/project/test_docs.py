"""Every example in the documentation runs and does what the text says.

In README.md, CLAUDE.md, CONTRIBUTING.md and the pages of docs/, in the order of the file, in one empty folder with a
copy of examples/:

- `python` blocks are run, with one namespace for the file.
- `yaml` blocks with `nodes:` are agents: they are loaded and run.
- `console` blocks: each `$ tea ...` line is run, and prints what stands below it (a line `...` stands for any lines,
  and ` ...` for the rest of a line); other commands are for the reader.
- `bash` and `sql` blocks are for the reader: a comment says why they are not run. Other blocks are text.

A comment before a block may say several things in this order, or one:

- `<!-- file: agent.yaml server: postgresql input: {"a": 1} -->` saves an agent under that name, runs the block only
  where the tests have that server, and gives the agent its input. The URL of the server is in TEA_LTM_URL, and in
  POSTGRES_URL or MYSQL_URL. All blocks of a page that name a server have the same database there. `pgbouncer` is a
  server too. So are `postgresql-tls` and `mysql-tls`, which take encrypted connections only; `ca.pem` in the folder
  has signed them.
- `<!-- file: agent.yaml run: below -->` saves the agent, and `console` blocks below run it.
- `<!-- not run: why -->` leaves the block alone.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from databases import Databases, chosen_targets, drop_tables
from the_edge_agent import YAMLEngine
from the_edge_agent.cli.app import app
from tls_servers import TLSServers

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CLAUDE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"^(?:<!-- (?P<comment>[^\n]*?) -->\n\n?)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMENT = re.compile(
    r"(?=file: |server: |input: )(?:file: (?P<file>\S+))?(?P<below> run: below)?"
    r"(?: ?server: (?P<server>[a-z-]+))?(?: ?input: (?P<input>\{.*\}))?"
)
URL_VARIABLES = {
    "postgresql": "POSTGRES_URL",
    "mysql": "MYSQL_URL",
    "mariadb": "MYSQL_URL",
    "pgbouncer": "POSTGRES_URL",
    "postgresql-tls": "POSTGRES_URL",
    "mysql-tls": "MYSQL_URL",
}
FOR_THE_READER = ("bash", "sh", "sql")
VARIABLE = re.compile(r"\w+=")
# What the shell reads as more than words, and options that change how this process writes its log.
FOR_THE_SHELL = re.compile(r"[<>;&$`*?~]| -v")
TEA_COMMAND = re.compile(r"(?:\w+=\S* )*tea ")


@dataclass(frozen=True)
class Block:
    """A fenced block: what kind, what text, where it begins and what the comment before it says."""

    kind: str
    text: str
    line: int
    comment: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        yield Block(match["kind"], match["text"], line, match["comment"] or "")


@pytest.fixture(autouse=True)
def _as_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.db*"))
    monkeypatch.chdir(tmp_path)
    for variable in ("LTM_URL", "TEA_LTM_URL", "TEA_URL", *URL_VARIABLES.values()):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("the_edge_agent.memory.contract.backend._backends._registered", {})
    monkeypatch.setattr("the_edge_agent.memory.contract.catalog._catalogs._registered", {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_in_the_documentation(
    page: Path, monkeypatch: pytest.MonkeyPatch, servers: Callable[[str], str | None]
) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        comment = COMMENT.fullmatch(block.comment)
        server = comment["server"] if comment else None
        if block.comment.startswith("not run: ") or (server and not servers(server)):
            continue
        name = f"{page.name}:{block.line}"
        with monkeypatch.context() as environment:
            if server:
                environment.setenv("TEA_LTM_URL", servers(server) or "")
                environment.setenv(URL_VARIABLES[server], servers(server) or "")
            run(block, name, namespace)


@pytest.fixture
def servers(databases: Databases, tmp_path: Path, tls: TLSServers) -> Callable[[str], str | None]:
    """What returns the URL of an empty database on a server, by its name in the pages; None without this server."""
    present = {target.name: target for target in chosen_targets()}

    @functools.cache
    def url_of(server: str) -> str | None:
        family, _, encrypted = server.partition("-")
        target = present.get("postgresql-pgbouncer" if server == "pgbouncer" else family)
        if target is None:
            return None
        database = databases.empty(target, tmp_path)
        engine = create_engine(database.url, poolclass=NullPool)
        drop_tables(engine)  # other tests make tables for exact words
        if not encrypted:
            return database.url
        shutil.copy(tls.certificates["ca"], tmp_path / "ca.pem")
        return tls.url_of(database).render_as_string(hide_password=False)

    return url_of


def run(block: Block, name: str, namespace: dict[str, Any]) -> None:
    if block.kind == "python":
        run_python(block, name, namespace)
    elif block.kind == "yaml":
        run_yaml(block, name)
    elif block.kind == "console":
        run_console(block, name)


def run_python(block: Block, name: str, namespace: dict[str, Any]) -> None:
    padding = "\n" * block.line  # so that a traceback has the line of the page
    exec(compile(padding + block.text, name, "exec", dont_inherit=True), namespace)


def run_yaml(block: Block, name: str) -> None:
    comment = COMMENT.fullmatch(block.comment)
    path = Path(comment["file"] if comment and comment["file"] else f"{name.replace(':', '-')}.yaml")
    path.write_text(block.text, encoding="utf-8")
    if (comment and comment["below"]) or not re.search(r"^nodes:", block.text, re.MULTILINE):
        return
    state = json.loads(comment["input"] or "{}") if comment else {}
    with YAMLEngine() as engine:
        *_, final = engine.load_from_file(path).invoke(state)
    assert final["type"] == "final", name


def run_console(block: Block, name: str) -> None:
    for session in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = session.partition("\n")
        if not TEA_COMMAND.match(command):
            continue
        printed = printed_by(command).rstrip()
        pattern = r"[^\0]*".join(
            r" .*".join(re.escape(line_part) for line_part in re.split(r" \.\.\.$", part, flags=re.MULTILINE))
            for part in re.split(r"^\.\.\.$", expected.rstrip(), flags=re.MULTILINE)
        )
        assert re.fullmatch(pattern, printed), f"{name}: $ {command}\nprinted:\n{printed}\nthe page says:\n{expected}"


def printed_by(command: str) -> str:
    """Run a line of a shell and return what it prints. A command ``tea`` runs in this process, which is quicker."""
    tea, _, filters = command.partition(" | ")
    if FOR_THE_SHELL.search(re.sub(r"'[^']*'", "", tea)):
        tea, filters = "", command
    words = shlex.split(tea)
    variables = [*takewhile(lambda word: VARIABLE.match(word), words)]
    errors, given = "", b""
    if words:
        environment = dict(word.split("=", 1) for word in variables)
        result = CliRunner(env=environment).invoke(app, words[len(variables) + 1 :], catch_exceptions=False)
        if not filters:
            return result.output
        errors, given = result.stderr, result.stdout_bytes
    done = subprocess.run(
        ["/bin/sh", "-c", filters], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    return errors + done.stdout.decode("utf-8")


def test_a_block_that_no_test_runs_says_why() -> None:
    silent = [
        f"{page.name}:{block.line}"
        for page in PAGES
        for block in blocks(page)
        if block.kind in FOR_THE_READER and not block.comment.startswith("not run: ")
    ]
    assert silent == []


def test_a_comment_says_what_the_tests_understand() -> None:
    for page in PAGES:
        for block in blocks(page):
            comment = COMMENT.fullmatch(block.comment)
            assert comment or not block.comment or block.comment.startswith("not run: "), (page.name, block)
            assert not comment or (comment["server"] or "mysql") in URL_VARIABLES, (page.name, block)


def test_there_are_examples_to_run() -> None:
    kinds = [block.kind for page in PAGES for block in blocks(page)]
    assert {"python", "yaml", "console"} <= set(kinds)


def test_a_wrong_example_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nassert 1 == 2\n```\n\n"
        "<!-- file: a.yaml input: {} -->\n```yaml\nnodes: [{name: a, run: x = 1 / 0}]\n```\n\n"
        "```console\n$ tea --version\ntea 9.9.9\n$ rm -rf nothing\n```\n",
        encoding="utf-8",
    )
    python, yaml, console = blocks(page)
    with pytest.raises(AssertionError):
        run_python(python, "page.md:1", {})
    with pytest.raises(Exception, match="ZeroDivisionError"):
        run_yaml(yaml, "page.md:6")
    with pytest.raises(AssertionError, match=r"the page says:\s+tea 9\.9\.9"):
        run_console(console, "page.md:10")
