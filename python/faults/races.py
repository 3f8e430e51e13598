"""Calls of several threads at the same time: small pools, batches in any order, counters, snapshots beside writers."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from faults.figures import Figures, patient
from faults.targets import Target
from the_edge_agent.memory import LTMError

_CALLS_OF_A_ROUND = 100
_KEYS = 20


def crowd_pool(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F5: many threads use a pool of two connections; some abandon iterations, some raise, some wait too long."""
    moments = random.Random(seed)
    choices = [moments.random() for _ in range(rounds * _CALLS_OF_A_ROUND)]
    with target.open(pool_size=2) as memory:
        memory.store_many([{"key": f"k{number}", "value": number} for number in range(_KEYS)])
        with ThreadPoolExecutor(min(64, 8 * rounds)) as threads:
            for result in threads.map(lambda choice: _call(memory, choice), choices):
                allowed = (None, "connection_timeout", "validation_error")
                figures.add(faults=1, wrong=int(result.get("error_type") not in allowed))
                figures.add(reached=int(result.get("error_type") == "connection_timeout"))
        figures.add(leaks=_checked_out(memory))


def _call(memory: Any, choice: float) -> Any:
    if choice < 0.2:
        for _ in islice(memory.iterate_all(), 2):
            pass  # the iterator is abandoned here
        return {}
    if choice < 0.3:
        return memory.store("k1", 1, {"\0": 1})
    if choice < 0.4:
        try:
            with memory.transaction() as transaction:
                transaction.store("k2", 2)
                raise KeyError
        except (KeyError, LTMError):
            return {}
    if choice < 0.7:
        return memory.store(f"k{int(choice * 1_000) % _KEYS}", choice)
    return memory.search("fox") if choice < 0.8 else memory.retrieve("k1")


def _checked_out(memory: Any) -> int:
    """Return how many connections of the pool are in use."""
    database = memory._database
    if hasattr(memory, "_engine"):
        return int(memory._engine.pool.checkedout())
    if hasattr(database, "_pool"):
        return int(database._pool._tickets.taken())
    return sum(connection.loan is not None for connection in database._borrowers)


def batches_in_any_order(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F7: eight writers store batches of the same keys in random order; no deadlock may reach a caller."""
    with target.open(pool_size=8) as memory:
        patient(memory.count)

        def write(writer: int) -> None:
            moments = random.Random(seed + writer)
            for _ in range(rounds):
                keys = [f"k{number}" for number in range(_KEYS)]
                moments.shuffle(keys)
                result = memory.store_many([{"key": key, "value": writer} for key in keys])
                figures.add(faults=1, **{"acknowledged" if result["success"] else "reached": 1})

        with ThreadPoolExecutor(8) as threads:
            for future in [threads.submit(write, writer) for writer in range(8)]:
                future.result()
        entries = memory.retrieve_many([f"k{number}" for number in range(_KEYS)])["entries"].values()
        figures.add(lost=sum(entry["version"] != figures.acknowledged for entry in entries))
        figures.add(half=int(len({entry["value"] for entry in entries}) > 1))


def count_up(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F9: eight writers increase one counter with ``if_version``; no update may be lost."""
    with target.open(pool_size=8) as memory:
        memory.store("n", 0)

        def write(_: int) -> None:
            for _ in range(rounds):
                while True:
                    counter = memory.retrieve("n")
                    result = memory.store("n", counter["value"] + 1, if_version=counter["version"])
                    if result["success"]:
                        figures.add(acknowledged=1)
                        break
                    figures.add(faults=1, reached=int(result["error_type"] != "conflict"))

        with ThreadPoolExecutor(8) as threads:
            for future in [threads.submit(write, number) for number in range(8)]:
                future.result()
        counter = memory.retrieve("n")
        figures.add(lost=abs(counter["value"] - figures.acknowledged))
        figures.add(wrong=int(counter["version"] != counter["value"] + 1))


def snapshots_beside_writers(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F22: writers commit while a snapshot is created. Each entry must be in the snapshot or in the changes since it.

    All entries of a round are new, so it is enough to compare how many there are.
    """
    catalog = "sqlite" if target.name == "sqlite-native" else "postgres" if target.is_native else "sqlalchemy"
    with target.open(pool_size=6, catalog=catalog) as memory, ThreadPoolExecutor(4) as threads:
        ledger = memory.catalog
        for number in range(rounds):
            is_over = threading.Event()
            writers = [
                threads.submit(_write_new, memory, figures, f"{number}/{writer}", is_over) for writer in range(4)
            ]
            time.sleep(0.01)
            snapshot = ledger.create_snapshot(f"s{number}")
            time.sleep(0.01)
            is_over.set()
            for writer in writers:
                writer.result()
            changed = len(ledger.get_changed_entries(snapshot))
            in_snapshot = ledger.get_snapshot(snapshot)["entry_count"]
            figures.add(faults=changed, lost=abs(memory.count()["count"] - in_snapshot - changed))
            ledger.delete_snapshot(snapshot)
            # Otherwise each snapshot would take longer than the last one, and the writers would store more meanwhile.
            memory.delete_many([item[0] for item in memory.iterate_all()])


def _write_new(memory: Any, figures: Figures, name: str, is_over: threading.Event) -> None:
    """Store new entries, one or four at a time."""
    moments, number = random.Random(name), 0
    while not is_over.is_set():
        keys = [f"{name}/{number + place}" for place in range(moments.choice([1, 1, 4]))]
        number += len(keys)
        result = memory.store_many([{"key": key, "value": number} for key in keys])
        figures.add(**{"acknowledged" if result["success"] else "reached": 1})
