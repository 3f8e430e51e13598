"""``import_langgraph`` and ``import_tea``: store what other libraries keep in tables of an SQL database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.contract.result_types import MoveResult
from the_edge_agent.memory.core.codec import UnreadableError, decode
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.transfer.arrival import Arrival, OnConflict, Progress
from the_edge_agent.memory.transfer.lines import in_utc

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table
    from sqlalchemy.sql import ColumnElement

_PAGE_ROWS: Final = 200
_MINUTE: Final = 60  # seconds
_NAMED: Final = 5  # keys that a message names
_STORE: Final = "store"
_ENTRIES: Final = ("ltm_entries", "ltm_store")  # of the public TEA's SQLAlchemy backend and of its SQLite backend
_CATALOGS: Final = ("ltm_catalog", "ltm_entries")  # of its SQLAlchemy catalog and of its SQLite catalog


def import_langgraph(
    memory: LTMBackend, url: str, *, on_conflict: OnConflict = "fail", progress: Progress | None = None
) -> MoveResult:
    """Store the items of LangGraph's store in SQLite or PostgreSQL: its table ``store``.

    The namespace is ``prefix``, whose names are separated by dots. Times and lifetimes are kept; the version is 1.
    Vectors are not read.

    Args:
        memory: as for ``import_file``.
        url: the URL of the database of the store, such as ``sqlite:///store.db``. Nothing is written there.
        on_conflict: as for ``import_file``.
        progress: as for ``import_file``.

    Returns:
        The counts, as ``import_file`` returns them.

    Raises:
        LTMError: as for ``import_file``; ``configuration_error`` if the database has no such table;
            ``connection_error`` if it cannot be read.
        ImportError: SQLAlchemy is not installed.
    """
    with _reading(url) as connection:
        store = _table(connection, (_STORE,), ("prefix", "key", "value", "created_at", "updated_at"))
        if store is None:
            raise _without("the table `store` of LangGraph")
        return Arrival(memory, on_conflict, progress).store(_items(connection, store))


def import_tea(
    memory: LTMBackend, url: str, *, on_conflict: OnConflict = "fail", progress: Progress | None = None
) -> MoveResult:
    """Store the entries of the earlier public TEA: its tables ``ltm_entries`` or ``ltm_store``, and ``ltm_catalog``.

    An entry of the catalog gives the time at which the entry of its key expires. An entry that only the catalog has is
    stored if the catalog has its value too. Times are kept; the version is 1.

    Args:
        memory: as for ``import_file``, in another database.
        url: the URL of the database of TEA. Nothing is written there.
        on_conflict: as for ``import_file``.
        progress: as for ``import_file``.

    Returns:
        The counts, as ``import_file`` returns them.

    Raises:
        LTMError: as for ``import_langgraph``. If the catalog has entries whose value is only in another storage:
            ``validation_error`` after all others were stored, with their keys in the list ``missing``.
        ImportError: SQLAlchemy is not installed.
    """
    missing: list[str] = []
    with _reading(url) as connection:
        entries = _table(connection, _ENTRIES, ("key", "value", "metadata"))
        catalog = _table(connection, _CATALOGS, ("key", "content_hash", "inlined_value", "metadata", "expires_at"))
        if entries is not None and "version" in entries.c:
            raise LTMError("configuration_error", "this is a memory of the present format; copy it: tea memory copy")
        if entries is None and catalog is None:
            raise _without("a table ltm_entries, ltm_store or ltm_catalog of TEA")
        result = Arrival(memory, on_conflict, progress).store(_of_tea(connection, entries, catalog, missing))
    if missing:
        names = ", ".join(map(repr, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        counts: dict[str, Any] = {name: count for name, count in result.items() if name != "success"}
        raise LTMError(
            "validation_error",
            f"all entries were stored but {len(missing):,} of the catalog, with values in another storage: {names}",
            missing=missing,
            **counts,
        )
    return result


def _without(what: str) -> LTMError:
    return LTMError("configuration_error", f"the database does not have {what}; check the URL")


@contextmanager
def _reading(url: str) -> Iterator[Connection]:
    """Connect to a database of another program. A file that is not there is not created."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    from the_edge_agent.memory.sql.driver.url import parse_url, with_installed_driver

    parsed, arguments = parse_url(url)
    parsed = with_installed_driver(parsed)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        parsed = parsed.set(database=f"file:{quote(parsed.database)}", query={"mode": "ro", "uri": "true"})
    engine = create_engine(parsed, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        problem = LTMError("connection_error", f"the database cannot be read: {type(error).__name__}")
    else:
        return
    finally:
        engine.dispose()
    raise problem


def _table(connection: Connection, names: Sequence[str], required: Sequence[str]) -> Table | None:
    """Return the first table that exists and has these columns. Values come as the driver returns them."""
    from sqlalchemy import Column, MetaData, Table, inspect

    inspector = inspect(connection)
    for name in names:
        columns = [each["name"] for each in inspector.get_columns(name)] if inspector.has_table(name) else []
        if set(required) <= set(columns):
            return Table(name, MetaData(), *map(Column, columns))
    return None


def _pages(
    connection: Connection, columns: Sequence[ColumnElement[Any]], keys: Sequence[ColumnElement[Any]]
) -> Iterator[Sequence[Any]]:
    """Yield the rows of a table in pages, in the order of the columns ``keys``, which together are unique."""
    from sqlalchemy import and_, or_, select

    statement = select(*keys, *columns).order_by(*keys).limit(_PAGE_ROWS)
    following = statement
    while rows := connection.execute(following).all():
        yield rows
        last = rows[-1][: len(keys)]
        after = [
            and_(*(keys[before] == last[before] for before in range(place)), keys[place] > last[place])
            for place in range(len(keys))
        ]
        following = statement.where(or_(*after))


def _items(connection: Connection, store: Table) -> Iterator[tuple[dict[str, Any], int]]:
    columns = store.c
    optional = [columns[name] for name in ("expires_at", "ttl_minutes") if name in columns]
    fields = [_text(columns["value"]), columns["created_at"], columns["updated_at"], *optional]
    for page in _pages(connection, fields, [columns["prefix"], columns["key"]]):
        for prefix, key, value, created_at, updated_at, *lifetime in page:
            place = f"the item {key!r} of {prefix!r}"
            expires_at, minutes = (*lifetime, None, None)[:2]
            entry: dict[str, Any] = {
                "namespace": tuple(prefix.split(".")) if prefix else (),
                "key": key,
                "value": _decoded(value, place),
                "created_at": _time(created_at, place),
                "updated_at": _time(updated_at, place),
                "expires_at": _time(expires_at, place),
            }
            if minutes is not None and expires_at is not None:
                entry["ttl"] = float(minutes) * _MINUTE
            yield entry, len(value)


def _of_tea(
    connection: Connection, entries: Table | None, catalog: Table | None, missing: list[str]
) -> Iterator[tuple[dict[str, Any], int]]:
    if entries is not None:
        columns = entries.c
        fields = [_text(columns["value"]), _text(columns["metadata"]), *_times(entries)]
        for page in _pages(connection, fields, [columns["key"]]):
            ends = _ends(connection, catalog, [row[0] for row in page])
            for key, value, metadata, *times in page:
                yield _entry(key, value, metadata, [*times, ends.get(key)]), len(value)
    if catalog is None:
        return
    columns = catalog.c
    fields = [_text(columns["inlined_value"]), _text(columns["metadata"]), *_times(catalog), columns["expires_at"]]
    for page in _pages(connection, fields, [columns["key"]]):
        known = _known(connection, entries, [row[0] for row in page])
        for key, value, metadata, *times in page:
            if key in known:
                continue
            if value in (None, "null"):
                missing.append(key)
            else:
                yield _entry(key, value, metadata, times), len(value)


def _entry(key: str, value: str, metadata: str | None, times: Sequence[Any]) -> dict[str, Any]:
    place = f"the entry {key!r}"
    created_at, updated_at, expires_at = (_time(moment, place) for moment in times)
    return {
        "key": key,
        "value": _decoded(value, place),
        "metadata": None if metadata is None else _decoded(metadata, place),
        "created_at": created_at,
        "updated_at": updated_at,
        "expires_at": expires_at,
    }


def _times(table: Table) -> list[Any]:
    from sqlalchemy import null

    return [table.c[name] if name in table.c else null() for name in ("created_at", "updated_at")]


def _ends(connection: Connection, catalog: Table | None, keys: Iterable[str]) -> dict[str, Any]:
    """Return when the entries of the catalog expire, by key."""
    from sqlalchemy import select

    if catalog is None:
        return {}
    rows = connection.execute(select(catalog.c.key, catalog.c.expires_at).where(catalog.c.key.in_([*keys])))
    return {row[0]: row[1] for row in rows}


def _known(connection: Connection, entries: Table | None, keys: Iterable[str]) -> set[str]:
    from sqlalchemy import select

    if entries is None:
        return set()
    return {*connection.scalars(select(entries.c.key).where(entries.c.key.in_([*keys])))}


def _text(column: Any) -> Any:
    """Return the SQL for the JSON text of a column, whose numbers are exact then."""
    from sqlalchemy import Text, cast

    return cast(column, Text)


def _decoded(text: Any, place: str) -> Any:
    try:
        return decode(text)
    except UnreadableError as error:
        problem = LTMError("validation_error", f"{place} cannot be read: {error}")
    raise problem


def _time(raw: Any, place: str) -> datetime | None:
    """Return a time from a driver: SQLite returns text. A time without a time zone means UTC."""
    try:
        moment = datetime.fromisoformat(raw) if isinstance(raw, str) else raw
        return None if moment is None else in_utc(moment)
    except (ValueError, AttributeError):
        problem = LTMError("validation_error", f"{place} has a time that cannot be read")
    raise problem
