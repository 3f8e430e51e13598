"""`make configurations` has a valid list, and continues where it was stopped."""

from __future__ import annotations

from pathlib import Path

import configurations
import pytest
from dbservers.engines import ENGINES
from tried import CONFIGURATIONS, REFUSED, Configuration

BAD_OPTION = '{"timeout": "long"}'
EXACT = Configuration("exact", url="sqlite:///{folder}/memory.db")
REFUSED_AS_EXPECTED = Configuration("refused", url="sqlite://", arguments=("--options", BAD_OPTION), expected=REFUSED)
NOT_REFUSED = Configuration("not refused", url="sqlite://", expected=REFUSED)
SHORT = ("--operations", "20")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Configuration]:
    """The list of configurations of this test, which has its own state file."""
    chosen: list[Configuration] = [EXACT]
    monkeypatch.setattr(configurations, "CONFIGURATIONS", chosen)
    monkeypatch.setattr(configurations, "STATE", tmp_path / "build" / "state.json")
    return chosen


def test_names_are_unique_and_servers_known() -> None:
    names = [each.name for each in CONFIGURATIONS]
    assert len(names) == len(set(names)) > 100
    assert {server for each in CONFIGURATIONS for server in each.servers} <= set(ENGINES)


def test_a_configuration_that_has_passed_is_not_run_again(
    tried: list[Configuration], capsys: pytest.CaptureFixture[str]
) -> None:
    assert configurations.main(SHORT) == 0
    assert (
        "1 of 1 configurations: 1 exact, 0 refused as they must be, 0 wrong\n20 operations" in capsys.readouterr().out
    )
    assert configurations.main(SHORT) == 0
    assert "1 configurations, 1 of them done before" in capsys.readouterr().out
    assert configurations.main((*SHORT, "--restart")) == 0
    assert "1 configurations, 0 of them done before" in capsys.readouterr().out


def test_a_wrong_configuration_is_reported_and_run_again(
    tried: list[Configuration], capsys: pytest.CaptureFixture[str]
) -> None:
    tried[:] = [REFUSED_AS_EXPECTED, NOT_REFUSED]
    assert configurations.main(SHORT) == 1
    assert "2 of 2 configurations: 0 exact, 1 refused as they must be, 1 wrong" in capsys.readouterr().out
    tried[:] = [NOT_REFUSED]
    assert configurations.main(SHORT) == 1
    assert "1 configurations, 0 of them done before" in capsys.readouterr().out
