"""A mark for rules that take long. A run on many databases may leave them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Rule = TypeVar("Rule", bound=Callable[..., Any])


def slow(rule: Rule) -> Rule:
    """Mark a test of the contract: its attribute ``is_slow`` is true. Every run of a contract suite takes it."""
    rule.is_slow = True  # type: ignore[attr-defined]
    return rule
