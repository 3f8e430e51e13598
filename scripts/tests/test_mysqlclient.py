"""mysqlclient is compiled with the right client library; if that is impossible, it is left out without an error."""

from __future__ import annotations

from pathlib import Path

import mysqlclient
import pytest
from dbservers import cache

# Replaces the Python of a virtual environment: writes to files which pip commands it gets, and can import MySQLdb
# after an installation.
PYTHON = """\
#!/bin/sh
here=${0%/*}
case "$*" in
    *import*) test -e $here/installed ;;
    *" install "*) echo "$MYSQLCLIENT_CFLAGS | $MYSQLCLIENT_LDFLAGS" > $here/installed; exit $FAILS ;;
    *" uninstall "*) echo > $here/uninstalled ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment, on a machine that has a compiler and no other program."""
    (tmp_path / "venv/lib/python3/site-packages").mkdir(parents=True)
    program(tmp_path / "venv/bin/python", PYTHON)
    program(tmp_path / "path/cc", "")
    for name, value in {"PATH": str(tmp_path / "path"), "FAILS": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MYSQLCLIENT_CFLAGS", "MYSQLCLIENT_LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "venv"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of our own copy of the library."""
    library = tmp_path / "copy/usr/lib/x86_64-linux-gnu/libmariadb.so"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(cache, "installed", lambda *_: tmp_path / "copy")
    return library.parent


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def flags(folder: Path) -> str:
    return (folder / "bin/installed").read_text().strip()


def test_without_a_library_of_the_system_our_copy_is_linked_and_its_plug_ins_are_found(
    folder: Path, copy: Path
) -> None:
    mysqlclient.add_to(folder)
    assert flags(folder).endswith(f"/usr/include/mariadb | -L{copy} -Wl,-rpath,{copy} -lmariadb")
    (line,) = folder.glob("lib/python3/site-packages/*.pth")
    assert f"setdefault('MARIADB_PLUGIN_DIR', '{copy}/libmariadb3/plugin')" in line.read_text()


def test_a_library_that_pkg_config_knows_is_left_to_the_build(folder: Path, tmp_path: Path) -> None:
    program(tmp_path / "path/pkg-config", "#!/bin/sh\ntest $2 = libmariadb")
    mysqlclient.add_to(folder)
    assert flags(folder) == "|"
    assert not list(folder.glob("lib/python3/site-packages/*.pth"))


@pytest.mark.parametrize("name", mysqlclient.CONFIG_PROGRAMS)
def test_a_library_that_a_program_describes_is_used(folder: Path, tmp_path: Path, name: str) -> None:
    program(tmp_path / "path" / name, "#!/bin/sh\necho its$1")
    mysqlclient.add_to(folder)
    assert flags(folder) == "its--cflags | its--libs"


def test_a_driver_that_is_installed_already_is_not_changed(folder: Path) -> None:
    (folder / "bin/installed").write_text("before")
    mysqlclient.add_to(folder)
    assert flags(folder) == "before"


def test_without_a_compiler_it_is_left_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "path/cc").unlink()
    mysqlclient.add_to(folder)
    assert capsys.readouterr().out == "venv: mysqlclient is left out: no C compiler on this machine\n"


def test_without_a_library_or_apt_it_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mysqlclient.add_to(folder)
    assert capsys.readouterr().out == "venv: mysqlclient is left out: no apt-get on this machine\n"


@pytest.mark.usefixtures("copy")
def test_a_failed_build_is_uninstalled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAILS", "1")
    mysqlclient.add_to(folder)
    assert (folder / "bin/uninstalled").exists()
    assert "mysqlclient is left out: pip failed (1): it said nothing" in capsys.readouterr().out
