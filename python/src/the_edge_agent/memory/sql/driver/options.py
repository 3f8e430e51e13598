"""Checks the options of the backends' constructors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Engine

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import kind_of
from the_edge_agent.memory.core.validation import check_flag, check_idle_timeout, check_prepare_threshold
from the_edge_agent.memory.sql.driver.url import asynchronous

MAX_TABLE_NAME: Final = 40  # characters; the names of indexes are longer, but below PostgreSQL's limit of 63
_TABLE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
_RESERVED_NAMES: Final = re.compile(
    r"ltm_(catalog|snapshots|snapshot_entries|settings|schema_version)|(sqlite|pg)_.*"  # names of other tables
    r"|.*_(fts|fts_.*|inserted|updated|deleted|earlier)"  # tables and triggers of an entries' table
)
_OWN_OPTIONS: Final = ("url", "echo", "pool_size", "max_overflow", "pool_timeout", "connect_args")
_FIXED: Final = ("hide_parameters", "pool_reset_on_return", "use_insertmanyvalues", "paramstyle")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options for connecting, which the constructors of the backends document. Times are in seconds.

    Raises:
        LTMError: ``configuration_error`` that names the option.
    """

    pool_size: int = 5
    max_overflow: int = 10
    pool_timeout: float = 10.0
    connect_timeout: float = 10.0
    timeout: float = 30.0
    echo: bool = False
    create_tables: bool = True
    idle_transaction_timeout: float | None = None
    prepare_threshold: int | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold a secret
    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check every option."""
        _check_whole("pool_size", self.pool_size, 1)
        _check_whole("max_overflow", self.max_overflow, 0)
        for name in ("pool_timeout", "connect_timeout", "timeout"):
            _check_seconds(name, getattr(self, name))
        check_flag("echo", self.echo)
        check_flag("create_tables", self.create_tables)
        check_idle_timeout(self.idle_transaction_timeout, self.timeout)
        check_prepare_threshold(self.prepare_threshold)
        _check_mapping("engine_args", self.engine_args)
        _check_mapping("connect_args", self.connect_args)
        for name in (*_OWN_OPTIONS, *_FIXED):
            if name in self.engine_args:
                advice = "it cannot be changed" if name in _FIXED else f"give {name} itself"
                raise _invalid(f"engine_args must not have {name}; {advice}")

    def check_for(self, engine: Any) -> None:
        """Check a caller's engine. It has its own settings, so options of the pool or the driver are refused.

        Raises:
            LTMError: ``configuration_error``.
        """
        if getattr(getattr(engine, "dialect", None), "is_async", False):  # an AsyncEngine, or its sync_engine
            raise asynchronous(engine.url)
        if not isinstance(engine, Engine):
            raise _invalid(f"engine must be a SQLAlchemy Engine, not {type(engine).__name__}")
        if engine.dialect.paramstyle.startswith("numeric"):
            raise _invalid(
                "drivers bind the numbers of paramstyle='numeric' in another order; create the engine without it"
            )
        unused = EngineOptions(timeout=self.timeout, create_tables=self.create_tables)
        for name in self.__slots__:
            if getattr(self, name) != getattr(unused, name):
                raise _invalid(f"{name} cannot be given together with engine; set it where the engine is created")


def check_source(url: Any, engine: Any, options: EngineOptions) -> Any:
    """Return the source of connections: a URL, or a caller's engine.

    Raises:
        LTMError: ``configuration_error`` if both or none are given, or for options that an engine does not take.
    """
    if (url is None) == (engine is None):
        raise _invalid("one of url and engine is needed, and only one")
    if engine is None:
        return url
    options.check_for(engine)
    return engine


def check_table_name(name: Any) -> str:
    """Return the name of the entries' table, if it means the same on every database.

    Raises:
        LTMError: ``configuration_error``.
    """
    is_name = isinstance(name, str) and len(name) <= MAX_TABLE_NAME and _TABLE_NAME.fullmatch(name)
    if not is_name or _RESERVED_NAMES.fullmatch(name):
        raise _invalid(
            f"table_name must be 1 to {MAX_TABLE_NAME} lower-case letters, digits and underscores, beginning with "
            "no digit, and not a name that is used for something else"
        )
    return str(name)


def _check_whole(name: str, number: Any, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise _invalid(f"{name} must be an integer of at least {least}, not {kind_of(number)}")


def _check_seconds(name: str, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1e9:
        raise _invalid(f"{name} must be a positive number of seconds, not {kind_of(number)}")


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _invalid(f"{name} must be a mapping of names to values, not {type(value).__name__}")


def _invalid(message: str) -> LTMError:
    return LTMError("configuration_error", message)
