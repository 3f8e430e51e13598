"""Kills nodes of a cluster under load, and compares the answers to the writers with the entries on all nodes.

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

_SHARED: Final = 20  # how many keys all writers write
_COUNTERS: Final = 5  # how many counters all writers increase with if_version
_OWN: Final = 10  # how many keys each writer has for itself


@dataclass(frozen=True)
class Answer:
    """The answer to one store of a writer: the result, when the store began, and how many seconds it took."""

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
    """Stores under its own keys and under shared keys, and increases counters, until ``stopping`` is set."""

    def __init__(self, memory: Any, number: int, stopping: threading.Event) -> None:
        super().__init__()
        self._memory, self._number, self._stopping = memory, number, stopping
        self._random = random.Random(number)
        self.answers: list[Answer] = []

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
        current = self._memory.retrieve(key)
        if current["success"]:
            self._store(key, (current["value"] or 0) + 1, if_version=current.get("version") or 0)

    def _store(self, key: str, value: Any, **options: Any) -> None:
        began = time.monotonic()
        result = self._memory.store(key, value, **options)
        self.answers.append(Answer(key, value, result, began, time.monotonic() - began))
        if not result["success"]:
            self._stopping.wait(0.05)


def killed_nodes(
    cluster: Cluster, *, kills: int, writers: int = 12, seconds: float = 2, timeout: float = 30
) -> dict[str, Any]:
    """Kill one node after the other, while writers reach all of them through a balancer.

    Args:
        cluster: a cluster with an empty database; all nodes take writes.
        kills: how many nodes are killed; each has joined again before the next one is killed.
        writers: how many threads write.
        seconds: how long the writers write before each kill, and after the last one.
        timeout: the timeout of each call, in seconds.

    Returns:
        The result of ``judged``, and ``kills``, and ``resumed``. For the latter, the time is measured from each kill to
        the end of the first acknowledged store that began after the kill; ``resumed`` is the longest, in seconds.
    """
    return _under_load(cluster, lambda kill: kill % len(cluster.urls), kills, writers, seconds, timeout)


def killed_primaries(
    cluster: Cluster, *, kills: int, writers: int = 12, seconds: float = 2, timeout: float = 30
) -> dict[str, Any]:
    """Kill the node that takes writes, again and again, while writers reach it through a balancer.

    The arguments and the result are those of ``killed_nodes``.
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


def _count(figures: Figures, counts: Mapping[str, Any]) -> None:
    same = {name: counts[name] for name in ("acknowledged", "lost", "wrong", "unknown", "late")}
    figures.add(faults=counts["kills"], reached=sum(counts["reached_the_caller"].values()), **same)


def _under_load(
    cluster: Cluster, victim: Callable[[int], int], kills: int, writers: int, seconds: float, timeout: float
) -> dict[str, Any]:
    stopping = threading.Event()
    kill_times: list[float] = []
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
                kill_times.append(time.monotonic())
                eventually(lambda: not cluster.is_whole())
                eventually(cluster.is_whole)
            stopping.wait(seconds)
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
    answers = [answer for thread in threads for answer in thread.answers]
    rows_by_node = [cluster.rows(node) for node in range(len(cluster.urls))]
    successes = [(each.began, each.began + each.seconds) for each in answers if each.succeeded]
    resumed = [
        min((end for began, end in successes if began > killed), default=float("inf")) - killed for killed in kill_times
    ]
    return {"kills": kills, **judged(answers, rows_by_node, timeout), "resumed": max(resumed, default=0.0)}


def judged(answers: Iterable[Answer], rows_by_node: list[dict[str, tuple[int, str]]], timeout: float) -> dict[str, Any]:
    """Compare the answers to the writers with the entries on each node.

    Returns:
        ``acknowledged``: how many stores succeeded; ``lost``: how many of these the first node does not have;
        ``wrong``: how many answers were not true, or differed between nodes, with an example of each kind in
        ``examples``; ``unknown``: how many answers were unknown; ``reached_the_caller``: how many other failures there
        were, except conflicts, by their message; ``late``: by how many seconds the longest call exceeded its deadline.
    """
    by_key: dict[str, list[Answer]] = defaultdict(list)
    for each in answers:
        by_key[each.key].append(each)
    examples: dict[str, str] = {}
    wrong = lost = 0

    def count_wrong(what: str, key: str, count: int = 1) -> None:
        nonlocal wrong
        wrong += count
        examples.setdefault(what, key)

    for node, rows in enumerate(rows_by_node):
        differing = [key for key in rows.keys() | rows_by_node[0].keys() if rows.get(key) != rows_by_node[0].get(key)]
        if differing:
            count_wrong(f"node {node} differs", differing[0], len(differing))
    for key, stores in by_key.items():
        version, value = rows_by_node[0].get(key, (0, "null"))
        acknowledged = [each for each in stores if each.succeeded]
        unknown = sum("unknown" in each.result for each in stores)
        versions = Counter(each.result["version"] for each in acknowledged)
        lost += sum(number > version for number in versions) + max(0, len(versions) - version)
        if twice := sum(count - 1 for count in versions.values()):
            count_wrong("a version was told twice", key, twice)
        if version > len(acknowledged) + unknown:
            count_wrong("more was written than anybody was told", key, version - len(acknowledged) - unknown)
        if false := sum(each.result["created"] != (each.result["version"] == 1) for each in acknowledged):
            count_wrong("created is not true", key, false)
        if version in versions and value != json.dumps(_value_of(version, acknowledged), separators=(",", ":")):
            count_wrong("the value is not that of its version", key)
        if key.startswith("counter/") and json.loads(value or "0") != version:
            count_wrong("an update was lost", key)
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


def _value_of(version: int, acknowledged: Iterable[Answer]) -> Any:
    return next(each.value for each in acknowledged if each.result["version"] == version)
