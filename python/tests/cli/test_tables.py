"""Tables for people: fitted to a terminal of any width, plain in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rich.cells import cell_len

from the_edge_agent.cli.tables import tables

COLUMNS = ("key", "version", "updated", "expires", "metadata", "value")
ROWS = [
    ("users/ada", "12", "2026-11-29 07:25:41Z", "", '{"kind": "profile"}', '"' + "long text " * 50 + '"'),
    ("日本語" * 10, "1", "2026-11-29 07:25:41Z", "2026-11-29 07:25:41Z", "", "1"),
]


def shown(width: int | None, rows: Sequence[Sequence[str]] = ROWS) -> list[str]:
    return "".join(tables(COLUMNS, rows, cut=("metadata", "value"), width=width)).splitlines()


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 120, 200, 1000])
def test_no_line_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert max(map(cell_len, shown(width))) <= max(width, 20)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_keys_are_never_cut_and_values_are_shown(width: int) -> None:
    text = "\n".join(shown(width))
    assert "users/ada" in text
    assert '"long' in text


def test_colours_need_a_terminal_and_no_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "\n".join(shown(80))
    assert "\x1b" not in "\n".join(shown(None))


def test_markup_is_text() -> None:
    row = ("[red]k[/red]", "1", "", "", "", "[b]v[/b]")
    assert "[red]k[/red]" in "\n".join(shown(120, [row]))
    assert "[b]v[/b]" in "\n".join(shown(120, [row]))


def test_a_long_list_is_several_tables() -> None:
    parts = [*tables(("key",), ([str(number)] for number in range(2_500)))]
    assert [part.count("\n") for part in parts] == [1_001, 1_001, 501]


def test_nothing_is_no_table() -> None:
    assert shown(80, []) == []
