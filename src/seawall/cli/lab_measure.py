"""`seawall lab calibrate | compare`: measurements on this machine."""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_json, add_old_name, integer, writable
from seawall.cli.lab_fleets import add_model_options, find_source, model_times
from seawall.cli.terminal import print_line, show_progress
from seawall.errors import ConfigError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.lab.calibration import Calibration
    from seawall.lab.compare import Bound
    from seawall.lab.surge.scenario import Open

__all__ = ["add_commands"]

_MAX_TURNS = 100_000


def add_commands(commands: "Commands[Parser]") -> None:
    """Add the commands to `seawall lab`."""
    calibrating = commands.add_parser(
        "calibrate",
        help="measure what a turn, an environment and a start cost here",
        description="Measure what a turn, an environment and a start cost on this machine, for "
        "`seawall plan --calibration`. It takes some minutes; run nothing else meanwhile.",
    )
    calibrating.add_argument(
        "--out",
        type=Path,
        default=Path("calibration.json"),
        metavar="FILE",
        help="file to write (default: %(default)s)",
    )
    calibrating.add_argument("--quick", action="store_true", help="measure quickly, less exactly")
    add_json(calibrating, "print the measurements as well, as one JSON object")
    comparing = commands.add_parser(
        "compare",
        help="compare pods and Lambda environments under the same crowd",
        description="Drive the same crowd at pods and at Lambda environments, all on this machine, "
        "and print both side by side, with what the planner predicted. Without a crowd, the "
        "largest one that the machine can run is used.",
    )
    comparing.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="calibration to use (default: it is measured now)",
    )
    comparing.add_argument(
        "--at-once",
        type=integer(1, _MAX_TURNS),
        action="append",
        default=[],
        metavar="N",
        help="crowd: N turns at the same moment; may be repeated",
    )
    comparing.add_argument(
        "--rate",
        action="append",
        default=[],
        metavar="R@TIME",
        help="crowd: R turns a second for TIME, such as 5@30s; may be repeated",
    )
    most = comparing.add_argument(
        "--max-turns",
        type=integer(1, _MAX_TURNS),
        default=1_000,
        metavar="N",
        help="largest crowd that is chosen automatically (default: %(default)s)",
    )
    add_old_name(comparing, "--most", most)
    comparing.add_argument(
        "--lambda",
        dest="words",
        default="",
        metavar="WORDS",
        help="options of the Lambda fleet, such as 'memory=1769 provisioned=10'",
    )
    comparing.add_argument("--html", type=Path, metavar="FILE", help="write a report as HTML")
    add_json(comparing, "print the figures as one JSON object")
    for parser in (calibrating, comparing):
        parser.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="configuration to serve (default: the store example)",
        )
        parser.add_argument(
            "--pods",
            type=integer(1, 1_000),
            default=2,
            metavar="N",
            help="number of pods (default: %(default)s)",
        )
        parser.add_argument(
            "--store",
            default="sqlite",
            help="sqlite, or the URL of a DynamoDB (default: %(default)s)",
        )
        add_model_options(parser)
    calibrating.set_defaults(run=_calibrate)
    comparing.set_defaults(run=_compare)


