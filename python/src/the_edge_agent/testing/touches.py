"""The rules of touch and refresh_ttl: they renew the lifetime of an entry, and change nothing else of it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_KEYS, assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    assert_conflict,
    assert_failure,
    assert_same,
    assert_success,
    contents,
    keys_of,
    load,
)
from the_edge_agent.testing.expiry import BAD_TTLS, CENTURY
from the_edge_agent.testing.lifetimes import LONG, SOON, store_expired, wait_until_expired
from the_edge_agent.testing.times import FUTURE, PAST
from the_edge_agent.testing.workers import run_in_threads

TOLERANCE: Final = timedelta(seconds=60)  # for the clock of a database, and a slow machine
BAD_FLAGS: Final[dict[str, Any]] = {"1": 1, "text": "yes", "None": None}


def end_of(memory: LTMBackend, key: str) -> Any:
    """Return when an entry expires."""
    return assert_success(memory.retrieve(key, times=True))["expires_at"]


def assert_ends_in(end: Any, seconds: float) -> None:
    """Check that a time is about so many seconds from now, in UTC."""
    assert isinstance(end, datetime)
    assert end.tzinfo is timezone.utc
    assert abs(end - datetime.now(timezone.utc) - timedelta(seconds=seconds)) < TOLERANCE


class TouchRules(ContractBase):
    """Renewing lifetimes, for backends that declare ``touch`` (and ``ttl`` and ``times``)."""

    def test_a_backend_without_touch_says_so(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        if "touch" in backend.capabilities:
            assert {"ttl", "times"} <= backend.capabilities
            return
        for key in ("k", "x"):
            assert_failure(backend.touch(key), "validation_error")
            assert_failure(backend.touch(key, 60), "validation_error")

    def test_touch_sets_a_new_lifetime(self, touching: Any) -> None:
        touching.store("k", 1, ttl=LONG)
        result = touching.touch("k", 50_000)
        assert result.keys() == {"success", "key", "found", "expires_at"}
        assert (result["success"], result["key"], result["found"]) == (True, "k", True)
        assert_ends_in(result["expires_at"], 50_000)
        assert end_of(touching, "k") == result["expires_at"]
        (entry,) = touching.iterate_entries()
        assert entry["ttl"] == 50_000.0

    def test_touch_without_ttl_renews_the_lifetime_that_the_entry_has(self, touching: Any) -> None:
        touching.store("k", 1, ttl=50_000.5)
        touching.store("touched", 1, ttl=LONG)
        touching.touch("touched", 7_000)
        for key, ttl in (("k", 50_000.5), ("touched", 7_000)):
            first = end_of(touching, key)
            second: Any = touching.touch(key)["expires_at"]
            third: Any = touching.touch(key, None)["expires_at"]
            assert first < second < third == end_of(touching, key)
            assert_ends_in(third, ttl)

    def test_touch_changes_nothing_but_the_lifetime(self, touching: Any) -> None:
        load(touching, [("k", [1.0], {"n": 1}), ("other", 1, None)])
        touching.store("k", [2.0], {"n": 2}, ttl=LONG)
        before: list[Any] = [*touching.iterate_entries()]
        for ttl in (5_000, None):
            touching.touch("k", ttl)
        after: list[Any] = [*touching.iterate_entries()]
        assert after[0].pop("expires_at") > before[0].pop("expires_at")
        assert (after[0].pop("ttl"), before[0].pop("ttl")) == (5_000.0, LONG)
        assert after == before
        assert keys_of_newest(touching) == ["k", "other"]
        touching.touch("other", 60)
        assert keys_of_newest(touching) == ["k", "other"]

    def test_touch_of_a_missing_entry_finds_none(self, touching: Any) -> None:
        store_expired(touching, "gone")
        for key in ("missing", "gone"):
            for ttl in (None, 60):
                assert_same(touching.touch(key, ttl), {"success": True, "key": key, "found": False, "expires_at": None})
        assert touching.count()["count"] == 0

    def test_touch_without_ttl_leaves_an_entry_without_lifetime_as_it_is(self, touching: Any) -> None:
        touching.store("never", 1)
        touching.store("ends", 1, expires_at=FUTURE)
        found = {"success": True, "found": True}
        assert touching.touch("never") == {**found, "key": "never", "expires_at": None}
        assert touching.touch("ends") == {**found, "key": "ends", "expires_at": FUTURE}
        assert (end_of(touching, "never"), end_of(touching, "ends")) == (None, FUTURE)

    def test_touch_gives_a_lifetime_to_an_entry_without_one(self, touching: Any) -> None:
        touching.store("never", 1)
        touching.store("ends", 1, expires_at=FUTURE)
        for key in ("never", "ends"):
            assert_ends_in(touching.touch(key, 5_000)["expires_at"], 5_000)
            assert_ends_in(touching.touch(key)["expires_at"], 5_000)
        assert [entry["ttl"] for entry in touching.iterate_entries()] == [5_000.0, 5_000.0]

    def test_a_store_forgets_the_lifetime_of_touch(self, touching: Any) -> None:
        many: tuple[dict[str, Any], ...] = ({}, {"ttl": None}, {"expires_at": FUTURE})
        for options in many:
            touching.store("k", 1, ttl=LONG)
            touching.touch("k", 5_000)
            touching.store("k", 2, **options)
            assert touching.touch("k")["expires_at"] == options.get("expires_at")
        touching.store("k", 2, ttl=7_000)
        assert_ends_in(touching.touch("k")["expires_at"], 7_000)

    def test_a_short_touch_ends_an_entry(self, touching: Any) -> None:
        touching.store("k", "fox", ttl=LONG)
        touching.touch("k", SOON)
        wait_until_expired(touching, SOON, "k")
        assert keys_of_newest(touching) == []
        assert_same(touching.cleanup_expired(), {"success": True, "deleted_count": 1, "remaining_count": 0})

    def test_lifetimes_of_touch_go_from_a_microsecond_to_100_years(self, touching: Any) -> None:
        touching.store("k", 1)
        assert_ends_in(touching.touch("k", CENTURY)["expires_at"], CENTURY)
        assert_ends_in(touching.touch("k")["expires_at"], CENTURY)
        touching.store("brief", 1)
        assert touching.touch("brief", 1e-6)["found"] is True
        wait_until_expired(touching, SOON, "brief")

    def test_bad_arguments_of_touch_are_refused(self, touching: Any) -> None:
        touching.store("k", 1, ttl=LONG)
        before = [*touching.iterate_entries()]
        assert_refused(BAD_KEYS, lambda key: touching.touch(key))
        assert_refused(BAD_TTLS, lambda ttl: touching.touch("k", ttl))
        assert [*touching.iterate_entries()] == before

    def test_touch_is_no_new_version_for_a_conflict(self, touching: Any, versioned: LTMBackend) -> None:
        touching.store("k", 1, ttl=LONG)
        touching.touch("k", 5_000)
        assert_conflict(versioned.store("k", 2, if_version=2), "k", 1)
        assert versioned.store("k", 2, if_version=1)["version"] == 2

    def test_threads_that_touch_and_store_lose_no_store(self, touching: Any) -> None:
        touching.store("k", 0, ttl=LONG)

        def use(number: int) -> None:
            for _ in range(10):
                if number % 2:
                    assert_success(touching.touch("k", 5_000))
                else:
                    assert_success(touching.store("k", number, ttl=LONG))

        run_in_threads(use, [(number,) for number in range(4)])
        assert touching.retrieve("k")["version"] == 21

    # --- refresh_ttl -------------------------------------------------------------------------------

    def test_retrieve_renews_the_lifetime_if_told(self, touching: Any) -> None:
        touching.store("k", [1], {"n": 1}, ttl=50_000)
        first = end_of(touching, "k")
        assert end_of(touching, "k") == first
        expected = {"success": True, "value": [1], "found": True, "metadata": {"n": 1}, "version": 1}
        assert_same(touching.retrieve("k", refresh_ttl=True), expected)
        second = end_of(touching, "k")
        result: Any = touching.retrieve("k", times=True, refresh_ttl=True)
        assert first < second < result["expires_at"] == end_of(touching, "k")
        assert_ends_in(result["expires_at"], 50_000)
        assert {name: result[name] for name in expected} == expected
        assert result["created_at"] == result["updated_at"]

    def test_retrieve_renews_nothing_of_entries_without_lifetime(self, touching: Any) -> None:
        touching.store("never", 1)
        touching.store("ends", 1, expires_at=FUTURE)
        before = [*touching.iterate_entries()]
        assert touching.retrieve("never", times=True, refresh_ttl=True)["expires_at"] is None
        assert touching.retrieve("ends", times=True, refresh_ttl=True)["expires_at"] == FUTURE
        assert touching.retrieve("missing", "default", refresh_ttl=True)["value"] == "default"
        assert [*touching.iterate_entries()] == before

    def test_search_renews_the_lifetimes_of_its_results_alone(self, touching: Any) -> None:
        for key, value in (("a", "fox"), ("b", "fox"), ("c", "fox"), ("d", "hound")):
            touching.store(key, value, ttl=50_000)
        touching.store("ends", "fox", expires_at=FUTURE)
        touching.store("never", "fox")
        before = {entry["key"]: entry["expires_at"] for entry in touching.iterate_entries()}
        plain = assert_success(touching.search("fox", limit=4))
        assert {entry["key"]: entry["expires_at"] for entry in touching.iterate_entries()} == before
        result = assert_success(touching.search("fox", limit=4, refresh_ttl=True))
        assert keys_of(result) == keys_of(plain) == ["never", "ends", "c", "b"]
        after = {entry["key"]: entry["expires_at"] for entry in touching.iterate_entries()}
        assert {key for key in after if after[key] != before[key]} == {"b", "c"}
        assert {entry["key"]: entry["expires_at"] for entry in result["results"]} == {
            key: after[key] for key in ("never", "ends", "c", "b")
        }
        for key in "bc":
            assert_ends_in(after[key], 50_000)
        others = [{name: value for name, value in entry.items() if name != "expires_at"} for entry in result["results"]]
        same = [{name: value for name, value in entry.items() if name != "expires_at"} for entry in plain["results"]]
        assert others == same

    def test_search_without_a_query_renews_too(self, touching: Any) -> None:
        touching.store("k", 1, {"n": 1}, ttl=50_000)
        searches: tuple[dict[str, Any], ...] = ({}, {"metadata_filter": {"n": 1}}, {"prefix": "k"})
        for arguments in searches:
            before = end_of(touching, "k")
            assert keys_of(touching.search(refresh_ttl=True, **arguments)) == ["k"]
            assert end_of(touching, "k") > before
        touching.search("unicorn", refresh_ttl=True)
        touching.search(prefix="x", refresh_ttl=True)

    def test_refresh_ttl_must_be_true_or_false(self, touching: Any) -> None:
        assert_refused(BAD_FLAGS, lambda flag: touching.retrieve("k", refresh_ttl=flag))
        assert_refused(BAD_FLAGS, lambda flag: touching.search(refresh_ttl=flag))

    def test_a_read_is_renewed_in_its_namespace_alone(self, touching: Any, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("a")
        for memory in (touching, part, part.namespace("b")):
            memory.store("k", "fox", ttl=50_000)
        before = {entry["key"]: entry["expires_at"] for entry in touching.iterate_entries()}
        result = part.touch("k", 60_000)
        assert (result["key"], result["found"]) == ("k", True)
        part.retrieve("k", refresh_ttl=True)
        assert keys_of(part.search("fox", refresh_ttl=True)) == ["k"]
        after = {entry["key"]: entry["expires_at"] for entry in touching.iterate_entries()}
        assert {key for key in after if after[key] != before[key]} == {"@a.k"}
        found = part.search("fox", nested=True, refresh_ttl=True)["results"]
        assert {(entry["namespace"], entry["key"]) for entry in found} == {((), "k"), (("b",), "k")}
        last = {entry["key"]: entry["expires_at"] for entry in touching.iterate_entries()}
        assert {key for key in last if last[key] != after[key]} == {"@a.k", "@a/b.k"}

    # --- never, and not given ----------------------------------------------------------------------

    def test_ttl_none_is_never_and_without_ttl_there_is_no_lifetime(self, touching: Any) -> None:
        touching.store("none", 1, ttl=None)
        touching.store("not given", 1)
        for entry in touching.iterate_entries():
            assert (entry["ttl"], entry["expires_at"]) == (None, None)

    def test_ttl_none_goes_with_expires_at(self, touching: Any) -> None:
        assert_success(touching.store("k", 1, ttl=None, expires_at=FUTURE))
        (entry,) = touching.iterate_entries()
        assert (entry["ttl"], entry["expires_at"]) == (None, FUTURE)
        assert_success(touching.store("k", 1, ttl=None, expires_at=PAST))
        assert contents(touching) == []

    def test_batches_and_transactions_keep_lifetimes(self, touching: Any, transactional: LTMBackend) -> None:
        assert_success(
            transactional.store_many([{"key": "a", "value": 1, "ttl": 7_000}, {"key": "b", "value": 1, "ttl": None}])
        )
        with transactional.transaction() as transaction:
            transaction.store("c", 1, ttl=8_000)
            transaction.store("d", 1)
        assert [entry["ttl"] for entry in touching.iterate_entries()] == [7_000.0, None, 8_000.0, None]
        assert_ends_in(touching.touch("c")["expires_at"], 8_000)


def keys_of_newest(memory: LTMBackend) -> list[str]:
    """Return the keys of all entries, newest first."""
    return [entry["key"] for entry in assert_success(memory.entries(order="newest"))["entries"]]
