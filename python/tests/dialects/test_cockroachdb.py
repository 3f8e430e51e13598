"""CockroachDB: our statements, compiled for its dialect; the tests have no CockroachDB server."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import URL, insert
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.schema import CreateTable

from the_edge_agent.memory.core.filters import parse_filter
from the_edge_agent.memory.core.query import parse_query
from the_edge_agent.memory.sql.dialects import Dialect, for_dialect
from the_edge_agent.memory.sql.dialects.postgresql.dialect import PostgreSQLDialect
from the_edge_agent.memory.sql.schema.rows import entry_row
from the_edge_agent.memory.sql.schema.tables import Tables, copy_tables

pytestmark = pytest.mark.driver


@pytest.fixture(scope="module")
def cockroach() -> EngineDialect:
    """SQLAlchemy's dialect of a CockroachDB."""
    found: type[EngineDialect] = URL.create("cockroachdb+psycopg").get_dialect()
    return found()


@pytest.fixture
def tables() -> Tables:
    return copy_tables()


@pytest.fixture
def dialect(cockroach: EngineDialect, tables: Tables) -> Dialect:
    made = for_dialect(cockroach)(tables.entries.c.updated_at.type)
    made.schema.index_expiry(tables.entries)
    made.schema.extend(tables.entries, tables.catalog)
    return made


def test_it_is_served_by_the_class_of_postgresql(cockroach: EngineDialect) -> None:
    assert cockroach.name == "cockroachdb"
    assert issubclass(for_dialect(cockroach), PostgreSQLDialect)


def test_its_tables_have_exact_keys_times_with_a_zone_and_no_index_it_refuses(
    cockroach: EngineDialect, dialect: Dialect, tables: Tables
) -> None:
    made = str(CreateTable(tables.entries).compile(dialect=cockroach))
    assert "key VARCHAR(512)" in made
    assert "updated_at TIMESTAMP WITH TIME ZONE" in made
    statements = [str(found.compile(dialect=cockroach)) for found in dialect.schema.definitions(*tables.all())]
    assert len([found for found in statements if "CREATE TABLE IF NOT EXISTS" in found]) == 6
    assert not [found for found in statements if "COLLATE" in found], "it has no collation C: strings are bytes"


def test_an_upsert_is_one_statement(cockroach: EngineDialect, dialect: Dialect, tables: Tables) -> None:
    upsert: Any = dialect.queries.upsert(tables.entries, entry_row(dialect, tables.entries))
    compiled = str(upsert.single.statement.compile(dialect=cockroach))
    assert "ON CONFLICT (key) DO UPDATE SET" in compiled
    assert "RETURNING ltm_entries.version" in compiled


def test_a_search_looks_the_words_up_and_filters_in_json(
    cockroach: EngineDialect, dialect: Dialect, tables: Tables
) -> None:
    matches, *_ = dialect.queries.texts(tables.entries).term_conditions(parse_query("red fox").terms)
    assert "search_vector @@ to_tsquery" in str(matches.compile(dialect=cockroach))
    condition = dialect.queries.filters(tables.entries).condition(parse_filter({"n": {"$gt": 1}, "kind": "note"}))  # type: ignore[arg-type]
    assert condition is not None
    compiled = str(condition.compile(dialect=cockroach))
    assert "metadata_json @> CAST" in compiled
    assert "COLLATE" not in compiled


def test_a_plain_insert_compiles(cockroach: EngineDialect, tables: Tables) -> None:
    assert "INSERT INTO ltm_schema_version" in str(insert(tables.schema_version).compile(dialect=cockroach))
