"""`seawall lambda build`: the deployment package of a function."""

import argparse
import json
import sys
from pathlib import Path

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("lambda", help="make what is deployed on AWS Lambda")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    build = commands.add_parser(
        "build",
        help="build a function's deployment package",
        description="Build the zip of a function: Seawall, the code and configuration in FOLDER, "
        "and their packages as wheels for Lambda's platform. The same input gives the same file. "
        "It has a bootstrap for OS-only runtimes and an exec wrapper for the managed one.",
    )
    build.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER")
    build.add_argument("--out", type=Path, default=Path("function.zip"), metavar="FILE.zip")
    build.add_argument("--architecture", choices=["arm64", "x86_64"], default="arm64")
    build.add_argument(
        "--python",
        choices=["3.11", "3.12", "3.13", "3.14"],
        default="3.13",
        help="its version; AWS manages runtimes from 3.12 on (default: %(default)s)",
    )
    build.add_argument("--requirements", type=Path, metavar="FILE.txt", help="of your own code")
    build.add_argument(
        "--compile-with",
        default="",
        metavar="PYTHON",
        help="interpreter of that version, for bytecode (default: pythonX.Y, if there is one)",
    )
    build.add_argument("--json", action="store_true", help="the result as one JSON object")
    build.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.errors import ConfigError  # noqa: PLC0415
    from seawall.ship.lambda_zip import UNPACKED_LIMIT, build_package  # noqa: PLC0415

    if not arguments.folder.is_dir():
        raise ConfigError(f"{arguments.folder} is not a folder")

    def tell(line: str) -> None:
        if not arguments.json:
            sys.stderr.write(line + "\n")

    built = build_package(
        arguments.folder,
        arguments.out,
        architecture=arguments.architecture,
        python=arguments.python,
        requirements=arguments.requirements,
        compile_with=arguments.compile_with,
        tell=tell,
    )
    if arguments.json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(built)) + "\n")
        return 0
    share = built.unpacked_bytes / UNPACKED_LIMIT
    sys.stdout.write(
        f"{built.path}: {built.packed_bytes / 2**20:.1f} MB, {built.files} files, "
        f"{built.unpacked_bytes / 2**20:.1f} MB unpacked ({share:.0%} of Lambda's limit)\n"
    )
    if not built.compiled:
        sys.stdout.write(
            f"There is no bytecode in it, as there is no python{arguments.python} here: each cold "
            "start will compile what it imports. Name one by --compile-with.\n"
        )
    return 0