def _calibrate(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.lab.calibration import save_calibration  # noqa: PLC0415

    out = writable(arguments.out, "--out")
    found = _measured(arguments)
    save_calibration(found, out)
    print_line(f"written: {out}")
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


def _measured(arguments: argparse.Namespace) -> "Calibration":
    from seawall.lab.calibrate import calibrate  # noqa: PLC0415
    from seawall.lab.processes import raise_file_limit, run  # noqa: PLC0415

    raise_file_limit()
    times = model_times(arguments)
    source = find_source(arguments.config)
    return run(
        calibrate(
            source,
            pods=arguments.pods,
            store=arguments.store,
            times=times,
            report=print_line,
            quick=getattr(arguments, "quick", False),
        )
    )


def _compare(arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    from seawall.lab.calibration import load_calibration  # noqa: PLC0415
    from seawall.lab.compare import Comparison, compare  # noqa: PLC0415
    from seawall.lab.compare_report import compare_html, compare_table  # noqa: PLC0415
    from seawall.lab.fleet.spec import parse_fleet  # noqa: PLC0415
    from seawall.lab.machine import this_machine  # noqa: PLC0415
    from seawall.lab.processes import run  # noqa: PLC0415

    if importlib.util.find_spec("numba") is None:
        raise ConfigError("lab compare needs the extra 'plan': pip install 'seawall[plan]'")
    times = model_times(arguments)
    html = writable(arguments.html, "--html") if arguments.html else None
    store = f"store={arguments.store}"
    specs = [
        parse_fleet([f"pods={arguments.pods}", store], times),
        parse_fleet(["lambda", store, *arguments.words.split()], times),
    ]
    crowds = _crowds(arguments)
    if arguments.calibration is not None:
        calibration = load_calibration(arguments.calibration)
    else:
        calibration = _measured(arguments)
    source = find_source(arguments.config)
    bound = None
    if not crowds:
        bound, crowds = _largest(calibration, arguments.max_turns)
        print_line(f"the crowd: {bound.why}")
    runs = run(
        compare(calibration, specs, crowds, source, report=print_line, progress=show_progress())
    )
    comparison = Comparison(
        machine=this_machine().name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        store=arguments.store,
        calibration=calibration,
        runs=runs,
        bound=bound,
    )
    page = compare_html(comparison) if html is not None else ""
    if arguments.json:
        for each in (fleet for run in runs for fleet in run.fleets):
            each.result.outcomes.clear()
        sys.stdout.write(msgspec.json.encode(comparison).decode() + "\n")
    else:
        sys.stdout.write(printable(compare_table(comparison), keep="\n"))
    sys.stdout.flush()
    if html is not None:
        try:
            html.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--html: {html}: cannot be written: {error.strerror}") from error
    return 0 if all(fleet.result.good for each in runs for fleet in each.fleets) else 1


def _crowds(arguments: argparse.Namespace) -> "list[Open]":
    from seawall.lab.surge.scenario import Crowd, Instant, Open  # noqa: PLC0415

    crowds = [Open([Crowd(shapes=[Instant(turns)])]) for turns in arguments.at_once]
    return crowds + [_at_a_rate(text) for text in arguments.rate]


def _at_a_rate(text: str) -> "Open":
    from seawall.lab.surge.scenario import (  # noqa: PLC0415
        Crowd,
        Open,
        Poisson,
        arrivals,
    )
    from seawall.plan.inputs.notation import parse_amount, parse_seconds  # noqa: PLC0415

    rate, at, seconds = text.partition("@")
    if not at:
        raise ConfigError(f"--rate: {text!r} is not a rate and its time, such as 5@30s")
    shape = Poisson(parse_amount(rate, "--rate"), parse_seconds(seconds, "--rate"))
    if shape.rate * shape.seconds > _MAX_TURNS:
        raise ConfigError(f"--rate: {text!r} is more than {_MAX_TURNS} turns")
    crowd = Open([Crowd(shapes=[shape])])
    try:
        arrivals(crowd.crowds, seed=0)  # as the fleets' crowds
    except ConfigError:
        raise ConfigError(
            f"--rate: {text!r}: no turn arrives in that time; give a higher rate or a longer time"
        ) from None
    return crowd


def _largest(calibration: "Calibration", most: int) -> "tuple[Bound, list[Open]]":
    """Choose the largest crowd that the machine can run."""
    from seawall.lab.compare import largest_crowd  # noqa: PLC0415
    from seawall.lab.machine import this_machine  # noqa: PLC0415
    from seawall.lab.processes import raise_file_limit  # noqa: PLC0415
    from seawall.lab.surge.scenario import Crowd, Instant, Open  # noqa: PLC0415

    bound = largest_crowd(calibration, this_machine(), files=raise_file_limit(), most=most)
    return bound, [Open([Crowd(shapes=[Instant(bound.turns)])])]
