"""Which servers the benchmarks start."""

from __future__ import annotations

import bench
import pytest


@pytest.mark.parametrize(
    ("argv", "servers"),
    [
        ([], ["postgres", "mariadb", "mysql"]),
        (["--short", "--operations", "get"], ["postgres", "mariadb", "mysql"]),
        (["--only", "sqlite"], []),
        (["--short", "--only", "postgresql,mysql"], ["postgres", "mysql"]),
        (["--only=sqlite,mariadb"], ["mariadb"]),
        (["--only"], []),
    ],
)
def test_only_what_is_measured_is_started(argv: list[str], servers: list[str]) -> None:
    assert bench.wanted(argv) == servers
