"""The words of an agent file: an unknown word is refused, with its name and its place in the file."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from the_edge_agent import WorkflowFileError, YAMLEngine
from the_edge_agent.workflow.load_nodes import NODE
from the_edge_agent.workflow.loader import TOP


def load(text: str) -> None:
    path = Path("agent.yaml")
    path.write_text(text, encoding="utf-8")
    with YAMLEngine() as engine:
        engine.load_from_file(path)


def refusal(text: str) -> str:
    with pytest.raises(WorkflowFileError) as caught:
        load(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def dict_refusal(config: Any) -> str:
    with YAMLEngine() as engine, pytest.raises(WorkflowFileError) as caught:
        engine.load_from_dict(config)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ONE_NODE = "nodes:\n  - name: one\n    run: x = 1\n"


def test_everything_the_language_has_is_accepted() -> None:
    load(
        "name: a\ndescription: b\nvariables: {c: 1}\ninitial_state: {d: 2}\n"
        "settings: {ltm: {backend: sqlalchemy, url: 'sqlite://'}}\n"
        "nodes:\n"
        "  - {name: one, description: e, run: x = 1}\n"
        "  - {name: two, uses: ltm.store, with: {key: k, value: 1, metadata: {m: 1}}, output: stored}\n"
        "  - {name: three, uses: ltm.search, output: {found: '{{ result.count }}'}}\n"
    )


@pytest.mark.parametrize("word", ["name", "description", "variables", "initial_state", "settings"])
def test_a_heading_without_contents_is_fine_except_for_text(word: str) -> None:
    text = f"{word}:\n{ONE_NODE}"
    if word in ("name", "description"):
        assert refusal(text) == f"agent.yaml:1:{len(word) + 2}: `{word}` must be text, not nothing"
    else:
        load(text)


@pytest.mark.parametrize("word", ["interrupt_before", "interrupt_after", "checkpoint_dir"])
def test_later_words_of_the_configuration_are_refused_by_name(word: str) -> None:
    message = f"agent.yaml:4:10: `{word}` is not supported yet"
    assert refusal(f"{ONE_NODE}config: {{{word}: []}}\n") == message


@pytest.mark.parametrize(
    "word",
    [
        "steps",
        "type",
        "items",
        "condition",
        "body",
        "subgraph",
    ],
)
def test_later_words_of_a_node_are_refused_by_name(word: str) -> None:
    assert refusal(f"{ONE_NODE}    {word}: x\n").startswith(f"agent.yaml:4:5: `{word}` is not supported yet")


def test_settings_that_there_are_not_are_refused_by_name() -> None:
    message = refusal(f"settings:\n  graph: {{model: x}}\n{ONE_NODE}")
    assert message.startswith(
        "agent.yaml:2:3: `settings.graph` is not supported yet; only `ltm`, `llm` and `parallel` are"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{ONE_NODE}nodse: []", "agent.yaml:4:1: unknown word `nodse`; did you mean `nodes`?"),
        (f"{ONE_NODE}edgs: []", "agent.yaml:4:1: unknown word `edgs`; did you mean `edges`?"),
        (f"{ONE_NODE}zzz: 1", f"agent.yaml:4:1: unknown word `zzz`; known are {', '.join(f'`{w}`' for w in TOP)}"),
        (f"{ONE_NODE}    outputs: x", "agent.yaml:4:5: unknown word `outputs`; did you mean `output`?"),
        (f"{ONE_NODE}    zzz: x", f"agent.yaml:4:5: unknown word `zzz`; known are {', '.join(f'`{w}`' for w in NODE)}"),
    ],
)
def test_unknown_words_are_refused_with_the_nearest_known_one(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "agent.yaml: the file is empty; an agent has `nodes`"),
        ("# nothing\n", "agent.yaml: the file is empty; an agent has `nodes`"),
        ("null", "agent.yaml:1:1: the file is empty; an agent has `nodes`"),
        ("hello", "agent.yaml:1:1: an agent is a mapping with `nodes`, not text"),
        ("- name: one", "agent.yaml:1:1: an agent is a mapping with `nodes`, not a list"),
        ("name: a", "agent.yaml:1:1: an agent needs `nodes`"),
        ("nodes:", "agent.yaml:1:1: `nodes` must be a list of at least one node, not nothing"),
        ("nodes: []", "agent.yaml:1:1: `nodes` must be a list of at least one node, not an empty list"),
        ("nodes: {one: {}}", "agent.yaml:1:1: `nodes` must be a list of at least one node, not a mapping"),
        ("nodes: [one]", "agent.yaml:1:9: a node is a mapping with a `name` and a body, not text"),
        ("name: 5\nnodes: []", "agent.yaml:1:7: `name` must be text, not a number"),
        ("name: true\nnodes: []", "agent.yaml:1:7: `name` must be text, not true"),
        ("variables: [1]\nnodes: []", "agent.yaml:1:12: `variables` must be a mapping, not a list"),
        ("initial_state: x\nnodes: []", "agent.yaml:1:16: `initial_state` must be a mapping, not text"),
        ("settings: 1.5\nnodes: []", "agent.yaml:1:11: `settings` must be a mapping, not a number"),
        (
            "settings: {ltm: }\nnodes: []",
            "agent.yaml:1:12: `settings.ltm` is empty: give it a `backend`, or leave it out",
        ),
    ],
)
def test_the_shape_of_a_file(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("{run: x = 1}", "1:9: a node needs a `name`"),
        ("{name: 1, run: x = 1}", "1:16: `name` must be text, not a number"),
        ("{name: '', run: x = 1}", "1:16: `` can't be the name of a node"),
        ("{name: __end__, run: x = 1}", "1:16: `__end__` can't be the name of a node"),
        ("{name: a}", "1:9: node `a` has no body: give it `run` or `uses`"),
        ("{name: a, run: x = 1, uses: ltm.store}", "1:31: node `a` has `run` and `uses`; it takes exactly one"),
        ("{name: a, run: x = 1, output: b}", "1:31: `output` goes with `uses`, not with `run`"),
        ("{name: a, run: x = 1, with: {}}", "1:31: `with` goes with `uses`, not with `run`"),
        ("{name: a, run: }", "1:23: `run` must be text, not nothing"),
        ("{name: a, run: ' '}", "1:24: `run` of node `a` is empty"),
        ("{name: a, run: {type: x}}", "1:31: `type` can't be `x`; known are `expression`"),
        ("{name: a, description: [], run: x = 1}", "1:32: `description` must be text, not a list"),
        ("{name: a, uses: 5}", "1:25: `uses` must be text, not a number"),
        ("{name: a, uses: ltm.stor}", "1:25: unknown action `ltm.stor`; did you mean `ltm.store`?"),
        (
            "{name: a, uses: actions.ltm_stor}",
            "1:25: unknown action `actions.ltm_stor`; did you mean `actions.ltm_store`?",
        ),
        ("{name: a, uses: llm.calls}", "1:25: unknown action `llm.calls`; did you mean `llm.call`?"),
        ("{name: a, uses: catalog.search}", "1:25: unknown action `catalog.search`; there are `catalog.changes`, "),
        ("{name: a, uses: ltm.delet}", "1:25: unknown action `ltm.delet`; there are `ltm.cleanup`, "),
        ("{name: a, uses: ltm.clean}", "1:25: unknown action `ltm.clean`; there are `ltm.cleanup`, "),
        ("{name: a, uses: ltm.delete, with: [k]}", "1:43: `with` must be a mapping, not a list"),
        ("{name: a, uses: ltm.delete, with: '{{ state.x }}'}", "1:43: `with` must be a mapping, not text"),
        ("{name: a, uses: ltm.search, output: }", "1:44: `output` is the name of a key"),
        ("{name: a, uses: ltm.search, output: [b]}", "1:45: `output` is the name of a key"),
        ("{name: a, uses: ltm.search, output: {}}", "1:45: `output` is the name of a key"),
        ("{name: a, uses: ltm.search, output: '{{ x }}'}", "1:45: `output` is the name of a key"),
    ],
)
def test_the_shape_of_a_node(node: str, message: str) -> None:
    assert refusal(f"nodes: [{node}]").startswith(f"agent.yaml:{message}")


def test_an_action_that_is_like_no_other_is_told_which_there_are() -> None:
    message = refusal("nodes: [{name: a, uses: zzz}]")
    assert message.endswith("; there are `catalog.*`, `file.*`, `http.*`, `json.*`, `llm.*`, `ltm.*`, `memory.*`")
    message = refusal("nodes: [{name: a, uses: json.zzz}]")
    assert message.endswith("; there are `json.parse`, `json.stringify`")


def test_names_of_nodes_are_unique() -> None:
    assert refusal(ONE_NODE + "  - {name: one, run: y = 1}") == "agent.yaml:4:12: there is already a node `one`"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{kye: k, value: 1}", "agent.yaml:1:43: action `ltm.store` has no argument `kye`; did you mean `key`?"),
        ("{state: {}, value: 1}", "agent.yaml:1:43: action `ltm.store` has no argument `state`"),
        ("{key: k}", "agent.yaml:1:25: action `ltm.store` needs the argument `value`"),
    ],
)
def test_arguments_of_actions_are_checked_before_anything_runs(arguments: str, message: str) -> None:
    assert refusal(f"nodes: [{{name: a, uses: ltm.store, with: {arguments}}}]").startswith(message)


def test_search_calls_its_filter_metadata_filter() -> None:
    message = refusal("nodes: [{name: a, uses: ltm.search, with: {filter: {}}}]")
    assert message.endswith("has no argument `filter`; did you mean `metadata_filter`?")


def test_the_second_name_of_an_action_is_known_too() -> None:
    load("nodes: [{name: a, uses: actions.ltm_search}]")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ state.a", "not a valid template: unexpected end of template"),
        ("{{ state. }}", "not a valid template: expected name or number"),
        ("{% if %}", "not a valid template: Expected an expression"),
        ("{{ state.a | nope }}", "not a valid template: No filter named 'nope'."),
        ("{{ topic }}", "unknown name `topic` in a template; values of the state are written `state.topic`"),
        ("{{ sate.a }}", "unknown name `sate` in a template; did you mean `state`?"),
        ("{{ result.a }}", "`result` is not known here"),
        ("{{ self }}", "unknown name `self` in a template"),
        ("{{ checkpoint.dir }}", "`checkpoint` is not supported in templates yet"),
        ("{% include 'x' %}", "a template can't use `include`"),
        ("{% import 'x' as y %}", "a template can't use `import`"),
        ("{% extends 'x' %}", "a template can't use `extends`"),
        ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "not a valid template: nested too deeply"),
    ],
)
def test_templates_are_checked_when_the_file_is_loaded(template: str, problem: str) -> None:
    text = f'nodes:\n  - name: a\n    uses: ltm.search\n    with:\n      metadata_filter: {{x: [1, "{template}"]}}\n'
    message = refusal(text)
    assert message.startswith(f"agent.yaml:5:32: {problem}")


def test_output_templates_are_checked_too() -> None:
    message = refusal("nodes:\n  - name: a\n    uses: ltm.search\n    output: {x: '{{ resul.x }}'}\n")
    assert message == "agent.yaml:4:17: unknown name `resul` in a template; did you mean `result`?"


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("run: x = = 1", "3:1"),
        ("run: |\n      x = 1\n      y = = 1", "5:1"),
        ("run: |\n      x = 1\n       y = 1", "5:1"),
        ("run: |\n      return = 1", "4:1"),
        ("run: yield 1", "3:1"),
        ("run: break", "3:1"),
        ("run: x = " + "(" * 500 + "1" + ")" * 500, "3:1"),
        ("run: x = " + "-" * 200_000 + "1", "3:10"),
        ('run: "x = \\ud800"', "3:10"),
    ],
)
def test_python_is_checked_when_the_file_is_loaded(code: str, place: str) -> None:
    assert refusal(f"nodes:\n  - name: a\n    {code}\n").startswith(f"agent.yaml:{place}: node `a`: not valid Python:")


@pytest.mark.parametrize("name", ["state", "variables", "actions", "json"])
def test_run_may_not_assign_what_it_is_given(name: str) -> None:
    message = refusal(f"nodes:\n  - name: a\n    run: |\n      x = 1\n      {name} = {{}}\n")
    assert message == f"agent.yaml:5:1: node `a`: `{name}` is given to the code and can't be assigned"


def test_code_can_be_forbidden() -> None:
    with YAMLEngine(allow_code=False) as engine:
        engine.load_from_dict({"nodes": [{"name": "a", "uses": "ltm.search"}]})
        with pytest.raises(WorkflowFileError, match="node `b` runs Python code, which is not allowed here"):
            engine.load_from_dict({"nodes": [{"name": "b", "run": "x = 1"}]})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "the file is empty; an agent has `nodes`"),
        ([], "an agent is a mapping with `nodes`, not a list"),
        ({1: 2}, "keys must be text, not 1"),
        ({"nodes": [{"name": "a", "uses": "ltm.stor"}]}, "nodes[0].uses: unknown action `ltm.stor`"),
        ({"nodes": [{"name": "a", "run": "x = = 1"}]}, "nodes[0].run: node `a`: not valid Python: "),
        ({"nodes": [{"name": "a", "uses": "ltm.search", "with": {1: 2}}]}, "nodes[0].with: keys must be text, not 1"),
        ({"nodes": [{"name": "a", "run": "x\0y"}]}, "nodes[0].run: node `a`: not valid Python: "),
        ({"nodes": "x" * 5000}, "nodes: `nodes` must be a list of at least one node, not text"),
    ],
)
def test_a_dict_is_checked_like_a_file(config: Any, message: str) -> None:
    assert dict_refusal(config).startswith(message)


def test_a_dict_that_cannot_be_copied_is_refused() -> None:
    assert dict_refusal({"initial_state": {"lock": Lock()}}).startswith(
        "the configuration can't be copied: TypeError: "
    )


def test_a_dict_that_contains_itself_is_refused() -> None:
    arguments: dict[str, Any] = {}
    arguments["metadata_filter"] = arguments
    message = dict_refusal({"nodes": [{"name": "a", "uses": "ltm.search", "with": arguments}]})
    assert "contains itself" in message


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with YAMLEngine() as engine:
        for name, message in [
            ("missing.yaml", "missing.yaml: can't read the file: No such file or directory"),
            (".", ".: can't read the file: Is a directory"),
            ("latin.yaml", "latin.yaml: not UTF-8 text: byte 9 can't be read"),
            ("a\0b", "can't read the file: embedded null byte"),
        ]:
            with pytest.raises(WorkflowFileError) as caught:
                engine.load_from_file(name)
            assert message in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ONE_NODE.replace("\n", "\r\n").encode())
    with YAMLEngine() as engine:
        engine.load_from_file(path)


def test_the_dict_is_copied() -> None:
    config: dict[str, Any] = {
        "initial_state": {"items": [1]},
        "nodes": [{"name": "a", "run": "x = len(state['items'])"}],
    }
    with YAMLEngine() as engine:
        graph = engine.load_from_dict(config)
        config["initial_state"]["items"].append(2)
        assert next(graph.invoke())["state"]["x"] == 1
