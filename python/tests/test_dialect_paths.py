"""What a dialect says of itself: how it searches and filters, as it was decided when it connected."""

from __future__ import annotations

from typing import Final

import pytest

from databases import Database, Target

_LIKE: Final = "LIKE over search tokens"
_PATHS: Final = {
    "sqlite": ("full-text index (FTS5)", "json_each"),
    "postgresql": ("full-text index (tsvector)", "JSONB"),
    "mysql": (_LIKE, "JSON functions"),
    "mariadb": (_LIKE, "JSON functions"),
}


@pytest.fixture
def paths(database: Database) -> tuple[str, str]:
    """The two paths of a started database."""
    with database.open() as backend:
        dialect = backend._database.start().schema.dialect
        return dialect.search_path, dialect.filter_path


def test_a_dialect_says_how_it_searches_and_filters(target: Target, paths: tuple[str, str]) -> None:
    assert paths == ((_LIKE, "Python") if target.portable else _PATHS[target.family])
