"""What AWS itself makes of the templates: its own translator, and assertions on its result."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.parts import require
from tests.parts.tools import missing_sam, sam
from tests.properties import number_of_examples, sampled
from tests.servers import ROOT
from tests.ship.test_sized import plan, seawall
from tests.ship.test_templates import ALL, FUNCTIONS, check_permissions, load

KINDS = ["lambda", "lambda-snapstart", "lambda-provisioned", "lambda-managed"]
EVERYTHING = (
    *("--crowd", "FRI 20:00", "--queue", "--otlp", "http://collector:4318"),
    *("--model-key", "OPENAI_API_KEY", "--model-key", "ANTHROPIC_API_KEY"),
)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_base = pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.stem)


def packaged(path: Path) -> str:
    """The template as `sam package` leaves it: a literal local CodeUri becomes an object of S3."""
    (function,) = [
        each["Properties"]
        for each in load(path)["Resources"].values()
        if each["Type"] == "AWS::Serverless::Function"
    ]
    code = function["CodeUri"]
    assert isinstance(code, str), "SAM uploads only what a literal names"
    text = path.read_text()
    assert text.count(f'CodeUri: "{code}"') == 1
    return text.replace(f'CodeUri: "{code}"', 'CodeUri: "s3://packages/of-this-content"')


def translated(path: Path) -> dict[str, dict[str, Any]]:
    """The resources that CloudFormation is given."""
    parameters = {"Subnets": "subnet-1", "SecurityGroups": "sg-1"}
    found: dict[str, dict[str, Any]] = _ask([packaged(path), parameters])["Resources"]
    return found


def _ask(asked: object) -> Any:
    """What SAM answers (`sam_translate`)."""
    process = _translator()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, f"SAM failed on {asked}; its standard error is above"
    return json.loads(line)


@cache
def _translator() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(sam().with_name("python")), str(ROOT / "tests/ship/sam_translate.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-central-1"},
    )


@pytest.fixture(scope="module", autouse=True)
def _one_translator() -> Iterator[None]:
    """All tests here use one process, which ends with them."""
    require(missing_sam())
    yield
    if _translator.cache_info().currsize:
        _translator().communicate()
        _translator.cache_clear()


def of_type(resources: dict[str, dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in resources.items() if each["Type"] == kind}


def only(resources: dict[str, dict[str, Any]], kind: str) -> tuple[str, dict[str, Any]]:
    (found,) = of_type(resources, kind).items()
    return found[0], found[1]["Properties"]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "plan.json"
    path.write_text(plan("--daily", "60K", "--spike", "3000@20s", "--announced"))
    return path


def shipped(planned: Path, out: Path, kind: str, *options: str) -> Path:
    seawall("ship", "lambda", "--plan", str(planned), "--out", str(out), "--kind", kind, *options)
    return out / "template.yaml"


def check_url(resources: dict[str, dict[str, Any]], *, public: bool) -> None:
    alias, _ = only(resources, "AWS::Lambda::Alias")
    _, url = only(resources, "AWS::Lambda::Url")
    assert url["TargetFunctionArn"] == {"Ref": alias}
    assert url["InvokeMode"] == "RESPONSE_STREAM"
    permissions = [
        each["Properties"] for each in of_type(resources, "AWS::Lambda::Permission").values()
    ]
    if not public:
        assert url["AuthType"] == "AWS_IAM"
        assert permissions == []
        return
    assert url["AuthType"] == "NONE"
    assert sorted(permissions, key=lambda each: str(each["Action"])) == [
        {
            "Action": "lambda:InvokeFunction",
            "FunctionName": {"Ref": alias},
            "InvokedViaFunctionUrl": True,
            "Principal": "*",
        },
        {
            "Action": "lambda:InvokeFunctionUrl",
            "FunctionName": {"Ref": alias},
            "FunctionUrlAuthType": "NONE",
            "Principal": "*",
        },
    ]


@each_base
def test_the_url_is_public_where_seawall_authenticates(path: Path) -> None:
    check_url(translated(path), public=True)


@each_kind
def test_shipped_templates_are_translated(planned: Path, tmp_path: Path, kind: str) -> None:
    resources = translated(shipped(planned, tmp_path, kind, *EVERYTHING))
    check_url(resources, public=True)
    name, function = only(resources, "AWS::Lambda::Function")
    check_permissions(load(tmp_path / "template.yaml")["Resources"])
    alias, moved = only(resources, "AWS::Lambda::Alias")
    version, _ = only(resources, "AWS::Lambda::Version")
    assert moved["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}
    # Policies: the table, and the models of Bedrock.
    role = resources["Role"]["Properties"]
    imported = [each["Fn::ImportValue"] for each in role["ManagedPolicyArns"]]
    assert imported == ["seawall-shared-access", "seawall-shared-models"]
    # Every model's key, from the member of its name.
    variables = function["Environment"]["Variables"]
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        assert variables[key] == {
            "Fn::Join": [
                "",
                [
                    "{{resolve:secretsmanager:",
                    {"Fn::ImportValue": "seawall-shared-secret"},
                    f":SecretString:{key}}}}}",
                ],
            ]
        }
    # The event source: the queue, at the alias, with failures by message.
    _, source = only(resources, "AWS::Lambda::EventSourceMapping")
    assert source["FunctionName"] == {"Ref": alias}
    assert source["EventSourceArn"] == {"Fn::GetAtt": ["Queue", "Arn"]}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert variables["SEAWALL_LAMBDA_QUEUE"] == "true"
    queue = resources["Queue"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    (own,) = role["Policies"]
    allowed = {each["Sid"]: each["Action"] for each in own["PolicyDocument"]["Statement"]}
    assert set(allowed["Queue"]) == {
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes",
    }  # fmt: skip
    # Nothing of the function is left to be filled in later, when a version would not see it.
    left = json.dumps(function)
    for reference in ('"Fn::If"', "SharedStack"):
        assert reference not in left
    assert set(_references(function)) <= {"AWS::StackName", "Logs"}
    if kind == "lambda-provisioned":
        assert moved["ProvisionedConcurrencyConfig"]
        (scaling,) = of_type(resources, "AWS::ApplicationAutoScaling::ScalableTarget").values()
        assert scaling["DependsOn"] == alias
        assert scaling["Properties"]["ResourceId"] == {"Fn::Sub": f"function:${{{name}}}:live"}
    if kind == "lambda-snapstart":
        assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    if kind == "lambda-managed":
        config = function["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
        assert config["CapacityProviderArn"] == {"Fn::GetAtt": ["Machines", "Arn"]}


def _references(found: object) -> list[str]:
    if isinstance(found, dict):
        here = [found["Ref"]] if "Ref" in found else []
        return here + [each for value in found.values() for each in _references(value)]
    if isinstance(found, list):
        return [each for value in found for each in _references(value)]
    return []


def test_aws_iam_admits_aws_identities_only(planned: Path, tmp_path: Path) -> None:
    path = shipped(planned, tmp_path, "lambda", "--auth", "AWS_IAM")
    check_url(translated(path), public=False)


@each_kind
def test_another_plan_of_the_same_code_publishes_a_version(
    planned: Path, tmp_path: Path, kind: str
) -> None:
    def version(out: str, source: Path, *options: str) -> str:
        resources = translated(shipped(source, tmp_path / out, kind, *options))
        return only(resources, "AWS::Lambda::Version")[0]

    first = version("first", planned)
    assert version("again", planned) == first
    document = json.loads(planned.read_text())
    sizes = document["platforms"][kind]["configuration"]
    sizes["memory_gb" if kind == "lambda-managed" else "memory_mb"] *= 2
    larger = tmp_path / "larger.json"
    larger.write_text(json.dumps(document))
    others = [
        version("larger", larger),
        version("key", planned, "--model-key", "OPENAI_API_KEY"),
        version("stack", planned, "--shared-stack", "other"),
        version("handler", planned, "--handler", "shop:orchestrator"),
    ]
    assert len({first, *others}) == 5


def test_all_templates_pass_the_checks_of_aws(planned: Path, tmp_path: Path) -> None:
    """Ours, those that are written, and what is made of them: none suppressed in one of ours.

    The linter translates, too; the results of SAM itself are of two kinds in the short form.
    """
    written = {kind: shipped(planned, tmp_path / kind, kind, *EVERYTHING) for kind in KINDS}
    templates = [*ALL, *written.values()]
    for kind in KINDS[-number_of_examples(2, len(KINDS)) :]:
        path = written[kind]
        made = path.with_name("translated.json")
        document = {
            "Parameters": load(path)["Parameters"],  # the translator has filled them in
            "Metadata": {"cfn-lint": {"config": {"ignore_checks": ["W2001"]}}},
            "Resources": translated(path),
        }
        made.write_text(json.dumps(document))
        templates.append(made)
    lint = str(Path(sys.executable).parent / "cfn-lint")
    done = subprocess.run(
        [
            *(lint, "--include-checks", "I", "--non-zero-exit-code", "informational", "--"),
            *map(str, templates),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ours = [path for path in templates if path.suffix == ".yaml"]
    assert not [path for path in ours if "cfn-lint" in path.read_text()]  # nothing suppressed


@pytest.mark.parametrize("path", sampled(FUNCTIONS, 2))
def test_sam_validate(path: Path) -> None:
    assert _ask({"command": ["validate", "--lint", "--template", str(path)]}) == ""


def test_the_models_policy_is_always_exported() -> None:
    template = load(ROOT / "deploy/shared/template.yaml")
    output = template["Outputs"]["ModelPolicy"]
    assert "Condition" not in output
    assert output["Export"]["Name"] == {"Fn::Sub": "${AWS::StackName}-models"}
    assert "Condition" not in template["Resources"]["ModelAccess"]
    (statement,) = template["Resources"]["ModelAccess"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Resource"]["Fn::If"][:2] == ["HasBedrock", {"Ref": "BedrockModels"}]
    attached = template["Resources"]["PodRole"]["Properties"]["ManagedPolicyArns"]
    assert attached == [{"Ref": "Access"}, {"Ref": "ModelAccess"}]
