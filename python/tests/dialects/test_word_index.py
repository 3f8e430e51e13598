"""The index of words on MySQL and MariaDB misses no entry, even if several processes write or one is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from databases import Database
from run_length import SEED, of_this_day, of_this_run
from the_edge_agent.cli.app import app
from the_edge_agent.memory import LTMBackend, LTMError, SQLAlchemyBackend
from the_edge_agent.memory.database import search_plan as plan
from the_edge_agent.memory.database.search_plan import StepLimits
from the_edge_agent.memory.sql.dialects.mysql import search as mysql_search
from the_edge_agent.memory.sql.dialects.mysql.blocks import WordBlocks
from the_edge_agent.memory.sql.dialects.mysql.words import (
    BLOCK,
    Places,
    WordTable,
    both,
    count,
    either,
    numbers,
    packed,
    unpacked,
)

pytestmark = [pytest.mark.slow, pytest.mark.targets(of_mysql=True, portable=False)]

SMALL: Final = 10  # entries of a block, in most of these tests
QUERIES: Final = (
    *("steady", "even", "third", "even third", "ev*", "steady t*", '"steady even"', '"even steady"', "steady -even"),
    *("n7", "n1*", "absent", "steady absent", "éven", "-even", "日", "x y z"),
)
FILTERS: Final = (None, {"kind": "often"}, {"n": 3})
WRITERS: Final = 8
PAUSE: Final = 0.002  # seconds between the writes of one writer: they share the interpreter with the searches
SEARCHES: Final = of_this_run(30, 5_000)  # times two
KILLS: Final = of_this_run(1, 50)
CUTS: Final = of_this_run(15, 1_000)

# Makes blocks of all entries and takes them apart again, until it is killed.
MAKING: Final = """
import sys
from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.memory.sql.dialects.mysql.blocks import WordBlocks

