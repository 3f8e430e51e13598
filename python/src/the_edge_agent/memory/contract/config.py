"""Configuration: make a backend from ``settings.ltm`` of a YAML file, and expand ``${ENV}`` variables."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

from the_edge_agent.memory.contract.backend import (
    LTMBackend,
    constructor_options,
    create_ltm_backend,
    find_backend_factory,
    other_names,
)
from the_edge_agent.memory.contract.catalog import CatalogBackend, CatalogFactory, find_catalog_factory
from the_edge_agent.memory.core.results import LTMError

_DEFAULT_BACKEND: Final = "sqlalchemy"
_DEFAULT_CATALOG: Final = "sqlalchemy"
_CATALOG_OF_A_PATH: Final = "sqlite"
_FLAT: Final = "ltm_"  # ltm_url at the top level means url in the block
_PATHS: Final = ("path", "db_path")  # options that name an SQLite file
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_LITERALS: Final = {"true": True, "false": False}


def expand_env_vars(config: Any, env: Mapping[str, str] | None = None) -> Any:
    """Return ``config`` with ``${VAR}`` and ``${VAR:-default}`` replaced in every string, at any depth.

    The default replaces a variable that is unset or empty. A string that is exactly one ``${...}`` becomes a number
    or boolean if the result looks like one.

    Args:
        config: data of dicts, lists and plain values.
        env: the variables that may be read, with their values; None for the variables of the process.

    Raises:
        LTMError: ``configuration_error`` for a variable that has no default and is unset, or not in ``env``.
    """
    if isinstance(config, str):
        whole = _VARIABLE.fullmatch(config)
        before, end, after = config.rpartition("}")  # without this the pattern is slow on text that has no "}"
        expanded = _VARIABLE.sub(partial(_value_of, env), before + end) + after
        return _typed(expanded) if whole else expanded
    if isinstance(config, Mapping):
        return {key: expand_env_vars(value, env) for key, value in config.items()}
    if isinstance(config, list):
        return [expand_env_vars(item, env) for item in config]
    return config


def expand_ltm_config(settings: Mapping[str, Any], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the ``ltm`` block of ``settings`` with environment variables and flat spellings expanded.

    Args:
        settings: ``{"ltm": {"backend": ..., "url": ...}}``, or flat ``{"ltm_backend": ..., "ltm_url": ...}``.
        env: as for ``expand_env_vars``.

    Returns:
        ``{"backend": str, ...}`` with the keys of the block. The options are not checked, and nothing is connected.

    Raises:
        LTMError: ``configuration_error``.
    """
    if not isinstance(settings, Mapping):
        raise _invalid("settings must be a mapping such as {ltm: {...}}")
    block = settings.get("ltm")
    if block is None:
        block = {}
    if not isinstance(block, Mapping):
        raise _invalid("settings.ltm must be a mapping such as {backend: sqlalchemy, url: ...}")
    flat = {key: value for key, value in settings.items() if isinstance(key, str) and key.startswith(_FLAT)}
    options = _without_flat_names({**block, **flat}, len(block) + len(flat))
    expanded: dict[str, Any] = expand_env_vars(options, env)
    return {"backend": _DEFAULT_BACKEND, **expanded}


