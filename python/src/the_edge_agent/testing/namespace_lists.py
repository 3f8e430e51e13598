"""The rules of list_namespaces: which namespaces have entries, their order, and conditions on their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.bad_input import BAD_LIMITS, BAD_OFFSETS, assert_refused
from the_edge_agent.testing.contract import ContractBase, assert_same, assert_success, differences, generator
from the_edge_agent.testing.full_keys import Names, full_key, place_of
from the_edge_agent.testing.lifetimes import SOON, wait_until_expired
from the_edge_agent.testing.namespaces import NAMESPACES, ROOT_KEYS
from the_edge_agent.testing.slow import slow

TREE: Final[tuple[Names, ...]] = (
    *(("users", "ada"), ("users", "ada", "notes"), ("users", "ada", "notes", "2024"), ("users", "bob", "notes")),
    *(("users-old", "ada"), ("users", "*"), ("users.old",), ("teams", "ada", "notes"), ("teams", "ada")),
    *(("teams",), ("*",), ("notes",), ("a/b", "notes"), ("teams", "x", "ada", "notes")),
)
CONDITIONS: Final[dict[str, dict[str, Any]]] = {
    "nothing": {},
    "empty prefix": {"prefix": ()},
    "empty suffix": {"suffix": []},
    "one name": {"prefix": ("users",)},
    "a list": {"prefix": ["users"]},
    "two names": {"prefix": ("users", "ada")},
    "a whole namespace": {"prefix": ("users", "ada", "notes", "2024")},
    "more names than there are": {"prefix": ("users", "ada", "notes", "2024", "x")},
    "a part of a name": {"prefix": ("user",)},
    "any first name": {"prefix": ("*",)},
    "any first name, then one": {"prefix": ("*", "ada")},
    "one name, then any": {"prefix": ("users", "*")},
    "any, one, any": {"prefix": ("*", "ada", "*")},
    "three of any": {"prefix": ("*", "*", "*")},
    "a name with a slash": {"prefix": ("a/b",)},
    "a name that is not there": {"prefix": ("nobody",)},
    "the last name": {"suffix": ("notes",)},
    "the last two": {"suffix": ("ada", "notes")},
    "any last name": {"suffix": ("*",)},
    "one and any last": {"suffix": ("ada", "*")},
    "any and one last": {"suffix": ("*", "notes")},
    "first and last": {"prefix": ("users",), "suffix": ("notes",)},
    "first and last are the same name": {"prefix": ("notes",), "suffix": ("notes",)},
    "first and last overlap": {"prefix": ("teams", "ada"), "suffix": ("ada", "notes")},
    "one level": {"max_depth": 1},
    "two levels": {"max_depth": 2},
    "three levels": {"max_depth": 3},
    "more levels than there are": {"max_depth": 100},
    "one level with a prefix": {"prefix": ("users", "ada"), "max_depth": 1},
    "two levels with a prefix": {"prefix": ("*", "ada"), "max_depth": 2},
    "one level with a suffix": {"suffix": ("notes",), "max_depth": 1},
    "two levels with both": {"prefix": ("teams",), "suffix": ("notes",), "max_depth": 2},
}
BAD_CONDITIONS: Final[dict[str, Any]] = {
    "text": "users",
    "number": 1,
    "dict": {"users": 1},
    "empty name": ("users", ""),
    "no text": ("users", 1),
    "NUL": ("a\0",),
    "lone surrogate": ("\ud800",),
}
BAD_DEPTHS: Final[dict[str, Any]] = {"0": 0, "negative": -1, "text": "1", "float": 1.0, "true": True, "tuple": (1,)}


def expected(
    namespaces: list[Names],
    prefix: Any = None,
    suffix: Any = None,
    max_depth: int | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[Names]:
    """Return the right answer for namespaces that have entries."""
    cut: dict[Names, None] = {}
    for names in sorted(namespaces, key=lambda names: full_key(names, "k")):
        if _fit(prefix or (), names) and _fit([*(suffix or ())][::-1], names[::-1]):
            cut[names[:max_depth]] = None
    return [*cut][offset : offset + limit]


def _fit(conditions: Any, names: Names) -> bool:
    if len(conditions) > len(names):
        return False
    return all(condition in ("*", name) for condition, name in zip(conditions, names, strict=False))


def listed(namespaces: Sequence[Names]) -> dict[str, Any]:
    """Return the result of list_namespaces."""
    return {"success": True, "namespaces": [*namespaces], "count": len(namespaces)}


def fill(memory: LTMBackend, namespaces: Any, keys: Any = ("k", "x")) -> None:
    """Store some entries in each namespace."""
    for names in namespaces:
        for key in keys:
            assert_success(memory.namespace(*names).store(key, 1))


class NamespaceListRules(ContractBase):
    """Lists of the namespaces that have entries, for backends that declare ``namespaces``."""

    def test_list_namespaces_answers_with_tuples_in_the_order_of_full_keys(self, namespaced: LTMBackend) -> None:
        fill(namespaced, (("b",), ("a", "b"), ("a",), ("a-b",)))
        result = namespaced.list_namespaces()
        assert result == listed([("a-b",), ("a",), ("a", "b"), ("b",)])
        assert [type(names) for names in result["namespaces"]] == [tuple] * 4

    def test_a_namespace_without_entries_is_not_listed(self, namespaced: LTMBackend) -> None:
        fill(namespaced, [("a", "b")])
        assert namespaced.list_namespaces() == listed([("a", "b")])
        namespaced.namespace("a", "b").delete("k")
        assert namespaced.list_namespaces() == listed([("a", "b")])
        namespaced.namespace("a", "b").delete("x")
        assert namespaced.list_namespaces() == listed([])

    def test_expired_entries_do_not_count_for_a_namespace(self, namespaced: LTMBackend, expiring: LTMBackend) -> None:
        fill(namespaced, [("a",)])
        expiring.namespace("b").store("k", 1, ttl=SOON)
        wait_until_expired(namespaced.namespace("b"), SOON, "k")
        assert namespaced.list_namespaces() == listed([("a",)])

    def test_keys_of_no_namespace_are_not_listed(self, namespaced: LTMBackend) -> None:
        for key in ROOT_KEYS:
            assert_success(namespaced.store(key, 1))
        assert namespaced.list_namespaces() == listed([])
        fill(namespaced, [("a",), ("a", "b")])
        assert namespaced.list_namespaces() == listed([("a",), ("a", "b")])
        assert namespaced.namespace("a").list_namespaces() == listed([("b",)])

    def test_conditions_hold_for_all_names(self, namespaced: LTMBackend) -> None:
        fill(namespaced, TREE)
        found = {name: namespaced.list_namespaces(**conditions) for name, conditions in CONDITIONS.items()}
        right = {name: listed(expected([*TREE], **conditions)) for name, conditions in CONDITIONS.items()}
        assert differences(found, right) == {}

    def test_a_namespace_lists_those_below_it(self, namespaced: LTMBackend) -> None:
        fill(namespaced, TREE)
        for above in (("users",), ("users", "ada"), ("teams",), ("*",), ("a/b",), ("nobody",)):
            below = [names[len(above) :] for names in TREE if names[: len(above)] == above and names != above]
            part = namespaced.namespace(*above)
            found = {name: part.list_namespaces(**conditions) for name, conditions in CONDITIONS.items()}
            right = {name: listed(expected(below, **conditions)) for name, conditions in CONDITIONS.items()}
            assert differences(found, right) == {}, above

    def test_limit_and_offset_count_namespaces(self, namespaced: LTMBackend) -> None:
        fill(namespaced, TREE)
        for conditions in ({}, {"max_depth": 1}, {"prefix": ("users",)}, {"suffix": ("notes",), "max_depth": 2}):
            for limit in (1, 2, 5, 14, 10_000):
                for offset in (0, 1, 3, 13, 14, 1_000):
                    page: dict[str, Any] = {**conditions, "limit": limit, "offset": offset}
                    assert namespaced.list_namespaces(**page) == listed(expected([*TREE], **page)), page

    @slow
    def test_list_namespaces_lists_100_unless_told(self, namespaced: LTMBackend) -> None:
        names: list[Names] = [(f"n{number:03}", "x") for number in range(102)]
        fill(namespaced, names, ("k",))
        assert namespaced.list_namespaces() == listed(names[:100])
        assert namespaced.list_namespaces(limit=101) == listed(names[:101])
        assert namespaced.list_namespaces(None, None, 1, 2, 100) == listed([("n100",), ("n101",)])

    @slow
    def test_a_namespace_with_many_entries_is_listed_once(
        self, namespaced: LTMBackend, transactional: LTMBackend
    ) -> None:
        for names in (("a",), ("a", "b"), ("a", "c"), ("b",)):
            entries = [{"key": f"k{number}", "value": 1} for number in range(600)]
            assert_success(transactional.namespace(*names).store_many(entries))
        fill(namespaced, [("c",)])
        assert namespaced.list_namespaces() == listed([("a",), ("a", "b"), ("a", "c"), ("b",), ("c",)])
        assert namespaced.list_namespaces(max_depth=1) == listed([("a",), ("b",), ("c",)])

    def test_generated_conditions_list_what_fits(self, namespaced: LTMBackend) -> None:
        rng = generator(self.seed)
        namespaces = rng.sample(NAMESPACES, 20)
        while len(namespaces) < 40:
            names = tuple(
                "".join(rng.choices("ab./%*", k=rng.choice((1, 1, 2)))) for _ in range(rng.choice((1, 2, 3, 4)))
            )
            namespaces += [names] * (names not in namespaces)
        fill(namespaced, namespaces, ("k",))
        assert [place_of(key)[0] for key in namespaced.list_keys(limit=1000)["keys"]] == expected(namespaces)
        for _ in range(60):
            conditions: dict[str, Any] = {}
            for what, part in (("prefix", slice(0, 2)), ("suffix", slice(-2, None))):
                if rng.random() < 0.6:
                    wanted = rng.choice(namespaces)[part]
                    conditions[what] = tuple("*" if rng.random() < 0.4 else name for name in wanted)
            if rng.random() < 0.5:
                conditions["max_depth"] = rng.choice((1, 2, 3))
            conditions |= {"limit": rng.choice((1, 3, 100)), "offset": rng.choice((0, 0, 1, 5))}
            right = listed(expected(namespaces, **conditions))
            assert namespaced.list_namespaces(**conditions) == right, f"seed {self.seed}: {conditions}"

    def test_bad_conditions_are_refused(self, namespaced: LTMBackend) -> None:
        fill(namespaced, [("a",)])
        assert_refused(BAD_CONDITIONS, lambda names: namespaced.list_namespaces(prefix=names))
        assert_refused(BAD_CONDITIONS, lambda names: namespaced.list_namespaces(suffix=names))
        assert_refused(BAD_DEPTHS, lambda depth: namespaced.list_namespaces(max_depth=depth))
        assert_refused(BAD_LIMITS, lambda limit: namespaced.list_namespaces(limit=limit))
        assert_refused(BAD_OFFSETS, lambda offset: namespaced.list_namespaces(offset=offset))
        assert_same(namespaced.count(), {"success": True, "count": 2})
