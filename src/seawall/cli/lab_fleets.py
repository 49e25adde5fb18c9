"""`seawall lab up | down | ps`: local fleets."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seawall.cli.arguments import (
    Commands,
    Parser,
    add_json,
    integer,
    number_range,
    store_example,
)
from seawall.cli.terminal import color, print_line
from seawall.errors import ConfigError, SeawallError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.lab.sim_model.reply import SimTimes

__all__ = ["add_commands", "add_model_options", "find_source", "model_times"]

_CRASHED_SECONDS = 3_600.0  # how long a crashed fleet is listed
_UP = """\
Run a fleet on this machine, as real processes, until Ctrl-C or `seawall lab down`:

  seawall lab up pods=4                  four servers behind haproxy or nginx
  seawall lab up pods=4 cpu=0.5          half a processor each
  seawall lab up lambda                  environments under the local Runtime API
  seawall lab up lambda memory=1769 provisioned=10 cpu=1

Options: pods, slots, balance (pods); memory, concurrency, provisioned, in-flight, snapstart, idle,
timeout, init (lambda); cpu, store=URL of a DynamoDB, model=URL.
"""


def add_commands(commands: "Commands[Parser]") -> None:
    """Add the commands to `seawall lab`."""
    up = commands.add_parser(
        "up",
        help="run a fleet: pods behind a balancer, or Lambda environments",
        description=_UP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up.add_argument("fleet", nargs="+", metavar="WORD", help="pods=N or lambda, then NAME=VALUE")
    up.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration to serve (default: the store example)",
    )
    up.add_argument("--name", default="default", help="name of the fleet (default: %(default)s)")
    up.add_argument("--detach", action="store_true", help="return when the fleet is ready")
    add_json(up, "announce the URL as a JSON line")
    add_model_options(up)
    up.set_defaults(run=_up)
    down = commands.add_parser(
        "down",
        help="stop a fleet",
        description="Stop a fleet with all of its processes, even if the process that started it "
        "has crashed.",
    )
    down.add_argument(
        "name", nargs="?", default="default", metavar="NAME", help="fleet (default: %(default)s)"
    )
    down.add_argument("--all", action="store_true", help="stop every fleet of this user")
    down.set_defaults(run=_down)
    listing = commands.add_parser("ps", help="list the fleets", description="List the fleets.")
    add_json(listing, "print a JSON array")
    listing.set_defaults(run=_ps)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the service times of the simulated model."""
    parser.add_argument(
        "--first-token",
        default="0.4..0.8",
        metavar="A..B",
        help="seconds until the simulated model's first token (default: %(default)s)",
    )
    parser.add_argument(
        "--duration",
        default="3..6",
        metavar="A..B",
        help="seconds of its whole reply (default: %(default)s)",
    )
    parser.add_argument(
        "--chunks",
        type=integer(1, 1_000_000),
        default=40,
        metavar="N",
        help="chunks of its reply (default: %(default)s)",
    )


def model_times(arguments: argparse.Namespace) -> "SimTimes":
    """Read the service times of the simulated model."""
    from seawall.lab.sim_model.reply import SimTimes  # noqa: PLC0415 - only what is needed

    return SimTimes(
        number_range(arguments.first_token, "--first-token"),
        number_range(arguments.duration, "--duration"),
        arguments.chunks,
    )


def find_source(given: Path | None) -> Path:
    """Return the configuration to serve: the store example of a checkout if none is given."""
    return given or store_example()


