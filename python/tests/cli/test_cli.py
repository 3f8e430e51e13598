"""The `tea` command: results go to stdout, everything else to stderr, and scripts can rely on the exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import the_edge_agent
from the_edge_agent.cli.app import app

TEA = Path(sys.executable).with_name("tea")

ECHO = """
nodes:
  - name: echo
    run: |
      return {"seen": state.get("x")}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: bytes
    stderr: bytes


def tea(*arguments: str) -> Done:
    """Run the command in this process, which is quicker."""
    result = CliRunner(env={"NO_COLOR": "1"}).invoke(app, arguments, catch_exceptions=False)
    return Done(result.exit_code, result.stdout_bytes, result.stderr_bytes)


def tea_process(*arguments: str | bytes, **environment: str) -> Done:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        [TEA, *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "NO_COLOR": "1", **environment},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def agent(text: str, name: str = "agent.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def ran(*arguments: str, agent_text: str = ECHO) -> Any:
    """Run an agent that must succeed in silence; return what it printed, read as JSON."""
    done = tea("run", agent(agent_text), *arguments)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return json.loads(done.stdout)


def failed(*arguments: str, agent_text: str = ECHO) -> str:
    """Run an agent that must fail; return the one line that it says."""
    done = tea("run", agent(agent_text), *arguments)
    message = done.stderr.decode()
    assert done.returncode == 1, message
    assert done.stdout == b""
    assert message.startswith("Error: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    return message.removeprefix("Error: ").strip()


class TestResult:
    def test_the_final_state_is_json_on_stdout(self) -> None:
        done = tea_process("run", agent(ECHO), "-i", '{"x": 1}')
        assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"x": 1, "seen": 1}, b"")

    def test_it_is_indented_and_text_is_readable(self) -> None:
        done = tea("run", agent(ECHO), "-i", '{"x": "é 日本 😀"}')
        assert done.stdout.decode("utf-8") == '{\n  "x": "é 日本 😀",\n  "seen": "é 日本 😀"\n}\n'

    def test_it_is_utf_8_in_every_locale(self) -> None:
        done = tea_process("run", agent(ECHO), "-i", '{"x": "\\u00e9"}', LC_ALL="C", PYTHONUTF8="0")
        assert (done.returncode, json.loads(done.stdout.decode("utf-8"))) == (0, {"x": "é", "seen": "é"})

    @pytest.mark.parametrize(
        "value",
        [
            "123456789012345678901234567890",
            "-0.0",
            "0.1",
            "1e-320",
            "1.7976931348623157e+308",
            '"\\ud800"',
            '"\\u0000\\u001f"',
            '"\\\\ud800"',
            "[[], {}, null, true, false]",
            '{"": 0}',
        ],
    )
    def test_values_go_through_exactly(self, value: str) -> None:
        seen = ran("-i", f'{{"x": {value}}}')["seen"]
        assert json.dumps(seen) == json.dumps(json.loads(value))

    def test_it_can_go_to_a_file(self, folder: Path) -> None:
        done = tea("run", agent(ECHO), "-i", '{"x": "é"}', "-o", "final.json")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert json.loads((folder / "final.json").read_text(encoding="utf-8")) == {"x": "é", "seen": "é"}

    def test_a_device_is_written_to(self) -> None:
        assert tea("run", agent(ECHO), "-o", "/dev/null").returncode == 0

    def test_the_module_is_the_command(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "the_edge_agent.cli", "--version"], capture_output=True, check=True
        )
        assert done.stdout == tea_process("--version").stdout

    def test_a_dash_is_stdout(self) -> None:
        assert ran("-o", "-") == {"seen": None}

    def test_a_failed_run_leaves_the_file_alone(self, folder: Path) -> None:
        (folder / "final.json").write_text("before")
        failed("-o", "final.json", agent_text="nodes: [{name: a, run: x = 1 / 0}]")
        assert (folder / "final.json").read_text() == "before"

    @pytest.mark.parametrize("output", ["nowhere/final.json", ".", "pipe"])
    def test_a_file_that_cannot_be_written_is_told_before_the_agent_runs(self, folder: Path, output: str) -> None:
        os.mkfifo("pipe")  # without a reader: who opens it waits for ever
        message = failed("-o", output, agent_text='nodes: [{name: a, run: \'open("ran", "w").close()\'}]')
        assert message.startswith(f"can't write {output}: ")
        assert not (folder / "ran").exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    @pytest.mark.parametrize("buffered", ["", "1"])
    def test_a_full_disk_is_a_failure(self, buffered: str) -> None:
        assert failed("-o", "/dev/full") == "can't write /dev/full: No space left on device"
        command: list[str | Path] = [TEA, "run", agent(ECHO)]
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                command,
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                env={**os.environ, "PYTHONUNBUFFERED": buffered},
            )
        assert (done.returncode, done.stderr) == (1, b"Error: can't write to stdout: No space left on device\n")

    def test_a_closed_stdout_is_a_failure(self) -> None:
        done = tea_process("run", agent(ECHO), "-o", "final.json")
        assert done.returncode == 0
        closed = subprocess.run(["/bin/sh", "-c", f'"{TEA}" run agent.yaml >&-'], stderr=subprocess.PIPE, check=False)
        assert (closed.returncode, closed.stderr) == (1, b"Error: can't write to stdout: it is closed\n")

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("x = {1, 2}", "the final state is not JSON: `state.x` is of type set"),
            ("x = [{'d': json}]", "the final state is not JSON: `state.x[0].d` is a module"),
            ("x = float('nan')", "the final state is not JSON: `state.x` is nan"),
            ("x = {1: 2}", "the final state is not JSON: `state.x` has a key that is not text"),
            ("x = b'bytes'", "the final state is not JSON: `state.x` is of type bytes"),
            ("x = []\nx.append(x)", "the final state is nested too deeply, or contains itself"),
            ("x = 10 ** 5000", "the final state can't be written as JSON: "),
        ],
    )
    def test_a_state_that_is_not_json_is_a_failure(self, code: str, message: str) -> None:
        text = json.dumps({"nodes": [{"name": "a", "run": code}]})  # JSON is YAML
        expected = "can't be copied" if "module" in message else message
        assert expected in failed(agent_text=text)

    def test_what_an_agent_prints_goes_to_stderr(self) -> None:
        text = "import os\nprint('one', flush=True)\nos.system('echo two')\nos.write(1, b'three')"
        done = tea_process("run", agent(json.dumps({"nodes": [{"name": "a", "run": text}]})))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"{}\n", b"one\ntwo\nthree")


