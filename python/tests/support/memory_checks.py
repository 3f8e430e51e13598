"""Code that the tests of `check_database` and `tea memory check` share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from databases import Database
from the_edge_agent.cli.app import app
from the_edge_agent.memory.diagnostics import self_test

STEPS: Final = ["create_tables", *(name for name, _ in self_test.STEPS), "clean_up"]

on_files_and_servers = pytest.mark.targets(portable=False, in_memory=False)


def objects(url: str) -> set[tuple[str, str]]:
    """Return kind and name of all tables and indexes of a database; on SQLite of its triggers too."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return {(kind, name) for kind, name in connection.execute(text("SELECT type, name FROM sqlite_master"))}
        inspector = inspect(connection)
        tables = inspector.get_table_names()
        indexes = {("index", str(index["name"])) for table in tables for index in inspector.get_indexes(table)}
        return {("table", name) for name in tables} | indexes


def run_sql(url: str, *statements: str) -> None:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def steps_of(report: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(step["step"], step["success"]) for step in report["self_test"]]


def tea(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run ``tea memory check`` in this process; return its exit code and what it printed."""
    result = CliRunner(env={"NO_COLOR": "1", **environment}).invoke(
        app, ["memory", "check", *arguments], catch_exceptions=False
    )
    return result.exit_code, result.output


class LeavesNothing:
    """Tests after which a database must have the same tables, indexes and triggers as before."""

    @pytest.fixture
    def before(self, database: Database) -> Iterator[set[tuple[str, str]]]:
        """The tables, indexes and triggers of the database, which must be the same after the test."""
        if database.target.family == "sqlite":
            run_sql(database.url, "CREATE TABLE application (id INTEGER)")
        objects_before = objects(database.url)
        yield objects_before
        assert objects(database.url) == objects_before
