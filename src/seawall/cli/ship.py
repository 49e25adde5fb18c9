"""`seawall ship eks | lambda | image`: deployment artefacts, sized by a plan."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from seawall.cli.arguments import Commands, Parser, add_group, add_json
from seawall.cli.terminal import color

__all__ = ["add_parser"]


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(
        subparsers,
        "ship",
        "write the deployment for EKS or Lambda, sized by a plan",
        "Write a deployment, sized by a plan: seawall plan --json > plan.json. The folder has a "
        "README.md with every step in order.",
    )
    eks = commands.add_parser(
        "eks",
        help="write a Helm chart and its values",
        description="Write the Helm chart, its values as sized by the plan, the context of the "
        "image, and the template of the shared stack.",
    )
    _add_plan_options(eks)
    eks.add_argument(
        "--cluster", default="", metavar="NAME", help="cluster, for a Karpenter NodePool"
    )
    eks.add_argument(
        "--node-role", default="", metavar="NAME", help="IAM role of the nodes, for the same"
    )
    eks.set_defaults(run=_run_eks)
    function = commands.add_parser(
        "lambda",
        help="write a SAM template",
        description="Write the SAM template as sized by the plan, and the template of the shared "
        "stack.",
    )
    _add_plan_options(function)
    function.add_argument(
        "--kind",
        default="",
        metavar="NAME",
        help="lambda, lambda-snapstart, lambda-provisioned or lambda-managed (default: the plan's "
        "choice if it is a function, else the cheapest that meets the objective)",
    )
    function.add_argument(
        "--handler",
        default="seawall.toml",
        metavar="NAME",
        help="FILE.toml or MODULE:NAME in the package (default: %(default)s)",
    )
    function.add_argument(
        "--auth",
        choices=["NONE", "AWS_IAM"],
        default="NONE",
        help="authentication of the function URL; NONE leaves it to Seawall (default: %(default)s)",
    )
    function.add_argument(
        "--queue", action="store_true", help="add an SQS queue whose messages are turns"
    )
    function.add_argument("--otlp", default="", metavar="URL", help="OTLP/HTTP receiver of traces")
    function.add_argument(
        "--shared-stack",
        default="seawall-shared",
        metavar="NAME",
        help="name of the stack of shared.yaml (default: %(default)s)",
    )
    function.add_argument(
        "--subnets",
        default="",
        metavar="ID,ID",
        help="subnets of a capacity provider (lambda-managed)",
    )
    function.add_argument(
        "--security-groups", default="", metavar="ID,ID", help="its security groups"
    )
    function.set_defaults(run=_run_lambda)
    image = commands.add_parser(
        "image",
        help="write the build context of the container image",
        description="Write the build context of the container image: Dockerfile, packages by "
        "hash, and the Seawall that is installed.",
    )
    _add_out(image)
    image.set_defaults(run=_run_image)


def _add_plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan",
        type=Path,
        required=True,
        metavar="FILE.json",
        help="output of seawall plan --json",
    )
    _add_out(parser)
    parser.add_argument(
        "--crowd",
        metavar="WHEN",
        help="when an announced crowd arrives: 20:00, FRI 20:00 or 2027-11-26 20:00; capacity is "
        "scheduled around it",
    )
    parser.add_argument(
        "--timezone",
        metavar="NAME",
        help="time zone of --crowd, such as Europe/Berlin (default: UTC)",
    )
    parser.add_argument(
        "--model-key",
        action="append",
        default=[],
        metavar="NAME",
        help="variable with the key of a model's provider (api_key_env), read from a secret; may "
        "be repeated",
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--force", action="store_true", help="overwrite edited files")
    add_json(parser, "print the result as one JSON object")


def _run_eks(arguments: argparse.Namespace) -> int:
    from seawall.ship.artefacts import eks_files  # noqa: PLC0415 - only what this needs
    from seawall.ship.lambda_template import check_variables  # noqa: PLC0415
    from seawall.ship.plan_file import read_plan  # noqa: PLC0415
    from seawall.ship.readme import KEYS, eks_readme  # noqa: PLC0415
    from seawall.ship.schedule import parse_crowd  # noqa: PLC0415
    from seawall.ship.sizing import eks_values  # noqa: PLC0415

    plan = read_plan(arguments.plan)
    check_variables(arguments.model_key)
    crowd = parse_crowd(arguments.crowd, arguments.timezone or "UTC") if arguments.crowd else None
    values, notes = eks_values(
        plan,
        crowd=crowd,
        cluster=arguments.cluster,
        node_role=arguments.node_role,
        secrets=(KEYS,) if arguments.model_key else (),
    )
    notes = (*plan.unwritten_choice(plan.eks()), *notes, *_unused_options(arguments))
    files = eks_files(values, arguments.plan.name)
    files["README.md"] = eks_readme(
        region=plan.region, cluster=arguments.cluster, model_keys=arguments.model_key, notes=notes
    )
    return _write(arguments, files, values, notes)


def _run_lambda(arguments: argparse.Namespace) -> int:
    from seawall.ship.artefacts import lambda_files  # noqa: PLC0415 - only what this needs
    from seawall.ship.lambda_template import FunctionOptions  # noqa: PLC0415
    from seawall.ship.plan_file import read_plan  # noqa: PLC0415
    from seawall.ship.readme import lambda_readme  # noqa: PLC0415
    from seawall.ship.schedule import parse_crowd  # noqa: PLC0415
    from seawall.ship.sizing import lambda_parameters, template_of  # noqa: PLC0415

    plan = read_plan(arguments.plan)
    crowd = parse_crowd(arguments.crowd, arguments.timezone or "UTC") if arguments.crowd else None
    platform = plan.on_lambda(arguments.kind)
    managed = platform.name == "lambda-managed"
    sized, notes = lambda_parameters(platform, crowd=crowd)
    notes = (*plan.unwritten_choice(platform), *notes)
    options = FunctionOptions(
        handler=arguments.handler,
        auth=arguments.auth,
        model_keys=tuple(arguments.model_key),
        queue=arguments.queue,
        otlp=arguments.otlp,
        shared_stack=arguments.shared_stack,
    )
    network = {"Subnets": arguments.subnets, "SecurityGroups": arguments.security_groups}
    given = {name: value for name, value in network.items() if value}
    notes += _unused_options(arguments)
    if given and not managed:
        notes += (f"--subnets and --security-groups have no effect on {platform.name}.",)
    files = lambda_files(
        template_of(platform.name),
        sized,
        options,
        region=plan.region,
        source=arguments.plan.name,
        parameters=given if managed else {},
    )
    files["README.md"] = lambda_readme(
        region=plan.region,
        options=options,
        architecture=sized["Architecture"],
        missing=tuple(network.keys() - given.keys()) if managed else (),
        notes=notes,
    )
    return _write(arguments, files, {"kind": platform.name, **sized}, notes)


def _run_image(arguments: argparse.Namespace) -> int:
    from seawall.ship.artefacts import image_files  # noqa: PLC0415 - only what this needs
    from seawall.ship.readme import image_readme  # noqa: PLC0415

    files = {**image_files(), "README.md": image_readme()}
    return _write(arguments, files, {}, ())


def _unused_options(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.timezone and not arguments.crowd:
        return ("--timezone has no effect without --crowd.",)
    return ()


def _write(
    arguments: argparse.Namespace,
    files: Mapping[str, bytes],
    sized: Mapping[str, object],
    notes: tuple[str, ...],
) -> int:
    from seawall.ship.output import write_files  # noqa: PLC0415 - only what this needs

    written = write_files(arguments.out, files, force=arguments.force)
    next_step = f"the steps in {arguments.out / 'README.md'}"
    if arguments.json:
        result = {
            "sized": sized,
            "notes": notes,
            "files": [str(each) for each in written],
            "next": next_step,
        }
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for path in sorted({arguments.out / Path(name).parts[0] for name in files}):
        sys.stdout.write(f"{path}\n")
    for note in notes:
        sys.stdout.write(f"{color('Note:', 'yellow')} {note}\n")
    sys.stdout.write(f"Next: {next_step}\n")
    return 0
