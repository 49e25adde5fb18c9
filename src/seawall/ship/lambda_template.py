"""The template of a function, with its sizes and configuration written in as literals.

SAM uploads only a literal `CodeUri`, adds the URL's permissions only for a literal `AuthType`, and
publishes a new version, to which the alias moves, only if the function's own text changes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.ship.output import yaml_text

__all__ = [
    "CODE",
    "SHARED_STACK",
    "FunctionOptions",
    "check_variables",
    "fill_template",
    "function_sections",
    "scheduled_minimum",
]

CODE = "function.zip"
"""File name of the package, beside the template."""
SHARED_STACK = "seawall-shared"
"""Default name of the stack of deploy/shared/template.yaml."""

_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_STACK = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
_BATCH = 10
_VISIBILITY = 6  # times the timeout: docs.aws.amazon.com/lambda/latest/dg, services-sqs-configure
_LONGEST_VISIBILITY = 43_200


class FunctionOptions(Struct, frozen=True):
    """Options of a function that a plan does not decide.

    Attributes:
        handler: See `seawall.hosts.aws_lambda.target`.
        auth: Of the function URL.
        model_keys: Members of the shared secret; each becomes the variable of its name.
        queue: Whether there is a queue whose messages are turns.
        otlp: An OTLP/HTTP receiver; empty for none.
        shared_stack: Name of the shared stack.

    Raises:
        ConfigError: A name is not valid for a variable or a stack.
    """

    handler: str = "seawall.toml"
    auth: Literal["NONE", "AWS_IAM"] = "NONE"
    model_keys: tuple[str, ...] = ()
    queue: bool = False
    otlp: str = ""
    shared_stack: str = SHARED_STACK

    def __post_init__(self) -> None:
        check_variables(self.model_keys)
        if not _STACK.fullmatch(self.shared_stack):
            raise ConfigError(f'--shared-stack: "{self.shared_stack}" is not the name of a stack')


def check_variables(names: Sequence[str]) -> None:
    """Check names of environment variables: valid, not reserved by Lambda, not repeated.

    Raises:
        ConfigError: One is not.
    """
    for name in names:
        if not _VARIABLE.fullmatch(name) or name.startswith(("AWS_", "LAMBDA_")):
            raise ConfigError(f'--model-key: "{name}" cannot be a variable')
    if len(set(names)) < len(names):
        raise ConfigError(f"--model-key: a name is given twice: {', '.join(names)}")


def fill_template(text: str, sections: Mapping[str, str], shared_stack: str = SHARED_STACK) -> str:
    """Replace the sections of a template; each is between `# begin NAME` and `# end NAME`.

    Args:
        text: The template.
        sections: Text by name, without indentation.
        shared_stack: The stack whose exports are imported.
    """
    lines: list[str] = []
    within = ""
    for line in text.splitlines():
        indent, mark, name = line.partition("# begin ")
        if not within:
            lines.append(line)
        if mark and name in sections:
            within = name
            lines += [indent + each if each else "" for each in sections[name].splitlines()]
        elif within and line.strip() == f"# end {within}":
            within = ""
            lines.append(line)
    text = "\n".join(lines) + "\n"
    return text.replace(f"Fn::ImportValue: {SHARED_STACK}-", f"Fn::ImportValue: {shared_stack}-")


def function_sections(sized: Mapping[str, str], options: FunctionOptions) -> dict[str, str]:
    """Build the sections of a function's template.

    Args:
        sized: See `lambda_parameters`.
        options: What the plan does not decide.
    """
    managed = "InFlight" in sized
    queue = _queue(int(sized["TimeoutSeconds"])) if options.queue else {}
    schedule = (scheduled_minimum if managed else _provisioned)(sized)
    permissions = [_QUEUE_PERMISSION] if options.queue else []
    sections = {
        "function": yaml_text(_function(sized, options)),
        "variables": yaml_text(_variables(options)),
        "permissions": yaml_text(permissions),
        "schedule": yaml_text({**queue, **schedule}),
    }
    if managed:
        sections["machines"] = yaml_text(_machines(sized))
    return sections


def _function(sized: Mapping[str, str], options: FunctionOptions) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "CodeUri": f"./{CODE}",
        "Handler": options.handler,
        "Architectures": [sized["Architecture"]],
        "MemorySize": int(sized["MemoryMb"]),
        "Timeout": int(sized["TimeoutSeconds"]),
    }
    if "InFlight" in sized:
        properties |= {
            "CapacityProviderConfig": {
                "Arn": {"Fn::GetAtt": ["Machines", "Arn"]},
                "PerExecutionEnvironmentMaxConcurrency": int(sized["InFlight"]),
                "ExecutionEnvironmentMemoryGiBPerVCpu": int(sized["MemoryGiBPerVcpu"]),
            },
            "FunctionScalingConfig": {
                "MinExecutionEnvironments": int(sized["MinimumEnvironments"]),
                "MaxExecutionEnvironments": int(sized["MaximumEnvironments"]),
            },
        }
    if reserved := int(sized.get("ReservedConcurrency", 0)):
        properties["ReservedConcurrentExecutions"] = reserved
    if sized.get("Start") == "snapstart":
        properties["SnapStart"] = {"ApplyOn": "PublishedVersions"}
    if sized.get("Start") == "provisioned":
        count = int(sized["Provisioned"])
        properties["ProvisionedConcurrencyConfig"] = {"ProvisionedConcurrentExecutions": count}
    properties["FunctionUrlConfig"] = {"AuthType": options.auth, "InvokeMode": "RESPONSE_STREAM"}
    if options.queue:
        source = {
            "Queue": {"Fn::GetAtt": ["Queue", "Arn"]},
            "BatchSize": _BATCH,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
        }
        properties["Events"] = {"Queued": {"Type": "SQS", "Properties": source}}
    return properties


def _variables(options: FunctionOptions) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    if options.otlp:
        variables["SEAWALL_TELEMETRY__ENDPOINT"] = options.otlp
    if options.queue:
        variables["SEAWALL_LAMBDA_QUEUE"] = "true"
    for name in options.model_keys:
        secret = {"Fn::ImportValue": f"{options.shared_stack}-secret"}
        parts = ["{{resolve:secretsmanager:", secret, f":SecretString:{name}}}}}"]
        variables[name] = {"Fn::Join": ["", parts]}
    return variables


_QUEUE_PERMISSION = {
    "Sid": "Queue",
    "Effect": "Allow",
    "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
    "Resource": {"Fn::GetAtt": ["Queue", "Arn"]},
}


def _queue(timeout: int) -> dict[str, Any]:
    return {
        "Queue": {
            "Type": "AWS::SQS::Queue",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "SqsManagedSseEnabled": True,
                "MessageRetentionPeriod": 1_209_600,
                "VisibilityTimeout": min(_LONGEST_VISIBILITY, _VISIBILITY * timeout),
                "RedrivePolicy": {
                    "deadLetterTargetArn": {"Fn::GetAtt": ["Failed", "Arn"]},
                    "maxReceiveCount": 5,
                },
            },
        }
    }


def _provisioned(sized: Mapping[str, str]) -> dict[str, Any]:
    """Resources that schedule provisioned concurrency; empty without a crowd."""
    most = int(sized.get("CrowdProvisioned", 0))
    if not most:
        return {}
    least = int(sized["Provisioned"])

    def action(name: str, schedule: str, minimum: int) -> dict[str, Any]:
        return {
            "ScheduledActionName": name,
            "Schedule": schedule,
            "Timezone": sized["CrowdTimezone"],
            "ScalableTargetAction": {"MinCapacity": minimum, "MaxCapacity": most},
        }

    return {
        "Scaling": {
            "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
            "DependsOn": "TurnsAliaslive",
            "Properties": {
                "ServiceNamespace": "lambda",
                "ScalableDimension": "lambda:function:ProvisionedConcurrency",
                "ResourceId": {"Fn::Sub": "function:${Turns}:live"},
                "MinCapacity": least,
                "MaxCapacity": most,
                "ScheduledActions": [
                    action("crowd-begins", sized["CrowdBegins"], most),
                    action("crowd-ends", sized["CrowdEnds"], least),
                ],
            },
        }
    }


def _machines(sized: Mapping[str, str]) -> dict[str, Any]:
    requirements: dict[str, Any] = {"Architectures": [sized["Architecture"]]}
    if sized.get("Instances"):
        requirements["AllowedInstanceTypes"] = sized["Instances"].split(",")
    policy = {
        "PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization",
        "TargetValue": int(sized["TargetUtilization"]),
    }
    return {
        "InstanceRequirements": requirements,
        "CapacityProviderScalingConfig": {
            "MaxVCpuCount": int(sized["MaximumVcpus"]),
            "ScalingMode": "Manual",
            "ScalingPolicies": [policy],
        },
    }


def scheduled_minimum(sized: Mapping[str, str]) -> dict[str, Any]:
    """Resources that schedule the minimum of environments; empty without a crowd."""
    if not int(sized.get("CrowdMinimum", 0)):
        return {}
    most = sized["MaximumEnvironments"]

    def schedule(description: str, expression: str, least: str) -> dict[str, Any]:
        scaling = f'{{"MinExecutionEnvironments": {least}, "MaxExecutionEnvironments": {most}}}'
        call = (
            '{"FunctionName": "${Turns}", "Qualifier": "${Version}", '
            f'"FunctionScalingConfig": {scaling}}}'
        )
        version = {"Fn::Select": [7, {"Fn::Split": [":", {"Ref": "Turns.Version"}]}]}
        return {
            "Type": "AWS::Scheduler::Schedule",
            "Properties": {
                "Description": description,
                "ScheduleExpression": expression,
                "ScheduleExpressionTimezone": sized["CrowdTimezone"],
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "Target": {
                    "Arn": {
                        "Fn::Sub": "arn:${AWS::Partition}:scheduler:::"
                        "aws-sdk:lambda:putFunctionScalingConfig"
                    },
                    "RoleArn": {"Fn::GetAtt": ["Scheduler", "Arn"]},
                    "DeadLetterConfig": {"Arn": {"Fn::GetAtt": ["Failed", "Arn"]}},
                    "RetryPolicy": {
                        "MaximumRetryAttempts": 10,
                        "MaximumEventAgeInSeconds": 900,
                    },
                    "Input": {"Fn::Sub": [call, {"Version": version}]},
                },
            },
        }

    return {
        "CrowdComes": schedule(
            "Minimum of environments when the crowd arrives",
            sized["CrowdBegins"],
            sized["CrowdMinimum"],
        ),
        "CrowdGoes": schedule(
            "Minimum of environments after the crowd",
            sized["CrowdEnds"],
            sized["MinimumEnvironments"],
        ),
        "Scheduler": _SCHEDULER,
    }


_SCHEDULER: dict[str, Any] = {
    "Type": "AWS::IAM::Role",
    "Properties": {
        "Description": "Changes the minimum of environments of Seawall",
        "AssumeRolePolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "scheduler.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
                }
            ],
        },
        "Policies": [
            {
                "PolicyName": "own",
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Sid": "Environments",
                            "Effect": "Allow",
                            "Action": "lambda:PutFunctionScalingConfig",
                            "Resource": [
                                {"Fn::GetAtt": ["Turns", "Arn"]},
                                {"Ref": "Turns.Version"},
                            ],
                        },
                        {
                            "Sid": "Failed",
                            "Effect": "Allow",
                            "Action": "sqs:SendMessage",
                            "Resource": {"Fn::GetAtt": ["Failed", "Arn"]},
                        },
                    ],
                },
            }
        ],
    },
}
