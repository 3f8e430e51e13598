"""What happens after a node fails: ``retry``, ``fallback``, ``on_error``."""

from __future__ import annotations

from typing import Any

import pytest

from agents import events, failure, final_state, nodes, path, refusal
from the_edge_agent.workflow import running


class Flaky:
    """An action that fails a number of times."""

    def __init__(self, failures: int, error_type: str = "timeout") -> None:
        self.failures, self.error_type, self.calls = failures, error_type, 0

    def __call__(self, state: Any) -> dict[str, Any]:
        self.calls += 1
        if self.calls <= self.failures:
            return {"success": False, "error": f"no {self.calls}", "error_type": self.error_type}
        return {"success": True, "n": self.calls}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(running, "sleep", waits.append)
    return waits


def flaky(action: Flaky, **words: Any) -> dict[str, Any]:
    """Return the arguments of an agent whose node calls an action that fails."""
    agent = {"nodes": [{"name": "a", "uses": "my.flaky", **words}, *nodes("bc")]}
    return {"agent": agent, "actions_registry": {"my.flaky": action}}


class TestRetry:
    def test_a_node_is_tried_again(self, waits: list[float]) -> None:
        action = Flaky(2)
        assert final_state(**flaky(action, retry={}, output="x"))["x"]["n"] == action.calls == 3
        assert waits == [0, 0]

    def test_up_to_max_attempts_in_all(self, waits: list[float]) -> None:
        action = Flaky(9)
        error = failure(**flaky(action, retry={"max_attempts": 4, "backoff_seconds": 0.5}))
        assert (action.calls, waits) == (4, [0.5, 1.0, 2.0])
        assert str(error) == "node `a`: `my.flaky` failed: no 4 (timeout)"

    def test_a_wait_is_five_minutes_at_most(self, waits: list[float]) -> None:
        failure(**flaky(Flaky(9), retry={"max_attempts": 5, "backoff_seconds": 100}))
        assert waits == [100, 200, 300, 300]

    def test_only_after_the_errors_that_are_named(self, waits: list[float]) -> None:
        retry = {"max_attempts": 3, "on": ["conflict", "timeout"]}
        assert final_state(**flaky(Flaky(2), retry=retry))["n"] == 3
        action = Flaky(2, "validation_error")
        failure(**flaky(action, retry=retry))
        assert action.calls == 1

    def test_each_attempt_of_code_begins_with_the_state_before_the_node(self, waits: list[float]) -> None:
        text = "state['list'].append(1)\nactions.my_flaky()\nreturn {'n': len(state['list'])}"
        agent = {"nodes": [{"name": "a", "run": text, "retry": {"max_attempts": 3}}]}
        action = Flaky(2)
        assert final_state(agent, {"list": []}, actions_registry={"my.flaky": action}) == {"list": [1], "n": 1}
        assert action.calls == 3

    def test_an_untrusted_file_cannot_wait_for_ever(self, waits: list[float]) -> None:
        node = {"name": "a", "uses": "my.flaky", "retry": {"max_attempts": 100, "backoff_seconds": 60}}
        error = failure({"nodes": [node]}, allow_code=False, actions_registry={"my.flaky": Flaky(999)})
        assert error.error_type == "budget_error"
        assert sum(waits) < 300


class TestFallback:
    def test_another_node_runs_instead(self) -> None:
        assert path(**flaky(Flaky(9), fallback="c")) == ["a", "c"]
        assert path(**flaky(Flaky(0), fallback="c")) == ["a", "b", "c"]

    def test_after_all_attempts_and_before_edges(self, waits: list[float]) -> None:
        action = Flaky(9)
        arguments = flaky(action, retry={"max_attempts": 2}, fallback="c", goto="b")
        assert path(**arguments) == ["a", "c"]
        assert action.calls == 2

    def test_it_finds_the_failure_in_the_state(self) -> None:
        agent = {
            "nodes": [
                {"name": "a", "run": "state['half'] = 1\nx = 1 / 0", "fallback": "c"},
                *nodes("b"),
                {"name": "c", "run": "kind = state['__error__']['type']"},
            ]
        }
        message = "node `a`: ZeroDivisionError: division by zero (line 2 of its `run`)"
        error = {"node": "a", "type": "ZeroDivisionError", "message": message}
        assert final_state(agent) == {"__error__": error, "kind": "ZeroDivisionError"}


