"""Memories with ``search=False`` store no words and are otherwise unchanged; the two kinds of tables never mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import pytest
from sqlalchemy import Engine, create_engine, event, inspect, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from databases import Database, Databases, Opener, Target, drop_tables, run_sql
from run_length import in_turn, of_this_run
from the_edge_agent.memory import (
    LTMError,
    PostgresBackend,
    SQLAlchemyBackend,
    SQLiteBackend,
    check_database,
    create_ltm_backend,
    parse_backend_config,
    parse_ltm_config,
)
from the_edge_agent.memory.core import operations
from the_edge_agent.memory.core.query import parse_query
from the_edge_agent.memory.core.results import Result, ok
from the_edge_agent.memory.core.tokens import matches, search_text
from the_edge_agent.memory.database.native_tables import NativeTables
from the_edge_agent.memory.database.search_plan import best, window_of
from the_edge_agent.memory.sql.dialects.base import DialectSchema
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.testing import LTMContract
from the_edge_agent.testing.contract import OpenBackend, assert_failure, keys_of
from the_edge_agent.testing.workers import PROCESSES, run_together

pytestmark = pytest.mark.slow

everywhere = pytest.mark.targets("native", "portable")
kept = pytest.mark.targets("native", "portable", in_memory=False)
sqlalchemy_only = pytest.mark.targets("portable", native=False, in_memory=False)

TODAY: Final = in_turn(("postgresql", "mariadb"), 1)  # the servers that run the contract without words today
NO_INDEX: Final = "this memory keeps no full-text index"
WRONG_KIND: Final = {
    True: r"the table ltm_entries was made without full-text search; open it with search=False \(full_text: false\)",
    False: r"the table ltm_entries was made with full-text search; open it with search=True \(full_text: true\)",
}


@pytest.fixture(autouse=True)
def without_tables(request: pytest.FixtureRequest) -> Iterator[None]:
    """A server's database has no tables of ours before the test and after it: other tests would not open them."""
    if "target" not in request.fixturenames or request.getfixturevalue("target").in_memory:
        yield
        return
    engine = create_engine(request.getfixturevalue("database").url, poolclass=NullPool)
    drop_tables(engine)
    yield
    drop_tables(engine)


