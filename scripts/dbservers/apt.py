"""Downloads packages and their dependencies with apt into private folders, and unpacks them; needs no root."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from . import lock
from .process import UnavailableError, run

ETC = Path("/etc/apt")
ROLLING = ("sid", "unstable", "testing", "stable")

# Lines of the machine's configuration that are dropped. Its hooks (clean-ups, notifications) are for the machine's own
# packages, and its folders are not ours.
UNWANTED = re.compile(r"\S*Invoke|Dir::(Cache|State|Etc)\b")

CONFIG = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{base}/sources";
Dir::State::lists "{base}/lists";
Dir::State::status "{base}/status";
Dir::Cache "{base}/cache";
Dir::Cache::archives "archives";
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
APT::Get::Force-Yes "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Debug::NoLocking "true";
"""


FOREIGN = '#clear APT::Architectures;\nAPT::Architecture "{0}";\nAPT::Architectures:: "{0}";\n'


def fetch(
    package: str, root: Path, *, suite: str | None = None, also: Sequence[str] = (), programs: Sequence[str] = ()
) -> str:
    """Download `package` and all it depends on, unpack them into `root`, and return the version.

    Args:
        package: The package's name, without the number that some releases add to it.
        root: An empty folder.
        suite: Take it from this suite of the distribution's mirror, instead of the machine's own suites.
        also: Exact names of further packages.
        programs: The programs of /usr/bin to keep; the others are removed.
    """
    with _own_apt(suite) as (env, archives):
        exact = _exact_name(package, run(["apt-cache", "pkgnames", package], env=env).split())
        run(["apt-get", "-q", "-y", "--download-only", "install", exact, *also], env=env)
        version = _unpack(archives, root, exact)
    for program in (root / "usr" / "bin").glob("*"):
        if program.name not in programs:
            program.unlink()
    for name in ("share/doc", "share/man", "share/locale"):
        shutil.rmtree(root / "usr" / name, ignore_errors=True)
    return version


def fetch_alone(packages: Sequence[str], root: Path) -> str:
    """Download packages without their dependencies, unpack them into `root`, and return the version of the first."""
    with _own_apt(None) as (env, archives):
        run(["apt-get", "-q", "download", *packages], env=env, cwd=archives)
        return _unpack(archives, root, packages[0])


def resolve(groups: Sequence[Sequence[str]], suite: str | None, architecture: str) -> dict[str, str]:
    """Return the files of groups of packages and their dependencies, with the SHA-256 that apt has verified."""
    digests: dict[str, str] = {}
    with _own_apt(suite, architecture) as (env, _):
        for first, *others in groups:
            exact = _exact_name(first, run(["apt-cache", "pkgnames", first], env=env).split())
            output = run(["apt-get", "-q", "-y", "--print-uris", "install", exact, *others], env=env)
            files = [unquote(name).split("_") for name in re.findall(r"^'\S+' (\S+)\.deb \d+ ", output, re.M)]
            # `apt-get install` does not print the SHA-256 of files; `apt-get download` does.
            versions = [f"{name}={version}" for name, version, _ in files]
            output = run(["apt-get", "-q", "--print-uris", "download", *versions], env=env)
            digests |= dict(re.findall(r"^'\S+' (\S+\.deb) \d+ SHA256:([0-9a-f]{64})$", output, re.M))
    return digests


@contextmanager
def _own_apt(suite: str | None, architecture: str | None = None) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield the environment variables of an apt with private folders and fresh lists, and its folder of downloads."""
    for tool in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
        if not shutil.which(tool):
            raise UnavailableError(f"no {tool} on this machine")
    stanzas = sources(suite)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name in ("lists/partial", "cache/archives/partial", "sources"):
            (base / name).mkdir(parents=True)
        (base / "status").touch()
        (base / "sources" / "private.sources").write_text("\n".join(stanzas))
        machine = [line for line in run(["apt-config", "dump"]).splitlines() if not UNWANTED.match(line)]
        foreign = FOREIGN.format(architecture) if architecture else ""
        (base / "apt.conf").write_text("\n".join([*machine, CONFIG.format(base=base), foreign]))
        env = {**os.environ, "APT_CONFIG": str(base / "apt.conf"), "LC_ALL": "C"}
        run(["apt-get", "-q", "update"], env=env)
        yield env, base / "cache" / "archives"


def _unpack(archives: Path, root: Path, chosen: str) -> str:
    """Unpack the downloaded packages, and return the version of the package named `chosen`."""
    debs = sorted(archives.glob("*.deb"))
    lock.check(debs)
    for deb in debs:
        # Perl is not unpacked: only the server's helper scripts need it, and we do not use them.
        if not deb.name.startswith(("perl", "libperl")):
            run(["dpkg-deb", "-x", deb, root])
    version = run(["dpkg-deb", "-f", next(deb for deb in debs if deb.name.startswith(f"{chosen}_")), "Version"])
    return re.sub(r"[^\w.+]", "_", version.strip().split(":")[-1])


def distribution() -> dict[str, str]:
    """Return the fields of the system's os-release; none if it has no such file."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _exact_name(package: str, names: list[str]) -> str:
    numbered = [name for name in names if re.fullmatch(re.escape(package) + r"-[\d.]+", name)]
    if package in names or not numbered:
        return package
    return max(numbered, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def sources(suite: str | None) -> list[str]:
    """Return the distribution's own package sources as deb822 text, without those of other vendors."""
    release = distribution().get("VERSION_CODENAME", "")
    texts = []
    for source in _configured():
        own = [name for name in source["Suites"].split() if name in ROLLING or re.fullmatch(rf"{release}(-.+)?", name)]
        if suite and (release in own or set(own) & set(ROLLING)):
            return [_stanza(source, [suite], "main")]
        if own:
            texts.append(_stanza(source, own, source.get("Components", "")))
    if suite or not texts:
        raise UnavailableError(f"apt's configuration names no mirror of {release or 'this system'}")
    return texts


def _stanza(source: dict[str, str], suites: list[str], components: str) -> str:
    lines = [
        "Types: deb",
        f"URIs: {source['URIs']}",
        f"Suites: {' '.join(suites)}",
        f"Components: {components}",
    ]
    lines += [f"{field}: {source[field]}" for field in ("Signed-By", "Trusted") if field in source]
    return "\n".join([*lines, ""])


def _configured() -> list[dict[str, str]]:
    """Read every package source of the machine, in both of apt's formats."""
    configured = []
    for path in [ETC / "sources.list", *sorted((ETC / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix == ".list":
            configured += [_one_line(line) for line in path.read_text().splitlines() if line.startswith("deb ")]
        elif path.is_file() and path.suffix == ".sources":
            configured += [_fields(block) for block in re.split(r"\n\s*\n", path.read_text())]
    return [
        source
        for source in configured
        if "deb" in source.get("Types", "").split()
        and source.get("Enabled", "yes").lower() != "no"
        and source.get("URIs")
        and source.get("Suites")
    ]


def _one_line(line: str) -> dict[str, str]:
    match = re.match(r"deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line)
    if not match:
        return {}
    options, uri, suite, components = match.groups()
    source = {"Types": "deb", "URIs": uri, "Suites": suite, "Components": components.strip()}
    for name, value in re.findall(r"([\w-]+)=(\S+)", options or ""):
        source[name.title()] = value
    return source


def _fields(block: str) -> dict[str, str]:
    source: dict[str, str] = {}
    field = ""
    for line in block.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace() and field:
            source[field] += "\n" + line
        elif ":" in line:
            field, value = line.split(":", 1)
            source[field] = value.strip()
    return source
