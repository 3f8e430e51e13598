"""The rules of concurrency: no lost write, one create per key, no half transaction, no deadlock errors."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import OpenBackend, assert_success, find, generator, keys_of, load
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import PROCESSES, WorkerRules, run_in_threads, run_together

THREADS: Final = 8
KEYS: Final = tuple(f"k{number:02}" for number in range(40))

SEARCHES_FOR_A_PAIR: Final[tuple[dict[str, Any], ...]] = (
    {"query": "fox"},
    {"metadata_filter": {"pair": True}},
    {"query": "fox", "metadata_filter": {"pair": True}},
    {"query": "-hound"},
    {},
)

Results: TypeAlias = list[Any]
Work: TypeAlias = Callable[[LTMBackend, int], Results]


def store_all(backend: LTMBackend, seed: int) -> Results:
    """Store every key once, in random order."""
    keys = generator(seed).sample(KEYS, len(KEYS))
    return [backend.store(key, f"fox {seed}", {"writer": seed}) for key in keys]


def store_in_transactions(backend: LTMBackend, seed: int) -> Results:
    """Store every key once, in transactions over random, overlapping keys in random order."""
    rng = generator(seed)
    left, results = rng.sample(KEYS, len(KEYS)), []
    while left:
        transaction = backend.transaction()
        for key in left[:8]:
            transaction.store(key, f"fox {seed}", {"writer": seed})
        results += assert_success(transaction.commit())["results"]
        left = left[8:]
    return results


def store_in_batches(backend: LTMBackend, seed: int) -> Results:
    """Store every key once, in batches of random, overlapping keys in random order."""
    keys, results = generator(seed).sample(KEYS, len(KEYS)), []
    for start in range(0, len(keys), 8):
        entries = [
            {"key": key, "value": f"fox {seed}", "metadata": {"writer": seed}} for key in keys[start : start + 8]
        ]
        results += [{"success": True, **result} for result in assert_success(backend.store_many(entries))["results"]]
    return results


def store_and_delete(backend: LTMBackend, seed: int) -> Results:
    """Store and delete the same few keys, one by one and in transactions."""
    rng = generator(seed)
    results = []
    for _ in range(20):
        key = rng.choice(KEYS[:3])
        if rng.random() < 0.3 and "transactions" in backend.capabilities:
            transaction = backend.transaction()
            transaction.delete(key)
            transaction.store(key, f"fox {seed}")
            results += assert_success(transaction.commit())["results"]
        else:
            results.append(backend.store(key, f"fox {seed}") if rng.random() < 0.5 else backend.delete(key))
    return results


def in_a_backend_of_its_own(open_backend: OpenBackend, work: Work, seed: int) -> Results:
    """Do the work in a backend that this process opens."""
    with open_backend() as backend:
        return work(backend, seed)


def flat(results: Iterable[Results]) -> Results:
    """Return the results of all writers in one list."""
    return [*chain.from_iterable(results)]


def read_while_writing(read: Callable[[], None], write: Callable[[], None]) -> None:
    """Run ``write`` in one thread; meanwhile call ``read`` again and again, at least once, in two other threads."""
    done = threading.Event()

    def write_all() -> None:
        try:
            write()
        finally:
            done.set()

    def read_all() -> None:
        read()
        while not done.is_set():
            read()

    run_in_threads(lambda work: work(), [(write_all,), (read_all,), (read_all,)])


class ConcurrencyRules(WorkerRules):
    """Many threads and processes on one store."""

    def assert_all_counted(self, backend: LTMBackend, results: Iterable[dict[str, Any]], writers: int) -> None:
        """Check that each key was created once, that no store was lost, and that search agrees."""
        versions: dict[str, list[int]] = {}
        for result in results:
            assert_success(result)
            assert result["created"] is (result["version"] == 1)
            versions.setdefault(result["key"], []).append(result["version"])
        assert {key: sorted(of_key) for key, of_key in versions.items()} == {
            key: [*range(1, writers + 1)] for key in KEYS
        }
        assert {backend.retrieve(key)["version"] for key in KEYS} == {writers}
        for seed in range(writers):
            by_text, by_filter = (
                find(backend, f'"fox {seed}"', limit=100),
                find(backend, None, {"writer": seed}, 100),
            )
            assert set(keys_of(by_text)) == set(keys_of(by_filter))
        assert find(backend, "fox", limit=100)["count"] == len(KEYS)

    def assert_creates_and_deletes_agree(self, backend: LTMBackend, results: Iterable[dict[str, Any]]) -> None:
        """Check for each key: it was created as often as deleted, and once more if it exists."""
        balance: Counter[str] = Counter()
        for result in results:
            assert_success(result)
            balance[result["key"]] += result.get("created", False) - result.get("deleted", False)
        assert {key: balance[key] for key in KEYS[:3]} == {key: int(backend.retrieve(key)["found"]) for key in KEYS[:3]}

    def works(self, backend: LTMBackend) -> list[Work]:
        """Return the ways to store every key that the backend has."""
        if "transactions" not in backend.capabilities:
            return [store_all]
        return [store_all, store_in_transactions, store_in_batches]

    @slow
    def test_threads_create_each_key_once_and_lose_no_store(self, backend: LTMBackend) -> None:
        results = run_in_threads(store_all, [(backend, seed) for seed in range(THREADS)])
        self.assert_all_counted(backend, flat(results), THREADS)

    @slow
    def test_transactions_of_threads_all_succeed(self, transactional: LTMBackend) -> None:
        results = run_in_threads(store_in_transactions, [(transactional, seed) for seed in range(THREADS)])
        self.assert_all_counted(transactional, flat(results), THREADS)

    @slow
    def test_batches_of_threads_all_succeed(self, transactional: LTMBackend) -> None:
        results = run_in_threads(store_in_batches, [(transactional, seed) for seed in range(THREADS)])
        self.assert_all_counted(transactional, flat(results), THREADS)

    @slow
    def test_batches_of_processes_all_succeed(
        self, transactional: LTMBackend, reopen: OpenBackend, workers: ProcessPoolExecutor
    ) -> None:
        arguments = [(reopen, store_in_batches, seed) for seed in range(PROCESSES)]
        results = run_together(workers, in_a_backend_of_its_own, arguments)
        self.assert_all_counted(transactional, flat(results), PROCESSES)

    @slow
    def test_creates_and_deletes_of_threads_agree(self, backend: LTMBackend) -> None:
        results = run_in_threads(store_and_delete, [(backend, seed) for seed in range(THREADS)])
        self.assert_creates_and_deletes_agree(backend, flat(results))

    @slow
    def test_processes_create_each_key_once_and_lose_no_store(
        self, backend: LTMBackend, reopen: OpenBackend, workers: ProcessPoolExecutor
    ) -> None:
        arguments = [(reopen, self.works(backend)[seed % len(self.works(backend))], seed) for seed in range(PROCESSES)]
        results = run_together(workers, in_a_backend_of_its_own, arguments)
        self.assert_all_counted(backend, flat(results), PROCESSES)

    @slow
    def test_creates_and_deletes_of_processes_agree(
        self, backend: LTMBackend, reopen: OpenBackend, workers: ProcessPoolExecutor
    ) -> None:
        arguments = [(reopen, store_and_delete, seed) for seed in range(PROCESSES)]
        results = run_together(workers, in_a_backend_of_its_own, arguments)
        self.assert_creates_and_deletes_agree(backend, flat(results))

    @slow
    def test_many_threads_get_right_answers_from_one_backend(self, backend: LTMBackend) -> None:
        def work(mine: int) -> None:
            for number in range(10):
                key, other = f"t{mine}/{number}", f"t{mine}/{number - 1}"
                assert backend.store(key, f"word{mine} n{number}", {"n": number, "t": mine})["created"] is True
                assert backend.retrieve(key)["value"] == f"word{mine} n{number}"
                assert keys_of(find(backend, f"word{mine} n{number}")) == [key]
                assert keys_of(find(backend, None, {"t": mine, "n": number})) == [key]
                assert backend.delete(other)["deleted"] is (number > 0)
                assert [item[0] for item in backend.iterate_all(f"t{mine}/")] == [key]

        run_in_threads(work, [(mine,) for mine in range(THREADS)])
        assert sorted(keys_of(find(backend, "n9"))) == [f"t{mine}/9" for mine in range(THREADS)]

    @slow
    def test_no_reader_sees_half_a_transaction(self, transactional: LTMBackend) -> None:
        load(transactional, [(key, "fox 0", {"pair": True, "n": 0}) for key in "ab"])

        def write() -> None:
            for number in range(1, 101):
                load(transactional, [(key, f"fox {number}", {"pair": True, "n": number}) for key in "ba"])

        def read() -> None:
            for arguments in SEARCHES_FOR_A_PAIR:
                results = assert_success(find(transactional, **arguments))["results"]
                assert [entry["key"] for entry in results] == ["a", "b"], arguments  # equal scores and times, so by key
                assert results[0]["value"] == results[1]["value"] == f"fox {results[0]['metadata']['n']}", arguments
                assert results[0]["metadata"] == results[1]["metadata"], arguments

        read_while_writing(read, write)

    @slow
    def test_no_reader_sees_half_a_batch(self, transactional: LTMBackend) -> None:
        def entries(number: int, keys: str) -> list[dict[str, Any]]:
            metadata = {"pair": True, "n": number}
            return [{"key": f"k{key}", "value": f"fox {number}", "metadata": metadata} for key in keys]

        assert_success(transactional.store_many(entries(0, "ab")))

        def write() -> None:
            for number in range(1, 41):
                assert_success(transactional.store_many(entries(number, "cd")))
                assert_success(transactional.store_many(entries(number, "badc")))
                assert_success(transactional.delete_many(["kd", "kc"]))

        def read() -> None:
            for arguments in SEARCHES_FOR_A_PAIR:
                keys = keys_of(find(transactional, **arguments))
                assert sorted(keys) in (["ka", "kb"], ["ka", "kb", "kc", "kd"]), arguments
            assert transactional.list_keys("k")["keys"] in (["ka", "kb"], ["ka", "kb", "kc", "kd"])
            assert transactional.count("k")["count"] in (2, 4)
            for keys in (["ka", "kb"], ["kd", "kc"]):
                one, other = assert_success(transactional.retrieve_many(keys))["entries"].values()
                assert (one and one["metadata"]) == (other and other["metadata"]), keys

        read_while_writing(read, write)

    @slow
    def test_readers_see_exactly_one_of_two_entries_that_replace_each_other(self, transactional: LTMBackend) -> None:
        load(transactional, [("k0", "fox", {"n": 0})])

        def write() -> None:
            for number in range(200):
                with transactional.transaction() as transaction:
                    transaction.delete(f"k{number % 2}")
                    transaction.store(f"k{(number + 1) % 2}", "fox", {"n": 0})

        def read() -> None:
            for arguments in ({"query": "fox"}, {"metadata_filter": {"n": 0}}, {"query": "fox", "prefix": "k"}, {}):
                assert len(keys_of(find(transactional, **arguments))) == 1, arguments

        read_while_writing(read, write)

    @slow
    def test_no_reader_misses_an_entry_that_is_overwritten(self, backend: LTMBackend) -> None:
        backend.store("k", "fox 0", {"n": 0})

        def write() -> None:
            for number in range(200):
                assert_success(backend.store("k", f"fox {number}", {"n": number}))

        def read() -> None:
            for query in ("fox", "fo*"):
                assert keys_of(find(backend, query)) == ["k"]

        read_while_writing(read, write)

    @slow
    def test_no_reader_misses_an_entry_that_is_replaced(self, transactional: LTMBackend) -> None:
        load(transactional, [("k", "fox 0", {"n": 0})])

        def write() -> None:
            for number in range(1, 51):
                with transactional.transaction() as transaction:
                    transaction.delete("k")
                    transaction.store("k", f"fox {number}", {"n": number})

        def read() -> None:
            assert transactional.retrieve("k")["found"] is True
            for result in (find(transactional, "fox"), find(transactional, None, {"n": {"$gte": 0}})):
                assert keys_of(result) == ["k"]
            assert [key for key, _, _ in transactional.iterate_all()] == ["k"]

        read_while_writing(read, write)
