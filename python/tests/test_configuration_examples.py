"""The configuration examples of the documentation, end to end through ``tea run`` on real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml
from sqlalchemy.engine import make_url

from databases import Database
from test_docs import COMMENT, ROOT, URL_VARIABLES, Block, blocks

PAGES: Final = (ROOT / "CLAUDE.md", ROOT / "docs" / "configuration.md")
TEA: Final = Path(sys.executable).with_name("tea")
FAMILY: Final = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
SCHEME: Final = {"postgresql": "postgresql", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}


def family_of(block: Block) -> str:
    comment = COMMENT.fullmatch(block.comment)
    return (comment and comment["server"]) or "sqlite"


def examples(family: str) -> list[str]:
    """Return the agents of the pages that name this kind of database."""
    found = [block for page in PAGES for block in blocks(page) if block.kind == "yaml" and "ltm:" in block.text]
    return [block.text for block in found if family_of(block) == FAMILY[family]]


def tea_run(folder: Path, agent: str, database: Database) -> subprocess.CompletedProcess[str]:
    (folder / "agent.yaml").write_text(agent, encoding="utf-8")
    environment = {**os.environ, "NO_COLOR": "1"}
    if database.target.server:
        url = make_url(database.url).set(drivername=SCHEME[database.target.family])
        variable = URL_VARIABLES[FAMILY[database.target.family]]
        environment[variable] = url.render_as_string(hide_password=False)
    command = [str(TEA), "run", "agent.yaml", "-o", "state.json"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.targets(portable=False, in_memory=False)
def test_each_example_remembers_across_runs(database: Database, tmp_path: Path) -> None:
    assert len(examples(database.target.family)) == len(PAGES)
    for agent in examples(database.target.family):
        first, second = (tea_run(tmp_path, agent, database) for _ in range(2))
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        state = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
        assert state["stored"] is True
        assert state["version"] >= 2
        password = make_url(database.url).password
        assert password is None or str(password) not in first.stderr + first.stdout


@pytest.mark.targets(portable=False, in_memory=False)
def test_a_catalog_block_is_refused_for_now(database: Database, tmp_path: Path) -> None:
    for agent in examples(database.target.family):
        loaded = yaml.safe_load(agent)
        loaded["settings"]["ltm"]["catalog"] = {"type": "sqlalchemy"}
        done = tea_run(tmp_path, yaml.safe_dump(loaded), database)
        assert done.returncode == 1
        assert "settings.ltm.catalog is not supported yet" in done.stderr
        assert not (tmp_path / "state.json").exists()


@pytest.mark.targets(server=True, portable=False)
def test_a_wrong_password_stops_the_run_and_is_not_shown(database: Database, tmp_path: Path) -> None:
    secret = "c4nary-s3cret"
    url = make_url(database.url).set(password=secret).render_as_string(hide_password=False)
    for lazy in (True, False):
        agent = {
            "settings": {"ltm": {"url": url, "lazy": lazy, "echo": True}},
            "nodes": [{"name": "remember", "uses": "ltm.store", "with": {"key": "k", "value": 1}}],
        }
        done = tea_run(tmp_path, yaml.safe_dump(agent), database)
        assert done.returncode == 1
        assert "refused the user name or password" in done.stderr
        assert secret not in done.stderr + done.stdout
