"""Firebird: the errors of its server, and the work that its driver leaves to us."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from sqlalchemy import make_url, text

from databases import Database
from firebird_database import FirebirdDatabase, firebird_engine
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, check_database

pytestmark = pytest.mark.targets("other", family="firebird")


def failure(place: Database, **changes: Any) -> LTMError:
    url = make_url(place.url).set(**changes).render_as_string(hide_password=False)
    with pytest.raises(LTMError) as refused:
        SQLAlchemyBackend(url, timeout=5, connect_timeout=1)
    return refused.value


def test_a_wrong_password_is_told(database: Database) -> None:
    assert failure(database, password="wrong").error_type == "auth_failed"


def test_a_missing_database_is_told(database: Database) -> None:
    refused = failure(database, database="/nowhere/missing.fdb")
    assert (refused.error_type, "no such database" in str(refused)) == ("connection_error", True)


def test_a_server_that_is_not_there_is_told(database: Database) -> None:
    refused = failure(database, port=1)
    assert (refused.error_type, "cannot reach" in str(refused)) == ("connection_error", True)


def test_the_same_path_on_another_server_is_another_database(database: Database) -> None:
    with database.open() as backend:
        failure(database, port=1)
        assert backend.store("k", 1)["created"]


def test_a_server_that_is_silent_ends_with_the_limit_for_connecting(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert failure(database, port=silent.getsockname()[1]).error_type == "connection_timeout"


def test_pages_too_small_for_the_keys_are_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firebird_database.PAGE_BYTES", 8192)
    small = FirebirdDatabase(database.target, database.url)
    with pytest.raises(LTMError, match="PAGE_SIZE 16384") as refused:
        SQLAlchemyBackend(small.url)
    small.drop()
    assert refused.value.error_type == "configuration_error"


def test_a_connection_that_the_server_ended_is_replaced(database: Database) -> None:
    with database.open() as backend:
        backend.store("k", 1)
        with firebird_engine(database.url).begin() as other:
            other.execute(text("DELETE FROM mon$attachments WHERE mon$attachment_id <> current_connection"))
        assert backend.retrieve("k")["value"] == 1


def test_a_row_that_stays_locked_is_a_lock_timeout(database: Database) -> None:
    with database.open(timeout=2) as backend, firebird_engine(database.url).connect() as other:
        backend.store("k", 1)
        other.execute(text("UPDATE ltm_entries SET version = 9"))
        assert backend.store("k", 2)["error_type"] == "lock_timeout"
        other.rollback()
        assert backend.store("k", 3)["version"] == 2


def test_the_check_names_the_server_and_its_version(database: Database) -> None:
    report = check_database(database.url)
    assert (report["success"], report["server"], report["server_version"][:2]) == (True, "Firebird", "3.")
    assert (report["search_path"], report["filter_path"]) == ("LIKE over search tokens", "Python")
