"""Random sequences of all calls give the same answers on every database as in a model, which is a dict in Python.

A run of the tests makes about 3,000 steps, a run of the long forms 200,000; most steps are several calls. A failure
prints the shortest sequence of calls that shows it, after a search of up to five minutes. It also prints a line
``@reproduce_failure(...)``: put it on ``LTMMachine`` to repeat the failure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text

from databases import Databases, Target, chosen_targets, is_named
from ltm_machine import opened
from run_length import of_this_run
from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.memory.core.operations import Operation, Store
from the_edge_agent.memory.core.results import Result

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

STEPS: Final = of_this_run(800, 200_000)
STEPS_PER_EXAMPLE: Final = 50
PARTS: Final = 2  # so that processes share the work


def compare(steps: int, targets: Collection[Target], databases: Databases, folder: Path) -> None:
    """Take up to ``steps`` steps on the databases of some targets and in the model."""
    if not targets:
        pytest.skip("no database is chosen that takes part")
    openers = {target.name: databases.empty(target, folder).open for target in targets}
    with opened(openers, lasting=[target.name for target in targets if not target.in_memory]) as machine:
        examples = max(1, steps // STEPS_PER_EXAMPLE)
        phases = [phase for phase in Phase if phase is not Phase.explain]  # which would make shrinking very slow
        chosen = settings(max_examples=examples, stateful_step_count=STEPS_PER_EXAMPLE, phases=phases)
        run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_database_answers_as_the_model_does(part: int, databases: Databases, tmp_path: Path) -> None:
    targets = [target for target in chosen_targets() if not target.portable and (not target.other or is_named(target))]
    compare(STEPS // PARTS, targets, databases, tmp_path)


def test_the_portable_dialect_answers_as_the_model_does(databases: Databases, tmp_path: Path) -> None:
    targets = [target for target in chosen_targets() if target.portable and not target.in_memory]
    compare(STEPS // 10, targets, databases, tmp_path)


class Faulty(SQLAlchemyBackend):
    """A memory with a fault; each subclass has one."""

    def __init__(self) -> None:
        super().__init__("sqlite://")

    def revive(self, keys: Iterable[str]) -> None:
        """Make expired entries live on."""
        assert self._engine is not None
        with self._engine.begin() as connection:
            for key in keys:
                connection.execute(text("UPDATE ltm_entries SET expires_at = NULL WHERE key = :key"), {"key": key})


class KeepsTheVersionOfAnExpiredEntry(Faulty):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        self.revive(operation.key for operation in operations)
        return super()._apply(operations)


class CountsExpiredEntriesAsDeleted(Faulty):
    def delete_many(self, keys: Iterable[str]) -> Result:
        self.revive(keys)
        return super().delete_many(keys)


class LosesTheLastKeyOfAPage(Faulty):
    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
        page = super().list_keys(prefix, limit, after)
        return {**page, "keys": page["keys"][:-1]} if page.get("next") else page


class TakesNoMetadataForEmptyMetadata(Faulty):
    def check_store(self, key: str, value: Any, metadata: dict[str, Any] | None = None, **options: Any) -> Store:
        return super().check_store(key, value, metadata or {}, **options)


class TellsTheRequiredVersionOfAConflict(Faulty):
    def store(self, *arguments: Any, if_version: int | None = None, **options: Any) -> Result:
        result = super().store(*arguments, if_version=if_version, **options)
        return {**result, "version": if_version} if result.get("error_type") == "conflict" else result


class CommitsHalfATransaction(Faulty):
    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        return [super(CommitsHalfATransaction, self)._apply([operation])[0] for operation in operations]


class MakesWholeNumbersIntegers(Faulty):
    def retrieve(self, key: str, default: Any = None, **options: Any) -> Result:
        result = super().retrieve(key, default, **options)
        value = result.get("value")
        return {**result, "value": int(value)} if isinstance(value, float) and value.is_integer() else result


class SkipsOneTooMany(Faulty):
    def search(self, *arguments: Any, offset: int = 0, **options: Any) -> Result:
        return super().search(*arguments, offset=offset + (offset > 1), **options)


class ForgetsToCleanUp(Faulty):
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        return {"success": True, "deleted_count": 0, "remaining_count": 0}


@pytest.mark.parametrize("fault", Faulty.__subclasses__(), ids=lambda fault: fault.__name__)
def test_a_fault_is_found(fault: Callable[[], Faulty]) -> None:
    few = settings(
        max_examples=500,
        stateful_step_count=STEPS_PER_EXAMPLE,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with opened({"faulty": fault}) as machine, pytest.raises(AssertionError, match=r"^faulty: \w+ gave"):
        run_state_machine_as_test(machine, settings=few)
