"""SQLite files with damaged bytes: calls fail only with errors of the contract, and the undamaged rest can be read."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from run_length import LONG, SEED, of_this_run
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLiteBackend, check_database

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

FILE_DAMAGED = "the file is damaged"  # how the errors begin
PAGE = 1024
CALLS_OF_ONE = 9  # of each damaged file in the short form
MEMORIES: dict[str, Callable[[Path], Any]] = {
    "native": lambda file: SQLiteBackend(file, catalog="sqlite", timeout=5),
    "sqlalchemy": lambda file: SQLAlchemyBackend(f"sqlite:///{file}", catalog="sqlalchemy", timeout=5),
}
KEYS = [f"k{n}" for n in range(30)]


def committed(memory: Any) -> None:
    with memory.transaction() as transaction:
        transaction.store("t", 1)
        transaction.delete("k6")


def of_snapshot(call: str) -> Callable[[Any], Any]:
    return lambda memory: getattr(memory.catalog, call)(memory.catalog.list_snapshots()[0]["id"])


CALLS: dict[str, Callable[[Any], Any]] = {
    "retrieve": lambda memory: memory.retrieve("k1"),
    "retrieve_many": lambda memory: memory.retrieve_many(KEYS),
    "a question": lambda memory: memory.search("fox hound"),
    "all words": lambda memory: memory.search("red fox", match="all"),
    "a filter": lambda memory: memory.search(None, {"n": {"$gt": 3}}),
    "an explanation": lambda memory: memory.search("fox", {"n": 3}, explain=True),
    "iterate_all": lambda memory: list(memory.iterate_all()),
    "iterate_entries": lambda memory: list(memory.iterate_entries("k")),
    "list_keys": lambda memory: memory.list_keys(),
    "count": lambda memory: memory.count(),
    "store": lambda memory: memory.store("k1", "red fox"),
    "a new entry": lambda memory: memory.store("new", {"fox": 1}, {"n": 3}),
    "over a version": lambda memory: memory.store("k2", 2, if_version=1),
    "store_many": lambda memory: memory.store_many([{"key": key, "value": key} for key in KEYS]),
    "delete": lambda memory: memory.delete("k3"),
    "delete_many": lambda memory: memory.delete_many(["k4", "k5"]),
    "a transaction": committed,
    "cleanup_expired": lambda memory: memory.cleanup_expired(),
    "sync_catalog": lambda memory: memory.sync_catalog(),
    "get_entry": lambda memory: memory.catalog.get_entry("k7"),
    "list_entries": lambda memory: memory.catalog.list_entries("k", {"n": {"$gt": 2}}),
    "retrieve_batch": lambda memory: memory.catalog.retrieve_batch(KEYS),
    "track_entry": lambda memory: memory.catalog.track_entry("z", "hash", None, 1, None),
    "store_batch": lambda memory: memory.catalog.store_batch([{"key": "y", "content_hash": "h", "byte_size": 1}]),
    "delete_entry": lambda memory: memory.catalog.delete_entry("k8"),
    "create_snapshot": lambda memory: memory.catalog.create_snapshot("another"),
    "list_snapshots": lambda memory: memory.catalog.list_snapshots(),
    "clean the catalog": lambda memory: memory.catalog.cleanup_expired(),
    **{call: of_snapshot(call) for call in ("get_snapshot", "get_changed_entries", "get_deleted_entries")},
    "delete_snapshot": of_snapshot("delete_snapshot"),
}


class Files:
    """The bytes of a memory and its catalog, also with a journal, and what damages them."""

    def __init__(self, folder: Path) -> None:
        file = folder / "whole.db"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(f"PRAGMA page_size={PAGE}")
            connection.execute("VACUUM")
        with SQLiteBackend(file, catalog="sqlite") as memory:
            for n, key in enumerate(KEYS):
                memory.store(
                    key, {"text": f"red fox of {key}; " * (n % 7), "n": n}, {"n": n}, ttl=3600 if n % 3 else None
                )
            catalog: Any = memory.catalog
            catalog.create_snapshot("before")
            self.before, self.journal = file.read_bytes(), Path(f"{file}-wal").read_bytes()
        self.plain = file.read_bytes()

    def damaged(self, chance: random.Random) -> tuple[bytes, bytes | None]:
        """Return a file and its journal, of which one is damaged somewhere."""
        if chance.random() < 0.3:
            return self.before, damage(self.journal, chance)
        return damage(self.plain, chance), None


def damage(whole: bytes, chance: random.Random) -> bytes:
    data = bytearray(whole)
    start = chance.randrange(max(1, len(data) // PAGE)) * PAGE
    other = chance.randrange(max(1, len(data) // PAGE)) * PAGE
    match chance.choice(["zeros", "noise", "bits", "end", "header", "swap", "head of a page"]):
        case "zeros":
            data[start : start + PAGE] = bytes(PAGE)
        case "noise":
            data[start : start + PAGE] = chance.randbytes(PAGE)
        case "bits":
            for _ in range(chance.choice([1, 3, 20])):
                data[chance.randrange(start, start + PAGE) % len(data)] ^= 1 << chance.randrange(8)
        case "end":
            del data[chance.randrange(len(data)) :]
        case "header":
            for _ in range(3):
                data[chance.randrange(100)] = chance.randrange(256)
        case "swap":
            page = data[start : start + PAGE]
            data[start : start + PAGE], data[other : other + PAGE] = data[other : other + PAGE], page
        case _:
            data[start : start + 8] = chance.randbytes(8)
    return bytes(data)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("whole"))


def failures(file: Path, kind: str, chance: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the failures of calls on a file; an exception that is none of them goes through."""
    names = list(CALLS) if LONG else chance.sample(list(CALLS), CALLS_OF_ONE)
    try:
        memory = MEMORIES[kind](file)
    except LTMError as failure:
        yield "constructor", failure.result
        return
    with memory:
        for name in names:
            try:
                result = CALLS[name](memory)
            except LTMError as failure:
                result = failure.result
            except IndexError:  # no snapshot is left
                continue
            if isinstance(result, dict) and result.get("success") is False:
                yield name, result


