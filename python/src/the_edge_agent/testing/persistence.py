"""The rules of persistence: entries are the same after closing and reopening, and in another process."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing import corpus
from the_edge_agent.testing.contract import OpenBackend, find, generator, load, text_of
from the_edge_agent.testing.exactness import HOSTILE_TEXTS, VALUES
from the_edge_agent.testing.lifetimes import LONG, store_expired
from the_edge_agent.testing.slow import slow
from the_edge_agent.testing.workers import WorkerRules, run_together


def answers(backend: LTMBackend) -> str:
    """Return the answers of every read method, as one text."""
    everything = list(backend.iterate_all())
    results: list[Any] = [everything, [backend.retrieve(key) for key, _, _ in everything]]
    conditions: list[dict[str, Any] | None] = [None, {"n": {"$gt": 0}}, {"text": {"$ne": "a"}}, {"object": {}}]
    for query in (None, "fox", "fo*", '"the red"', "-fox", "日本", "😀", "!!!"):
        for metadata_filter in conditions:
            results.append(find(backend, query, metadata_filter, limit=50, offset=1))
    for prefix in corpus.PREFIXES:
        results += [find(backend, prefix=prefix, limit=1000), backend.list_keys(prefix, 3), backend.count(prefix)]
    results += [backend.retrieve_many(["missing", *(key for key, _, _ in everything)]), backend.list_keys(limit=1000)]
    return text_of(results)


def open_and_answer(open_backend: OpenBackend) -> str:
    """Return the answers of a backend that this process opens."""
    with open_backend() as backend:
        return answers(backend)


class PersistenceRules(WorkerRules):
    """Stores that outlive a backend."""

    @slow
    def test_everything_is_the_same_after_reopening_and_in_another_process(
        self, reopen: OpenBackend, workers: ProcessPoolExecutor
    ) -> None:
        with reopen() as backend:
            for group in corpus.entries(generator(self.seed), 100):
                load(backend, group)
            load(backend, [(f"value {name}", VALUES[name], None) for name in ("numbers", "texts", "keys", "NUL")])
            load(backend, [(text, name, {"text": text}) for name, text in HOSTILE_TEXTS.items()])
            if "ttl" in backend.capabilities:
                backend.store("late", "fox", {"n": 1}, ttl=LONG)
                store_expired(backend, "gone")
            backend.store("a", "again")
            backend.delete("A")
            before = answers(backend)
        assert open_and_answer(reopen) == before
        (elsewhere,) = run_together(workers, open_and_answer, [(reopen,)])
        assert elsewhere == before
