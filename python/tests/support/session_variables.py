"""Checks whether answers depend on a session variable of MySQL or MariaDB, by setting each to its other values.

``PYTHONPATH=src:tests/support python tests/support/session_variables.py URL [NAME ...]`` checks all variables or the
named ones, first on an engine of ours and then on a caller's. It prints the values with which a call fails or gives
another answer, and its exit code is 1 if there are any. A caller's engine may also be refused, if the message names the
variable. The URL must name a database that nobody else uses, and its user must be allowed to set every variable. A run
with all variables takes about 20 minutes for each server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from databases import drop_tables
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, SQLAlchemyCatalog

_OF_MARIADB: Final = """
SELECT lower(variable_name), session_value, variable_type, enum_value_list, numeric_min_value, numeric_max_value
FROM information_schema.system_variables WHERE session_value IS NOT NULL AND read_only = 'NO' ORDER BY 1"""
_OF_MYSQL: Final = """
SELECT known.variable_name, present.variable_value, known.data_type, NULL, known.min_value, known.max_value
FROM performance_schema.variables_metadata AS known
LEFT JOIN performance_schema.session_variables AS present USING (variable_name)
WHERE known.variable_scope LIKE '%SESSION%' ORDER BY 1"""
_MODES_OF_MYSQL: Final = (
    "ALLOW_INVALID_DATES,ANSI,ANSI_QUOTES,ERROR_FOR_DIVISION_BY_ZERO,HIGH_NOT_PRECEDENCE,IGNORE_SPACE,"
    "NO_AUTO_VALUE_ON_ZERO,NO_BACKSLASH_ESCAPES,NO_DIR_IN_CREATE,NO_ENGINE_SUBSTITUTION,NO_UNSIGNED_SUBTRACTION,"
    "NO_ZERO_DATE,NO_ZERO_IN_DATE,ONLY_FULL_GROUP_BY,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT,REAL_AS_FLOAT,"
    "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,TIME_TRUNCATE_FRACTIONAL,TRADITIONAL"
)
_TEXTS: Final = {
    "time_zone": ["+09:00", "-12:00"],
    "storage_engine": ["Aria", "MyISAM", "MEMORY"],
    "character_set": ["latin1", "utf8mb3", "ascii", "binary", "cp932", "ucs2"],
    "collation": ["latin1_swedish_ci", "utf8mb3_general_ci", "utf8mb4_general_ci", "utf8mb4_bin", "utf8mb4_unicode_ci"],
    "default_collation_for": ["utf8mb4_general_ci"],
    "lc_": ["de_DE", "ja_JP", "tr_TR"],
    "asof": ["2000-01-01 00:00:00", "all"],
}
_NUMBERS: Final = ("0", "2")
_ODD: Final = (
    *("", "\\", "a\\", "it's", '"', "%", "a_b", " a", "a ", "😀", "日本", "é", "e\u0301", "E", "a"),
    *("\u0000", "x" * 70_000),
)
_NUMBERS_STORED: Final = (0, -0.0, 0.1, 1e22, 1e-7, 5e-324, 2**53 + 1, 2**63 - 1, -(2**63), 1.5, 100)
_KEYS: Final = (
    *("a", "A", "á", "a ", "a\\", "a'b", 'a"b', "%", "_", "😀", "\uffff", "日本"),
    *("😀" * 511 + "b", "😀" * 511 + "a"),
)
_FILTERS: Final[tuple[Any, ...]] = (
    *({"n": value} for value in (1, 1.0, True, None, "1", 2**53 + 1, 0.1)),
    *({"n": {name: value}} for name, value in (("$gt", 1), ("$lte", 1.5), ("$ne", 1), ("$gte", 2**53), ("$lt", -0.5))),
    *({"n": {name: [1, "é"]}} for name in ("$in", "$nin")),
    {"n": {"$exists": False}},
    *({"s": value} for value in _ODD[:-2]),
    *({"s": {name: value}} for name, value in (("$gt", "a"), ("$lt", "😀"), ("$gte", ""))),
    *({"o": {"p": 1}}, {"o": {}}, {"o": {"$eq": {"p": 1}}}, {"l": [1, "x"]}, {"l": []}),
    *({name: 1} for name in ("a.b", 'a"b', "a'b", "a\\b", "-a", "é", "")),
    *({"$or": [{"n": 1}, {"s": "é"}]}, {"$and": [{"n": {"$gte": 0}}, {"$not": {"n": 0.1}}]}, {"$not": {"s": "é"}}),
)
_QUERIES: Final = (
    *("fox", "fox hound", '"red fox"', "fo*", "fox -hound", "+fox +red", "the", "-fox", "foxes"),
    *("日本", "本", "😀", "user@x.com", "a_b", "!!!", "É"),
)


def other_values(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield the session variables of a server, each with SQL literals of the other values that it accepts."""
    is_mariadb = connection.dialect.is_mariadb  # type: ignore[attr-defined]
    variables = connection.execute(text(_OF_MARIADB if is_mariadb else _OF_MYSQL)).all()
    for name, present, kind, listed, least, most in variables:
        for literal in dict.fromkeys(_literals(name, present or "", kind.lower(), listed, (least, most))):
            try:
                connection.exec_driver_sql(f"SET SESSION {name} = {literal.replace('%', '%%')}")
            except DBAPIError:
                continue
            finally:
                connection.invalidate()  # so that the next value is tried in a new session
                connection.rollback()
            yield name, literal


