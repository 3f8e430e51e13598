"""``PostgreSQLFeatures``: what PostgreSQL can do."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Boolean, ColumnElement, DateTime, String, Text, cast, func, literal_column
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.postgres.shared_sql import WHOLE_INDEX
from the_edge_agent.memory.postgres.times import AS_TEXT, in_utc
from the_edge_agent.memory.sql.dialects.base import Features

#: A condition that makes an index find all matches, for sessions that do not keep our settings.
IS_WHOLE: Final[ColumnElement[bool]] = literal_column(WHOLE_INDEX, type_=Boolean())
_AS_TEXT: Final[ColumnElement[str]] = literal_column(AS_TEXT, type_=Text())
_EXACT: Final = "C"


class Timestamp(TypeDecorator[datetime]):
    """TIMESTAMPTZ, selected as text in UTC, because drivers read times by the session's TimeZone and DateStyle."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the text of a column."""
        written = func.to_char(func.timezone(literal_column("'UTC'"), column), _AS_TEXT, type_=Text())
        return func.coalesce(written, cast(column, Text()), type_=self)  # to_char returns NULL for infinity

    def process_result_value(self, value: Any, dialect: EngineDialect) -> datetime | None:
        """Return the time that is in the text. A caller's own SQL may have selected the column without the conversion.

        A time that Python does not have (infinity, before the year 1 or after 9999) is returned as text.
        """
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        try:
            return in_utc(value)
        except ValueError:  # not raised, because its message shows the text
            return value  # type: ignore[return-value]


_KEY: Final = String(MAX_KEY_LENGTH, collation=_EXACT)
_TIME: Final = Timestamp()


@dataclass(kw_only=True)
class PostgreSQLFeatures(Features):
    """What PostgreSQL, or a database that understands its SQL, can do.

    Attributes:
        exact_collation: the collation that compares strings by code point; None if every collation does so.
        hides_words: whether a question looks up words in a SELECT of its own, so that the planner does not guess how
            many entries have all words.
        has_gin: whether an index can serve metadata filters; the probe decides.
        without_json: the names of the tables that have no JSONB copy of the metadata; the probe decides.
        keeps_settings: whether a session keeps the settings that we make, and has no limit on how many matches an index
            finds. Behind a pooler it may not. The probe decides.
    """

    product: str = "PostgreSQL"
    key_type: TypeEngine[Any] = _KEY
    time_type: TypeEngine[Any] = _TIME
    has_exact_keys: bool = True
    partial_index: str | None = "postgresql_where"
    socket_drivers: frozenset[str] = frozenset({"psycopg", "psycopg2"})
    preparing_drivers: frozenset[str] = frozenset({"psycopg"})
    commits_single_statements: bool = True
    has_snapshot_reads: bool = True
    has_text_index: bool = True
    has_json: bool = True
    position: str = "strpos"
    exact_collation: str | None = _EXACT
    hides_words: bool = True
    has_gin: bool = True
    without_json: Set[str] = frozenset()
    keeps_settings: bool = True

    @property
    def search_path(self) -> str:
        """A short text for people that says how words are searched. It is correct only after the probe."""
        return "full-text index (tsvector)" if self.has_text_index else super().search_path

    @property
    def filter_path(self) -> str:
        """A short text for people that says how metadata filters are decided. It is correct only after the probe."""
        return "JSONB" if self.has_json else super().filter_path
