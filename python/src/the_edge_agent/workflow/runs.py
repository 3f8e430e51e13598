"""What belongs to one run of an agent: its settings, and the values of ``memory.*``. Its actions find them here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any, Final


class Values:
    """Values by namespace and key. Several threads may use them; the values that go in and out are copies."""

    def __init__(self) -> None:
        """Make an empty store."""
        self._lock = Lock()
        self._values: dict[tuple[str, str], tuple[Any, float | None]] = {}

    def set(self, namespace: str, key: str, value: Any, ttl: float | None) -> None:
        """Set a value, for ``ttl`` seconds if that is not None."""
        kept = (deepcopy(value), None if ttl is None else monotonic() + ttl)
        with self._lock:
            self._values[namespace, key] = kept

    def get(self, namespace: str, key: str, default: Any) -> tuple[Any, bool]:
        """Return the value, or ``default``; and whether there is a value."""
        with self._lock:
            value, end = self._values.get((namespace, key), (default, None))
            is_there = (namespace, key) in self._values and (end is None or monotonic() < end)
        return (deepcopy(value), True) if is_there else (default, False)

    def delete(self, namespace: str, key: str) -> bool:
        """Delete a value. Return whether there was one."""
        with self._lock:
            _, end = self._values.pop((namespace, key), (None, 0.0))
        return end is None or monotonic() < end


@dataclass(frozen=True)
class Run:
    """One run of an agent. All of its nodes and branches share it.

    Attributes:
        llm: the part ``llm`` of the agent's ``settings``.
        values: the values that ``memory.store`` keeps until the run ends.
        counts: how often something was done in this run, by name; ``lock`` protects it.
    """

    llm: Mapping[str, Any] = field(default_factory=dict)
    values: Values = field(default_factory=Values)
    counts: dict[str, int] = field(default_factory=dict)
    lock: Any = field(default_factory=Lock)

    def count(self, name: str) -> int:
        """Return how often this was called with ``name`` before."""
        with self.lock:
            before = self.counts.get(name, 0)
            self.counts[name] = before + 1
        return before


_CURRENT: Final[ContextVar[tuple[Run, str] | None]] = ContextVar(
    "the run and the node that this code is in", default=None
)


@contextmanager
def running(run: Run, node: str) -> Iterator[None]:
    """Let the actions that the block calls find the run. The thread of a branch enters such a block of its own."""
    token = _CURRENT.set((run, node))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_run() -> Run | None:
    """Return the run that this code is in; None outside of a run, such as a call from ``actions_registry``."""
    current = _CURRENT.get()
    return None if current is None else current[0]


def current_node() -> str | None:
    """Return the name of the node that this code is in; None outside of a run."""
    current = _CURRENT.get()
    return None if current is None else current[1]