def _literals(name: str, present: str, kind: str, listed: str | None, range_: Sequence[str | None]) -> list[str]:
    if name == "sql_mode":
        modes = [*(listed or _MODES_OF_MYSQL).split(","), ""]
        without = [",".join(mode for mode in present.split(",") if mode != other) for other in present.split(",")]
        return [f"'{mode}'" for mode in [*modes, *(f"{present},{mode}" for mode in modes), *without]]
    if name == "optimizer_switch":
        switches = [switch.split("=") for switch in present.split(",")]
        return [f"'{name}={'off' if state == 'on' else 'on'}'" for name, state in switches]
    if listed is not None and kind == "boolean":
        return ["0" if present == "ON" else "1"]
    if listed is not None:
        return [f"'{value}'" for value in listed.split(",") if value != present]
    if any(part in name for part in _TEXTS):
        return [f"'{value}'" for part, values in _TEXTS.items() if part in name for value in values]
    if kind == "boolean":
        return ["0" if present == "ON" else "1"]
    if kind in ("enumeration", "set"):
        return [str(place) for place in range(8)]
    if least_and_most := [value for value in range_ if value]:
        return [value for value in [*least_and_most, *_NUMBERS] if value != present]
    return ["'x'", "''"]


def answers(memory: SQLAlchemyBackend, catalog: SQLAlchemyCatalog) -> list[Any]:
    """Return the answers of examples of all operations, without the parts that differ between runs."""
    answers: list[Any] = []

    def note(answer: Any) -> None:
        answers.append(_plain(answer))

    for number, key in enumerate(_KEYS):
        note(memory.store(key, number))
    together = [{"key": key, "value": "a fox", "metadata": {"n": 1}} for key in ("x" * 500 + "b", "x" * 500 + "a")]
    note(memory.store_many(together))
    odd = [{"key": f"odd/{number}", "value": value, "metadata": {"n": number}} for number, value in _odd()]
    note(memory.store_many(odd))
    note(memory.store_many([*odd[:3], {"key": "new", "value": "a red fox"}]))
    for number, metadata in enumerate(_metadata()):
        note(memory.store(f"m/{number:02}", {"text": _TEXT[number % len(_TEXT)]}, metadata))
    note(memory.store("a", "again", {"n": 1}, if_version=1))
    note(memory.store("a", "conflict", if_version=1))
    note(memory.store("expired", "a fox", {"n": 1}, ttl=0.000001))
    note(memory.store("lasting", "a fox", {"n": 1}, ttl=10_000))
    for key in (*_KEYS, "odd/16", "expired", "lasting", "none"):
        note(memory.retrieve(key))
    keys = [entry["key"] for entry in odd] + ["none", "expired", *_KEYS]
    note(memory.retrieve_many(keys))
    note([memory.list_keys(limit=7), memory.list_keys("m/", limit=100), memory.list_keys("😀"), memory.list_keys("A")])
    note([memory.list_keys(), memory.list_keys(after="a", limit=5), memory.count(), memory.count("m/")])
    note(list(memory.iterate_all()))
    for query in _QUERIES:
        note(memory.search(query, limit=100))
    for condition in _FILTERS:
        note([memory.search(metadata_filter=condition, limit=100), catalog.list_entries(metadata_filter=condition)])
    note(memory.search("fox", {"n": {"$gte": 0}}, prefix="m/", offset=1, limit=3))
    _note_transactions(memory, note)
    _note_catalog(catalog, note)
    note([memory.delete("a"), memory.delete("a"), memory.delete_many(["A", "á", "none"]), memory.store("a", 2)])
    note([memory.cleanup_expired(), catalog.cleanup_expired(), memory.count(), memory.list_keys()])
    return answers