def parse_backend_config(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of a backend and the arguments of its constructor.

    Args:
        config: the ``ltm`` block, nested or in flat spellings. ``path`` or ``db_path`` may replace ``url`` for an
            SQLite file; ``full_text`` is another name of ``search``.

    Raises:
        LTMError: ``configuration_error``.
    """
    return _backend_options(expand_ltm_config({"ltm": config}))


def parse_ltm_config(settings: Mapping[str, Any], env: Mapping[str, str] | None = None) -> LTMBackend:
    """Return the backend that ``settings`` describe. The caller must close it.

    Args:
        settings: as for ``expand_ltm_config``.
        env: as for ``expand_env_vars``.

    Raises:
        LTMError: ``configuration_error`` for a bad setting; the message names the key, and the most similar known key.
            ``dependency_missing`` if a package must be installed. Also every failure of the constructor, for example
            ``connection_error`` if the database cannot be reached and the setting ``lazy`` is not true.
    """
    config = expand_ltm_config(settings, env)
    problem: LTMError
    try:
        name = _backend_name(config)
        factory = find_backend_factory(name, config.get("url"))
        paths = _PATHS if name == _DEFAULT_BACKEND else ()
        _check_names(config, factory, "settings.ltm", {"backend", "catalog", "errors", *paths, *other_names(name)})
        name, options = _backend_options(config)
        return create_ltm_backend(name, **options)
    except ImportError as error:
        problem = LTMError("dependency_missing", str(error))
    except ValueError as error:
        problem = _invalid(f"settings.ltm.backend: {error}")
    except LTMError as failure:
        if failure.error_type != "configuration_error":
            raise
        message = str(failure)
        problem = _invalid(message if message.startswith("settings") else _under("settings.ltm", message))
    raise problem


def parse_catalog_config(config: str | Mapping[str, Any]) -> CatalogBackend:
    """Return the catalog that a ``catalog`` block describes. The caller must close it.

    Args:
        config: the name of a catalog, or a mapping with its ``type`` and options; environment variables are expanded.
            Without ``type``, a block with ``path`` is ``sqlite``, and any other block is ``sqlalchemy``.

    Raises:
        LTMError: ``configuration_error`` for a bad key, which the message names; ``dependency_missing`` if a package
            must be installed; every failure of the constructor.
    """
    factory, options = catalog_options(expand_env_vars(config))
    return factory(**options)


def catalog_options(config: str | Mapping[str, Any]) -> tuple[CatalogFactory, dict[str, Any]]:
    """Return the class or function that makes a catalog, and its arguments.

    Raises:
        LTMError: ``configuration_error`` for a bad key, which the message names; ``dependency_missing`` if a package
            must be installed.
    """
    block = {"type": config} if isinstance(config, str) else config
    if not isinstance(block, Mapping) or not all(isinstance(key, str) for key in block):
        raise _invalid("catalog must be the name of a catalog or a mapping such as {type: sqlalchemy}")
    options: dict[str, Any] = dict(block)
    name = options.pop("type", _CATALOG_OF_A_PATH if "path" in options else _DEFAULT_CATALOG)
    problem: LTMError
    try:
        factory = find_catalog_factory(name, options.get("url"))
    except ImportError as error:
        problem = LTMError("dependency_missing", str(error))
    except ValueError as error:
        problem = _invalid(f"catalog.type: {error}")
    else:
        _check_names(options, factory, "catalog", {"type"})
        return factory, options
    raise problem


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the valid word most similar to ``word``, or a list of all valid words."""
    choices = sorted(valid)
    close = get_close_matches(word, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(choices)}"


def _value_of(env: Mapping[str, str] | None, variable: re.Match[str]) -> str:
    name, default = variable.groups()
    variables = os.environ if env is None else env
    value = variables.get(name, "")
    if value or default is None:
        if name not in variables and env is not None:
            raise _invalid(
                f"the environment variable {name} is not set among those that the host lets this file read (`env`);"
                f" add it there, or write ${{{name}:-default}}"
            )
        if name not in variables:
            raise _invalid(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value
    return str(default)


def _typed(text: str) -> Any:
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})\.\d{1,18}", text):
        return float(text)
    return _LITERALS.get(text.lower(), text)


def _without_flat_names(options: Mapping[str, Any], key_count: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in options.items():
        if not isinstance(key, str):
            raise _invalid(f"settings.ltm has a key that is not text: {key!r}")
        plain[key.removeprefix(_FLAT)] = value
    if len(plain) < key_count:
        raise _invalid("settings.ltm names a key twice, once in its flat spelling")
    return plain


def _backend_name(config: Mapping[str, Any]) -> str:
    name = config["backend"]
    if not isinstance(name, str) or not name.strip():
        raise _invalid("settings.ltm.backend must be the name of a backend")
    return name.strip().lower()


def _backend_options(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    name = _backend_name(config)
    options = constructor_options(name, {key: value for key, value in config.items() if key != "backend"})
    if options.get("catalog", ...) is None:
        del options["catalog"]
    return name, _with_url(options) if name == _DEFAULT_BACKEND else options


def _with_url(options: dict[str, Any]) -> dict[str, Any]:
    paths = {key: options.pop(key) for key in _PATHS if key in options}
    places = [*paths, *(["url"] if "url" in options else [])]
    if not places:
        raise _invalid("settings.ltm.url is missing; write for example url: sqlite:///./ltm.db")
    if len(places) > 1:
        raise _invalid(f"settings.ltm takes one of url, path and db_path, not {' and '.join(places)}")
    for key, path in paths.items():
        if not isinstance(path, str) or not path or "?" in path or "%" in path:
            raise _invalid(f"settings.ltm.{key} must be the path of an SQLite file, without ? and %")
        options["url"] = "sqlite://" if path == ":memory:" else f"sqlite:///{path}"
    return options


def _check_names(config: Mapping[str, Any], factory: Any, where: str, others: Iterable[str]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    valid = {*parameters, *others}
    for key in config:
        if key not in valid:
            raise _invalid(f"{where} has no key {key!r}{nearest(key, valid)}")


def _under(where: str, message: str) -> str:
    """Return a constructor's message with ``where`` before it; if it begins with an option, as ``where.option``."""
    names_option = re.match(r"[a-z]+_[a-z]|(url|echo|lazy|catalog|search|timeout|engine|ttl|errors)[ :]", message)
    return f"{where}{'.' if names_option else ': '}{message}"


def _invalid(message: str) -> LTMError:
    return LTMError("configuration_error", message)
