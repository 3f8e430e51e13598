"""The mapping of driver errors to error types: first by code, last by the fixed texts of libpq."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.pool import NullPool

from the_edge_agent.memory.core.results import ERROR_TYPES, LTMError, fail
from the_edge_agent.memory.database.errors import Where
from the_edge_agent.memory.sql.driver.deadlines import Deadline, DeadlineError
from the_edge_agent.memory.sql.driver.errors import ConnectingError, LostRaceError, classify
from the_edge_agent.memory.sql.transactions import retrying


class CodedError(Exception):
    """A driver's error with the attributes that its driver gives."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args)
        self.__dict__.update(attributes)


def wrapped(original: Exception, *, invalidated: bool = False) -> exc.DBAPIError:
    return exc.DBAPIError("SELECT 1", {}, original, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("original", "error_type", "retry"),
    [
        (CodedError(sqlstate="40P01"), "lock_timeout", True),
        (CodedError(sqlstate="40001"), "lock_timeout", True),
        (CodedError(sqlstate="55P03"), "lock_timeout", True),
        (CodedError(pgcode="40P01"), "lock_timeout", True),
        (CodedError(sqlstate="57014"), "query_error", False),
        (CodedError(sqlstate="57P01"), "connection_error", False),
        (CodedError(sqlstate="08006"), "connection_error", False),
        (CodedError(sqlstate="25006"), "connection_error", False),
        (CodedError(sqlstate="28P01"), "auth_failed", False),
        (CodedError(sqlstate="3D000"), "connection_error", False),
        (CodedError(sqlstate="3F000"), "configuration_error", False),
        (CodedError(sqlstate="23505"), "validation_error", False),
        (CodedError(sqlstate="23514"), "validation_error", False),
        (CodedError(sqlstate="22001"), "validation_error", False),
        (CodedError(sqlstate="42P01"), "query_error", False),
        (CodedError(sqlstate="XX000"), "query_error", False),
        (CodedError(1213, "Deadlock found"), "lock_timeout", True),
        (CodedError(1205, "Lock wait timeout"), "lock_timeout", True),
        (CodedError(1305, "SAVEPOINT does not exist"), "lock_timeout", True),
        (CodedError(3024, "maximum execution time"), "query_error", False),
        (CodedError(2006, "gone away"), "connection_error", False),
        (CodedError(2013, "Lost connection"), "connection_error", False),
        (CodedError(2013, "Lost connection (timed out)"), "connection_timeout", False),
        (CodedError(2003, "Can't connect (timed out)"), "connection_timeout", False),
        (CodedError(2003, "Can't connect (refused)"), "connection_error", False),
        (CodedError(1045, "Access denied"), "auth_failed", False),
        (CodedError(1049, "Unknown database"), "connection_error", False),
        (CodedError(1062, "Duplicate entry"), "validation_error", False),
        (CodedError(1290, "running with the --read-only option"), "connection_error", False),
        (CodedError(1290, "running with the --secure-timestamp=YES option"), "configuration_error", False),
        (CodedError(1071, "Specified key was too long"), "configuration_error", False),
        (CodedError(1709, "Index column size too large"), "configuration_error", False),
        (CodedError(1104, "The SELECT would examine more than MAX_JOIN_SIZE rows"), "configuration_error", False),
        (CodedError(1665, "binlog_format"), "configuration_error", False),
        (CodedError(1146, "Table doesn't exist"), "query_error", False),
        (CodedError(1064, "syntax; near 'timed out'"), "query_error", False),
        (CodedError("x", sqlite_errorname="SQLITE_BUSY_SNAPSHOT"), "lock_timeout", True),
        (CodedError("x", sqlite_errorname="SQLITE_READONLY"), "connection_error", False),
        (CodedError("x", sqlite_errorname="SQLITE_CANTOPEN"), "connection_error", False),
        (CodedError("x", sqlite_errorname="SQLITE_FULL"), "query_error", False),
        (CodedError("x", sqlite_errorname="SQLITE_CONSTRAINT_NOTNULL"), "validation_error", False),
        (CodedError("database is locked"), "lock_timeout", True),
        (CodedError("no such table: ltm_entries"), "query_error", False),
        (CodedError('FATAL:  password authentication failed for user "u"'), "auth_failed", False),
        (CodedError('FATAL:  database "x" does not exist'), "connection_error", False),
        (CodedError('FATAL:  role "x" does not exist'), "auth_failed", False),
        (CodedError("the database system is in recovery mode"), "connection_error", False),
        (CodedError("the database system is not yet accepting connections"), "connection_error", False),
        (CodedError("could not send SSL negotiation packet: Connection reset by peer"), "connection_error", False),
        (CodedError("connection failed: No route to host"), "connection_error", False),
        (CodedError(sqlstate="57P05"), "connection_error", False),
        (CodedError("connection timeout expired"), "connection_timeout", False),
        (CodedError("connection failed: Connection refused"), "connection_error", False),
        (CodedError('invalid connection option "x"'), "configuration_error", False),
        (CodedError("something new"), "query_error", False),
    ],
    ids=lambda value: str(value) if not isinstance(value, CodedError) else str(value.__dict__ or value.args),
)
def test_an_error_is_what_its_code_says(original: CodedError, error_type: str, retry: bool) -> None:
    failure = classify(wrapped(original))
    assert (failure.error_type, failure.retry) == (error_type, retry)
    assert failure.error_type in ERROR_TYPES


