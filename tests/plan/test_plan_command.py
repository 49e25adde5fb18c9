"""The command `seawall plan`: output, JSON, checks and errors."""

import json
import os
import pty
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from seawall.cli.main import main
from seawall.plan.decision.answer import (
    Answer,
    Autoscaler,
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
    NodeGroup,
    ServiceConfiguration,
    SessionConfiguration,
)
from tests.fork_server import shell_command
from tests.parts import data_file
from tests.servers import ROOT

QUIET = ["--daily", "100", "--duration", "2s"]
FEW = ["--platforms", "lambda,eks"]  # where the platforms are not the subject
CHECKED = """
[arrivals]
daily = "1200000"
spikes = ["5000@20s"]
[options]
platforms = ["lambda", "lambda-provisioned", "lambda-managed", "ecs-ec2", "eks"]
[deployed]
platform = "{platform}"
{size}
"""


def run_plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["plan", *arguments])
    out, error = capsys.readouterr()
    return status, out, error


def without_age(out: str) -> str:
    """Without the line that appears once the shipped prices are older than 90 days."""
    return out.partition("Prices of us-east-1 are of")[0]


def test_the_default_answer_fits_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, error = run_plan(capsys)
    assert (status, error) == (0, "")
    lines = without_age(out).splitlines()
    assert len(lines) <= 30
    assert max(len(line) for line in lines) <= 80
    assert "5,000 at once" in out
    assert re.search(r"^> ECS, EC2 .*met$", out, re.MULTILINE)
    assert re.search(r"^  Lambda  .*met$", out, re.MULTILINE)
    for word in ("margin", "break-even", "sensitivity", "rule of thumb", "confidence"):
        assert re.search(rf"^{word} ", out, re.MULTILINE)


