"""The rules of iterate_all and of prefixes: order, completeness, and no error while others write."""

from __future__ import annotations

from typing import Final

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.testing.contract import ContractBase, assert_success, find, keys_of, load, text_of
from the_edge_agent.testing.exactness import HOSTILE_TEXTS
from the_edge_agent.testing.slow import slow

LAST: Final = "\U0010ffff"
TREE: Final = (
    *("a", "a/", "a/b", "a/b/c", "a/bc", "a0", "ab", "A", "A/b", "b", "á", "a\u0301", "a ", "a  b", "aa", "a%", "a%b"),
    *(
        "a_",
        "a_b",
        "axb",
        "a*",
        "a*b",
        "a[b]",
        "a\\",
        "a\\b",
        "a'",
        'a"',
        "%",
        "%%",
        "_",
        "__",
        "*",
        "\\",
        "\\\\",
        "'",
        "''",
    ),
    *("\ud7ff", "\ud7ffa", "\ud7ff\ud7ff", "\ue000", "\ue000a", "\uffff", "\uffffa", "\U00010000", "\U00010000a"),
    *(
        LAST,
        LAST + "a",
        LAST * 2,
        LAST * 2 + "a",
        "a" + LAST,
        "a" + LAST + "a",
        "a" + LAST * 2,
        "a\ud7ff",
        "a\ud7ffa",
        "a\ue000",
    ),
    *(
        "\x01",
        "\x01a",
        "\t",
        "\n",
        "\x7f",
        "\x80",
        "日本",
        "日本語",
        "日",
        "\U0001f600",
        "\U0001f600a",
        "k" * 511,
        "k" * 512,
    ),
)
PREFIXES: Final = (
    *(
        "",
        "a",
        "A",
        "á",
        "a\u0301",
        "a ",
        "a/",
        "a/b",
        "a/b/",
        "a%",
        "%",
        "a_",
        "_",
        "a*",
        "*",
        "a[",
        "a[a-z]",
        "a\\",
        "\\",
        "'",
    ),
    *(
        '"',
        "a'",
        "\ud7ff",
        "a\ud7ff",
        "\ue000",
        "\uffff",
        "\U00010000",
        LAST,
        LAST * 2,
        LAST * 3,
        "a" + LAST,
        "a" + LAST * 2,
    ),
    *(
        "\x01",
        "\x7f",
        "日",
        "日本語",
        "\U0001f600",
        "k" * 511,
        "k" * 512,
        "nothing",
        "' OR '1'='1",
        "a" * 512,
        LAST * 512,
    ),
)


class IterationRules(ContractBase):
    """Reading all entries, or those whose key begins with a prefix."""

    def test_iterate_all_yields_key_value_and_metadata(self, backend: LTMBackend) -> None:
        backend.store("b", {"x": 1.0}, {"n": 1})
        backend.store("a", None)
        assert [text_of(item) for item in backend.iterate_all()] == ['["a", null, null]', '["b", {"x": 1.0}, {"n": 1}]']
        assert all(type(item) is tuple for item in backend.iterate_all())

    def test_iterate_all_is_in_the_order_of_code_points(self, backend: LTMBackend) -> None:
        keys = {*HOSTILE_TEXTS.values(), *TREE}
        load(backend, [(key, key, None) for key in keys])
        assert [key for key, _, _ in backend.iterate_all()] == sorted(keys)
        assert all(key == value for key, value, _ in backend.iterate_all())

    def test_a_prefix_selects_exactly_the_keys_that_begin_with_it(self, backend: LTMBackend) -> None:
        load(backend, [(key, "fox", {"n": 1}) for key in TREE])
        for prefix in PREFIXES:
            expected = sorted(key for key in TREE if key.startswith(prefix))
            assert [key for key, _, _ in backend.iterate_all(prefix)] == expected, ascii(prefix)
            for query, condition in ((None, None), ("fox", None), (None, {"n": 1}), ("fox", {"n": 1})):
                result = find(backend, query, condition, limit=1000, prefix=prefix)
                assert sorted(keys_of(result)) == expected, (ascii(prefix), query, condition)

    def test_no_prefix_selects_all(self, backend: LTMBackend) -> None:
        load(backend, [(key, 1, None) for key in TREE])
        assert len(list(backend.iterate_all(None))) == len(list(backend.iterate_all())) == len(TREE)
        assert find(backend, prefix=None, limit=1000)["count"] == len(TREE)

    @slow
    def test_iterate_all_yields_all_of_many_entries(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:05}", number, None) for number in range(2100)])
        assert [value for _, value, _ in backend.iterate_all()] == [*range(2100)]
        assert [value for _, value, _ in backend.iterate_all("k01")] == [*range(1000, 2000)]

    @slow
    def test_iterate_all_yields_all_of_large_entries(self, backend: LTMBackend) -> None:
        sizes = [1, 10, 300_000, 1, 900_000, 1, 1, 1] * 3
        load(backend, [(f"k{place:02}", "x" * size, None) for place, size in enumerate(sizes)])
        assert [len(value) for _, value, _ in backend.iterate_all()] == sizes

    def test_writing_while_iterating_works(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:03}", number, None) for number in range(100)])
        for key, value, _ in backend.iterate_all():
            assert_success(backend.store(key, [value], {"seen": True}))
        assert [value for _, value, _ in backend.iterate_all()] == [[number] for number in range(100)]

    def test_deleting_while_iterating_works(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:03}", number, None) for number in range(100)])
        yielded = []
        for key, value, _ in backend.iterate_all():
            yielded.append(value)
            assert backend.delete(key)["deleted"] is True
        assert yielded == [*range(100)]
        assert list(backend.iterate_all()) == []

    def test_what_stays_is_seen_once_while_others_come_and_go(self, backend: LTMBackend) -> None:
        stays = [f"k{number:03}" for number in range(0, 200, 2)]
        load(backend, [(key, "stays", None) for key in stays])
        load(backend, [(f"k{number:03}x", "goes", None) for number in range(0, 200, 2)])
        yielded = []
        for place, (key, _, _) in enumerate(backend.iterate_all()):
            yielded.append(key)
            if place % 3 == 0:
                backend.delete(f"k{min(199, 2 * place):03}x")
                backend.store(f"k{(place * 7) % 200:03}new", "comes")
                backend.store(key, "again")
            assert len(yielded) < 1000
        assert yielded == sorted(set(yielded))
        assert [key for key in yielded if key in set(stays)] == stays

    def test_iterators_that_are_not_read_to_the_end_hold_nothing(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:03}", number, None) for number in range(100)])
        iterators = [backend.iterate_all() for _ in range(40)]
        assert [next(iterator)[0] for iterator in iterators] == ["k000"] * 40
        assert_success(backend.store("k", 1))
        assert find(backend, limit=1000)["count"] == 101
        assert [next(iterator)[0] for iterator in iterators] == ["k001"] * 40
        del iterators
        assert_success(backend.delete("k"))

    def test_several_iterators_do_not_disturb_each_other(self, backend: LTMBackend) -> None:
        load(backend, [(f"k{number:03}", number, None) for number in range(60)])
        pairs = zip(backend.iterate_all(), backend.iterate_all("k0"), backend.iterate_all(), strict=True)
        assert [[value for _, value, _ in items] for items in pairs] == [[number] * 3 for number in range(60)]

    def test_an_iterator_ends_and_stays_ended(self, backend: LTMBackend) -> None:
        backend.store("k", 1)
        for prefix in (None, "", "k", "other"):
            iterator = backend.iterate_all(prefix)
            assert len(list(iterator)) == (prefix != "other")
            assert list(iterator) == []
