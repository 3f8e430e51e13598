"""Compiles the driver mysqlclient, which has no wheels, if the machine has a C compiler; gets the rest by itself."""

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
    """Install mysqlclient into a virtual environment unless it works there already; if it cannot be, print why."""
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
        # Without pip's cache: a wheel there may be linked to a library that no longer exists, and our wheel works on
        # this machine only.
        run([*pip, "install", "--force-reinstall", "--no-cache-dir", "mysqlclient"], env=env, label="pip")
        run(importing)
    except (UnavailableError, OSError) as error:
        # Tests skip a driver that is absent and name it, but fail on one that cannot be imported.
        run([*pip, "uninstall", "--yes", "mysqlclient"])
        print(f"{folder.name}: mysqlclient is left out: {error}", flush=True)


def _flags(folder: Path) -> dict[str, str]:
    """Return the variables that tell the build where the client library is; none if it finds the library itself."""
    (packages,) = folder.glob("lib/python*/site-packages")
    pth_file = packages / "mariadb_plugins.pth"  # Python runs its line at each start
    pth_file.unlink(missing_ok=True)
    if "MYSQLCLIENT_LDFLAGS" in os.environ or _pkg_config_has_library():
        return {}
    if config := next(filter(None, map(shutil.which, CONFIG_PROGRAMS)), None):
        return _variables(run([config, "--cflags"]), run([config, "--libs"]))
    root = cache.installed("libmariadb", f"the package {PACKAGES[0]}", lambda new: apt.fetch_alone(PACKAGES, new))
    library = next(root.glob("usr/lib/*/libmariadb.so"), None)
    if library is None:
        raise UnavailableError(f"the package {PACKAGES[0]} has no libmariadb.so in usr/lib")
    # By default the library looks for its plug-ins in the system's folder; one of them is needed to log in to MySQL.
    plugins = str(library.parent / "libmariadb3" / "plugin")
    pth_file.write_text(f"import os; os.environ.setdefault('MARIADB_PLUGIN_DIR', {plugins!r})\n")
    return _variables(f"-I{root}/usr/include/mariadb", f"-L{library.parent} -Wl,-rpath,{library.parent} -lmariadb")


def _pkg_config_has_library() -> bool:
    if not shutil.which("pkg-config"):
        return False
    processes = [subprocess.run(["pkg-config", "--exists", name], check=False) for name in PKG_CONFIG_NAMES]
    return any(not process.returncode for process in processes)


def _variables(compiler: str, linker: str) -> dict[str, str]:
    return {"MYSQLCLIENT_CFLAGS": compiler.strip(), "MYSQLCLIENT_LDFLAGS": linker.strip()}