@pytest.mark.parametrize(
    "flags",
    [
        QUIET,
        ["--spike", "300@5s+10s", "--announced", "--duration", "3s", "--init", "200ms"],
        ["--daily", "20k", "--account-limit", "5", "--latency", "3s"],
    ],
)
def test_every_screen_fits(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    status, out, _ = run_plan(capsys, *flags)
    assert status == 0
    assert len(without_age(out).splitlines()) <= 30
    assert max(len(line) for line in out.splitlines()) <= 80


def test_json_is_the_whole_answer(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run_plan(
        capsys, *QUIET, *FEW, "--json", "--region", "eu-central-1", "--discount", "ec2=28%"
    )
    assert status == 0
    answer = msgspec.json.decode(out, type=Answer)
    assert (answer.choice, answer.region) == ("lambda", "eu-central-1")
    inputs = {each.name: each for each in answer.inputs}
    assert inputs["arrivals.rate"].given and inputs["prices"].given  # noqa: PT018
    assert not inputs["service.memory_mb"].given
    assert "measured" in inputs["service.memory_mb"].source


def test_the_report_is_written_beside_the_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    status, out, _ = run_plan(capsys, *QUIET, *FEW, "--html", str(file))
    assert status == 0
    assert out.endswith(f"report: {file}\n")
    assert "<html" in file.read_text(encoding="utf-8")
    nowhere = tmp_path / "nowhere" / "report.html"
    status, _, error = run_plan(capsys, *QUIET, *FEW, "--html", str(nowhere))
    assert status == 2
    assert "cannot be written" in error


def test_a_recorded_trace(capsys: pytest.CaptureFixture[str]) -> None:
    azure = data_file("azure_llm_conv_2023.csv")
    status, out, _ = run_plan(capsys, "--trace", str(azure), *FEW, "--json")
    assert status == 0
    answer = msgspec.json.decode(out, type=Answer)
    assert answer.met
    assert answer.traffic.requests_a_day == pytest.approx(19_366 * 24 * 3_600 / 3_501, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--daily", "-5"], "daily: '-5' is negative"),
        (["--daily", "nan"], "daily: 'nan' is not a number"),
        (["--spike", "lots"], "spike: 'lots' is not a spike"),
        (["--spike", "5000@-1s"], "spike: '-1s' is negative"),
        (["--duration", "7s..4s"], "duration: the minimum, 7, exceeds the maximum, 4"),
        (["--init", "soon"], "init: 'soon' is not a time"),
        (["--errors", "some"], "--errors: 'some' is not a share"),
        (["--errors", "200%"], "--errors: '200%' is not from 0 to 100 per cent"),
        (["--errors", "0.5"], "--errors: '0.5' is ambiguous; write 0.5% or 50%"),
        (["--first-token", "0s"], "objective.first_token_p99: 0 is not a positive number"),
        (["--budget", "nan"], "--budget: 'nan' is not an amount such as 500, $500 or 1.5k"),
        (["--budget", "0"], "objective.monthly_cost: 0 is not a positive number"),
        (["--budget", "500 EUR"], "--budget: '500 EUR' is not in USD, as the prices are"),
        (["--account-limit", "0"], "options.account_limit: must be at least 1"),
        (["--zones", "0"], "options.zones: must be from 1 to 6"),
        (["--spikes-a-month", "-1"], "options.spikes_a_month: -1 is negative"),
        (["--region", "mars"], "region: no prices of 'mars'"),
        (["--discount", "ec2=all"], "discount: ec2: 'all' is not a share such as 1%"),
        (["--daily", "0"], "arrivals: no requests"),
        (["--trace", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--prices", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--workload", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--calibration", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--check", "nowhere.toml"], "nowhere.toml: cannot be read"),
    ],
)
def test_errors_name_the_flag(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, out, error = run_plan(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the trace is empty"),
        ("timestamp\n", "the trace is empty"),
        ("timestamp\n1764064800000\n", "trace.csv: one request at one time: there is no rate"),
        ("timestamp\n5\n3\n", "trace: 2 requests in 4 s: too short for the traffic of a month"),
        ("timestamp\n1\nnan\n", ":3: 'nan' is not a time"),
    ],
)
def test_errors_of_traces(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text, encoding="utf-8")
    status, _, error = run_plan(capsys, "--trace", str(file))
    assert status == 2
    assert message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[weather]\nsun = 1", "weather: unknown; known:"),
        ("[objective]\nspeed = 1", "objective.speed: unknown; known:"),
        (
            '[objective]\nfirst_token_p99 = "fast"',
            "objective.first_token_p99: 'fast' is not a time",
        ),
        ("[objective]\nfirst_token_p99 = true", "objective.first_token_p99: Expected `float`"),
        ('[options]\nzones = "1.5"', "options.zones: Expected `int`"),
        ('[deployed]\nplatform = "eks"\ncores = "much"', "deployed.cores: 'much' is not a number"),
        ("[options]\nannounced = 1", "options.announced: Expected `bool`"),
        ("[each]\nlog_kb = -1.0", "each.log_kb: -1 is negative"),
        ('[prices]\nregion = "mars"', "region: no prices of 'mars'"),
        ("[prices]\ncheap = true", "prices.cheap: unknown"),
        ('[deployed]\nplatform = "vm"', "deployed: Invalid enum value 'vm'"),
        ('[deployed]\nplatform = "lambda"\nprovisioned = 5', "deployed.provisioned: not with"),
        ('[check]\nchoice = "vm"', "check.choice: unknown 'vm'"),
        ('[arrivals]\ndaily = "-1"', "arrivals.daily: '-1' is negative"),
        ("[arrivals", "plan.toml: "),
    ],
)
def test_errors_of_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text, encoding="utf-8")
    status, _, error = run_plan(capsys, "--check", str(file))
    assert status == 2
    assert message in error


