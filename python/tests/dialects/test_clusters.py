"""Galera and MySQL Group Replication: every node gives the same answers, and no node loses an acknowledged write."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine

from faults.clusters import Balancer, Cluster, cluster_of, eventually
from faults.nodes import Answer, judged, killed_nodes, killed_primaries
from run_length import SEED, of_this_run
from the_edge_agent.memory import SQLAlchemyBackend

pytestmark = pytest.mark.slow

PER_NODE = 4  # threads
KEYS = [f"k{number}" for number in range(30)]


@pytest.fixture(scope="module")
def nodes(cluster: str) -> Iterator[Cluster]:
    """The nodes of a cluster all of which take writes."""
    with cluster_of(cluster, "multi") as nodes:
        yield nodes


def opened_at_once(urls: Sequence[str], **options: Any) -> list[Any]:
    """Open a memory at each URL, all of them at once."""
    opened: list[Any] = []

    def open_one(url: str) -> None:
        opened.append(SQLAlchemyBackend(url, **options))

    at_once([partial(open_one, url) for url in urls])
    return opened


@contextmanager
def memories_on(nodes: Cluster, **options: Any) -> Iterator[list[Any]]:
    """A memory on each node, emptied."""
    opened = opened_at_once(nodes.urls, **options)
    try:
        assert opened[0].delete_many([*KEYS, "counter", "new"])["success"]
        nodes.catch_up()
        yield opened
    finally:
        for each in opened:
            each.close()


@pytest.fixture
def memories(nodes: Cluster) -> Iterator[list[Any]]:
    """A memory on each node."""
    with memories_on(nodes) as opened:
        yield opened


def at_once(work: list[Callable[[], object]]) -> None:
    """Do all of it at once; what one raises is raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> None:
        try:
            ready.wait()
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def on_all(memories: list[Any], work: Callable[[Any, int], object]) -> None:
    """Do work with each memory, in several threads, with the number of each."""
    each = [memory for memory in memories for _ in range(PER_NODE)]
    at_once([partial(work, memory, number) for number, memory in enumerate(each)])


def tell_the_truth(results: list[Any]) -> None:
    """Check the results of all stores of one entry."""
    assert [result for result in results if not result["success"]] == []
    assert sorted(result["version"] for result in results) == [*range(1, len(results) + 1)]
    assert [result["version"] for result in results if result["created"]] == [1]


def test_an_empty_database_is_opened_on_all_nodes_at_once(cluster: str) -> None:
    """Locks of a server hold on one node only; and a member that cannot replay a statement leaves its group."""
    for _ in range(of_this_run(1, 20)):
        with cluster_of(cluster, "multi") as nodes:
            opened = opened_at_once(nodes.urls * PER_NODE, catalog="sqlalchemy")
            assert [memory.store(str(number), 1)["created"] for number, memory in enumerate(opened)] == [True] * 12
            for memory in opened:
                memory.close()
            assert nodes.is_whole()


def test_the_same_keys_stored_on_all_nodes_at_once_have_each_version_once(memories: list[Any]) -> None:
    answers: dict[str, list[Any]] = defaultdict(list)

    def store(memory: Any, number: int) -> None:
        for key in KEYS:
            answers[key].append(memory.store(key, number))

    on_all(memories, store)
    for results in answers.values():
        tell_the_truth(results)


def test_counters_lose_no_update_and_one_writer_alone_creates_an_entry(nodes: Cluster, memories: list[Any]) -> None:
    successes, created = [], []

    def count(memory: Any, number: int) -> None:
        created.append(memory.store("new", number, if_version=0)["success"])
        for _ in range(10):
            counter = memory.retrieve("counter")
            result = memory.store("counter", (counter["value"] or 0) + 1, if_version=counter.get("version") or 0)
            assert result["success"] or result["error_type"] == "conflict", result
            successes.append(result["success"])

    on_all(memories, count)
    assert sum(created) == 1
    nodes.catch_up()
    for memory in memories:
        counter = memory.retrieve("counter")
        assert (counter["value"], counter["version"]) == (sum(successes), sum(successes))


def test_the_catalog_is_in_step_after_batches_in_any_order_on_all_nodes(nodes: Cluster) -> None:
    def store(memory: Any, number: int) -> None:
        for _ in range(3):
            keys = random.Random(SEED + number).sample(KEYS, 10)
            result = memory.store_many({"key": key, "value": [number, key]} for key in keys)
            assert result["success"], result
            result = memory.store(keys[0], number)
            assert result["success"], result

    with memories_on(nodes, catalog="sqlalchemy") as memories:
        on_all(memories, store)
        nodes.catch_up()
        entries = [memory.retrieve_many(KEYS)["entries"] for memory in memories]
        listed = [memory.catalog.list_entries() for memory in memories]
        synced = [memory.sync_catalog() for memory in memories]
    assert entries[1:] == entries[:-1]
    assert listed[1:] == listed[:-1]
    assert synced == [{"success": True, "tracked_count": 0, "deleted_count": 0}] * len(nodes.urls)


