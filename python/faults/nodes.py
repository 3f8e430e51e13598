"""Nodes of a cluster are killed under load: what the writers were told is compared with what all nodes keep then.

``killed_nodes`` is for a cluster that takes writes on all nodes, ``killed_primaries`` for one with a primary.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from faults.clusters import Balancer, Cluster, cluster_of, eventually
from faults.figures import Figures
from faults.targets import Target
from the_edge_agent.memory import SQLAlchemyBackend

_SHARED: Final = 20  # keys that all writers write
_COUNTERS: Final = 5  # keys that all writers count up by if_version
_OWN: Final = 10  # keys of each writer


@dataclass(frozen=True)
class Told:
    """What a writer was told of one store: its result, when it began, and how many seconds it took."""

    key: str
    value: Any
    result: Mapping[str, Any]
    began: float
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether it was acknowledged."""
        return bool(self.result["success"])


class Writer(threading.Thread):
    """Stores under keys of its own, under keys of all, and counts up, until it is told to stop."""

    def __init__(self, memory: Any, number: int, stopping: threading.Event) -> None:
        super().__init__()
        self._memory, self._number, self._stopping = memory, number, stopping
        self._random = random.Random(number)
        self.told: list[Told] = []

    def run(self) -> None:
        """Write."""
        done = 0
        while not self._stopping.is_set():
            done += 1
            kind = self._random.random()
            if kind < 0.5:
                self._store(f"own/{self._number}/{done % _OWN}", [self._number, done])
            elif kind < 0.8:
                self._store(f"shared/{self._random.randrange(_SHARED)}", [self._number, done])
            else:
                self._count(f"counter/{self._random.randrange(_COUNTERS)}")

    def _count(self, key: str) -> None:
        found = self._memory.retrieve(key)
        if found["success"]:
            self._store(key, (found["value"] or 0) + 1, if_version=found.get("version") or 0)

    def _store(self, key: str, value: Any, **options: Any) -> None:
        began = time.monotonic()
        result = self._memory.store(key, value, **options)
        self.told.append(Told(key, value, result, began, time.monotonic() - began))
        if not result["success"]:
            self._stopping.wait(0.05)


def killed_nodes(
    cluster: Cluster, *, kills: int, writers: int = 12, seconds: float = 2, timeout: float = 30
) -> dict[str, Any]:
    """Kill one node after the other, while writers reach all of them through a balancer.

    Args:
        cluster: all of whose nodes take writes, with an empty database.
        kills: how many nodes are killed; each has joined again before the next one.
        writers: how many threads write.
        seconds: of load before each kill, and after the last one.
        timeout: of each call, in seconds.

    Returns:
        See ``judged``, and ``kills``, ``resumed``: the longest time from a kill to the first store that began after
        it and was acknowledged, in seconds.
    """
    return _under_load(cluster, lambda kill: kill % len(cluster.urls), kills, writers, seconds, timeout)


def killed_primaries(
    cluster: Cluster, *, kills: int, writers: int = 12, seconds: float = 2, timeout: float = 30
) -> dict[str, Any]:
    """Kill the node that takes writes, again and again, while writers reach it through a balancer.

    Arguments and result are those of ``killed_nodes``.
    """
    return _under_load(cluster, lambda _: cluster.writable(), kills, writers, seconds, timeout)


