"""``Features``: what a database can do, first by what we know of the product, then by what the probe finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import DateTime, String, Text
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH

LIKE_INSTEAD: Final = "no full-text index: searches use LIKE over search tokens"
PYTHON_INSTEAD: Final = "no JSON functions: metadata filters are decided in Python"

_KEY: Final = String(MAX_KEY_LENGTH)
_TEXT: Final = Text()
_TIME: Final = DateTime()


@dataclass(kw_only=True)
class Features:
    """What a database can do. The defaults are for a database that we know nothing about.

    A dialect class has one object with the values that hold before connecting. Each instance of the dialect has a copy,
    which the probe changes. All parts of the instance share that copy.

    Attributes:
        product: the name of the database for people; if empty, SQLAlchemy's name of the dialect is shown.
        key_type: the column type of keys. It must tell ``a``, ``A``, ``á`` and ``a `` apart and order by code point.
        text_type: the column type of JSON.
        token_type: the column type of search texts, which are ASCII.
        time_type: the column type of times.
        ascii_type: a function from a length to the column type of ASCII identifiers.
        has_exact_keys: whether ``key_type`` surely compares exactly; otherwise the first start checks it.
        partial_index: SQLAlchemy's option for the condition of a partial index; None if there are none. Using the
            option imports the module of SQLAlchemy's dialect.
        table_options: options of every table, as SQLAlchemy names them.
        is_embedded: whether the database is a file or memory of this process, so that a connection cannot be lost.
        socket_drivers: the drivers for which ``Sessions.socket_of`` returns the socket. The socket tells whether the
            connection is alive.
        preparing_drivers: the drivers that take psycopg's ``prepare_threshold``.
        cipher: a statement that returns one row; the last column is empty if the connection is not encrypted. None if
            the drivers check this themselves.
        finds_damage: whether ``Sessions.is_damage`` can detect a damaged file.
        isolation_level: the isolation level that we set if a caller's engine is in autocommit mode.
        commits_single_statements: whether ``Transactions.autocommit`` can make one statement commit by itself. Then a
            store of one entry needs no BEGIN.
        has_snapshot_reads: whether all reads of a transaction that begins with ``snapshot=True`` see one state.
        before_snapshot: a statement to run before a transaction that must see one state; None if there is none.
        has_text_index: whether an index finds words; the probe decides.
        has_json: whether SQL decides metadata filters; the probe decides.
        position: the SQL function that finds a text in another, see ``Queries.position``: ``instr``, ``strpos``, or
            ``position`` as the SQL standard has it.
        fallbacks: log messages; each names a feature that the server lacks and what the memory does instead.
    """

    product: str = ""
    key_type: TypeEngine[Any] = _KEY
    text_type: TypeEngine[Any] = _TEXT
    token_type: TypeEngine[Any] = _TEXT
    time_type: TypeEngine[Any] = _TIME
    ascii_type: Callable[[int], TypeEngine[Any]] = String
    has_exact_keys: bool = False
    partial_index: str | None = None
    table_options: Mapping[str, str] = field(default_factory=dict)
    is_embedded: bool = False
    socket_drivers: frozenset[str] = frozenset()
    preparing_drivers: frozenset[str] = frozenset()
    cipher: str | None = None
    finds_damage: bool = False
    isolation_level: str = "READ COMMITTED"
    commits_single_statements: bool = False
    has_snapshot_reads: bool = False
    before_snapshot: str | None = None
    has_text_index: bool = False
    has_json: bool = False
    position: str = "position"
    fallbacks: Sequence[str] = ()

    @property
    def search_path(self) -> str:
        """A short text for people that says how words are searched."""
        return "LIKE over search tokens"

    @property
    def filter_path(self) -> str:
        """A short text for people that says how metadata filters are decided."""
        return "Python"

    def fall_back(self, missing: Mapping[str, bool]) -> None:
        """Set ``fallbacks``. ``missing`` maps each log message to whether its feature is missing."""
        self.fallbacks = [words for words, is_missing in missing.items() if is_missing]


class Part:
    """A part of a dialect. All parts of one dialect share one ``Features`` object."""

    def __init__(self, features: Features) -> None:
        """Keep the features. The probe may change them later."""
        self.features = features
