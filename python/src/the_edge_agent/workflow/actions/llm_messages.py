"""Messages, tools and answers of language models: their checks, and the form that actions return."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from the_edge_agent.workflow.actions.failures import FailureError

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


def checked_messages(messages: Any, prompt: Any, system: Any) -> list[dict[str, Any]]:
    """Return the messages to send: those given, or one of ``prompt``; before them ``system`` if it is given."""
    if (messages is None) == (prompt is None):
        raise FailureError("validation_error", "give messages or prompt, one of the two")
    for name, text in (("prompt", prompt), ("system", system)):
        if text is not None and not isinstance(text, str):
            raise FailureError("validation_error", f"{name} must be text, not {type(text).__name__}")
    if messages is None:
        messages = [{"role": "user", "content": prompt}]
    if not isinstance(messages, list) or not messages:
        raise FailureError("validation_error", "messages must be a list of at least one message")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            known = ", ".join(_ROLES)
            raise FailureError("validation_error", f"messages[{place}] must have a role, one of {known}")
        if "content" not in message and "tool_calls" not in message:
            raise FailureError("validation_error", f"messages[{place}] must have content")
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [dict(message) for message in messages]


def checked_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Return tools in the form of OpenAI. A tool may be written without ``type`` and ``function`` around it."""
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise FailureError("validation_error", f"tools must be a list, not {type(tools).__name__}")
    checked = []
    for place, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise FailureError("validation_error", f"tools[{place}] must have a name")
        nothing = {"type": "object", "properties": {}}
        checked.append({"type": "function", "function": {"parameters": nothing, **function}})
    return checked or None


def text_of(content: Any) -> str:
    """Return the text of the content of a message, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))


def answer_of(message: Any) -> dict[str, Any]:
    """Return ``content``, ``tool_calls`` and ``message`` of the message that a model answered.

    Raises:
        FailureError: ``llm_error``: the message does not have the form of OpenAI.
    """
    if not isinstance(message, Mapping):
        raise FailureError("llm_error", "the answer has no message")
    content, calls = message.get("content"), message.get("tool_calls") or []
    try:
        tool_calls = [_tool_call(call) for call in calls]
    except (TypeError, KeyError, AttributeError):
        raise FailureError("llm_error", "the answer has tool calls of an unknown form") from None
    text = text_of(content) if content is not None else ""
    kept = {"role": "assistant", "content": text, **({"tool_calls": [*calls]} if calls else {})}
    return {"content": text, "tool_calls": tool_calls, "message": kept}


def _tool_call(call: Any) -> dict[str, Any]:
    name, arguments = call["function"]["name"], call["function"].get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise FailureError("llm_error", f"the model called {name!r} with arguments that are no JSON") from None
    if not isinstance(arguments, dict):
        raise FailureError("llm_error", f"the model called {name!r} with arguments that are no mapping")
    return {"id": call.get("id", ""), "name": name, "arguments": arguments}
