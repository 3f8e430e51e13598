"""Packages that were changed during the download or in the cache are not run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dbservers import apt, cache, lock, wheel
from dbservers.process import UnavailableError

NAME = "tea_1.0_amd64.deb"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pinned package."""
    monkeypatch.setattr(lock, "FILE", tmp_path / "packages.lock")
    monkeypatch.delenv(lock.STRICT, raising=False)
    path = tmp_path / NAME
    path.write_bytes(b"as it was looked at")
    lock.add({NAME: lock.sha256(path)})
    return path


def test_a_package_is_what_was_pinned(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock.check([package])
    assert capsys.readouterr().err == ""
    package.write_bytes(b"as somebody else made it")
    with pytest.raises(UnavailableError, match=rf"{NAME} has the SHA-256 [0-9a-f]{{64}}, and packages.lock says"):
        lock.check([package])
    with pytest.raises(UnavailableError, match="another SHA-256"):
        lock.add({NAME: lock.sha256(package)})


def test_a_changed_package_is_not_unpacked(package: Path, tmp_path: Path) -> None:
    package.write_bytes(b"as somebody else made it")
    with pytest.raises(UnavailableError, match="SHA-256"):
        apt._unpack(tmp_path, tmp_path / "root", "tea")
    assert not (tmp_path / "root").exists()


def test_a_package_of_another_version_is_named_or_refused(
    package: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = package.rename(package.with_name("tea_1.1_amd64.deb"))
    lock.check([newer])
    assert re.fullmatch(rf"NOT PINNED, .*: {newer.name} {lock.sha256(newer)}\n", capsys.readouterr().err)
    monkeypatch.setenv(lock.STRICT, "1")
    with pytest.raises(UnavailableError, match=r"servers\.py lock"):
        lock.check([newer])


def test_apt_trusts_no_source_that_the_machine_does_not_trust() -> None:
    assert set(re.findall(r'^(\S+(?:Insecure|Weak|Unauthenticated|Force)\S*) "(.*)";$', apt.CONFIG, re.M)) == {
        ("APT::Get::AllowUnauthenticated", "false"),
        ("APT::Get::Force-Yes", "false"),
        ("Acquire::AllowInsecureRepositories", "false"),
        ("Acquire::AllowWeakRepositories", "false"),
        ("Acquire::AllowDowngradeToInsecureRepositories", "false"),
    }


def test_a_wheel_has_a_pinned_hash(tmp_path: Path) -> None:
    text = (Path(wheel.__file__).parent / "wheels.txt").read_text()
    assert re.search(r"^[\w-]+==[\d.]+ ", text, re.M)
    wrong = tmp_path / "wheels.txt"
    wrong.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, text))
    with pytest.raises(UnavailableError):
        wheel.fetch(wrong, tmp_path / "root")
    assert not [*tmp_path.glob("root/*")]


@pytest.mark.parametrize("change", ["changed", "added", "removed", "link", "no manifest"])
def test_a_folder_that_was_changed_in_the_cache_is_fetched_again(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = []

    def fetch(root: Path) -> str:
        fetched.append(root)
        (root / "bin").mkdir()
        (root / "bin" / "server").write_text("server")
        (root / "link").symlink_to("bin/server")
        return "1.0"

    folder = cache.installed("x", "x", fetch)
    assert cache.installed("x", "x", fetch) == folder
    assert len(fetched) == 1
    match change:
        case "changed":
            (folder / "bin" / "server").write_text("evil")
        case "added":
            (folder / "bin" / "library").write_text("evil")
        case "removed":
            (folder / "bin" / "server").unlink()
        case "link":
            (folder / "link").unlink()
            (folder / "link").symlink_to("evil")
        case "no manifest":
            folder.with_name(f"{folder.name}.sha256").unlink()
    capsys.readouterr()
    assert cache.installed("x", "x", fetch) == folder
    assert "has changed since it was unpacked; it is fetched again" in capsys.readouterr().err
    assert len(fetched) == 2
    assert (folder / "bin" / "server").read_text() == "server"
    assert cache.installed("x", "x", fetch) == folder
    assert len(fetched) == 2
