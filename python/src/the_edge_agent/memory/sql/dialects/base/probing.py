"""Trials: whether a server accepts what a dialect would use, found out by doing it and taking it back."""

from __future__ import annotations

from sqlalchemy import Connection, NestedTransaction
from sqlalchemy.exc import DBAPIError

from the_edge_agent.memory.sql.driver.errors import classify


def accepts(connection: Connection, *statements: str) -> bool:
    """Return whether the server runs these statements, which leave nothing behind.

    A missing privilege, or a database that is read-only, tells nothing: what is there is taken to work then, and says
    itself what it lacks.

    Raises:
        DBAPIError: the server did not answer.
    """
    savepoint = connection.begin_nested()
    try:
        for statement in statements:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        failure = classify(error)
        if failure.error_type != "query_error" and not failure.denied:
            raise
        _take_back(connection, savepoint)
        return failure.denied
    _take_back(connection, savepoint)
    return True


def _take_back(connection: Connection, savepoint: NestedTransaction) -> None:
    try:
        savepoint.rollback()
    except DBAPIError:  # CockroachDB, which takes no DDL back to a savepoint
        connection.rollback()
