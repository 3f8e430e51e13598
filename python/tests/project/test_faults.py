"""The fault tests in their short form; `make faults` runs the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from databases import SERVERS, chosen_targets
from faults import targets
from faults.__main__ import FAULTS, Fault, line, main, run
from run_length import SEED, of_this_day

pytestmark = [pytest.mark.highest_versions, pytest.mark.slow]

SCRIPTS = Path(__file__).parents[3] / "scripts"
CHOSEN = {target.name for target in chosen_targets()}
NAMES = [name for name in targets.OF_ONE_SERVER if name in CHOSEN]


def short_forms() -> list[tuple[Fault, str]]:
    """Return the fault tests that need nothing of their own, each on SQLite and on some other targets of this day."""
    forms = [
        (fault, name)
        for fault in FAULTS
        for name in fault.targets
        if name in NAMES and (not fault.needs or name.startswith("sqlite"))
    ]
    on_sqlite = [(fault, name) for fault, name in forms if name == "sqlite"]
    others = [form for form in forms if form not in on_sqlite]
    return on_sqlite + of_this_day(others, len(others) // 2)


@pytest.mark.parametrize(
    ("fault", "name"), short_forms(), ids=[f"{fault.name}-{name}" for fault, name in short_forms()]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of os.fork beside threads
def test_nothing_is_lost_or_wrong(fault: Fault, name: str) -> None:
    row = run(fault, name, fault.short, SEED)
    assert not row.problems, line(row)


if {*SERVERS} <= CHOSEN:

    def test_nothing_is_lost_when_servers_are_killed() -> None:
        """F2, on servers that this test starts and kills."""
        environment = {name: value for name, value in os.environ.items() if name not in SERVERS.values()}
        environment |= {"TEA_SERVER_RESTARTS": "1", "TEA_FAULTS_OWN_SERVERS": "1"}
        command = [sys.executable, str(SCRIPTS / "servers.py"), "run", "--only", "postgres,mariadb,mysql", "--"]
        command += [sys.executable, "-m", "faults", "--short", "--only", "F2", "--seed", str(SEED)]
        done = subprocess.run(command, cwd=SCRIPTS.parent / "python", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_choice_of_targets_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--targets", "oracle"])
    assert "unknown: oracle" in capsys.readouterr().err