class OperationalError(Exception):
    """An error of psycopg as libpq raises it, without a code."""

    sqlstate = pgconn = None


@pytest.mark.parametrize("error", [OperationalError("etwas Neues"), wrapped(OperationalError("etwas Neues"))])
def test_an_error_of_libpq_without_a_code_is_one_of_the_connection(error: Exception) -> None:
    failure = classify(error)
    assert (failure.error_type, failure.lost) == ("connection_error", True)


@pytest.mark.parametrize(
    ("number", "text", "error_type"),
    [
        (1130, "Host 'x' is not allowed to connect", "connection_error"),
        (1203, "more than 'max_user_connections' active connections", "connection_error"),
        (2003, "Can't connect to MySQL server on 'x' ([Errno -2] Name or service not known)", "connection_error"),
        (2026, "SSL is required but the server doesn't support it", "configuration_error"),
        (2026, "TLS/SSL error: self-signed certificate in certificate chain", "connection_error"),
        (2003, "Can't connect ([SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed)", "connection_error"),
        (3118, "Access denied for user 'x'. Account is locked.", "auth_failed"),
    ],
)
def test_while_connecting_no_error_is_one_of_a_statement(number: int, text: str, error_type: str) -> None:
    error = ConnectingError(wrapped(CodedError(number, text)), Where(host="nohost"), ())
    assert classify(error).error_type == error_type


@pytest.mark.parametrize(
    "original",
    [
        CodedError(1047, "WSREP has not yet prepared node for application use"),
        CodedError(1290, "running with the --super-read-only option"),
        CodedError(1792, "in a READ ONLY transaction"),
        CodedError(1836, "Running in read-only mode"),
        CodedError(3032, "The server is currently in offline mode"),
        CodedError(3100, "Error on observer while running replication hook 'before_commit'."),
        CodedError(sqlstate="25006"),
    ],
)
def test_a_server_that_takes_no_writes_has_written_nothing_and_another_may_serve(
    original: Exception,
) -> None:
    failure = classify(wrapped(original))
    assert (failure.error_type, failure.lost, failure.untouched) == ("connection_error", True, True)


@pytest.mark.parametrize(
    "original",
    [
        CodedError(2013, "Lost connection"),
        CodedError(-1, "MySQL Connection not available"),
        CodedError(sqlstate="25P03"),
    ],
)
def test_a_connection_that_was_cut_may_have_written(original: Exception) -> None:
    failure = classify(wrapped(original))
    assert (failure.lost, failure.untouched) == (True, False)


def test_an_invalidated_connection_is_lost() -> None:
    assert classify(wrapped(CodedError(0, ""), invalidated=True)).error_type == "connection_error"


def test_an_exhausted_pool_is_a_timeout() -> None:
    assert classify(exc.TimeoutError("QueuePool limit")).error_type == "connection_timeout"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (1071, "innodb_page_size of 16384"),
        (1709, "innodb_page_size of 16384"),
        (1104, "sql_big_selects = 1"),
        (1665, "set it to ROW or MIXED"),
        (3159, "ssl_ca=FILE"),
    ],
)
def test_an_error_of_the_server_s_settings_says_what_to_change(number: int, remedy: str) -> None:
    assert remedy in classify(wrapped(CodedError(number, "refused"))).error


def test_messages_hold_nothing_of_the_driver_s_text() -> None:
    failure = classify(wrapped(CodedError(1062, "Duplicate entry 'secret-value' for key")))
    assert "secret-value" not in failure.error


def test_a_driver_error_that_a_listener_raises_unwrapped_is_mapped_too() -> None:
    def attempt() -> None:
        raise sqlite3.OperationalError("unable to open database file")

    with pytest.raises(LTMError) as raised:
        retrying(attempt, Deadline(1))
    assert raised.value.error_type == "connection_error"


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        retrying(lambda: 1 // 0, Deadline(1))


def test_a_conflict_is_tried_again_and_then_reported() -> None:
    attempts: list[int] = []

    def attempt() -> str:
        attempts.append(1)
        if len(attempts) < 4:
            raise LostRaceError
        return "stored"

    assert retrying(attempt, Deadline(5)) == "stored"
    assert len(attempts) == 4

    def lost_forever() -> None:
        raise LostRaceError

    with pytest.raises(LTMError) as raised:
        retrying(lost_forever, Deadline(0.05))
    assert raised.value.error_type == "lock_timeout"


def test_a_loss_is_reported_though_the_last_attempt_to_connect_was_out_of_time() -> None:
    deadline = Deadline(0.05)
    attempts: list[int] = []

    def attempt() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise wrapped(CodedError(1047, "WSREP has not yet prepared node for application use"))
        while deadline.remaining():
            pass
        raise DeadlineError

    with pytest.raises(LTMError, match="lost its cluster"):
        retrying(attempt, deadline)
    assert len(attempts) == 2


def test_failures_carry_no_driver_error_as_context() -> None:
    engine = create_engine("sqlite://", poolclass=NullPool)

    def attempt() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT * FROM missing"))

    with pytest.raises(LTMError) as raised:
        retrying(attempt, Deadline(1))
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_the_exception_survives_a_process_boundary() -> None:
    import pickle

    error = LTMError("conflict", "changed meanwhile", version=3)
    copy = pickle.loads(pickle.dumps(error))
    assert copy.result == fail("conflict", "changed meanwhile", version=3)
    assert str(copy) == "changed meanwhile"
