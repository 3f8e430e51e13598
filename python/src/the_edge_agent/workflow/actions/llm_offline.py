"""The provider ``offline`` of ``llm.call``: scripted answers, for tests and examples. It needs no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from the_edge_agent.workflow.actions.failures import FailureError
from the_edge_agent.workflow.actions.llm_messages import answer_of, text_of
from the_edge_agent.workflow.runs import Run

_WORDS: Final = ("when", "content", "tool_calls")


def complete(
    run: Run, messages: list[dict[str, Any]], settings: Mapping[str, Any], emit: Callable[[str], None] | None
) -> dict[str, Any]:
    """Return the scripted answer to the last message.

    An answer with ``when`` answers each message that has this text. The others are for one call each, in their order.
    Without any answers, the answer is the last message itself.
    """
    question = text_of(messages[-1].get("content"))
    answer = _answer(run, question, _scripted(settings.get("answers")))
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call.get("arguments", {}))},
        }
        for number, call in enumerate(answer.get("tool_calls", []), 1)
    ]
    result = answer_of({"content": answer.get("content", ""), "tool_calls": calls})
    if emit is not None:
        for number, word in enumerate(result["content"].split(" ")):
            emit(f" {word}" if number else word)
    asked = sum(len(text_of(message.get("content")).split()) for message in messages)
    said = len(result["content"].split())
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    return {**result, "usage": usage, "finish_reason": "tool_calls" if calls else "stop"}


def _answer(run: Run, question: str, answers: list[dict[str, Any]]) -> dict[str, Any]:
    for answer in answers:
        if "when" in answer and answer["when"].casefold() in question.casefold():
            return answer
    in_order = [answer for answer in answers if "when" not in answer]
    if not in_order:
        return {"content": question}
    number = run.count("offline answers")
    if number >= len(in_order):
        message = f"`settings.llm.answers` has {len(in_order)} answers, and this is call {number + 1}"
        raise FailureError("configuration_error", message)
    return in_order[number]


def _scripted(answers: Any) -> list[dict[str, Any]]:
    """Return answers as mappings. A text alone is a content; a mapping of texts has questions and contents."""
    if isinstance(answers, Mapping):
        return [{"when": str(question), "content": str(answer)} for question, answer in answers.items()]
    scripted = []
    for place, answer in enumerate(answers or []):
        item = {"content": answer} if isinstance(answer, str) else answer
        calls = item.get("tool_calls", []) if isinstance(item, Mapping) else None
        is_right = (
            isinstance(item, Mapping)
            and all(word in _WORDS for word in item)
            and all(isinstance(item.get(word, ""), str) for word in ("when", "content"))
            and isinstance(calls, list)
            and all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls)
        )
        if not is_right:
            message = (
                f"`settings.llm.answers[{place}]` is a text, or has `when`, `content`, `tool_calls` (each a `name`)"
            )
            raise FailureError("configuration_error", message)
        scripted.append(dict(item))
    return scripted
