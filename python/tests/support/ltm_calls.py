"""The arguments of the state machine: few of each kind, so that calls concern the same entries, and some bad ones."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final, TypeAlias

import hypothesis.strategies as st

BadCall: TypeAlias = tuple[str, str, tuple[Any, ...], dict[str, Any]]
"""The expected ``error_type``, the method, its positional arguments, and its keyword arguments."""

NAN: Final = float("nan")
CURRENT: Final = "current"  # stands for the if_version that the entry has at the time of the call

# Few keys, so that calls concern the same entries. They are similar, so that a database that confuses them is noticed.
KEYS: Final = ("a", "A", "a ", "á", "a/", "a/b", "😀", "ﬁ")
# Similar namespaces, among them "a/b" and "a", "b", and keys of none that lie between theirs.
NAMESPACES: Final[tuple[tuple[str, ...], ...]] = ((), ("a",), ("a", "b"), ("a/b",), ("a.b",), ("A",))
FULL_KEYS: Final = ("@a.a", "@a/b.a", "@a//b.c", "@a.", "@a%2eb.a")
PAST: Final = datetime(2001, 2, 3, 4, 5, 6, 789_012, tzinfo=timezone.utc)
FUTURE: Final = datetime(2099, 12, 31, 23, 59, 59, 987_654, tzinfo=timezone.utc)
PREFIXES: Final = ("", "a", "A", "a ", "a/", "á", "😀", "ﬁ", "b", "a/b/c", "%", "_", "a\u0301")
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, 1, 1.0, -0.0, 2**70, "1", "red fox", "Red hound, red fox", "日本語", "fox\0"),
    *([], {}, {"b": "fox", "a": [1]}, {"a": [1], "b": "fox"}, [{"深い": ["hound"] * 3}]),
)
METADATA: Final[tuple[Any, ...]] = (
    *(None, {}, {"n": 1}, {"n": 1.0}, {"n": True}, {"n": "1"}, {"n": None}, {"n": -0.0}, {"n": 2**63 - 1}),
    *({"s": "fox", "n": 2}, {"n": 2, "s": "fox"}, {"s": "Fox "}, {"o": {"k": [1, 2]}}, {"o": {}}, {"a.b": [], "": 0}),
)
QUERIES: Final = (
    *("", "fox", "red fox", '"red fox"', "fo*", "-fox", "red -hound", "日本", "深", "a", "1", "ﬁ", "fi"),
    *("😀", "!!!", "NOT red", "A -1"),
)
FILTERS: Final[tuple[Any, ...]] = (
    *({}, {"n": 1}, {"n": True}, {"n": "1"}, {"n": None}, {"n": {"$gt": 0}}, {"n": {"$in": [1, "1"]}}),
    *({"s": "fox"}, {"s": {"$gte": "G"}}, {"s": {"$ne": "fox"}}, {"s": {"$exists": False}}, {"o": {"k": [1, 2]}}),
    *({"o": {}}, {"a.b": []}, {"$or": [{"n": 2}, {"$not": {"n": {"$lte": 1}}}]}, {"$and": []}, {"$or": []}),
)
BAD_CALLS: Final[tuple[BadCall, ...]] = (
    ("validation_error", "store", ("", 1), {}),
    ("validation_error", "store", ("a\0", 1), {}),
    ("validation_error", "store", ("a" * 513, 1), {}),
    ("validation_error", "store", ("a", 1, {"n": 2**63}), {}),
    ("validation_error", "store", ("a", 1), {"ttl": 0}),
    ("validation_error", "store", ("a", 1), {"ttl": True}),
    ("validation_error", "store", ("a", 1), {"ttl": "60"}),
    ("validation_error", "store", ("a", 1), {"ttl": NAN}),
    ("validation_error", "store", ("a", 1), {"if_version": -1}),
    ("validation_error", "store", ("a", 1), {"if_version": 1.0}),
    ("serialization_error", "store", ("a", [NAN]), {}),
    ("serialization_error", "store", ("a", (1, 2)), {}),
    ("validation_error", "retrieve", (1,), {}),
    ("validation_error", "delete", ("\ud800",), {}),
    ("validation_error", "search", (), {"limit": 0}),
    ("validation_error", "search", (), {"offset": -1}),
    ("validation_error", "search", (), {"metadata_filter": {"n": {"$near": 1}}}),
    ("validation_error", "store_many", ("a",), {}),
    ("validation_error", "store_many", ([{"key": "a", "value": 1}, {"key": "A"}],), {}),
    ("validation_error", "store_many", ([{"key": "a", "value": 1, "if_version": 0}],), {}),
    ("serialization_error", "store_many", ([{"key": "a", "value": 1}, {"key": "A", "value": NAN}],), {}),
    ("validation_error", "retrieve_many", (["a", ""],), {}),
    ("validation_error", "delete_many", (["a", None],), {}),
    ("validation_error", "delete_many", ({"a": 1},), {}),
    ("validation_error", "list_keys", (), {"limit": 10_001}),
    ("validation_error", "list_keys", (), {"after": 1}),
    ("validation_error", "count", ("\0",), {}),
    ("validation_error", "cleanup_expired", (0,), {}),
    ("validation_error", "iterate_all", (1,), {}),
    ("validation_error", "store", ("a", 1), {"index": 1}),
    ("validation_error", "store", ("a", 1), {"ttl": 60, "expires_at": FUTURE}),
    ("validation_error", "retrieve", ("a",), {"times": 1}),
    ("validation_error", "retrieve", ("a",), {"refresh_ttl": None}),
    ("validation_error", "delete", ("a",), {"if_version": -1}),
    ("validation_error", "delete_all", (None,), {}),
    ("validation_error", "delete_all", ("a",), {"nested": True}),
    ("validation_error", "touch", ("",), {}),
    ("validation_error", "touch", ("a", 0), {}),
    ("validation_error", "search", (), {"prefix": "a", "nested": True}),
    ("validation_error", "count", ("a",), {"nested": True}),
    ("validation_error", "count", (), {"nested": 1}),
    ("validation_error", "entries", (), {"order": "oldest"}),
    ("validation_error", "entries", (), {"order": "newest", "after": "a"}),
    ("validation_error", "entries", (), {"limit": 0}),
    ("validation_error", "iterate_entries", ("a",), {"nested": True}),
    ("validation_error", "import_entries", ([], "ignore"), {}),
    ("validation_error", "import_entries", ("a",), {}),
    ("validation_error", "namespace", ("a", ""), {}),
    ("validation_error", "namespace", ("n" * 510,), {}),
    ("validation_error", "list_namespaces", ("a",), {}),
    ("validation_error", "list_namespaces", (), {"suffix": ("",)}),
    ("validation_error", "list_namespaces", (), {"max_depth": 0}),
    ("validation_error", "list_namespaces", (), {"offset": -1}),
)
EVERY_METHOD: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    *(("store", ("a", 1)), ("delete", ("a",)), ("retrieve", ("a",)), ("search", ()), ("iterate_all", ())),
    *(("store_many", ([{"key": "a", "value": 1}],)), ("retrieve_many", (["a"],)), ("delete_many", (["a"],))),
    *(("list_keys", ()), ("count", ()), ("cleanup_expired", ()), ("transaction", ()), ("touch", ("a",))),
    *(("entries", ()), ("iterate_entries", ()), ("list_namespaces", ())),
)

_scalars = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False, allow_infinity=False))
_generated = st.recursive(
    _scalars | st.text(max_size=5),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.text(max_size=2), below, max_size=2),
    max_leaves=4,
)
_plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)

keys = st.sampled_from(KEYS)
namespaces = st.sampled_from(NAMESPACES) | st.just(())
full_keys = st.sampled_from(FULL_KEYS)
orders = st.sampled_from(("key", "-key", "newest"))
nested = st.sampled_from((False, False, True))
prefixes = st.none() | st.sampled_from(PREFIXES)
afters = st.none() | st.sampled_from(("", "a/a", *KEYS))
offsets = st.sampled_from((0, 0, 0, 1, 2, 5))
limits = st.sampled_from((1, 2, 3, 10, 10_000))
searches = st.fixed_dictionaries(
    {"limit": limits, "offset": offsets},
    optional={
        "query": st.sampled_from(QUERIES),
        "metadata_filter": st.sampled_from(FILTERS),
        "prefix": prefixes,
        "match": st.sampled_from(("any", "all")),
    },
)
values = st.sampled_from(VALUES) | st.sampled_from(VALUES) | _generated
metadatas = (
    st.sampled_from(METADATA) | st.sampled_from(METADATA) | st.dictionaries(_plain, _scalars | _plain, max_size=2)
)
ttls = st.sampled_from((None, 3600, 3600.5))
if_versions = st.sampled_from((None, None, None, CURRENT, CURRENT, 0, 1, 2))
_stores = st.tuples(
    st.just("store"),
    st.fixed_dictionaries(
        {"key": keys | full_keys, "value": values, "metadata": metadatas, "ttl": ttls, "if_version": if_versions},
        optional={"index": st.booleans()},
    ),
)
_deletes = st.tuples(st.just("delete"), st.fixed_dictionaries({"key": keys, "if_version": if_versions}))
operations = _stores | _stores | _deletes
endings = st.sampled_from(("commit", "commit", "commit", "roll back", "be refused and roll back"))
entries = st.lists(
    st.fixed_dictionaries(
        {"key": keys, "value": values, "ttl": ttls}, optional={"metadata": metadatas, "index": st.booleans()}
    ),
    max_size=8,
)
_times = st.sampled_from([PAST + timedelta(days=days) for days in (0, 0, 1, 2)] + [FUTURE])
copies = st.lists(
    st.fixed_dictionaries(
        {"key": keys, "value": values, "expires_at": st.sampled_from((FUTURE, FUTURE, PAST))},
        optional={
            "metadata": metadatas,
            "version": st.sampled_from((1, 2, 3, 2**31, 2**63 - 100)),
            "created_at": _times,
            "updated_at": _times,
            "ttl": st.sampled_from((None, 3600.0, 7200.25)),
            "index": st.booleans(),
            "namespace": st.sampled_from(((), ("b",), ["b"], ("c", "."))),
        },
    ),
    max_size=6,
)
ways = st.sampled_from(("fail", "skip", "replace"))
touches = st.tuples(keys, st.sampled_from((None, None, 3600, 36_000.5)))
_conditions = st.none() | st.lists(st.sampled_from(("a", "b", "*", "a/b", "A")), max_size=2).map(tuple)
listings = st.fixed_dictionaries(
    {"prefix": _conditions, "suffix": _conditions, "max_depth": st.sampled_from((None, None, 1, 2)), "limit": limits},
    optional={"offset": offsets},
)
