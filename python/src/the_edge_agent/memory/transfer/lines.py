"""The file format of an export: JSON Lines with a header, an entry on each line, and a closing line with a checksum."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final, Protocol

from the_edge_agent.memory.contract.backend import LTMBackend
from the_edge_agent.memory.core.results import LTMError

FORMAT: Final = "the_edge_agent.memory"
VERSION: Final = 1
FIELDS: Final = (
    *("namespace", "key", "value", "metadata", "version", "created_at", "updated_at", "expires_at", "ttl", "index"),
)
_TIMES: Final = ("created_at", "updated_at", "expires_at")
_dumps = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


class Writable(Protocol):
    """A binary stream that can be written, such as a file that was opened with ``"wb"``."""

    def write(self, data: bytes, /) -> Any:
        """Write bytes."""


def source_of(memory: LTMBackend) -> str:
    """Return the URL of a memory without its password; for a memory without a database the name of its class."""
    database = getattr(memory, "_database", None)
    return type(memory).__name__ if database is None else str(database)


def time_text(moment: datetime | None) -> str | None:
    """Return a time as ISO 8601 text in UTC, with microseconds."""
    return None if moment is None else in_utc(moment).astimezone(timezone.utc).isoformat(timespec="microseconds")


def in_utc(moment: datetime) -> datetime:
    """Return a time with its time zone; one without a time zone means UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


def json_line(fields: Mapping[str, Any]) -> bytes:
    """Return one line of a file: compact JSON in ASCII, and a line break."""
    return _dumps(fields).encode("ascii") + b"\n"


def entry_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry as its line has them: in one order, with times as text."""
    fields = {name: entry.get(name) for name in FIELDS}
    fields["namespace"] = [*entry.get("namespace", ())]
    for name in _TIMES:
        fields[name] = time_text(fields[name])
    return fields


def header(memory: LTMBackend, **more: Any) -> bytes:
    """Return the first line of a file.

    Args:
        memory: the memory that is written to the file.
        more: further fields.
    """
    return json_line(
        {
            "format": FORMAT,
            "version": VERSION,
            "source": source_of(memory),
            "exported_at": time_text(datetime.now(timezone.utc)),
            "namespace": [*memory.namespace_names],
            "language": memory.language,
            **more,
        }
    )


class LineWriter:
    """Writes lines to a stream, and counts them.

    Attributes:
        entries: how many entries were written.
    """

    def __init__(self, file: Writable) -> None:
        """Write to this binary stream."""
        self._file, self._digest = file, hashlib.sha256()
        self.entries = 0

    def head(self, line: bytes) -> None:
        """Write the first line, which the checksum leaves out."""
        self._file.write(line)

    def entry(self, entry: Mapping[str, Any], **more: Any) -> None:
        """Write the line of an entry."""
        self.line({**entry_fields(entry), **more})
        self.entries += 1

    def line(self, fields: Mapping[str, Any]) -> None:
        """Write another line that the checksum counts."""
        line = json_line(fields)
        self._digest.update(line)
        self._file.write(line)

    def close(self, **more: Any) -> dict[str, Any]:
        """Write the last line, and return its fields."""
        last = {"entries": self.entries, "sha256": self._digest.hexdigest(), **more}
        self._file.write(json_line(last))
        return last


class LineReader:
    """Reads the lines of a file, and checks its header, its checksum and the number of its entries.

    Attributes:
        header: the fields of the first line.
        last: the fields of the last line, once everything was read.
        number: the number of the line that was read last; the first line is 1.
        size: how many bytes that line has.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Read the first line.

        Raises:
            LTMError: ``validation_error`` if it is not the header of a file that this release can read.
        """
        self._lines = iter(lines)
        self.number, self.size = 0, 0
        self.last: dict[str, Any] = {}
        self.header = self._checked(next(self._lines, b""))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the fields of each line between the first and the last one.

        Raises:
            LTMError: ``validation_error`` if the file is cut off, or was changed.
        """
        digest, entries = hashlib.sha256(), 0
        for line in self._lines:
            self.number, self.size = self.number + 1, len(line)
            if not line.endswith(b"\n"):
                break
            fields = read_object(line, self.number)
            if "sha256" in fields:
                self._check_last(fields, digest.hexdigest(), entries)
                return
            digest.update(line)
            entries += "value" in fields
            yield fields
        raise LTMError(
            "validation_error",
            f"the file is cut off after line {self.number:,}: its last line, with the checksum, is missing",
        )

    def _checked(self, line: bytes) -> dict[str, Any]:
        self.number, self.size = 1, len(line)
        if not line:
            raise LTMError("validation_error", "the file is empty")
        try:
            fields = read_object(line, 1)
        except LTMError:
            fields = {}
        if fields.get("format") != FORMAT:
            raise LTMError(
                "validation_error",
                f"the file is no export of a memory: its first line does not name the format {FORMAT}",
            )
        if fields.get("version") != VERSION:
            raise LTMError(
                "validation_error",
                f"the file has version {fields.get('version')!r:.20} of the format; this release reads version "
                f"{VERSION}",
            )
        return fields

    def _check_last(self, last: dict[str, Any], digest: str, entries: int) -> None:
        if last.get("sha256") != digest or last.get("entries") != entries:
            raise LTMError(
                "validation_error",
                f"the file was changed or damaged: its last line has another checksum or number of entries than the "
                f"{entries:,} entries before it",
            )
        if any(line.strip() for line in self._lines):
            raise LTMError("validation_error", "the file has lines after its last line, the one with the checksum")
        self.last = last


def read_object(line: bytes, number: int) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        LTMError: ``validation_error`` that names the line, and shows nothing of it.
    """
    try:
        fields = _decode(line.decode("utf-8"))
        if isinstance(fields, dict):
            return fields
        problem = "is no JSON object"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError:
        problem = "is no JSON"
    raise LTMError("validation_error", f"line {number:,} {problem}")


def read_entry(fields: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the entry of a line, as ``import_entries`` takes it.

    Raises:
        LTMError: ``validation_error`` that names the line.
    """
    entry = dict(fields)
    try:
        for name in _TIMES:
            if entry.get(name) is not None:
                entry[name] = datetime.fromisoformat(entry[name])
    except (TypeError, ValueError):
        raise LTMError("validation_error", f"line {number:,} has no time in ISO 8601 as {name}") from None
    return entry


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_decode: Callable[[str], Any] = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode
