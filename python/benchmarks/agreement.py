"""Checks, before anything is measured, that all contenders give the same answers; otherwise the run fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.operations import CATALOG, READS, Operation
from benchmarks.player import Player
from benchmarks.workload import BATCH, Workload

_PLACES: Final = (0, 1, 17)
_TOLERANCE: Final = 2e-6  # the largest difference of two scores, because each program rounds them to 6 decimals


class DisagreementError(Exception):
    """A contender answers differently than the bare driver."""


def check(players: Mapping[str, Player], workload: Workload) -> int:
    """Run each operation on each contender that has it, and compare the answers.

    Args:
        players: the players by name, the bare driver first; all have the same entries.
        workload: the entries with which they were filled.

    Returns:
        How many answers were compared.

    Raises:
        DisagreementError: an answer differs; the message names the contender, the operation and its argument.
    """
    names = [*players]
    compared = 0
    for operation in READS:
        for place in _PLACES:
            argument = operation.prepare(workload, place)
            able = [name for name in names if players[name].can(operation.method)]
            expected = _answer(players[able[0]], operation, argument) if able else None
            for name in able:
                actual = _answer(players[name], operation, argument)
                is_same = _same(expected, actual) or (
                    operation.method == "filter"
                    and not players[name].is_ordered
                    and _is_as_good(expected, actual, argument)
                )
                _require(is_same, f"{name} answers {operation.title} of {argument!r} differently than {able[0]}")
                compared += 1
    for name, player in players.items():
        compared += _check_writes(name, player, workload)
        if player.can("track"):
            compared += _check_catalog(name, player, workload)
    return compared


def _answer(player: Player, operation: Operation, argument: Any) -> Any:
    if operation.method == "scan":
        return sorted(player.scan())
    return operation.call(player, argument)


def _check_writes(name: str, player: Player, workload: Workload) -> int:
    """Store an entry twice, and a batch; read them, and delete them."""
    entry, batch = workload.new_entry(0), [workload.new_entry(1 + place) for place in range(BATCH)]
    versions = [player.put(entry), player.put(workload.entry(workload.size, edition=1, key=entry.key))]
    _require(versions in ([1, 2], [None, None]), f"{name} counts versions as {versions}")
    later = workload.entry(workload.size, edition=1)
    _require(_same(player.get(entry.key), (later.value, later.metadata)), f"{name} does not return what was put last")
    if player.can("search"):
        word = workload.rare_word(workload.size)
        keys = [row[0] for row in player.search(word)]
        _require(keys == [entry.key], f"{name} does not find what was put last")
        replaced = set(workload.new_entry(0).value["text"].split()) - set(later.value["text"].split())
        stale = [word for word in sorted(replaced)[:3] if entry.key in {row[0] for row in player.search(word)}]
        _require(not stale, f"{name} still finds words of a text that was replaced")
    _require(player.put_many(batch) == BATCH, f"{name} does not store a whole batch")
    _require(_same(player.get(batch[-1].key), (batch[-1].value, batch[-1].metadata)), f"{name} lost one of a batch")
    player.delete_many([entry.key, *(each.key for each in batch)])
    _require(player.get(entry.key) is None and player.get(batch[0].key) is None, f"{name} does not delete")
    return 6


def _check_catalog(name: str, player: Player, workload: Workload) -> int:
    """Track three entries: one does not change after a snapshot, one changes, and one is new."""
    entries = [workload.entry(number) for number in range(3)]
    are_new = [player.track(entry, f"sha256:{entry.key}") for entry in entries[:2]]
    is_new_again = player.track(entries[0], f"sha256:{entries[0].key}")
    _require((are_new, is_new_again) == ([True, True], False), f"{name} does not tell what is new in its catalog")
    snapshot = player.snapshot()
    changed = CATALOG[-1].call
    _require(changed(player, snapshot) == [], f"{name} sees a change where there was none")
    player.track(entries[1], "sha256:other")
    player.track(entries[2], "sha256:new")
    _require(changed(player, snapshot) == [entries[1].key, entries[2].key], f"{name} does not see what has changed")
    player.delete_snapshot(snapshot)
    return 4


def _is_as_good(expected: Any, actual: Any, condition: tuple[str, str]) -> bool:
    """Return whether an answer in another order is right: it has as many entries, and all satisfy the filter."""
    name, value = condition
    return len(expected) == len(actual) and all(row[2][name] == value for row in actual)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _TOLERANCE
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise DisagreementError(complaint)
