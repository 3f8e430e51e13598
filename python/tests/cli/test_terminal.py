"""`tea` prints stored text without characters that control a terminal; and the files that it writes."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from the_edge_agent.cli.app import app
from the_edge_agent.cli.reports import check_report
from the_edge_agent.cli.terminal import PrintableFormatter, one_line, printable, printable_json

OBEYED = [
    *map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F)]),
    *map(chr, [*range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC), 0xE0001, 0xE0041, 0xE007F]),
]
HARMLESS = "é 日本 😀 👩\u200d👩 \u0645\u200c\u0646 \u05d0 ~"
AGENT = 'nodes: [{name: a, run: \'return {"seen": state.get("x")}\'}]\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.yaml").write_text(AGENT)
    return tmp_path


def tea(*arguments: str) -> Any:
    return CliRunner(env={"NO_COLOR": "1"}).invoke(app, arguments)


def test_json_means_the_same_and_has_nothing_that_a_terminal_obeys() -> None:
    given = {"".join(OBEYED): ["".join(OBEYED), HARMLESS, "\\u001b \\\\"]}
    done = tea("run", "agent.yaml", "-i", json.dumps({"x": given}))
    assert json.loads(done.stdout)["seen"] == given
    assert HARMLESS in done.stdout
    assert not {*OBEYED} - {"\n"} & {*done.stdout}
    for text in ("\ud800", "x\udfff"):
        assert json.loads(printable_json(json.dumps(text, ensure_ascii=False))) == text


def test_text_for_people_has_nothing_either() -> None:
    text = "".join(OBEYED) + "\ud800" + HARMLESS
    assert not {*OBEYED} - {"\n", "\t"} & {*printable(text)}
    assert not {*OBEYED} - {"\t"} & {*one_line(text)}
    assert printable(f"\x1b[31m\x9b1m\u202e{HARMLESS}") == rf"\x1b[31m\x9b1m\u202e{HARMLESS}"
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "the entry %s", ("\x9b31m\ud800",), None)
    assert PrintableFormatter().format(record) == r"the entry \x9b31m\ud800"
    report = {"success": False, "url": "sqlite:///\x9b.db", "error": "a\x1b]0;b\nok", "error_type": "query_error"}
    assert check_report(report).splitlines()[-1] == r"failed: a\x1b]0;b\nok (query_error)"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "\x1b[31m\u202e.yaml"),
        ("run", "agent.yaml", "-i", "@\x9b\u202e"),
        ("run", "agent.yaml", "-i", '{"\x7f\u202e": 1, "\x7f\u202e": 2}'),
        ("run", "agent.yaml", "-o", "no\x9b\u2066/x"),
        ("memory", "check", "--url", "sqlite:////no\x9b/such\u202e/x.db"),
    ],
)
def test_nor_do_errors_and_names_of_files(arguments: tuple[str, ...]) -> None:
    done = tea(*arguments)
    assert done.exit_code == 1
    assert not {*OBEYED} - {"\n"} & {*done.output}


class TestOutputFile:
    def test_a_new_one_is_the_user_s_alone_and_an_old_one_keeps_its_mode(self) -> None:
        Path("old").touch(mode=0o644)
        Path("old").chmod(0o664)
        Path("old").write_text("x" * 10_000)
        umask = os.umask(0)
        try:
            done = [tea("run", "agent.yaml", "-o", name).exit_code for name in ("new", "old")]
        finally:
            os.umask(umask)
        assert done == [0, 0]
        assert (Path("new").stat().st_mode & 0o777, Path("old").stat().st_mode & 0o777) == (0o600, 0o664)
        assert json.loads(Path("old").read_text()) == json.loads(Path("new").read_text()) == {"seen": None}

    @pytest.mark.parametrize("leads_to", ["kept", "missing"])
    def test_none_is_written_through_a_symbolic_link(self, leads_to: str) -> None:
        Path("kept").write_text("kept")
        Path("link").symlink_to(leads_to)
        done = tea("run", "agent.yaml", "-o", "link")
        assert done.exit_code == 1
        assert "can't write link: it is a symbolic link" in done.output
        assert Path("kept").read_text() == "kept"
        assert not Path("missing").exists()

    def test_nor_through_one_that_appears_while_the_agent_runs(self) -> None:
        Path("kept").write_text("kept")
        Path("agent.yaml").write_text('nodes: [{name: a, run: \'import os; os.symlink("kept", "link")\'}]\n')
        assert tea("run", "agent.yaml", "-o", "link").exit_code == 1
        assert Path("kept").read_text() == "kept"

    def test_an_open_descriptor_can_be_written(self) -> None:
        with open("piped", "w+b") as file:
            assert tea("run", "agent.yaml", "-o", f"/dev/fd/{file.fileno()}").exit_code == 0
            assert json.loads(Path("piped").read_text()) == {"seen": None}
