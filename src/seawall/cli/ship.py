"""`seawall ship eks` and `seawall ship lambda`: what is deployed, sized by a plan."""

import argparse
import json
import sys
from pathlib import Path

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "ship",
        help="write what is deployed on EKS or Lambda, sized by a plan",
        description="Write what is deployed, sized by a plan: seawall plan --json > plan.json.",
    )
    commands = parser.add_subparsers(metavar="PLATFORM", required=True)
    eks = commands.add_parser(
        "eks",
        help="a Helm chart and its values",
        description="Write the Helm chart, its values as the plan sizes them, and the template of "
        "what pods and functions share.",
    )
    _add_common(eks)
    eks.add_argument("--cluster", default="", help="its name, for a Karpenter NodePool")
    eks.add_argument("--node-role", default="", help="the nodes' IAM role, for the same")
    eks.set_defaults(run=_run_eks)
    function = commands.add_parser(
        "lambda",
        help="a SAM template and its parameters",
        description="Write the SAM template, its parameters as the plan sizes them, and the "
        "template of what pods and functions share.",
    )
    _add_common(function)
    function.add_argument(
        "--kind",
        default="",
        metavar="NAME",
        help="lambda, lambda-snapstart, lambda-provisioned or lambda-managed (default: the plan's "
        "choice if it is a function, else the cheapest that holds the objective)",
    )
    function.set_defaults(run=_run_lambda)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--crowd",
        metavar="WHEN",
        help="when an announced crowd comes: 20:00, FRI 20:00 or 2027-11-26 20:00; capacity is "
        "scheduled around it",
    )
    parser.add_argument(
        "--timezone", default="UTC", help="of --crowd, such as Europe/Berlin (default: UTC)"
    )
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")


def _run_eks(arguments: argparse.Namespace) -> int:
    from seawall.ship.artefacts import write_eks  # noqa: PLC0415 - only what this needs
    from seawall.ship.crowd import parse_crowd  # noqa: PLC0415
    from seawall.ship.eks import eks_values  # noqa: PLC0415
    from seawall.ship.plan_file import read_plan  # noqa: PLC0415

    plan = read_plan(arguments.plan)
    crowd = parse_crowd(arguments.crowd, arguments.timezone) if arguments.crowd else None
    values, notes = eks_values(
        plan, crowd=crowd, cluster=arguments.cluster, node_role=arguments.node_role
    )
    written = write_eks(arguments.out, values, arguments.plan.name)
    next_step = (
        f"helm upgrade --install seawall {arguments.out}/seawall -f {arguments.out}/values.yaml "
        "--set image.repository=YOUR/IMAGE"
    )
    return _tell(arguments, values, notes, written, next_step)


def _run_lambda(arguments: argparse.Namespace) -> int:
    from seawall.ship.artefacts import write_lambda  # noqa: PLC0415 - only what this needs
    from seawall.ship.crowd import parse_crowd  # noqa: PLC0415
    from seawall.ship.lambda_parameters import lambda_parameters, template_of  # noqa: PLC0415
    from seawall.ship.plan_file import read_plan  # noqa: PLC0415

    plan = read_plan(arguments.plan)
    crowd = parse_crowd(arguments.crowd, arguments.timezone) if arguments.crowd else None
    platform = plan.on_lambda(arguments.kind)
    parameters, notes = lambda_parameters(platform, crowd=crowd)
    written = write_lambda(
        arguments.out,
        template_of(platform.name),
        parameters,
        region=plan.region,
        source=arguments.plan.name,
    )
    next_step = (
        f"seawall lambda build --out {arguments.out}/function.zip && "
        f"cd {arguments.out} && sam deploy"
    )
    return _tell(arguments, {"kind": platform.name, **parameters}, notes, written, next_step)


def _tell(
    arguments: argparse.Namespace,
    sized: dict[str, object] | dict[str, str],
    notes: tuple[str, ...],
    written: list[Path],
    next_step: str,
) -> int:
    if arguments.json:
        told = {
            "sized": sized,
            "notes": notes,
            "files": [str(each) for each in written],
            "next": next_step,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        return 0
    for path in written:
        sys.stdout.write(f"{path}\n")
    for note in notes:
        sys.stdout.write(f"Note: {note}\n")
    sys.stdout.write(f"Next: {next_step}\n")
    return 0