def _up(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415

    from seawall.lab.fleet.lifecycle import run_fleet  # noqa: PLC0415
    from seawall.lab.fleet.spec import parse_fleet  # noqa: PLC0415
    from seawall.lab.fleet.state import clean_up  # noqa: PLC0415
    from seawall.lab.processes import raise_file_limit  # noqa: PLC0415

    spec = parse_fleet(arguments.fleet, model_times(arguments))
    if arguments.detach:
        return _detach(arguments)
    source = find_source(arguments.config)
    clean_up(report=print_line)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with run_fleet(spec, source, name=arguments.name, report=print_line) as fleet:
            _show_notes(fleet.notes)
            announcement = {
                "url": fleet.url,
                "model": fleet.model,
                "token_file": str(fleet.token_file),
                "name": arguments.name,
                "notes": fleet.notes,
            }
            if arguments.json:
                sys.stdout.write(json.dumps(announcement) + "\n")
            else:
                sys.stdout.write(_announced(spec.title, announcement, arguments))
            sys.stdout.flush()
            await stop.wait()

    raise_file_limit()
    asyncio.run(serve())
    print_line(f"{arguments.name}: ended")
    return 0


def _show_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print_line(f"note: {note}")


def _announced(title: str, announcement: dict[str, Any], arguments: argparse.Namespace) -> str:
    model = f"--first-token {arguments.first_token} --duration {arguments.duration}"
    return (
        f"{title} at {announcement['url']}\n"
        f"  seawall surge {announcement['url']} --at-once 100 --simulated {model} \\\n"
        f"    --chunks {arguments.chunks} --token-file {announcement['token_file']}\n"
        f"  seawall lab down {announcement['name']}\n"
    )


def _detach(arguments: argparse.Namespace) -> int:
    """Start the fleet in a process of its own, and wait for its announcement."""
    import subprocess  # noqa: PLC0415

    from seawall.lab.fleet.state import log_path  # noqa: PLC0415

    command = [sys.executable, "-m", "seawall", "lab", "up", *arguments.fleet, "--json"]
    command += ["--name", arguments.name, "--first-token", arguments.first_token]
    command += ["--duration", arguments.duration, "--chunks", str(arguments.chunks)]
    if arguments.config is not None:
        command += ["--config", str(arguments.config)]
    log = log_path(arguments.name)
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # noqa: S603 - ourselves
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            text=True,
        ) as process,
    ):
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            process.wait()
            output = log.read_text(encoding="utf-8", errors="replace").strip()
            raise SeawallError(f"the fleet did not start: {output.removeprefix('seawall: ')}")
        process.returncode = 0  # it keeps running
    announcement = json.loads(line)
    _show_notes(announcement["notes"])
    if arguments.json:
        sys.stdout.write(line)
    else:
        from seawall.lab.fleet.spec import parse_fleet  # noqa: PLC0415

        sys.stdout.write(_announced(parse_fleet(arguments.fleet).title, announcement, arguments))
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from seawall.lab.fleet.state import list_fleets, load_state, tear_down  # noqa: PLC0415

    if arguments.all:
        states = list_fleets()
    elif (found := load_state(arguments.name)) is not None:
        states = [found]
    else:
        raise ConfigError(f"there is no fleet {arguments.name!r}; seawall lab ps lists them")
    for state in states:
        how = "" if state.alive else " (the process that started it had crashed)"
        killed = tear_down(state, print_line)
        sys.stdout.write(f"{state.name}: ended{how}, {killed} processes had to be killed\n")
    return 0


def _ps(arguments: argparse.Namespace) -> int:
    from seawall.lab.fleet.state import clean_up, list_fleets  # noqa: PLC0415
    from seawall.lab.processes import processes_with_mark  # noqa: PLC0415

    clean_up(seconds=_CRASHED_SECONDS, report=print_line)
    rows: list[dict[str, Any]] = [
        {
            "name": each.name,
            "fleet": each.title,
            "url": each.url,
            "processes": len(processes_with_mark(each.mark)),
            "state": "up" if each.alive else "crashed",
            "notes": each.notes,
        }
        for each in list_fleets()
    ]
    if arguments.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    for row in rows:
        sys.stdout.write(
            f"{row['name']:12} {_colored(row['state'])} {row['processes']:>4} processes  "
            f"{printable(row['fleet'])}  {printable(row['url'])}\n"
        )
        sys.stdout.writelines(f"  note: {printable(note)}\n" for note in row["notes"])
        if row["state"] == "crashed":
            sys.stdout.write(f"  remove the rest of it: seawall lab down {row['name']}\n")
    if not rows:
        sys.stdout.write("There are no fleets.\n")
    return 0


def _colored(state: str) -> str:
    return color(f"{state:8}", "green" if state == "up" else "red")
