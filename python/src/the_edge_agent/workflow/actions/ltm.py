"""The ``ltm.*`` actions: the long-term memory of an agent.

They return the results of the memory as plain JSON: times are ISO 8601 text in UTC, namespaces are lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from the_edge_agent.memory import NOT_GIVEN, LTMBackend, LTMError, LTMTransaction
from the_edge_agent.workflow.actions.plain import moment, plain, plain_in
from the_edge_agent.workflow.errors import nearest

Result: TypeAlias = Mapping[str, Any]

_TIMES: Final = ("created_at", "updated_at", "expires_at")
_OPERATIONS: Final = {
    "store": ("key", "value", "metadata", "ttl", "if_version", "expires_at", "index"),
    "delete": ("key", "if_version"),
}


def store(
    memory: LTMBackend,
    key: str,
    value: Any,
    metadata: dict[str, Any] | None = None,
    *,
    ttl: Any = NOT_GIVEN,
    if_version: int | None = None,
    expires_at: str | datetime | None = None,
    index: bool = True,
) -> Result:
    """Create or replace an entry, for ``ttl`` seconds or until ``expires_at``, and only over ``if_version`` if set.

    A ``ttl`` of None means that it never expires. Without ``ttl`` it has the lifetime that the memory gives. If
    ``index`` is false, its words are not searched.
    """
    expiry = _unless(None, expires_at=moment(expires_at))
    more = {**_unless(NOT_GIVEN, ttl=ttl), **_unless(True, index=index)}
    return memory.store(key, value, metadata, if_version=if_version, **expiry, **more)


def store_many(memory: LTMBackend, entries: list[dict[str, Any]]) -> Result:
    """Store entries, all or none. Each is a dict of ``key`` and ``value``, and the other arguments of ``store``.

    An entry has no ``if_version``.
    """
    return memory.store_many(_timed(entries))


def retrieve(
    memory: LTMBackend, key: str, default: Any = None, *, times: bool = False, refresh_ttl: bool = False
) -> Result:
    """Read the entry of a key, with its times if ``times``. If there is none, the value is ``default``.

    If ``refresh_ttl``, its lifetime is renewed.
    """
    return plain(memory.retrieve(key, default, **_unless(False, times=times, refresh_ttl=refresh_ttl)))


def retrieve_many(memory: LTMBackend, keys: list[str], *, times: bool = False) -> Result:
    """Read the entries of many keys, with their times if ``times``; a key without an entry has None."""
    return plain_in(memory.retrieve_many(keys, **_unless(False, times=times)), "entries")


def delete(memory: LTMBackend, key: str, *, if_version: int | None = None) -> Result:
    """Delete the entry of a key, only over ``if_version`` if set. It is no failure if there is none."""
    return memory.delete(key, **_unless(None, if_version=if_version))


def delete_many(memory: LTMBackend, keys: list[str]) -> Result:
    """Delete the entries of many keys. It is no failure if some do not exist."""
    return memory.delete_many(keys)


def delete_all(memory: LTMBackend, prefix: str, *, nested: bool = False) -> Result:
    """Delete all entries whose keys begin with ``prefix``; "" means every entry. It is not one transaction.

    If ``nested``, the entries of the namespaces below are deleted too.
    """
    return memory.delete_all(prefix, **_unless(False, nested=nested))


def search(
    memory: LTMBackend,
    query: str | None = None,
    metadata_filter: dict[str, Any] | None = None,
    limit: int = 10,
    prefix: str | None = None,
    offset: int = 0,
    match: Literal["any", "all"] | None = None,
    explain: bool = False,
    *,
    nested: bool = False,
    refresh_ttl: bool = False,
) -> Result:
    """Search by a question or words, by metadata and by a prefix of the key; best matches first.

    If ``nested``, the namespaces below are searched too. If ``refresh_ttl``, the lifetimes of the results are renewed.
    """
    more = _unless(False, nested=nested, refresh_ttl=refresh_ttl)
    if "match" in memory.capabilities:
        more |= {"match": match, "explain": explain}
    else:
        memory.check_match(match, explain=explain)
    return plain_in(memory.search(query, metadata_filter, limit, prefix=prefix, offset=offset, **more), "results")


def touch(memory: LTMBackend, key: str, ttl: float | None = None) -> Result:
    """Renew the lifetime of an entry, or give it a new one of ``ttl`` seconds."""
    return plain(memory.touch(key, ttl))


def list_keys(memory: LTMBackend, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Result:
    """List a page of the keys that begin with ``prefix``. For ``after`` pass the ``next`` of the page before."""
    return memory.list_keys(prefix, limit, after)


def entries(
    memory: LTMBackend,
    prefix: str | None = None,
    limit: int = 100,
    after: str | None = None,
    order: Literal["key", "-key", "newest"] = "key",
    *,
    nested: bool = False,
) -> Result:
    """List a page of whole entries, in an order. For ``after`` pass the ``next`` of the page before.

    If ``nested``, the entries of the namespaces below are listed too.
    """
    return plain_in(memory.entries(prefix, limit, after, order, nested=nested), "entries")


def count(memory: LTMBackend, prefix: str | None = None, *, nested: bool = False) -> Result:
    """Count the entries, or those whose keys begin with ``prefix``; if ``nested``, also in the namespaces below."""
    return memory.count(prefix, **_unless(False, nested=nested))


def measure(memory: LTMBackend, prefix: str | None = None, *, nested: bool = False) -> Result:
    """Tell how many entries there are, their bytes and times, and how many have expired."""
    return plain(memory.measure(prefix, **_unless(False, nested=nested)))


def list_namespaces(
    memory: LTMBackend,
    prefix: list[str] | None = None,
    suffix: list[str] | None = None,
    max_depth: int | None = None,
    limit: int = 100,
    offset: int = 0,
) -> Result:
    """List the namespaces that have entries, as lists of names. ``*`` in ``prefix`` or ``suffix`` is any one name."""
    return plain_in(memory.list_namespaces(prefix, suffix, max_depth, limit, offset), "namespaces")


def import_entries(
    memory: LTMBackend, entries: list[dict[str, Any]], on_conflict: Literal["fail", "skip", "replace"] = "fail"
) -> Result:
    """Store copies of entries that ``entries`` listed, with their versions and times. It is not one transaction.

    For a key that has an entry, ``fail`` fails, ``skip`` keeps that entry, and ``replace`` replaces it.
    """
    return memory.import_entries(_timed(entries), on_conflict)


def cleanup(memory: LTMBackend, batch_size: int = 100) -> Result:
    """Remove up to ``batch_size`` expired entries from the database. No action returns them any more."""
    return memory.cleanup_expired(batch_size)


def transaction(memory: LTMBackend, operations: list[dict[str, Any]]) -> Result:
    """Store and delete several entries in one transaction: all of them or none.

    Each operation is ``{"store": {...}}`` with the arguments of ``store``, or ``{"delete": {...}}`` with those of
    ``delete``. ``results`` has the result of each. If the entry of an operation has another version than its
    ``if_version``, all fail with ``conflict``.
    """
    if not isinstance(operations, list) or not operations:
        raise LTMError("validation_error", "operations must be a list of at least one store or delete")
    queue = memory.transaction()
    for place, operation in enumerate(operations):
        try:
            _queue(queue, operation)
        except LTMError as failure:
            raise failure.within(f"operations[{place}]") from None
    return queue.commit()


def _queue(queue: LTMTransaction, operation: Any) -> None:
    """Check an operation of a transaction and put it into the queue. Raises LTMError."""
    name, arguments = (
        next(iter(operation.items())) if isinstance(operation, Mapping) and len(operation) == 1 else ("", {})
    )
    accepted = _OPERATIONS.get(name)
    if accepted is None or not isinstance(arguments, Mapping):
        raise LTMError("validation_error", "an operation is {store: {key: ..., value: ...}} or {delete: {key: ...}}")
    for word in arguments:
        if word not in accepted:
            hint = nearest(str(word), accepted) or f"; it takes {', '.join(accepted)}"
            raise LTMError("validation_error", f"{name} has no argument {word!r}{hint}")
    for word in ("key", "value")[: 2 if name == "store" else 1]:
        if word not in arguments:
            raise LTMError("validation_error", f"{name} needs the argument {word!r}")
    if name == "delete":
        result = queue.delete(**arguments)
    else:
        result = queue.store(**{**arguments, **_unless(None, expires_at=moment(arguments.get("expires_at")))})
    if not result["success"]:
        raise LTMError.of({**result})


def _unless(default: Any, **arguments: Any) -> dict[str, Any]:
    """Return the arguments that differ from their default. Not every memory has all arguments."""
    return {name: value for name, value in arguments.items() if value is not default}


def _timed(entries: Any) -> Any:
    """Return entries with times in place of texts. What is no list of dicts stays as it is: the memory refuses it."""
    if not isinstance(entries, list):
        return entries
    timed = []
    for place, entry in enumerate(entries):
        try:
            texts = [name for name in _TIMES if isinstance(entry, Mapping) and entry.get(name) is not None]
            timed.append({**entry, **{name: moment(entry[name], name) for name in texts}} if texts else entry)
        except LTMError as failure:
            raise failure.within(f"entries[{place}]") from None
    return timed


LTM_ACTIONS: dict[str, Callable[..., Result]] = {
    "ltm.store": store,
    "ltm.store_many": store_many,
    "ltm.retrieve": retrieve,
    "ltm.retrieve_many": retrieve_many,
    "ltm.delete": delete,
    "ltm.delete_many": delete_many,
    "ltm.delete_all": delete_all,
    "ltm.search": search,
    "ltm.touch": touch,
    "ltm.list": list_keys,
    "ltm.entries": entries,
    "ltm.count": count,
    "ltm.measure": measure,
    "ltm.list_namespaces": list_namespaces,
    "ltm.import": import_entries,
    "ltm.transaction": transaction,
    "ltm.cleanup": cleanup,
}
