"""Run nodes, written in YAML, with a memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from the_edge_agent import NodeError, YAMLEngine
from the_edge_agent.memory import LTMBackend

Run: TypeAlias = Callable[..., dict[str, Any]]


def runner(memory: LTMBackend, folder: Path) -> Run:
    """Return a function that runs nodes with an input, and returns the final state without the input."""

    def run(nodes: str, **state: Any) -> dict[str, Any]:
        path = folder / "agent.yaml"
        path.write_text(f"nodes:\n{nodes}", encoding="utf-8")
        with YAMLEngine(ltm_backend=memory) as engine:
            *_, final = engine.load_from_file(path).invoke(state)
        assert json.loads(json.dumps(final["state"])) == final["state"], "it can be printed as JSON"
        return {name: value for name, value in final["state"].items() if name not in state}

    return run


def failure(run: Run, nodes: str, **state: Any) -> NodeError:
    """Run nodes of which one fails; return its error."""
    with pytest.raises(NodeError) as caught:
        run(nodes, **state)
    return caught.value
