"""The configuration examples of the documentation, run with ``tea run`` on real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from sqlalchemy.engine import make_url
from test_docs import COMMENT, ROOT, URL_VARIABLES, Block, blocks

from cli_calls import Done, tea
from databases import Database
from run_length import of_this_day
from the_edge_agent import WorkflowFileError, YAMLEngine
from the_edge_agent.memory import SQLAlchemyCatalog, compute_content_hash

pytestmark = pytest.mark.slow

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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tea_run(agent: str, database: Database) -> Done:
    """Run an agent in this process, which is quicker."""
    Path("agent.yaml").write_text(agent, encoding="utf-8")
    environment = {}
    if database.target.server:
        url = make_url(database.url).set(drivername=SCHEME[database.target.family])
        variable = URL_VARIABLES[FAMILY[database.target.family]]
        environment[variable] = url.render_as_string(hide_password=False)
    return tea("run", "agent.yaml", "-o", "state.json", **environment)


def tea_process(agent: str) -> subprocess.CompletedProcess[str]:
    """Run an agent in a process of its own, with all that it logs."""
    Path("agent.yaml").write_text(agent, encoding="utf-8")
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run([str(TEA), "run", "agent.yaml"], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.targets(portable=False, in_memory=False)
def test_each_example_remembers_across_runs(database: Database, tmp_path: Path) -> None:
    assert len(examples(database.target.family)) >= len(PAGES)
    agents = examples(database.target.family)
    for agent in of_this_day(agents, 1) if database.target.server else agents:
        first, second = (tea_run(agent, database) for _ in range(2))
        assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
        state = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
        assert state["stored"] is True
        assert state["version"] >= 2
        password = make_url(database.url).password
        assert password is None or str(password) not in first.stderr + first.stdout


CATALOGS: Final[dict[str, Any]] = {
    "a name": "sqlalchemy",
    "a type": {"type": "SQLAlchemy"},
    "options": {"type": "sqlalchemy", "pool_size": "${CATALOG_POOL_SIZE:-2}", "lazy": True, "echo": False},
    "the same url": {"url": "${LTM_URL}", "lazy": "${CATALOG_LAZY:-true}"},
    "another url": {"type": "sqlalchemy", "url": "sqlite:///./catalog.db", "pool_size": 1, "lazy": False},
}
LEDGER: Final = [
    {"name": "remember", "uses": "ltm.store", "with": {"key": "k", "value": {"n": 1}, "ttl": 3600}, "output": "stored"},
    {"name": "look", "uses": "catalog.get", "with": {"key": "k"}, "output": "found"},
]


@pytest.mark.targets(portable=False, in_memory=False)
@pytest.mark.parametrize("form", of_this_day(CATALOGS, 2))
def test_each_form_of_a_catalog_block_keeps_the_ledger(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("LTM_URL", database.url)
    settings = {"ltm": {"backend": "sqlalchemy", "url": "${LTM_URL}", "catalog": CATALOGS[form]}}
    done = tea_run(yaml.safe_dump({"settings": settings, "nodes": LEDGER}), database)
    assert done.code == 0, done.stderr
    found = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))["found"]
    assert found["entry"]["content_hash"] == compute_content_hash({"n": 1})
    assert found["entry"]["expires_at"] > found["entry"]["created_at"]
    other_url = f"sqlite:///{tmp_path / 'catalog.db'}"
    with SQLAlchemyCatalog(database.url) as here, SQLAlchemyCatalog(other_url) as elsewhere:
        tracked = [catalog.get_entry("k") is not None for catalog in (here, elsewhere)]
    assert tracked == [form != "another url", form == "another url"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("sqlalchmy", "catalog.type: unknown LTM catalog 'sqlalchmy'; known: postgres, sqlalchemy"),
        ({"pool_sise": 2}, "catalog has no key 'pool_sise'; did you mean 'pool_size'?"),
        ({"url": "sqlite:///./no/such/folder/catalog.db"}, "cannot"),
        ([], "catalog must be the name of a catalog"),
    ],
    ids=["unknown", "key", "unreachable", "list"],
)
def test_a_bad_catalog_block_stops_loading(block: Any, message: str) -> None:
    settings = {"ltm": {"url": "sqlite://", "catalog": block}}
    with YAMLEngine() as engine, pytest.raises(WorkflowFileError) as caught:
        engine.load_from_dict({"settings": settings, "nodes": LEDGER})
    assert str(caught.value).startswith("settings.ltm")
    assert message in str(caught.value)


@pytest.mark.targets(server=True, portable=False)
def test_a_catalog_s_wrong_password_stops_the_run_and_is_not_shown(database: Database) -> None:
    secret = "c4nary-s3cret"
    url = make_url(database.url).set(password=secret).render_as_string(hide_password=False)
    settings = {"ltm": {"url": "sqlite:///./ltm.db", "catalog": {"url": url, "lazy": False, "echo": True}}}
    done = tea_process(yaml.safe_dump({"settings": settings, "nodes": LEDGER}))
    assert done.returncode == 1
    assert "refused the user name or password" in done.stderr
    assert secret not in done.stderr + done.stdout


@pytest.mark.targets(server=True, portable=False)
def test_a_wrong_password_stops_the_run_and_is_not_shown(database: Database) -> None:
    secret = "c4nary-s3cret"
    url = make_url(database.url).set(password=secret).render_as_string(hide_password=False)
    for lazy in (True, False):
        agent = {
            "settings": {"ltm": {"url": url, "lazy": lazy, "echo": True}},
            "nodes": [{"name": "remember", "uses": "ltm.store", "with": {"key": "k", "value": 1}}],
        }
        done = tea_process(yaml.safe_dump(agent))
        assert done.returncode == 1
        assert "refused the user name or password" in done.stderr
        assert secret not in done.stderr + done.stdout
