"""The peak of RAM of one operation, in a new process: how much more it needs than the imports and a first get."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.player import Player
from benchmarks.workload import COMMON_WORD, Workload

METHODS: Final[Mapping[str, str]] = {"scan": "scan", "put_many": "put_many", "search_common": "search"}
_LINUX_STATUS: Final = Path("/proc/self/status")


def peaks(contenders: Mapping[Contender, str], size: int, entries: int) -> dict[str, dict[str, float]]:
    """Return MiB by operation and contender.

    Args:
        contenders: the contenders, each with its place, which has entries.
        size: how many entries each place has.
        entries: how many entries put_many stores at once.
    """
    peaks_by_operation: dict[str, dict[str, float]] = {}
    for name, method in METHODS.items():
        for contender, place in contenders.items():
            if contender.load().can(method):
                peaks_by_operation.setdefault(name, {})[contender.name] = _measured(
                    contender, place, name, size, entries
                )
    return peaks_by_operation


def _measured(contender: Contender, place: str, name: str, size: int, entries: int) -> float:
    command = [sys.executable, "-m", "benchmarks.peak", str(CONTENDERS.index(contender)), name, str(size), str(entries)]
    # The place goes through stdin: it may contain a password, and every user can see command lines.
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, input=place, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
    return float(json.loads(done.stdout))


def _do(player: Player, name: str, size: int, entries: int) -> float:
    workload = Workload(size)
    new_entries = [workload.new_entry(place) for place in range(entries)] if name == "put_many" else []
    player.get(workload.key(0))
    before = _peak()
    if name == "scan":
        for _ in player.scan():
            pass
    elif name == "put_many":
        player.put_many(new_entries)
    else:
        player.search(COMMON_WORD)
    after = _peak()
    if new_entries:
        for start in range(0, len(new_entries), 1_000):
            player.delete_many([entry.key for entry in new_entries[start : start + 1_000]])
    return (after - before) / 2**20


def _peak() -> int:
    """Return the highest number of bytes that this process has had in RAM."""
    if _LINUX_STATUS.exists():
        # ru_maxrss cannot be used, because it begins with the value of the parent process.
        line = next(line for line in _LINUX_STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: Sequence[str]) -> None:
    """Run one operation and print its peak; the place is read from stdin."""
    number, name, size, entries = arguments
    player = CONTENDERS[int(number)].load()(sys.stdin.read())
    print(json.dumps(_do(player, name, int(size), int(entries))))
    player.close()


if __name__ == "__main__":
    main(sys.argv[1:])
