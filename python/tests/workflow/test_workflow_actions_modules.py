"""Actions of third parties: modules, files beside the agent, entry points of packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from the_edge_agent import WorkflowError, YAMLEngine
from the_edge_agent.cli.app import app
from the_edge_agent.workflow import ActionsModuleError
from the_edge_agent.workflow.actions import modules

SHOUT = """
from dataclasses import dataclass

@dataclass
class Shouted:
    text: str

def register_actions(registry, engine):
    def shout(state, text):
        engine.ltm_backend.store("last", text)
        return {"shouted": Shouted(text.upper()).text}

    registry["my.shout"] = shout
"""
AGENT = 'nodes: [{name: a, uses: my.shout, with: {text: "{{ state.text }}"}}]\n'
WRONG = {
    "no_function.py": ("x = 1", "has no function `register_actions(registry, engine)`"),
    "broken.py": ("def register_actions(:", "SyntaxError: "),
    "missing.py": ("import no_such_module_of_mine", "No module named 'no_such_module_of_mine'"),
    "raises.py": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
    "fails.py": ("def register_actions(registry, engine): registry['a'].x", "KeyError: 'a'"),
    "exits.py": ("raise SystemExit(0)", "SystemExit: 0"),
    "opens.py": ("open('nothing.txt')", "FileNotFoundError: "),
    "wrong.py": ("def register_actions(registry, engine): registry['my.x'] = 5", "registered 'my.x', which is no name"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.yaml").write_text(AGENT)
    (tmp_path / "my_tea_actions.py").write_text(SHOUT)
    for name, (text, _) in WRONG.items():
        (tmp_path / name).write_text(text)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("tea_actions_", "my_tea_actions")):
            del sys.modules[name]


def shouted(engine: YAMLEngine) -> Any:
    return next(engine.load_from_file("agent.yaml").invoke({"text": "tea"}))["state"]["shouted"]


def loaded_module(name: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(SHOUT, name, "exec", dont_inherit=True), module.__dict__)
    return module


class TestModules:
    def test_a_file_adds_actions(self, folder: Path) -> None:
        for file in ("my_tea_actions.py", folder / "my_tea_actions.py"):
            with YAMLEngine(actions_modules=[file]) as engine:
                assert shouted(engine) == "TEA"
                memory = engine.ltm_backend
                assert memory is not None
                assert memory.retrieve("last")["value"] == "tea"

    def test_a_path_need_not_end_with_py(self, folder: Path) -> None:
        (folder / "my_tea_actions.py").rename(folder / "helpers")
        with YAMLEngine(actions_modules=[Path("helpers")]) as engine:
            assert shouted(engine) == "TEA"

    def test_a_name_or_a_module_adds_actions(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(folder)
        with YAMLEngine(actions_modules="my_tea_actions") as engine:
            assert shouted(engine) == "TEA"
        with YAMLEngine(actions_modules=[loaded_module("of_the_program")]) as engine:
            assert shouted(engine) == "TEA"

    def test_two_files_of_one_name_do_not_meet(self, folder: Path) -> None:
        for number in (1, 2):
            (folder / str(number)).mkdir()
            text = f"def register_actions(registry, engine): registry['my.n{number}'] = lambda state: {number}"
            (folder / str(number) / "actions.py").write_text(text)
        with YAMLEngine(actions_modules=["1/actions.py", "2/actions.py"]) as engine:
            assert [engine.actions_registry[f"my.n{number}"]({}) for number in (1, 2)] == [1, 2]

    def test_they_may_replace_actions_and_the_program_has_the_last_word(self, folder: Path) -> None:
        (folder / "mine.py").write_text(
            "def register_actions(registry, engine):\n"
            "    registry['json.parse'] = registry['my.x'] = lambda state, text: {'by': 'module'}\n"
        )
        with YAMLEngine(actions_modules=["mine.py"], actions_registry={"my.x": lambda state: "program"}) as engine:
            assert engine.actions_registry["json.parse"]({}, text="1") == {"by": "module"}
            assert engine.actions_registry["my.x"]({}) == "program"

    @pytest.mark.parametrize("name", WRONG)
    def test_an_error_is_one_line_that_names_the_module(self, name: str) -> None:
        before = set(sys.modules)
        with pytest.raises(ActionsModuleError) as caught:
            YAMLEngine(actions_modules=[name])
        assert str(caught.value).startswith(f"actions module `{name}`")
        assert WRONG[name][1] in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, WorkflowError)
        kept = {module for module in set(sys.modules) - before if module.startswith("tea_actions_")}
        assert len(kept) <= (name in ("no_function.py", "fails.py", "wrong.py"))

    def test_what_is_not_there_is_named(self) -> None:
        with pytest.raises(ActionsModuleError, match=r"actions module `none\.py`: there is no such file"):
            YAMLEngine(actions_modules=["none.py"])
        with pytest.raises(
            ActionsModuleError, match="actions module `no_such_module_x`: No module named 'no_such_modul"
        ):
            YAMLEngine(actions_modules=["no_such_module_x"])
        with pytest.raises(ActionsModuleError, match=r"; write `raises\.py` for the file"):
            YAMLEngine(actions_modules=["raises"])

    def test_a_memory_that_the_engine_has_made_is_closed_if_one_fails(self, folder: Path) -> None:
        (folder / "late.py").write_text(
            "def register_actions(registry, engine):\n    engine.note(engine.ltm_backend)\n    raise ValueError"
        )
        made: list[Any] = []

        class Engine(YAMLEngine):
            def note(self, memory: Any) -> None:
                made.append(memory)

        with pytest.raises(ActionsModuleError):
            Engine(ltm_path=folder / "m.db", actions_modules=["late.py"])
        assert made[0].count()["error_type"] == "connection_error"

    def test_they_are_refused_where_no_code_may_run(self, folder: Path) -> None:
        (folder / "raises.py").write_text("open('it_ran', 'w')")
        with pytest.raises(ValueError, match="actions_modules run code"):
            YAMLEngine(actions_modules=["raises.py"], allow_code=False)
        assert not (folder / "it_ran").exists()


class Point:
    """An entry point of an installed package."""

    def __init__(self, name: str, loaded: Any) -> None:
        self.name, self.value, self._loaded = name, f"{name}_package.actions", loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


class TestInstalled:
    @staticmethod
    def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
        monkeypatch.setattr(modules, "_installed", lambda: [*points])

    def test_a_package_adds_actions_by_a_module_or_a_function(self, monkeypatch: pytest.MonkeyPatch) -> None:
        other = Point("other", lambda registry, engine: registry.update({"my.other": lambda state: "other"}))
        self.install(monkeypatch, Point("one", loaded_module("one_package")), other)
        with YAMLEngine() as engine:
            assert (shouted(engine), engine.actions_registry["my.other"]({})) == ("TEA", "other")

    @pytest.mark.parametrize(
        ("loaded", "message"),
        [
            (ImportError("no such thing"), "ImportError: no such thing"),
            (5, "has no function `register_actions"),
            (lambda registry, engine: registry.update({"ltm.store": print}), "has an action `ltm.store`, and there is"),
            (lambda registry, engine: 1 / 0, "ZeroDivisionError"),
        ],
    )
    def test_one_that_is_wrong_is_named(self, monkeypatch: pytest.MonkeyPatch, loaded: Any, message: str) -> None:
        self.install(monkeypatch, Point("vendor", loaded))
        with pytest.raises(ActionsModuleError) as caught:
            YAMLEngine()
        assert str(caught.value).startswith("entry point `vendor` (vendor_package.actions)")
        assert message in str(caught.value)

    def test_where_no_code_may_run_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, Point("vendor", RuntimeError("loaded")))
        with YAMLEngine(allow_code=False) as engine:
            assert "ltm.store" in engine.actions_registry

    def test_packages_are_found_by_their_metadata(self, folder: Path) -> None:
        info = folder / "tea_example-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tea-example\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[the_edge_agent.actions]\nexample = my_tea_actions\n")
        program = (
            "from the_edge_agent import YAMLEngine\n"
            "with YAMLEngine() as engine:\n    print(engine.actions_registry['my.shout']({}, 'tea'))"
        )
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ("{'shouted': 'TEA'}\n", "")


class TestCommand:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["run", "agent.yaml", "-i", '{"text": "tea"}', *arguments])

    @pytest.mark.parametrize("option", ["--actions-module", "--actions-file"])
    def test_it_adds_actions(self, option: str) -> None:
        done = self.run(option, "my_tea_actions.py")
        assert (done.exit_code, json.loads(done.stdout)) == (0, {"text": "tea", "shouted": "TEA"})

    def test_one_that_is_wrong_is_one_line(self) -> None:
        done = self.run("--actions-module", "raises.py")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == "Error: actions module `raises.py`: RuntimeError: first line second line\n"

    @pytest.mark.parametrize("option", ["--actions-module", "--actions-file"])
    def test_with_no_code_it_is_a_wrong_call(self, option: str) -> None:
        done = self.run("--no-code", option, "raises.py")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "it runs code, which --no-code refuses" in " ".join(done.stderr.replace("│", " ").split())
