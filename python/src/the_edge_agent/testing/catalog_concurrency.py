"""The rules of concurrency for a catalog: one create per key, no deadlock errors, no snapshot of half a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import Any, Final, TypeAlias

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.testing.catalog_base import (
    PAST,
    CatalogBase,
    FullCatalog,
    OpenCatalog,
    entry_of,
    keys,
    opened,
    track,
    track_all,
)
from the_edge_agent.testing.concurrency import KEYS, THREADS, read_while_writing
from the_edge_agent.testing.contract import assert_same, assert_success, generator
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import PROCESSES, Workers, run_in_threads, run_together

PAIRS: Final = 12  # the test reads every snapshot that was taken meanwhile

Created: TypeAlias = list[str]
Work: TypeAlias = Callable[[CatalogBackend, int], Created]


def track_keys(catalog: CatalogBackend, seed: int) -> Created:
    """Track every key once, in random order; return those that were created."""
    order = generator(seed).sample(KEYS, len(KEYS))
    return [key for key in order if track(catalog, key, content_hash=f"h{seed}", metadata={"writer": seed})["created"]]


def track_in_batches(catalog: CatalogBackend, seed: int) -> Created:
    """Track every key twice, in batches of random, overlapping keys in random order."""
    rng = generator(seed)
    for _ in range(2):
        order = rng.sample(KEYS, len(KEYS))
        for start in range(0, len(order), 8):
            chosen = [*order[start : start + 8], rng.choice(order)]
            track_all(catalog, (entry_of(key, content_hash=f"h{seed}", metadata={"writer": seed}) for key in chosen))
    return []


def track_and_delete(catalog: CatalogBackend, seed: int) -> Created:
    """Track and delete the same few keys; return the keys that were created, and those deleted with a minus before."""
    rng = generator(seed)
    done = []
    for _ in range(20):
        key = rng.choice(KEYS[:3])
        if rng.random() < 0.5:
            done += [key] * track(catalog, key)["created"]
        else:
            done += [f"-{key}"] * catalog.delete_entry(key)
    return done


def in_a_catalog_of_its_own(open_catalog: OpenCatalog, work: Work, seed: int) -> Created:
    """Do the work in a catalog that this process opens."""
    with opened(open_catalog) as catalog:
        return work(catalog, seed)


class CatalogConcurrencyRules(Workers, CatalogBase):
    """Many threads and processes on one catalog."""

    def assert_created_once(self, catalog: CatalogBackend, created: Iterable[Created]) -> None:
        """Check that each key was created once, and that no entry mixes the data of two writers."""
        assert Counter(chain.from_iterable(created)) == Counter(KEYS)
        self.assert_whole(catalog)

    def assert_whole(self, catalog: CatalogBackend) -> None:
        """Check that every key exists, that no entry mixes the data of two writers, and that filters agree."""
        entries: list[Any] = [*catalog.list_entries()]
        assert keys(entries) == sorted(KEYS)
        for entry in entries:
            assert entry["content_hash"] == f"h{entry['metadata']['writer']}"
        for writer in {entry["metadata"]["writer"] for entry in entries}:
            expected = [entry for entry in entries if entry["metadata"]["writer"] == writer]
            assert catalog.list_entries(None, {"writer": writer}) == expected

    def assert_balanced(self, catalog: CatalogBackend, done: Iterable[Created]) -> None:
        """Check for each key: it was created as often as deleted, and once more if it exists."""
        counts = Counter(chain.from_iterable(done))
        balances = {key: counts[key] - counts[f"-{key}"] for key in KEYS[:3]}
        assert balances == {key: int(catalog.get_entry(key) is not None) for key in KEYS[:3]}

    @slow
    def test_threads_create_each_key_once(self, catalog: CatalogBackend) -> None:
        created = run_in_threads(track_keys, [(catalog, seed) for seed in range(THREADS)])
        self.assert_created_once(catalog, created)

    @slow
    def test_threads_create_each_expired_key_once(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, expires_at=PAST) for key in KEYS))
        created = run_in_threads(track_keys, [(catalog, seed) for seed in range(THREADS)])
        self.assert_created_once(catalog, created)

    @slow
    def test_processes_create_each_key_once(
        self, catalog: CatalogBackend, reopen_catalog: OpenCatalog, workers: ProcessPoolExecutor
    ) -> None:
        arguments = [(reopen_catalog, track_keys, seed) for seed in range(PROCESSES)]
        self.assert_created_once(catalog, run_together(workers, in_a_catalog_of_its_own, arguments))

    @slow
    def test_batches_of_threads_all_succeed(self, catalog: CatalogBackend) -> None:
        run_in_threads(track_in_batches, [(catalog, seed) for seed in range(THREADS)])
        self.assert_whole(catalog)
        assert [track(catalog, key)["created"] for key in KEYS] == [False] * len(KEYS)

    @slow
    def test_batches_of_processes_all_succeed(
        self, catalog: CatalogBackend, reopen_catalog: OpenCatalog, workers: ProcessPoolExecutor
    ) -> None:
        arguments = [(reopen_catalog, track_in_batches, seed) for seed in range(PROCESSES)]
        run_together(workers, in_a_catalog_of_its_own, arguments)
        self.assert_whole(catalog)

    @slow
    def test_creates_and_deletes_of_threads_agree(self, catalog: CatalogBackend) -> None:
        done = run_in_threads(track_and_delete, [(catalog, seed) for seed in range(THREADS)])
        self.assert_balanced(catalog, done)

    @slow
    def test_creates_and_deletes_of_processes_agree(
        self, catalog: CatalogBackend, reopen_catalog: OpenCatalog, workers: ProcessPoolExecutor
    ) -> None:
        arguments = [(reopen_catalog, track_and_delete, seed) for seed in range(PROCESSES)]
        self.assert_balanced(catalog, run_together(workers, in_a_catalog_of_its_own, arguments))

    @slow
    def test_no_reader_sees_half_a_batch(self, catalog: CatalogBackend) -> None:
        def entries(number: int, names: str) -> list[dict[str, Any]]:
            return [entry_of(name, content_hash=f"h{number}", metadata={"pair": True}) for name in names]

        track_all(catalog, entries(0, "ab"))

        def write() -> None:
            for number in range(1, 61):
                track_all(catalog, entries(number, "ba"))

        def read() -> None:
            reads: list[list[Any]] = [
                [*catalog.list_entries()],
                [*catalog.list_entries("", {"pair": True})],
                [*catalog.get_changed_entries()],
                [*catalog.retrieve_batch(["a", "b"])["entries"].values()],
            ]
            for listed in reads:
                assert len({entry["content_hash"] for entry in listed}) == 1
                assert len(listed) == 2

        read_while_writing(read, write)

    def test_a_snapshot_holds_batches_whole_or_not_at_all(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, content_hash="h-1") for key in ("x", "y")))
        taken: list[str] = []

        def write() -> None:
            for number in range(PAIRS):
                new = [entry_of(f"{half}{number:02}") for half in ("b", "a")]
                track_all(catalog, [*new, *(entry_of(key, content_hash=f"h{number}") for key in ("y", "x"))])

        read_while_writing(lambda: taken.append(catalog.create_snapshot("meanwhile")), write)
        for since in taken:
            changed = {*keys(catalog.get_changed_entries(since))}
            halves = [{key[1:] for key in changed if key[0] == half} for half in "ab"]
            assert halves[0] == halves[1]
            assert ("x" in changed) is ("y" in changed) is bool(halves[0])

    def test_a_snapshot_counts_what_it_holds(self, with_snapshots: FullCatalog, with_deletions: FullCatalog) -> None:
        track_all(with_snapshots, (entry_of(key, content_hash="h-1", byte_size=1) for key in ("x", "y")))
        taken: list[str] = []

        def write() -> None:
            for number in range(PAIRS):
                new = [entry_of(f"{half}{number:02}", byte_size=1) for half in ("b", "a")]
                pair = [entry_of(key, content_hash=f"h{number}", byte_size=1) for key in ("y", "x")]
                track_all(with_snapshots, [*new, *pair])

        read_while_writing(lambda: taken.append(with_snapshots.create_snapshot("meanwhile")), write)
        everything = keys(with_snapshots.list_entries())
        new = {since: len(keys(with_snapshots.get_changed_entries(since))) for since in taken}
        for key in everything:
            with_snapshots.delete_entry(key)
        for since in taken:
            held = with_deletions.get_deleted_entries(since)
            hashes = {entry["key"]: entry["content_hash"] for entry in held}
            snapshot = with_snapshots.get_snapshot(since)
            assert snapshot is not None
            assert snapshot["entry_count"] == snapshot["total_bytes"] == len(held)
            assert hashes["x"] == hashes["y"], "of one batch"
            assert len(held) == 2 * int(hashes["x"][1:]) + 4
            assert new[since] == (len(everything) - len(held) + 2 if len(held) < len(everything) else 0)

    @slow
    def test_cleanup_deletes_nothing_that_threads_track_meanwhile(self, catalog: CatalogBackend) -> None:
        track_all(catalog, (entry_of(key, expires_at=PAST) for key in KEYS))

        def write() -> None:
            for key in KEYS:
                assert track(catalog, key)["created"] is True

        def clean_up() -> None:
            assert_success(catalog.cleanup_expired(batch_size=2))

        read_while_writing(clean_up, write)
        assert keys(catalog.list_entries()) == sorted(KEYS)
        assert_same(catalog.cleanup_expired(), {"success": True, "deleted_count": 0, "remaining_count": 0})
