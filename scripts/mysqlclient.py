"""Compiles the driver mysqlclient, which has no wheels, where the machine can; needs nothing installed by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from dbservers import apt, cache
from dbservers.process import UnavailableError, run

PACKAGES = ("libmariadb-dev", "libmariadb3")
# The names that mysqlclient's own build asks pkg-config for.
PKG_CONFIG_NAMES = ("mysqlclient", "mariadb", "libmariadb", "perconaserverclient")
CONFIG_PROGRAMS = ("mariadb_config", "mysql_config")
COMPILERS = ("cc", "gcc", "clang")


def add_to(folder: Path) -> None:
    """Install mysqlclient into a virtual environment unless it works there; where it cannot be, say why."""
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    importing = [python, "-c", "import MySQLdb"]
    if not subprocess.run(importing, capture_output=True, check=False).returncode:
        return
    try:
        if not any(map(shutil.which, COMPILERS)):
            raise UnavailableError("no C compiler on this machine")
        env = {**os.environ, **_flags(folder)}
        print(f"{folder.name}: compiling mysqlclient", flush=True)
        # A wheel of pip's cache may be linked to a library that is gone, and ours is of use here only.
        run([*pip, "install", "--force-reinstall", "--no-cache-dir", "mysqlclient"], env=env, label="pip")
        run(importing)
    except (UnavailableError, OSError) as error:
        # What is there but cannot be imported would fail the tests instead of being named by them.
        run([*pip, "uninstall", "--yes", "mysqlclient"])
        print(f"{folder.name}: mysqlclient is left out: {error}", flush=True)


def _flags(folder: Path) -> dict[str, str]:
    """Return the variables that name a client library to the build: none where it finds one itself."""
    (packages,) = folder.glob("lib/python*/site-packages")
    at_start = packages / "mariadb_plugins.pth"
    at_start.unlink(missing_ok=True)
    if "MYSQLCLIENT_LDFLAGS" in os.environ or _known_to_pkg_config():
        return {}
    if config := next(filter(None, map(shutil.which, CONFIG_PROGRAMS)), None):
        return _variables(run([config, "--cflags"]), run([config, "--libs"]))
    root = cache.installed("libmariadb", f"the package {PACKAGES[0]}", lambda new: apt.fetch_alone(PACKAGES, new))
    library = next(root.glob("usr/lib/*/libmariadb.so"), None)
    if library is None:
        raise UnavailableError(f"the package {PACKAGES[0]} has no libmariadb.so where it is looked for")
    # The library looks for its plug-ins, one of which logs in to MySQL, where the system would have them.
    plugins = str(library.parent / "libmariadb3" / "plugin")
    at_start.write_text(f"import os; os.environ.setdefault('MARIADB_PLUGIN_DIR', {plugins!r})\n")
    return _variables(f"-I{root}/usr/include/mariadb", f"-L{library.parent} -Wl,-rpath,{library.parent} -lmariadb")


def _known_to_pkg_config() -> bool:
    if not shutil.which("pkg-config"):
        return False
    asked = [subprocess.run(["pkg-config", "--exists", name], check=False) for name in PKG_CONFIG_NAMES]
    return any(not answer.returncode for answer in asked)


def _variables(compiler: str, linker: str) -> dict[str, str]:
    return {"MYSQLCLIENT_CFLAGS": compiler.strip(), "MYSQLCLIENT_LDFLAGS": linker.strip()}
