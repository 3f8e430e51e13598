"""The part ``llm`` of ``settings``: which words it has, and what their values may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from the_edge_agent.memory import LTMError, expand_env_vars
from the_edge_agent.workflow.errors import nearest

_TEXTS: Final = ("provider", "model", "base_url", "api_key", "shell_provider")
_NUMBERS: Final = {"temperature": (0, 2), "max_tokens": (1, 10**7), "timeout": (0.001, 86_400), "max_retries": (0, 100)}
_OTHERS: Final = {
    "answers": (list, dict),
    "command": (str, list),
    "shell_providers": (dict,),
    "options": (dict,),
}
_WORDS: Final = (*_TEXTS, *_NUMBERS, *_OTHERS)
_SHELL_WORDS: Final = {
    "command": (str, list),
    "args": (list,),
    "stdin_mode": (str,),
    "timeout": (int, float),
    "env": (dict,),
}
_INSTEAD: Final = {
    "backend": "write `provider`: `openai`, `ollama`, `shell` or `offline`",
    "model_path": "no model runs inside of this process; start a server, and write its `base_url`",
}


class SettingsError(ValueError):
    """``settings.llm`` is not valid.

    Attributes:
        path: the path of the faulty part within it.
    """

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        """Make the error of one part."""
        super().__init__(message)
        self.path = path


def check_llm_settings(block: Any, env: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the settings with environment variables expanded. Empty values are left out.

    Args:
        block: what a file has under ``settings.llm``.
        env: the environment variables that may be read; None for all.

    Raises:
        SettingsError: a word is unknown, a value is wrong, or a variable is not set.
    """
    if not isinstance(block, Mapping):
        raise SettingsError((), "`settings.llm` must be a mapping such as {provider: openai, model: ...}")
    settings: dict[str, Any] = {}
    for word, value in block.items():
        name = "base_url" if word == "api_base" else word
        if name not in _WORDS:
            raise SettingsError((word,), f"`settings.llm.{word}`: {_help(word)}")
        value = _expanded((word,), value, env, is_text=name in _TEXTS)
        if value is None or value == "":
            continue
        if problem := _problem(name, value):
            raise SettingsError((word,), f"`settings.llm.{word}` {problem}")
        settings[name] = value
    for name, provider in settings.get("shell_providers", {}).items():
        _check_shell_provider(name, provider)
    return settings


def _check_shell_provider(name: str, provider: Any) -> None:
    path, shown = ("shell_providers", name), f"`settings.llm.shell_providers.{name}`"
    if not isinstance(provider, dict) or not provider.get("command"):
        raise SettingsError(path, f"{shown} must be a mapping with `command`")
    for word, value in provider.items():
        if word not in _SHELL_WORDS:
            hint = nearest(str(word), _SHELL_WORDS) or f"; known are {', '.join(f'`{each}`' for each in _SHELL_WORDS)}"
            raise SettingsError((*path, word), f"{shown}: unknown word `{word}`{hint}")
        if not isinstance(value, _SHELL_WORDS[word]) or (word == "stdin_mode" and value not in ("pipe", "file")):
            raise SettingsError((*path, word), f"{shown}.{word} has a wrong value")


def _help(word: Any) -> str:
    if word in _INSTEAD:
        return str(_INSTEAD[word])
    known = ", ".join(f"`{each}`" for each in _WORDS)
    return f"unknown word{nearest(str(word), _WORDS) or f'; known are {known}'}"


def _problem(name: str, value: Any) -> str:
    """Return what is wrong with a value, without the value; "" if nothing is."""
    if name in _TEXTS:
        return "" if isinstance(value, str) else f"must be text, not {type(value).__name__}"
    if name in _NUMBERS:
        least, most = _NUMBERS[name]
        is_number = isinstance(value, int | float if name in ("temperature", "timeout") else int)
        is_number = is_number and not isinstance(value, bool)
        return "" if is_number and least <= value <= most else f"must be a number from {least} to {most}"
    kinds = _OTHERS[name]
    return "" if isinstance(value, kinds) else f"must be a {' or '.join(kind.__name__ for kind in kinds)}"


def _expanded(path: tuple[str, ...], value: Any, env: Mapping[str, str] | None, *, is_text: bool) -> Any:
    try:
        if is_text and isinstance(value, str):
            return expand_env_vars(f"\n{value}", env)[1:]  # a lone ${VAR} would become a number if it looks like one
        return expand_env_vars(value, env)
    except LTMError as error:
        raise SettingsError(path, str(error)) from None
