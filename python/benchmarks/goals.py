"""Our goals: ratios to the bare driver, how much slower operations may become as a memory grows, and start-up times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Our operations per second, divided by those of the bare driver.
_OF_ALL: Final = ("get", "put", "put_many", "search", "filter", "scan", "mixed_threads")
_RATIOS: Final = {
    "sqlite": (0.65, 0.80, 0.80, 0.90, 1.0, 0.25, 0.80),
    "postgresql": (0.60, 0.80, 1.0, 0.90, 0.90, 0.60, 1.0),
    "mysql": (0.60, 0.80, 0.80, 0.80, 1.0, 0.50, 1.0),
    "mariadb": (0.60, 0.80, 0.80, 0.80, 1.0, 0.50, 1.0),
}
_SAME: Final = {
    "search": ("search_rare", "search_common"),
    "filter": ("filter_percent", "filter_ten", "filter_none"),
}
# How many times slower an operation may be with 1,000,000 entries than with 10,000.
GROWTH: Final[Mapping[str, float]] = {
    **dict.fromkeys(("get", "put", "list_keys"), 1.5),
    **dict.fromkeys(("search_rare", "question", "filter_ten"), 3.0),
    **dict.fromkeys(("search_common", "filter_percent"), 10.0),
}
# Milliseconds by the names of the start-up and of its step.
STARTS: Final[Mapping[tuple[str, str], float]] = {
    ("the_edge_agent.memory", "import"): 150.0,
    ("SQLAlchemyBackend, lazy", "first call"): 30.0,
    ("SQLiteBackend, lazy", "first call"): 30.0,
}


def ratio(database: str, operation: str) -> float | None:
    """Return the goal of an operation, None if it has none."""
    goals = dict(zip(_OF_ALL, _RATIOS[database], strict=True))
    for name, operations in _SAME.items():
        goals |= dict.fromkeys(operations, goals[name])
    return goals.get(operation)