class TestInput:
    def test_without_input_the_state_is_empty(self) -> None:
        assert ran() == {"seen": None}

    def test_it_can_come_from_a_file(self, folder: Path) -> None:
        (folder / "in.json").write_text('\ufeff{"x": "é"}', encoding="utf-8")
        assert ran("--input", "@in.json") == {"x": "é", "seen": "é"}

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("", "the input is not JSON: Expecting value (line 1, column 1)"),
            ("{x: 1}", "the input is not JSON: "),
            ('{"x": 1} {}', "the input is not JSON: Extra data (line 1, column 10)"),
            ("[1]", "the input must be a JSON object"),
            ('"text"', "the input must be a JSON object"),
            ("null", "the input must be a JSON object"),
            ('{"x": NaN}', "the input is not JSON: NaN is no JSON number"),
            ('{"x": [-Infinity]}', "the input is not JSON: -Infinity is no JSON number"),
            ('{"x": 1e999}', "the input has a number that is too large: 1e999"),
            ('{"x": -0.1e-400}', "the input has a number that is too close to 0: -0.1e-400"),
            (f'{{"x": {"9" * 5000}}}', "the input has a number that is too long"),
            ('{"x": 1, "x": 2}', "the input has the key `x` twice in one object"),
            ('{"x": ' + "[" * 50_000 + "]" * 50_000 + "}", "the input is nested too deeply"),
            ('{"x": "\udcff"}', "the input is not UTF-8 text"),
            ("@missing.json", "can't read the input file missing.json: No such file or directory"),
            ("@.", "can't read the input file .: Is a directory"),
            ("@latin.json", "the input file latin.json is not UTF-8 text"),
        ],
    )
    def test_bad_input_is_refused(self, folder: Path, given: str, message: str) -> None:
        (folder / "latin.json").write_bytes(b'{"x": "\xe9"}')
        assert failed("-i", given).startswith(message)


