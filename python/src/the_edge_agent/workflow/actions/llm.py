"""The action ``llm.call``: ask a language model, of any provider."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from the_edge_agent.workflow.actions import llm_offline, llm_server
from the_edge_agent.workflow.actions.failures import FailureError, checked_seconds, returning_failures
from the_edge_agent.workflow.actions.llm_messages import checked_messages, checked_tools
from the_edge_agent.workflow.actions.web import Web
from the_edge_agent.workflow.errors import describe, nearest
from the_edge_agent.workflow.runs import Run, current_node, current_run

PROVIDER: Final = "llm.provider."  # an action `llm.provider.NAME` answers calls with `provider: NAME`

_BUILT_IN: Final = ("openai", "ollama", "offline")
_OPENAI: Final = "https://api.openai.com/v1"
_OLLAMA: Final = "http://localhost:11434/v1"
_SECONDS: Final = 120.0
_BASE_DELAY: Final = 0.5
_MAX_DELAY: Final = 60.0
_INSTEAD: Final = "write `provider: openai`, and the `base_url` of its interface that is compatible with OpenAI"
_OF_OTHERS: Final = ("azure", "azure_openai", "litellm", "local", "anthropic", "gemini", "google", "mistral", "groq")


@dataclass(frozen=True)
class Models:
    """What the calls of one engine share.

    Attributes:
        web: the HTTP client.
        registry: the actions of the engine, among them those of providers.
        host: the settings of the program; a file with ``settings.llm`` replaces them.
        env: the environment variables that may be read; None for all.
        on_chunk: gets an event for each part of an answer that is streamed.
        allow_code: whether nodes may choose the provider and the server.
    """

    web: Web
    registry: Mapping[str, Callable[..., Any]]
    host: Mapping[str, Any] | None
    env: Mapping[str, str] | None
    on_chunk: Callable[[dict[str, Any]], object] | None
    allow_code: bool

    def variable(self, name: str) -> str | None:
        """Return an environment variable; None if it is not set, is empty or may not be read."""
        return (os.environ if self.env is None else self.env).get(name) or None

    def settings(self, run: Run | None) -> Mapping[str, Any]:
        """Return the settings of a call."""
        return run.llm if run is not None and run.llm else self.host or {}


def llm_actions(models: Models) -> dict[str, Callable[..., Any]]:
    """Return ``llm.call`` and its other name ``llm.chat``."""
    outside = Run()

    def call(
        state: dict[str, Any],
        model: str | None = None,
        messages: list[dict[str, Any]] | None = None,
        temperature: float | None = None,
        *,
        prompt: str | None = None,
        system: str | None = None,
        provider: str | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: Any = None,
        response_format: Any = None,
        stop: Any = None,
        seed: int | None = None,
        stream: bool = False,
        max_retries: int | None = None,
        base_delay: float | None = None,
        max_delay: float | None = None,
        base_url: str | None = None,
        api_base: str | None = None,
        shell_provider: str | None = None,
    ) -> dict[str, Any]:
        """Ask a language model ``messages``, or a ``prompt``, and return its ``content``.

        The arguments that are not given come from ``settings.llm``.
        """
        run = current_run()
        settings = models.settings(run)
        address = base_url or api_base
        if not models.allow_code:
            chosen = {
                "provider": provider,
                "base_url": address,
                "shell_provider": shell_provider,
                "timeout": timeout,
                "max_retries": max_retries,
                "base_delay": base_delay,
                "max_delay": max_delay,
                "model": model if settings.get("model") else None,
            }
            for word, value in chosen.items():
                if value is not None:
                    message = f"a file that may not run code can't choose {word}; the host does"
                    raise FailureError("configuration_error", message)
        name = _provider(models, provider or settings.get("provider"))
        asked = checked_messages(messages, prompt, system)
        options = {
            "model": model or settings.get("model"),
            "temperature": temperature if temperature is not None else settings.get("temperature"),
            "max_tokens": max_tokens if max_tokens is not None else settings.get("max_tokens"),
            "tools": checked_tools(tools),
            "tool_choice": tool_choice,
            "response_format": response_format,
            "stop": stop,
            "seed": seed,
        }
        request = {"messages": asked, **{word: value for word, value in options.items() if value is not None}}
        seconds = timeout if timeout is not None else settings.get("timeout")
        if seconds is not None:
            seconds = checked_seconds(seconds, "timeout")
        emit = _emitter(models) if stream else None
        if name == "offline":
            answer = llm_offline.complete(run or outside, asked, settings, emit)
        elif name in _BUILT_IN:
            retries = max_retries if max_retries is not None else settings.get("max_retries", 2)
            if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= 100:
                raise FailureError("validation_error", "max_retries must be a whole number from 0 to 100")
            delays = (
                checked_seconds(_BASE_DELAY if base_delay is None else base_delay, "base_delay"),
                checked_seconds(_MAX_DELAY if max_delay is None else max_delay, "max_delay"),
            )
            url, key = _address(models, name, settings, address)
            server = llm_server.Server(url, key, seconds or _SECONDS, retries, *delays)
            if "model" not in request:
                message = "no model: write `model`, here or under `settings.llm`"
                raise FailureError("configuration_error", message)
            answer = llm_server.complete(models.web, server, request, emit)
        else:
            more = {**request, "timeout": seconds, "shell_provider": shell_provider, "settings": settings, "emit": emit}
            answer = models.registry[PROVIDER + name](state, **more)
            if not isinstance(answer, dict):
                raise FailureError("llm_error", f"the provider {name} returned no dict")
            if answer.get("success") is False:
                return answer
            if emit is not None and not answer.get("streamed"):
                emit(answer.get("content", ""))
        plain: dict[str, Any] = {"content": "", "usage": {}, "tool_calls": [], "model": request.get("model")}
        plain["message"] = {"role": "assistant", "content": answer.get("content", "")}
        return {"success": True, **plain, **answer, "provider": name}

    action = returning_failures(call)
    return {"llm.call": action, "llm.chat": action}


def _provider(models: Models, name: Any) -> str:
    """Return the name of the provider of a call. Raises ``FailureError`` if there is no such provider."""
    if name is None or name == "auto":
        return "ollama" if models.variable("OLLAMA_API_BASE") and not models.variable("OPENAI_API_KEY") else "openai"
    others = [action.removeprefix(PROVIDER) for action in models.registry if action.startswith(PROVIDER)]
    if name in _BUILT_IN or name in others:
        return str(name)
    known = [*_BUILT_IN, *others]
    hint = _INSTEAD if name in _OF_OTHERS else f"there are {', '.join(f'`{each}`' for each in known)}"
    raise FailureError("configuration_error", f"there is no provider {name!r}{nearest(str(name), known)}; {hint}")


def _address(models: Models, provider: str, settings: Mapping[str, Any], address: str | None) -> tuple[str, str | None]:
    """Return the base URL and the key."""
    url = address or settings.get("base_url")
    if provider == "ollama":
        return url or models.variable("OLLAMA_API_BASE") or _OLLAMA, settings.get("api_key")
    url = url or models.variable("OPENAI_BASE_URL") or _OPENAI
    key = settings.get("api_key") or models.variable("OPENAI_API_KEY")
    if key is None and url == _OPENAI:
        message = (
            "no key: set the environment variable OPENAI_API_KEY, or `base_url` for a server without one;"
            " `provider: offline` needs no server"
        )
        raise FailureError("configuration_error", message)
    return url, key


def _emitter(models: Models) -> Callable[[str], None]:
    def emit(text: str) -> None:
        if models.on_chunk is None or not text:
            return
        try:
            models.on_chunk({"type": "llm_chunk", "node": current_node(), "content": text})
        except Exception as error:
            raise FailureError("callback_error", f"on_chunk failed: {describe(error)}") from error

    return emit
