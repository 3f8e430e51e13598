"""The rules of namespaces: each has keys of its own, and no call on one returns or changes entries of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import pytest

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.testing.bad_input import assert_refused
from the_edge_agent.testing.contract import (
    ContractBase,
    OpenBackend,
    assert_conflict,
    assert_failure,
    assert_same,
    assert_success,
    differences,
    find,
    generator,
    keys_of,
    without_times,
)
from the_edge_agent.testing.full_keys import Names, full_key
from the_edge_agent.testing.lifetimes import SOON, wait_until_expired
from the_edge_agent.testing.model import Entry, Model
from the_edge_agent.testing.slow import slow

Contents: TypeAlias = dict[tuple[Names, str], Any]
"""The value of each entry, by the names of its namespace and its key there."""

NAMESPACES: Final[tuple[Names, ...]] = (
    *(("a",), ("a.b",), ("a/b",), ("a", "b"), ("a", "b", "c"), ("a", "b.c"), ("a", "b/c"), ("a-b",), ("a0",), ("ab",)),
    *(("a%",), ("a%2Eb",), ("a%2eb",), ("a%252Eb",), ("%",), (".",), ("/",), ("./%",), ("@a",), ("a", "@b"), ("*",)),
    *(("A",), ("á",), ("a\u0301",), ("a ",), (" ",), ("\x01",), ("a", "\x01"), ("a\n",), ("😀",), ("a", "😀", "b")),
    *(("\U0010ffff",), ("a", "\U0010ffff"), ("n" * 400,), ("n" * 399,), ("'",), ("a_",), ("\\",), ("日本",)),
)
KEYS: Final = (
    *("k", "K", "k ", ".", "/", "%", "@", "@a.k", "a/b", "a.k", "b.k", "/b.k", "%2E", "k.k", "\x01", "\U0010ffff"),
    *("😀", "日本", "á", "'", "k" * 100),
)
# Keys of no namespace, though they look like full keys.
ROOT_KEYS: Final = (
    *("@a/b", "@a.", "@a//b.c", "@a%2eb.c", "@", "@.", "@.k", "@/a.k", "@a/.k", "@a%.k", "@a%2.k", "@a%2Fb", "@a%41.k"),
    *("a.k", "@A", "@a", "@a/", "@a/b/", "@a0", "@a-", "@a//.k", "k", "A", "@a/b%.c", "@a\x01", "a/b.k", "@\U0010ffff"),
)
ESCAPED: Final[dict[Names, str]] = {
    ("users", "ada"): "@users/ada.k",
    ("a.b/c%",): "@a%2Eb%2Fc%25.k",
    ("%2E",): "@%252E.k",
    ("a", "b", "c"): "@a/b/c.k",
    ("@", " ", "\n"): "@@/ /\n.k",
    ("日本 😀",): "@日本 😀.k",
}
BAD_NAMES: Final[dict[str, Any]] = {
    "empty": "",
    "None": None,
    "number": 1,
    "bytes": b"a",
    "tuple": ("a",),
    "NUL": "a\0",
    "lone surrogate": "\ud800",
    "too long": "n" * 510,
    "too long with its escapes": "." * 170,
}


def _keys(entries: Iterable[Any]) -> list[str]:
    return [entry["key"] for entry in entries]


def _placed(entries: Iterable[Any]) -> list[tuple[Names, str]]:
    return [(entry["namespace"], entry["key"]) for entry in entries]


# The keys that each way to read a memory returns.
READS: Final[dict[str, Callable[[LTMBackend], list[str]]]] = {
    "list_keys": lambda memory: assert_success(memory.list_keys(limit=10_000))["keys"],
    "list_keys page by page": lambda memory: _pages_of_keys(memory),
    "iterate_all": lambda memory: [key for key, _, _ in memory.iterate_all()],
    "search": lambda memory: sorted(keys_of(find(memory, limit=10_000))),
    "search for a word": lambda memory: sorted(keys_of(find(memory, "fox", limit=10_000))),
    "search without a word": lambda memory: sorted(keys_of(find(memory, "-hound", limit=10_000))),
    "search with a filter": lambda memory: sorted(keys_of(find(memory, None, {"n": 1}, 10_000))),
    "search with everything": lambda memory: sorted(keys_of(find(memory, "red fox", {"n": 1}, 10_000, prefix=""))),
}
READS_OF_TIMES: Final[dict[str, Callable[[LTMBackend], list[str]]]] = {
    "iterate_entries": lambda memory: _keys(memory.iterate_entries()),
    "entries": lambda memory: _keys(assert_success(memory.entries(limit=10_000))["entries"]),
    "entries backwards": lambda memory: _keys(memory.entries(limit=10_000, order="-key")["entries"])[::-1],
    "newest entries": lambda memory: sorted(_keys(memory.entries(limit=10_000, order="newest")["entries"])),
    "newest entries page by page": lambda memory: sorted(_keys(_pages_of_entries(memory, "newest"))),
    "entries page by page": lambda memory: _keys(_pages_of_entries(memory, "key")),
}
NESTED: Final[dict[str, Callable[[LTMBackend], list[tuple[Names, str]]]]] = {
    "iterate_all": lambda memory: [(names, key) for key, _, _, names in memory.iterate_all(nested=True)],
    "search": lambda memory: _placed(find(memory, limit=10_000, nested=True)["results"]),
    "search for a word": lambda memory: _placed(find(memory, "fox", limit=10_000, nested=True)["results"]),
    "search with a filter": lambda memory: _placed(find(memory, None, {"n": 1}, 10_000, nested=True)["results"]),
}
NESTED_OF_TIMES: Final[dict[str, Callable[[LTMBackend], list[tuple[Names, str]]]]] = {
    "iterate_entries": lambda memory: _placed(memory.iterate_entries(nested=True)),
    "entries": lambda memory: _placed(assert_success(memory.entries(limit=10_000, nested=True))["entries"]),
    "entries backwards": lambda memory: _placed(memory.entries(limit=10_000, order="-key", nested=True)["entries"]),
    "entries page by page": lambda memory: _placed(_pages_of_entries(memory, "key", nested=True)),
    "newest entries": lambda memory: _placed(_pages_of_entries(memory, "newest", nested=True)),
}
PREFIXED: Final[dict[str, Callable[[LTMBackend, str], list[str]]]] = {
    "list_keys": lambda memory, prefix: assert_success(memory.list_keys(prefix, 10_000))["keys"],
    "iterate_all": lambda memory, prefix: [key for key, _, _ in memory.iterate_all(prefix)],
    "search": lambda memory, prefix: sorted(keys_of(find(memory, limit=10_000, prefix=prefix))),
    "search for a word": lambda memory, prefix: sorted(keys_of(find(memory, "fox", limit=10_000, prefix=prefix))),
}
WITH_PREFIX_AND_NESTED: Final[dict[str, Callable[[LTMBackend], Any]]] = {
    "search": lambda memory: memory.search(prefix="k", nested=True),
    "count": lambda memory: memory.count("k", nested=True),
    "delete_all": lambda memory: memory.delete_all("k", nested=True),
}


class NamespaceRules(ContractBase):
    """Namespaces, for backends that declare ``namespaces``."""

    def test_a_backend_without_namespaces_says_so(self, backend: LTMBackend) -> None:
        assert backend.namespace() is backend
        if "namespaces" in backend.capabilities:
            assert_same(backend.list_namespaces(), {"success": True, "namespaces": [], "count": 0})
            return
        backend.store("k", 1)
        assert_raises(lambda: backend.namespace("a"))
        assert_raises(lambda: backend.iterate_all(nested=True))
        for result in (backend.list_namespaces(), backend.count(nested=True), backend.delete_all("", nested=True)):
            assert_failure(result, "validation_error")
        assert backend.list_keys()["keys"] == ["k"]

    # --- keys --------------------------------------------------------------------------------------

    def test_the_whole_memory_has_full_keys(self, namespaced: LTMBackend) -> None:
        for names, key in ESCAPED.items():
            part = namespaced.namespace(*names)
            assert_same(part.store("k", [*names]), _stored("k", 1))
            assert namespaced.retrieve(key)["value"] == part.retrieve("k")["value"] == [*names]
        assert namespaced.list_keys()["keys"] == sorted(ESCAPED.values())
        assert sorted(keys_of(find(namespaced))) == sorted(ESCAPED.values())

    def test_an_entry_with_a_full_key_is_one_of_the_namespace(self, namespaced: LTMBackend) -> None:
        for names, key in ESCAPED.items():
            assert_same(namespaced.store(key, 1), _stored(key, 1))
            part = namespaced.namespace(*names)
            assert part.list_keys()["keys"] == ["k"]
            assert_same(part.store("k", 2), _stored("k", 2))
            assert_same(part.delete("k"), {"success": True, "deleted": True, "key": "k"})
            assert namespaced.retrieve(key)["found"] is False

    def test_a_namespace_of_a_namespace_is_below_it(self, namespaced: LTMBackend) -> None:
        namespaced.namespace("a", "b", "c").store("k", 1)
        for part in (
            namespaced.namespace("a").namespace("b").namespace("c"),
            namespaced.namespace("a", "b").namespace("c"),
            namespaced.namespace("a").namespace("b", "c"),
        ):
            assert part.retrieve("k")["value"] == 1
            assert part.namespace() is part

    def test_a_namespace_is_a_memory_with_all_capabilities(self, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("a", "b")
        assert part.capabilities == namespaced.capabilities
        assert part.language == namespaced.language

    def test_bad_names_are_refused(self, namespaced: LTMBackend) -> None:
        for name, bad in BAD_NAMES.items():
            for names in ((bad,), ("a", bad), (bad, "a")):
                with pytest.raises(LTMError) as raised:
                    namespaced.namespace(*names)
                assert_failure(raised.value.result, "validation_error")
                if "too long" not in name:
                    assert f"name {names.index(bad)} of a namespace" in str(raised.value), name

    def test_names_leave_at_least_one_character_to_the_key(self, namespaced: LTMBackend) -> None:
        for names in (("n" * 509,), ("." * 169, "n"), ("a", "n" * 507)):
            part = namespaced.namespace(*names)
            assert_success(part.store("k", [*names]))
            assert part.list_keys()["keys"] == ["k"]
        with pytest.raises(LTMError, match="511 characters"):
            namespaced.namespace("n" * 510)
        with pytest.raises(LTMError, match="511 characters"):
            namespaced.namespace("n" * 250).namespace("n" * 260)

    def test_a_full_key_has_at_most_512_characters(self, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("n" * 300, "." * 10)  # 333 characters of the full key
        assert_success(part.store("k" * 179, 1))
        assert part.list_keys("k" * 179)["keys"] == ["k" * 179]
        calls: dict[str, Callable[[str], Any]] = {
            "store": lambda key: part.store(key, 1),
            "retrieve": part.retrieve,
            "delete": part.delete,
            "retrieve_many": lambda key: part.retrieve_many([key]),
            "list_keys": part.list_keys,
            "list_keys after": lambda key: part.list_keys(after=key),
            "search": lambda key: part.search(prefix=key),
            "count": part.count,
        }
        for name, call in calls.items():
            assert_success(call("k" * 179))
            result = call("k" * 180)
            assert_failure(result, "validation_error")
            assert "at most 179 characters in the namespace" in result["error"], name
        assert part.count()["count"] == 0

    # --- no entry is seen from another namespace ---------------------------------------------------

    def test_no_entry_is_ever_seen_from_another_namespace(self, namespaced: LTMBackend) -> None:
        rng = generator(self.seed)
        contents: Contents = {((), key): None for key in ROOT_KEYS}
        for names in rng.sample(NAMESPACES, 14):
            for key in ("k", *rng.sample(KEYS, 3)):
                contents[names, key] = None
        for _ in range(12):
            names = tuple("".join(rng.choices("ab./%@A😀", k=rng.choice((1, 2, 3)))) for _ in range(rng.choice((1, 2))))
            contents[names, rng.choice(KEYS)] = None
        fill(namespaced, contents)
        assert_only_own_entries(namespaced, contents)
        for names, key in rng.sample([*contents], len(contents) // 2):
            assert namespaced.namespace(*names).delete(key)["deleted"] is True
            del contents[names, key]
        assert_only_own_entries(namespaced, contents)

    @slow
    def test_none_of_the_similar_namespaces_sees_another(self, namespaced: LTMBackend) -> None:
        contents: Contents = {((), key): None for key in ROOT_KEYS}
        contents |= {(names, key): None for names in NAMESPACES for key in KEYS}
        fill(namespaced, contents)
        assert_only_own_entries(namespaced, contents)

    def test_writes_reach_only_the_namespace(self, namespaced: LTMBackend) -> None:
        places: list[Names] = [(), ("a",), ("a", "b"), ("b",)]
        for names in places:
            for key in ("k", "x"):
                namespaced.namespace(*names).store(key, [*names])
        part = namespaced.namespace("a")
        assert part.store("k", "new")["version"] == 2
        assert part.delete("x")["deleted"] is True
        for names in places:
            here = namespaced.namespace(*names)
            is_part = names == ("a",)
            assert here.retrieve("k")["value"] == ("new" if is_part else [*names])
            assert here.retrieve("k")["version"] == (2 if is_part else 1)
            assert here.retrieve("x")["found"] is not is_part

    def test_delete_all_reaches_only_the_namespace(self, namespaced: LTMBackend) -> None:
        contents: Contents = {
            (names, key): None for names in ((), ("a",), ("a", "b"), ("a-b",), ("b",)) for key in "kx"
        }
        contents[(), "@a//b.c"] = None  # lies between the keys of ("a",) and those of ("a", "b")
        fill(namespaced, contents)
        assert_same(namespaced.namespace("a").delete_all("k"), {"success": True, "deleted_count": 1})
        del contents[("a",), "k"]
        assert_only_own_entries(namespaced, contents)
        assert_same(namespaced.namespace("a").delete_all(""), {"success": True, "deleted_count": 1})
        del contents[("a",), "x"]
        assert_only_own_entries(namespaced, contents)
        assert_same(namespaced.namespace("a").delete_all("", nested=True), {"success": True, "deleted_count": 2})
        contents = {place: value for place, value in contents.items() if place[0] != ("a", "b")}
        assert_only_own_entries(namespaced, contents)
        assert_same(namespaced.delete_all("", nested=True), {"success": True, "deleted_count": len(contents)})
        assert namespaced.count()["count"] == 0

    # --- prefixes and nested -----------------------------------------------------------------------

    def test_a_prefix_never_reaches_into_namespaces_below(self, namespaced: LTMBackend) -> None:
        for key in ("b", "/b", "/b.k", ".", "k", "kk", "0", "b.k"):
            namespaced.namespace("a").store(key, "fox")
            namespaced.namespace("a", "b").store(key, "fox")
            namespaced.namespace("ab").store(key, "fox")
        own = sorted(("b", "/b", "/b.k", ".", "k", "kk", "0", "b.k"))
        for prefix in ("", "/", "/b", "/b.", "k", "kk", "b", ".", "b.", "0", "\U0010ffff", "x"):
            expected = [key for key in own if key.startswith(prefix)]
            for name, read in PREFIXED.items():
                assert read(namespaced.namespace("a"), prefix) == expected, (name, prefix)
            assert namespaced.namespace("a").count(prefix)["count"] == len(expected)

    def test_a_prefix_of_the_whole_memory_is_one_of_full_keys(self, namespaced: LTMBackend) -> None:
        for names in (("a",), ("a", "b"), ("ab",), ("b",)):
            namespaced.namespace(*names).store("k", "fox")
        namespaced.store("@x", "fox")
        for prefix in ("@", "@a", "@a.", "@a/", "@a/b.", "@a/b.k", "@ab.k", "@x", "a", "@a.kk"):
            expected = sorted(key for key in ("@a.k", "@a/b.k", "@ab.k", "@b.k", "@x") if key.startswith(prefix))
            for name, read in PREFIXED.items():
                assert read(namespaced, prefix) == expected, (name, prefix)

    def test_a_prefix_does_not_go_with_nested(self, namespaced: LTMBackend) -> None:
        for memory in (namespaced, namespaced.namespace("a")):
            memory.store("k", 1)
            for name, call in WITH_PREFIX_AND_NESTED.items():
                result = call(memory)
                assert_failure(result, "validation_error")
                assert "nested" in result["error"], name
            assert_raises(lambda memory=memory: memory.iterate_all("k", nested=True))  # type: ignore[misc]
            if "times" in memory.capabilities:
                assert_failure(memory.entries("k", nested=True), "validation_error")
                assert_raises(lambda memory=memory: memory.iterate_entries("k", nested=True))  # type: ignore[misc]
            assert memory.retrieve("k")["found"] is True
            assert memory.count("", nested=True)["success"] is True

    def test_nested_must_be_true_or_false(self, namespaced: LTMBackend) -> None:
        bad = {"1": 1, "text": "yes", "None": None}
        assert_refused(bad, lambda nested: namespaced.search(nested=nested))
        assert_refused(bad, lambda nested: namespaced.count(nested=nested))
        assert_refused(bad, lambda nested: namespaced.delete_all("", nested=nested))

    def test_nested_results_have_the_namespace_below_this_one(self, namespaced: LTMBackend) -> None:
        for names in ((), ("a",), ("a", "b"), ("a", "b", "c.d"), ("b",)):
            namespaced.namespace(*names).store("k", "fox", {"n": [*names]})
        part = namespaced.namespace("a")
        expected = [((), "k"), (("b",), "k"), (("b", "c.d"), "k")]
        for entry in assert_success(part.search("fox", nested=True))["results"]:
            assert isinstance(entry["namespace"], tuple)
            assert ["a", *entry["namespace"]] == entry["metadata"]["n"]
        assert sorted(_placed(part.search("fox", nested=True)["results"])) == expected
        items = [*part.iterate_all(nested=True)]
        assert [(names, key) for key, _, _, names in items] == expected
        assert all(isinstance(item, tuple) and isinstance(item[3], tuple) for item in items)
        assert_same(part.count(nested=True), {"success": True, "count": 3})
        assert_same(part.count(), {"success": True, "count": 1})
        assert "namespace" not in part.search("fox")["results"][0]

    def test_nested_results_of_one_time_are_in_the_order_of_full_keys(
        self, namespaced: LTMBackend, transactional: LTMBackend
    ) -> None:
        keys = [full_key(names, "k") for names in NAMESPACES[:12]]
        keys += ["k", "@//b"]
        assert_success(transactional.store_many([{"key": key, "value": "fox"} for key in keys]))
        for query in (None, "fox"):
            found = _placed(find(namespaced, query, limit=100, nested=True)["results"])
            assert [full_key(*place) for place in found] == sorted(keys)

    # --- search ------------------------------------------------------------------------------------

    def test_the_names_are_no_words_of_an_entry(self, namespaced: LTMBackend) -> None:
        namespaced.namespace("fox", "hound").store("red hen", 1)
        namespaced.store("@wolf/bear.blue hen", 1)
        namespaced.store("@cat//dog.hen", 1)  # the key of no namespace
        for word in ("fox", "hound", "wolf", "bear"):
            for memory in (namespaced, namespaced.namespace("fox", "hound"), namespaced.namespace("wolf", "bear")):
                assert keys_of(find(memory, word)) == []
        assert keys_of(find(namespaced, '"red hen"')) == ["@fox/hound.red hen"]
        assert keys_of(find(namespaced.namespace("fox", "hound"), "hen")) == ["red hen"]
        assert keys_of(find(namespaced.namespace("wolf", "bear"), "blue hen")) == ["blue hen"]
        assert keys_of(find(namespaced, "cat dog hen")) == ["@cat//dog.hen"]

    def test_a_ranking_uses_the_statistics_of_the_namespace(self, namespaced: LTMBackend, matching: LTMBackend) -> None:
        own: list[tuple[Names, str, str]] = [((), f"k{n}", "fox " * (n % 3 + 1) + "hound " * (n % 2)) for n in range(7)]
        below: list[tuple[Names, str, str]] = [(("b",), f"k{n}", "hound hen") for n in range(5)]
        part = namespaced.namespace("a")
        for n in range(9):
            namespaced.store(f"other {n}", "fox fox")
            namespaced.namespace("z").store(f"other {n}", "hound")
        for names, key, value in own + below:
            part.namespace(*names).store(key, value)
        for nested in (False, True):
            entries = own + below if nested else own
            model = Model(matching.language)
            for moment, (names, key, value) in enumerate(own + below):
                if (names, key, value) in entries:
                    full = full_key(names, key)
                    model.entries[full] = Entry(full, value, None, moment, matching.language)
            for query in ("fox hound", "hen fox", "fox -hound", "+fox hound", "hound"):
                expected = model.ask(query, limit=50)
                found = without_times(part.search(query, limit=50, nested=nested))
                for entry in found["results"]:
                    entry["key"] = full_key(entry.pop("namespace", ()), entry["key"])
                assert_same(found, expected)

    def test_an_offset_skips_entries_of_the_namespace_alone(self, namespaced: LTMBackend) -> None:
        for number in range(6):
            namespaced.namespace("a").store(f"k{number}", "fox")
            namespaced.namespace("a", "b").store(f"k{number}", "fox")
            namespaced.store(f"k{number}", "fox")
        for query in (None, "fox"):
            pages = [keys_of(find(namespaced.namespace("a"), query, limit=2, offset=n)) for n in (0, 2, 4, 6)]
            assert pages == [["k5", "k4"], ["k3", "k2"], ["k1", "k0"], []]

    # --- batches, transactions and versions --------------------------------------------------------

    def test_batches_of_a_namespace_have_its_keys(self, namespaced: LTMBackend, transactional: LTMBackend) -> None:
        part = transactional.namespace("a")
        stored = part.store_many([{"key": "k", "value": 1}, {"key": "x", "value": 2}])
        results = [{"key": key, "created": True, "version": 1} for key in "kx"]
        assert_same(stored, {"success": True, "stored_count": 2, "results": results})
        namespaced.store("k", "of the whole memory")
        entry = {"value": 1, "metadata": None, "version": 1}
        expected = {"success": True, "entries": {"k": entry, "z": None}, "found_count": 1, "missing_count": 1}
        assert_same(part.retrieve_many(["k", "z"]), expected)
        assert_same(part.delete_many(["k", "z"]), {"success": True, "deleted_count": 1})
        assert namespaced.list_keys()["keys"] == ["@a.x", "k"]

    def test_a_transaction_of_a_namespace_has_its_keys(self, namespaced: LTMBackend, transactional: LTMBackend) -> None:
        namespaced.store("x", "stays")
        part = transactional.namespace("a")
        part.store("x", 1)
        transaction = part.transaction()
        assert_success(transaction.store("k", 1))
        assert_success(transaction.delete("x"))
        results = [_stored("k", 1), {"success": True, "deleted": True, "key": "x"}]
        assert_same(transaction.commit(), {"success": True, "operations": 2, "results": results})
        assert namespaced.list_keys()["keys"] == ["@a.k", "x"]

    def test_a_conflict_names_the_key_in_the_namespace(
        self, namespaced: LTMBackend, versioned: LTMBackend, transactional: LTMBackend
    ) -> None:
        part = versioned.namespace("users", "ada")
        part.store("k", 1)
        assert_conflict(part.store("k", 2, if_version=0), "k", 1)
        assert_conflict(part.delete("k", if_version=7), "k", 1)
        assert_conflict(part.store("x", 2, if_version=3), "x", 0)
        transaction = transactional.namespace("users", "ada").transaction()
        transaction.store("x", 1)
        transaction.store("k", 1, if_version=5)
        assert_conflict(transaction.commit(), "k", 1)
        assert_conflict(namespaced.store("@users/ada.k", 2, if_version=0), "@users/ada.k", 1)
        assert part.list_keys()["keys"] == ["k"]

    def test_versions_are_those_of_the_namespace(self, namespaced: LTMBackend, versioned: LTMBackend) -> None:
        for _ in range(3):
            namespaced.store("k", 1)
        part = versioned.namespace("a")
        assert_same(part.store("k", 1, if_version=0), _stored("k", 1))
        assert_same(part.store("k", 1, if_version=1), _stored("k", 2))
        assert namespaced.retrieve("k")["version"] == 3

    # --- lifetimes and the end ---------------------------------------------------------------------

    def test_cleanup_of_a_namespace_is_that_of_the_whole_memory(
        self, namespaced: LTMBackend, expiring: LTMBackend
    ) -> None:
        for names in ((), ("a",), ("b",)):
            expiring.namespace(*names).store("k", 1, ttl=SOON)
        wait_until_expired(namespaced.namespace("b"), SOON, "k")
        wait_until_expired(namespaced, SOON, "k")
        assert_same(
            namespaced.namespace("a").cleanup_expired(2), {"success": True, "deleted_count": 2, "remaining_count": 1}
        )
        assert_same(namespaced.cleanup_expired(), {"success": True, "deleted_count": 1, "remaining_count": 0})

    def test_an_expired_entry_is_in_no_namespace(self, namespaced: LTMBackend, expiring: LTMBackend) -> None:
        part = expiring.namespace("a")
        part.store("k", "fox", ttl=SOON)
        wait_until_expired(part, SOON, "k")
        for memory in (part, namespaced):
            for name, read in NESTED.items():
                assert read(memory) == [], name
            assert memory.count(nested=True)["count"] == 0
        assert namespaced.list_namespaces()["namespaces"] == []

    def test_closing_a_namespace_closes_nothing(self, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("a")
        part.store("k", 1)
        for _ in range(2):
            part.close()
        with namespaced.namespace("a", "b") as below:
            assert_success(below.store("k", 2))
        assert part.retrieve("k")["value"] == 1
        assert namespaced.namespace("a", "b").retrieve("k")["value"] == 2
        assert_success(namespaced.store("k", 3))

    def test_closing_the_memory_closes_its_namespaces(self, namespaced: LTMBackend) -> None:
        part = namespaced.namespace("a")
        namespaced.close()
        for result in (part.store("k", 1), part.retrieve("k"), part.search(), part.list_namespaces(), part.count()):
            assert_failure(result, "connection_error")
        assert_failure(namespaced.namespace("b").store("k", 1), "connection_error")

    def test_backends_on_one_store_have_the_same_namespaces(self, namespaced: LTMBackend, reopen: OpenBackend) -> None:
        namespaced.namespace("a", "b").store("k", 1)
        with reopen() as other:
            assert other.namespace("a", "b").retrieve("k")["value"] == 1
            assert other.list_namespaces()["namespaces"] == [("a", "b")]


def fill(memory: LTMBackend, contents: Contents) -> None:
    """Store entries that all searches of ``READS`` find, each through its namespace."""
    for names, key in contents:
        value = contents[names, key] = ["red fox", [*names], key]
        assert_success(memory.namespace(*names).store(key, value, {"n": 1}))


def assert_only_own_entries(memory: LTMBackend, contents: Contents) -> None:
    """Check for each namespace, those above, and the whole memory, that every read returns exactly its entries."""
    places = {names[:depth] for names, _ in contents for depth in range(1, len(names) + 1)}
    for names in sorted(places | {("a",), ("a", "b"), ("no entries",)}):
        part = memory.namespace(*names)
        own = sorted(key for other, key in contents if other == names)
        below = sorted((full_key(*place), place) for place in contents if place[0][: len(names)] == names)
        nested = [(place[0][len(names) :], place[1]) for _, place in below]
        assert_reads(part, own, nested, names)
        for key in own:
            assert part.retrieve(key)["value"] == contents[names, key], (names, key)
        found = assert_success(part.retrieve_many([*own, "of nobody"]))
        assert (found["found_count"], found["missing_count"]) == (len(own), 1), names
        there = dict.fromkeys(place[0] for place in nested if place[0])
        assert part.list_namespaces(limit=10_000)["namespaces"] == [*there], names
    full_keys = sorted((full_key(*place), place) for place in contents)
    assert_reads(memory, [key for key, _ in full_keys], [place for _, place in full_keys], ())


def assert_reads(memory: LTMBackend, own: list[str], nested: list[tuple[Names, str]], names: Names) -> None:
    """Check what every way to read a memory returns: its own keys, and the places of all entries below it."""
    has_times = "times" in memory.capabilities
    reads = READS | (READS_OF_TIMES if has_times else {})
    assert differences({name: read(memory) for name, read in reads.items()}, dict.fromkeys(reads, own)) == {}, names
    below = NESTED | (NESTED_OF_TIMES if has_times else {})
    found = {name: sorted(read(memory)) for name, read in below.items()}
    assert differences(found, dict.fromkeys(below, sorted(nested))) == {}, names
    in_order = ("iterate_all", "iterate_entries", "entries", "entries page by page")
    assert {name: below[name](memory) == nested for name in in_order if name in below} == dict.fromkeys(
        [name for name in in_order if name in below], True
    ), names
    assert_same(memory.count(), {"success": True, "count": len(own)})
    assert_same(memory.count(nested=True), {"success": True, "count": len(nested)})


def assert_raises(call: Callable[[], Any]) -> None:
    """Check that a call raises a ``validation_error``."""
    with pytest.raises(LTMError) as raised:
        call()
    assert_failure(raised.value.result, "validation_error")


def _pages_of_keys(memory: LTMBackend) -> list[str]:
    keys, after = list[str](), None
    while True:
        page = assert_success(memory.list_keys(limit=3, after=after))
        keys += page["keys"]
        after = page["next"]
        if after is None:
            return keys


def _pages_of_entries(memory: LTMBackend, order: Any, *, nested: bool = False) -> list[dict[str, Any]]:
    entries, after = list[dict[str, Any]](), None
    while True:
        page = assert_success(memory.entries(limit=4, after=after, order=order, nested=nested))
        entries += page["entries"]
        after = page["next"]
        if after is None:
            return entries


def _stored(key: str, version: int) -> dict[str, Any]:
    return {"success": True, "stored": True, "key": key, "created": version == 1, "version": version}
