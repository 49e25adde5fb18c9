"""`seawall lambda build`: the deployment package of a function."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_group, add_json
from seawall.cli.terminal import print_line

if TYPE_CHECKING:
    from seawall.ship.lambda_zip import Package

__all__ = ["add_parser"]

_MOST_LISTED = 200
_LARGE = 100_000  # bytes from which a package has its own line


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(subparsers, "lambda", "build deployment packages for AWS Lambda")
    build = commands.add_parser(
        "build",
        help="build a function's deployment package",
        description="Build the zip file of a function: Seawall, the code and configuration in "
        "FOLDER, and their packages as wheels for Lambda's platform. Builds are reproducible. The "
        "package has a bootstrap for OS-only runtimes and an exec wrapper for the managed one. "
        "FOLDER/.seawallignore lists files to leave out, in the syntax of .gitignore.",
    )
    build.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="configuration and code (default: the current folder)",
    )
    build.add_argument(
        "--out",
        type=Path,
        default=Path("function.zip"),
        metavar="FILE.zip",
        help="package to write (default: %(default)s)",
    )
    build.add_argument(
        "--architecture",
        choices=["arm64", "x86_64"],
        default="arm64",
        help="architecture of the function (default: %(default)s)",
    )
    build.add_argument(
        "--python",
        choices=["3.11", "3.12", "3.13", "3.14"],
        default="3.13",
        help="Python version of the function; AWS has managed runtimes from 3.12 on (default: "
        "%(default)s)",
    )
    build.add_argument(
        "--requirements", type=Path, metavar="FILE.txt", help="requirements of your own code"
    )
    build.add_argument(
        "--compile-with",
        default="",
        metavar="PYTHON",
        help="interpreter of that version, to compile bytecode (default: pythonX.Y, if installed)",
    )
    build.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FILE",
        help="pack this file of FOLDER although it looks like a secret; may be repeated",
    )
    add_json(build, "print the result as one JSON object")
    build.set_defaults(run=_run)


def _listed(built: "Package") -> str:
    """List the content: the user's files one by one, everything else by package."""
    files = list(built.own.items())
    lines = [f"{size:>12,}  {name}" for name, size in files[:_MOST_LISTED]]
    if len(files) > _MOST_LISTED:
        rest = sum(size for _, size in files[_MOST_LISTED:])
        lines.append(f"{rest:>12,}  {len(files) - _MOST_LISTED} more files: --json lists all")
    packages = list(built.packages.items())
    large = [(name, size) for name, size in packages if size >= _LARGE]
    lines += [f"{size:>12,}  package {name}" for name, size in large]
    small = sum(size for _, size in packages) - sum(size for _, size in large)
    lines.append(f"{small:>12,}  smaller packages")
    return "\n".join(lines) + "\n"


def _run(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.errors import ConfigError  # noqa: PLC0415
    from seawall.ship.lambda_zip import UNPACKED_LIMIT, build_package  # noqa: PLC0415

    if not arguments.folder.is_dir():
        raise ConfigError(f"{arguments.folder} is not a folder")

    built = build_package(
        arguments.folder,
        arguments.out,
        architecture=arguments.architecture,
        python=arguments.python,
        requirements=arguments.requirements,
        compile_with=arguments.compile_with,
        allow=arguments.allow,
        report=(lambda _: None) if arguments.json else print_line,
    )
    if arguments.json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(built)) + "\n")
        return 0
    sys.stdout.write(_listed(built))
    share = built.unpacked_bytes / UNPACKED_LIMIT
    sys.stdout.write(
        f"{built.path}: {built.packed_bytes / 2**20:.1f} MB, {built.files} files, "
        f"{built.unpacked_bytes / 2**20:.1f} MB unpacked ({share:.0%} of Lambda's limit)\n"
    )
    if not built.compiled:
        sys.stdout.write(
            f"It has no bytecode, because there is no python{arguments.python} here: each cold "
            "start will compile what it imports. Give an interpreter with --compile-with.\n"
        )
    return 0