_TEXT: Final = ("a red fox", "the hound and the fox", "Foxes! 日本語 😀", "user@x.com wrote a_b", "É e\u0301 straße")


def _odd() -> Iterator[tuple[int, Any]]:
    yield from enumerate((*_ODD, *_NUMBERS_STORED[:2], None, True, [], {}, {"a": [{"b": "\\'"}]}))


def _metadata() -> Iterator[dict[str, Any] | None]:
    yield from (None, {}, {"o": {"p": 1, "q": 2}}, {"o": {}}, {"l": [1, "x"]}, {"l": []}, {"n": None}, {"n": True})
    yield from ({name: 1} for name in ("a.b", 'a"b', "a'b", "a\\b", "-a", "é", ""))
    yield from ({"s": value} for value in _ODD[:-2])
    yield from ({"n": number} for number in _NUMBERS_STORED)
    yield {f"many{number}": number for number in range(20)}


def _note_transactions(memory: SQLAlchemyBackend, note: Callable[[Any], None]) -> None:
    transaction = memory.transaction()
    transaction.store("t/1", 1)
    transaction.store("t/2", "a fox", {"n": 1})
    transaction.delete("new")
    note(transaction.commit())
    refused = memory.transaction()
    refused.store("t/3", 1)
    refused.store("t/1", 2, if_version=7)
    note([refused.commit(), memory.list_keys("t/"), memory.retrieve("t/1")])


def _note_catalog(catalog: SQLAlchemyCatalog, note: Callable[[Any], None]) -> None:
    past, future = datetime.now(timezone.utc) - timedelta(days=1), datetime(9999, 12, 31, 23, 59, tzinfo=timezone.utc)
    before = catalog.create_snapshot("before é😀")
    batch = [
        {
            "key": f"c/{n}",
            "content_hash": f"sha256:{n}",
            "storage_uri": "s3://b/é",
            "byte_size": n,
            "metadata": {"n": n},
        }
        for n in range(12)
    ]
    note(catalog.store_batch(batch))
    note(catalog.store_batch([{**batch[0], "content_hash": "other"}, {"key": ""}], atomic=False))
    note(catalog.track_entry("c/past", "sha256:p", None, 1, {"n": 1}, inlined_value="é😀\\", expires_at=past))
    note(catalog.track_entry("c/future", "sha256:f", None, None, None, inlined_value={"a": 1.0}, expires_at=future))
    note([catalog.get_entry("c/past"), catalog.get_entry("c/future"), catalog.delete_entry("m/00")])
    note(_sorted(catalog.get_changed_entries(before)))
    note(_sorted(catalog.get_deleted_entries(before)))
    note(catalog.retrieve_batch(["c/1", "c/past", "none", "a"]))
    note([catalog.list_entries("c/"), catalog.list_entries(metadata_filter={"n": {"$gte": 5}}, prefix="c/", limit=3)])
    after = catalog.create_snapshot("after")
    note([catalog.get_snapshot(after), catalog.list_snapshots(), _sorted(catalog.get_changed_entries(after))])
    note([catalog.delete_snapshot(before), catalog.delete_snapshot(before)])


