"""The provider ``shell`` of ``llm.call``: a command of this machine gets the prompt and prints the answer.

This module is written as one of a third party would be: it has ``register_actions``, and its action fails with a dict.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# What to run for `shell_provider: NAME` if the settings do not say it. Each reads the prompt from stdin.
KNOWN = {"claude": ["claude", "-p"], "codex": ["codex", "exec", "-"], "gemini": ["gemini"], "qwen": ["qwen"]}

_SECONDS = 300.0
_LONGEST = 300  # characters of stderr in a message


def register_actions(registry: dict[str, Callable[..., Any]], engine: Any) -> None:
    """Add the action that ``llm.call`` calls for ``provider: shell``."""
    registry["llm.provider.shell"] = complete


def complete(
    state: dict[str, Any], messages: list[dict[str, Any]], settings: Mapping[str, Any], **options: Any
) -> dict[str, Any]:
    """Run the command and return what it prints.

    Args:
        state: the state of the run; not used.
        messages: the messages to answer.
        settings: the part ``llm`` of the agent's settings.
        options: ``shell_provider`` and ``timeout`` are used, others are not.
    """
    name = options.get("shell_provider") or settings.get("shell_provider")
    provider = _provider(name, settings)
    if provider is None:
        known = ", ".join(sorted({*settings.get("shell_providers", {}), *KNOWN}))
        fault = f"there is no shell_provider {name!r}; there are {known}" if name else "there is no command to run"
        error = f"{fault}; write `command` under `settings.llm`, or `shell_providers`"
        return {"success": False, "error": error, "error_type": "configuration_error"}
    prompt = prompt_of(messages)
    timeout = options.get("timeout") or provider.get("timeout") or _SECONDS
    with _command(provider, prompt) as (command, text):
        return _run(command, text, {**os.environ, **provider.get("env", {})}, timeout, provider.get("env", {}))


def prompt_of(messages: list[dict[str, Any]]) -> str:
    """Return messages as one text: those of the user alone, the others after ``System:`` or ``Assistant:``."""
    parts = []
    for message in messages:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "\n".join(part.get("text", "") for part in content)
        role = message["role"]
        parts.append(content if role == "user" else f"{role.capitalize()}: {content}")
    return "\n\n".join(parts)


def _provider(name: str | None, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    if name is None:
        return {"command": settings["command"]} if settings.get("command") else None
    if name in settings.get("shell_providers", {}):
        return dict(settings["shell_providers"][name])
    return {"command": KNOWN[name]} if name in KNOWN else None


@contextmanager
def _command(provider: Mapping[str, Any], prompt: str) -> Iterator[tuple[list[str], str]]:
    """Return the command with its arguments, and what it gets on stdin."""
    command = provider["command"]
    words = [*(shlex.split(command) if isinstance(command, str) else command), *provider.get("args", [])]
    command = [str(word) for word in words]
    if any("{prompt}" in word for word in command):
        yield [word.replace("{prompt}", prompt) for word in command], ""
    elif provider.get("stdin_mode") == "file":
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.write(prompt)
            file.flush()
            yield [word.replace("{input_file}", file.name) for word in command], ""
    else:
        yield command, prompt


def _run(
    command: list[str], text: str, env: Mapping[str, Any], timeout: float, secrets: Mapping[str, Any]
) -> dict[str, Any]:
    def failed(error: str, error_type: str = "llm_error") -> dict[str, Any]:
        for secret in secrets.values():
            error = error.replace(str(secret), "***") if secret else error
        return {"success": False, "error": error, "error_type": error_type}

    name = os.path.basename(command[0]) if command else ""
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is the agent's, and an agent is trusted like a program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={key: str(value) for key, value in env.items()},
            start_new_session=True,  # so that all of its processes can be ended
        )
    except FileNotFoundError:
        return failed(f"there is no command `{name}`; install it, or write another one", "dependency_missing")
    except (OSError, ValueError, IndexError) as error:
        return failed(f"`{name}` can't be started: {type(error).__name__}")
    try:
        output, errors = process.communicate(text.encode(), timeout=timeout)
    except subprocess.TimeoutExpired:
        return failed(f"`{name}` did not end within {timeout:g} seconds", "timeout")
    finally:
        _end(process)
    if process.returncode != 0:
        reason = " ".join(errors.decode(errors="replace").split())[:_LONGEST]
        return failed(f"`{name}` ended with status {process.returncode}{f': {reason}' if reason else ''}")
    return {"success": True, "content": output.decode(errors="replace").strip(), "usage": {}}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of a command, and wait for it."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (AttributeError, ProcessLookupError, PermissionError):  # AttributeError: on Windows
            process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