def kill_nodes(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F19: kill nodes of Galera, one after the other."""
    with cluster_of(target.name, "multi") as nodes:
        _count(figures, killed_nodes(nodes, kills=rounds))


def kill_primaries(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F20: kill the primary of Group Replication, again and again."""
    with cluster_of(target.name, "single") as nodes:
        _count(figures, killed_primaries(nodes, kills=rounds))


def _count(figures: Figures, found: Mapping[str, Any]) -> None:
    same = {name: found[name] for name in ("acknowledged", "lost", "wrong", "unknown", "late")}
    figures.add(faults=found["kills"], reached=sum(found["reached_the_caller"].values()), **same)


def _under_load(
    cluster: Cluster, victim: Callable[[int], int], kills: int, writers: int, seconds: float, timeout: float
) -> dict[str, Any]:
    stopping = threading.Event()
    killed: list[float] = []
    with (
        Balancer(cluster) as balancer,
        SQLAlchemyBackend(balancer.url, pool_size=writers, timeout=timeout) as memory,
    ):
        threads = [Writer(memory, number, stopping) for number in range(writers)]
        for thread in threads:
            thread.start()
        try:
            for kill in range(kills):
                stopping.wait(seconds)
                cluster.kill(victim(kill))
                killed.append(time.monotonic())
                eventually(lambda: not cluster.is_whole())
                eventually(cluster.is_whole)
            stopping.wait(seconds)
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
    told = [each for thread in threads for each in thread.told]
    kept = [cluster.rows(node) for node in range(len(cluster.urls))]
    done = [(each.began, each.began + each.seconds) for each in told if each.succeeded]
    resumed = [min((end for began, end in done if began > moment), default=float("inf")) - moment for moment in killed]
    return {"kills": kills, **judged(told, kept, timeout), "resumed": max(resumed, default=0.0)}


def judged(told: Iterable[Told], kept: list[dict[str, tuple[int, str]]], timeout: float) -> dict[str, Any]:
    """Compare what writers were told with what each node keeps.

    Returns:
        ``acknowledged``: how many stores succeeded; ``lost``: how many of them no node, or not every node, has;
        ``wrong``: how many answers were not true, with an example of each kind in ``examples``; ``unknown``: how many
        said so; ``reached_the_caller``: how many others failed, conflicts left out, by what they said; ``late``: by
        how many seconds the longest call exceeded its deadline.
    """
    by_key: dict[str, list[Told]] = defaultdict(list)
    for each in told:
        by_key[each.key].append(each)
    examples: dict[str, str] = {}
    wrong = lost = 0

    def found_wrong(what: str, key: str, count: int = 1) -> None:
        nonlocal wrong
        wrong += count
        examples.setdefault(what, key)

    for node, rows in enumerate(kept):
        differing = [key for key in rows.keys() | kept[0].keys() if rows.get(key) != kept[0].get(key)]
        if differing:
            found_wrong(f"node {node} differs", differing[0], len(differing))
    for key, stores in by_key.items():
        version, value = kept[0].get(key, (0, "null"))
        acknowledged = [each for each in stores if each.succeeded]
        unknown = sum("unknown" in each.result for each in stores)
        versions = Counter(each.result["version"] for each in acknowledged)
        lost += sum(number > version for number in versions) + max(0, len(versions) - version)
        if twice := sum(count - 1 for count in versions.values()):
            found_wrong("a version was told twice", key, twice)
        if version > len(acknowledged) + unknown:
            found_wrong("more was written than anybody was told", key, version - len(acknowledged) - unknown)
        if false := sum(each.result["created"] != (each.result["version"] == 1) for each in acknowledged):
            found_wrong("created is not true", key, false)
        if version in versions and value != json.dumps(_of(version, acknowledged), separators=(",", ":")):
            found_wrong("the value is not that of its version", key)
        if key.startswith("counter/") and json.loads(value or "0") != version:
            found_wrong("an update was lost", key)
    failures = [each for stores in by_key.values() for each in stores if not each.succeeded]
    others = [each.result for each in failures if each.result["error_type"] != "conflict"]
    return {
        "acknowledged": sum(each.succeeded for stores in by_key.values() for each in stores),
        "lost": lost,
        "wrong": wrong,
        "examples": examples,
        "unknown": sum("unknown" in result for result in others),
        "reached_the_caller": dict(Counter(str(result["error"]) for result in others if "unknown" not in result)),
        "late": max(0.0, *(each.seconds - timeout for stores in by_key.values() for each in stores)),
    }


def _of(version: int, acknowledged: Iterable[Told]) -> Any:
    return next(each.value for each in acknowledged if each.result["version"] == version)