@pytest.fixture(scope="class")
def tables_made_once(target: Target, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server's database has no tables of ours before the tests of a class and after them."""
    engine = create_engine(databases.empty(target, tmp_path_factory.mktemp("empty")).url, poolclass=NullPool)
    drop_tables(engine)
    yield
    drop_tables(engine)


@pytest.fixture
def memory(database: Database) -> Iterator[Any]:
    with database.open(search=False) as memory:
        yield memory


def assert_refused(open_memory: Callable[[], Any], *, search: bool) -> None:
    """Check that a table of the other kind is refused when it is opened with this ``search``."""
    with pytest.raises(LTMError, match=WRONG_KIND[search]) as raised:
        open_memory()
    assert raised.value.error_type == "configuration_error"


# --- what is kept --------------------------------------------------------------------------------------


@kept
def test_nothing_is_kept_for_words(database: Database, memory: Any, engine: Engine) -> None:
    memory.store("k", "the red fox", {"n": 1})
    columns = {column["name"] for column in inspect(engine).get_columns("ltm_entries")}
    assert not columns & {"search_text", "search_vector"}
    assert columns >= {"key", "value", "metadata", "version", "expires_at"}
    assert [name for name in inspect(engine).get_table_names() if "fts" in name] == []
    indexes = {str(index["name"]) for index in inspect(engine).get_indexes("ltm_entries")}
    assert "ix_ltm_entries_search_vector" not in indexes
    assert ("ix_ltm_entries_metadata_json" in indexes) == (
        database.target.family == "postgresql" and not database.target.portable
    )


@everywhere
def test_no_tokens_are_made(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "search_text", lambda *_: pytest.fail("it made tokens"))
    assert memory.store("a", "the red fox", {"n": 1})["version"] == 1
    assert memory.store("a", "the red fox", if_version=1)["version"] == 2
    assert memory.store_many([{"key": "b", "value": 1}, {"key": "c", "value": 2}])["stored_count"] == 2
    with memory.transaction() as transaction:
        transaction.store("d", "fox", ttl=60)
        transaction.delete("b")
    assert memory.retrieve("d")["value"] == "fox"


@everywhere
def test_tokens_are_made_where_words_are_searched(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def tokens(key: str, *_: Any) -> str:
        made.append(key)
        return ""

    monkeypatch.setattr(operations, "search_text", tokens)
    with database.open() as memory:
        memory.store("k", "fox")
    assert "k" in made


@sqlalchemy_only
def test_the_mapped_class_has_no_search_text(memory: Any, engine: Engine) -> None:
    memory.store("k", {"a": 1.0}, {"n": 1})
    entry_class: Any = memory.entry_class
    assert not hasattr(entry_class, "search_text")
    for sessions in (memory._session_factory, partial(Session, engine)):
        with sessions() as session:
            entry = session.scalars(select(entry_class).where(entry_class.key == "k")).one()
        assert (entry.value, entry.metadata_, entry.version) == ({"a": 1.0}, {"n": 1}, 1)


@sqlalchemy_only
def test_printed_statements_make_a_memory_without_words(database: Database, engine: Engine) -> None:
    with database.open(search=False, lazy=True) as memory:
        statements = memory.ddl()
    assert not any("search_text" in statement or "fts" in statement for statement in statements)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    with database.open(search=False, create_tables=False) as memory:
        assert memory.ddl() == []
        assert memory.store("k", 1)["created"]
    assert_refused(partial(database.open, create_tables=False), search=True)


# --- what is asked -------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("query", ["fox", '"red fox"', "fo*", "-fox", "!!!", "日本"])
def test_a_query_with_something_in_it_is_refused(memory: Any, query: str) -> None:
    memory.store("k", "the red fox", {"n": 1})
    for found in (memory.search(query), memory.search(query, {"n": 1}, prefix="k", offset=1)):
        assert_failure(found, "configuration_error")
        assert NO_INDEX in found["error"]
        assert "search=True" in found["error"]


@everywhere
def test_bad_arguments_are_refused_before_words_are(memory: Any) -> None:
    for arguments in (
        {"query": 1},
        {"query": "\ud800"},
        {"query": "fox " * 300, "match": "all"},
        {"query": "fox", "metadata_filter": {"$near": 1}},
        {"query": "fox", "limit": 0},
        {"query": "fox", "offset": -1},
        {"query": "fox", "prefix": 1},
    ):
        assert_failure(memory.search(**arguments), "validation_error")
    memory.close()
    assert_failure(memory.search("fox"), "connection_error")


@everywhere
def test_without_a_query_a_search_works_as_before(memory: Any) -> None:
    for number in range(6):
        memory.store(f"k{number}", "fox", {"n": number % 2, "tags": ["a", number]})
    for query in (None, "", " \t"):
        assert keys_of(memory.search(query)) == ["k5", "k4", "k3", "k2", "k1", "k0"]
        assert keys_of(memory.search(query, {"n": 1}, 2, offset=1)) == ["k3", "k1"]
        assert keys_of(memory.search(query, {"tags": ["a", 2]}, prefix="k")) == ["k2"]
        assert keys_of(memory.search(query, {"n": {"$gte": 1}}, prefix="k3")) == ["k3"]
    assert {entry["score"] for entry in memory.search()["results"]} == {0.0}


def in_python(
    memory: Any,
    query: Any = None,
    metadata_filter: Any = None,
    limit: Any = 10,
    *,
    refresh_ttl: Any = False,
    **more: Any,
) -> Any:
    """Search; look for words in all that is there."""
    without_words: Any = type(memory).__bases__[0]
    search = partial(without_words.search, memory)
    result = search(query, metadata_filter, limit, refresh_ttl=refresh_ttl, **more)
    if NO_INDEX not in result.get("error", ""):
        return result
    terms, nested = parse_query(query).terms, more.get("nested", False)
    everything = search(None, metadata_filter, 10_000, prefix=more.get("prefix"), nested=nested)["results"]
    indexed = {place_of(entry) for entry in memory.iterate_entries(nested=nested) if entry["index"]}
    rows = [(entry, words_of(entry) if place_of(entry) in indexed else "") for entry in everything]
    first, fitting = more.get("offset", 0), [row for row in rows if matches(row[1], terms)]
    window = fitting[: window_of(terms, first, limit)]
    ranked = best(window, [row[1] for row in window], terms, first, limit)
    results = [{**entry, "score": score} for score, (entry, _) in ranked]
    for entry in results:
        if refresh_ttl and entry["expires_at"] is not None:
            names, key = place_of(entry)
            entry["expires_at"] = memory.namespace(*names).touch(key)["expires_at"]
    return ok(results=results, count=len(results))


def place_of(entry: Mapping[str, Any]) -> tuple[Any, str]:
    return entry.get("namespace", ()), entry["key"]


def words_of(entry: Mapping[str, Any]) -> str:
    return search_text(entry["key"], entry["value"], entry["metadata"])


@dataclass(frozen=True)
class OpenWithoutWords:
    """Opens a memory that keeps no words, and finds them in Python for the rules that ask for some."""

    open: Opener

    def __call__(self) -> Any:
        memory = self.open(search=False)
        memory.__class__ = type(type(memory).__name__, (type(memory),), {"search": in_python})
        return memory


class ContractWithoutWords(LTMContract):
    """Every rule, with words that are found in Python: what is left is what the memory does."""

    examples = of_this_run(10, 30)
    leaves_out_slow = True  # in the short form: tables with words show these rules
    leaves_out: ClassVar[Mapping[str, str]] = {"matching": "these tests look for words in Python, and for all of them"}

    @pytest.fixture
    def open_backend(self, database: Database) -> OpenBackend:
        return OpenWithoutWords(database.open)

    @pytest.fixture(autouse=True)
    def without_tables(self, tables_made_once: None) -> None:
        """Each test finds them empty."""


@pytest.mark.targets("native", in_memory=False, family="sqlite", **of_this_run({"native": True}, {}))
class TestContractOnSQLite(ContractWithoutWords):
    """On SQLite; through SQLAlchemy, which MariaDB tests, in the long form only."""


@pytest.mark.targets(
    "native",
    in_memory=False,
    family="postgresql" if "postgresql" in TODAY else None,
    **of_this_run({"native": True}, {}),
)
class TestContractOnPostgreSQL(ContractWithoutWords):
    """On PostgreSQL, which takes turns with MariaDB; through SQLAlchemy in the long form only."""


@pytest.mark.targets(family="mariadb" if "mariadb" in TODAY else None)
class TestContractOnMariaDB(ContractWithoutWords):
    """On MariaDB, which takes turns with PostgreSQL."""


# --- two kinds of table --------------------------------------------------------------------------------


@kept
@pytest.mark.parametrize("search", [True, False])
def test_a_table_of_the_other_kind_is_refused(database: Database, search: bool) -> None:
    with database.open(search=not search) as memory:
        memory.store("k", "fox")
    assert_refused(partial(database.open, search=search), search=search)
    with database.open(search=search, lazy=True) as lazy:
        for found in (lazy.store("k", 1), lazy.retrieve("k"), lazy.search("fox")):
            assert_failure(found, "configuration_error")
            assert "full-text search; open it with" in found["error"]
    with database.open(search=not search) as memory:
        assert memory.retrieve("k")["version"] == 1


@sqlalchemy_only
@pytest.mark.parametrize("search", [True, False])
def test_it_is_refused_whoever_makes_tables_and_engines(database: Database, engine: Engine, search: bool) -> None:
    database.open(search=not search).close()
    backend: Any = type(database.open(lazy=True))
    assert_refused(partial(database.open, search=search, create_tables=False), search=search)
    assert_refused(partial(backend, engine=engine, search=search), search=search)
    with database.open(search=search, lazy=True) as memory:
        assert_refused(memory.ddl, search=search)


@sqlalchemy_only
@pytest.mark.parametrize("search", [True, False])
def test_it_is_refused_while_other_tables_are_missing(database: Database, engine: Engine, search: bool) -> None:
    database.open(search=not search).close()
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ltm_schema_version")
        connection.exec_driver_sql("DROP TABLE ltm_snapshots")
    assert_refused(partial(database.open, search=search), search=search)
    database.open(search=not search).close()


@sqlalchemy_only
def test_the_look_at_the_kind_is_one_statement(database: Database, engine: Engine) -> None:
    database.open(search=False).close()
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    with type(database.open(lazy=True))(engine=engine, search=False):
        looks = [statement for statement in seen if "FROM ltm_entries" in statement]
    assert len(looks) == 1, seen


def native(database: Database) -> Any:
    if database.target.family == "sqlite":
        return partial(SQLiteBackend, database.url.removeprefix("sqlite:///"))
    return partial(PostgresBackend, database.url.replace("+psycopg", ""))


@pytest.mark.targets("native", native=True, in_memory=False)
@pytest.mark.parametrize("search", [True, False])
def test_the_native_classes_and_sqlalchemy_refuse_each_other_s(database: Database, search: bool) -> None:
    through_sqlalchemy, natively = partial(SQLAlchemyBackend, database.url), native(database)
    for one, other in ((through_sqlalchemy, natively), (natively, through_sqlalchemy)):
        with one(search=not search) as memory:
            memory.store("k", "fox", {"n": 1})
        assert_refused(partial(other, search=search), search=search)
        with other(search=not search) as memory:
            assert memory.retrieve("k")["value"] == "fox"
            assert keys_of(memory.search(metadata_filter={"n": 1})) == ["k"]
            assert memory.store("k", "hound")["version"] == 2
        engine = create_engine(database.url, poolclass=NullPool)
        drop_tables(engine)


def refuse_what_is_made_before(late: Any, database: Database, search: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """See a table refused that another makes just before ``late.create`` does."""
    create = late.create
    others: list[int] = []

    def create_later(creator: Any, connection: Any, *tables: Any) -> None:
        if not others:
            others.append(1)
            database.open(search=not search).close()
        create(creator, connection, *tables)

    monkeypatch.setattr(late, "create", create_later)
    assert_refused(partial(database.open, search=search), search=search)
    with database.open(search=not search) as memory:
        assert memory.store("k", "fox")["created"]
        assert memory.store("k", "hound")["version"] == 2


@sqlalchemy_only
@pytest.mark.parametrize("search", [True, False])
def test_a_table_that_another_makes_meanwhile_is_refused(
    database: Database, search: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_what_is_made_before(Schema, database, search, monkeypatch)


# On the others what has looked at the table in a transaction lets nobody make it before that has ended.
@pytest.mark.targets(family="postgresql", native=False)
@pytest.mark.parametrize("search", [True, False])
def test_a_table_that_another_makes_in_the_middle_of_the_transaction_is_refused(
    database: Database, search: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_what_is_made_before(DialectSchema, database, search, monkeypatch)


@pytest.mark.targets("native", native=True, in_memory=False)
@pytest.mark.parametrize("is_half_way", [True, False])
@pytest.mark.parametrize("search", [True, False])
def test_a_table_that_sqlalchemy_makes_meanwhile_is_refused(
    database: Database, search: bool, is_half_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = NativeTables.check_layouts
    others: list[int] = []

    def check_and_lose(*arguments: Any, **options: Any) -> None:
        check(*arguments, **options)
        if not others:
            others.append(1)
            with SQLAlchemyBackend(database.url, search=not search) as other:
                run_sql(other, *["DELETE FROM ltm_schema_version"] * is_half_way)

    monkeypatch.setattr(NativeTables, "check_layouts", check_and_lose)
    assert_refused(partial(database.open, search=search), search=search)
    with SQLAlchemyBackend(database.url, search=not search) as memory:
        assert memory.store("k", "fox")["created"]
        assert memory.store("k", "hound")["version"] == 2


def open_and_store(open_memory: Opener, search: bool, key: str) -> tuple[bool, Result]:
    try:
        with open_memory(search=search) as memory:
            return search, memory.store(key, "the red fox", {"n": 1})
    except LTMError as failure:
        return search, failure.result


@kept
def test_of_processes_that_start_at_once_those_of_one_kind_are_refused(database: Database, workers: Executor) -> None:
    starts = [(database.open, bool(number % 2), f"k{number}") for number in range(PROCESSES)]
    found = run_together(workers, open_and_store, starts)
    (kind,) = {search for search, result in found if result["success"]}
    for search, result in found:
        assert result["success"] == (search == kind), found
        assert result["success"] or "full-text search; open it with" in result["error"], found
    with database.open(search=kind) as memory:
        assert memory.count()["count"] == PROCESSES // 2
        assert memory.search("fox" if kind else None)["count"] == PROCESSES // 2


@sqlalchemy_only
def test_tables_of_both_kinds_have_room_in_one_database(database: Database) -> None:
    words, notes = partial(database.open, table_name="ltm_words"), partial(database.open, table_name="ltm_notes")
    with words() as one, notes(search=False) as other:
        one.store("k", "fox")
        other.store_many(
            {"key": key, "value": value, "metadata": metadata} for key, value, metadata in one.iterate_all()
        )
        assert keys_of(one.search("fox")) == ["k"]
        assert NO_INDEX in other.search("fox")["error"]
        assert keys_of(other.search()) == ["k"]
    with pytest.raises(LTMError, match="the table ltm_notes was made without full-text search"):
        notes()


# --- catalogs ------------------------------------------------------------------------------------------


@kept
@pytest.mark.parametrize("search", [True, False])
def test_a_catalog_goes_with_memories_of_both_kinds(database: Database, search: bool) -> None:
    with database.open_catalog() as catalog:  # the first on the database: it decides nothing
        catalog.track_entry("elsewhere", "sha256:0", None, 1, None)
    with database.open(search=search) as memory:
        memory.store("k", "fox")
        with database.open_catalog() as catalog:
            assert catalog.get_entry("elsewhere")["content_hash"] == "sha256:0"
    with database.open_catalog() as catalog, database.open(search=search, catalog=catalog) as memory:
        memory.store("k", "hound")
        assert catalog.get_entry("k")["content_hash"]
        assert memory.sync_catalog()["success"]


@kept
def test_the_ledger_is_written_in_the_same_transaction(database: Database) -> None:
    kind = database.target.family if database.target.native else "sqlalchemy"
    with database.open(search=False, catalog=kind.replace("postgresql", "postgres")) as memory:
        assert memory._ledger.is_here
        memory.store_many([{"key": "a", "value": 1}, {"key": "b", "value": 2}])
        memory.delete("a")
        assert memory.catalog.get_entry("a") is None
        assert memory.catalog.get_entry("b")["content_hash"]


# --- configuration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sqlalchemy", "SQLite", "postgres"])
@pytest.mark.parametrize("name", ["full_text", "search", "ltm_full_text"])
def test_both_names_mean_the_argument(monkeypatch: pytest.MonkeyPatch, backend: str, name: str) -> None:
    monkeypatch.setenv("WORDS", "false")
    block = {"backend": backend, "url": "sqlite://", name: "${WORDS}"}
    assert parse_backend_config(block) == (backend.lower(), {"url": "sqlite://", "search": False})


@pytest.mark.parametrize("backend", [{"backend": "sqlite"}, {"backend": "sqlalchemy", "url": "sqlite://"}])
def test_a_workflow_s_memory_can_do_without_words(backend: dict[str, str]) -> None:
    for more in ({"full_text": False}, {"search": False, "full_text": False}):
        with parse_ltm_config({"ltm": {**backend, **more}}) as memory:
            assert NO_INDEX in memory.search("fox")["error"]
    with parse_ltm_config({"ltm": {**backend, "full_text": True}}) as memory:
        assert memory.search("fox")["success"]


def test_a_backend_is_created_by_either_name() -> None:
    for more in ({"full_text": False}, {"search": False}):
        with create_ltm_backend("sqlite", **more) as memory:
            assert NO_INDEX in memory.search("fox")["error"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"full_text": False, "search": True}, "full_text and search mean the same"),
        ({"full_text": "no"}, r"settings\.ltm\.full_text must be true or false, not str"),
        ({"search": 0}, r"settings\.ltm\.search must be true or false, not 0"),
        ({"fulltext": False}, "no key 'fulltext'; did you mean 'full_text'"),
    ],
)
@pytest.mark.parametrize("backend", [{"backend": "sqlite"}, {"backend": "sqlalchemy", "url": "sqlite://"}])
def test_bad_settings_are_refused(backend: dict[str, str], more: dict[str, Any], message: str) -> None:
    with pytest.raises(LTMError, match=message) as raised:
        parse_ltm_config({"ltm": {**backend, **more}})
    assert raised.value.error_type == "configuration_error"


@pytest.mark.targets("native", "portable", in_memory=False)
def test_the_check_says_whether_words_are_kept(database: Database) -> None:
    for search in (False, True):
        database.open(search=search).close()
        report = check_database(database.url)
        assert report["success"], report
        assert (report["schema"]["state"], report["schema"]["full_text"]) == ("complete", search)
        drop_tables(create_engine(database.url, poolclass=NullPool))


def test_a_filter_of_more_conditions_than_sqlite_takes_is_decided() -> None:
    with SQLiteBackend(search=False) as backend:
        backend.store("k", "fox", {"s": "x", "n": 1})
        assert backend.search(None, {"$and": [{"s": "x"}] * 2_000})["count"] == 1
        assert backend.search(None, {"$and": [{"s": "x"}] * 2_000 + [{"n": 2}]})["count"] == 0
