"""Random sequences of calls on a catalog, compared with a model in Python after every snapshot and at the end."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any, Final, cast

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.testing.catalog_base import FUTURE, PAST, CatalogBase, Entry, FullCatalog, entry_of, keys
from the_edge_agent.testing.catalog_model import CatalogModel, state_of
from the_edge_agent.testing.contract import assert_same, assert_success, generator

STEPS: Final = 30
KEYS: Final = ("a", "A", "á", "a\u0301", "a ", "b", "日", "😀")
HASHES: Final = ("h1", "h2", "H1")
KIN: Final[tuple[tuple[dict[str, Any] | None, ...], ...]] = (  # databases easily confuse these metadata
    ({"n": 1}, {"n": 1.0}, {"n": True}),
    (None, {}, {"n": None}),
    ({"x": 1, "y": [1, 2]}, {"y": [1, 2], "x": 1}, {"y": [2, 1], "x": 1}),
)
EXPIRIES: Final = (
    (None, None, None, PAST),
    (FUTURE, FUTURE.astimezone(timezone(timedelta(hours=5))), FUTURE + timedelta(microseconds=1), PAST),
)


class CatalogGeneratedRules(CatalogBase):
    """After any sequence of calls, changes and deletions are those of the model."""

    sequences: int = 6

    def test_any_sequence_of_calls_tells_the_changes_of_the_oracle(self, catalog: CatalogBackend) -> None:
        changes = 0
        for number in range(self.sequences):
            changes += Sequence(catalog, number, self.seed).run()
        assert changes >= self.sequences * 3  # otherwise the sequences would prove little


class Sequence:
    """One sequence of calls on an emptied catalog. It has few keys and fields, so that calls often meet the same."""

    def __init__(self, catalog: CatalogBackend, number: int, seed: int) -> None:
        """Prepare the sequence; the same seed gives the same sequences."""
        self.catalog, self.model, self.rng = catalog, CatalogModel(), generator(seed * 1000 + number)
        self.calls = [f"seed {seed}, sequence {number}"]
        self.keys = self.rng.sample(KEYS, 4)
        self.fields = {
            "content_hash": self.rng.sample(HASHES, 2),
            "metadata": KIN[number % len(KIN)],
            "expires_at": self.rng.choice(EXPIRIES),
            "byte_size": (1, 2, None),
        }
        self.differences = 0
        for key in KEYS:
            catalog.delete_entry(key)
        catalog.cleanup_expired(10_000)

    def run(self) -> int:
        """Run the calls and compare; return how many changes and deletions were compared."""
        steps = [self.track] * 8 + [self.track_batch] * 3 + [self.delete] * 4 + [self.clean_up, self.snapshot]
        self.snapshot()
        for _ in range(STEPS):
            self.rng.choice(steps)()
        self.compare()
        return self.differences

    def entry(self) -> Entry:
        """Return a random entry."""
        return entry_of(self.rng.choice(self.keys), **{name: self.rng.choice(of) for name, of in self.fields.items()})

    def track(self) -> None:
        """Track one entry."""
        entry = self.entry()
        self.calls.append(f"track_entry({entry})")
        (created,) = self.model.track([entry])
        assert assert_success(self.catalog.track_entry(**entry))["created"] is created, self.calls

    def track_batch(self) -> None:
        """Track several entries; a key may come twice."""
        entries = [self.entry() for _ in range(self.rng.randrange(6))]
        self.calls.append(f"store_batch({entries})")
        self.model.track(entries)
        assert assert_success(self.catalog.store_batch(entries))["stored_count"] == len(entries), self.calls

    def delete(self) -> None:
        """Delete a key, whether it exists or not."""
        key = self.rng.choice(self.keys)
        self.calls.append(f"delete_entry({key!r})")
        assert self.catalog.delete_entry(key) is self.model.delete(key), self.calls

    def clean_up(self) -> None:
        """Remove all expired entries."""
        self.calls.append("cleanup_expired()")
        expected = self.model.clean_up(100)
        assert_same(self.catalog.cleanup_expired(), expected)

    def snapshot(self) -> None:
        """Compare, and take a snapshot."""
        self.compare()
        self.calls.append("create_snapshot()")
        self.model.snapshot(self.catalog.create_snapshot("generated"))

    def compare(self) -> None:
        """Compare the entries, and the changes and deletions since each snapshot, with those of the model."""
        living = self.model.living()
        listed = {entry["key"]: state_of(entry) for entry in self.catalog.list_entries()}
        assert listed == {key: state_of(entry) for key, entry in living.items()}, self.calls
        assert [*listed] == [*living], self.calls
        for since in (None, *self.model.snapshots):
            changed = self.model.changed(since)
            assert keys(self.catalog.get_changed_entries(since)) == changed, self.calls
            self.differences += len(changed) if since is not None else 0
        if hasattr(self.catalog, "get_deleted_entries"):
            for since in self.model.snapshots:
                deleted = cast(FullCatalog, self.catalog).get_deleted_entries(since)
                assert keys(deleted) == self.model.deleted(since), self.calls
                self.differences += len(deleted)