@pytest.mark.parametrize(
    ("platform", "size", "status"),
    [
        ("eks", "pods = 8", 0),
        ("eks", "pods = 2", 1),
        ("lambda", "memory_mb = 1769", 1),
        ("lambda-provisioned", "provisioned = 5200\nmemory_mb = 512", 0),
        ("lambda-managed", "minimum = 100", 0),
    ],
)
def test_checks_of_deployed_configurations(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, platform: str, size: str, status: int
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(CHECKED.format(platform=platform, size=size), encoding="utf-8")
    found, out, _ = run_plan(capsys, "--check", str(file))
    assert found == status
    assert out.startswith("FAILED: " if status else "PASSED: ")
    assert ("misses the objective" in out) == (status == 1)
    assert ("(at most 1 %)" in out) == (status == 1)


def test_a_check_of_choice_and_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    text = CHECKED.format(platform="eks", size="pods = 8") + '[check]\nchoice = "lambda"\n'
    file.write_text(text + "[objective]\nmonthly_cost = 100\n", encoding="utf-8")
    status, out, _ = run_plan(capsys, "--check", str(file), "--json")
    assert status == 1
    found = json.loads(out)
    assert not found["holds"]
    assert "at most $100" in found["misses"][0]
    assert "the choice is ecs-ec2, not lambda" in found["misses"][1]


def test_a_calibration_replaces_defaults_only(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "calibration.json"
    measured = {
        "format": "seawall.calibration/1", "machine": "a laptop", "date": "2026-11-25",
        "start_seconds": [0.1, 0.12, 0.2], "cpu_ms": 1.5, "memory_mb": 55,
    }  # fmt: skip
    file.write_text(json.dumps(measured), encoding="utf-8")
    flags = [*QUIET, *FEW, "--calibration", str(file), "--json"]
    _, out, _ = run_plan(capsys, *flags)
    inputs = {each.name: each for each in msgspec.json.decode(out, type=Answer).inputs}
    assert inputs["service.stages.cpu_ms"].value == "1.5 ms"
    assert "a laptop, 2026-11-25" in inputs["service.memory_mb"].source
    assert inputs["service.start"].value == "measured, p50 120 ms"
    _, out, _ = run_plan(capsys, *flags, "--init", "3s")
    inputs = {each.name: each for each in msgspec.json.decode(out, type=Answer).inputs}
    assert (inputs["service.start"].value, inputs["service.start"].source) == ("3 s", "given")
    file.write_text(json.dumps(measured | {"format": "other"}), encoding="utf-8")
    status, _, error = run_plan(capsys, *flags)
    assert status == 2 and "format: 'other'" in error  # noqa: PT018


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [str(shell_command(tmp_path, planner=True)), "plan", *QUIET, *FEW]
    written, output = tmp_path / "out", b""
    with (
        written.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=follower) as process,
    ):
        os.close(follower)
        with suppress(OSError):  # the other end is closed
            while piece := os.read(leader, 65_536):
                output += piece
    os.close(leader)
    assert process.returncode == 0
    assert b"> Lambda" in written.read_bytes()
    assert re.search(rb"\d+ simulations", output)
    assert output.endswith(b"\r")  # and is erased at the end


def test_the_docs_name_every_field_of_a_configuration() -> None:
    text = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8").partition("| kind | fields |")[2]
    for kind, types in {
        "lambda": [LambdaConfiguration],
        "managed": [ManagedConfiguration],
        "eks": [EksConfiguration, Autoscaler, NodeGroup],
        "service": [ServiceConfiguration],
        "sessions": [SessionConfiguration],
    }.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{kind}` |"))
        documented = set(re.findall(r"`(\w+)`", row)) - {kind}
        names = [name for each in types for name in each.__struct_fields__]  # type: ignore[attr-defined]
        assert documented == set(names)


def test_a_file_with_traffic_from_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Flags add to a file, which may lack arrivals."""
    file = tmp_path / "service.toml"
    file.write_text("[service]\nmemory_mb = 300.0\n", encoding="utf-8")
    flags = ("--workload", str(file), "--duration", "2s", *FEW, "--json")
    status, out, _ = run_plan(capsys, *flags, "--daily", "100")
    assert status == 0
    answer = msgspec.json.decode(out, type=Answer)
    assert answer.traffic.requests_a_day == pytest.approx(100)
    status, _, error = run_plan(capsys, *flags)
    assert (status, "arrivals: no requests" in error) == (2, True)
