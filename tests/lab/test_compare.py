"""The commands `lab calibrate` and `lab compare`, on a small scale."""

import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from seawall.lab.calibration import load_calibration
from tests.attack.balancer import require_balancer
from tests.fork_server import run
from tests.servers import ROOT, command

QUICK = ("--first-token", "0.05..0.1", "--duration", "0.6..0.8", "--chunks", "10")


def lab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return command("lab", *arguments, seconds=280)


def test_the_same_crowd_is_measured_and_predicted_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_balancer()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file, page = tmp_path / "calibration.json", tmp_path / "compare.html"
    done = lab("calibrate", "--quick", "--out", str(file), *QUICK)
    assert done.returncode == 0, done.stderr
    calibration = load_calibration(file)
    assert len(calibration.start_seconds) == 2
    assert min(calibration.start_seconds) > 0
    assert calibration.cpu_ms > 0
    assert 10 < calibration.memory_mb < 80
    assert calibration.connections >= 2  # to the model and to the store
    assert sum(calibration.lab.start_parts.values()) > 0
    assert (calibration.lab.store, calibration.lab.configuration) == (
        "sqlite",
        "store/seawall.toml",
    )
    words = ("compare", "--calibration", str(file), "--at-once", "4", "--json", "--html", str(page))
    done = run(["lab", *words, *QUICK], os.environ, ROOT, seconds=280, planner=True)
    assert done.returncode == 0, done.stderr
    pods, functions = json.loads(done.stdout)["runs"][0]["fleets"]
    for each in (pods, functions):
        assert each["result"]["completed"] == each["result"]["durability"]["found"] == 4
        assert each["prediction"]["served"] == 4
        assert set(each["errors"]) >= {"first text p50", "first text p95", "first text p99"}
    assert (pods["initialisations"], pods["cold_starts"]) == (2, 0)
    assert pods["store_opened"] == 0  # pods have theirs open already
    started = functions["initialisations"]
    assert 1 <= started <= 4
    assert functions["cold_starts"] == functions["store_opened"] == started
    assert functions["model_opened"] >= started
    text = page.read_text()
    assert text.count("data-chart=") == 10
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert msgspec.json.decode(done.stdout)["calibration"]["format"] == "seawall.calibration/1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--html", "/no/such/x.html"], "--html: /no/such/x.html cannot be written"),
        (["calibrate", "--out", "/no/such/x.json"], "--out: /no/such/x.json cannot be written"),
        (["calibrate", "--out", "/"], "--out: / is a folder"),
        (["compare", "--rate", "0@30s"], "no turn arrives in that time"),
        (["compare", "--rate", "1@0s"], "no turn arrives in that time"),
        (["compare", "--rate", "1M@1h"], "is more than 100000 turns"),
    ],
)
def test_wrong_options_are_reported_before_measuring(arguments: list[str], message: str) -> None:
    done = lab(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
