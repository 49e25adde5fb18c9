"""`seawall surge`: drive a crowd at a server, and tell what the customers saw."""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.values import number, whole, writable
from seawall.errors import ConfigError

if TYPE_CHECKING:
    from seawall.lab.surge.outcome import Progress
    from seawall.lab.surge.scenario import Closed, Open, Scenario, Shape

__all__ = ["add_parser", "number_range", "show_progress"]

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_LONGEST_TOKEN = 16_384
_RAMP_UP_SECONDS = 2.0  # within which the virtual users of a closed loop start

_DESCRIPTION = """\
Drive a crowd of customers at a server, each with a streamed turn of its own; check every answer
(complete, in order, the one to this question), and look up in their sessions afterwards that they
are durable.

Open loop (turns come when they are due, whether or not others were answered):
  --at-once 5000            everybody at one moment
  --rate 50 --for 60s       at random, 50 a second
  --rate 10..200 --for 60s  growing evenly
  --trace FILE              as it was recorded: CSV, or an export that seawall plan reads
Closed loop (customers ask, read, and ask again):
  --customers 100 --for 60s

A token comes from the environment, SEAWALL_SURGE_TOKEN, or one a customer from --token-file.
Exported scripts take it from SURGE_TOKEN.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "surge",
        help="drive a crowd at a server and measure what it sees",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="of the server's root: http://HOST:PORT")
    crowd = parser.add_argument_group("the crowd")
    crowd.add_argument("--at-once", type=whole(1, 100_000), metavar="N", help="turns at one moment")
    crowd.add_argument("--rate", metavar="R", help="arrivals a second: 50, or 10..200")
    crowd.add_argument("--for", dest="seconds", default="30s", metavar="TIME", help="default: 30s")
    crowd.add_argument("--trace", type=Path, metavar="FILE", help="recorded arrivals")
    crowd.add_argument(
        "--speed", type=number(0, 1e9, above=True), default=1.0, metavar="X", help="of the trace"
    )
    crowd.add_argument("--first", type=int, metavar="N", help="only so many of the trace")
    crowd.add_argument("--customers", type=whole(1, 100_000), metavar="N", help="closed loop")
    crowd.add_argument(
        "--think", metavar="TIME", help="between turns, at most (closed loop; default: 0s)"
    )
    crowd.add_argument(
        "--turns", type=whole(1, 1_000_000), help="of one session (closed loop; default: 1)"
    )
    crowd.add_argument(
        "--seed", type=whole(0, 2**63 - 1), default=0, help="of the arrivals (default: 0)"
    )
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--questions", type=Path, metavar="FILE", help="CSV, TSV, JSON, JSONL or lines"
    )
    asked.add_argument("--column", default="", metavar="NAME", help="of the questions")
    asked.add_argument("--as-they-are", action="store_true", help="do not number the customers")
    asked.add_argument("--api", choices=["turns", "chat"], default="turns")
    asked.add_argument("--model", default="auto", help="of the chat API (default: auto)")
    asked.add_argument("--token-file", type=Path, metavar="FILE", help="one token a line")
    asked.add_argument("--patience", default="60s", metavar="TIME", help="default: 60s")
    asked.add_argument("--keep-alive", action="store_true", help="use connections again")
    checks = parser.add_argument_group("what is checked")
    checks.add_argument(
        "--simulated",
        nargs="?",
        const=0,
        type=whole(0, 2**63 - 1),
        metavar="SEED",
        help="`seawall sim-model` is behind the server: check the text of every answer",
    )
    checks.add_argument(
        "--chunks", type=whole(1, 1_000_000), default=40, help="of the simulated model"
    )
    checks.add_argument("--first-token", default="0.4..0.8", metavar="A..B", help="of it, seconds")
    checks.add_argument("--duration", default="3..6", metavar="A..B", help="of it, seconds")
    checks.add_argument(
        "--read-back",
        type=whole(0, 1_000_000),
        default=1_000,
        metavar="N",
        help="turns looked up (default: 1000)",
    )
    out = parser.add_argument_group("results")
    out.add_argument("--json", action="store_true", help="the figures as one JSON object")
    out.add_argument("--outcomes", action="store_true", help="with every turn's own")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    out.add_argument("--export-k6", type=Path, metavar="FILE", help="write a k6 script, drive not")
    out.add_argument("--export-locust", type=Path, metavar="FILE", help="a locustfile, likewise")
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
        return 130
    return 0 if result.good else 1


def _check(arguments: argparse.Namespace) -> None:
    """That no option is given that would do nothing, and that files can be written at the end."""
    for option in ("html", "export_k6", "export_locust"):
        if (path := getattr(arguments, option)) is not None:
            writable(path, f"--{option.replace('_', '-')}")
    closed = arguments.customers is not None
    exported = arguments.export_k6 is not None or arguments.export_locust is not None
    if not closed and (arguments.turns is not None or arguments.think is not None):
        raise ConfigError("--turns and --think are of a closed loop: give --customers as well")
    if arguments.api == "chat" and (arguments.turns or 1) > 1:
        raise ConfigError("--turns: there are no sessions with --api chat; leave it out")
    if exported and arguments.token_file is not None:
        raise ConfigError("--token-file: scripts take their token from SURGE_TOKEN; leave it out")
    if exported and arguments.keep_alive and not closed:
        raise ConfigError(
            "--keep-alive: in an open loop, scripts have a user with a connection of its own for "
            "each turn; leave it out"
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
    from seawall.transport.endpoint import Endpoint  # noqa: PLC0415

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
        unique=not arguments.as_they_are,
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
    if arguments.customers is not None:
        if shapes:
            raise ConfigError("--customers is a closed loop: not with --at-once, --rate, --trace")
        turns = 1 if arguments.turns is None else arguments.turns
        if not seconds > 0:
            raise ConfigError("--for must be more than 0")
        return Closed(
            users=arguments.customers,
            seconds=seconds,
            turns=turns,
            think=0.0 if arguments.think is None else parse_seconds(arguments.think, "--think"),
            ramp_up=min(_RAMP_UP_SECONDS, seconds / 4),
            tokens=tokens,
        )
    if not shapes:
        raise ConfigError("who comes? give --at-once, --rate, --trace or --customers")
    load = Open([Crowd(shapes=shapes, tokens=tokens)])
    arrivals(load.crowds, arguments.seed)  # raises where nobody comes
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


def number_range(text: str, name: str) -> tuple[float, float]:
    """A number, or two such as 3..6: from, to."""
    low, _, high = text.partition("..")
    try:
        found = float(low), float(high or low)
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is not a number, or a range such as 3..6") from None
    if not (math.isfinite(found[0]) and math.isfinite(found[1])):
        raise ConfigError(f"{name}: {text!r} is not a finite number")
    if found[0] < 0 or found[1] < 0:
        raise ConfigError(f"{name}: {text!r} is negative")
    return found


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


def show_progress() -> "Callable[[Progress], None]":
    """A live line on a terminal, a line every two seconds elsewhere; on standard error."""
    live = sys.stderr.isatty()
    full, empty = "█░" if (sys.stderr.encoding or "").lower().startswith("utf") else "#."
    last = -2.0

    def show(progress: "Progress") -> None:
        nonlocal last
        through = progress.completed + progress.refused + progress.failed
        over = bool(progress.turns) and through >= progress.turns
        if not live and progress.seconds - last < 2.0 and not over:
            return
        last = progress.seconds
        bar = ""
        if progress.turns:
            filled = 30 * through // progress.turns
            bar = full * filled + empty * (30 - filled) + " "
        line = (
            f"{progress.seconds:5.1f} s {bar}{progress.sent} sent, {progress.streaming} streaming, "
            f"{progress.completed} completed, {progress.refused} refused, {progress.failed} failed"
        )
        sys.stderr.write(f"\r{line}   " if live else line + "\n")
        if live and over:
            sys.stderr.write("\n")
        sys.stderr.flush()

    return show