WordBlocks.every = 20
with SQLAlchemyBackend(sys.argv[1]) as memory:
    turn = int(sys.argv[2])
    while True:
        print(turn, flush=True)
        for number in range(turn % 3, 300, 3):
            memory.store(f"k{number:03}", f"steady turn{turn} w{number}")
        assert memory.optimize()["success"]
        turn += 1
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks, and what a search looks up, be small enough that some entries take every way."""
    monkeypatch.setattr(WordBlocks, "every", SMALL)
    monkeypatch.setattr(mysql_search, "LEAST_LOOKED_UP", 25)
    monkeypatch.setitem(plan.STEP_LIMITS, "mysql", (StepLimits(3, 12), StepLimits(40, 60)))
    monkeypatch.setattr(plan, "RANK_WINDOW", 10)


def described(number: int) -> str:
    words = ["steady", "even" if number % 2 == 0 else "odd", f"n{number}", "third" * (number % 3 == 0)]
    return " ".join([*words, "日本語" * (number % 5 == 0)])


def found(memory: LTMBackend, *search: Any) -> list[Any]:
    query, condition, limit, offset = search
    result = memory.search(query, condition, limit, match="all", offset=offset)
    assert result["success"], result
    return [(entry["key"], entry["score"]) for entry in result["results"]]


def count_of(memory: LTMBackend, query: str) -> int:
    result = memory.search(query, limit=10_000, match="all")
    assert result["success"], result
    return int(result["count"])


@contextmanager
def connected(database: Database) -> Iterator[Connection]:
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def rows_of(database: Database, statement: str) -> list[Any]:
    with connected(database) as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def check(database: Database, table: str = "ltm_entries") -> int:
    """Check what must hold after every transaction; return how many entries have a number."""
    found = rows_of(database, f"SELECT block, term, places FROM {table}_words")
    words = {(block, bytes(term)): bytes(places) for block, term, places in found}
    listed = {int.from_bytes(term, "big") for block, term in words if block == 0 and term}
    numbered = rows_of(database, f"SELECT number, search_text FROM {table} WHERE number IS NOT NULL")
    for number, tokens in numbered:
        block, place = divmod(number, BLOCK)
        assert block in listed
        for token in {*tokens.split()} - {"."}:
            assert unpacked(words[block, token.encode()]) >> place & 1, (number, token)
    assert len({number for number, _ in numbered}) == len(numbered)
    return len(numbered)


def test_places_are_kept_as_they_are() -> None:
    chance = random.Random(SEED)
    for size in (1, 2, 61, 62, 63, 64, 500, BLOCK):
        places = sorted(chance.sample(range(BLOCK), size))
        bits = unpacked(bytes.fromhex(packed(places)))
        assert [*numbers({7: bits})] == [7 * BLOCK + place for place in places]
        assert count({7: bits}) == size
    some: Places = {1: 0b110, 2: 0b1}
    other: Places = {1: 0b011, 3: 0b1}
    assert both(some, other) == both(other, some) == {1: 0b010}
    assert either(some, other) == either(other, some) == {1: 0b111, 2: 0b1, 3: 0b1}
    assert [*numbers(some)] == [2 * BLOCK, BLOCK + 1, BLOCK + 2]


@pytest.mark.parametrize("seed", range(of_this_run(1, 20)))
def test_searches_find_what_they_find_on_sqlite_while_entries_change(
    database: Database, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(SEED + seed)
    with database.open() as memory, SQLAlchemyBackend(f"sqlite:///{tmp_path / 'reference.db'}") as reference:
        for _ in range(4):
            for _ in range(40):
                number, is_deleted = chance.randrange(90), chance.random() < 0.25
                value = described(chance.randrange(number + 1))
                for each in (memory, reference):
                    if is_deleted:
                        each.delete(f"k{number}")
                    else:
                        metadata = {"kind": "often" if number % 4 else "seldom", "n": number % 20}
                        assert each.store(f"k{number}", value, metadata)["success"]
            if chance.random() < 0.5:
                assert memory.optimize()["success"]
            for query in QUERIES:
                search = (query, chance.choice(FILTERS), chance.choice((3, 10, 100)), chance.choice((0, 0, 5)))
                assert found(memory, *search) == found(reference, *search), search
        assert memory.optimize()["success"]
    assert check(database) > 0


def test_blocks_are_made_by_those_who_store_and_never_by_a_search(database: Database) -> None:
    with database.open() as memory:
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(25))
        made = check(database)
        assert made in (10, 20)
        for _ in range(30):
            assert count_of(memory, "steady") == 25
        assert check(database) == made
        for number in range(25, 60):
            memory.store(f"k{number}", described(number))
        assert check(database) >= 40
        assert count_of(memory, "steady") == 60


def test_optimize_makes_all_blocks_and_leaves_nothing_to_do(database: Database) -> None:
    with database.open() as memory:
        memory._database.start().upkeep.is_due = lambda stores: False
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(57))
        assert check(database) == 0
        assert memory.optimize() == {"success": True, "stemmed": 0, "blocks": 5, "entries": 50}
        assert memory.optimize() == {"success": True, "stemmed": 0, "blocks": 0, "entries": 0}
        assert count_of(memory, "steady") == 57
    assert check(database) == 50


def test_a_block_that_few_entries_are_left_of_is_dropped(database: Database) -> None:
    with database.open() as memory:
        for turn in range(8):
            memory.store_many({"key": f"k{number}", "value": f"steady turn{turn}"} for number in range(40))
        memory.optimize()
        blocks = rows_of(database, "SELECT COUNT(DISTINCT block) FROM ltm_entries_words WHERE block <> 0")
        assert blocks[0][0] <= 2 * 40 / SMALL
        assert count_of(memory, "turn7") == 40
        memory.delete_many(f"k{number}" for number in range(40))
        memory.optimize()
    assert rows_of(database, "SELECT COUNT(*) FROM ltm_entries_words WHERE block <> 0 OR term <> ''") == [(0,)]


def test_a_word_that_never_leaves_an_entry_is_never_missed(database: Database) -> None:
    """While writers overwrite, delete and make anew, blocks are made and dropped, and others do the same at once."""
    kept, ends, failures = 30, threading.Event(), list[Any]()

    def write(writer: int) -> None:
        chance = random.Random(SEED + writer)
        try:
            with database.open(pool_size=1) as memory:
                while not ends.is_set():
                    number = chance.randrange(kept)
                    assert memory.store(f"k{number:03}", f"steady own{number} x{chance.random()}")["success"]
                    key = f"other{chance.randrange(50)}"
                    assert memory.delete(key)["success"]
                    assert memory.store(key, f"other x{chance.random()}")["success"]
                    if chance.random() < 0.02:
                        assert memory.optimize()["success"]
                    ends.wait(PAUSE)
        except BaseException as error:
            failures.append(error)
            raise

    with database.open() as memory:
        memory.store_many({"key": f"k{number:03}", "value": f"steady own{number}"} for number in range(kept))
        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
        for thread in writers:
            thread.start()
        try:
            missed = [(count_of(memory, "steady"), count_of(memory, f"own{turn % kept}")) for turn in range(SEARCHES)]
        finally:
            ends.set()
            for thread in writers:
                thread.join()
        assert not failures
        assert {*missed} == {(kept, 1)}
        check(database)
        assert count_of(memory, "steady") == kept


def test_of_a_process_that_is_killed_while_it_makes_blocks_nothing_is_lost(database: Database) -> None:
    chance = random.Random(SEED)
    with database.open() as memory:
        memory.store_many({"key": f"k{number:03}", "value": f"steady w{number}"} for number in range(300))
        for turn in range(KILLS):
            arguments = [sys.executable, "-c", MAKING, database.url, str(turn)]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                assert process.stdout.readline() == f"{turn}\n"
                moment = threading.Event()
                moment.wait(chance.random() * 0.6)  # any moment will do
                process.send_signal(signal.SIGKILL)
            result = memory.search("steady", limit=1_000)
            assert sorted(entry["key"] for entry in result["results"]) == [f"k{number:03}" for number in range(300)]
            for number in chance.sample(range(300), 10):
                assert [key for key, _ in found(memory, f"w{number}", None, 5, 0)] == [f"k{number:03}"]
            check(database)
        memory.optimize()
        assert check(database) >= 290
        assert count_of(memory, "steady") == 300


def test_of_connections_that_are_cut_while_blocks_are_made_nothing_is_lost(database: Database) -> None:
    chance, ends, failures = random.Random(SEED), threading.Event(), list[Any]()

    def make() -> None:
        turn = 0
        try:
            with database.open(pool_size=1, max_overflow=0) as maker:
                while not ends.is_set():
                    for number in range(turn % 3, 300, 3):
                        maker.store(f"k{number:03}", f"steady turn{turn} w{number}")
                    maker.optimize()
                    turn += 1
        except BaseException as error:
            failures.append(error)
            raise

    def busy(killer: Connection) -> list[int]:
        others = "db = database() AND id <> connection_id() AND command NOT IN ('Sleep', 'Daemon')"
        return [*killer.scalars(text(f"SELECT id FROM information_schema.processlist WHERE {others}"))]

    with database.open() as memory, connected(database) as killer:
        memory.store_many({"key": f"k{number:03}", "value": f"steady w{number}"} for number in range(300))
        thread = threading.Thread(target=make)
        thread.start()
        cut = 0
        try:
            while cut < CUTS and not failures:
                ends.wait(chance.random() * 0.02)
                for number in busy(killer):
                    with suppress(DBAPIError):  # it has just ended by itself
                        killer.execute(text(f"KILL {number}"))
                        cut += 1
                if chance.random() < 0.1:
                    assert count_of(memory, "steady") == 300
        finally:
            ends.set()
            thread.join()
        assert not failures
        check(database)
        assert memory.optimize()["success"]
        assert check(database) >= 290
        assert count_of(memory, "steady") == 300
        for number in range(300):
            assert [key for key, _ in found(memory, f"w{number}", None, 5, 0)] == [f"k{number:03}"]


def test_others_number_the_entries_that_a_block_was_to_be_made_of(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_unnumbered, counted = WordTable.unnumbered, list[int]()

    def then_others_make_it(words: WordTable, connection: Any, most: int) -> int:
        found = count_unnumbered(words, connection, most)
        if not counted:
            counted.append(found)
            assert other.optimize() == {"success": True, "stemmed": 0, "blocks": 2, "entries": 20}
        return found

    with database.open() as memory, database.open() as other:
        memory._database.start().upkeep.is_due = lambda stores: False
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(20))
        other.count()
        monkeypatch.setattr(WordTable, "unnumbered", then_others_make_it)
        assert memory.optimize() == {"success": True, "stemmed": 0, "blocks": 0, "entries": 0}
        assert counted
        assert check(database) == 20
        assert count_of(memory, "steady") == 20


def test_an_entry_that_is_locked_keeps_the_others_of_its_block_from_nothing(database: Database) -> None:
    with database.open(timeout=5) as memory, connected(database) as other:
        memory._database.start().upkeep.is_due = lambda stores: False
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(20))
        other.execute(text("SELECT `key` FROM ltm_entries WHERE `key` = 'k11' FOR UPDATE"))
        assert memory.optimize()["success"]
        assert check(database) == 18  # of two blocks, both without the one that is locked
        assert ("k11",) in rows_of(database, "SELECT `key` FROM ltm_entries WHERE number IS NULL")
        other.rollback()


def test_a_store_does_not_wait_for_another_who_makes_a_block(database: Database) -> None:
    with database.open() as memory, connected(database) as other:
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(30))
        other.execute(text("SELECT block FROM ltm_entries_words WHERE block = 0 AND term = '' FOR UPDATE"))
        before = check(database)
        for number in range(30, 60):
            assert memory.store(f"k{number}", described(number))["success"]
        assert check(database) == before
        other.rollback()
        assert memory.optimize()["success"]
        assert check(database) == 60


def test_no_number_of_a_block_that_was_dropped_meanwhile_is_given(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_numbers: Callable[..., Any] = WordBlocks._give_numbers
    dropped: list[int] = []

    def later(blocks: Any, made: Any, *arguments: Any) -> Any:
        if not dropped:
            dropped.append(made.block)
            with database.open() as other:
                other._database.start().upkeep._dissolve(other._database._write, made.block)
        return give_numbers(blocks, made, *arguments)

    with database.open() as memory:
        memory._database.start().upkeep.is_due = lambda stores: False
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(20))
        monkeypatch.setattr(WordBlocks, "_give_numbers", later)
        memory.optimize()
        assert dropped
        check(database)
        assert rows_of(database, f"SELECT COUNT(*) FROM ltm_entries WHERE number DIV {BLOCK} = {dropped[0]}") == [(0,)]
        assert count_of(memory, "steady") == 20


@pytest.mark.parametrize("change", ["store", "delete", "anew"])
def test_an_entry_that_is_written_while_its_block_is_made_gets_no_number(
    database: Database, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    give_numbers: Callable[..., Any] = WordBlocks._give_numbers

    def later(*arguments: Any) -> Any:
        if change != "store":
            memory.delete("k3")
        if change != "delete":
            memory.store("k3", "changed")
        return give_numbers(*arguments)

    with database.open() as memory:
        memory._database.start().upkeep.is_due = lambda stores: False
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(10))
        monkeypatch.setattr(WordBlocks, "_give_numbers", later)
        assert memory.optimize()["entries"] == 9
        assert check(database) == 9
        assert count_of(memory, "changed") == (change != "delete")
        assert count_of(memory, "n3") == 0


@pytest.mark.parametrize("query", of_this_day(["rare", "common rare", "ra*", '"rare word"'], 2))
def test_a_rare_word_reads_few_rows(database: Database, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    monkeypatch.setattr(WordBlocks, "every", 500)
    monkeypatch.setattr(mysql_search, "LEAST_LOOKED_UP", 4_000)
    with database.open(pool_size=1, max_overflow=0) as memory:
        memory.store_many(
            {"key": f"k{number:04}", "value": f"common w{number} {'rare word' * (number % 700 == 3)}"}
            for number in range(3_000)
        )
        memory.optimize()
        assert check(database) == 3_000
        with memory._database.engine.connect() as connection:
            connection.exec_driver_sql("FLUSH STATUS")
        assert count_of(memory, query) == 5
        with memory._database.engine.connect() as connection:
            status = connection.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
            assert sum(int(value) for _, value in status) < 250


def test_each_table_has_words_of_its_own_and_a_copy_without_them_misses_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with database.open(table_name="first") as memory:
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(40))
        memory.optimize()
        assert check(database, "first") == 40
    with connected(database) as connection:
        connection.execute(text("CREATE TABLE second AS SELECT * FROM first"))
        connection.execute(text("DROP TABLE second"))
        connection.execute(text("CREATE TABLE second LIKE first"))
        connection.execute(text("INSERT INTO second SELECT * FROM first"))
        connection.commit()
    with pytest.raises(LTMError, match=r"copy that table's row of ltm_settings too, with second as table_name"):
        database.open(table_name="second")
    with connected(database) as connection:
        setting = "SELECT 'second', name, value FROM ltm_settings WHERE table_name = 'first'"
        connection.execute(text(f"INSERT INTO ltm_settings (table_name, name, value) {setting}"))
        connection.commit()
    with database.open(table_name="second") as memory:
        assert memory._database.start().schema.dialect.features.search_path == "LIKE over search tokens"
        assert "no table of words: words are searched with LIKE" in caplog.text
        assert memory.optimize() == {"success": True, "stemmed": 0, "blocks": 0, "entries": 0}
        assert count_of(memory, "even") == 20
        memory.store("k0", "changed")
        assert (count_of(memory, "even"), count_of(memory, "changed")) == (19, 1)
    with connected(database) as connection:
        connection.execute(text("CREATE TABLE second_words LIKE first_words"))
    with database.open(table_name="second") as memory:
        memory.optimize()  # of a table that came with numbers and without words
        assert check(database, "second") == 40
        assert (count_of(memory, "even"), count_of(memory, "changed")) == (19, 1)
    with connected(database) as connection:
        for table in ("first", "second"):
            connection.execute(text(f"DROP TABLE {table}, {table}_words"))
        connection.execute(text("DELETE FROM ltm_settings WHERE table_name IN ('first', 'second')"))
        connection.commit()


def test_a_memory_without_words_pays_nothing(database: Database) -> None:
    with database.open(table_name="wordless", search=False) as memory:
        memory.store("k", 1)
        assert memory.optimize() == {"success": True, "stemmed": 0, "blocks": 0, "entries": 0}
        assert "number" not in {row[0] for row in rows_of(database, "SHOW COLUMNS FROM wordless")}
    assert rows_of(database, "SHOW TABLES LIKE 'wordless_words'") == []
    assert "number" not in "".join(database.open(table_name="wordless2", search=False, lazy=True).ddl())
    printed = "".join(database.open(table_name="printed", lazy=True).ddl())
    assert "CREATE TABLE IF NOT EXISTS printed_words" in printed
    assert "number BIGINT" in printed
    with connected(database) as connection:
        connection.execute(text("DROP TABLE wordless"))


def test_a_table_of_another_application_is_refused(database: Database) -> None:
    with connected(database) as connection:
        connection.execute(text("CREATE TABLE mine_words (word VARCHAR(9))"))
    with pytest.raises(LTMError, match="mine_words") as raised:
        database.open(table_name="mine")
    assert raised.value.error_type == "configuration_error"
    assert rows_of(database, "SHOW TABLES LIKE 'mine'") == []
    with connected(database) as connection:
        connection.execute(text("DROP TABLE mine_words"))


def test_the_command_puts_all_words_into_the_index(database: Database) -> None:
    with database.open() as memory:
        memory._database.start().upkeep.is_due = lambda stores: False
        memory.store_many({"key": f"k{number}", "value": described(number)} for number in range(35))
    result = CliRunner().invoke(app, ["memory", "optimize", "--json", "--url", database.url])
    assert (result.exit_code, json.loads(result.stdout)) == (
        0,
        {"success": True, "stemmed": 0, "blocks": 3, "entries": 30},
    )
    failed = CliRunner().invoke(app, ["memory", "optimize", "--url", database.url, "--table", "absent"])
    assert failed.exit_code == 1
    assert rows_of(database, "SHOW TABLES LIKE 'absent'") == []
