"""Sizes of deployments follow the plan."""

import io
import json
import tomllib
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import yaml

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.plan.decision.advice import advise
from seawall.plan.decision.answer import CapacityChange
from seawall.ship.schedule import capacity_schedule, parse_crowd
from tests.once import once
from tests.ship.chart import only, rendered
from tests.ship.test_templates import load

WORKLOADS = {
    "small": ("--daily", "20K", "--spike", "300@20s"),
    "large": ("--daily", "60K", "--spike", "3000@20s", "--announced"),
}
CROWD = ("--crowd", "FRI 20:00", "--timezone", "Europe/Berlin")


def plan(*flags: str) -> str:
    """The plan, as JSON; the same question is answered once in a test run.

    Without variations of the inputs, of which deployments need nothing.
    """
    return once("_".join(("plan", *flags)), lambda: _plan(*flags))


def _plan(*flags: str) -> str:
    with patch("seawall.plan.decision.advice.advise", partial(advise, vary=False)):
        return seawall("plan", "--json", *flags)


def seawall(*arguments: str) -> str:
    """The command, in this process: it only reads and writes files."""
    output = io.StringIO()
    with redirect_stdout(output):
        assert main(list(arguments)) == 0
    return output.getvalue()


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two workloads, planned."""
    folder = tmp_path_factory.mktemp("plans")
    for name, flags in WORKLOADS.items():
        (folder / f"{name}.json").write_text(plan(*flags))
    return {name: folder / f"{name}.json" for name in WORKLOADS}


def configuration(plan: Path, platform: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan.read_bytes())["platforms"][platform]["configuration"]
    return found


def eks(plan: Path, out: Path, *flags: str) -> dict[str, Any]:
    seawall("ship", "eks", "--plan", str(plan), "--out", str(out), *flags)
    values: dict[str, Any] = yaml.safe_load((out / "values.yaml").read_text())
    return values


def function(plan: Path, out: Path, kind: str, *flags: str) -> dict[str, str]:
    """What sizes it, and that the template has it, as literals."""
    command = ("ship", "lambda", "--plan", str(plan), "--out", str(out), "--kind", kind, "--json")
    sized: dict[str, str] = json.loads(seawall(*command, *flags))["sized"]
    assert sized.pop("kind") == kind
    resources = load(out / "template.yaml")["Resources"]
    properties = resources["Turns"]["Properties"]
    assert properties["MemorySize"] == int(sized["MemoryMb"])
    assert properties["Timeout"] == int(sized["TimeoutSeconds"])
    assert properties["Architectures"] == [sized["Architecture"]]
    reserved = properties.get("ReservedConcurrentExecutions", 0)
    assert reserved == int(sized.get("ReservedConcurrency", 0))
    if "CrowdProvisioned" in sized:
        scaling = resources["Scaling"]["Properties"]
        assert scaling["MaxCapacity"] == int(sized["CrowdProvisioned"])
    if "CrowdMinimum" in sized:
        call = resources["CrowdComes"]["Properties"]["Target"]["Input"]["Fn::Sub"][0]
        assert f'"MinExecutionEnvironments": {sized["CrowdMinimum"]},' in call
    settings = tomllib.loads((out / "samconfig.toml").read_text())["default"]["deploy"]
    assert settings["parameters"]["resolve_s3"] is True
    return sized


@pytest.mark.parametrize("size", WORKLOADS)
def test_pods_are_sized_as_planned(plans: dict[str, Path], tmp_path: Path, size: str) -> None:
    planned = configuration(plans[size], "eks")
    values = eks(plans[size], tmp_path, *CROWD, "--cluster", "shop", "--node-role", "nodes")
    objects = rendered(values)  # so the chart's schema takes them as well
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    workers = int(env["SEAWALL_SERVER__WORKERS"])
    assert container["resources"]["limits"]["memory"] == f"{planned['memory_mb']}Mi"
    assert float(container["resources"]["requests"]["cpu"]) == planned["cores"]
    assert int(env["SEAWALL_ADMISSION__IN_FLIGHT"]) * workers >= planned["in_flight"]
    assert int(env["SEAWALL_ADMISSION__QUEUED"]) * workers >= planned["queue"]
    scaler = planned["autoscaler"]
    if scaler is None and not planned["schedule"]:
        assert only(objects, "Deployment")["spec"]["replicas"] == planned["pods"]
    elif scaler is None or scaler["metric"] == "in-flight" or planned["schedule"]:
        scaled = only(objects, "ScaledObject")["spec"]
        assert scaled["minReplicaCount"] == (scaler or {"minimum": planned["pods"]})["minimum"]
        for trigger in scaled["triggers"]:
            if trigger["type"] == "prometheus":
                assert float(trigger["metadata"]["threshold"]) == scaler["target"]
            if trigger["type"] == "cron":
                most = max(each["count"] for each in planned["schedule"])
                assert int(trigger["metadata"]["desiredReplicas"]) == most
                assert scaled["maxReplicaCount"] >= most
    else:
        hpa = only(objects, "HorizontalPodAutoscaler")["spec"]
        assert (hpa["minReplicas"], hpa["maxReplicas"]) == (scaler["minimum"], scaler["maximum"])
    if planned["nodes"]["instance"] != "fargate":
        requirements = only(objects, "NodePool")["spec"]["template"]["spec"]["requirements"]
        types = {each["key"]: each["values"] for each in requirements}
        assert types["node.kubernetes.io/instance-type"] == [planned["nodes"]["instance"]]


def test_a_larger_workload_has_larger_values(plans: dict[str, Path], tmp_path: Path) -> None:
    small = eks(plans["small"], tmp_path / "s", *CROWD)
    large = eks(plans["large"], tmp_path / "l", *CROWD)
    assert large["autoscaling"]["maximum"] > small["autoscaling"]["maximum"]
    provisioned = [
        function(plans[size], tmp_path / f"p-{size}", "lambda-provisioned", *CROWD)
        for size in WORKLOADS
    ]
    most = [
        max(int(each["Provisioned"]), int(each.get("CrowdProvisioned", 0))) for each in provisioned
    ]
    assert most[1] > most[0]


@pytest.mark.parametrize("size", WORKLOADS)
def test_functions_are_sized_as_planned(plans: dict[str, Path], tmp_path: Path, size: str) -> None:
    for kind, start in (
        ("lambda", "on-demand"),
        ("lambda-snapstart", "snapstart"),
        ("lambda-provisioned", "provisioned"),
    ):
        planned = configuration(plans[size], kind)
        parameters = function(plans[size], tmp_path / kind, kind, *CROWD)
        assert parameters["Start"] == start
        assert int(parameters["MemoryMb"]) == planned["memory_mb"]
        assert parameters["Architecture"] == planned["architecture"]
        assert int(parameters["TimeoutSeconds"]) == planned["timeout_seconds"]
        assert int(parameters["ReservedConcurrency"]) == (planned["reserved_concurrency"] or 0)
        if kind == "lambda-provisioned":
            assert int(parameters["Provisioned"]) == max(1, planned["provisioned"])
            most = max((each["count"] for each in planned["schedule"]), default=0)
            assert int(parameters.get("CrowdProvisioned", 0)) == most
    planned = configuration(plans[size], "lambda-managed")
    parameters = function(plans[size], tmp_path / "managed", "lambda-managed", *CROWD)
    most = max((each["count"] for each in planned["schedule"]), default=0)
    assert int(parameters.get("CrowdMinimum", 0)) == most
    assert int(parameters["InFlight"]) == planned["in_flight"]
    assert int(parameters["MinimumEnvironments"]) == planned["minimum"]
    assert int(parameters["MaximumEnvironments"]) >= planned["maximum"]


def test_a_scheduled_plan_asks_for_the_time_of_the_crowd(
    plans: dict[str, Path], tmp_path: Path
) -> None:
    scheduled = configuration(plans["large"], "lambda-provisioned")["schedule"]
    assert scheduled, "an announced crowd is scheduled"
    command = ("ship", "lambda", "--plan", str(plans["large"]), "--out", str(tmp_path), "--json")
    result = json.loads(seawall(*command, "--kind", "lambda-provisioned"))
    assert any("--crowd" in note for note in result["notes"])
    timed = json.loads(seawall(*command, "--kind", "lambda-provisioned", *CROWD))
    assert not any("--crowd" in note for note in timed["notes"])
    assert timed["sized"]["CrowdTimezone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "lead", "cron", "aws"),
    [
        ("20:00", -900, "45 19 * * *", "cron(45 19 * * ? *)"),
        ("FRI 20:00", -900, "45 19 * * FRI", "cron(45 19 ? * FRI *)"),
        ("SUN 00:05", -600, "55 23 * * SAT", "cron(55 23 ? * SAT *)"),
        ("SAT 23:59", 61, "0 0 * * SUN", "cron(0 0 ? * SUN *)"),
        ("2028-03-01 00:00", -60, "59 23 29 2 *", "cron(59 23 29 2 ? 2028)"),
        ("20:00", -1, "59 19 * * *", "cron(59 19 * * ? *)"),
    ],
)
def test_schedules_lead_over_midnight(text: str, lead: float, cron: str, aws: str) -> None:
    crowd = parse_crowd(text, "UTC").shifted(lead)
    assert (crowd.cron(), crowd.aws_cron()) == (cron, aws)


def test_a_schedule_begins_early_and_ends_late() -> None:
    moments = (CapacityChange(-900.0, 21), CapacityChange(890.0, 2))
    found = capacity_schedule(parse_crowd("20:00", "UTC"), moments, 2)
    assert found is not None
    assert (found.begins.cron(), found.ends.cron()) == ("45 19 * * *", "15 20 * * *")
    assert (found.count, found.otherwise) == (21, 2)


@pytest.mark.parametrize("wrong", ["", "noon", "25:00", "20:60", "XXX 20:00", "2027-13-01 20:00"])
def test_an_invalid_time_of_a_crowd_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="--crowd"):
        parse_crowd(wrong, "UTC")


def test_a_platform_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ECS: its sizes are in the plan, its deployment is not."""
    whole = tmp_path / "plan.json"
    whole.write_text(plan("--daily", "2M", "--platforms", "ecs-ec2,lambda,eks"))
    assert json.loads(whole.read_text())["choice"] == "ecs-ec2"
    out = ("--plan", str(whole), "--out", str(tmp_path / "out"))
    assert main(["ship", "lambda", *out, "--kind", "ecs-ec2"]) == 2
    assert '"ecs-ec2" cannot be written: it is no function' in capsys.readouterr().err
    for kind in ("eks", "lambda"):
        written = json.loads(seawall("ship", kind, *out, "--force", "--json"))
        assert "choice is ECS on EC2, for which ship writes nothing" in written["notes"][0]
    alone = tmp_path / "alone.json"
    alone.write_text(plan("--daily", "2M", "--platforms", "ecs-fargate"))
    assert main(["ship", "eks", "--plan", str(alone), "--out", str(tmp_path / "none")]) == 2
    assert "no platform eks; it has: ecs-fargate" in capsys.readouterr().err


def test_several_functions_are_deployed_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan("--spike", "3000@20s", "--platforms", "lambda"))
    command = ("ship", "lambda", "--plan", str(file), "--out", str(tmp_path / "out"), "--json")
    notes = json.loads(seawall(*command))["notes"]
    assert any("3 identical functions (cloudfront): deploy this" in note for note in notes)


@pytest.mark.parametrize("wrong", [b"", b"{}", b"[1]", b'{"schema": "seawall.plan/9"}', b"\xff"])
def test_a_file_that_is_not_a_plan_is_refused(
    tmp_path: Path, wrong: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(wrong)
    assert main(["ship", "eks", "--plan", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "plan.json" in capsys.readouterr().err


def test_a_plan_of_another_version_is_refused(
    plans: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = msgspec.json.decode(plans["small"].read_bytes())
    document["schema"] = "seawall.plan/9"
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(document))
    assert main(["ship", "lambda", "--plan", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "seawall.plan/9" in capsys.readouterr().err
