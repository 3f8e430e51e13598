"""A model of the memory in Python, written from docs/memory.md and docs/search.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any, Final

from the_edge_agent.testing.differential import conditions, rules, words
from the_edge_agent.testing.differential.answers import Exact, Failure, InOrder, Lifetime, Moment, is_failure
from the_edge_agent.testing.differential.catalog_model import CatalogModel, check_filter, content_hash, in_utc
from the_edge_agent.testing.full_keys import Names, full_key, place_of

MOMENT: Final = 0.002  # seconds; an entry with a shorter lifetime has expired at the next call

_TIMES: Final = ("created_at", "updated_at", "expires_at")

Answer = Any


@dataclass(frozen=True)
class _Entry:
    """One entry.

    Attributes:
        key: the full key.
        write: the number of the store that wrote it last; or the time, if an import gave it.
        created: the number of the store that created it; or the time, if an import gave it.
        ttl: the lifetime in seconds, which ``touch`` renews.
        is_indexed: whether its words can be searched.
    """

    key: str
    value: Any
    metadata: dict[str, Any] | None
    version: int
    write: int | datetime
    created: int | datetime
    vocabulary: words.Vocabulary
    expires_at: Lifetime | datetime | None = None
    is_expired: bool = False
    ttl: float | None = None
    is_indexed: bool = True

    @cached_property
    def indexed(self) -> words.Indexed:
        """The words of the key in its namespace, and of each string and number; none if they are not indexed."""
        if not self.is_indexed:
            return self.vocabulary.indexed("", None, None)
        return self.vocabulary.indexed(place_of(self.key)[1], self.value, self.metadata)

    @property
    def age(self) -> tuple[Any, ...]:
        """A sort key: the entry that was written first comes first. Imports give times far in the past or future."""
        if isinstance(self.write, datetime):
            return (0 if self.write < datetime.now(timezone.utc) else 2), self.write
        return 1, self.write

    @property
    def expiry_order(self) -> tuple[Any, ...]:
        """A sort key: the entry that expires first comes first."""
        if isinstance(self.expires_at, Lifetime):
            return 1, self.expires_at.write, self.expires_at.seconds, self.key
        return 0, self.expires_at, self.key


class MemoryModel:
    """A memory in Python, with its catalog. Expired entries stay until they are cleaned up."""

    def __init__(self, language: str = "none") -> None:
        """Make an empty memory for a language."""
        self._vocabulary = words.Vocabulary(language)
        self._rows: dict[str, _Entry] = {}
        self._writes = 0
        self._names: Names = ()  # of the namespace of the present call
        self._done: list[tuple[str, _Entry | None]] = []  # what the present call writes: stores, and None for deletes
        self.catalog = CatalogModel(self._next_write)

    def answer(self, name: str, arguments: dict[str, Any], names: Names = ()) -> Answer:
        """Return the answer to a call on a namespace. The name of a call to the catalog begins with ``catalog.``."""
        owner, _, method = name.rpartition(".")
        self._done, self._names = [], names
        try:
            answer = getattr(self.catalog if owner else self, method)(**arguments)
        except rules.RefusedError as refused:
            return refused.failure
        self._write_ledger()
        return answer

    @property
    def has_brief(self) -> bool:
        """Whether there are entries with a lifetime of less than a second."""
        return any(_is_brief(entry) for entry in self._rows.values())

    def pass_time(self) -> None:
        """Let entries with a lifetime of less than a second expire."""
        for key, entry in self._rows.items():
            if _is_brief(entry):
                self._rows[key] = replace(entry, is_expired=True)
        self.catalog.pass_time()

    @property
    def keys(self) -> list[str]:
        """The keys of all entries, for the generator of calls."""
        return [entry.key for entry in self._rows.values() if not entry.is_expired]

    def keys_in(self, names: Names) -> list[str]:
        """Return the keys of the entries in a namespace; the full keys of all entries for the whole memory."""
        if not names:
            return self.keys
        return [key for own, key in map(place_of, self.keys) if own == names]

    def version(self, key: str, names: Names = ()) -> int:
        """Return the version of an entry, or 0 if there is none."""
        entry = self._live(full_key(names, key))
        return entry.version if entry else 0

    def texts_and_metadata(self, key: str) -> tuple[Any, dict[str, Any]]:
        """Return the value and the metadata of an existing key, for the generator of calls."""
        entry = self._rows[key]
        return entry.value, entry.metadata or {}

    def store(self, **entry: Any) -> Answer:
        """See the docs."""
        rules.check_store(entry, self._taken)
        self._check_version(entry)
        return self._put(self._next_write(), entry)

    def store_many(self, entries: list[dict[str, Any]]) -> Answer:
        """See the docs."""
        rules.check_each(entries, "entries", lambda entry: rules.check_store(entry, self._taken))
        write = self._next_write()
        stored = [self._put(write, entry) for entry in entries]
        results = [{name: each[name] for name in ("key", "created", "version")} for each in stored]
        return {"success": True, "stored_count": len(results), "results": results}

    def retrieve(self, key: str, default: Any = None, *, times: bool = False, refresh_ttl: bool = False) -> Answer:
        """See the docs."""
        self._check_key(key)
        entry = self._found(key)
        if entry is None:
            without = dict.fromkeys(_TIMES) if times else {}
            return {"success": True, "value": default, "found": False, "metadata": None, "version": None, **without}
        if refresh_ttl:
            entry = self._renew(entry, self._next_write(), None)
        return {"success": True, "found": True, **_fields(entry), **(_times(entry) if times else {})}

    def retrieve_many(self, keys: list[str], *, times: bool = False) -> Answer:
        """See the docs."""
        rules.check_each(keys, "keys", rules.check_key)
        for key in keys:
            self._check_key(key)
        entries = {key: self._found(key) for key in keys}
        missing = sum(entry is None for entry in entries.values())
        shown = {
            key: entry and {**_fields(entry), **(_times(entry) if times else {})} for key, entry in entries.items()
        }
        return {
            "success": True,
            "entries": InOrder(shown),
            "found_count": len(entries) - missing,
            "missing_count": missing,
        }

    def touch(self, key: str, ttl: float | None = None) -> Answer:
        """See the docs."""
        self._check_key(key)
        rules.check_ttl(ttl)
        entry = self._found(key)
        if entry is not None:
            entry = self._renew(entry, self._next_write(), ttl)
        return {"success": True, "key": key, "found": entry is not None, "expires_at": entry and entry.expires_at}

    def delete(self, key: str, *, if_version: int | None = None) -> Answer:
        """See the docs."""
        self._check_key(key)
        rules.check_if_version(if_version)
        self._check_version({"key": key, "if_version": if_version})
        return {"success": True, "deleted": self._remove(self._full(key)), "key": key}

    def delete_many(self, keys: list[str]) -> Answer:
        """See the docs."""
        rules.check_each(keys, "keys", rules.check_key)
        for key in keys:
            self._check_key(key)
        return {"success": True, "deleted_count": sum(self._remove(self._full(key)) for key in keys)}

    def delete_all(self, prefix: str, *, nested: bool = False) -> Answer:
        """See the docs."""
        entries = [*self._in_range(prefix, nested)]
        return {"success": True, "deleted_count": sum(self._remove(entry.key) for entry in entries)}

    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Answer:
        """See the docs."""
        rules.check_part_of_key(prefix, self._taken)
        rules.check_limit(limit)
        rules.check_part_of_key(after, self._taken)
        keys = [self._shown_key(entry) for entry in self._in_range(prefix)]
        keys = [key for key in keys if key > (after or "")]
        return {"success": True, "keys": keys[:limit], "next": keys[limit - 1] if len(keys) > limit else None}

    def entries(
        self, prefix: str | None = None, limit: int = 100, after: str | None = None, order: str = "key"
    ) -> Answer:
        """See the docs. The order is that of the keys, or its reverse."""
        rules.check_part_of_key(prefix, self._taken)
        rules.check_limit(limit)
        rules.check_part_of_key(after, self._taken)
        entries = [*self._in_range(prefix)]
        if order == "key":
            entries = [entry for entry in entries if self._shown_key(entry) > (after or "")]
        else:
            entries = [entry for entry in reversed(entries) if not after or self._shown_key(entry) < after]
        following = self._shown_key(entries[limit - 1]) if len(entries) > limit else None
        return {"success": True, "entries": [self._whole(entry) for entry in entries[:limit]], "next": following}

    def pages(self, prefix: str | None = None, limit: int = 100, order: str = "key", *, nested: bool = False) -> Answer:
        """Return the entries of all pages of ``entries``."""
        rules.check_limit(limit)
        entries = [*self._in_range(prefix, nested)]
        if order == "-key":
            entries.reverse()
        elif order == "newest":
            entries = _newest_first(entries)
        whole = [self._whole(entry, nested) for entry in entries]
        return [whole[start : start + limit] for start in range(0, max(1, len(whole)), limit)]

    def count(self, prefix: str | None = None, *, nested: bool = False) -> Answer:
        """See the docs."""
        return {"success": True, "count": sum(1 for _ in self._in_range(prefix, nested))}

    def iterate_all(self, prefix: str | None = None, *, nested: bool = False) -> Answer:
        """See the docs."""
        items = []
        for entry in self._in_range(prefix, nested):
            place = self._place(entry, nested)
            items.append([place.pop("key"), Exact(entry.value), Exact(entry.metadata), *place.values()])
        return items

    def iterate_entries(self, prefix: str | None = None, *, nested: bool = False) -> Answer:
        """See the docs."""
        return [self._whole(entry, nested) for entry in self._in_range(prefix, nested)]

    def list_namespaces(
        self,
        prefix: Names | None = None,
        suffix: Names | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Answer:
        """See the docs."""
        rules.check_limit(limit)
        rules.check_offset(offset)
        if not all((*(prefix or ()), *(suffix or ()))) or (max_depth is not None and max_depth < 1):
            raise rules.refuse()
        found: dict[Names, None] = {}
        for entry in self._in_range(None, True):
            names = self._place(entry, True)["namespace"]
            if names and _begin(prefix or (), names) and _begin((suffix or ())[::-1], names[::-1]):
                found[names[:max_depth]] = None
        namespaces = [*found][offset : offset + limit]
        return {"success": True, "namespaces": namespaces, "count": len(namespaces)}

    def import_entries(self, entries: list[dict[str, Any]], on_conflict: str = "fail") -> Answer:
        """See the docs. All entries are of one batch, and no more than one has a conflict if ``fail``."""
        counts = {"imported_count": 0, "skipped_count": 0, "replaced_count": 0}
        if on_conflict not in ("fail", "skip", "replace"):
            raise rules.refuse()
        places = [(*self._names, *entry.get("namespace", ())) for entry in entries]
        for number, (entry, names) in enumerate(zip(entries, places, strict=True)):
            try:
                rules.check_import(entry, _taken_by(names))
            except rules.RefusedError as refused:
                failure = Failure(refused.failure.error_type, counts, f"entries[{number}]: ")
                raise rules.RefusedError(failure) from None
        write, before, keys = self._next_write(), dict(self._rows), set[str]()
        for entry, names in zip(entries, places, strict=True):
            key = full_key(names, entry["key"])
            # With ``fail`` a key that comes twice is a conflict, also if its first entry has expired. Else it begins
            # another transaction, with another time.
            there = self._rows[key] if key in keys and on_conflict == "fail" else self._live(key)
            if key in keys and on_conflict != "fail":
                write, keys = self._next_write(), set()
            keys.add(key)
            if there is not None and on_conflict == "fail":
                self._rows, self._done = before, []
                shown = entry["key"] if names == self._names else key
                nothing = dict.fromkeys(counts, 0)
                raise rules.RefusedError(Failure("conflict", {"key": shown, "version": there.version, **nothing}))
            if there is None or on_conflict == "replace":
                self._put_copy(write, key, entry)
            outcome = "imported" if there is None else "skipped" if on_conflict == "skip" else "replaced"
            counts[f"{outcome}_count"] += 1
        return {"success": True, **counts}

    def search(
        self,
        query: str | None = None,
        metadata_filter: Any = None,
        limit: int = 10,
        *,
        match: Any = "any",
        prefix: str | None = None,
        offset: int = 0,
        explain: Any = False,
        nested: bool = False,
        refresh_ttl: bool = False,
    ) -> Answer:
        """See the docs."""
        if match not in ("any", "all") or not isinstance(explain, bool):
            raise rules.refuse()
        if query is not None and (len(query) > 100_000 or not conditions.is_json(query)):
            raise rules.refuse()
        try:
            question = self._vocabulary.parse(query, match)
        except words.TooManyWordsError:
            raise rules.refuse() from None
        check_filter(metadata_filter)
        rules.check_limit(limit)
        rules.check_offset(offset)
        newest = _newest_first(self._in_range(prefix, nested))
        matching = [
            entry
            for entry in newest
            if conditions.holds(metadata_filter, entry.metadata) and _satisfies(entry, question)
        ]
        ranked = _ranked(matching, newest, question, max(1_000, offset + limit))[offset : offset + limit]
        write = self._next_write()
        results = []
        for entry, score, told in ranked:
            found = self._renew(entry, write, None) if refresh_ttl else entry
            more = {"explain": told} if explain else {}
            results.append({**self._place(entry, nested), **_fields(entry), "score": score, **_times(found), **more})
        return {"success": True, "results": results, "count": len(results)}

    def cleanup_expired(self, batch_size: int = 100) -> Answer:
        """See the docs."""
        rules.check_limit(batch_size)
        expired = sorted((row for row in self._rows.values() if row.is_expired), key=lambda row: row.expiry_order)
        for entry in expired[:batch_size]:
            del self._rows[entry.key]
            if entry.key in self.catalog.rows and self.catalog.rows[entry.key].is_expired:
                del self.catalog.rows[entry.key]
        deleted = min(batch_size, len(expired))
        return {"success": True, "deleted_count": deleted, "remaining_count": len(expired) - deleted}

    def transaction(self, calls: list[tuple[str, dict[str, Any]]], end: str) -> Answer:
        """Return the answers to the calls in a transaction, to its end, and to one more call after its end."""
        answers: list[Answer] = []
        for name, arguments in calls:
            try:
                if name == "store":
                    rules.check_store(arguments, self._taken)
                else:
                    self._check_key(arguments["key"])
                answers.append({"success": True, "queued": True})
            except rules.RefusedError as refused:
                answers.append(refused.failure)
        queued = [call for call, answer in zip(calls, answers, strict=True) if not is_failure(answer)]
        discarded = {"success": True, "discarded": len(queued)}
        if end == "raise":
            answers.append(None)
        elif end == "rollback":
            answers.append(discarded)
        elif len(queued) < len(calls):
            answers += [Failure(rules.INVALID)] if end == "with" else [Failure(rules.INVALID), discarded]
        else:
            result = self._commit(queued)
            answers.append(None if end == "with" and not is_failure(result) else result)
        return [*answers, Failure(rules.INVALID)]

    def sync_catalog(self) -> Answer:
        """See the docs."""
        write = self._next_write()
        tracked = 0
        for entry in self._in_order():
            expected = _ledger_of(entry)
            row = self.catalog.rows.get(entry.key)
            has = row and not row.is_expired and (*row.facts, row.byte_size)
            if has != (
                expected["content_hash"],
                json.dumps(expected["metadata"], sort_keys=True),
                expected["expires_at"],
                expected["byte_size"],
            ):
                self.catalog.put(write, expected)
                tracked += 1
        extra = [row.key for row in self.catalog.live() if self._live(row.key) is None]
        for key in extra:
            self.catalog.forget(key)
        return {"success": True, "tracked_count": tracked, "deleted_count": len(extra)}

    def after_close(self) -> Answer:
        """Return the answers of a closed memory."""
        return [Failure("connection_error")] * 3

    def _commit(self, queued: list[tuple[str, dict[str, Any]]]) -> Answer:
        rows, write = dict(self._rows), self._next_write()
        results: list[Answer] = []
        try:
            for name, arguments in queued:
                self._check_version(arguments)
                if name == "store":
                    results.append(self._put(write, arguments))
                else:
                    key = arguments["key"]
                    results.append({"success": True, "deleted": self._remove(self._full(key)), "key": key})
        except rules.RefusedError as refused:
            self._rows, self._done = rows, []
            return refused.failure
        return {"success": True, "operations": len(results), "results": results}

    def _check_version(self, entry: dict[str, Any]) -> None:
        version = self.version(entry["key"], self._names)
        if entry.get("if_version") not in (None, version):
            raise rules.RefusedError(Failure("conflict", {"key": entry["key"], "version": version}))

    def _put(self, write: int, entry: dict[str, Any]) -> dict[str, Any]:
        key, ttl = self._full(entry["key"]), entry.get("ttl")
        before = self._live(key)
        version, created = (before.version + 1, before.created) if before else (1, write)
        end = in_utc(entry.get("expires_at")) if ttl is None else Lifetime(write, ttl)
        is_over = isinstance(end, datetime) and end < datetime.now(timezone.utc)
        self._rows[key] = _Entry(
            key, entry["value"], entry.get("metadata"), version, write, created, self._vocabulary, end, is_over,
            _seconds(ttl), entry.get("index", True),
        )  # fmt: skip
        self._done.append((key, self._rows[key]))
        return {"success": True, "stored": True, "key": entry["key"], "created": version == 1, "version": version}

    def _put_copy(self, write: int, key: str, entry: dict[str, Any]) -> None:
        end, created, updated = (in_utc(entry.get(name)) for name in ("expires_at", "created_at", "updated_at"))
        is_over = end is not None and end < datetime.now(timezone.utc)
        self._rows[key] = _Entry(
            key, entry["value"], entry.get("metadata"), entry.get("version", 1), updated or write, created or write,
            self._vocabulary, end, is_over, _seconds(entry.get("ttl")), entry.get("index", True),
        )  # fmt: skip
        self._done.append((key, self._rows[key]))

    def _renew(self, entry: _Entry, write: int, ttl: float | None) -> _Entry:
        """Renew the lifetime of an entry, if it has one or gets one; return the entry as it is then."""
        seconds = entry.ttl if ttl is None else _seconds(ttl)
        if seconds is None:
            return entry
        renewed = replace(entry, ttl=seconds, expires_at=Lifetime(write, seconds))
        self._rows[entry.key] = renewed
        self.catalog.put(write, _ledger_of(renewed))
        return renewed

    def _remove(self, key: str) -> bool:
        self._done.append((key, None))
        if self._live(key) is None:
            return False
        del self._rows[key]
        return True

    def _write_ledger(self) -> None:
        """Write the effect of a call into the catalog: the keys that it deletes, and the last store of each key."""
        for key, entry in self._done:
            if entry is None:
                self.catalog.forget(key)
        for entry in dict(self._done).values():
            if entry is not None:
                write = entry.write if isinstance(entry.write, int) else self._writes
                self.catalog.put(write, _ledger_of(entry))

    def _live(self, key: str) -> _Entry | None:
        entry = self._rows.get(key)
        return None if entry is None or entry.is_expired else entry

    def _found(self, key: str) -> _Entry | None:
        """Return the entry with a key of the present namespace; None if there is none."""
        return self._live(self._full(key))

    def _in_order(self) -> Iterator[_Entry]:
        return (self._rows[key] for key in sorted(self.keys))

    def _in_range(self, prefix: str | None, nested: bool = False) -> Iterator[_Entry]:
        """Check the arguments; return the entries of the present namespace, in the order of their full keys."""
        rules.check_part_of_key(prefix, self._taken)
        rules.check_nested(prefix, nested)
        depth = len(self._names)

        def belongs(key: str) -> bool:
            names, own = place_of(key)
            if not depth:
                return key.startswith(prefix or "")
            return names[:depth] == self._names if nested else names == self._names and own.startswith(prefix or "")

        return (entry for entry in self._in_order() if belongs(entry.key))

    @property
    def _taken(self) -> int:
        """How many characters of a full key the present namespace takes."""
        return _taken_by(self._names)

    def _check_key(self, key: str) -> None:
        rules.check_key(key, self._taken)

    def _full(self, key: str) -> str:
        return full_key(self._names, key)

    def _shown_key(self, entry: _Entry) -> str:
        return place_of(entry.key)[1] if self._names else entry.key

    def _place(self, entry: _Entry, nested: bool) -> dict[str, Any]:
        """Return the key of a result, and with ``nested`` its namespace."""
        if not nested:
            return {"key": self._shown_key(entry)}
        names, key = place_of(entry.key)
        return {"key": key, "namespace": names[len(self._names) :]}

    def _whole(self, entry: _Entry, nested: bool = False) -> dict[str, Any]:
        more = {"ttl": entry.ttl, "index": entry.is_indexed}
        return {**self._place(entry, nested), **_fields(entry), **_times(entry), **more}

    def _next_write(self) -> int:
        self._writes += 1
        return self._writes


def _is_brief(entry: _Entry) -> bool:
    return isinstance(entry.expires_at, Lifetime) and entry.expires_at.seconds <= MOMENT and not entry.is_expired


def _seconds(ttl: float | None) -> float | None:
    """Return a lifetime as it is kept: exact to the microsecond."""
    return None if ttl is None else timedelta(seconds=ttl) / timedelta(seconds=1)


def _taken_by(names: Names) -> int:
    return len(full_key(names, ""))


def _begin(conditions: Names, names: Names) -> bool:
    fits = (condition in ("*", name) for condition, name in zip(conditions, names, strict=False))
    return len(conditions) <= len(names) and all(fits)


def _newest_first(entries: Iterable[_Entry]) -> list[_Entry]:
    """Return entries newest first; those of one time in the order of their keys."""
    return sorted(sorted(entries, key=lambda entry: entry.key, reverse=True), key=lambda entry: entry.age)[::-1]


def _moment(write: int | datetime) -> Moment | datetime:
    return write if isinstance(write, datetime) else Moment(write)


def _times(entry: _Entry) -> dict[str, Any]:
    return dict(zip(_TIMES, (_moment(entry.created), _moment(entry.write), entry.expires_at), strict=True))


def _fields(entry: _Entry) -> dict[str, Any]:
    return {"value": Exact(entry.value), "metadata": Exact(entry.metadata), "version": entry.version}


def _satisfies(entry: _Entry, question: words.Question | None) -> bool:
    """Return whether an entry has everything that must occur, and nothing that must not occur."""
    if question is None:
        return True
    return all((part.count(entry.indexed) > 0) != part.is_negated for part in question.conditions)


def _ranked(
    matching: list[_Entry], newest: list[_Entry], question: words.Question | None, most: int
) -> list[tuple[_Entry, float, list[dict[str, Any]]]]:
    """Return entries with their scores and explanations, best first.

    Args:
        matching: the entries that satisfy the prefix, the filter and the conditions of the query, newest first.
        newest: all entries with the prefix, newest first.
        question: the parsed query. It may have no words and no conditions; then nothing matches it.
        most: the number N of docs/search.md.
    """
    if question is None:
        return [(entry, 0.0, []) for entry in matching]
    if question.telling:
        sample = newest[:1_000]
        having = [sum(part.count(entry.indexed) > 0 for entry in sample) for part in question.telling]
        rarities = [words.rarity(len(sample), count) for count in having]
        matching = _candidates(matching, question.telling, most)
    else:
        rarities = [1.0 for part in question.conditions if not part.is_negated]
        matching = (matching if question.conditions else [])[:most]
    scored = [(entry, *words.score(question, rarities, entry.indexed)) for entry in matching]
    return sorted(scored, key=lambda each: -each[1])


def _candidates(matching: list[_Entry], telling: Sequence[words.Term], most: int) -> list[_Entry]:
    """Return the candidates, which are found by each word and by all words together; see docs/search.md."""
    keys: set[str] = set()
    for parts in (*([part] for part in telling), telling):
        having = [entry for entry in matching if all(part.count(entry.indexed) for part in parts)]
        if len(having) > most:
            having = [entry for entry in matching[: 4 * most] if all(part.count(entry.indexed) for part in parts)]
        keys |= {entry.key for entry in having}
    return [entry for entry in matching if entry.key in keys]


def _ledger_of(entry: _Entry) -> dict[str, Any]:
    """Return the catalog's entry for an entry of the memory."""
    written = json.dumps(entry.value, ensure_ascii=False, separators=(",", ":"))
    return {
        "key": entry.key,
        "content_hash": content_hash(entry.value),
        "storage_uri": None,
        "byte_size": len(written.encode()),
        "metadata": entry.metadata,
        "expires_at": entry.expires_at,
    }
