"""Conditions of edges and of ``goto``: a name of the state, an expression, or a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.model import Condition
from the_edge_agent.workflow.templates import NAMES, TemplateError, compile_expression, compile_text, is_template

_CONSTANTS: Final = {"true": True, "false": False}
_FALSE_TEXTS: Final = frozenset({"", "false", "no", "none", "null", "0"})


def compile_condition(text: str, names: tuple[str, ...] = NAMES) -> Condition:
    """Compile a condition.

    Args:
        text: ``true`` or ``false``; the name of a key of the state, or ``!`` and such a name, where a missing key is
            false; an expression such as ``state.n > 3``; or a text with templates.
        names: the names that it may use.

    Raises:
        TemplateError: the condition is not valid.
    """
    text = text.strip()
    if text.lower() in _CONSTANTS:
        constant = _CONSTANTS[text.lower()]
        return lambda values, work: constant
    key = text.removeprefix("!").strip()
    if key.isidentifier():
        wanted = not text.startswith("!")
        return lambda values, work: is_true(values["state"].get(key)) is wanted
    if text.startswith("!"):
        raise TemplateError("`!` goes before the name of one key; write `not (...)` before an expression")
    if not text:
        raise TemplateError("the condition is empty")
    render = compile_text(text, names) if is_template(text) else compile_expression(text, names)

    def holds(values: Mapping[str, Any], work: Work | None) -> bool:
        return is_true(render(values, work))

    return holds


def negated(condition: Condition) -> Condition:
    """Return the condition that is true if ``condition`` is false."""
    return lambda values, work: not condition(values, work)


def is_true(value: Any) -> bool:
    """Return whether a value is true: as in Python, but texts that say no, such as ``false``, are false."""
    if isinstance(value, str):
        return value.strip().lower() not in _FALSE_TEXTS
    return bool(value)
