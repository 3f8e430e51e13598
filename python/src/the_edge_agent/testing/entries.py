"""The rules of store, retrieve and delete: their results and their effects."""

from __future__ import annotations

from typing import Any

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import ContractBase, assert_same, assert_success, contents, find, keys_of

STORED = {"success": True, "stored": True}


class EntryRules(ContractBase):
    """One entry at a time."""

    def test_the_store_is_empty_at_first(self, backend: LTMBackend) -> None:
        assert list(backend.iterate_all()) == []
        assert_same(find(backend), {"success": True, "results": [], "count": 0})

    def test_a_first_store_creates_version_1(self, backend: LTMBackend) -> None:
        assert_same(backend.store("k", "v"), {**STORED, "key": "k", "created": True, "version": 1})

    def test_each_store_over_an_entry_adds_1_to_its_version(self, backend: LTMBackend) -> None:
        backend.store("k", "v")
        for version in range(2, 6):
            assert_same(backend.store("k", version), {**STORED, "key": "k", "created": False, "version": version})

    def test_an_identical_store_is_a_new_version_too(self, backend: LTMBackend) -> None:
        backend.store("k", "v", {"a": 1})
        assert_same(backend.store("k", "v", {"a": 1}), {**STORED, "key": "k", "created": False, "version": 2})

    def test_a_store_replaces_value_and_metadata_as_a_whole(self, backend: LTMBackend) -> None:
        backend.store("k", {"old": 1, "both": 1}, {"old": 1, "both": 1})
        backend.store("k", {"both": 2}, {"both": 2})
        expected = {"value": {"both": 2}, "found": True, "metadata": {"both": 2}, "version": 2}
        assert_same(backend.retrieve("k"), {"success": True, **expected})

    def test_a_store_without_metadata_removes_it(self, backend: LTMBackend) -> None:
        backend.store("k", 1, {"a": 1})
        backend.store("k", 1)
        assert backend.retrieve("k")["metadata"] is None
        assert keys_of(find(backend, metadata_filter={"a": 1})) == []

    def test_a_store_replaces_what_search_finds(self, backend: LTMBackend) -> None:
        backend.store("k", "fox")
        backend.store("k", "hound")
        assert keys_of(find(backend, "fox")) == []
        assert keys_of(find(backend, "hound")) == ["k"]

    def test_retrieve_answers_with_the_whole_entry(self, backend: LTMBackend) -> None:
        backend.store("k", {"x": [1, None]}, {"tag": "t"})
        expected = {"value": {"x": [1, None]}, "found": True, "metadata": {"tag": "t"}, "version": 1}
        assert_same(backend.retrieve("k", default="other"), {"success": True, **expected})

    def test_retrieve_of_a_missing_key_answers_with_none(self, backend: LTMBackend) -> None:
        expected = {"success": True, "value": None, "found": False, "metadata": None, "version": None}
        assert_same(backend.retrieve("k"), expected)

    def test_retrieve_of_a_missing_key_hands_back_any_default_itself(self, backend: LTMBackend) -> None:
        default = object()
        entry = backend.retrieve("k", default)
        assert entry["value"] is default
        assert entry["found"] is False

    def test_delete_removes_the_entry(self, backend: LTMBackend) -> None:
        backend.store("k", "fox", {"a": 1})
        backend.store("other", "fox", {"a": 1})
        assert_same(backend.delete("k"), {"success": True, "deleted": True, "key": "k"})
        assert backend.retrieve("k")["found"] is False
        assert keys_of(find(backend, "fox")) == keys_of(find(backend, metadata_filter={"a": 1})) == ["other"]
        assert [key for key, _, _ in backend.iterate_all()] == keys_of(find(backend)) == ["other"]

    def test_delete_of_a_missing_key_says_so(self, backend: LTMBackend) -> None:
        assert_same(backend.delete("k"), {"success": True, "deleted": False, "key": "k"})
        backend.store("k", 1)
        backend.delete("k")
        assert_same(backend.delete("k"), {"success": True, "deleted": False, "key": "k"})

    def test_a_store_after_delete_is_a_create(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        backend.store("k", 2)
        backend.delete("k")
        assert_same(backend.store("k", 3), {**STORED, "key": "k", "created": True, "version": 1})

    def test_a_false_value_is_a_value(self, backend: LTMBackend) -> None:
        values: list[Any] = [None, False, 0, 0.0, "", [], {}]
        for version, value in enumerate(values, start=1):
            backend.store("k", value)
            expected = {"success": True, "value": value, "found": True, "metadata": None, "version": version}
            assert_same(backend.retrieve("k", default="default"), expected)
            entry = {"key": "k", "value": value, "metadata": None, "score": 0.0}
            assert_same(find(backend), {"success": True, "results": [entry], "count": 1})

    def test_metadata_none_and_an_empty_object_stay_different(self, backend: LTMBackend) -> None:
        backend.store("none", 1, None)
        backend.store("empty", 1, {})
        assert backend.retrieve("none")["metadata"] is None
        assert backend.retrieve("empty")["metadata"] == {}
        assert {entry["key"]: entry["metadata"] for entry in find(backend)["results"]} == {
            "none": None,
            "empty": {},
        }
        assert list(backend.iterate_all()) == [("empty", 1, {}), ("none", 1, None)]

    def test_what_is_changed_after_store_is_not_stored(self, backend: LTMBackend) -> None:
        value: dict[str, Any] = {"list": [1]}
        metadata: dict[str, Any] = {"list": [1]}
        backend.store("k", value, metadata)
        value["list"].append(2)
        metadata["list"].append(2)
        entry = backend.retrieve("k")
        assert entry["value"] == entry["metadata"] == {"list": [1]}

    def test_what_is_changed_after_a_read_is_not_stored(self, backend: LTMBackend) -> None:
        backend.store("k", {"list": [1]}, {"list": [1]})
        before = contents(backend)
        entries: list[Any] = [backend.retrieve("k"), find(backend)["results"][0]]
        for entry in entries:
            entry["value"]["list"].append(2)
            entry["metadata"]["list"].append(2)
        for _, value, metadata in backend.iterate_all():
            value["list"].append(2)
            assert metadata is not None
            metadata["list"].append(2)
        assert contents(backend) == before

    def test_two_backends_on_one_store_see_each_other(self, reopen: Any) -> None:
        with reopen() as first, reopen() as second:
            assert_success(first.store("k", 1))
            assert second.retrieve("k")["value"] == 1
            assert second.store("k", 2)["version"] == 2
            assert first.retrieve("k")["value"] == 2
            assert second.delete("k")["deleted"] is True
            assert first.retrieve("k")["found"] is False
