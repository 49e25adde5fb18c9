"""A plan for a function as what sizes its template."""

import math

from seawall.plan.decision.answer import LambdaConfiguration, ManagedConfiguration, PlatformName
from seawall.ship.plan_file import PlannedPlatform
from seawall.ship.schedule import CROWD_UNUSED, CrowdTime, capacity_schedule

__all__ = ["lambda_parameters", "template_of"]

_RATIOS = (2, 4, 8)  # GiB a processor of a managed instance's environment
_ORDINARY_ACCOUNT = 1_000
_URL_SECONDS = 900


def template_of(name: PlatformName) -> str:
    """The template for this kind of function, by its file's name in deploy/lambda."""
    return "managed.yaml" if name == "lambda-managed" else "template.yaml"


def lambda_parameters(
    platform: PlannedPlatform, *, crowd: CrowdTime | None = None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the plan says of the function, by name, and what to know besides."""
    notes: list[str] = []
    if not platform.met:
        notes.append(
            f"The objective does not hold on {platform.name}: this is the nearest that was found."
        )
    found = platform.configuration
    if isinstance(found, ManagedConfiguration):
        return _managed(found, crowd, notes), tuple(notes)
    assert isinstance(found, LambdaConfiguration)  # noqa: S101 - there is no other kind of function
    return _classic(found, crowd, notes), tuple(notes)


def _classic(
    found: LambdaConfiguration, crowd: CrowdTime | None, notes: list[str]
) -> dict[str, str]:
    most = max((moment.count for moment in found.schedule), default=0)
    provisioned = bool(found.provisioned or most)
    start = "provisioned" if provisioned else "snapstart" if found.snapstart else "on-demand"
    parameters = {
        "Start": start,
        "MemoryMb": str(found.memory_mb),
        "Architecture": found.architecture,
        "TimeoutSeconds": str(min(_URL_SECONDS, found.timeout_seconds)),
        "ReservedConcurrency": str(found.reserved_concurrency or 0),
    }
    if provisioned:
        parameters["Provisioned"] = str(max(1, found.provisioned))
    if crowd is not None:
        times = capacity_schedule(crowd, found.schedule, found.provisioned)
        if times is not None:
            parameters |= {
                "CrowdProvisioned": str(times.count),
                "CrowdBegins": times.begins.aws_cron(),
                "CrowdEnds": times.ends.aws_cron(),
                "CrowdTimezone": times.begins.timezone,
            }
        else:
            notes.append(CROWD_UNUSED)
    elif most:
        notes.append(
            f"The plan schedules {most} provisioned environments for its crowd: say when with "
            "--crowd."
        )
    if found.account_concurrency > _ORDINARY_ACCOUNT:
        notes.append(
            f"The account's concurrency has to be {found.account_concurrency:,}; ordinarily it is "
            f"{_ORDINARY_ACCOUNT:,}. Ask for it: Service Quotas, Lambda, Concurrent executions."
        )
    if found.entry != "function-url":
        notes.append(f"The plan reckons with {found.entry}; the template makes a function URL.")
    return parameters


def _managed(
    found: ManagedConfiguration, crowd: CrowdTime | None, notes: list[str]
) -> dict[str, str]:
    wanted = found.memory_gb / found.vcpus
    ratio = min(_RATIOS, key=lambda each: (abs(each - wanted), each))
    if found.runtime != "async":
        notes.append(
            "The plan reckons with a process for each request; Seawall's runtime has all of an "
            "environment in one, which needs less."
        )
    times = capacity_schedule(crowd, found.schedule, found.minimum) if crowd is not None else None
    if found.schedule and crowd is None:
        most = max(moment.count for moment in found.schedule)
        notes.append(
            f"The plan has at least {most} environments while its crowd is there: say when with "
            "--crowd."
        )
    highest = max(found.maximum, *(moment.count for moment in found.schedule), found.minimum)
    parameters = {
        "MemoryMb": str(round(found.memory_gb * 1_024)),
        "MemoryGiBPerVcpu": str(ratio),
        "Architecture": found.architecture,
        "TimeoutSeconds": str(min(_URL_SECONDS, found.timeout_seconds)),
        "InFlight": str(found.in_flight),
        "MinimumEnvironments": str(found.minimum),
        "MaximumEnvironments": str(highest),
        "MaximumVcpus": str(max(2, math.ceil(highest * found.vcpus))),
        "TargetUtilization": str(max(10, min(90, round(found.target * 100)))),
        "Instances": found.instance,
    }
    if times is not None:
        parameters |= {
            "CrowdMinimum": str(times.count),
            "CrowdBegins": times.begins.aws_cron(),
            "CrowdEnds": times.ends.aws_cron(),
            "CrowdTimezone": times.begins.timezone,
        }
    elif crowd is not None:
        notes.append(CROWD_UNUSED)
    return parameters