class TestFailures:
    def test_a_failure_exits_1_with_one_line(self) -> None:
        done = tea_process("run", agent(ECHO), "-i", b'{"x": "\xff"}')
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"Error: the input is not UTF-8 text\n")

    def test_a_failed_node_is_named_with_its_place(self) -> None:
        message = failed(agent_text="nodes:\n  - name: bad\n    run: |\n      x = 1\n      y = x / 0\n")
        assert message == "agent.yaml:5:1: node `bad`: ZeroDivisionError: division by zero"

    def test_a_failed_action_is_named_with_its_place(self) -> None:
        message = failed(agent_text='nodes:\n  - {name: bad, uses: ltm.store, with: {key: "", value: 1}}\n')
        assert message.startswith("agent.yaml:2:5: node `bad`: `ltm.store` failed: ")

    def test_code_that_exits_is_a_failure(self) -> None:
        assert "SystemExit" in failed(agent_text="nodes: [{name: a, run: exit(0)}]")

    def test_a_bad_file_is_named_with_the_place(self) -> None:
        assert (
            failed(agent_text="nodes: []\nedgse: []\n") == "agent.yaml:2:1: unknown word `edgse`; did you mean `edges`?"
        )

    def test_a_message_has_no_control_characters(self) -> None:
        message = failed(agent_text='"\\e[31mred\\nline\\uD800": 1\n')
        assert message.startswith("agent.yaml:1:1: unknown word `\\x1b[31mred line\\ud800`")

    def test_a_missing_file_is_named(self) -> None:
        done = tea("run", "nowhere.yaml")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr == b"Error: nowhere.yaml: can't read the file: No such file or directory\n"

    @pytest.mark.parametrize(
        ("ltm", "named"),
        [
            ("{backend: sqlalchemy, url: 'sqlite://', pool_sise: 5}", "pool_sise"),
            ("{backend: sqlalchemy, url: 'sqlite:////nowhere/at/all.db'}", "settings.ltm"),
            ("{backend: nosuch, url: 'sqlite://'}", "nosuch"),
            ("{backend: sqlalchemy, url: 'postgresql://me:s3cret@127.0.0.1:1/db'}", "settings.ltm"),
            ("{backend: sqlalchemy, url: 'mysql://me:s3cret@127.0.0.1:1/db', pool_size: x}", "settings.ltm"),
            ("{backend: sqlalchemy, url: 'me:s3cret@127.0.0.1'}", "settings.ltm"),
            ("{backend: sqlalchemy, url: '${TEA_TEST_NO_SUCH}'}", "TEA_TEST_NO_SUCH"),
        ],
    )
    def test_a_broken_memory_stops_it_and_no_password_is_shown(self, ltm: str, named: str) -> None:
        message = failed(agent_text=f"settings:\n  ltm: {ltm}\nnodes: [{{name: a, run: x = 1}}]\n")
        assert message.startswith("agent.yaml:2:3: settings.ltm")
        assert named in message
        assert "s3cret" not in message

    def test_code_can_be_forbidden(self) -> None:
        message = failed("--no-code")
        assert message == "agent.yaml:4:5: node `echo` runs Python code, which is not allowed here"
        assert ran(
            "--no-code", agent_text="nodes: [{name: a, uses: ltm.search, output: {n: '{{ result.count }}'}}]"
        ) == {"n": 0}


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["run", "a", "b"], ["rum"], ["run", "a.yaml", "--nope"], ["run", "a.yaml", "-i"], ["--nope"]],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    assert tea(*arguments).returncode == 2


def test_the_installed_command_tells_its_version() -> None:
    done = tea_process("--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"tea {the_edge_agent.__version__}\n")


def test_an_interrupt_exits_130() -> None:
    code = "import sys; print('waiting', flush=True)\nwhile True: pass"
    name = agent(json.dumps({"nodes": [{"name": "wait", "run": code}]}))
    with subprocess.Popen([TEA, "run", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"waiting\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (130, b"", b"interrupted\n")


def test_a_reader_that_went_away_is_no_traceback() -> None:
    name = agent("nodes: [{name: a, run: x = ['y' * 1000] * 1000}]")
    with subprocess.Popen([TEA, "run", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        error = process.stderr.read()
    assert process.returncode == 1
    assert b"Traceback" not in error
