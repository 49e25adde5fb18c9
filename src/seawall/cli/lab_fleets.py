"""`seawall lab up | down | ps`: fleets on this machine."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seawall.cli.values import whole
from seawall.errors import ConfigError, SeawallError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.lab.sim_model.reply import SimTimes

__all__ = ["add_commands", "add_model_options", "find_source", "model_times"]

_EXAMPLE = Path("examples/store/seawall.toml")
_CRASHED_SECONDS = 3_600.0  # a crash is listed for a while, for people to see
_UP = """\
Run a fleet on this machine, as real processes, until Ctrl-C or `seawall lab down`:

  seawall lab up pods=4                  four servers behind haproxy or nginx
  seawall lab up pods=4 cpu=0.5          each with half a processor
  seawall lab up lambda                  environments under the local Runtime API
  seawall lab up lambda memory=1769 provisioned=10 cpu=1

Words: pods, places, balance (pods); memory, concurrency, provisioned, in-flight, snapstart, idle,
timeout, init (lambda); cpu, store=URL of a DynamoDB, model=URL.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them to `seawall lab`."""
    up = commands.add_parser(
        "up",
        help="run a fleet: pods behind a balancer, or Lambda's environments",
        description=_UP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up.add_argument("fleet", nargs="+", metavar="WORD", help="pods=N or lambda, then NAME=VALUE")
    up.add_argument("--config", type=Path, help=f"what is served (default: {_EXAMPLE})")
    up.add_argument("--name", default="default", help="to tell fleets apart (default: default)")
    up.add_argument("--detach", action="store_true", help="give the terminal back")
    up.add_argument("--json", action="store_true", help="announce as a JSON line")
    add_model_options(up)
    up.set_defaults(run=_up)
    down = commands.add_parser(
        "down",
        help="end a fleet and all that is left of it",
        description="End a fleet with all its processes, also if what started it has crashed.",
    )
    down.add_argument("name", nargs="?", default="default")
    down.add_argument("--all", action="store_true", help="every fleet of this user")
    down.set_defaults(run=_down)
    listing = commands.add_parser("ps", help="the fleets that there are")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_ps)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The service times of the simulated model."""
    parser.add_argument("--first-token", default="0.4..0.8", metavar="A..B", help="of the model")
    parser.add_argument("--duration", default="3..6", metavar="A..B", help="of a whole reply")
    parser.add_argument("--chunks", type=whole(1, 1_000_000), default=40, help="pieces of a reply")


def model_times(arguments: argparse.Namespace) -> "SimTimes":
    """Those options as data."""
    from seawall.cli.surge import number_range  # noqa: PLC0415 - only what this command needs
    from seawall.lab.sim_model.reply import SimTimes  # noqa: PLC0415

    return SimTimes(
        number_range(arguments.first_token, "--first-token"),
        number_range(arguments.duration, "--duration"),
        arguments.chunks,
    )


def find_source(given: Path | None) -> Path:
    """The configuration that fleets serve: the store example of a checkout if none is given."""
    if given is not None:
        return given
    for base in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (base / _EXAMPLE).is_file():
            import os  # noqa: PLC0415

            os.chdir(base)  # the example's tools are found from there
            return _EXAMPLE
    raise ConfigError(f"{_EXAMPLE} is not here; give --config, or run it from a checkout")


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
    clean_up(report=_report)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with run_fleet(spec, source, name=arguments.name, report=_report) as fleet:
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
    _report(f"{arguments.name}: ended")
    return 0


def _report(line: str) -> None:
    print(line, file=sys.stderr)


def _show_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _announced(title: str, announcement: dict[str, Any], arguments: argparse.Namespace) -> str:
    model = f"--first-token {arguments.first_token} --duration {arguments.duration}"
    return (
        f"{title} at {announcement['url']}\n"
        f"  seawall surge {announcement['url']} --at-once 100 --simulated {model} \\\n"
        f"    --chunks {arguments.chunks} --token-file {announcement['token_file']}\n"
        f"  seawall lab down {announcement['name']}\n"
    )


def _detach(arguments: argparse.Namespace) -> int:
    """The same as a process of its own, whose announcement is waited for."""
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
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            raise SeawallError(f"the fleet did not start: {said.removeprefix('seawall: ')}")
        process.returncode = 0  # it goes on without us
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
        how = "" if state.alive else " (what started it had crashed)"
        killed = tear_down(state, _report)
        sys.stdout.write(f"{state.name}: ended{how}, {killed} processes had to be killed\n")
    return 0


def _ps(arguments: argparse.Namespace) -> int:
    from seawall.lab.fleet.state import clean_up, list_fleets  # noqa: PLC0415
    from seawall.lab.processes import processes_with_mark  # noqa: PLC0415

    clean_up(seconds=_CRASHED_SECONDS, report=_report)
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
            f"{row['name']:12} {row['state']:8} {row['processes']:>4} processes  "
            f"{printable(row['fleet'])}  {printable(row['url'])}\n"
        )
        sys.stdout.writelines(f"  note: {printable(note)}\n" for note in row["notes"])
        if row["state"] == "crashed":
            sys.stdout.write(f"  what is left of it goes by: seawall lab down {row['name']}\n")
    if not rows:
        sys.stdout.write("there are no fleets\n")
    return 0
