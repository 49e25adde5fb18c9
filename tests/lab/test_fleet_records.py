"""State files of fleets are removed when nothing is left of the fleet."""

import os
import time
from pathlib import Path

import pytest

from seawall.cli.main import main
from seawall.lab.fleet.state import (
    FleetState,
    clean_up,
    list_fleets,
    process_start_ticks,
    save_state,
)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "seawall" / "lab"


def record(name: str, pid: int = 1, born: int = -1, folder: str = "") -> None:
    save_state(FleetState(name=name, mark=f"seawall-{name}", pid=pid, born=born, folder=folder))


def age(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


def test_leftovers_of_a_crash_are_removed_and_running_fleets_are_not(records: Path) -> None:
    left = records.parent / "seawall-lab-left"
    left.mkdir(parents=True)
    record("crashed", folder=str(left))
    record("mine", pid=os.getpid(), born=process_start_ticks(os.getpid()))
    (records / "broken.json").write_text("{")
    lines: list[str] = []
    clean_up(report=lines.append)
    assert [each.name for each in list_fleets()] == ["mine"]
    assert not left.exists()
    assert not (records / "broken.json").exists()
    assert lines == [
        "broken: its state file is invalid; removed",
        "crashed: had crashed; leftovers removed",
    ]


def test_a_crashed_fleet_is_listed_for_an_hour(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("fresh")
    record("old")
    age(records / "old.json", 4_000)
    assert main(["lab", "ps"]) == 0
    out, errors = capsys.readouterr()
    assert "fresh        crashed" in out
    assert "seawall lab down fresh" in out
    assert "old" not in out
    assert "old: had crashed; leftovers removed" in errors
    age(records / "fresh.json", 4_000)
    assert main(["lab", "ps"]) == 0
    assert capsys.readouterr().out == "There are no fleets.\n"