def tells_what_is_wrong(failure: dict[str, Any]) -> bool:
    """Return whether a failure is about the file or an entry, or one that a whole file may give, too."""
    # The second is of a schema that is other valid SQL now, the third of a row that a damaged index does not show.
    texts = (FILE_DAMAGED, "a table or column is missing", "there is no snapshot with this id")
    names_damage = "damaged" in failure or any(text in failure["error"] for text in texts)
    says_more = failure["error_type"] in ("conflict", "configuration_error")
    return names_damage or says_more or "read-only" in failure["error"]  # for a file of a later version, SQLite says


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_damaged_file_gives_no_failure_but_those_that_say_so(kind: str, files: Files, tmp_path: Path) -> None:
    for number in range(of_this_run(50, 1500)):
        chance = random.Random(f"{SEED}/{kind}/{number}")
        file = tmp_path / f"{number}.db"
        data, journal = files.damaged(chance)
        file.write_bytes(data)
        if journal is not None:
            Path(f"{file}-wal").write_bytes(journal)
        try:
            for call, failure in failures(file, kind, chance):
                assert tells_what_is_wrong(failure), (call, failure)
            if number % 50 == 0:
                checked = check_database(f"sqlite:///{file}", timeout=5, data=True)
                assert checked["success"] or tells_what_is_wrong(checked), checked
        except Exception as error:
            raise AssertionError(f"seed {SEED}, {kind}, file {number}") from error


def test_the_native_class_exports_a_table_whose_index_is_damaged(files: Files, tmp_path: Path) -> None:
    file, data = tmp_path / "ltm.db", bytearray(files.plain)
    file.write_bytes(data)
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_ltm_entries_1'"
        root = connection.execute(query).fetchone()[0]
    data[(root - 1) * PAGE : root * PAGE] = bytes(PAGE)
    file.write_bytes(data)
    with SQLiteBackend(file) as memory:
        assert memory.retrieve("k17")["error"] == FILE_DAMAGED
        for prefix in ("", "k1"):
            expected = sorted(key for key in KEYS if key.startswith(prefix))
            assert [key for key, _, _ in memory.iterate_all(prefix)] == expected
            assert [entry["key"] for entry in memory.iterate_entries(prefix)] == expected


@pytest.mark.parametrize("kind", MEMORIES)
@pytest.mark.parametrize("zeros", [False, True])
def test_what_is_not_in_the_damaged_part_can_be_exported(kind: str, zeros: bool, files: Files, tmp_path: Path) -> None:
    file, data = tmp_path / "ltm.db", bytearray(files.plain)
    start = data.index(b"red fox of k17;") // PAGE * PAGE
    data[start : start + PAGE] = bytes(PAGE) if zeros else b"\xff" * PAGE
    file.write_bytes(data)
    with MEMORIES[kind](file) as memory:
        for walk in (memory.iterate_all(), memory.iterate_entries()):
            entries = list(walk)
            found = [entry["key"] if isinstance(entry, dict) else entry[0] for entry in entries]
            assert "k17" in walk.damaged
            assert sorted([*found, *walk.damaged]) == sorted(KEYS)
            assert len(found) > 20
        assert memory.retrieve(found[0])["found"] is True
        refused = memory.retrieve("k17")
        assert (refused["error_type"], refused["error"][: len(FILE_DAMAGED)]) == ("connection_error", FILE_DAMAGED)
    checked = check_database(f"sqlite:///{file}", data=True)
    lost = sorted(each["key"] for each in checked["damaged"] if each["place"] == "memory")
    assert (checked["success"], lost) == (False, sorted(walk.damaged))
    assert checked["error"].startswith(FILE_DAMAGED)
