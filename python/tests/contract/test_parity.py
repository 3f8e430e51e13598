"""All memories and all catalogs give the same answers to generated sequences of thousands of calls for each seed.

Every answer is compared as a text, field by field and byte by byte.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from databases import Database, Databases, chosen_targets, is_named
from parity_players import CatalogPlayer, MemoryPlayer, Player, play
from parity_sequences import sequence_of_a_catalog, sequence_of_a_memory
from run_length import SEED, of_this_run
from the_edge_agent.memory import SQLAlchemyBackend, SQLAlchemyCatalog, SQLiteBackend, SQLiteCatalog

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

OPERATIONS: Final = of_this_run(600, 20_000)
SEEDS: Final = range(SEED, SEED + of_this_run(1, 10))
CAPABILITIES: Final = {"transactions", "touch", "versions", "namespaces", "import"}


def empty_databases(databases: Databases, folder: Path) -> dict[str, Database]:
    """Return one for each chosen target; other databases take part where the choice names them.

    The portable dialect is compared by the state machine.
    """
    opened = {}
    for target in chosen_targets():
        if not target.portable and (not target.other or is_named(target)):
            (folder / target.name).mkdir()
            opened[target.name] = databases.empty(target, folder / target.name)
    if not opened:
        pytest.skip("no database is chosen that takes part")
    return opened


@contextmanager
def players(of: type[Player], openers: Mapping[str, Any], lasting: Collection[str] = ()) -> Iterator[dict[str, Player]]:
    """Open all and close them."""
    with ExitStack() as stack:
        by_name: dict[str, Player] = {}
        for name, opener in openers.items():
            by_name[name] = of(opener, lasting=name in lasting)
            stack.callback(by_name[name].close)
        yield by_name


def lasting() -> list[str]:
    return [target.name for target in chosen_targets() if not target.in_memory]


@pytest.mark.parametrize("seed", SEEDS)
def test_all_memories_give_the_same_answers(seed: int, databases: Databases, tmp_path: Path) -> None:
    openers = {name: database.open for name, database in empty_databases(databases, tmp_path).items()}
    with players(MemoryPlayer, openers, lasting()) as by_name:
        able = {name: player for name, player in by_name.items() if player.store.capabilities >= CAPABILITIES}
        counts = play(able, sequence_of_a_memory(seed, OPERATIONS))
    for kind in ("search: something", "retrieve: something", "store: conflict", "transaction: something"):
        assert counts[kind] >= OPERATIONS / 200, counts  # else the sequence would show little


@pytest.mark.parametrize("seed", SEEDS)
def test_all_catalogs_give_the_same_answers(seed: int, databases: Databases, tmp_path: Path) -> None:
    openers = {name: database.open_catalog for name, database in empty_databases(databases, tmp_path).items()}
    with players(CatalogPlayer, openers, lasting()) as by_name:
        counts = play(by_name, sequence_of_a_catalog(seed, OPERATIONS))
    for kind in ("get_entry: something", "list_entries: something", "changed_since: something"):
        assert counts[kind] >= OPERATIONS / 200, counts


class RoundsHugeIntegers(SQLiteBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Any:
        result = super().retrieve(key, default, **options)
        value = result.get("value")
        return {**result, "value": float(value)} if type(value) is int and value > 2**53 else result


class SortsMetadata(SQLAlchemyBackend):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Any:
        result = super().retrieve(key, default, **options)
        metadata = result.get("metadata")
        return {**result, "metadata": dict(sorted(metadata.items()))} if metadata else result


class RefusesInOtherWords(SQLAlchemyBackend):
    def delete(self, key: str, **options: Any) -> Any:
        result = super().delete(key, **options)
        return result if result["success"] else {**result, "error": "no"}


@pytest.mark.parametrize("faulty", [RoundsHugeIntegers, SortsMetadata, RefusesInOtherWords])
def test_a_fault_of_a_memory_is_found(faulty: Any) -> None:
    openers = {"sound": SQLiteBackend, "faulty": lambda: faulty(*["sqlite://"] * (faulty is not RoundsHugeIntegers))}
    with (
        players(MemoryPlayer, openers) as by_name,
        pytest.raises(AssertionError, match=r"^step \d+, .* in 2 ways:\nsound"),
    ):
        play(by_name, sequence_of_a_memory(1, 5_000))


class TakesNothingForNull(SQLiteCatalog):
    def get_entry(self, key: str) -> Any:
        entry = super().get_entry(key)
        return {**entry, "metadata": entry["metadata"] or None} if entry else entry


class TouchesCreated(SQLAlchemyCatalog):
    def get_entry(self, key: str) -> Any:
        entry = super().get_entry(key)
        return {**entry, "created_at": entry["updated_at"]} if entry else entry


@pytest.mark.parametrize("faulty", [lambda: TakesNothingForNull(":memory:"), lambda: TouchesCreated("sqlite://")])
def test_a_fault_of_a_catalog_is_found(faulty: Any) -> None:
    openers = {"sound": lambda: SQLiteCatalog(":memory:"), "faulty": faulty}
    with (
        players(CatalogPlayer, openers) as by_name,
        pytest.raises(AssertionError, match=r"^step \d+, .* in 2 ways:\nsound"),
    ):
        play(by_name, sequence_of_a_catalog(1, 2000))
