"""A mark for rules that take long. A test run on many databases may skip them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Rule = TypeVar("Rule", bound=Callable[..., Any])


def slow(rule: Rule) -> Rule:
    """Mark a test of the contract as slow: set its attribute ``is_slow``. A contract suite still runs it."""
    rule.is_slow = True  # type: ignore[attr-defined]
    return rule
