"""The rules of times: entries that expire at a given time, and iterations with everything that a copy needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Final

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    find,
    keys_of,
)
from the_edge_agent.testing.slow import slow

FUTURE: Final = datetime(2099, 12, 31, 23, 59, 59, 987_654, tzinfo=timezone.utc)
PAST: Final = datetime(2001, 2, 3, 4, 5, 6, 789_012, tzinfo=timezone.utc)
MOMENTS: Final[dict[str, datetime]] = {
    "in UTC": FUTURE,
    "in another zone": FUTURE.astimezone(timezone(timedelta(hours=9, minutes=30))),
    "naive": FUTURE.replace(tzinfo=None),
}
NO_MOMENTS: Final[dict[str, Any]] = {
    "text": "2099-12-31",
    "a number": 4e9,
    "true": True,
    "a date": FUTURE.date(),
    "beyond the year 9999": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
}
WHOLE: Final = {"key", "value", "metadata", "version", "created_at", "updated_at", "expires_at", "ttl", "index"}
STORES: Final[dict[str, Callable[..., Any]]] = {
    "store": lambda backend, key, **options: backend.store(key, 1, **options),
    "store_many": lambda backend, key, **options: backend.store_many([{"key": key, "value": 1, **options}]),
    "transaction": lambda backend, key, **options: _committed(backend, key, options),
}


class TimeRules(ContractBase):
    """Entries that expire at a given time, and iterations over whole entries, for backends that declare ``times``."""

    def test_a_backend_without_times_says_so(self, backend: LTMBackend) -> None:
        if "times" in backend.capabilities:
            assert [*backend.iterate_entries()] == []
            return
        _assert_refused(backend.iterate_entries)
        if "transactions" in backend.capabilities:
            assert_failure(backend.store_many([{"key": "new", "value": 2, "expires_at": FUTURE}]), "validation_error")
            assert contents(backend) == []

    def test_iterate_entries_yields_all_that_a_copy_needs(self, timed: LTMBackend) -> None:
        assert_success(timed.store("b", [1, 2.0], {"n": 1}, ttl=600))
        assert_success(timed.store("a", None))
        assert_success(timed.store("a", 1))
        first, second = timed.iterate_entries()
        assert set(first) == set(second) == WHOLE
        assert (first["key"], first["value"], first["metadata"], first["version"]) == ("a", 1, None, 2)
        assert (second["key"], second["value"], second["metadata"], second["version"]) == ("b", [1, 2.0], {"n": 1}, 1)
        assert first["expires_at"] is None
        assert second["expires_at"] is not None
        assert second["expires_at"] - second["updated_at"] == timedelta(seconds=600)
        assert first["created_at"] < first["updated_at"]
        assert second["created_at"] == second["updated_at"]
        for entry in (first, second):
            assert entry["updated_at"].tzinfo is timezone.utc
            assert abs(datetime.now(timezone.utc) - entry["updated_at"]) < timedelta(hours=1)

    @slow
    def test_iterate_entries_goes_through_many_in_the_order_of_keys(self, timed: LTMBackend) -> None:
        keys = [f"k/{number:04}" for number in range(1_200)]
        for key in ("j", "l", *keys) if "transactions" not in timed.capabilities else ():
            assert_success(timed.store(key, key))
        if "transactions" in timed.capabilities:
            assert_success(timed.store_many([{"key": key, "value": key} for key in ("j", "l", *keys)]))
        assert [entry["key"] for entry in timed.iterate_entries("k/")] == keys
        assert [entry["key"] for entry in timed.iterate_entries()] == ["j", *keys, "l"]

    def test_an_entry_ends_exactly_when_it_is_told_to(self, timed: LTMBackend) -> None:
        for name, moment in MOMENTS.items():
            for way, store in STORES.items():
                if way == "store" or "transactions" in timed.capabilities:
                    assert_success(store(timed, f"{way} {name}", expires_at=moment))
        expiries = {entry["key"]: entry["expires_at"] for entry in timed.iterate_entries()}
        assert expiries
        assert set(expiries.values()) == {FUTURE}
        assert_success(timed.store("store naive", 2))
        assert {entry["key"]: entry["expires_at"] for entry in timed.iterate_entries()}["store naive"] is None

    def test_a_moment_in_the_past_stores_an_entry_that_has_expired_at_once(self, timed: LTMBackend) -> None:
        assert_same(timed.store("k", 1, expires_at=PAST), _stored("k", 1))
        assert timed.retrieve("k")["found"] is False
        assert keys_of(find(timed)) == []
        assert_same(timed.store("k", 2), _stored("k", 1))
        assert_same(timed.store("k", 3, expires_at=PAST), _stored("k", 2))
        assert [*timed.iterate_entries()] == []
        assert timed.delete("k")["deleted"] is False
        assert timed.cleanup_expired() == {"success": True, "deleted_count": 1, "remaining_count": 0}

    def test_what_has_expired_within_a_batch_is_created_anew(self, timed: LTMBackend) -> None:
        if "transactions" not in timed.capabilities:
            return
        many = [{"key": "k", "value": value, "expires_at": end} for value, end in ((1, None), (2, PAST), (3, FUTURE))]
        versions = [result["version"] for result in assert_success(timed.store_many(many))["results"]]
        assert versions == [1, 2, 1]
        (entry,) = timed.iterate_entries()
        assert (entry["value"], entry["version"], entry["expires_at"]) == (3, 1, FUTURE)

    @slow
    def test_what_is_no_moment_or_one_too_many_is_refused(self, timed: LTMBackend) -> None:
        for name, bad in NO_MOMENTS.items():
            assert_failure(timed.store("k", 1, expires_at=bad), "validation_error")
            if "transactions" in timed.capabilities:
                bad_entry = {"key": "k", "value": 1, "expires_at": bad}
                assert_failure(timed.store_many([bad_entry]), "validation_error")
            assert timed.count()["count"] == 0, name
        assert_failure(timed.store("k", 1, ttl=60, expires_at=FUTURE), "validation_error")
        assert timed.count()["count"] == 0

    def test_a_bad_prefix_of_entries_is_refused_at_once(self, timed: LTMBackend) -> None:
        bad: Any
        for bad in (5, "\0", "a" * 513):
            _assert_refused(partial(timed.iterate_entries, bad))


def _assert_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(LTMError) as raised:
        call()
    assert raised.value.error_type == "validation_error"


def _committed(backend: LTMBackend, key: str, options: dict[str, Any]) -> Any:
    transaction = backend.transaction()
    assert_success(transaction.store(key, 1, **options))
    return transaction.commit()


def _stored(key: str, version: int) -> dict[str, Any]:
    return {"success": True, "stored": True, "key": key, "created": version == 1, "version": version}
