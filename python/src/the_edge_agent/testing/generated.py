"""Random searches: hundreds of queries and filters, compared with the model in Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing import corpus
from the_edge_agent.testing.contract import ContractBase, Item, find, generator, text_of
from the_edge_agent.testing.model import Model, page

ENTRIES: Final = 400
LIMITS: Final = (1, 2, 5, 10, 50, 1000)

Arguments = dict[str, Any]


class GeneratedRules(ContractBase):
    """Random searches must return the same keys, values, scores and order as the model."""

    examples: int = 300

    @pytest.mark.parametrize("kind", ["queries", "filters", "everything at once"])
    def test_generated_searches_answer_as_the_oracle_does(self, backend: LTMBackend, kind: str) -> None:
        rng = generator(self.seed)
        model, items = Model(), []
        for group in corpus.entries(rng, ENTRIES):
            model.load(backend, group)
            items += group
        matched = cut = 0
        for example in range(self.examples):
            arguments = GENERATORS[kind](rng, items)
            conditions = {name: arguments.get(name) for name in ("query", "metadata_filter", "prefix")}
            matching = model.matching(**conditions)
            actual, expected = (
                find(backend, **arguments),
                page(matching, arguments["limit"], arguments.get("offset", 0)),
            )
            assert _readable(actual) == _readable(expected), self._describe(kind, example, arguments)
            assert text_of(actual["results"]) == text_of(expected["results"]), self._describe(kind, example, arguments)
            matched += bool(matching)
            cut += len(matching) > arguments["limit"]
        # Without this check the examples could prove little: a store without results must not pass.
        assert matched >= self.examples * (0.5 if kind != "everything at once" else 0.3), f"seed {self.seed}: {matched}"
        assert cut >= self.examples * (0.2 if kind != "everything at once" else 0.1), f"seed {self.seed}: {cut}"

    def _describe(self, kind: str, example: int, arguments: Arguments) -> str:
        called = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return f"seed {self.seed}, {kind}, example {example}: search({called})"


def _readable(result: dict[str, Any]) -> Any:
    return [(entry["key"], entry["score"]) for entry in result["results"]] if result["success"] else result


def _query(rng: random.Random, items: list[Item]) -> Arguments:
    return {"query": corpus.query(rng, items), "limit": rng.choice(LIMITS)}


def _filter(rng: random.Random, items: list[Item]) -> Arguments:
    return {"metadata_filter": corpus.metadata_filter(rng, items), "limit": rng.choice(LIMITS)}


def _everything(rng: random.Random, items: list[Item]) -> Arguments:
    related = [item for item in items if item[0].startswith(rng.choice(items)[0][:1])] if rng.random() < 0.5 else items
    item = rng.choice(related or items)
    arguments: Arguments = {"limit": rng.choice(LIMITS), "offset": rng.choice([0, 0, 1, 3, 20])}
    if rng.random() < 0.7:
        arguments["query"] = corpus.query(rng, [item])
    if rng.random() < 0.7:
        arguments["metadata_filter"] = corpus.metadata_filter(rng, [item])
    if rng.random() < 0.7:
        arguments["prefix"] = item[0][: rng.choice([0, 1, 1, 2])]
    return arguments


GENERATORS: Final[dict[str, Callable[[random.Random, list[Item]], Arguments]]] = {
    "queries": _query,
    "filters": _filter,
    "everything at once": _everything,
}
