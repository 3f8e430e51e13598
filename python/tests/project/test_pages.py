"""The pages of the documentation hang together: each is in the site, each link leads somewhere, each name is described.

The site itself is built by `make docs`, which needs packages that the tests do not have.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from the_edge_agent import memory

pytestmark = [pytest.mark.highest_versions]

ROOT = Path(__file__).parents[3]
AT_THE_ROOT = [
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
]
PAGES = [*AT_THE_ROOT, *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CLAUDE.md"]
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
DESCRIBED = re.compile(r"^::: the_edge_agent\.memory\.(\w+)$|`(\w+)`", re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def in_nav(part: Any) -> Iterator[str]:
    """Yield the pages of a part of `nav`: a path, or a list or a dict of parts."""
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from in_nav(inner)


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchor of a heading: its text in lower case, with `-` for spaces."""
    slugs: set[str] = set()
    for heading in HEADING.finditer(prose(page)):
        text = LINK.sub(lambda link: link[0][1 : link[0].index("](")], heading["text"])
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        slugs.add(slug if slug not in slugs else f"{slug}-{sum(one.startswith(slug) for one in slugs)}")
    return frozenset(slugs)


def broken(page: Path) -> Iterator[str]:
    """Yield the links of a page that lead nowhere."""
    for link in LINK.finditer(re.sub(r"``.*?``|`[^`]*`", "", prose(page))):
        path, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", link["target"]):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link["target"]


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(in_nav(nav)) == sorted(name(page) for page in PAGES)


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(broken(page)) == []


def test_every_public_name_of_the_memory_is_in_a_reference_page() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    described = {one or other for page in pages for one, other in DESCRIBED.findall(page.read_text(encoding="utf-8"))}
    assert set(memory.__all__) - described == set()


def test_the_site_and_its_environment_are_no_part_of_the_repository() -> None:
    folders = [".venv-docs/file", "build/site/index.html"]
    ignored = subprocess.run(["git", "check-ignore", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if ignored.returncode != 128:  # this is a copy without git
        assert ignored.stdout.split() == folders


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page: `one`\n[here](#a-page-one) [none](#none) [no file](none.md)\n"
        "[it](page.md#a-page-one) `[code](none.md)`\n```text\n[block](none.md)\n```\n",
        encoding="utf-8",
    )
    assert list(broken(page)) == ["#none", "none.md"]
