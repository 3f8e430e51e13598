"""The benchmarks start the servers that they measure, and no others."""

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
def test_only_servers_that_are_measured_are_started(argv: list[str], servers: list[str]) -> None:
    assert bench.servers_for(argv) == servers
