"""What fleets there are on this machine, so that each can be torn down, whatever became of it."""

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError, SeawallError
from seawall.lab.processes import kill_processes_with_mark, processes_with_mark

__all__ = [
    "FleetState",
    "classifier_cache_path",
    "clean_up",
    "list_fleets",
    "load_state",
    "log_path",
    "process_start_ticks",
    "save_state",
    "tear_down",
]

_STOP_SECONDS = 40.0


class FleetState(Struct, frozen=True, kw_only=True):
    """A fleet that was started. mark: in the environment of all its processes.

    pid, born: of the process that holds it, and that one's start in clock ticks since boot: a
    number that was given to another process since is not it. endpoint, region: of the DynamoDB in
    which it has a table with the name of the mark; empty where it has none. notes: what could not
    be had here.
    """

    name: str
    mark: str
    pid: int
    born: int
    folder: str
    title: str = ""
    url: str = ""
    model: str = ""
    tokens: str = ""
    endpoint: str = ""
    region: str = ""
    notes: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether the process that holds it runs."""
        return process_start_ticks(self.pid) == self.born


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "") or str(Path.home() / ".local" / "state")
    return Path(base) / "seawall" / "lab"


def _state_path(name: str) -> Path:
    if not re.fullmatch(r"[\w-]{1,64}", name, re.ASCII):
        raise ConfigError(f"--name: {name!r} must be of letters, digits, - and _")
    return _state_folder() / f"{name}.json"


def save_state(state: FleetState) -> None:
    """Write it down, whole or not at all; only for its owner to read."""
    path = _state_path(state.name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(state))
    draft.chmod(0o600)
    draft.replace(path)


def classifier_cache_path() -> Path:
    """Where fleets keep the trained classifier, as a package for Lambda brings one along."""
    _state_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    return _state_folder() / "classifier"


def log_path(name: str) -> Path:
    """Where a fleet writes that nobody watches."""
    path = _state_path(name).with_suffix(".log")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def load_state(name: str) -> FleetState | None:
    """What was written down; None: there is no such fleet."""
    try:
        return msgspec.json.decode(_state_path(name).read_bytes(), type=FleetState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def list_fleets() -> list[FleetState]:
    """All that were written down."""
    place = _state_folder()
    names = sorted(each.stem for each in place.glob("*.json")) if place.is_dir() else []
    return [found for name in names if (found := load_state(name)) is not None]


def clean_up(*, seconds: float = 0.0, report: Callable[[str], None] = lambda _: None) -> None:
    """Take away what is left of crashed fleets of which no process runs any more.

    Args:
        seconds: Only of those that were written down so long ago.
        tell: What was taken away, and what could not be.
    """
    place = _state_folder()
    for path in sorted(place.glob("*.json")) if place.is_dir() else []:
        with suppress(OSError):  # another command was quicker
            if time.time() - path.stat().st_mtime < seconds:
                continue
            state = load_state(path.stem)
            if state is None:
                path.unlink()
                report(f"{path.stem}: its record cannot be read; removed")
            elif not state.alive and not processes_with_mark(state.mark):
                tear_down(state, report)
                report(f"{state.name}: had crashed; what was left is removed")


def tear_down(state: FleetState, report: Callable[[str], None] = lambda _: None) -> int:
    """End everything of a fleet: kindly where somebody holds it, then whatever is left.

    Not to be called on an event loop. tell: what could not be taken away.

    Returns how many processes had to be killed.
    """
    if state.pid != os.getpid() and state.alive:
        with suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while process_start_ticks(state.pid) == state.born and time.monotonic() < deadline:
            time.sleep(0.1)
    killed = kill_processes_with_mark(state.mark)
    if state.endpoint:
        # Only where there is a table: everybody else need not wait for these imports.
        from seawall.lab.fleet.dynamodb_table import delete_table  # noqa: PLC0415

        try:
            asyncio.run(delete_table(state.endpoint, state.mark, state.region))
        except SeawallError as error:
            report(f"note: {error}")
    folder = Path(state.folder)
    if folder.name.startswith("seawall-lab-"):
        shutil.rmtree(folder, ignore_errors=True)
    for group in Path("/sys/fs/cgroup").glob(f"**/{state.mark}-*"):
        with suppress(OSError):
            group.rmdir()
    _state_path(state.name).unlink(missing_ok=True)
    return killed


def process_start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0: there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
