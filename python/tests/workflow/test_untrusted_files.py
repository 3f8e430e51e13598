"""A file that may not run code can use only the memory and the variables that the host passes to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from the_edge_agent.cli.app import app
from the_edge_agent.memory import SQLAlchemyBackend, SQLiteBackend
from the_edge_agent.workflow import NodeError, WorkflowFileError, YAMLEngine

pytestmark = pytest.mark.slow

SECRET = "s3cret-value"
NODES = "nodes: [{name: a, uses: ltm.count, output: n}]\n"
OPTIONS = {
    "url": "sqlite:///../../x.db",
    "path": "x.db",
    "db_path": "/tmp/x.db",
    "backend": "sqlite",
    "connect_args": "{init_command: DROP TABLE users}",
    "engine_args": "{creator: os.system}",
    "storage": "{uri: 'reference://', options: {fo: {}}}",
    "options": "{echo: true}",
    "table_name": "users",
    "catalog": "{type: sqlalchemy, url: 'sqlite:///x.db'}",
    "create_tables": "false",
    "echo": "true",
    "lazy": "true",
    "pool_size": "1000000",
    "nonsense": "1",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TEA_TEST_SECRET", SECRET)
    monkeypatch.setenv("TEA_TEST_ALLOWED", "7")
    return folder


@pytest.fixture
def memory() -> Iterator[SQLiteBackend]:
    with SQLiteBackend() as memory:
        memory.store("of the host", 1)
        yield memory


def refusal(text: str, **options: Any) -> str:
    path = Path("agent.yaml")
    path.write_text(text, encoding="utf-8")
    with YAMLEngine(allow_code=False, **options) as engine, pytest.raises(WorkflowFileError) as caught:
        engine.load_from_file(path)
    assert SECRET not in str(caught.value)
    root = path.absolute().parents[3]
    assert [found.name for found in root.rglob("*") if found.is_file()] == ["agent.yaml"], "nothing was made"
    return str(caught.value)


def final_state(text: str, **options: Any) -> dict[str, Any]:
    path = Path("agent.yaml")
    path.write_text(text, encoding="utf-8")
    with YAMLEngine(allow_code=False, **options) as engine:
        [final] = engine.load_from_file(path).invoke()
    state: dict[str, Any] = final["state"]
    return state


@pytest.mark.parametrize("option", OPTIONS)
def test_it_cannot_configure_a_memory(option: str, memory: SQLiteBackend) -> None:
    nested = f"settings:\n  ltm:\n    {option}: {OPTIONS[option]}\n{NODES}"
    assert refusal(nested).startswith(f"agent.yaml:3:5: `settings.ltm.{option}`: a file that may not run code can't")
    flat = f"settings:\n  ltm_{option}: {OPTIONS[option]}\n{NODES}"
    assert refusal(flat).startswith(f"agent.yaml:2:3: `settings.ltm_{option}`: a file that may not run code can't")
    merged = f"settings:\n  ltm:\n    <<: {{{option}: {OPTIONS[option]}}}\n{NODES}"
    assert refusal(merged, ltm_backend=memory).startswith("agent.yaml:3:10: `settings.ltm.")


def test_the_memory_that_the_host_gives_is_used_and_never_replaced(memory: SQLiteBackend) -> None:
    with YAMLEngine(allow_code=False, ltm_backend=memory) as engine:
        graph = engine.load_from_dict({"nodes": [{"name": "a", "uses": "ltm.count", "output": "n"}]})
        with pytest.raises(WorkflowFileError, match="can't configure its memory"):
            engine.load_from_dict(
                {"settings": {"ltm": {"url": "sqlite://"}}, "nodes": [{"name": "a", "uses": "ltm.count"}]}
            )
        [final] = graph.invoke()
        assert final["state"]["n"]["count"] == 1
        assert engine.ltm_backend is memory


def test_a_memory_that_the_host_configures_may_have_all_options(tmp_path: Path) -> None:
    config = {"url": f"sqlite:///{tmp_path / 'm.db'}", "table_name": "mine"}
    assert final_state(NODES, ltm_config=config)["n"]["count"] == 0


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ("x: ${TEA_TEST_SECRET}", "2:6"),
        ("x: 'a ${TEA_TEST_SECRET} b'", "2:6"),
        ("x: [1, {y: '${TEA_TEST_SECRET}'}]", "2:14"),
        ("x: &a {y: '${TEA_TEST_SECRET}'}", "2:13"),
        ("x: '${TEA_TEST_ALLOWED} ${TEA_TEST_SECRET}'", "2:6"),
        ("x: '${TEA_TEST_ALLOWED:-${TEA_TEST_SECRET}}'", "0:0"),
    ],
)
def test_it_reads_no_variable_that_the_host_has_not_named(variables: str, place: str) -> None:
    text = f"variables:\n  {variables}\nnodes: [{{name: a, uses: ltm.count, output: {{x: '{{{{ variables.x }}}}'}}}}]\n"
    for env in (["TEA_TEST_ALLOWED"], {"TEA_TEST_ALLOWED": "7"}):
        if place == "0:0":  # a default is text: it is never looked up
            assert SECRET not in str(final_state(text, env=env))
            continue
        message = refusal(text, env=env)
        assert message.startswith(
            f"agent.yaml:{place}: the environment variable TEA_TEST_SECRET is not set among those"
        )


@pytest.mark.parametrize("env", [["TEA_TEST_ALLOWED"], {"TEA_TEST_ALLOWED": "7"}, ("TEA_TEST_ALLOWED", "NOT_SET")])
def test_it_reads_those_that_the_host_names(env: Any) -> None:
    text = "variables: {x: '${TEA_TEST_ALLOWED}', y: '${TEA_TEST_SECRET:-none}'}\n"
    text += "nodes: [{name: a, uses: ltm.count, output: {x: '{{ variables }}'}}]\n"
    assert final_state(text, env=env)["x"] == {"x": 7, "y": "none"}


@pytest.mark.parametrize("env", ["TEA_TEST_ALLOWED", [1], {"A": 1}, {1: "A"}])
def test_a_wrong_list_of_variables_is_refused(env: Any) -> None:
    with pytest.raises(TypeError, match="env"):
        YAMLEngine(env=env)


def test_env_holds_for_trusted_files_too() -> None:
    agent = {"settings": {"ltm": {"url": "${TEA_TEST_SECRET}"}}, "nodes": [{"name": "a", "uses": "ltm.count"}]}
    with YAMLEngine(env=["TEA_TEST_ALLOWED"]) as engine:
        with pytest.raises(WorkflowFileError, match="TEA_TEST_SECRET is not set among those"):
            engine.load_from_dict(agent)
        agent["settings"] = {"ltm": {"url": "sqlite://", "pool_size": "${TEA_TEST_ALLOWED}"}}
        engine.load_from_dict(agent)


@pytest.mark.parametrize(
    "node",
    [
        "run: x = 1",
        "run: {type: expression, value: 1}",
        "uses: file.read, with: {path: /etc/passwd}",
        "uses: http.get, with: {url: 'http://127.0.0.1'}",
        "uses: os.system",
        "uses: __import__",
        "uses: ltm.store.__globals__",
        "uses: ltm.store, with: {key: k, value: 1, memory: x}",
        "uses: ltm.store, with: {key: k, value: 1, state: x}",
        "uses: ltm.count, output: '{{ state }}'",
        *(
            'uses: ltm.store, with: {key: k, value: "' + template + '"}'
            for template in (
                "{% include '/etc/passwd' %}",
                "{% import 'os' as os %}",
                "{% from 'os' import system %}",
                "{% extends 'base' %}",
                "{{ self }}",
                "{{ cycler }}",
                "{{ lipsum.__globals__ }}",
                "{{ __import__('os') }}",
            )
        ),
        "uses: !!python/name:os.system ''",
        "script: x = 1",
        "steps: [{run: x = 1}]",
        "subgraph: ../other.yaml",
    ],
)
def test_it_can_do_nothing_but_call_the_actions_of_the_host(node: str) -> None:
    assert refusal(f"nodes:\n  - {{name: a, {node}}}\n").startswith("agent.yaml:2:")


@pytest.mark.parametrize("name", ["env.TEA_TEST_SECRET", "secrets.token", "settings.llm", "settings.ltm.url"])
def test_it_finds_no_variable_secret_or_setting_of_the_host(name: str) -> None:
    text = f"nodes: [{{name: a, uses: ltm.count, output: {{x: '{{{{ {name} }}}}'}}}}]\n"
    Path("agent.yaml").write_text(text, encoding="utf-8")
    with YAMLEngine(allow_code=False, env=["TEA_TEST_ALLOWED"]) as engine:
        graph = engine.load_from_file("agent.yaml")
        with pytest.raises(NodeError, match="is missing") as caught:
            list(graph.invoke())
    assert SECRET not in str(caught.value)


def test_it_finds_what_the_host_gives() -> None:
    text = "nodes: [{name: a, uses: ltm.count, output: {x: '{{ [env, secrets, settings] }}'}}]\n"
    assert final_state(text)["x"] == [{}, {}, {}]
    given = final_state(text, env=["TEA_TEST_ALLOWED"], secrets={"token": "t"})
    assert given["x"] == [{"TEA_TEST_ALLOWED": "7"}, {"token": "t"}, {}]


def test_text_that_looks_like_a_variable_or_a_path_stays_text(memory: SQLiteBackend) -> None:
    text = """
