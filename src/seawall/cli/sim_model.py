"""`seawall sim-model`: the simulated model."""

import argparse
import json
import re
import sys
from pathlib import Path

from seawall.cli.arguments import Commands, Parser, integer

__all__ = ["add_parser"]

_LIMITS = {
    "requests-per-minute": "limit of each model; beyond it: 429 (default: none)",
    "tokens-per-minute": "limit of each model; beyond it: 429 (default: none)",
    "slow-above": "concurrent streams of a model above which it slows down (default: never)",
    "max-concurrent": "limit of concurrent streams of a model; beyond it: 429 (default: none)",
}


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "sim-model",
        help="serve a simulated model",
        description="Serve a simulated model that speaks OpenAI's chat completions, with given "
        "service times, for load tests and tests. It understands nothing.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=integer(0, 65_535),
        default=8099,
        metavar="N",
        help="port to listen on; 0 finds a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=integer(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="seed of times and texts (default: %(default)s)",
    )
    parser.add_argument(
        "--first-token",
        type=_range,
        default=(0.4, 0.8),
        metavar="A..B",
        help="seconds until the first token (default: 0.4..0.8)",
    )
    parser.add_argument(
        "--duration",
        type=_range,
        default=(3.0, 6.0),
        metavar="A..B",
        help="seconds of a whole reply (default: 3..6)",
    )
    parser.add_argument(
        "--chunks",
        type=integer(1, 1_000_000),
        default=40,
        metavar="N",
        help="chunks of a reply (default: %(default)s)",
    )
    parser.add_argument(
        "--script", type=Path, metavar="FILE.json", help="script of replies and tool calls"
    )
    parser.add_argument(
        "--model",
        action="append",
        dest="models",
        metavar="NAME",
        help="name to list (default: simulated); may be repeated; other names are answered too",
    )
    parser.add_argument(
        "--faults", type=Path, metavar="FILE.toml", help="script of faults to inject"
    )
    for name, what in _LIMITS.items():
        parser.add_argument(f"--{name}", type=integer(0, 10**12), default=0, metavar="N", help=what)
    parser.add_argument(
        "--reserve",
        choices=("larger", "input+max_tokens"),
        default="larger",
        help="tokens deducted when a request is admitted: the larger of its prompt and its limit "
        "of completion tokens, or both, of which the unused part is returned at the end, as on "
        "Amazon Bedrock (default: %(default)s)",
    )
    parser.add_argument(
        "--burndown",
        type=float,
        default=1.0,
        metavar="X",
        help="with input+max_tokens: tokens that a completion token counts in the end (default: 1)",
    )
    parser.set_defaults(run=_run)


def _range(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:\.\.(\d+(?:\.\d+)?))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not seconds, or a range such as 3..6: {text!r}")
    low = float(match[1])
    high = float(match[2] or match[1])
    if high < low:
        raise argparse.ArgumentTypeError(f"the range runs backwards: {text!r}")
    return low, high


def _run(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - only what this command needs
    import signal  # noqa: PLC0415

    from seawall.errors import ConfigError  # noqa: PLC0415
    from seawall.lab.processes import raise_file_limit, run  # noqa: PLC0415
    from seawall.lab.sim_model.faults import load_faults  # noqa: PLC0415
    from seawall.lab.sim_model.limits import SimLimits  # noqa: PLC0415
    from seawall.lab.sim_model.reply import SimTimes  # noqa: PLC0415
    from seawall.lab.sim_model.script import Script, load_script  # noqa: PLC0415
    from seawall.lab.sim_model.server import SimModel  # noqa: PLC0415

    raise_file_limit()
    script = load_script(arguments.script) if arguments.script else Script()
    times = SimTimes(arguments.first_token, arguments.duration, arguments.chunks)
    faults = load_faults(arguments.faults) if arguments.faults else None
    limits = SimLimits(
        requests_per_minute=arguments.requests_per_minute,
        tokens_per_minute=arguments.tokens_per_minute,
        reserve=arguments.reserve,
        burndown=arguments.burndown,
        slow_above=arguments.slow_above,
        max_concurrent=arguments.max_concurrent,
    )

    def announce(port: int) -> None:
        sys.stdout.write(json.dumps({"url": f"http://{arguments.host}:{port}/v1"}) + "\n")
        sys.stdout.flush()

    async def serve() -> None:
        model = SimModel(
            seed=arguments.seed,
            times=times,
            script=script,
            faults=faults,
            limits=limits,
            models=arguments.models or ("simulated",),
        )
        serving = asyncio.create_task(model.serve(arguments.host, arguments.port, announce))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        await asyncio.wait([serving])
        if not serving.cancelled() and (error := serving.exception()):
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{arguments.host}:{arguments.port}: {reason}") from error

    run(serve())
    return 0
