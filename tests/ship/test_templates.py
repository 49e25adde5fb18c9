"""The templates pass a policy of ours; AWS's own checks are in `test_translated`."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.session import Session
from botocore.validate import validate_parameters

from seawall.hosts.aws_lambda.metrics import METRICS, NAMESPACE
from seawall.ship.lambda_template import scheduled_minimum
from tests.parts import require
from tests.parts.system import missing_node
from tests.servers import ROOT

DEPLOY = ROOT / "deploy"
FUNCTIONS = [DEPLOY / "lambda/template.yaml", DEPLOY / "lambda/managed.yaml"]
SHARED = [DEPLOY / "shared/template.yaml", DEPLOY / "shared/routing.yaml"]
ALL = [*SHARED, *FUNCTIONS]

each_function = pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.stem)
each_template = pytest.mark.parametrize(
    "path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}"
)


class _Loader(yaml.CSafeLoader):
    """Reads CloudFormation's tags: `!Ref x` as {"Ref": x}, `!Sub x` as {"Fn::Sub": x}."""


def _tagged(loader: yaml.CSafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _tagged)


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), _Loader)
    return found


def resources(path: Path, kind: str) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in load(path)["Resources"].items() if each["Type"] == kind}


@each_template
def test_no_permission_has_a_wildcard(path: Path) -> None:
    check_permissions(load(path)["Resources"])


def check_permissions(found: dict[str, dict[str, Any]]) -> None:
    """Every statement allows named actions on named resources, or names a service."""
    statements = [
        statement
        for each in found.values()
        for document in _documents(each.get("Properties", {}))
        for statement in document["Statement"]
    ]
    for statement in statements:
        assert statement["Effect"] == "Allow"
        assert "NotAction" not in statement
        assert "NotResource" not in statement
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
        if "Resource" in statement:
            resource = json.dumps(statement["Resource"])
            assert resource != '"*"'
            # The log streams of one group cannot be named: they are made as they are needed.
            assert "*" not in resource.replace(":log-stream:*", "")
        else:
            assert "Service" in statement["Principal"]


def _documents(found: object) -> list[dict[str, Any]]:
    """Policies, wherever they stand."""
    if isinstance(found, dict):
        here = [found] if "Statement" in found else []
        return here + [each for value in found.values() for each in _documents(value)]
    if isinstance(found, list):
        return [each for value in found for each in _documents(value)]
    return []


def test_sessions_are_kept() -> None:
    (table,) = resources(SHARED[0], "AWS::DynamoDB::Table").values()
    properties = table["Properties"]
    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}


def test_the_policy_allows_what_the_client_calls() -> None:
    """Every operation on items that the code knows, and nothing that makes or removes tables."""
    calls = (ROOT / "src/seawall/aws/dynamodb_calls.py").read_text()
    known = {part.split('"')[0] for part in calls.split('Operation("')[1:]}
    assert "Query" in known
    administers = {
        "CreateTable", "DeleteTable", "DescribeTimeToLive", "UpdateTimeToLive",
    }  # fmt: skip
    # A transaction needs the permissions of its parts.
    parts: dict[str, set[str]] = {
        "TransactGetItems": set(),
        "TransactWriteItems": {"ConditionCheckItem"},
    }
    needed = {part for call in known - administers for part in parts.get(call, {call})}
    (policy,) = _documents(load(SHARED[0])["Resources"]["Access"]["Properties"])
    (statement,) = policy["Statement"]
    assert {each.removeprefix("dynamodb:") for each in statement["Action"]} == needed


@each_function
def test_properties_of_a_function(path: Path) -> None:
    (function,) = resources(path, "AWS::Serverless::Function").values()
    properties = function["Properties"]
    assert properties["FunctionUrlConfig"]["InvokeMode"] == "RESPONSE_STREAM"
    assert properties["AutoPublishAlias"] == "live"
    assert properties["DeploymentPreference"]["Alarms"]
    assert properties["DeadLetterQueue"]["Type"] == "SQS"
    (logs,) = resources(path, "AWS::Logs::LogGroup").values()
    assert logs["Properties"]["RetentionInDays"] == {"Ref": "LogDays"}
    wrapper = properties["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"]
    assert (ROOT / "src" / wrapper.removeprefix("/var/task/")).is_file()
    assert ("CapacityProviderConfig" in properties) is (path.stem == "managed")


def test_schedules_of_managed_instances_call_the_api() -> None:
    """AWS's own SDK takes its parameters, once the template's references are filled in."""
    operation = Session().get_service_model("lambda").operation_model("PutFunctionScalingConfig")
    sized = {
        "CrowdMinimum": "7",
        "MinimumEnvironments": "3",
        "MaximumEnvironments": "9",
        "CrowdBegins": "cron(45 19 ? * FRI *)",
        "CrowdEnds": "cron(30 21 ? * FRI *)",
        "CrowdTimezone": "UTC",
    }
    schedules = {
        name: each
        for name, each in scheduled_minimum(sized).items()
        if each["Type"] == "AWS::Scheduler::Schedule"
    }
    least = {}
    for name, schedule in schedules.items():
        text, _ = schedule["Properties"]["Target"]["Input"]["Fn::Sub"]
        for each, value in {"Turns": "shop", "Version": "12"}.items():
            text = text.replace(f"${{{each}}}", value)
        call = json.loads(text)
        validate_parameters(call, operation.input_shape)
        assert call["FunctionScalingConfig"].pop("MaxExecutionEnvironments") == 9
        least[name] = call["FunctionScalingConfig"].pop("MinExecutionEnvironments")
        assert call == {"FunctionName": "shop", "Qualifier": "12", "FunctionScalingConfig": {}}
    assert least == {"CrowdComes": 7, "CrowdGoes": 3}


@each_function
def test_dashboards_show_metrics_that_a_function_writes(path: Path) -> None:
    (dashboard,) = resources(path, "AWS::CloudWatch::Dashboard").values()
    text, _ = dashboard["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(text)["widgets"]
    shown = [metric for each in widgets for metric in each["properties"]["metrics"]]
    ours = {metric[1] for metric in shown if metric[0] == NAMESPACE}
    assert ours == set(METRICS)
    assert all(metric[2] == "Function" for metric in shown if metric[0] == NAMESPACE)
    alarms = resources(path, "AWS::CloudWatch::Alarm").values()
    for alarm in alarms:
        if alarm["Properties"]["Namespace"] == NAMESPACE:
            assert alarm["Properties"]["MetricName"] in METRICS
        assert alarm["Properties"]["AlarmActions"]


def test_the_routing_function_is_valid_javascript(tmp_path: Path) -> None:
    require(missing_node())
    (function,) = resources(SHARED[1], "AWS::CloudFront::Function").values()
    code = function["Properties"]["FunctionCode"]
    assert function["Properties"]["FunctionConfig"]["Runtime"] == "cloudfront-js-2.0"
    (tmp_path / "choose.mjs").write_text(code)
    checked = ["node", "--check", str(tmp_path / "choose.mjs")]
    assert subprocess.run(checked, check=False).returncode == 0
    origins = {
        each["Id"]
        for each in load(SHARED[1])["Resources"]["Distribution"]["Properties"][
            "DistributionConfig"
        ]["Origins"]
    }
    assert set(re.findall(r"OriginById\('(\w+)'\)", code)) <= origins
