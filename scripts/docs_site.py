"""A hook of MkDocs: the site has the pages of docs/, those at the root of the repository, and the links between them.

Pages keep their paths in the repository as their names, so that a link works in a repository and on the site.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
AT_THE_ROOT = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FOLDERS = ("docs", "examples")


def on_files(files: Any, config: Any) -> Any:
    """Replace the files of docs/ by the files of the site, each under its path in the repository."""
    from mkdocs.structure.files import File

    for file in files.documentation_pages() + files.static_pages() + files.media_files():
        if file.src_dir == config["docs_dir"]:
            files.remove(file)
    for path in sources():
        file = File.generated(config, path.relative_to(REPO).as_posix(), abs_src_path=str(path))
        if path.is_relative_to(REPO / "docs"):
            file.dest_uri = file.dest_uri.removeprefix("docs/")
        files.append(file)
    return files


def sources() -> list[Path]:
    """Return the files of the site."""
    inside = [path for folder in FOLDERS for path in sorted((REPO / folder).rglob("*"))]
    hidden = [path for path in inside if ".db" in path.name]  # memories, which running an example has left
    return [REPO / name for name in AT_THE_ROOT] + [path for path in inside if path.is_file() and path not in hidden]
