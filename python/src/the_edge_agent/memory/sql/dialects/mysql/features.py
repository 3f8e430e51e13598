"""``MySQLFeatures``: what MySQL and MariaDB can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.dialects.mysql import DATETIME, LONGTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.sql.dialects.base import Features

_EXACT: Final = "utf8mb4_0900_bin"  # utf8mb4_bin ignores trailing spaces: "a" would equal "a "
_TABLE_OPTIONS: Final = {
    f"{name}_{option}": value
    for name in ("mysql", "mariadb")  # SQLAlchemy has two names for the dialect
    for option, value in (("engine", "InnoDB"), ("row_format", "DYNAMIC"))
}


def exact_text(collation: str) -> TypeEngine[Any]:
    """Return the type of keys that compare by a collation."""
    return VARCHAR(MAX_KEY_LENGTH, charset="utf8mb4", collation=collation)


def _ascii(length: int) -> TypeEngine[Any]:
    return VARCHAR(length, charset="ascii", collation="ascii_bin")


_KEY: Final = exact_text(_EXACT)
_JSON: Final = LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")
_TOKENS: Final = LONGTEXT(charset="ascii", collation="ascii_bin")
_TIME: Final = DATETIME(fsp=6)


@dataclass(kw_only=True)
class MySQLFeatures(Features):
    """What MySQL can do.

    Attributes:
        exact_collation: the collation that compares strings by code point.
    """

    product: str = "MySQL"
    key_type: TypeEngine[Any] = _KEY
    text_type: TypeEngine[Any] = _JSON
    token_type: TypeEngine[Any] = _TOKENS
    time_type: TypeEngine[Any] = _TIME
    ascii_type: Callable[[int], TypeEngine[Any]] = _ascii
    has_exact_keys: bool = True
    table_options: Mapping[str, str] = field(default_factory=lambda: _TABLE_OPTIONS)
    socket_drivers: frozenset[str] = frozenset({"pymysql", "mysqldb", "mysqlconnector"})
    cipher: str | None = "SHOW STATUS LIKE 'Ssl_cipher'"
    commits_single_statements: bool = True
    has_snapshot_reads: bool = True
    before_snapshot: str | None = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    has_text_index: bool = True
    has_json: bool = True
    position: str = "instr"
    exact_collation: str = _EXACT

    @property
    def search_path(self) -> str:
        """A short text for people that says how words are searched. It is correct only after the probe."""
        return f"index of words, then {super().search_path}" if self.has_text_index else super().search_path

    @property
    def filter_path(self) -> str:
        """A short text for people that says how metadata filters are decided. It is correct only after the probe."""
        return "JSON functions, behind metadata hashes" if self.has_json else super().filter_path
