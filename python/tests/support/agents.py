"""Load and run agents that are written in YAML or as dicts."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import dedent
from typing import Any, TypeAlias

import pytest

from the_edge_agent import NodeError, WorkflowFileError, YAMLEngine
from the_edge_agent.workflow import CompiledGraph
from the_edge_agent.workflow.reading import read_yaml

Agent: TypeAlias = str | dict[str, Any]
"""An agent: YAML, of a file that messages call ``a.yaml``, or a dict."""


def load(agent: Agent, **options: Any) -> CompiledGraph:
    """Load an agent that uses no memory."""
    return _load(YAMLEngine(**options), agent)


def events(agent: Agent, state: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Run an agent and return all its events."""
    with YAMLEngine(**options) as engine:
        return list(_load(engine, agent).stream(state))


def final_state(agent: Agent, state: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Run an agent and return the final state."""
    with YAMLEngine(**options) as engine:
        [final] = _load(engine, agent).invoke(state)
    assert final["type"] == "final"
    return dict(final["state"])


def path(agent: Agent, state: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """Run an agent and return the names of the nodes that ran, in order."""
    return [event["node"] for event in events(agent, state, **options) if event["type"] == "state"]


def refusal(agent: Agent, **options: Any) -> str:
    """Return the message with which an agent is refused."""
    with pytest.raises(WorkflowFileError) as caught:
        load(agent, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def failure(agent: Agent, state: dict[str, Any] | None = None, **options: Any) -> NodeError:
    """Run an agent and return the error of the node that fails."""
    with YAMLEngine(**options) as engine:
        graph = _load(engine, agent)
        with pytest.raises(NodeError) as caught:
            list(graph.invoke(state))
    assert "\n" not in str(caught.value)
    return caught.value


def _load(engine: YAMLEngine, agent: Agent) -> CompiledGraph:
    return engine.load_from_dict(agent) if isinstance(agent, dict) else engine._load(read_yaml(dedent(agent), "a.yaml"))


def nodes(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return nodes that only run."""
    return [{"name": name, "run": "return {}"} for name in names]
