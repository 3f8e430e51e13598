"""``goto``: a node says itself which node follows."""

from __future__ import annotations

from typing import Any

import pytest

from agents import failure, nodes, path, refusal


def agent(goto: Any, **rest: Any) -> dict[str, Any]:
    first, *others = nodes("abcd")
    return {"nodes": [{**first, "goto": goto}, *others], **rest}


def test_the_name_of_a_node() -> None:
    assert path(agent("c")) == ["a", "c", "d"]
    assert path(agent("__end__")) == ["a"]


def test_the_first_rule_whose_condition_is_true() -> None:
    rules = [{"if": "state.n > 2", "to": "__end__"}, {"if": "n", "to": "d"}, {"to": "c"}]
    assert path(agent(rules), {"n": 3}) == ["a"]
    assert path(agent(rules), {"n": 1}) == ["a", "d"]
    assert path(agent(rules), {"n": 0}) == ["a", "c", "d"]


def test_it_comes_before_edges() -> None:
    edges = [{"from": "a", "to": "b"}, {"from": "c", "to": "__end__"}]
    assert path(agent("c", edges=edges)) == ["a", "c"]


def test_a_node_may_go_to_itself() -> None:
    first = {"name": "a", "run": "n = state.get('n', 0) + 1", "goto": [{"if": "state.n < 3", "to": "a"}, {"to": "b"}]}
    assert path({"nodes": [first, *nodes("b")]}) == ["a", "a", "a", "b"]


def test_no_rule_that_matches_is_an_error() -> None:
    error = failure(agent([{"if": "n", "to": "c"}, {"if": "!m", "to": "d"}]), {"m": 1})
    assert str(error) == (
        "node `a`: no way leads on, because no condition is true: `n` (to `c`), `!m` (to `d`);"
        " add one without a condition"
    )
    assert error.error_type == "routing_error"


FILE = """
nodes:
  - name: one
    run: x = 1
    goto: {}
  - name: two
    run: y = 1
"""


@pytest.mark.parametrize(
    ("goto", "message"),
    [
        ("twoo", "5:11: `goto` names the non-existent node `twoo`; did you mean `two`?"),
        ("__start__", "5:11: `goto` names the non-existent node `__start__`"),
        ("", "5:10: `goto` is the name of a node, or a list of `{if: condition, to: node}`, not nothing"),
        ("[]", "5:11: `goto` is the name of a node, or a list of `{if: condition, to: node}`, not an empty list"),
        ("{to: two}", "5:11: `goto` is the name of a node, or a list of `{if: condition, to: node}`, not a mapping"),
        ("[two]", "5:12: a rule of `goto` is a mapping with 'if' and 'to', not text"),
        ("[{if: x}]", "5:12: a rule of `goto` needs 'to', the name of a node"),
        ("[{if: x, to: three}]", "5:24: `to` names the non-existent node `three`; there are `one`, `two`, `__end__`"),
        ("[{when: x, to: two}]", "5:13: unknown word `when`; known are `if`, `to`"),
        ("[{to: two}, {if: x, to: one}]", "5:12: only the last rule of `goto` may have no `if`: those after it"),
        ("[{if: state., to: two}]", "5:17: the condition `state.`: not a valid template: "),
        ("[{if: result.ok, to: two}]", "5:17: the condition `result.ok`: `result` is not known here: the node has put"),
        ("[{if: '{{ result }}', to: two}]", "5:17: the condition `{{ result }}`: `result` is not known here: "),
    ],
)
def test_a_wrong_goto_is_refused(goto: str, message: str) -> None:
    assert refusal(FILE.replace("{}", goto)).startswith(f"a.yaml:{message}")


@pytest.mark.parametrize("word", ["action", "params", "next"])
def test_words_of_other_programs_are_refused_with_what_to_write(word: str) -> None:
    message = refusal(FILE.replace("goto: {}", f"{word}: x"))
    instead = {"action": "write `uses`", "params": "write `with`", "next": "write `goto`"}[word]
    assert message.startswith(f"a.yaml:5:5: there is no `{word}` here: {instead}")
