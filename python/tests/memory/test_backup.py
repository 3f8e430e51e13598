"""Backups and restores keep entries, versions, times, order and snapshots, also in parts."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from databases import Database, Target, run_sql
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLiteBackend, back_up, export_entries, restore
from the_edge_agent.memory.database import catalog as catalog_module

on_each_family = pytest.mark.targets(portable=False, in_memory=False)
on_classes = pytest.mark.targets("native", portable=False, in_memory=False)


def lines_of(memory: Any) -> list[bytes]:
    file = io.BytesIO()
    export_entries(memory, file)
    return file.getvalue().splitlines()[1:]


def backed_up(memory: Any, since: str | None = None, **options: Any) -> tuple[bytes, dict[str, Any]]:
    file = io.BytesIO()
    report = back_up(memory, file, since=since, **options)
    return file.getvalue(), dict(report)


def restored(memory: Any, *files: bytes, **options: Any) -> dict[str, Any]:
    return dict(restore(memory, map(io.BytesIO, files), **options))


def work(memory: Any, generator: random.Random) -> None:
    """Do something of everything."""
    for _ in range(40):
        place = memory.namespace(*generator.choice([(), ("a.b",), ("a.b", "é")]))
        key, value = f"é/{generator.randrange(40)} ", generator.choice([1, 1.0, None, "日😀", {"b": [10**30], "a": {}}])
        match generator.randrange(5):
            case 0:
                place.delete(key)
            case 1:
                place.touch(key, 7200)
            case 2:
                again = place.retrieve(key)
                place.store(key, again["value"], again["metadata"])  # only the version and the times change
            case _:
                lifetime = generator.choice([None, None, 3600])
                place.store(key, value, generator.choice([None, {}, {"n": 1.0}]), ttl=lifetime, index=value != 1)


def states(catalog: Any) -> dict[str, Any]:
    """Return all snapshots with what they have recorded, and what has changed since each."""
    return {
        each["id"]: (
            each,
            [*catalog.iterate_snapshot(each["id"])],
            [
                (entry["key"], entry["content_hash"], entry["expires_at"])
                for entry in catalog.get_changed_entries(each["id"])
            ],
            catalog.get_deleted_entries(each["id"]),
        )
        for each in catalog.list_snapshots()
    }


@pytest.fixture
def empty() -> Iterator[Any]:
    with SQLiteBackend(catalog="sqlite", errors="raise") as memory:
        yield memory


@on_classes
def test_all_backups_together_are_the_memory_and_its_snapshots(
    database: Database, target: Target, empty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "RECORDED_AT_ONCE", 7)
    generator, files, since = random.Random(7), list[bytes](), None
    name = target.family if target.native else "sqlalchemy"
    catalog_name = "postgres" if name == "postgresql" else name
    with database.open(catalog=catalog_name, errors="raise") as memory:
        for number in range(4):
            work(memory, generator)
            if number % 2:
                memory.catalog.create_snapshot(f"of {number}")
                work(memory, generator)
            file, report = backed_up(memory, since)
            files.append(file)
            since = report["snapshot_id"]
        assert restored(empty, *reversed(files))["snapshot_count"] == 6
        assert lines_of(empty) == lines_of(memory)
        assert states(empty.catalog) == states(memory.catalog)
        assert {*restored(empty, *files).values()} == {True, 0, memory.count()["count"]}
        work(memory, generator)
        file, report = backed_up(memory, since)
        restored(empty, file)
        assert lines_of(empty) == lines_of(memory)
        before = states(memory.catalog)
        memory.delete_all("")  # a disaster
        for each in memory.catalog.list_snapshots():
            memory.catalog.delete_snapshot(each["id"])
        assert restored(memory, *files, file)["snapshot_count"] == len(before)
        assert lines_of(memory) == lines_of(empty)
        assert states(memory.catalog) == before
        assert memory.sync_catalog()["tracked_count"] == 0


class TestAPart:
    @pytest.fixture
    def memory(self) -> Iterator[Any]:
        with SQLAlchemyBackend("sqlite://", catalog="sqlalchemy", errors="raise") as memory:
            old = datetime(2020, 1, 1, tzinfo=timezone.utc)
            memory.import_entries({"key": f"k{n}", "value": n, "created_at": old, "updated_at": old} for n in range(5))
            yield memory

    def keys_of(self, file: bytes) -> list[str]:
        fields = map(json.loads, file.splitlines()[1:-1])
        return [("-" if "deleted" in each else "") + each["key"] for each in fields if "key" in each]

    def test_it_has_what_is_new_different_or_gone_and_no_more(self, memory: Any) -> None:
        _, report = backed_up(memory)
        memory.store("k2", "other")
        memory.store("new", None)
        memory.delete("k0")
        file, report = backed_up(memory, report["snapshot_id"])
        assert self.keys_of(file) == ["-k0", "k2", "new"]
        assert (report["entries"], report["deleted_count"], report["snapshot_count"]) == (2, 1, 1)

    def test_a_store_of_an_equal_value_is_a_change(self, memory: Any, empty: Any) -> None:
        first, report = backed_up(memory)
        memory.store("k1", 1)
        second, report = backed_up(memory, report["snapshot_id"])
        assert self.keys_of(second) == ["k1"]
        memory.delete("k1")
        memory.store("k1", 1)
        third, _ = backed_up(memory, report["snapshot_id"])
        restored(empty, first, second, third)
        assert lines_of(empty) == lines_of(memory)
        assert empty.retrieve("k1")["version"] == 1

    def test_an_entry_that_came_during_the_backup_and_went_is_not_restored(
        self, memory: Any, empty: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sync = memory.catalog.create_snapshot

        def created(name: str) -> str:
            snapshot_id: str = sync(name)
            memory.store("during", 1)
            return snapshot_id

        with monkeypatch.context() as patch:
            patch.setattr(type(memory._ledger.catalog), "create_snapshot", lambda _, name: created(name))
            first, report = backed_up(memory)
        memory.delete("during")
        second, _ = backed_up(memory, report["snapshot_id"])
        restored(empty, first, second)
        assert lines_of(empty) == lines_of(memory)

    def test_a_snapshot_that_was_deleted_is_not_restored(self, memory: Any, empty: Any) -> None:
        first, report = backed_up(memory)
        second, later = backed_up(memory, report["snapshot_id"])
        memory.catalog.delete_snapshot(report["snapshot_id"])
        third, last = backed_up(memory, later["snapshot_id"])
        restored(empty, first, second, third)
        assert {each["id"] for each in empty.catalog.list_snapshots()} == {later["snapshot_id"], last["snapshot_id"]}

    def test_restore_refuses_it_without_the_backup_before(self, memory: Any, empty: Any) -> None:
        files, since = list[bytes](), None
        for _ in range(3):
            file, report = backed_up(memory, since)
            files.append(file)
            since = report["snapshot_id"]
        for chosen in ([1], [0, 2], [1, 2], [0, 0], []):
            with pytest.raises(LTMError, match=r"begins at the snapshot|do not follow|no backup") as caught:
                restored(empty, *(files[number] for number in chosen))
            assert caught.value.error_type == "validation_error"
        assert empty.count()["count"] == 0

    def test_an_unknown_snapshot_is_refused(self, memory: Any) -> None:
        with pytest.raises(LTMError, match="there is no snapshot"):
            backed_up(memory, "0" * 36)


class TestFailures:
    @pytest.fixture
    def memory(self) -> Iterator[Any]:
        with SQLiteBackend(catalog="sqlite", errors="raise") as memory:
            memory.store_many([{"key": f"k{n}", "value": n} for n in range(9)])
            yield memory

    def test_a_backup_that_fails_leaves_no_snapshot(self, memory: Any) -> None:
        class Full(io.BytesIO):
            def write(self, data: Any, /) -> int:
                raise OSError("full")

        with pytest.raises(OSError, match="full"):
            back_up(memory, Full())
        assert memory.catalog.list_snapshots() == []

    def test_damaged_entries_are_named(self, memory: Any) -> None:
        run_sql(memory, "UPDATE ltm_entries SET value = '{' WHERE key = 'k3'")
        with pytest.raises(LTMError, match="the backup has all entries but 1 damaged: 'k3'"):
            backed_up(memory)

    @pytest.mark.parametrize("end", [1, 5, 12, 16, 20])
    def test_a_file_that_is_cut_off_is_an_error(self, memory: Any, empty: Any, end: int) -> None:
        file, _ = backed_up(memory)
        lines = file.splitlines(keepends=True)
        assert len(lines) == 21
        with pytest.raises(LTMError, match="cut off"):
            restored(empty, b"".join(lines[:end]))
        assert empty.catalog.list_snapshots() == [] or end == 20
        assert restored(empty, file)["success"]
        assert lines_of(empty) == lines_of(memory)
        assert len(empty.catalog.list_snapshots()) == 1

    def test_an_export_and_a_backup_are_told_apart(self, memory: Any, empty: Any) -> None:
        file = io.BytesIO()
        export_entries(memory, file)
        with pytest.raises(LTMError, match="an export, not a backup"):
            restored(empty, file.getvalue())
        from the_edge_agent.memory import import_file

        with pytest.raises(LTMError, match="a backup, not an export"):
            import_file(empty, io.BytesIO(backed_up(memory)[0]))

    def test_a_conflict_is_named(self, memory: Any, empty: Any) -> None:
        empty.store("k3", "mine")
        file, _ = backed_up(memory)
        with pytest.raises(LTMError, match="'k3' is there already"):
            restored(empty, file)
        assert restored(empty, file, on_conflict="replace")["replaced_count"] == 1

    def test_what_has_no_catalog_is_refused(self, memory: Any) -> None:
        with SQLiteBackend() as without, pytest.raises(LTMError, match="has no catalog"):
            backed_up(without)
        with pytest.raises(LTMError, match="whole memory"):
            backed_up(memory.namespace("n"))

    def test_without_sync_the_catalog_is_taken_as_it_is(self, memory: Any) -> None:
        run_sql(memory, "DELETE FROM ltm_catalog WHERE key = 'k3'")
        assert backed_up(memory, sync=False)[1]["entries"] == 8
        assert backed_up(memory)[1]["entries"] == 9
