"""`seawall surge`: load generator with virtual users that checks every answer."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import (
    Commands,
    Parser,
    add_json,
    add_old_name,
    decimal,
    integer,
    number_range,
    writable,
)
from seawall.cli.terminal import INTERRUPTED, show_progress
from seawall.errors import ConfigError

if TYPE_CHECKING:
    from seawall.lab.surge.scenario import Closed, Open, Scenario, Shape

__all__ = ["add_parser"]

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_LONGEST_TOKEN = 16_384
_RAMP_UP_SECONDS = 2.0  # within which the users of a closed loop start

_DESCRIPTION = """\
Generate load on a server with virtual users, each with a streamed turn of its own. Every answer is
checked (complete, in order, the one to this question); afterwards the sessions are read back to
check that the turns are durable.

Open loop (turns arrive at their times, whether or not others were answered):
  --at-once 5000            all at the same moment
  --rate 50 --for 60s       at random, 50 a second
  --rate 10..200 --for 60s  growing evenly
  --trace FILE              as recorded: CSV, or an export that seawall plan reads
Closed loop (users ask, read, and ask again):
  --users 100 --for 60s

The token is read from the environment variable SEAWALL_SURGE_TOKEN, or --token-file has one for
each user. Exported scripts read it from SURGE_TOKEN.
"""


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "surge",
        help="generate a surge of load on a server and measure it",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="root of the server: http://HOST:PORT")
    crowd = parser.add_argument_group("load")
    crowd.add_argument(
        "--at-once", type=integer(1, 100_000), metavar="N", help="turns at the same moment"
    )
    crowd.add_argument("--rate", metavar="R", help="arrivals a second: 50, or 10..200")
    crowd.add_argument(
        "--for",
        dest="seconds",
        default="30s",
        metavar="TIME",
        help="duration of --rate and --users (default: %(default)s)",
    )
    crowd.add_argument("--trace", type=Path, metavar="FILE", help="recorded arrivals")
    crowd.add_argument(
        "--speed",
        type=decimal(0, 1e9, above=True),
        default=1.0,
        metavar="X",
        help="speed at which the trace is replayed (default: %(default)s)",
    )
    crowd.add_argument(
        "--first", type=int, metavar="N", help="replay only the first N arrivals of the trace"
    )
    users = crowd.add_argument(
        "--users", type=integer(1, 100_000), metavar="N", help="virtual users of a closed loop"
    )
    add_old_name(parser, "--customers", users)
    crowd.add_argument(
        "--think",
        metavar="TIME",
        help="longest pause between turns of a user (closed loop; default: 0s)",
    )
    crowd.add_argument(
        "--turns",
        type=integer(1, 1_000_000),
        metavar="N",
        help="turns in one session (closed loop; default: 1)",
    )
    crowd.add_argument(
        "--seed",
        type=integer(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="seed of random arrivals (default: %(default)s)",
    )
    asked = parser.add_argument_group("requests")
    asked.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="questions as CSV, TSV, JSON, JSONL or lines (default: built in)",
    )
    asked.add_argument("--column", default="", metavar="NAME", help="column of the questions")
    verbatim = asked.add_argument(
        "--verbatim", action="store_true", help="do not add the number of the user to questions"
    )
    add_old_name(parser, "--as-they-are", verbatim)
    asked.add_argument(
        "--api",
        choices=["turns", "chat"],
        default="turns",
        help="Seawall's turns, or OpenAI's chat completions (default: %(default)s)",
    )
    asked.add_argument(
        "--model", default="auto", metavar="NAME", help="model of the chat API (default: auto)"
    )
    asked.add_argument(
        "--token-file", type=Path, metavar="FILE", help="bearer tokens of the users, one a line"
    )
    asked.add_argument(
        "--patience",
        default="60s",
        metavar="TIME",
        help="when a user gives up (default: %(default)s)",
    )
    asked.add_argument("--keep-alive", action="store_true", help="reuse connections")
    checks = parser.add_argument_group("checks")
    checks.add_argument(
        "--simulated",
        nargs="?",
        const=0,
        type=integer(0, 2**63 - 1),
        metavar="SEED",
        help="the server uses `seawall sim-model`: check the text of every answer",
    )
    checks.add_argument(
        "--chunks",
        type=integer(1, 1_000_000),
        default=40,
        metavar="N",
        help="chunks of the simulated model's reply (default: %(default)s)",
    )
    checks.add_argument(
        "--first-token",
        default="0.4..0.8",
        metavar="A..B",
        help="seconds until its first token (default: %(default)s)",
    )
    checks.add_argument(
        "--duration",
        default="3..6",
        metavar="A..B",
        help="seconds of its whole reply (default: %(default)s)",
    )
    checks.add_argument(
        "--read-back",
        type=integer(0, 1_000_000),
        default=1_000,
        metavar="N",
        help="most turns that are read back afterwards (default: %(default)s)",
    )
    out = parser.add_argument_group("results")
    add_json(out, "print the figures as one JSON object")
    out.add_argument("--outcomes", action="store_true", help="add every turn to --json")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a report as HTML")
    out.add_argument(
        "--export-k6", type=Path, metavar="FILE", help="write a k6 script instead of running"
    )
    out.add_argument(
        "--export-locust", type=Path, metavar="FILE", help="write a locustfile instead of running"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - only what this command needs

    from seawall.lab.processes import run  # noqa: PLC0415 - only what this command needs
    from seawall.lab.surge.export import to_k6, to_locust  # noqa: PLC0415
    from seawall.lab.surge.process import drive_in_subprocess  # noqa: PLC0415
    from seawall.lab.surge.report import as_html, as_json, as_table  # noqa: PLC0415

    _check(arguments)
    scenario = _scenario(arguments)
    exported = False
    for path, export in ((arguments.export_k6, to_k6), (arguments.export_locust, to_locust)):
        if path is not None:
            _write(path, export(scenario))
            exported = True
    if exported:
        return 0
    progress = show_progress()
    try:
        result = run(drive_in_subprocess(scenario, progress, interruptible=True))
    except asyncio.CancelledError:  # a second Ctrl-C
        raise KeyboardInterrupt from None
    if result.interrupted is not None and sys.stderr.isatty():
        sys.stderr.write("\n")
    if arguments.html is not None:
        _write(arguments.html, as_html(result, scenario))
    if arguments.json:
        sys.stdout.write(as_json(result, outcomes=arguments.outcomes).decode() + "\n")
    else:
        sys.stdout.write(as_table(result))
    if result.interrupted is not None:
        return INTERRUPTED
    return 0 if result.good else 1


def _check(arguments: argparse.Namespace) -> None:
    """Check that no option is without effect, and that results can be written."""
    for option in ("html", "export_k6", "export_locust"):
        if (path := getattr(arguments, option)) is not None:
            writable(path, f"--{option.replace('_', '-')}")
    closed = arguments.users is not None
    exported = arguments.export_k6 is not None or arguments.export_locust is not None
    if not closed and (arguments.turns is not None or arguments.think is not None):
        raise ConfigError("--turns and --think need a closed loop: give --users as well")
    if arguments.api == "chat" and (arguments.turns or 1) > 1:
        raise ConfigError("--turns: there are no sessions with --api chat; leave it out")
    if exported and arguments.token_file is not None:
        raise ConfigError("--token-file: scripts read their token from SURGE_TOKEN; leave it out")
    if exported and arguments.keep_alive and not closed:
        raise ConfigError(
            "--keep-alive: in an open loop, scripts have a user with its own connection for each "
            "turn; leave it out"
        )
    if arguments.outcomes and not arguments.json:
        raise ConfigError("--outcomes is a part of --json: give that as well")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _scenario(arguments: argparse.Namespace) -> "Scenario":
    from seawall.lab.sim_model.reply import SimTimes  # noqa: PLC0415
    from seawall.lab.surge.questions import read_questions  # noqa: PLC0415
    from seawall.lab.surge.scenario import QUESTIONS, Scenario, Simulated  # noqa: PLC0415
    from seawall.plan.inputs.notation import parse_seconds  # noqa: PLC0415
    from seawall.transport.http_client import Endpoint  # noqa: PLC0415

    url = arguments.url.rstrip("/")
    try:
        Endpoint.parse(url)
    except ValueError as error:
        raise ConfigError(f"URL: {error}") from None
    simulated = None
    if arguments.simulated is not None:
        first, whole = (
            number_range(getattr(arguments, name), f"--{name.replace('_', '-')}")
            for name in ("first_token", "duration")
        )
        simulated = Simulated(arguments.simulated, SimTimes(first, whole, arguments.chunks))
    questions = list(QUESTIONS)
    if arguments.questions is not None:
        questions = read_questions(arguments.questions, arguments.column)
    patience = parse_seconds(arguments.patience, "--patience")
    if not patience > 0:
        raise ConfigError("--patience: must be more than 0")
    return Scenario(
        url=url,
        load=_load(arguments, _tokens(arguments.token_file)),
        questions=questions,
        unique=not arguments.verbatim,
        api=arguments.api,
        model=arguments.model,
        simulated=simulated,
        patience=patience,
        keep_alive=arguments.keep_alive,
        read_back=arguments.read_back,
        seed=arguments.seed,
    )


def _load(arguments: argparse.Namespace, tokens: list[str]) -> "Open | Closed":
    from seawall.lab.surge.scenario import (  # noqa: PLC0415
        Closed,
        Crowd,
        Open,
        arrivals,
    )
    from seawall.plan.inputs.notation import parse_seconds  # noqa: PLC0415

    seconds = parse_seconds(arguments.seconds, "--for")
    shapes = _shapes(arguments, seconds)
    if arguments.users is not None:
        if shapes:
            raise ConfigError("--users is a closed loop: not with --at-once, --rate, --trace")
        turns = 1 if arguments.turns is None else arguments.turns
        if not seconds > 0:
            raise ConfigError("--for must be more than 0")
        return Closed(
            users=arguments.users,
            seconds=seconds,
            turns=turns,
            think=0.0 if arguments.think is None else parse_seconds(arguments.think, "--think"),
            ramp_up=min(_RAMP_UP_SECONDS, seconds / 4),
            tokens=tokens,
        )
    if not shapes:
        raise ConfigError("no load: give --at-once, --rate, --trace or --users")
    load = Open([Crowd(shapes=shapes, tokens=tokens)])
    arrivals(load.crowds, arguments.seed)  # raises if no turn arrives
    return load


def _shapes(arguments: argparse.Namespace, seconds: float) -> "list[Shape]":
    from seawall.lab.surge.scenario import Instant, Poisson, Ramp, Replay  # noqa: PLC0415

    shapes: list[Shape] = []
    if arguments.at_once is not None:
        shapes.append(Instant(arguments.at_once))
    if arguments.rate is not None:
        low, high = number_range(arguments.rate, "--rate")
        if not high > 0 or not seconds > 0:
            raise ConfigError("--rate and --for must be more than 0")
        shapes.append(Poisson(high, seconds) if low == high else Ramp(low, high, seconds))
    if arguments.trace is not None:
        from seawall.plan.inputs.exports.reading import read_trace  # noqa: PLC0415 - numpy

        if arguments.first is not None and arguments.first < 1:
            raise ConfigError("--first must be 1 or more")
        times = read_trace(arguments.trace).times[: arguments.first] / arguments.speed
        shapes.append(Replay(times.tolist()))
    return shapes


def _tokens(path: Path | None) -> list[str]:
    if path is None:
        token = os.environ.get("SEAWALL_SURGE_TOKEN", "")
        if token and not _is_token(token):
            raise ConfigError("SEAWALL_SURGE_TOKEN (environment): is not a bearer token")
        return [token] if token else []
    try:
        lines = path.read_text(encoding="ascii").split()
    except OSError as error:
        raise ConfigError(f"--token-file: {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--token-file: {path}: is not ASCII (byte {error.start})") from None
    if not lines:
        raise ConfigError(f"--token-file: {path}: is empty")
    for at, token in enumerate(lines, 1):
        if not _is_token(token):
            raise ConfigError(f"--token-file: {path}: token {at} is not a bearer token")
    return lines


def _is_token(text: str) -> bool:
    return len(text) <= _LONGEST_TOKEN and _TOKEN.fullmatch(text) is not None
