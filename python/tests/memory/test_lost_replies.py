"""A connection is cut while a write commits: the backend reads the rows to learn whether the write was committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Any

import pytest
from sqlalchemy import column, create_engine, event, func, make_url, select, table, update
from sqlalchemy.pool import NullPool

from databases import Database
from faults.connections import Proxy, kill_connections
from the_edge_agent.memory import PostgresBackend, SQLAlchemyBackend
from the_edge_agent.memory.postgres.pool import Connection

pytestmark = [pytest.mark.slow, pytest.mark.targets("native", server=True, portable=False)]

ENTRIES = table("ltm_entries", column("key"), column("version"), column("write_id"), column("updated_at"))


def opened(database: Database, url: str, **options: Any) -> Any:
    if not database.target.native:
        return SQLAlchemyBackend(url, **options)
    url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresBackend(url, prepare_threshold=None, **options)


class Cut:
    """A memory behind a proxy, which can cut its connection at a COMMIT."""

    def __init__(self, database: Database, proxy: Proxy, memory: Any) -> None:
        self._database, self._proxy, self.memory = database, proxy, memory
        self.cuts = 0

    def at_commit(self, what: str, call: Callable[[Any], Any], *, then: Callable[[], object] | None = None) -> Any:
        """Return the result of a call whose COMMIT is cut off: the request for it, or the reply to it."""

        def cut(*_: Any) -> None:
            if not self.cuts:
                self.cuts += 1
                self._proxy.cut, self._proxy.when_cut = what, then or (lambda: None)  # type: ignore[assignment]

        self.cuts = 0
        if self._database.target.native:
            with pytest.MonkeyPatch.context() as patched:
                execute = Connection.execute

                def watched(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
                    if query == "COMMIT":
                        cut()
                    return execute(connection, query, *arguments, **options)

                patched.setattr(Connection, "execute", watched)
                result = call(self.memory)
        else:
            event.listen(self.memory._engine, "commit", cut)
            try:
                result = call(self.memory)
            finally:
                event.remove(self.memory._engine, "commit", cut)
        assert (self.cuts, self._proxy.cut) == (1, None)
        return result


@contextmanager
def behind_a_proxy(database: Database, **options: Any) -> Iterator[Cut]:
    with Proxy(database.url) as proxy, opened(database, proxy.url, **options) as memory:
        assert memory.count()["success"]
        yield Cut(database, proxy, memory)


@pytest.fixture
def cut(database: Database) -> Iterator[Cut]:
    with behind_a_proxy(database) as cut:
        yield cut


def is_unknown(result: dict[str, Any]) -> bool:
    return (result["success"], result.get("error_type"), result.get("unknown")) == (False, "connection_error", True)


both = pytest.mark.parametrize("what", ["request", "reply"])


@both
def test_a_store_is_done_once_and_its_answer_is_right(cut: Cut, what: Any) -> None:
    for version in (1, 2, 3):
        cut._proxy.cut = what
        stored = cut.memory.store("k", "a fox", {"n": version})
        assert cut._proxy.cut is None
        assert stored == {"success": True, "stored": True, "key": "k", "created": version == 1, "version": version}
        found = cut.memory.retrieve("k")
        assert (found["value"], found["metadata"], found["version"]) == ("a fox", {"n": version}, version)


@both
def test_a_store_that_another_memory_overwrites_is_unknown(cut: Cut, database: Database, what: Any) -> None:
    with opened(database, database.url) as other:
        for key in ("new", "k"):
            cut._proxy.cut, cut._proxy.when_cut = what, partial(other.store, key, "another's")
            assert is_unknown(cut.memory.store(key, "a fox"))
            assert other.retrieve(key)["value"] == "another's"
    assert cut.memory.store("k", "a fox")["success"]


@both
def test_a_batch_is_stored_once_and_its_answer_is_right(cut: Cut, what: str) -> None:
    entries = [{"key": f"k{number}", "value": number} for number in range(3)]
    for version in (1, 2):
        result = cut.at_commit(what, lambda memory: memory.store_many(entries))
        assert [each["version"] for each in result["results"]] == [version] * 3
        assert [each["created"] for each in result["results"]] == [version == 1] * 3
    assert cut.memory.retrieve("k0")["version"] == 2


@both
def test_a_touch_whose_reply_is_lost_runs_again(cut: Cut, what: str) -> None:
    cut.memory.store("k", "a fox", ttl=1000)
    before = cut.memory.retrieve("k", times=True)
    touched = cut.at_commit(what, lambda memory: memory.touch("k", ttl=5000))
    after = cut.memory.retrieve("k", times=True)
    assert (touched["found"], touched["expires_at"]) == (True, after["expires_at"])
    assert (after["version"], after["updated_at"]) == (1, before["updated_at"])
    assert (after["expires_at"] - before["expires_at"]).total_seconds() > 3990


@both
@pytest.mark.parametrize("way", ["fail", "skip", "replace"])
def test_an_import_is_done_once_and_its_answer_is_right(cut: Cut, what: str, way: Any) -> None:
    entries = [{"key": f"k{number}", "value": number, "version": 5} for number in range(3)]
    if way != "fail":
        cut.memory.store("k0", "before")
    imported = cut.at_commit(what, lambda memory: memory.import_entries(entries, way))
    if what == "request" and way != "replace":  # there is no row to tell; another import may have been undone
        assert imported["unknown"] is True
        return
    count = 1 if way != "fail" else 0
    assert imported == {
        "success": True,
        "imported_count": 3 - count,
        "skipped_count": count if way == "skip" else 0,
        "replaced_count": count if way == "replace" else 0,
    }
    assert [entry["version"] for entry in cut.memory.iterate_entries()] == [1 if way == "skip" else 5, 5, 5]


def test_the_old_time_of_an_import_proves_nothing(cut: Cut, database: Database) -> None:
    old = [{"key": "k", "value": "a copy", "updated_at": datetime(2020, 1, 1, tzinfo=timezone.utc)}]
    with opened(database, database.url) as other:
        cut._proxy.cut, cut._proxy.when_cut = "reply", partial(other.import_entries, old, "replace")
        assert is_unknown(cut.memory.store("k", "a fox"))
        assert other.retrieve("k")["value"] == "a copy"


@both
def test_if_version_is_decided_over_what_this_memory_has_written(cut: Cut, what: str) -> None:
    cut.memory.store("k", 1)
    assert cut.at_commit(what, lambda memory: memory.store("k", 2, if_version=1))["version"] == 2
    assert cut.memory.retrieve("k")["version"] == 2


def test_if_version_does_not_store_again_what_is_not_there(cut: Cut) -> None:
    assert is_unknown(cut.at_commit("request", lambda memory: memory.store("k", 2, if_version=0)))
    assert cut.at_commit("reply", lambda memory: memory.store("k", 2, if_version=0))["created"] is True


@both
def test_a_transaction_of_stores_and_deletes_is_decided_by_one_of_its_rows(cut: Cut, what: str) -> None:
    cut.memory.store_many([{"key": "k", "value": 1}, {"key": "gone", "value": 1}])

    def run(memory: Any) -> Any:
        transaction = memory.transaction()
        transaction.store("k", "a")
        transaction.delete("gone")
        transaction.store("k", "b")
        return transaction.commit()

    results = cut.at_commit(what, run)["results"]
    assert [results[0]["version"], results[1]["deleted"], results[2]["version"]] == [2, True, 3]
    assert (cut.memory.retrieve("k")["value"], cut.memory.retrieve("gone")["found"]) == ("b", False)


@pytest.mark.parametrize(
    "delete", [lambda memory: memory.delete("k"), lambda memory: memory.delete_many(["k", "other"])]
)
def test_a_delete_that_never_arrived_is_run_again(cut: Cut, delete: Callable[[Any], Any]) -> None:
    cut.memory.store("k", 1)
    assert cut.at_commit("request", delete)["success"] is True
    assert cut.memory.retrieve("k")["found"] is False


def test_a_delete_that_has_left_nothing_to_look_at_is_unknown(cut: Cut) -> None:
    cut.memory.store("k", 1)
    assert is_unknown(cut.at_commit("reply", lambda memory: memory.delete("k")))


@both
def test_a_delete_of_nothing_is_never_unknown(cut: Cut, what: str) -> None:
    assert cut.at_commit(what, lambda memory: memory.delete("k")) == {"success": True, "deleted": False, "key": "k"}
    assert cut.at_commit(what, lambda memory: memory.delete_many(["k"]))["deleted_count"] == 0


def test_a_cleanup_that_never_arrived_is_run_again(cut: Cut) -> None:
    cut.memory.store("k", 1, ttl=0.001)
    while cut.memory.retrieve("k")["found"]:
        pass
    assert cut.at_commit("request", lambda memory: memory.cleanup_expired())["deleted_count"] == 1


@both
def test_the_ledger_is_written_with_the_entry(database: Database, what: str) -> None:
    catalog = "postgres" if database.target.native else "sqlalchemy"
    with behind_a_proxy(database, catalog=catalog) as cut:
        for version in (1, 2):
            assert cut.at_commit(what, lambda memory: memory.store("k", 1))["version"] == version
        assert [entry["key"] for entry in cut.memory.catalog.list_entries()] == ["k"]


@pytest.mark.parametrize(("what", "if_version"), [("request", None), ("reply", None), ("reply", 1)])
def test_another_write_that_began_before_the_call_proves_nothing(
    cut: Cut, database: Database, what: str, if_version: int | None
) -> None:
    cut.memory.store("k", 1)
    engine = create_engine(database.url, poolclass=NullPool)

    def overwrite() -> None:
        """Write the row as a transaction does that began before the call, and was committed after it."""
        with engine.begin() as connection:
            began = connection.scalar(select(ENTRIES.c.updated_at).where(ENTRIES.c.key == "k-began"))
            changes = {"version": ENTRIES.c.version + 1, "write_id": "another's", "updated_at": began}
            connection.execute(update(ENTRIES).where(ENTRIES.c.key == "k").values(changes))

    cut.memory.store("k-began", 1)
    if if_version:
        result = cut.at_commit(what, lambda memory: memory.store("k", 2, if_version=if_version), then=overwrite)
    else:
        cut._proxy.cut, cut._proxy.when_cut = what, overwrite  # type: ignore[assignment]
        result = cut.memory.store("k", 2)
    assert is_unknown(result)
    with engine.connect() as connection:
        assert connection.scalar(select(ENTRIES.c.write_id).where(ENTRIES.c.key == "k")) == "another's"
        assert connection.scalar(select(func.count()).select_from(ENTRIES)) == 2


def test_a_row_of_another_memory_proves_it_when_it_is_old(cut: Cut, database: Database) -> None:
    engine = create_engine(database.url, poolclass=NullPool)
    with opened(database, database.url) as other:
        other.store("k", 1)
        assert is_unknown(cut.at_commit("request", lambda memory: memory.store("k", 2, if_version=1)))
        minute = {"postgresql": "now() - interval '1 minute'", "mysql": "utc_timestamp(6) - interval 1 minute"}
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE ltm_entries SET updated_at = {minute[engine.dialect.name]}")
        assert cut.at_commit("request", lambda memory: memory.store("k", 2, if_version=1))["version"] == 2


def test_a_call_survives_every_loss_before_its_commit(cut: Cut, database: Database) -> None:
    cut.memory.store("k", 1)
    losses = 5

    def lose() -> None:
        nonlocal losses
        losses -= 1
        if losses > 0:
            cut._proxy.cut = "request"

    cut._proxy.cut, cut._proxy.when_cut = "request", lose
    found = cut.memory.retrieve("k")
    assert found.get("value") == 1, found
    losses, cut._proxy.cut = 5, "request"
    assert cut.memory.store_many([{"key": "k", "value": 2}, {"key": "l", "value": 2}])["success"] is True
    losses, cut._proxy.cut = 5, "request"
    assert cut.memory.store("k", 3)["version"] == 3


def test_writers_whose_connections_are_killed_all_the_time_succeed(database: Database) -> None:
    """Sessions are killed as soon as they are there, most of them while they are set up."""
    end = threading.Event()

    def kill() -> None:
        while not end.is_set():
            kill_connections(database)

    with opened(database, database.url) as memory:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for call in (
                partial(memory.store, "k", 1),
                partial(memory.store_many, [{"key": "a", "value": 1}]),
                partial(memory.retrieve, "k"),
                partial(memory.search, "fox"),
            ) * 2:
                result = call()
                assert result["success"] or result.get("unknown"), result
        finally:
            end.set()
            killer.join()
        assert memory.store("k", 1)["success"] is True
