"""Trial statements: they show whether a server has a feature. A savepoint undoes them."""

from __future__ import annotations

from sqlalchemy import Connection, NestedTransaction
from sqlalchemy.exc import DBAPIError

from the_edge_agent.memory.sql.driver.errors import classify


def accepts(connection: Connection, *statements: str) -> bool:
    """Return whether the server runs these statements. Their effects are undone.

    If the user lacks a privilege, or the database is read-only, the trial shows nothing. Then this returns True, and a
    later statement that needs the feature reports the error.

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
    except DBAPIError:  # CockroachDB cannot undo DDL to a savepoint
        connection.rollback()