def test_a_callers_engine_on_each_node_tells_the_truth_too(nodes: Cluster) -> None:
    engines = [create_engine(url) for url in nodes.urls]
    memories = [SQLAlchemyBackend(engine=engine) for engine in engines]
    answers: dict[str, list[Any]] = defaultdict(list)

    def store(memory: Any, number: int) -> None:
        for key in KEYS:
            answers[key].append(memory.store(f"callers/{key}", number))

    on_all(memories, store)
    for engine in engines:
        engine.dispose()
    for results in answers.values():
        tell_the_truth(results)


@pytest.mark.cluster("galera")
def test_a_node_without_its_cluster_refuses_and_serves_again_later(nodes: Cluster) -> None:
    with SQLAlchemyBackend(nodes.urls[2], timeout=2) as memory:
        assert memory.store("k0", 1)["success"]
        nodes.isolate(2, isolated=True)
        refusals = [memory.store("k0", 2), memory.store("k0", 2, if_version=1), memory.retrieve("k0")]
        nodes.isolate(2, isolated=False)
        for refused in refusals:
            assert (refused["error_type"], refused.get("unknown")) == ("connection_error", None), refused
            assert "lost its cluster" in refused["error"]
        assert memory.store("k0", 3)["success"]


@pytest.mark.cluster("group_replication")
def test_a_memory_follows_the_primary_when_another_node_takes_over(cluster: str) -> None:
    with (
        cluster_of(cluster, "single") as nodes,
        Balancer(nodes) as balancer,
        SQLAlchemyBackend(balancer.url) as memory,
    ):
        assert on_many_connections(memory)
        nodes.make_primary((nodes.writable() + 1) % len(nodes.urls))
        eventually(lambda: balancer.serving == [nodes.writable()])
        assert [memory.store(f"k{number}", 1)["success"] for number in range(10)] == [True] * 10


@pytest.mark.cluster("galera")
def test_a_killed_node_loses_nothing(cluster: str) -> None:
    with cluster_of(cluster, "multi") as nodes:
        holds(killed_nodes(nodes, kills=of_this_run(1, 20), seconds=of_this_run(0.5, 2)))


@pytest.mark.cluster("group_replication")
def test_writes_go_on_at_the_new_primary_when_the_old_one_is_killed(cluster: str) -> None:
    with cluster_of(cluster, "single") as nodes:
        holds(killed_primaries(nodes, kills=of_this_run(1, 20), seconds=of_this_run(0.5, 2)))


def on_many_connections(memory: Any) -> bool:
    """Store by several threads at once, so that the pool has several connections."""
    results: list[Any] = []
    at_once([partial(lambda number: results.append(memory.store(f"c{number}", 1)), number) for number in range(5)])
    return all(result["success"] for result in results)


def holds(figures: dict[str, Any]) -> None:
    """Check what must hold after nodes were killed."""
    print(figures)
    assert (figures["lost"], figures["wrong"]) == (0, 0), figures
    assert figures["late"] <= 1, figures
    assert figures["acknowledged"] > 100, figures
    assert figures["resumed"] < 20, figures


def test_lost_writes_and_untrue_answers_are_counted() -> None:
    def answer(key: str, version: int, value: Any, **others: Any) -> Answer:
        result = {"success": True, "created": version == 1, "version": version, **others}
        return Answer(key, value, result, began=0, seconds=0.1)

    rows = {"a": (2, "[1]"), "counter/0": (2, "2")}
    right = [answer("a", 1, [0]), answer("a", 2, [1]), answer("counter/0", 1, 1), answer("counter/0", 2, 2)]
    assert (judged(right, [rows, rows], 1)["lost"], judged(right, [rows, rows], 1)["wrong"]) == (0, 0)
    cases: dict[str, tuple[list[Answer], list[dict[str, tuple[int, str]]]]] = {
        "lost": ([*right, answer("b", 1, 1)], [rows, rows]),
        "node 1 differs": (right, [rows, {**rows, "a": (1, "[0]")}]),
        "a version was told twice": ([*right, answer("a", 2, [1])], [rows, rows]),
        "more was written than anybody was told": (right[1:], [rows, rows]),
        "created is not true": ([*right[1:], answer("a", 1, [0], created=False)], [rows, rows]),
        "the value is not that of its version": (right, [{**rows, "a": (2, "[7]")}]),
        "an update was lost": (right, [{**rows, "counter/0": (2, "1")}]),
    }
    for name, (answers, rows_by_node) in cases.items():
        figures = judged(answers, rows_by_node, 1)
        assert figures["lost"] if name == "lost" else name in figures["examples"], (name, figures)
