"""Fills a memory and reads all of it, for the tests of the native memories."""

from __future__ import annotations

import time
from typing import Any

from the_edge_agent.memory import LTMBackend


def fill(memory: LTMBackend) -> None:
    memory.store_many(
        {"key": f"k{n}/😀", "value": {"a": [1.0, "red fox"], "n": n}, "metadata": {"n": n % 2}} for n in range(9)
    )
    memory.store("gone", 1, ttl=0.001)
    time.sleep(0.01)  # it has expired now
    memory.store("late", "fox", ttl=3600)
    memory.store("k3/😀", "a fox and a hound", if_version=1)
    memory.delete("k4/😀")


def everything(memory: LTMBackend) -> list[Any]:
    entries = memory.retrieve_many(memory.list_keys()["keys"])["entries"]
    return [*entries.items(), list(memory.iterate_all()), memory.search("fox OR hound"), memory.search("fox", {"n": 1})]
