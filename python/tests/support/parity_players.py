"""Runs the same steps on many memories or catalogs at the same time, and stops at the first answer that differs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any, Final

from databases import expire_all
from parity_sequences import Step
from the_edge_agent.memory import LTMError

CHUNK: Final = 100  # steps between two comparisons
SHOWN: Final = 1500  # characters of each answer in a failure


class Player:
    """One memory or catalog. A step names a method of this class, or one of the memory or catalog itself."""

    def __init__(self, open_store: Callable[[], Any], *, lasting: bool) -> None:
        """Open the memory or catalog; it can be closed and opened again only if it is ``lasting``."""
        self._open, self._lasting = open_store, lasting
        self.store = open_store()
        self.snapshots: list[str] = []

    def play(self, step: Step) -> str:
        """Run a step and return the answer as a text."""
        method = getattr(self, f"do_{step.name}", None) or getattr(self.store, step.name)
        _wait_for_the_next_microsecond()
        try:
            answer = method(*step.arguments, **(step.options or {}))
        except LTMError as failure:
            answer = {"raised": failure.result}
        except Exception as error:
            answer = {"not an LTMError": repr(error)}
        return canonical(answer, self.snapshots)

    def close(self) -> None:
        """Close the memory or catalog."""
        self.store.close()

    def do_reopen(self) -> None:
        if self._lasting:
            self.store.close()
            self.store = self._open()

    def do_clean_up(self, batch_size: int) -> list[Any]:
        """Clean up until no expired entry is left, because the database chooses which entries it deletes first."""
        answers = [self.store.cleanup_expired(batch_size)]
        while answers[-1].get("remaining_count"):
            answers.append(self.store.cleanup_expired(batch_size))
        return answers


class MemoryPlayer(Player):
    """A memory, with methods for the steps that consist of several calls, and for steps in a namespace."""

    def play(self, step: Step) -> str:
        """Run a step in its namespace and return the answer as a text."""
        whole, names = self.store, step.namespace
        self.store = whole.namespace(*names)
        try:
            return super().play(step)
        finally:
            if names:
                self.store = whole

    def do_store_over_the_current_version(self, key: str, value: Any, ahead: int, **options: Any) -> Any:
        version = self.store.retrieve(key).get("version") or 0  # no version if the key is too long for the namespace
        return self.store.store(key, value, if_version=version + ahead, **options)

    def do_transaction(self, calls: Sequence[tuple[str, dict[str, Any]]], ending: str) -> list[Any]:
        transaction = self.store.transaction()
        answers = [getattr(transaction, method)(**arguments) for method, arguments in calls]
        return [*answers, getattr(transaction, ending)(), transaction.commit()]

    def do_iterate_all(self, prefix: Any, **options: Any) -> list[Any]:
        return list(self.store.iterate_all(prefix, **options))

    def do_iterate_entries(self, prefix: Any, **options: Any) -> list[Any]:
        return list(self.store.iterate_entries(prefix, **options))

    def do_entries_page_by_page(self, prefix: Any, limit: int, order: Any, nested: bool) -> list[Any]:
        """Return the entries of all pages; the text of ``next`` may have a time, which is another in each memory."""
        pages, after = list[Any](), None
        while not pages or after is not None:
            page = self.store.entries(prefix, limit, after, order, nested=nested)
            if not page["success"]:
                return [page]
            pages.append(page["entries"])
            after = page["next"]
        return pages

    def do_copy_into(self, names: Sequence[str], on_conflict: Any) -> Any:
        """Copy the entries of this namespace into one below it."""
        return self.store.namespace(*names).import_entries([*self.store.iterate_entries()], on_conflict)

    def do_list_keys_page_by_page(self, prefix: str | None, limit: int) -> list[Any]:
        pages = [self.store.list_keys(prefix, limit)]
        while pages[-1].get("next") is not None:
            pages.append(self.store.list_keys(prefix, limit, pages[-1]["next"]))
        return pages

    def do_time_passes(self) -> None:
        """Let all entries with a lifetime expire, with an UPDATE, so that the step does not wait."""
        expire_all(self.store)


class CatalogPlayer(Player):
    """A catalog. Steps name a snapshot by its number in the sequence, because each catalog has its own ids."""

    def do_create_snapshot(self, name: Any) -> Any:
        snapshot_id = self.store.create_snapshot(name)
        self.snapshots.append(snapshot_id)
        return snapshot_id

    def do_changed_since(self, place: int | None) -> Any:
        return self.store.get_changed_entries(None if place is None else self._snapshot(place))

    def do_deleted_since(self, place: int) -> Any:
        return self.store.get_deleted_entries(self._snapshot(place))

    def do_snapshot(self, place: int) -> Any:
        return self.store.get_snapshot(self._snapshot(place))

    def do_delete_a_snapshot(self, place: int) -> Any:
        return self.store.delete_snapshot(self._snapshot(place))

    def _snapshot(self, place: int) -> str:
        return self.snapshots[place % len(self.snapshots)] if self.snapshots else "none was taken"


def canonical(answer: Any, snapshots: Sequence[str]) -> str:
    """Return an answer as a text. Two texts differ if the answers differ, even in 1 and 1.0, or in the order of keys.

    Only values that a memory or catalog chooses itself are replaced: the id of a snapshot by its number, and the times
    of an entry and of a snapshot by whether they are in order.
    """
    ids = {snapshot: f"snapshot {number}" for number, snapshot in enumerate(snapshots)}
    return json.dumps(_normalised(answer, ids), default=ascii)  # an answer may contain a bad key, which is not JSON


def _normalised(answer: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(answer, str):
        return ids.get(answer, answer)
    if isinstance(answer, datetime):
        return ["datetime", _shown(answer), str(answer.tzinfo)]
    if isinstance(answer, (list, tuple)):
        return [type(answer).__name__, *(_normalised(item, ids) for item in answer)]
    if isinstance(answer, dict):
        created, updated = answer.get("created_at"), answer.get("updated_at")
        chosen: dict[str, Any] = {}
        if isinstance(created, datetime):
            chosen["created_at"] = ["datetime", str(created.tzinfo)]
            if isinstance(updated, datetime) and _is_chosen(created, updated):
                chosen = {}  # an import gave these times
            elif isinstance(updated, datetime):
                chosen["updated_at"] = "the same" if updated == created else "later" if updated > created else "EARLIER"
        return {name: chosen.get(name) or _normalised(value, ids) for name, value in answer.items()}
    return answer


def _is_chosen(*times: datetime) -> bool:
    """Return whether a step gave all of these times: they are in the far past or future."""
    return not any(2020 < time.year < 2090 for time in times)


def _shown(time: datetime) -> str:
    """Return a time as text; the end of a lifetime as its distance from now in hours."""
    if _is_chosen(time):
        return time.isoformat(timespec="microseconds")
    return f"in {round((time - datetime.now(timezone.utc)) / timedelta(hours=1))} hours"


def play(players: Mapping[str, Player], steps: Sequence[Step]) -> Counter[str]:
    """Run steps on all players; return how often each kind of answer came, which shows what a sequence covers.

    Raises:
        AssertionError: the answers to a step differ, or a step raised another error than an ``LTMError``.
    """
    kinds: Counter[str] = Counter()
    operation = count(1)
    with ThreadPoolExecutor(len(players)) as pool:
        for start in range(0, len(steps), CHUNK):
            chunk = steps[start : start + CHUNK]
            running = {name: pool.submit(_play_chunk, player, chunk) for name, player in players.items()}
            answers = {name: future.result() for name, future in running.items()}
            for place, step in enumerate(chunk):
                by_name = {name: texts[place] for name, texts in answers.items()}
                _compare(next(operation), step, by_name)
                kinds.update(_kinds(step, next(iter(by_name.values()))))
    return kinds


def _play_chunk(player: Player, steps: Sequence[Step]) -> list[str]:
    return [player.play(step) for step in steps]


def _compare(number: int, step: Step, answers: Mapping[str, str]) -> None:
    names_of: dict[str, list[str]] = {}
    for name, answer in answers.items():
        names_of.setdefault(answer, []).append(name)
    first = next(iter(names_of))
    if len(names_of) == 1 and '"not an LTMError"' not in first:
        return
    texts = [*names_of]
    place = next((i for i, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1), 0)
    start = max(0, place - SHOWN // 2)
    shown = "\n".join(f"{', '.join(names)}: ...{text[start : start + SHOWN]}" for text, names in names_of.items())
    raise AssertionError(f"step {number}, {str(step)[:SHOWN]}, is answered in {len(texts)} ways:\n{shown}")


def _kinds(step: Step, answer: str) -> list[str]:
    """Return the name of a step with the kind of its answer."""
    for kind in ("conflict", "validation_error", "serialization_error"):
        if f'"{kind}"' in answer and step.name != "transaction":  # every transaction ends with a refused commit
            return [f"{step.name}: {kind}"]
    is_nothing = any(sign in answer for sign in _NOTHING) or answer in ("null", "false", '["list"]')
    return [f"{step.name}: {'nothing' if is_nothing else 'something'}"]


_NOTHING: Final = ('"count": 0', '"found": false', '"deleted": false', '"created": false')


def _wait_for_the_next_microsecond() -> None:
    """Wait, because two writes at the same microsecond would be equally new, but only on some databases."""
    before = time.time_ns() // 1000
    while time.time_ns() // 1000 <= before:
        pass