name: ${TEA_TEST_SECRET}
description: ${TEA_TEST_SECRET}
initial_state: {a: "${TEA_TEST_SECRET}", b: "{{ state }}"}
nodes:
  - {name: "${TEA_TEST_SECRET}", uses: ltm.store, with: {key: "../../${TEA_TEST_SECRET}", value: "${TEA_TEST_SECRET}"}}
  - {name: b, uses: ltm.retrieve, with: {key: "../../${TEA_TEST_SECRET}"}, output: "../../c"}
  - {name: c, uses: ltm.store, with: {key: d, value: "{{ state.a }} {{ state.b }}"}}
"""
    assert SECRET not in json.dumps(final_state(text, ltm_backend=memory))
    assert memory.retrieve("d")["value"] == "${TEA_TEST_SECRET} {{ state }}"
    assert [path.name for path in Path().absolute().parents[2].rglob("*") if path.is_file()] == ["agent.yaml"]


# --- the command -------------------------------------------------------------------------------------


def tea_run(*arguments: str, text: str = NODES) -> Any:
    Path("agent.yaml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(app, ["run", "agent.yaml", *arguments])


def test_the_command_gives_a_memory_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLAlchemyBackend("sqlite:///host.db") as host:
        host.store("k", 1)
    done = tea_run("--no-code", "--url", "sqlite:///host.db")
    assert json.loads(done.stdout)["n"]["count"] == 1
    monkeypatch.setenv("TEA_TEST_URL", "sqlite:///host.db")
    assert json.loads(tea_run("--no-code", "--url", "${TEA_TEST_URL}").stdout)["n"]["count"] == 1
    text = (
        "variables: {x: '${TEA_TEST_ALLOWED}'}\nnodes: [{name: a, uses: ltm.count, output: {x: '{{ variables.x }}'}}]"
    )
    assert json.loads(tea_run("--no-code", "--env", "TEA_TEST_ALLOWED", text=text).stdout) == {"x": 7}
    assert json.loads(tea_run(text=text).stdout) == {"x": 7}, "a trusted file reads them all"
    for arguments in (["--no-code"], ["--no-code", "--env", "TEA_TEST_SECRET"], ["--env", "TEA_TEST_SECRET"]):
        done = tea_run(*arguments, text=text)
        assert (done.exit_code, "TEA_TEST_ALLOWED is not set among those" in done.stderr) == (1, True)


def test_the_memory_of_the_command_is_not_replaced_by_a_file() -> None:
    text = "settings: {ltm: {url: 'sqlite:///other.db'}}\n" + NODES
    for arguments in (["--url", "sqlite://"], ["--no-code", "--url", "sqlite://"], ["--no-code"]):
        done = tea_run(*arguments, text=text)
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: agent.yaml:1:")
    assert not Path("other.db").exists()