class TestOnError:
    def test_continue_goes_on_as_if_the_node_had_succeeded(self) -> None:
        assert path(**flaky(Flaky(9), on_error="continue")) == ["a", "b", "c"]
        assert path(**flaky(Flaky(9), on_error="continue", goto="c")) == ["a", "c"]

    def test_the_failure_is_the_output_of_the_action(self) -> None:
        result = {"success": False, "error": "no 1", "error_type": "timeout"}
        error = {"node": "a", "type": "timeout", "message": "node `a`: `my.flaky` failed: no 1 (timeout)"}
        state = final_state(**flaky(Flaky(9), on_error="continue", output="x"))
        assert state == {"x": result, "__error__": error}
        assert final_state(**flaky(Flaky(9), on_error="continue")) == {**result, "__error__": error}
        parts = {"n": "{{ result.n }}"}
        assert final_state(**flaky(Flaky(9), on_error="continue", output=parts)) == {"__error__": error}

    def test_an_exception_of_an_action_is_a_failure_too(self) -> None:
        def broken(state: Any) -> None:
            raise OSError("gone")

        agent = {"nodes": [{"name": "a", "uses": "my.broken", "output": "x", "on_error": "continue"}]}
        x = final_state(agent, actions_registry={"my.broken": broken})["x"]
        assert x == {"success": False, "error": "node `a`: `my.broken` failed: OSError: gone", "error_type": "OSError"}

    def test_the_event_of_the_node_tells_the_failure(self) -> None:
        first, second, *_ = events(**flaky(Flaky(9), on_error="continue"))
        assert (first["type"], first["node"], first["error_type"]) == ("state", "a", "timeout")
        assert "no 1" in first["error"]
        assert "error" not in second

    def test_fail_is_what_happens_without_the_word(self) -> None:
        assert failure(**flaky(Flaky(9), on_error="fail")).error_type == "timeout"

    def test_no_way_to_go_on_with_more_work_than_allowed(self) -> None:
        node = {"name": "a", "uses": "my.nothing", "output": "x", "on_error": "continue", "goto": "a"}
        registry = {"my.nothing": lambda state: None}
        error = failure({"nodes": [node]}, allow_code=False, actions_registry=registry)
        assert error.error_type == "budget_error"


FILE = "nodes:\n  - name: one\n    run: x = 1\n    {}\n  - {name: two, run: y = 1}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("on_error: ignore", "4:15: `on_error` can't be `ignore`; known are `fail`, `continue`"),
        ("on_error: {mode: retry}", "4:15: `on_error` is `fail` or `continue`; write `retry` for more attempts"),
        ("fallback: tow", "4:15: `fallback` names the non-existent node `tow`; did you mean `two`?"),
        ("fallback: one", "4:15: `fallback` is the node itself"),
        ("fallback: __end__", "4:15: `fallback` names the non-existent node `__end__`"),
        ("fallback: [two]", "4:15: `fallback` must be text, not a list"),
        ("retry: 3", "4:12: `retry` must be a mapping, not a number"),
        ("retry: {max_attempt: 3}", "4:13: unknown word `max_attempt`; did you mean `max_attempts`?"),
        ("retry: {max_attempts: 0}", "4:27: `max_attempts` must be a whole number from 1 to 100"),
        ("retry: {max_attempts: true}", "4:27: `max_attempts` must be a whole number from 1 to 100"),
        ("retry: {max_attempts: 1.5}", "4:27: `max_attempts` must be a whole number from 1 to 100"),
        ("retry: {max_attempts: 101}", "4:27: `max_attempts` must be a whole number from 1 to 100"),
        ("retry: {backoff_seconds: -1}", "4:30: `backoff_seconds` must be a number from 0 to 300"),
        ("retry: {backoff_seconds: soon}", "4:30: `backoff_seconds` must be a number from 0 to 300"),
        ("retry: {on: timeout}", "4:17: `on` must be a list of error types"),
        ("retry: {on: [5]}", "4:17: `on` must be a list of error types"),
    ],
)
def test_wrong_words_are_refused(words: str, message: str) -> None:
    assert refusal(FILE.replace("{}", words, 1)).startswith(f"a.yaml:{message}")


def test_continue_and_fallback_exclude_each_other() -> None:
    message = refusal(FILE.replace("{}", "on_error: continue\n    fallback: two", 1))
    assert message == "a.yaml:4:15: `on_error: continue` and `fallback` exclude each other: leave one out"
