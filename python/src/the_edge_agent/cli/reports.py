"""Reports for people: aligned lines, with the outcome in the last line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from the_edge_agent.cli.terminal import one_line

_LABEL = 16  # characters


def check_report(report: dict[str, Any]) -> str:
    """Return the report of ``check_database`` as lines. The last line is ``ok`` or the fault."""
    lines = [f"{label:<{_LABEL}}{text}" for label, text in _facts(report)]
    if steps := report.get("self_test"):
        lines.append("self-test")
        lines += [_step(step) for step in steps]
    if "damaged" in report:
        lines.append(
            f"{'entries read':<{_LABEL}}{report['entries_read']:,}, of which {len(report['damaged']):,} are damaged"
        )
        lines += [f"  {each['place']:<9}{each['key']!r}: {each['problem']}" for each in report["damaged"]]
    if left := report.get("left_behind"):
        lines.append(f"{'left behind':<{_LABEL}}perhaps {', '.join(left)}")
    lines.append("ok" if report["success"] else f"failed: {report['error']} ({report['error_type']})")
    return "".join(f"{one_line(line)}\n" for line in lines)


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "url" in report:
        yield "database", report["url"]
    if report.get("missing_file"):
        yield "file", "does not exist yet; the self-test uses a temporary one beside it"
    if "server" in report:
        yield "server", _named(report["server"], report["server_version"])
        yield "dialect", report["dialect"] + (" (portable SQL)" if report["is_portable"] else "")
        yield "driver", _named(report["driver"], report["driver_version"])
    if "pool" in report:
        yield "pool", _pool(report["pool"])
    if "search_path" in report:
        yield "search by", report["search_path"]
        yield "filter by", report["filter_path"]
    if "limits" in report:
        yield from _limits(report["limits"])
    if "schema" in report:
        yield "tables", _tables(report["schema"])


def _named(name: str, version: str | None) -> str:
    return f"{name} {version}" if version else name


def _pool(pool: dict[str, Any]) -> str:
    text = str(pool["class"])
    if pool["size"] is not None:
        text += f", {pool['size']} connections and up to {pool['max_overflow']} more"
        text += f", {pool['timeout_seconds']:g} s to wait for a free one"
    return f"{text}, {pool['connect_timeout_seconds']:g} s to connect"


def _limits(limits: dict[str, Any]) -> Iterator[tuple[str, str]]:
    largest = limits["entry_bytes"]
    packet = f"{largest:,} bytes as sent (packets of {limits['packet_bytes']:,})" if largest else ""
    yield "largest entry", packet or "no limit"
    yield "longest key", f"{limits['key_characters']} characters"
    yield "deadline", f"{limits['call_seconds']:g} s a call"


def _tables(schema: dict[str, Any]) -> str:
    if schema["state"] == "complete":
        without = ", without full-text search" if schema["full_text"] is False else ""
        of_words = f", words of language {schema['language']}" if schema["full_text"] else ""
        return f"schema version {schema['version']}{without}{of_words}"
    if schema["state"] == "absent":
        return "not there yet; the first start of a memory makes them"
    if schema["state"] == "foreign":
        return f"not ours: {', '.join(schema['foreign_tables'])} of another layout; use another database"
    missing = ", ".join(schema["missing_tables"])
    return "unfinished, or of an earlier layout" + (f": without {missing}" if missing else "")


def _step(step: dict[str, Any]) -> str:
    name = step["step"].replace("_", " ")
    return f"  {name:<{_LABEL + 6}}{step['ms']:>9.1f} ms{'' if step['success'] else '  failed'}"
