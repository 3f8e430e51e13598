"""The providers ``openai`` and ``ollama`` of ``llm.call``: any server with the HTTP interface of OpenAI."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from the_edge_agent.workflow.actions.failures import FailureError
from the_edge_agent.workflow.actions.llm_messages import answer_of
from the_edge_agent.workflow.actions.web import MAX_BYTES, Web, body_of, place_of
from the_edge_agent.workflow.errors import one_line

if TYPE_CHECKING:
    import httpx

_KINDS: Final = {
    401: "authentication_error",
    403: "authentication_error",
    408: "timeout",
    429: "rate_limited",
    504: "timeout",
}
_AGAIN: Final = ("rate_limited", "timeout", "connection_error", "llm_error")
_LONGEST: Final = 300  # characters of what a server says in a message


@dataclass(frozen=True)
class Server:
    """Where to send requests, and how often.

    Attributes:
        base_url: the URL before ``/chat/completions``.
        api_key: the key; no message has it.
        timeout: seconds for each attempt.
        max_retries: how often a request is sent again.
        base_delay: seconds before the first retry; each later wait is twice as long.
        max_delay: the longest wait in seconds.
    """

    base_url: str
    api_key: str | None
    timeout: float
    max_retries: int
    base_delay: float
    max_delay: float


def complete(web: Web, server: Server, request: dict[str, Any], emit: Callable[[str], None] | None) -> dict[str, Any]:
    """Send a request until it succeeds or may not be sent again.

    Args:
        web: the HTTP client.
        server: where to send it.
        request: the body of the request.
        emit: gets each part of the text as soon as it is there; None to wait for the whole answer.

    Raises:
        FailureError: the last failure. After a part of the text has arrived, the request is not sent again.
    """
    for attempt in range(server.max_retries + 1):
        parts: list[str] = []
        try:
            return {**_attempt(web, server, request, emit, parts), "attempts": attempt + 1}
        except FailureError as failure:
            wait = _wait(failure, server, attempt)
            if wait is None or parts or attempt == server.max_retries:
                raise FailureError(**_public(failure, server, attempt + 1)) from None
            sleep(wait)
    raise AssertionError("unreachable")


def _wait(failure: FailureError, server: Server, attempt: int) -> float | None:
    """Return how many seconds to wait before the next attempt; None if there must not be one."""
    if failure.result["error_type"] not in _AGAIN:
        return None
    requested: float | None = failure.result.get("retry_after")
    if requested is not None:
        return requested if requested <= server.max_delay else None
    longest: float = min(server.base_delay * 2**attempt, server.max_delay)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - so that many clients do not come back at the same time


def _public(failure: FailureError, server: Server, attempts: int) -> dict[str, Any]:
    """Return the arguments of the failure that a user sees: without the key."""
    fields = {name: value for name, value in failure.result.items() if name != "success"}
    times = f" (after {attempts} attempts)" if attempts > 1 else ""
    error = fields["error"].replace(server.api_key, "***") if server.api_key else fields["error"]
    return {**fields, "error": error + times, "attempts": attempts}


def _attempt(
    web: Web, server: Server, request: dict[str, Any], emit: Callable[[str], None] | None, parts: list[str]
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if server.api_key:
        if not (server.api_key.isascii() and server.api_key.isprintable()):
            raise FailureError("configuration_error", "`api_key` has characters that no key has, such as a line break")
        headers["Authorization"] = f"Bearer {server.api_key}"
    body = dict(request)
    if emit is not None:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    try:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FailureError("validation_error", f"the arguments are no JSON: {type(error).__name__}") from None
    url, deadline = f"{server.base_url.rstrip('/')}/chat/completions", monotonic() + server.timeout
    with web.response("POST", url, timeout=server.timeout, headers=headers, content=content) as response:
        if response.status_code != 200:
            raise _refused(response, body_of(response, deadline, server.timeout))
        if emit is None:
            return _whole(body_of(response, deadline, server.timeout))
        return _streamed(_events(response, deadline, server.timeout), emit, parts)


def _refused(response: httpx.Response, body: bytes) -> FailureError:
    status = response.status_code
    kind = _KINDS.get(status, "llm_error" if status >= 500 or status < 400 else "invalid_request")
    said = _said(body)
    message = f"{place_of(str(response.url))} answered with status {status}{f': {said}' if said else ''}"
    wait = _seconds(response.headers.get("Retry-After"))
    return FailureError(kind, message, status=status, **({} if wait is None else {"retry_after": wait}))


def _said(body: bytes) -> str:
    """Return the message in the body of an error; "" if it has none of a known form."""
    try:
        error = json.loads(body)["error"]
        text = error if isinstance(error, str) else error["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return one_line(text, _LONGEST) if isinstance(text, str) else ""


def _seconds(retry_after: str | None) -> float | None:
    """Return how many seconds the header Retry-After asks to wait."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            moment = parsedate_to_datetime(retry_after)
            seconds = (moment - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, TypeError):  # TypeError: a time without a zone
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def _whole(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        answer = answer_of(choice["message"])
        model, usage = data.get("model"), data.get("usage")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise FailureError("llm_error", "the answer is not JSON of the form of OpenAI") from None
    return {**answer, **_more(usage, model, choice.get("finish_reason"))}


def _more(usage: Any, model: Any, finish_reason: Any) -> dict[str, Any]:
    return {
        "usage": usage if isinstance(usage, dict) else {},
        **({"model": model} if isinstance(model, str) else {}),
        "finish_reason": finish_reason if isinstance(finish_reason, str) else None,
    }


def _events(response: httpx.Response, deadline: float, timeout: float) -> Iterator[Any]:
    """Return the data of each server-sent event, until ``[DONE]``.

    Lines end with a line feed only: the text may have other characters that Python takes for ends of lines.
    """
    rest, size = b"", 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MAX_BYTES:
            raise FailureError("too_large", f"the answer has more than {MAX_BYTES:,} bytes")
        if monotonic() > deadline:
            raise FailureError("timeout", f"the answer did not end within {timeout:g} seconds")
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield json.loads(data)
    raise FailureError("connection_error", "the answer ended too early")


def _streamed(events: Iterator[Any], emit: Callable[[str], None], parts: list[str]) -> dict[str, Any]:
    calls: dict[int, dict[str, Any]] = {}
    usage: Any = None
    model = finish_reason = None
    try:
        for event in events:
            if event.get("error"):
                raise FailureError("llm_error", f"the server broke off: {_said(json.dumps(event).encode())}")
            usage, model = event.get("usage") or usage, event.get("model") or model
            for choice in event.get("choices", [])[:1]:
                finish_reason = choice.get("finish_reason") or finish_reason
                delta = choice.get("delta") or {}
                for call in delta.get("tool_calls") or []:
                    _merge(calls.setdefault(call.get("index", len(calls)), {}), call)
                if text := delta.get("content"):
                    parts.append("" + text)  # raises TypeError for what is no text
                    emit(text)
        message = {"content": "".join(parts), "tool_calls": [calls[index] for index in sorted(calls)]}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise FailureError("llm_error", "the answer is not a stream of the form of OpenAI") from None
    return {**answer_of(message), **_more(usage, model, finish_reason), "chunk_count": len(parts)}


def _merge(call: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add a part of a tool call to what has arrived of it."""
    function = call.setdefault("function", {"name": "", "arguments": ""})
    call["type"] = "function"
    call["id"] = call.get("id") or delta.get("id") or ""
    for name, text in (delta.get("function") or {}).items():
        if name in function and text:
            function[name] += text
