"""The limits of other databases: the tests that must fail there, with the reasons, which the documentation shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ONE_PROCESS: Final = "one process at a time can open the file: another gets a connection_error"

_PROCESSES: Final = (
    "test_everything_is_the_same_after_reopening_and_in_another_process",
    "test_batches_of_processes_all_succeed",
    "test_processes_create_each_key_once_and_lose_no_store",
    "test_creates_and_deletes_of_processes_agree",
    "test_processes_that_count_up_lose_nothing",
    "test_of_processes_that_store_what_is_absent_one_wins",
    "test_processes_create_each_key_once",
)

#: For each target, by name: the tests that must fail, with the reasons.
LIMITS: Final[Mapping[str, Mapping[str, str]]] = {"duckdb": dict.fromkeys(_PROCESSES, ONE_PROCESS)}
