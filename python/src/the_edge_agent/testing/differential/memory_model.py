"""A model of the memory in Python, written from docs/memory.md and docs/search.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, Final

from the_edge_agent.testing.differential import conditions, rules, words
from the_edge_agent.testing.differential.answers import Exact, Failure, InOrder, Lifetime, Moment, is_failure
from the_edge_agent.testing.differential.catalog_model import CatalogModel, check_filter, content_hash, in_utc

MOMENT: Final = 0.002  # seconds; an entry with a shorter lifetime has expired at the next call

Answer = Any


@dataclass(frozen=True)
class _Entry:
    """One entry.

    Attributes:
        write: the number of the store that wrote it last.
        created: the number of the store that created it.
    """

    key: str
    value: Any
    metadata: dict[str, Any] | None
    version: int
    write: int
    created: int
    vocabulary: words.Vocabulary
    expires_at: Lifetime | datetime | None = None
    is_expired: bool = False

    @cached_property
    def indexed(self) -> words.Indexed:
        """The words of the key and of each string and number."""
        return self.vocabulary.indexed(self.key, self.value, self.metadata)

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
        self._done: list[tuple[str, _Entry | None]] = []  # what the present call writes: stores, and None for deletes
        self.catalog = CatalogModel(self._next_write)

    def answer(self, name: str, arguments: dict[str, Any]) -> Answer:
        """Return the answer to a call. The name of a call to the catalog begins with ``catalog.``."""
        owner, _, method = name.rpartition(".")
        self._done = []
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

    def version(self, key: str) -> int:
        """Return the version of an entry, or 0 if there is none."""
        entry = self._live(key)
        return entry.version if entry else 0

    def texts_and_metadata(self, key: str) -> tuple[Any, dict[str, Any]]:
        """Return the value and the metadata of an existing key, for the generator of calls."""
        entry = self._rows[key]
        return entry.value, entry.metadata or {}

    def store(self, **entry: Any) -> Answer:
        """See the docs."""
        rules.check_store(entry)
        self._check_version(entry)
        return self._put(self._next_write(), entry)

    def store_many(self, entries: list[dict[str, Any]]) -> Answer:
        """See the docs."""
        rules.check_each(entries, "entries", rules.check_store)
        write = self._next_write()
        stored = [self._put(write, entry) for entry in entries]
        results = [{name: each[name] for name in ("key", "created", "version")} for each in stored]
        return {"success": True, "stored_count": len(results), "results": results}

    def retrieve(self, key: str, default: Any = None) -> Answer:
        """See the docs."""
        rules.check_key(key)
        entry = self._live(key)
        if entry is None:
            return {"success": True, "value": default, "found": False, "metadata": None, "version": None}
        return {"success": True, "found": True, **_fields(entry)}

    def retrieve_many(self, keys: list[str]) -> Answer:
        """See the docs."""
        rules.check_each(keys, "keys", rules.check_key)
        entries = {key: self._live(key) for key in keys}
        missing = sum(entry is None for entry in entries.values())
        return {
            "success": True,
            "entries": InOrder({key: entry and _fields(entry) for key, entry in entries.items()}),
            "found_count": len(entries) - missing,
            "missing_count": missing,
        }

    def delete(self, key: str) -> Answer:
        """See the docs."""
        rules.check_key(key)
        return {"success": True, "deleted": self._remove(key), "key": key}

    def delete_many(self, keys: list[str]) -> Answer:
        """See the docs."""
        rules.check_each(keys, "keys", rules.check_key)
        return {"success": True, "deleted_count": sum(self._remove(key) for key in keys)}

    def list_keys(self, prefix: str | None = None, limit: int = 100, after: str | None = None) -> Answer:
        """See the docs."""
        rules.check_part_of_key(prefix)
        rules.check_limit(limit)
        rules.check_part_of_key(after)
        keys = [entry.key for entry in self._in_order(prefix) if entry.key > (after or "")]
        return {"success": True, "keys": keys[:limit], "next": keys[limit - 1] if len(keys) > limit else None}

    def count(self, prefix: str | None = None) -> Answer:
        """See the docs."""
        rules.check_part_of_key(prefix)
        return {"success": True, "count": sum(1 for _ in self._in_order(prefix))}

    def iterate_all(self, prefix: str | None = None) -> Answer:
        """See the docs."""
        rules.check_part_of_key(prefix)
        return [[entry.key, Exact(entry.value), Exact(entry.metadata)] for entry in self._in_order(prefix)]

    def iterate_entries(self, prefix: str | None = None) -> Answer:
        """See the docs."""
        rules.check_part_of_key(prefix)
        return [
            {
                "key": entry.key,
                **_fields(entry),
                "created_at": Moment(entry.created),
                "updated_at": Moment(entry.write),
                "expires_at": entry.expires_at,
            }
            for entry in self._in_order(prefix)
        ]

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
        rules.check_part_of_key(prefix)
        rules.check_offset(offset)
        newest = sorted(self._in_order(prefix), key=lambda entry: -entry.write)
        matching = [
            entry
            for entry in newest
            if conditions.holds(metadata_filter, entry.metadata) and _satisfies(entry, question)
        ]
        ranked = _ranked(matching, newest, question, max(1_000, offset + limit))[offset : offset + limit]
        results = [
            {
                "key": entry.key,
                "value": Exact(entry.value),
                "metadata": Exact(entry.metadata),
                "score": score,
                **({"explain": told} if explain else {}),
            }
            for entry, score, told in ranked
        ]
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
                rules.check_store(arguments) if name == "store" else rules.check_key(arguments["key"])
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
        for entry in self._in_order(None):
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
                if name == "store":
                    self._check_version(arguments)
                    results.append(self._put(write, arguments))
                else:
                    key = arguments["key"]
                    results.append({"success": True, "deleted": self._remove(key), "key": key})
        except rules.RefusedError as refused:
            self._rows, self._done = rows, []
            return refused.failure
        return {"success": True, "operations": len(results), "results": results}

    def _check_version(self, entry: dict[str, Any]) -> None:
        version = self.version(entry["key"])
        if entry.get("if_version") not in (None, version):
            raise rules.RefusedError(Failure("conflict", {"key": entry["key"], "version": version}))

    def _put(self, write: int, entry: dict[str, Any]) -> dict[str, Any]:
        key, before, ttl = entry["key"], self._live(entry["key"]), entry.get("ttl")
        version, created = (before.version + 1, before.created) if before else (1, write)
        end = in_utc(entry.get("expires_at")) if ttl is None else Lifetime(write, ttl)
        is_over = isinstance(end, datetime) and end < datetime.now(timezone.utc)
        self._rows[key] = _Entry(
            key, entry["value"], entry.get("metadata"), version, write, created, self._vocabulary, end, is_over
        )
        self._done.append((key, self._rows[key]))
        return {"success": True, "stored": True, "key": key, "created": version == 1, "version": version}

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
                self.catalog.put(entry.write, _ledger_of(entry))

    def _live(self, key: str) -> _Entry | None:
        entry = self._rows.get(key)
        return None if entry is None or entry.is_expired else entry

    def _in_order(self, prefix: str | None) -> Iterator[_Entry]:
        return (self._rows[key] for key in sorted(self.keys) if key.startswith(prefix or ""))

    def _next_write(self) -> int:
        self._writes += 1
        return self._writes


def _is_brief(entry: _Entry) -> bool:
    return isinstance(entry.expires_at, Lifetime) and entry.expires_at.seconds <= MOMENT and not entry.is_expired


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
