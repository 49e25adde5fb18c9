"""`seawall lab`: local fleets, measurements on them, and a local Lambda."""

import argparse
import json
import sys
from pathlib import Path

from seawall.cli import lab_fleets, lab_measure
from seawall.cli.arguments import Commands, Parser, add_group, add_json, decimal, integer
from seawall.cli.terminal import print_line

__all__ = ["add_parser"]


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(subparsers, "lab", "run and measure local stand-ins for the cloud")
    lab_fleets.add_commands(commands)
    lab_measure.add_commands(commands)
    local = commands.add_parser(
        "lambda",
        help="run a local Lambda with a function URL",
        description="Run a function as AWS Lambda does: the Runtime API, environments as processes "
        "that are started when needed and frozen between invocations, limits and throttling. "
        "Call it at its function URL, or by AWS's SDKs as function 'local' with this endpoint.",
    )
    local.add_argument(
        "handler",
        type=_handler,
        metavar="HANDLER",
        help="configuration file, or module:name of an application",
    )
    local.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    local.add_argument(
        "--port",
        type=integer(0, 65_535),
        default=9000,
        metavar="N",
        help="port to listen on; 0 finds a free one (default: %(default)s)",
    )
    local.add_argument(
        "--client",
        choices=["seawall", "awslambdaric"],
        default="seawall",
        help="client of the Runtime API (default: %(default)s)",
    )
    local.add_argument(
        "--memory",
        type=integer(128, 32_768),
        default=512,
        metavar="MB",
        help="memory of an environment (default: %(default)s)",
    )
    local.add_argument(
        "--timeout",
        type=decimal(0, 900, above=True),
        default=30.0,
        metavar="SECONDS",
        help="longest invocation (default: %(default)s)",
    )
    local.add_argument(
        "--in-flight",
        type=integer(1, 1_600),
        default=1,
        metavar="N",
        help="concurrent invocations in one environment; more than 1 is a managed instance "
        "(default: %(default)s)",
    )
    local.add_argument(
        "--init",
        type=decimal(0, 3_600, above=True),
        default=10.0,
        metavar="SECONDS",
        help="longest initialisation before it is retried (default: %(default)s, as on AWS)",
    )
    local.add_argument(
        "--snapstart", action="store_true", help="start environments from a snapshot"
    )
    local.add_argument(
        "--provisioned",
        type=integer(0, 100_000),
        default=0,
        metavar="N",
        help="environments to start ahead (default: %(default)s)",
    )
    local.add_argument(
        "--concurrency",
        type=integer(1, 100_000),
        default=1_000,
        metavar="N",
        help="most environments (default: %(default)s)",
    )
    local.add_argument(
        "--idle",
        type=decimal(0, 86_400, above=True),
        default=300.0,
        metavar="SECONDS",
        help="how long an idle environment is kept (default: %(default)s)",
    )
    local.add_argument(
        "--shutdown",
        type=decimal(0, 3_600),
        default=0.0,
        metavar="SECONDS",
        help="time after SIGTERM, as with a registered extension (default: 0, killed at once)",
    )
    local.add_argument(
        "--cpu-shares",
        default="",
        metavar="GROUP",
        help="limit processors by memory as AWS does, in control groups with this name",
    )
    local.add_argument(
        "--buffered", action="store_true", help="invoke mode BUFFERED instead of RESPONSE_STREAM"
    )
    add_json(local, "announce the URL as a JSON line")
    local.set_defaults(run=_run_lambda)


def _handler(text: str) -> str:
    if text.endswith(".toml") and not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: there is no such file")
    return text


def _run_lambda(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - only what this command needs
    import signal  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    from seawall.errors import ConfigError, SeawallError  # noqa: PLC0415
    from seawall.lab.local_lambda.function import LocalFunction  # noqa: PLC0415
    from seawall.lab.local_lambda.runtime_api import InitFailed  # noqa: PLC0415
    from seawall.lab.local_lambda.server import front  # noqa: PLC0415
    from seawall.lab.local_lambda.settings import FunctionSettings  # noqa: PLC0415
    from seawall.lab.processes import raise_file_limit  # noqa: PLC0415

    if arguments.cpu_shares:
        from seawall.lab.control_groups import ControlGroups  # noqa: PLC0415

        shares = ControlGroups()
        shares.remove(shares.make(f"{arguments.cpu_shares}-try", 1.0))
    module = "seawall.hosts.aws_lambda" if arguments.client == "seawall" else "awslambdaric"
    try:
        settings = msgspec.convert(
            {
                "command": (sys.executable, "-m", module, arguments.handler),
                "handler": arguments.handler,
                "folder": str(Path.cwd()),
                "memory_mb": arguments.memory,
                "timeout_seconds": arguments.timeout,
                "init_seconds": arguments.init,
                "max_concurrency": arguments.in_flight,
                "snapstart": arguments.snapstart,
                "provisioned": arguments.provisioned,
                "concurrency": arguments.concurrency,
                "idle_seconds": arguments.idle,
                "shutdown_seconds": arguments.shutdown,
                "cpu_group": arguments.cpu_shares,
                "invoke_mode": "BUFFERED" if arguments.buffered else "RESPONSE_STREAM",
                "environment": _function_environment(),
            },
            FunctionSettings,
        )
    except msgspec.ValidationError as error:
        raise ConfigError(f"lab lambda: {error}") from error
    if settings.snapstart and (settings.managed or settings.provisioned):
        raise ConfigError("lab lambda: --snapstart excludes --in-flight and --provisioned")

    async def serve() -> None:
        stop = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        async with (
            LocalFunction(settings, log=print_line) as function,
            front(function, arguments.host, arguments.port) as url,
        ):
            if arguments.json:
                sys.stdout.write(json.dumps({"url": url}) + "\n")
            else:
                sys.stdout.write(f"The function URL is {url}\n")
            sys.stdout.flush()
            await stop.wait()

    raise_file_limit()
    try:
        asyncio.run(serve())  # not uvloop: it cannot start a child in a process group
    except InitFailed as error:
        raise SeawallError(f"the function does not start: {error}") from error
    except OSError as error:
        raise ConfigError(f"lab lambda: {error}") from error
    return 0


def _function_environment() -> dict[str, str]:
    """Variables of this environment that the function gets: Seawall's and AWS's."""
    import os  # noqa: PLC0415

    return {
        name: value for name, value in os.environ.items() if name.startswith(("SEAWALL_", "AWS_"))
    }
