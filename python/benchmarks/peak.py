"""Peak memory of one operation, in a process of its own: how far it rises above imports and a first get."""

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
        contenders: with the place of each, which is filled.
        size: how many entries are there.
        entries: how many put_many stores at once.
    """
    found: dict[str, dict[str, float]] = {}
    for name, method in METHODS.items():
        for contender, place in contenders.items():
            if contender.load().can(method):
                found.setdefault(name, {})[contender.name] = _measured(contender, place, name, size, entries)
    return found


def _measured(contender: Contender, place: str, name: str, size: int, entries: int) -> float:
    command = [sys.executable, "-m", "benchmarks.peak", str(CONTENDERS.index(contender)), name, str(size), str(entries)]
    # The place may hold a password, which a command line would show to every user.
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, input=place, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
    return float(json.loads(done.stdout))


def _do(player: Player, name: str, size: int, entries: int) -> float:
    workload = Workload(size)
    news = [workload.new_entry(place) for place in range(entries)] if name == "put_many" else []
    player.get(workload.key(0))
    before = _peak()
    if name == "scan":
        for _ in player.scan():
            pass
    elif name == "put_many":
        player.put_many(news)
    else:
        player.search(COMMON_WORD)
    after = _peak()
    if news:
        for start in range(0, len(news), 1_000):
            player.delete_many([entry.key for entry in news[start : start + 1_000]])
    return (after - before) / 2**20


def _peak() -> int:
    """Return the most bytes that this process has had in memory."""
    if _LINUX_STATUS.exists():
        # ru_maxrss begins with what the process that started this one had.
        line = next(line for line in _LINUX_STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: Sequence[str]) -> None:
    """Do one operation and print its peak; the place comes in on stdin."""
    number, name, size, entries = arguments
    player = CONTENDERS[int(number)].load()(sys.stdin.read())
    print(json.dumps(_do(player, name, int(size), int(entries))))
    player.close()


if __name__ == "__main__":
    main(sys.argv[1:])