def _sorted(entries: list[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: str(entry.get("key") if isinstance(entry, dict) else entry))


def _plain(answer: Any, name: str = "") -> Any:
    """Return an answer in which times are replaced by how far they are from now, and random ids by a text."""
    match answer:
        case dict():
            return {key: _plain(value, str(key)) for key, value in answer.items()}
        case list() | tuple():
            return [_plain(value) for value in answer]
        case datetime() if name in ("created_at", "updated_at", "expires_at"):
            away = abs((answer - datetime.now(timezone.utc)).total_seconds())
            return (
                answer.tzinfo is timezone.utc,
                next((s for s in (60, 12_000, 90_000) if away < s), answer.isoformat()),
            )
        case str() if len(answer) == 36 and answer.count("-") == 4:
            return "an identifier"
        case str() if name in ("created_at", "updated_at", "expires_at"):
            return _plain(datetime.fromisoformat(answer), name)
    return (type(answer).__name__, repr(answer))


def tried(url: str, statement: str | None = None, *, is_ours: bool) -> list[Any] | str:
    """Return the answers of all operations in sessions that begin with a statement; if one fails, its message."""
    options = {"init_command": statement} if statement else {}
    engine = None if is_ours else callers_engine(url, statement)
    source: dict[str, Any] = {"engine": engine} if engine else {"url": url, "connect_args": options}
    try:
        with SQLAlchemyCatalog(**source) as catalog, SQLAlchemyBackend(**source, catalog=catalog) as memory:
            return answers(memory, catalog)
    except LTMError as error:
        return f"{error.error_type}: {error}"
    except Exception as error:  # what no caller should meet
        return f"{type(error).__name__}: {error}"
    finally:
        if engine is not None:
            engine.dispose()


def callers_engine(url: Any, statement: str | None = None) -> Engine:
    """Return an engine whose connections run a statement when they are opened, after SQLAlchemy's own statements."""
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def run(driver_connection: Any, record: Any) -> None:
        if statement:
            cursor = driver_connection.cursor()
            cursor.execute(statement)
            cursor.close()

    return engine


def first_difference(expected: Any, actual: Any) -> str:
    """Return a line with the first answers that differ."""
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = zip(expected, actual, strict=True)
        return next((first_difference(one, other) for one, other in pairs if one != other), "none")
    if isinstance(expected, dict) and isinstance(actual, dict) and expected.keys() == actual.keys():
        return next(f"{k}: {first_difference(expected[k], actual[k])}" for k in expected if expected[k] != actual[k])
    return f"{str(expected)[:200]} became {str(actual)[:200]}"


def main(url: str, *names: str) -> int:
    """Print the values of variables that change an answer, and return the exit code."""
    admin: Engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        values = [pair for pair in other_values(connection) if not names or pair[0] in names]
    differences = 0
    for is_ours, (name, literal) in product((True, False), [("", ""), *values]):
        drop_tables(admin)
        actual = tried(url, f"SET SESSION {name} = {literal}" if name else None, is_ours=is_ours)
        if not name:
            expected = actual
        elif actual != expected and not _is_refused(actual, name, is_ours=is_ours):
            differences += 1
            difference = first_difference(expected, actual)
            print("our engine" if is_ours else "a caller's", f"{name} = {literal}", difference, sep=" | ", flush=True)
    print(f"{len(values)} values of {len({name for name, _ in values})} variables: {differences} differences")
    return 1 if differences or isinstance(expected, str) else 0


def _is_refused(actual: list[Any] | str, name: str, *, is_ours: bool) -> bool:
    return not is_ours and isinstance(actual, str) and actual.startswith("configuration_error") and name in actual


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
