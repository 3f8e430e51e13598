"""The operations that are measured: how each is prepared, called and undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.player import Player
from benchmarks.workload import BATCH, COMMON_WORD, PAGE, Workload
from the_edge_agent.memory.contract.catalog import compute_content_hash


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: the name in the results.
        title: the name in the tables.
        unit: what is counted, such as entries.
        method: the method of the player that the operation needs.
        prepare: returns the argument of the call with a number; its time is not measured.
        call: calls the player, and returns the answer, which must be the same for all contenders.
        units: returns for how many units an answer counts.
        clean: undoes calls; it gets their arguments and their answers. None if nothing has to be undone.
        set_up: returns one argument for all calls, in place of ``prepare``.
    """

    name: str
    title: str
    unit: str
    method: str
    prepare: Callable[[Workload, int], Any]
    call: Callable[[Any, Any], Any]
    units: Callable[[Any], int] = lambda answer: 1
    clean: Callable[[Player, Sequence[Any], Sequence[Any]], None] | None = None
    set_up: Callable[[Player, Workload], Any] | None = None


def _delete_new(player: Player, arguments: Sequence[Any], answers: Sequence[Any]) -> None:
    keys = [entry.key for entry in arguments]
    for start in range(0, len(keys), 1_000):
        player.delete_many(keys[start : start + 1_000])


def _delete_batches(player: Player, arguments: Sequence[Any], answers: Sequence[Any]) -> None:
    _delete_new(player, [entry for batch in arguments for entry in batch], answers)


def _delete_snapshots(player: Player, arguments: Sequence[Any], answers: Sequence[Any]) -> None:
    for snapshot in answers:
        player.delete_snapshot(snapshot)


def _keys(workload: Workload, place: int) -> list[str]:
    return [workload.key(workload.number(place * BATCH + offset)) for offset in range(BATCH)]


def _tracked(workload: Workload, place: int) -> tuple[Any, str]:
    entry = workload.entry(workload.number(place), edition=place // workload.size)
    return entry, compute_content_hash(entry.value)


def fill_catalog(player: Player, workload: Workload) -> None:
    """Track every entry."""
    for number in range(workload.size):
        entry = workload.entry(number)
        player.track(entry, compute_content_hash(entry.value))


def _changed(player: Player, workload: Workload) -> str:
    """Create a snapshot, then change 1 % of the entries."""
    snapshot = player.snapshot()
    for number in range(0, workload.size, 100):
        entry = workload.entry(number, edition=workload.size)
        player.track(entry, compute_content_hash([snapshot, entry.value]))
    return snapshot


READS: Final = (
    Operation(
        "get",
        "get",
        "entries",
        "get",
        lambda workload, place: workload.key(workload.number(place)),
        lambda player, key: player.get(key),
    ),
    Operation(
        "retrieve_many",
        f"retrieve_many ({BATCH})",
        "entries",
        "retrieve_many",
        _keys,
        lambda player, keys: player.retrieve_many(keys),
        units=len,
    ),
    Operation(
        "search_rare",
        "search, rare word",
        "calls",
        "search",
        lambda workload, place: workload.rare_word(workload.number(place)),
        lambda player, word: player.search(word),
    ),
    Operation(
        "search_common",
        "search, common word",
        "calls",
        "search",
        lambda workload, place: COMMON_WORD,
        lambda player, word: player.search(word),
    ),
    Operation(
        "question",
        "question of eight words",
        "calls",
        "question",
        lambda workload, place: workload.question(workload.number(place)),
        lambda player, question: player.question(question),
    ),
    Operation(
        "filter_percent",
        "filter, 1 %",
        "calls",
        "filter",
        lambda workload, place: ("kind", workload.kind(place)),
        lambda player, condition: player.filter(*condition),
    ),
    Operation(
        "filter_ten",
        "filter, ten matches",
        "calls",
        "filter",
        lambda workload, place: ("group", workload.group(workload.number(place))),
        lambda player, condition: player.filter(*condition),
    ),
    Operation(
        "filter_none",
        "filter, none",
        "calls",
        "filter",
        lambda workload, place: ("group", f"none-{place}"),
        lambda player, condition: player.filter(*condition),
    ),
    Operation(
        "list_keys",
        f"list_keys ({PAGE})",
        "calls",
        "list_keys",
        lambda workload, place: workload.key(workload.number(place)),
        lambda player, after: player.list_keys(after, PAGE),
    ),
    Operation(
        "scan",
        "scan",
        "entries",
        "scan",
        lambda workload, place: workload.size,
        lambda player, size: sum(1 for _ in player.scan()),
        units=int,
    ),
)
WRITES: Final = (
    Operation(
        "put",
        "put",
        "entries",
        "put",
        lambda workload, place: workload.new_entry(place),
        lambda player, entry: player.put(entry),
        clean=_delete_new,
    ),
    Operation(
        "update",
        "update",
        "entries",
        "put",
        lambda workload, place: workload.entry(workload.number(place), edition=place // workload.size + 1),
        lambda player, entry: player.put(entry),
    ),
    Operation(
        "put_many",
        f"put_many ({BATCH})",
        "entries",
        "put_many",
        lambda workload, place: [workload.new_entry(place * BATCH + offset) for offset in range(BATCH)],
        lambda player, entries: player.put_many(entries),
        units=int,
        clean=_delete_batches,
    ),
)
CATALOG: Final = (
    Operation(
        "track",
        "catalog: track",
        "entries",
        "track",
        _tracked,
        lambda player, tracked: player.track(*tracked),
    ),
    Operation(
        "snapshot",
        "catalog: snapshot",
        "calls",
        "snapshot",
        lambda workload, place: None,
        lambda player, _: player.snapshot(),
        clean=_delete_snapshots,
    ),
    Operation(
        "changes",
        "catalog: changes, 1 %",
        "calls",
        "changes",
        lambda workload, place: None,
        lambda player, snapshot: player.changes(snapshot),
        set_up=_changed,
    ),
)
ALONE: Final = (*READS, *WRITES, *CATALOG)
TOGETHER: Final = {"mixed_threads": "mixed 80/20, 4 threads", "mixed_processes": "mixed 80/20, 4 processes"}
TITLES: Final = {**{each.name: each.title for each in ALONE}, **TOGETHER}
UNITS: Final = {**{each.name: each.unit for each in ALONE}, **dict.fromkeys(TOGETHER, "calls")}
NAMES: Final = tuple(TITLES)
