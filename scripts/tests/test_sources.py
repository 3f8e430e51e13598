"""The scripts find package sources, cache folders and Python interpreters in the right places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import venvs
from dbservers import apt, cache
from dbservers.process import UnavailableError

DEB822 = """\
# A comment.
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://vendor.example/
Suites: nodistro
Components: main

Types: deb
Enabled: no
URIs: http://old.example/debian
Suites: trixie
Components: main
"""
ONE_LINE = """\
deb [arch=amd64 signed-by=/usr/share/keyrings/debian.gpg] http://mirror.example/debian trixie main contrib # why
deb-src http://mirror.example/debian trixie main
deb http://vendor.example/ nodistro main
"""
FROM_SID = """\
Types: deb
URIs: http://mirror.example/debian
Suites: sid
Components: main
Signed-By: /usr/share/keyrings/debian.gpg
"""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(apt, "ETC", tmp_path)
    monkeypatch.setattr(apt, "distribution", lambda: {"ID": "debian", "VERSION_CODENAME": "trixie"})
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


@pytest.mark.parametrize(("name", "text"), [("sources.list.d/debian.sources", DEB822), ("sources.list", ONE_LINE)])
def test_another_suite_comes_from_the_mirror_and_with_the_keys_of_the_machine(etc: Path, name: str, text: str) -> None:
    (etc / name).write_text(text)
    assert apt.sources("sid") == [FROM_SID]


def test_only_the_distribution_s_own_sources_are_read(etc: Path) -> None:
    (etc / "sources.list.d" / "debian.sources").write_text(DEB822)
    (only,) = apt.sources(None)
    assert "Suites: trixie trixie-updates\nComponents: main contrib\n" in only


def test_a_machine_without_a_mirror_is_told_so(etc: Path) -> None:
    (etc / "sources.list").write_text("deb http://vendor.example/ nodistro main\n")
    with pytest.raises(UnavailableError, match="names no mirror of trixie"):
        apt.sources(None)


def test_the_cache_is_kept_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == tmp_path / ".cache/the-edge-agent/servers"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg/the-edge-agent/servers"


def test_the_first_of_two_that_fetch_the_same_server_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fetch(root: Path, *, mark: str) -> str:
        (root / mark).touch()
        if mark == "slow":
            cache.installed("x", "x", lambda other: fetch(other, mark="fast"))
        return "1.0"

    folder = cache.installed("x", "x", lambda root: fetch(root, mark="slow"))
    assert [path.name for path in folder.iterdir()] == ["fast"]


def test_the_lowest_versions_are_read_from_the_project() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", venvs.lowest_version("sqlalchemy", "sqlalchemy"))
    assert re.fullmatch(r"\d+\.\d+", venvs.lowest_version("fsspec", "storage"))


def test_the_pythons_found_are_sorted_and_work() -> None:
    assert venvs.supported_pythons()
