"""What a database can do: one object has what is known of it, and what the probe has found."""

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
    """What a database can do. The defaults are those of a database of which nothing is known.

    A dialect class has one object with what is known before a connection is made. Each dialect gets a copy of it, which
    its probe fills; all parts of the dialect share that copy.

    Attributes:
        product: how people call the database; empty where SQLAlchemy's name for the dialect has to do.
        key_type: the column type of keys. It must tell ``a``, ``A``, ``á`` and ``a `` apart and order by code point.
        text_type: the column type of JSON.
        token_type: the column type of search texts, which are ASCII.
        time_type: the column type of times.
        ascii_type: makes the column type of ASCII identifiers of a length.
        has_exact_keys: whether ``key_type`` is known to compare exactly; otherwise the first start checks it.
        partial_index: SQLAlchemy's option for the condition of a partial index, None without. To name one loads the
            module of its dialect.
        table_options: options of every table, as SQLAlchemy names them.
        is_embedded: whether the database is a file or memory of this process, so that no connection to it can be lost.
        socket_drivers: the drivers whose socket ``Sessions.socket_of`` finds: a look at it tells whether the connection
            is alive.
        preparing_drivers: the drivers that take psycopg's ``prepare_threshold``.
        cipher: the statement whose row ends with an empty text on a connection that is not encrypted; None where
            drivers see to that.
        finds_damage: whether ``Sessions.is_damage`` can tell of a file that is damaged.
        isolation_level: the level of transactions where a caller's engine would commit each statement.
        commits_single_statements: whether ``Transactions.autocommit`` lets a statement commit by itself, so that a
            store of one entry needs no more.
        has_snapshot_reads: whether the reads of a transaction that begins as a snapshot see one state.
        before_snapshot: the statement that lets the next transaction see one state, where it takes one.
        has_text_index: whether an index finds words; the probe decides.
        has_json: whether SQL decides metadata filters; the probe decides.
        fallbacks: what the probe found to be missing, and what is done instead, in words for the log.
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
    fallbacks: Sequence[str] = ()

    @property
    def search_path(self) -> str:
        """How texts are searched, in words."""
        return "LIKE over search tokens"

    @property
    def filter_path(self) -> str:
        """How metadata filters are decided, in words."""
        return "Python"

    def fall_back(self, missing: Mapping[str, bool]) -> None:
        """Take those of these fallbacks whose feature is missing."""
        self.fallbacks = [words for words, is_missing in missing.items() if is_missing]


class Part:
    """A part of a dialect; all parts of one share what the database can do."""

    def __init__(self, features: Features) -> None:
        """Keep what the database can do, which the probe fills later."""
        self.features = features
